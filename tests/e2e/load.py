"""Load with a memory: writers and readers that know what every route has to be."""

import asyncio
import contextlib
import http.client
import json
import random
import threading
import time
from collections import Counter

from devkit.parts import LOOPBACK
from devkit.ports import free_port

HUB = 0
BACKENDS = 6
WRITERS = 4
NAMES_PER_WRITER = 25
READERS = 2
PATIENCE_SECONDS = 10
PAUSE_SECONDS = 0.02


def ask(port, path, method="GET", body=None, headers=None):
    """One request over a connection of its own: the status and body, or in place of the status what went wrong."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PATIENCE_SECONDS)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except ConnectionRefusedError:
        return "refused", b""
    except TimeoutError:
        return "late", b""
    except (OSError, http.client.HTTPException):
        return "broken", b""
    finally:
        connection.close()


class Backends:
    """Servers that answer everything with their number. Number 0 stands for the hub, which gets what has no route."""

    def __init__(self):
        self.ports = [free_port() for _ in range(BACKENDS)]
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self.thread.start()
        ready.wait()

    def _run(self, ready):
        async def listen():
            for number, port in enumerate(self.ports):
                await asyncio.start_server(lambda r, w, n=number: self._serve(r, w, n), LOOPBACK, port)

        self.loop.run_until_complete(listen())
        ready.set()
        self.loop.run_forever()

    @staticmethod
    async def _serve(reader, writer, number):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
                await writer.drain()
        writer.close()

    def url(self, number):
        return f"http://{LOOPBACK}:{self.ports[number]}"

    def number(self, url):
        return self.ports.index(int(url.rpartition(":")[2]))

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


class Ledger:
    """For each route the backend that was acknowledged last. A route is *moving* while a change of it has no answer."""

    def __init__(self, backends):
        self.backends = backends
        self.lock = threading.Lock()
        self.state = {}
        self.moving = set()
        self.changes = Counter()

    def begin(self, name):
        with self.lock:
            self.moving.add(name)
            self.changes[name] += 1

    def acknowledge(self, name, number):
        with self.lock:
            self.state[name] = number
            self.moving.discard(name)
            self.changes[name] += 1

    def look(self, name):
        """Where it leads, and a stamp that tells whether anything about it has happened since. None if it is moving."""
        with self.lock:
            return None if name in self.moving else (self.state.get(name), self.changes[name])

    def wanted(self, name):
        """The number that answers at a route. What was deleted is the hub's."""
        number = self.state.get(name)
        return HUB if number is None else number

    def names(self):
        with self.lock:
            return sorted(self.state)

    def some_steady(self, chance):
        """A route that exists and doesn't move, other than the hub's."""
        with self.lock:
            steady = [n for n, number in self.state.items() if number not in (None, HUB) and n not in self.moving]
        return chance.choice(sorted(steady)) if steady else None

    def table(self):
        """The whole table as the API should give it."""
        with self.lock:
            assert not self.moving
            return {name: self.backends.url(number) for name, number in self.state.items() if number is not None}


class Api:
    """The calls of a hub."""

    def __init__(self, port, token):
        self.port = port
        self.headers = {"Authorization": f"token {token}"}

    def add(self, name, target):
        body = json.dumps({"target": target, "user": name})
        return ask(self.port, f"/api/routes{name}", "POST", body, self.headers)[0]

    def delete(self, name):
        return ask(self.port, f"/api/routes{name}", "DELETE", None, self.headers)[0]

    def table(self):
        status, body = ask(self.port, "/api/routes", headers=self.headers)
        return status, {name: data["target"] for name, data in json.loads(body).items()} if status == 200 else None


