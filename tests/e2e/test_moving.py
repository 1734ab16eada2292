"""A live JupyterHub moves from configurable-http-proxy to Pointsman and back, step by step as docs/moving-z2jh.md says.

What Kubernetes does there is done here by hand: the Service proxy-public is a balancer, and a pod of CHP a process.
"""

import contextlib
import http.client
import json
import subprocess
import threading
import time

import pytest
from conftest import FOLDER, HUB_CONFIG, running
from devkit.balancer import Balancer
from devkit.child import wait_until
from devkit.parts import LOOPBACK, answers, plain_environment
from devkit.places import program
from devkit.ports import free_port
from devkit.stack import Stack
from notebook import Kernel
from websocket import WebSocketException

STEADY = ["lea", "max"]
NOTEBOOK = "notebook@example.com"


class Chp:
    """One pod of configurable-http-proxy."""

    def __init__(self, name):
        self.name, self.port, self.api_port = name, free_port(), free_port()

    @property
    def api_url(self):
        return f"http://{LOOPBACK}:{self.api_port}"


class Moving(Stack):
    """A hub on CHP, with room for Pointsman, Traefik and etcd beside it."""

    def __init__(self, folder, binary):
        super().__init__(folder, binary, hub_config=HUB_CONFIG)
        self.first, self.doorway, self.last = pods = [Chp(f"chp-{number}") for number in range(3)]
        self.entrance = Balancer(free_port(), {pod.name: pod.port for pod in pods}, "/_chp_healthz")
        # X-Forwarded headers of the CHP in front count.
        self.pointsman_environment["POINTSMAN_TRUSTED_IPS"] = LOOPBACK
        self.uses(self.first.api_url)
        self.enters_at(self.entrance.url)

    @property
    def traefik_url(self):
        return f"http://{LOOPBACK}:{self.public_ports[0]}"

    @property
    def public_url(self):
        return self.users_url

    def uses(self, api_url):
        """Where the next hub finds its proxy's API."""
        self.hub_environment["PROXY_API_URL"] = api_url

    def enters_at(self, url):
        """Where users come in."""
        self.users_url = self.hub_environment["PUBLIC_URL"] = url

    def steps(self):
        return [
            ("the entrance", self.entrance.start),
            ("configurable-http-proxy", lambda: self.start_chp(self.first)),
            ("JupyterHub", self.start_hub),
        ]

    def install(self):
        """What `helm install pointsman` brings."""
        self.start_etcd()
        self.start_pointsman()
        self.start_traefiks()

    def start_chp(self, pod, default_target=None):
        """Start a pod with the flags that z2jh gives it, and wait until it gets connections."""
        command = [
            program("configurable-http-proxy"), f"--ip={LOOPBACK}", f"--port={pod.port}", f"--api-ip={LOOPBACK}",
            f"--api-port={pod.api_port}", f"--default-target={default_target or self.hub_url}",
            f"--error-target={self.hub_url}/hub/error",
        ]  # fmt: skip
        self.entrance.distrust(pod.name)
        self.start(pod.name, command, {**plain_environment(), "CONFIGPROXY_AUTH_TOKEN": self.token})
        wait_until(f"{pod.name} gets connections", lambda: self.entrance.is_in(pod.name), 20, [self.children[pod.name]])

    def end_chp(self, pod):
        """Take a pod out of its Service, let it finish what is short, and end it."""
        self.entrance.drain(pod.name)
        wait_until(f"{pod.name} has only websockets left", lambda: self.only_websockets(pod), 10)
        self.children[pod.name].stop()

    def only_websockets(self, pod):
        return len(self.entrance.backends[pod.name].pairs) <= 1

    def restart_hub(self):
        """What `helm upgrade` of z2jh does to the hub. Returns the seconds without a hub."""
        began = time.monotonic()
        self.children["hub"].stop(30)
        self.start_hub()
        return time.monotonic() - began

    def command(self, *words):
        """Run one of our commands; its exit code, and all it says."""
        environment = {**plain_environment(), "CONFIGPROXY_AUTH_TOKEN": self.token}
        done = subprocess.run(
            [self.binary, *words],
            env=environment,
            cwd=self.place("commands"),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    def stop_all(self):
        super().stop_all()
        for pod in (self.first, self.doorway, self.last):
            if pod.name in self.children:
                self.children[pod.name].stop()
        self.entrance.stop()


class Visits:
    """Users who look at their servers all the time, at every address that is said to serve them."""

    def __init__(self, url):
        self.urls, self.failures, self.count = [url], [], 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(20)

    def _work(self):
        while not self.stopping.wait(0.02):
            for url in list(self.urls):
                for name in STEADY:
                    self._visit(url, name)

    def _visit(self, url, name):
        seen = visit(url, name)
        self.count += 1
        if seen != name and url in self.urls:
            self.failures.append(f"{time.strftime('%T')} {url} {name}: {seen}")


def visit(url, name):
    """Whose server answers at the user's path, or what came instead."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", f"/user/{name}/")
        answer = connection.getresponse()
        body = answer.read()
        return json.loads(body)["user"] if answer.status == 200 else f"{answer.status} {body[:100]!r}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()


@pytest.fixture(scope="module")
def world(binary):
    with running(Moving(FOLDER / "moving", binary)) as hub:
        yield hub


def test_there_and_back_while_users_work(world):
    stack, times = world.stack, {}
    old, new = stack.entrance.url, stack.traefik_url
    world.add_users([*STEADY, "eva", "tom", NOTEBOOK])
    for name in [*STEADY, NOTEBOOK]:
        world.ask_for(name)
    for name in [*STEADY, NOTEBOOK]:
        world.wait_for(name)
    with contextlib.closing(Kernel(world, NOTEBOOK)) as kernel, Visits(old) as visits:
        assert kernel.run("a = 40; a") == "40"

        # Install beside, import, compare. CHP serves on, and nobody notices anything.
        stack.install()
        both = ["--from", stack.first.api_url, "--to", stack.api_url]
        compare = ["import", *both, "--compare", "--visit", old, "--visit", new]
        code, said = stack.command(*compare)
        assert code == 1 and "missing /user/lea, which only the source has" in said, said
        began = time.monotonic()
        code, said = stack.command("import", *both)
        assert code == 0, said
        code, said = stack.command(*compare)
        assert code == 0 and "0 differ" in said, said
        times["import and compare"] = time.monotonic() - began
        visits.urls.append(new)
        # What the hub does meanwhile is missing, until it is imported, too.
        world.start("eva")
        code, said = stack.command(*compare)
        assert code == 1 and "missing /user/eva" in said and "lea" not in said, said
        code, said = stack.command("import", *both)
        assert code == 0 and "1 added" in said, said
        assert visit(new, "eva") == "eva"

        # The switch: the hub talks to Pointsman, and CHP passes all it gets on to our Traefik.
        assert kernel.run("a + 1") == "41"
        stack.uses(stack.api_url)
        times["hub away, there"] = stack.restart_hub()
        stack.start_chp(stack.doorway, default_target=new)
        assert kernel.run("a + 2") == "42"  # the pod is still there that carries it
        stack.end_chp(stack.first)
        with pytest.raises((WebSocketException, OSError)):
            kernel.run("a + 3")
        kernel.connect()  # as a browser does by itself
        assert kernel.run("a + 4") == "44"
        world.stop("eva")
        for name in ("eva", "tom"):
            world.start(name)
            assert [visit(url, name) for url in (old, new)] == [name, name]

        # The entrance moves, and CHP goes to zero.
        stack.enters_at(new)
        kernel.connect()
        assert kernel.run("a + 5") == "45"
        visits.urls.remove(old)
        stack.end_chp(stack.doorway)
        world.stop("tom")
        world.start("tom")
        assert visit(new, "tom") == "tom"

        # And back: CHP as a doorway, with all routes before the hub talks to it.
        stack.start_chp(stack.last, default_target=new)
        visits.urls.append(old)
        assert visit(old, "tom") == "tom"
        back = ["import", "--from", stack.api_url, "--to", stack.last.api_url]
        code, said = stack.command(*back)
        assert code == 0 and "0 refused" in said, said
        code, said = stack.command(*back, "--compare", "--visit", new, "--visit", old)
        assert code == 0, said
        stack.uses(stack.last.api_url)
        stack.enters_at(old)
        times["hub away, back"] = stack.restart_hub()
        visits.urls.remove(new)
        for part in ("pointsman", "traefik", "etcd"):
            stack.children[part].stop()
        kernel.connect()
        assert kernel.run("a + 6") == "46"
        world.stop("tom")
        world.start("tom")
        assert visit(old, "tom") == "tom"
        wait_until("the hub is reached", answers(f"{old}/hub/api"), 10)
    shown = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in times.items())
    print(f"\n{visits.count} visits; {shown}")
    assert visits.failures == []
    assert visits.count > 100
