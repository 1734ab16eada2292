"""A day of a hub on the played chart: each step does something to it, and counts what failed."""

import concurrent.futures
import contextlib
import time

from clusters import part_of
from crowd import Crowd
from devkit.child import wait_until
from devkit.parts import Parts, answers
from hub import Hub
from steady_load import Load
from notebook import Kernel

# Reached from containers as well as from this machine.
BRIDGE = "172.17.0.1"
USERS_AT_ONCE = 20
STEADY, WRITER = "steady", "notebook-of-ada"
SETTLE_SECONDS = 3


class PlayedHub(Parts):
    """A JupyterHub on this machine whose proxy is the played chart."""

    def __init__(self, folder, hub_config, cluster, token):
        super().__init__(folder, "no program of ours", hub_config, [cluster.public_port])
        self.api_port, self.token = cluster.api_port, token
        self.hub_environment = {"HUB_IP": BRIDGE, "SERVER_IP": BRIDGE, "HUB_CONNECT_URL": f"http://{BRIDGE}:{self.hub_port}"}


class Day:
    """The steps."""

    def __init__(self, cluster, parts, token, report):
        self.cluster, self.parts, self.report = cluster, parts, report
        self.hub = Hub(parts, token)

    # The parts of the day

    def install(self):
        began = time.monotonic()
        self.cluster.up()
        wait_until(
            "the chart serves", answers(f"http://127.0.0.1:{self.cluster.public_port}/_chp_healthz"), 60, (), 0.1
        )
        wait_until("the API is ready", answers(f"http://127.0.0.1:{self.cluster.api_port}/readyz"), 60, (), 0.1)
        self.report.row("From nothing to serving", f"{time.monotonic() - began:.1f} s, {len(self.cluster.pods())} pods")

    def morning(self):
        """The hub starts, somebody works in a notebook, somebody stops."""
        began = time.monotonic()
        self.parts.start_hub()
        self.report.row("The hub starts and is reached by users", f"{time.monotonic() - began:.1f} s")
        self.hub.add_users([STEADY, WRITER, "bob"])
        self.hub.start(STEADY)
        self.hub.start(WRITER)
        self.kernel = Kernel(self.hub, WRITER)
        self.report.row("A kernel computes over its websocket", f"`6 * 7` is {self.kernel.run('6 * 7')}")
        self.hub.start("bob")
        self.hub.assert_reaches("bob")
        self.hub.stop("bob")
        self.hub.assert_gone("bob")
        self.report.row("A server is started, reached, stopped, and gone", "at the first try")

    def crowd_at_once(self):
        names = [f"pupil-{number:02}" for number in range(USERS_AT_ONCE)]
        self.hub.add_users(names)
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(USERS_AT_ONCE) as pool:
            for step in (self.hub.ask_for, self.hub.wait_for, self.hub.assert_reaches, self.hub.stop):
                list(pool.map(step, names))
        for name in names:
            self.hub.assert_gone(name)
        self.report.row(f"{USERS_AT_ONCE} users at once: start, reach, stop", f"0 failed, {time.monotonic() - began:.0f} s")

    def under_load(self, what, change):
        """Do something to the cluster while users ask and the hub works, and count what failed."""
        with Crowd(self.hub, self.parts.public_url) as crowd, Load(self.cluster.public_port, f"/user/{STEADY}/") as load:
            time.sleep(SETTLE_SECONDS)
            seconds = change().wait()
            wait_until("all pods are ready", lambda: all(self.cluster.pods().values()), 120, (), 0.5)
            time.sleep(SETTLE_SECONDS)
        operations = f"{len(crowd.failed)} of {crowd.done() + len(crowd.failed)} failed"
        seen = f"requests: {load} in {load.seconds:.0f} s; hub operations: {operations}; the change took {seconds:.0f} s"
        failures = load.failures + crowd.failed
        self.report.row(what, seen, not failures)
        for line in failures[:10]:
            self.report.say(f"    {line}")

    def upgrade(self, part):
        """Upgrade to values that differ in one annotation of a part's pods, as a new image would roll them."""
        values = self.cluster.values
        annotated = {**values.get(part, {}), "podAnnotations": {"example.org/rolled": str(time.time())}}
        return self.cluster.upgrade({**values, part: annotated})

    def roll(self, name, part):
        self.under_load(f"{name} is rolled", lambda: self.upgrade(part))

    def a_pod(self, part, number):
        return sorted(name for name in self.cluster.pods() if part_of(name) == part)[number]

    def restart_hub(self):
        """The hub alone is single: only what it does stands still; its users don't notice."""
        with Load(self.cluster.public_port, f"/user/{STEADY}/") as load:
            began = time.monotonic()
            assert self.parts.children["hub"].stop(30)
            self.parts.start_hub()
            took = time.monotonic() - began
        self.hub.assert_reaches(STEADY)
        self.report.row("The hub is restarted", f"requests to servers: {load}; away for {took:.1f} s", not load.failures)

    def websocket_at_a_roll(self):
        """How long an open websocket lives when its Traefik is rolled, and that work goes on after it."""
        self.kernel.connect()
        rolling = self.upgrade("traefik")
        began, alive = time.monotonic(), 0.0
        with contextlib.suppress(Exception):  # its end comes in many shapes
            while rolling.thread.is_alive():
                self.kernel.run("1")
                alive = time.monotonic() - began
                time.sleep(0.5)
        rolling.wait()
        self.kernel.connect()
        grace = self.cluster.values["traefik"]["drainSeconds"]
        self.report.row(
            "An open websocket while Traefik is rolled",
            f"worked for {alive:.0f} s with `traefik.drainSeconds: {grace}`, and the kernel after it: "
            f"`6 * 7` is {self.kernel.run('6 * 7')}",
            alive > 1,
        )

    def evening(self):
        self.kernel.close()
        for name in (WRITER, STEADY):
            self.hub.stop(name)
            self.hub.assert_gone(name)
        restarts, killed = self.cluster.restarts(), self.cluster.restarts_after_a_kill
        self.report.row("Containers that were started again", f"{restarts}, of which {killed} was killed", restarts == killed)
        assert self.parts.children["hub"].stop(30)
