"""The idle culler ends the servers that nobody uses, and no others: what it knows comes from Pointsman, by way of the hub."""

import contextlib
import sys
import threading
import time
from datetime import datetime

import pytest
import requests
import websocket
from conftest import running
from devkit.child import Child, wait_until
from devkit.parts import plain_environment
from notebook import Kernel
from test_one_machine import machine

NOTEBOOK = "notebook-open"
# How long a server may be idle: longer than Pointsman, the hub and the culler take together to see that it is not.
TIMEOUT_SECONDS = 35
ACTIVITY_INTERVAL_SECONDS = "3"


@pytest.fixture
def hub_on_one_machine(binary):
    """A hub that starts Pointsman itself, and asks it every few seconds when servers were last used."""
    stack = machine(binary, "culling", 6)
    stack.hub_environment["E2E_ACTIVITY_INTERVAL"] = ACTIVITY_INTERVAL_SECONDS
    with running(stack) as hub:
        yield hub


@pytest.fixture
def hub_with_etcd(hub):
    """The hub of the tests with etcd, asking as often."""
    hub.stack.children["hub"].stop(30)
    hub.stack.hub_environment["E2E_ACTIVITY_INTERVAL"] = ACTIVITY_INTERVAL_SECONDS
    hub.stack.start_hub()
    try:
        yield hub
    finally:
        # The next test starts it as it was.
        del hub.stack.hub_environment["E2E_ACTIVITY_INTERVAL"]
        hub.stack.children["hub"].stop(30)


@contextlib.contextmanager
def culler_of(hub):
    """The real culler, as a service of the hub would be started, but not yet started."""
    stack = hub.stack
    command = [
        sys.executable, "-m", "jupyterhub_idle_culler",
        f"--url={stack.public_url}/hub/api", f"--timeout={TIMEOUT_SECONDS}", "--cull-every=2",
    ]  # fmt: skip
    environment = {**plain_environment(), "JUPYTERHUB_API_TOKEN": hub.token}
    child = Child("culler", command, stack.place("logs") / "culler.log", env=environment)
    stack.children["culler"] = child
    try:
        yield child
    finally:
        child.stop(10)
        del stack.children["culler"]


def listen(socket):
    """Read what comes, as a browser does; the library answers pings meanwhile."""
    try:
        while True:
            socket.recv()
    except (websocket.WebSocketException, OSError):
        pass


@contextlib.contextmanager
def asked_again_and_again(hub, name):
    """Meanwhile a user's server is asked for a page every few seconds."""
    stopped = threading.Event()

    def ask():
        while not stopped.wait(3):
            requests.get(f"{hub.stack.public_url}{hub.path(name)}page", timeout=10)

    threading.Thread(target=ask, daemon=True).start()
    try:
        yield
    finally:
        stopped.set()


def is_running(hub, name):
    return "" in hub.user(name)["servers"]


@pytest.mark.timeout(300)
def test_the_idle_are_culled_and_an_open_notebook_is_not(hub_on_one_machine):
    with culler_of(hub_on_one_machine) as culler:
        cull(hub_on_one_machine, culler)


@pytest.mark.slow
@pytest.mark.parametrize("world", [6], ids=["hub6"], indirect=True)
@pytest.mark.timeout(300)
def test_so_it_is_with_etcd(hub_with_etcd):
    with culler_of(hub_with_etcd) as culler:
        cull(hub_with_etcd, culler)


def cull(hub, culler):
    """Of three servers the idle one is culled, one that is asked for pages is not, nor an open notebook until it closes."""
    names = [NOTEBOOK, "idle", "busy"]
    hub.add_users(names)
    # A notebook server takes long to start on a busy machine: it comes first, before the others' idle time begins.
    for name in names:
        hub.start(name)
    # Only pings and pongs go over the kernel; the notebook server reports no activity itself for the next five minutes.
    with asked_again_and_again(hub, "busy"), contextlib.closing(Kernel(hub, NOTEBOOK)) as kernel:
        threading.Thread(target=listen, args=(kernel.socket,), daemon=True).start()
        opened = time.monotonic()
        culler.start()
        wait_until("the idle server is culled", lambda: not is_running(hub, "idle"), 120, [culler], 1)
        wait_until(
            "the notebook has been open for twice the time",
            lambda: time.monotonic() > opened + 2 * TIMEOUT_SECONDS,
            3 * TIMEOUT_SECONDS,
            [culler],
            1,
        )
        assert is_running(hub, "busy"), culler.tail()
        assert is_running(hub, NOTEBOOK), culler.tail()
        last = datetime.fromisoformat(hub.routes()[f"/user/{NOTEBOOK}"]["last_activity"].replace("Z", "+00:00"))
        assert (datetime.now(last.tzinfo) - last).total_seconds() < TIMEOUT_SECONDS, last
        kernel.close()
        wait_until("the closed notebook is culled", lambda: not is_running(hub, NOTEBOOK), 120, [culler], 1)
        assert is_running(hub, "busy"), culler.tail()
