"""Real etcd, real Traefik, real JupyterHub, and the Pointsman that was built last.

What follows is for the tests with etcd; test_one_machine.py has a world of its own.

One stack per version of JupyterHub serves all tests of that version. A test may stop, kill and
restart parts. The next one first gets everything back up, and an empty table.
"""

import contextlib
import os
import secrets
import shutil
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from browser import Browser  # noqa: E402
from devkit.child import adopt_orphans, kill_descendants, reap_orphans_for_ever  # noqa: E402
from devkit.places import HOME, program  # noqa: E402
from devkit.ports import free_port  # noqa: E402
from devkit.stack import Stack  # noqa: E402
from hub import Hub  # noqa: E402

# Two runs at the same time need a folder each.
FOLDER = HOME / os.environ.get("POINTSMAN_E2E_FOLDER", "e2e")
HUB_CONFIG = Path(__file__).with_name("hub_config.py")
running_stacks = []
# What the tests themselves started in a session of its own; its end is theirs to collect.
started_by_tests = set()


def pytest_sessionstart():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    # A hub that is killed leaves its users' servers, which must live on, and must be ended with us.
    adopt_orphans()
    threading.Thread(target=reap_orphans_for_ever, args=(ours,), daemon=True).start()


def pytest_sessionfinish():
    kill_descendants()


def ours():
    """The processes that somebody here waits for."""
    children = {child.pid for stack in list(running_stacks) for child in list(stack.children.values()) if child.process}
    return children | started_by_tests


@pytest.fixture(scope="session")
def binary():
    """The Pointsman under test: POINTSMAN_TEST_BINARY, or the newest that cargo built."""
    named = os.environ.get("POINTSMAN_TEST_BINARY")
    if named:
        return Path(named).resolve()
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [
        target / profile / "pointsman" for profile in ("release", "debug") if (target / profile / "pointsman").exists()
    ]
    if not built:
        pytest.fail(
            f"There is no pointsman in {target}/release or {target}/debug. `make test-e2e` builds it.", pytrace=False
        )
    return max(built, key=lambda path: path.stat().st_mtime)


@contextlib.contextmanager
def running(stack):
    """Start all parts, with a token for us, and stop them at the end."""
    token = secrets.token_hex(16)
    stack.hub_environment |= {"E2E_TOKEN": token, "E2E_SERVICE_PORT": str(free_port())}
    running_stacks.append(stack)
    try:
        stack.start_all()
        yield Hub(stack, token)
    finally:
        stack.stop_all()
        running_stacks.remove(stack)


@pytest.fixture(scope="session", params=[6, 5], ids=["hub6", "hub5"])
def world(request, binary):
    """A stack for the whole session. Hub 6 has two Traefiks in front of its users, hub 5 has one."""
    stack = Stack(
        FOLDER / f"hub{request.param}",
        binary,
        traefiks=2 if request.param == 6 else 1,
        hub_version=request.param,
        hub_config=HUB_CONFIG,
    )
    if request.param == 5:
        # As in the compose file, users' servers are reached by a name.
        stack.hub_environment["SERVER_IP"] = "localhost"
    with running(stack) as hub:
        yield hub


@pytest.fixture
def hub(world):
    """The stack, with every part running and nobody's server started."""
    get_back_up(world.stack)
    world.stop_everything()
    return world


def get_back_up(stack):
    """Start again what the test before has stopped, or has failed to start."""
    stack.children["etcd"].is_running() or stack.start_etcd()
    stack.children["pointsman"].is_running() or stack.start_pointsman()
    for number in range(len(stack.traefik_ports)):
        stack.children[f"traefik{number or ''}"].is_running() or stack.start_traefik(number)
    stack.wait_until_ready()
    stack.children["hub"].is_running() or stack.start_hub()


@pytest.fixture(scope="session")
def artifacts():
    """Where screenshots are kept after the tests."""
    folder = FOLDER / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def driver_path():
    return program("chromedriver")


@pytest.fixture
def browser(driver_path, artifacts, request):
    """A browser whose pictures are in a folder of the test's name."""
    folder = artifacts / request.node.name
    folder.mkdir(exist_ok=True)
    browser = Browser(driver_path, folder)
    yield browser
    browser.close()
