"""The Python package: its class in real hubs, and the wheel in a fresh environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from devkit.places import hub_python  # noqa: E402

HUB_SIDE = Path(__file__).with_name("hub_side.py")
STAND_IN = [sys.executable, "-S", str(Path(__file__).with_name("stand_in.py"))]


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
        config = {"PointsmanProxy": {"command": STAND_IN, **(ours or {})}, "ConfigurableHTTPProxy": parents or {}}
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
