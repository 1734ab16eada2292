"""A day of a hub on the played chart: each step does something to it, and counts what failed."""

import concurrent.futures
import contextlib
import time

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
    """The steps, and the rows of the report."""

    def __init__(self, cluster, parts, token, say):
        self.cluster, self.parts, self.say = cluster, parts, say
        self.hub = Hub(parts, token)
        self.rows, self.failed = [], False

    def row(self, what, seen, good=True):
        self.rows.append((what, seen, "" if good else "**failed**"))
        self.failed |= not good
        self.say(f"{what}: {seen}" + ("" if good else "  FAILED"))

    # The parts of the day

    def install(self):
        began = time.monotonic()
        self.cluster.up()
        wait_until(
            "the chart serves", answers(f"http://127.0.0.1:{self.cluster.public_port}/_chp_healthz"), 60, (), 0.1
        )
        wait_until("the API is ready", answers(f"http://127.0.0.1:{self.cluster.api_port}/readyz"), 60, (), 0.1)
        self.row("From nothing to serving", f"{time.monotonic() - began:.1f} s, {len(self.cluster.pods())} pods")

    def morning(self):
        """The hub starts, somebody works in a notebook, somebody stops."""
        began = time.monotonic()
        self.parts.start_hub()
        self.row("The hub starts and is reached by users", f"{time.monotonic() - began:.1f} s")
        self.hub.add_users([STEADY, WRITER, "bob"])
        self.hub.start(STEADY)
        self.hub.start(WRITER)
        self.kernel = Kernel(self.hub, WRITER)
        self.row("A kernel computes over its websocket", f"`6 * 7` is {self.kernel.run('6 * 7')}")
        self.hub.start("bob")
        self.hub.assert_reaches("bob")
        self.hub.stop("bob")
        self.hub.assert_gone("bob")
        self.row("A server is started, reached, stopped, and gone", "at the first try")

    def crowd_at_once(self):
        names = [f"pupil-{number:02}" for number in range(USERS_AT_ONCE)]
        self.hub.add_users(names)
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(USERS_AT_ONCE) as pool:
            for step in (self.hub.ask_for, self.hub.wait_for, self.hub.assert_reaches, self.hub.stop):
                list(pool.map(step, names))
        for name in names:
            self.hub.assert_gone(name)
        self.row(f"{USERS_AT_ONCE} users at once: start, reach, stop", f"0 failed, {time.monotonic() - began:.0f} s")

    def under_load(self, what, change, after=None, operations=True):
        """Do something to the cluster while users ask and the hub works, and count what failed."""
        crowd = Crowd(self.hub, self.parts.public_url) if operations else contextlib.nullcontext()
        with crowd, Load(self.cluster.public_port, f"/user/{STEADY}/") as load:
            time.sleep(SETTLE_SECONDS)
            seconds = change().wait()
            wait_until("all pods are ready", lambda: all(self.cluster.pods().values()), 120, (), 0.5)
            time.sleep(SETTLE_SECONDS)
        seen = f"requests: {load} in {load.seconds:.0f} s"
        failed = len(load.failures)
        if operations:
            seen += f"; hub operations: {len(crowd.failed)} of {crowd.done() + len(crowd.failed)} failed"
            failed += len(crowd.failed)
        self.row(what, f"{seen}; the change took {seconds:.0f} s", failed == 0)
        for line in (load.failures + (crowd.failed if operations else []))[:10]:
            self.say(f"    {line}")

    def roll(self, part, setting):
        """Upgrade to values that differ in one annotation of a part's pods, as a new image would roll them."""
        values = {**self.cluster.values}
        section = dict(values.get(setting, {}))
        section["podAnnotations"] = {"example.org/rolled": str(time.time())}
        values[setting] = section
        self.under_load(f"{part} is rolled", lambda: self.cluster.upgrade(values))

    def a_pod(self, part, number=0):
        return sorted(name for name in self.cluster.pods() if name.startswith(part))[number]

    def restart_hub(self):
        """The hub alone is single: only what it does stands still; its users don't notice."""
        with Load(self.cluster.public_port, f"/user/{STEADY}/") as load:
            began = time.monotonic()
            assert self.parts.children["hub"].stop(30)
            self.parts.start_hub()
            took = time.monotonic() - began
        self.hub.assert_reaches(STEADY)
        self.row("The hub is restarted", f"requests to servers: {load}; away for {took:.1f} s", not load.failures)

    def websocket_at_a_roll(self):
        """How long an open websocket lives when its Traefik is rolled, and that work goes on after it."""
        values = {**self.cluster.values}
        traefik = dict(values["traefik"])
        traefik["podAnnotations"] = {"example.org/rolled": f"websocket {time.time()}"}
        values["traefik"] = traefik
        self.kernel.connect()
        rolling = self.cluster.upgrade(values)
        began, alive = time.monotonic(), 0.0
        with contextlib.suppress(Exception):  # its end comes in many shapes
            while rolling.thread.is_alive():
                self.kernel.run("1")
                alive = time.monotonic() - began
                time.sleep(0.5)
        rolling.wait()
        self.kernel.connect()
        grace = traefik["drainSeconds"]
        self.row(
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
        restarts = self.cluster.restarts()
        self.row("Containers that were started again", f"{restarts}: the killed one", restarts == 1)
        assert self.parts.children["hub"].stop(30)
