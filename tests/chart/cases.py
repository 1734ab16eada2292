"""The values files of `ci/`, each rendered once, and files that `make chart-accept` writes."""

import os
from functools import cache

from engine import CHART, render

FOLDER = CHART / "ci"
CASES = sorted(path.name.removesuffix("-values.yaml") for path in FOLDER.glob("*-values.yaml"))
WRITES = os.environ.get("POINTSMAN_TEST_WRITE_CHART") == "1"
RELEASE = "pointsman"


def values_file(case):
    return FOLDER / f"{case}-values.yaml"


@cache
def rendered(case):
    """What a values file comes to. Shared by all tests: copy it before you change it."""
    return render(values_file(case), release=RELEASE)


def compare(path, text):
    """The text must be what the file says; or with `make chart-accept` it becomes so."""
    if WRITES:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path.name} is missing; write it with: make chart-accept"
    assert text == path.read_text(), f"{path.name} says something else; if the change is meant: make chart-accept"
