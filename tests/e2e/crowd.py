"""Users who start and stop their servers while something else goes on."""

import concurrent.futures
import itertools
import threading
import time

import requests
from devkit.child import wait_until

USERS = 20
# As many work at once; more would only wait for one of two cores.
AT_ONCE = 5


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
