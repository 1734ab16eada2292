"""Where things lie in a checkout, and where programs are found."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".pointsman"
BIN = HOME / "bin"
LOGS = HOME / "logs"
EXAMPLES = ROOT / "examples"


class Missing(Exception):
    """Something can't be had. The message says what, why, and which command gets it."""


def program(name):
    """The path of a program that `scripts/dev-env` got, or that the environment names, or that is on PATH."""
    named = os.environ.get("POINTSMAN_TEST_" + name.upper().replace("-", "_"))
    if named:
        if not os.access(named, os.X_OK):
            raise Missing(f"POINTSMAN_TEST_{name.upper()} names {named}, which is no program that can be run.")
        return Path(named)
    ours = BIN / name
    if os.access(ours, os.X_OK):
        return ours
    found = shutil.which(name)
    if found:
        return Path(found)
    raise Missing(f"{name} was not found. `make setup` gets it.")


def hub_python(version):
    """The Python of the virtual environment that holds JupyterHub 5 or 6."""
    python = HOME / f"hub{version}" / "bin" / "python"
    if not python.exists():
        raise Missing(f"JupyterHub {version} is not there ({python.parent.parent}). `make setup` gets it.")
    return python


def build_environment():
    """The environment in which cargo finds protoc, also when `scripts/dev-env` had to bring its own."""
    environment = dict(os.environ)
    protoc = BIN / "protoc"
    if protoc.exists():
        environment.setdefault("PROTOC", str(protoc))
        include = HOME / "protoc-include"
        if include.exists():
            environment.setdefault("PROTOC_INCLUDE", str(include))
    return environment
