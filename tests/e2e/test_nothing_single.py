"""A real JupyterHub before three members of etcd, two Pointsmen and two Traefiks: any of them may go."""

import concurrent.futures
import itertools
import signal
import threading
import time

import pytest
import requests
from conftest import FOLDER, HUB_CONFIG, running
from devkit.child import wait_until
from devkit.cluster import HUB, Cluster
from devkit.menu import Menu
from devkit.probe import Probe

USERS = 20
# A Traefik that hangs, or whose member of etcd does, is waited for some seconds; after the grace changes go on.
WRITES_WITHIN_SECONDS = {"kill": 5, "stop": 15}
# As many work at once; more would only wait for one of two cores.
AT_ONCE = 5


class Said:
    """What the commands have to say, for the report of a failed test."""

    def __init__(self):
        self.lines = []

    def say(self, text=""):
        self.lines.append(str(text))


class Crowd:
    """Users who start a server, look at it and stop it, over and over. Each step must succeed at the first try."""

    def __init__(self, hub, base):
        self.hub, self.base = hub, base
        self.operations, self.failed = itertools.count(), []
        self.slowest_seconds = 0
        self.stopping = threading.Event()
        self.names = [f"crowd-{number:02}" for number in range(USERS)]
        self.pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE)

    def __enter__(self):
        self.hub.add_users(self.names)
        self.work = [self.pool.submit(self._work, number) for number in range(AT_ONCE)]
        return self

    def __exit__(self, *_):
        self.stopping.set()
        concurrent.futures.wait(self.work, 120)
        self.pool.shutdown()

    def _call(self, method, path, expected, why):
        answer = requests.request(
            method,
            f"{self.base}/hub/api{path}",
            headers={"Authorization": f"token {self.hub.token}"},
            timeout=60,
        )
        if answer.status_code not in expected:
            raise AssertionError(f"{why}: {answer.status_code} {answer.text[:200]}")
        return answer

    def _server(self, name):
        return self._call("GET", f"/users/{name}", (200,), f"looking at {name}").json()["servers"].get("")

    def _work(self, number):
        for name in itertools.cycle(self.names[number::AT_ONCE]):
            if self.stopping.is_set():
                return
            try:
                began = time.monotonic()
                self._start_and_stop(name)
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
                next(self.operations)
            except Exception as error:  # whatever it is, it is a failed operation
                self.failed.append(f"{time.strftime('%T')} {name}: {type(error).__name__}: {error}"[:500])

    def _start_and_stop(self, name):
        self._call("POST", f"/users/{name}/server", (201, 202), f"starting {name}")
        self._wait(name, lambda server: server and server["ready"])
        answer = self._look(f"{self.hub.stack.public_url}/user/{name}/")
        if answer.status_code != 200 or answer.json().get("user") != name:
            raise AssertionError(f"the page of {name}: {answer.status_code} {answer.text[:200]}")
        self._call("DELETE", f"/users/{name}/server", (202, 204), f"stopping {name}")
        self._wait(name, lambda server: not server)

    @staticmethod
    def _look(url):
        """Ask as a browser does: once more if the connection was cut, which is what becomes of a killed Traefik's."""
        try:
            return requests.get(url, timeout=20)
        except requests.ConnectionError:
            return requests.get(url, timeout=20)

    def _wait(self, name, condition):
        """Ask until the server is as it should be. One that has vanished while it was starting has failed."""
        deadline = time.monotonic() + 60
        while not condition(self._server(name)):
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} is not as it should be: {self._server(name)}")
            time.sleep(0.2)

    def wait_for(self, operations):
        """Wait until so many more operations were carried out: each is a start, a look and a stop."""
        goal = self.done() + operations
        wait_until(f"{operations} operations more", lambda: self.done() >= goal or self.failed, 120)
        assert self.failed == []

    def done(self):
        return int(repr(self.operations)[len("count(") : -1])


@pytest.fixture(scope="module")
def world(binary):
    cluster = Cluster(FOLDER / "cluster", binary, hub_config=HUB_CONFIG)
    # A start that takes long under load is still finished by the Traefik that carries it.
    cluster.grace_seconds = 10
    with running(cluster) as hub:
        yield hub


@pytest.fixture
def cluster(world):
    """All parts well, and nobody's server started, whatever the test before has left."""
    for part, child in list(world.stack.children.items()):
        world.stack.is_stopped(part) and child.send(signal.SIGCONT)
        child.is_running() or world.stack.start_part(part)
    world.stack.wait_until_all_well()
    world.stop_everything()
    return world


@pytest.fixture
def probe(cluster):
    probe = Probe(cluster.stack).start()
    yield probe
    probe.stop()


def test_a_rolling_restart_under_load_fails_nobody(cluster, probe):
    """All but the hub are restarted one after another, while users start and stop servers through all of them."""
    said = Said()
    menu, began = Menu(cluster.stack, probe, said), time.monotonic()
    with Crowd(cluster, cluster.stack.public_url) as crowd, probe.busy():
        crowd.wait_for(2)
        for part in [part for part in cluster.stack.children if part != HUB]:
            assert menu.do(f"restart {part}"), said.lines
            crowd.wait_for(1)
        crowd.wait_for(2)
    tally = probe.tally(began)
    print(f"\n{crowd.done()} starts and stops, the slowest in {crowd.slowest_seconds:.1f} s; {tally}")
    assert crowd.failed == []
    assert tally.failures == [], str(tally)
    assert tally.requests > 100


@pytest.mark.parametrize("kind", ["etcd", "pointsman", "traefik"])
@pytest.mark.parametrize(("take_away", "bring_back"), [("kill", "start"), ("stop", "cont")], ids=["killed", "frozen"])
def test_any_one_missing_fails_no_operation_of_the_hub(cluster, probe, take_away, bring_back, kind):
    """The hub is asked directly, for what a killed Traefik was just carrying ends with it."""
    said, stack = Said(), cluster.stack
    menu, began = Menu(stack, probe, said), time.monotonic()
    with Crowd(cluster, stack.hub_url) as crowd:
        crowd.wait_for(2)
        for part in [part for part in stack.children if part.startswith(kind)]:
            assert menu.do(f"{take_away} {part}"), said.lines
            crowd.wait_for(AT_ONCE + 3)  # more than were under way
            assert menu.do(f"{bring_back} {part}"), said.lines
            stack.wait_until_well(part)
    tally = probe.tally(began)
    print(f"\n{crowd.done()} starts and stops, the slowest in {crowd.slowest_seconds:.1f} s; {tally}")
    assert crowd.failed == []
    assert tally.seconds[-1] < WRITES_WITHIN_SECONDS[take_away], str(tally)
    if kind != "traefik":
        assert tally.failures == [], str(tally)
