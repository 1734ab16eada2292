"""`docs/guarantees.md` names what holds each promise. Here it is looked at whether that exists."""

import functools
import re
import subprocess
import sys

import pytest
from conftest import ROOT

PAGE = ROOT / "docs" / "guarantees.md"


def promises():
    """The rows of the tables with three columns: the promise, and what is named as holding it."""
    rows = [line.strip("| \n").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [(row[0], row[2]) for row in rows if len(row) == 3 and row[0] != "Promise"]


@functools.cache
def faults():
    """The names of all faults, also of those that this machine can't do."""
    listed = subprocess.run(
        [sys.executable, ROOT / "tests" / "chaos" / "run", "--list"], capture_output=True, text=True, check=True
    )
    return re.findall(r"^\| `([\w-]+)` \|", listed.stdout, re.M)


def exists(name):
    """Whether there is a test, or a fault, of this name."""
    kind, _, fault = name.partition(":")
    if kind == "chaos":
        return fault in faults()
    if kind == "containers":
        file, _, test = fault.partition("::")
        return f"fn {test}(" in (ROOT / "tests" / "containers" / "src" / f"{file}.rs").read_text()
    file, _, test = name.partition("::")
    if file.endswith(".py"):
        return f"def {test}(" in (ROOT / "tests" / "e2e" / file).read_text()
    places = [ROOT / "tests" / "integration" / f"{file}.rs", *(ROOT / "tests" / file).glob("*.rs"), ROOT / f"{file}.rs"]
    return any(place.exists() and f"fn {test}(" in place.read_text() for place in places)


@pytest.mark.parametrize(("promise", "held_by"), promises(), ids=lambda text: text[:30])
def test_what_holds_a_promise_exists(promise, held_by):
    names = re.findall(r"`([^`]+)`", held_by)
    assert names, f"nothing holds: {promise}"
    assert [name for name in names if not exists(name)] == []


def test_the_page_is_read_at_all():
    assert len(promises()) > 20
    assert not exists("control::what_nobody_has_written")
