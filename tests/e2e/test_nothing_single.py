"""A real JupyterHub before three members of etcd, two Pointsmen and two Traefiks: any of them may go."""

import signal
import time

import pytest
from conftest import FOLDER, HUB_CONFIG, running
from crowd import AT_ONCE, Crowd
from devkit.cluster import HUB, Cluster
from devkit.menu import Menu
from devkit.probe import Probe

# A Traefik that hangs, or whose member of etcd does, is waited for some seconds; after the grace changes go on.
WRITES_WITHIN_SECONDS = {"kill": 5, "stop": 15}


class Said:
    """What the commands have to say, for the report of a failed test."""

    def __init__(self):
        self.lines = []

    def say(self, text=""):
        self.lines.append(str(text))


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
