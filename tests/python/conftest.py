"""The Python package: its class in real hubs, and the wheel in a fresh environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
E2E = ROOT / "tests" / "e2e"
# After our own folder, for both have a conftest.
sys.path += [str(ROOT / "scripts"), str(E2E)]

from devkit.child import adopt_orphans, kill_descendants  # noqa: E402
from devkit.places import HOME, hub_python  # noqa: E402

HUB_SIDE = Path(__file__).with_name("hub_side.py")
STAND_IN = [sys.executable, "-S", str(Path(__file__).with_name("stand_in.py"))]


# As on a server: the folder of the hub's own programs is not on it.
BARE_PATH = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/")}


def run(command, env=None, **options):
    """What a command prints. If it fails, the test does, with all that it said."""
    done = subprocess.run(
        [str(word) for word in command],
        env=env or BARE_PATH,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def pytest_sessionstart():
    # Whatever a hub leaves behind ends with us.
    adopt_orphans()


def pytest_sessionfinish():
    kill_descendants()


class HubSide:
    """A Python that has a JupyterHub and our package from `python/`, and starts proxies as that hub would."""

    def __init__(self, python, folder):
        self.record = folder / "record.json"
        self.process = subprocess.Popen(
            [python, HUB_SIDE],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, ours=None, parents=None, **more):
        """What happens at the start with these settings of `c.PointsmanProxy` and `c.ConfigurableHTTPProxy`."""
        config = {
            "PointsmanProxy": {"command": STAND_IN, **(ours or {})},
            "ConfigurableHTTPProxy": {"api_url": "http://127.0.0.1:1", **(parents or {})},
        }
        self.process.stdin.write(json.dumps({"config": config, "record": str(self.record), **more}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


@pytest.fixture(scope="module", params=[6, 5], ids=["hub6", "hub5"])
def hub_side(request, tmp_path_factory):
    side = HubSide(hub_python(request.param), tmp_path_factory.mktemp("hub"))
    yield side
    side.end()


def maturin(folder, *words):
    """Let maturin build something into an empty folder, and give the one file that is there then."""
    program = HOME / "wheel" / "bin" / "maturin"
    if not program.exists():
        pytest.fail("maturin is not there. Get it with: scripts/dev-env wheel", pytrace=False)
    environment = {**os.environ, "CARGO": str(Path(__file__).with_name("cargo"))}
    run([program, *words, "--out", folder], env=environment, cwd=ROOT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, with the program that the Rust tests have built."""
    return maturin(tmp_path_factory.mktemp("wheel"), "build", "--locked", "--profile", "dev")


@pytest.fixture(scope="session")
def source_distribution(tmp_path_factory):
    return maturin(tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """The folder of programs of a fresh environment with the newest JupyterHub, into which the wheel was installed.

    pip has downloaded most of it for `scripts/dev-env` already, and keeps it in its own cache.
    """
    folder = tmp_path_factory.mktemp("environment") / "hub"
    run([sys.executable, "-m", "venv", folder])
    run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "jupyterhub", wheel], env=dict(os.environ))
    return folder / "bin"
