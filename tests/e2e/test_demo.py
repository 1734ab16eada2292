"""The demos themselves, as a person starts and stops them: most on the one without etcd, the essential on both."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from conftest import ROOT
from demo import START_SECONDS, STOP_SECONDS, Demo, ended_after, log_in_and_spawn
from devkit.child import wait_until
from devkit.places import HOME

ONE_MACHINE = {"words": ["demo"], "parts": ["hub", "pointsman", "traefik"]}
WITH_ETCD = {"words": ["demo", "--etcd"], "parts": ["etcd", "pointsman", "traefik", "hub"]}
both_demos = pytest.mark.parametrize("kind", [ONE_MACHINE, WITH_ETCD], ids=["one-machine", "etcd"])


@pytest.fixture
def busy_port():
    """A port that somebody else listens on: the demo's usual one, if it is not busy anyway."""
    with socket.socket() as somebody:
        somebody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            somebody.bind(("127.0.0.1", 8000))
            somebody.listen()
        yield 8000


@pytest.fixture
def kind():
    """Which demo it is, where a test doesn't say."""
    return ONE_MACHINE


@pytest.fixture
def demo(binary, tmp_path, busy_port, kind):
    with ended_after(Demo(binary, tmp_path, busy_port, kind)) as demo:
        yield demo


@both_demos
def test_ctrl_c_leaves_nothing(demo):
    address = demo.wait_until_open()
    assert not address.endswith(":8000")
    assert "Port 8000 is taken" in demo.said()
    log_in_and_spawn(address)
    assert any("jupyterhub-singleuser" in command or "singleuser" in command for command in demo.processes().values())
    demo.press_ctrl_c()
    assert demo.process.wait(STOP_SECONDS) == 0, demo.said()
    demo.assert_nothing_left(5)
    demo.wait_for(r"^Everything is stopped\.$", 5)


@pytest.mark.parametrize(
    "end", [lambda demo: demo.hang_up(), lambda demo: demo.process.terminate()], ids=["hangup", "sigterm"]
)
def test_other_ends_leave_nothing_either(demo, end):
    demo.wait_until_open()
    end(demo)
    assert demo.process.wait(STOP_SECONDS) == 0
    demo.assert_nothing_left(5)


@pytest.mark.parametrize(
    ("kind", "who"),
    [(ONE_MACHINE, "front"), (ONE_MACHINE, "worker"), (ONE_MACHINE, "both"), (WITH_ETCD, "both")],
    ids=["front", "worker", "both", "etcd-both"],
)
def test_a_killed_demo_leaves_nothing(demo, who):
    address = demo.wait_until_open()
    log_in_and_spawn(address)
    front = demo.process.pid
    worker = int(Path(f"/proc/{front}/task/{front}/children").read_text().split()[0])
    victims = {"front": [front], "worker": [worker], "both": [front, worker]}[who]
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    demo.process.wait(STOP_SECONDS)
    if who == "both":
        # Nobody is left to remove the folder; the next demo does it.
        wait_until("no process is left", lambda: not demo.processes(), STOP_SECONDS)
        subprocess.run(
            [sys.executable, ROOT / "scripts" / "demo", "--binary", "/bin/false", "--no-setup"],
            capture_output=True,
            timeout=60,
        )
    demo.assert_nothing_left()


@pytest.mark.parametrize(("kind", "part"), [(ONE_MACHINE, "hub"), (WITH_ETCD, "traefik")], ids=["hub", "etcd-traefik"])
def test_a_part_that_dies_is_named_with_its_log(demo, part):
    demo.wait_until_open()
    os.kill(demo.pids[part], signal.SIGKILL)
    assert demo.process.wait(STOP_SECONDS) == 1
    demo.wait_for(rf"^{part} was ended by signal 9\. The end of its log:$", 5)
    demo.assert_nothing_left(5)


def test_a_killed_traefik_or_pointsman_comes_back(demo):
    """Pointsman starts its Traefik again, and the hub its Pointsman."""
    address = demo.wait_until_open()
    log_in_and_spawn(address)
    for part in ("traefik", "pointsman"):
        os.kill(demo.pids[part], signal.SIGKILL)
        wait_until(
            f"{part} is back", lambda: requests.get(f"{address}/user/demo-user/api", timeout=5).status_code == 200, 30
        )
    demo.press_ctrl_c()
    assert demo.process.wait(STOP_SECONDS) == 0, demo.said()
    demo.assert_nothing_left(5)


@both_demos
def test_a_part_that_can_not_start_is_named(kind, tmp_path):
    demo = Demo("/bin/false", tmp_path, 8000, kind)
    assert demo.process.wait(START_SECONDS) == 1
    # A hub whose proxy does not start ends, and says why.
    part = "pointsman" if kind is WITH_ETCD else "hub"
    demo.wait_for(rf"^{part} ended with status 1\.", 5)
    assert not [folder for folder in HOME.glob("demo-*") if str(folder) in demo.said()]
