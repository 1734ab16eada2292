"""The program knows every flag and variable that the chart gives it."""

import re

import pytest
from cases import CASES, rendered
from engine import ROOT
from workloads import all_pods

IMAGE = "quay.io/pointsman/pointsman"
PAGE = (ROOT / "docs" / "configuration.md").read_text()
# A test of Pointsman holds these tables to the code.
SETTINGS = set(re.findall(r"^\| `([a-z-]+)`(?: \(list\))? \|", PAGE, re.M))
# Options of commands are declared by name where they are read.
OPTIONS = {
    name for path in (ROOT / "src" / "cli").rglob("*.rs") for name in re.findall(r'\(\s*"([a-z-]+)"', path.read_text())
}
# Read before there are settings, or by the hub's own name.
OTHER_VARIABLES = {"CONFIGPROXY_AUTH_TOKEN"}


def ours(things):
    """The containers that run our program: their pods, command and flags, and variables."""
    for pods in all_pods(things):
        for container in pods.containers:
            if container["image"].startswith(IMAGE):
                words = container.get("args", [])
                command = words[0] if words and not words[0].startswith("-") else None
                flags = {word[2:].split("=")[0] for word in words if word.startswith("--")}
                yield f"{pods.name}, {container['name']}", command, flags, [v["name"] for v in container.get("env", [])]


@pytest.mark.parametrize("case", CASES)
def test_flags_and_variables_are_known(case):
    seen = list(ours(rendered(case).everything))
    assert seen
    for where, command, flags, variables in seen:
        assert command is None or command in OPTIONS or f'"{command}"' in (ROOT / "src" / "cli.rs").read_text(), command
        unknown = flags - SETTINGS - (OPTIONS if command else set())
        assert not unknown, f"{where}: no flags {unknown}"
        settings = {name.removeprefix("POINTSMAN_").lower().replace("_", "-") for name in variables
                    if name.startswith("POINTSMAN_")}  # fmt: skip
        assert settings <= SETTINGS, f"{where}: no settings {settings - SETTINGS}"
        rest = {name for name in variables if not name.startswith("POINTSMAN_")} - OTHER_VARIABLES
        used = {name for name in rest if any(f"$({name})" in str(c) for p in all_pods(rendered(case).everything) for c in p.containers)}
        assert rest == used, f"{where}: nobody reads {rest - used}"


def test_what_is_unknown_is_seen():
    assert {"metrics-port", "snapshot-dir", "etcd-endpoints", "traefik-api"} <= SETTINGS
    assert not {"metric-port", "option", "default"} & SETTINGS
    assert {"private-address", "traefik-version"} <= OPTIONS
    assert "private-adress" not in OPTIONS