class Writers:
    """Threads that each change routes of their own, and repeat a call until it is answered, as a hub does."""

    def __init__(self, ledger, api_port, token, seed):
        self.ledger, self.api, self.seed = ledger, Api(api_port, token), seed
        self.acknowledged, self.failed, self.complaints = Counter(), Counter(), []
        self.counted = threading.Condition()
        self.may_work, self.stopping = threading.Event(), threading.Event()
        self.idle = [threading.Event() for _ in range(WRITERS)]
        self.may_work.set()
        self._change("/", HUB, "add")
        self.threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(WRITERS)]
        for thread in self.threads:
            thread.start()

    def _work(self, number):
        chance = random.Random(f"{self.seed} {number}")
        names = [f"/user/w{number}-{each}" for each in range(NAMES_PER_WRITER)]
        while not self.stopping.is_set():
            if not self.may_work.is_set():
                self.idle[number].set()
                self.may_work.wait(0.1)
                continue
            self.idle[number].clear()
            name = chance.choice(names)
            current = self.ledger.state.get(name)
            if current is None:
                self._change(name, chance.randrange(1, BACKENDS), "add")
            elif chance.random() < 0.4:
                self._change(name, None, "delete")
            else:
                self._change(name, chance.choice([n for n in range(1, BACKENDS) if n != current]), "change")
        self.idle[number].set()

    def _change(self, name, number, what):
        self.ledger.begin(name)
        while True:
            if number is None:
                status, good = self.api.delete(name), (204, 404)
            else:
                status, good = self.api.add(name, self.ledger.backends.url(number)), (201,)
            if status in good:
                break
            with self.counted:
                self.failed[status] += 1
            if isinstance(status, int) and 400 <= status < 500:
                self.complaints.append(f"{what} {name}: {status}, at which a hub gives up")
            if self.stopping.wait(PAUSE_SECONDS):
                return  # it stays moving
        self.ledger.acknowledge(name, number)
        with self.counted:
            self.acknowledged[what] += 1
            self.counted.notify_all()

    def wait_for(self, changes):
        """Wait until so many more changes were acknowledged."""
        with self.counted:
            goal = sum(self.acknowledged.values()) + changes
            enough = self.counted.wait_for(lambda: sum(self.acknowledged.values()) >= goal, 60)
        assert enough, f"no {changes} changes were acknowledged within 60 s; tries that failed: {dict(self.failed)}"

    @contextlib.contextmanager
    def resting(self):
        """No change is under way meanwhile, and every change that was begun is acknowledged."""
        self.may_work.clear()
        for idle in self.idle:
            idle.clear()
        try:
            for number, idle in enumerate(self.idle):
                assert idle.wait(30), f"writer {number} gets no answer; tries that failed: {dict(self.failed)}"
            yield
        finally:
            self.may_work.set()

    def stop(self):
        self.stopping.set()
        self.may_work.set()
        for thread in self.threads:
            thread.join(PATIENCE_SECONDS + 5)


class Readers:
    """Threads that ask for routes by the public port, and know what must come."""

    def __init__(self, ledger, port, seed):
        self.ledger, self.port, self.seed = ledger, port, seed
        self.quiet, self.loud, self.complaints = Counter(), Counter(), []
        self.stopping = threading.Event()
        # Odd while something is killed and not yet ready again.
        self.disturbances = 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(READERS)]
        for thread in self.threads:
            thread.start()

    @contextlib.contextmanager
    def disturbed(self):
        self.disturbances += 1
        try:
            yield
        finally:
            self.disturbances += 1

    def look(self, name):
        """One request for a route: "right", "moving" if the route changed meanwhile, or what was wrong."""
        before = self.ledger.look(name)
        if before is None:
            return "moving"
        path = "/hub/home" if name == "/" else f"{name}/lab"
        status, body = ask(self.port, path)
        if self.ledger.look(name) != before:
            return "moving"
        if status != 200:
            return str(status)
        wanted = b"%d" % (HUB if before[0] is None else before[0])
        return "right" if body == wanted else f"wrong: {body[:20]!r}"

    def _work(self, number):
        chance = random.Random(f"{self.seed} reader {number}")
        while not self.stopping.wait(0.001):
            names = self.ledger.names()
            if not names:
                continue
            name, before = chance.choice(names), self.disturbances
            seen = self.look(name)
            calm = before == self.disturbances and before % 2 == 0
            with self.lock:
                (self.quiet if calm else self.loud)[seen] += 1
            if seen.startswith("wrong") or (calm and seen not in ("right", "moving")):
                self.complaints.append(f"{time.strftime('%T')} {name}: {seen}")

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(PATIENCE_SECONDS + 5)
