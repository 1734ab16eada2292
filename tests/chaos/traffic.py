"""The load: a hub's writers through all Pointsmans, users through all Traefiks and their balancer, open websockets."""

import asyncio
import json
import random
import time

from history import ABSENT, DONE, FOREVER, NEVER, PERHAPS, Call, Look
from wire import LOOPBACK, ask, end

WRITERS = 4
CALL_SECONDS = 10  # a Pointsman answers within 8
LOOK_SECONDS = 5
WRITE_PAUSE_SECONDS = 0.04
LOOK_PAUSE_SECONDS = 0.06
LIST_INTERVAL_SECONDS = 0.7
HUB_PATIENCE_SECONDS = 30

ROOT, SOCKETS = "/", "/ws"
# Some lie below others: a request for what isn't there is served by the next one above.
ROUTES = [f"/user/u{n}" for n in range(12)] + [f"/user/u{n}/lab" for n in range(4)]
ROUTES += ["/user/u@x", "/services/s", "/user/a b", "/user/u0/lab/x"]


def above(route):
    """The routes that serve a request for this path, the nearest first."""
    chain = [route]
    while route != ROOT:
        route = route.rpartition("/")[0] or ROOT
        chain.append(route)
    return chain


def path_of(route):
    return route.replace(" ", "%20").replace("@", "%40")


class Values:
    """Each target is given once, so what serves a request tells which change it is the result of."""

    def __init__(self, ports):
        self.ports, self.count = ports, 0
        self.route_of = {}

    def next(self, route):
        self.count += 1
        value = f"{self.ports[self.count % len(self.ports)]}/{self.count}"
        self.route_of[value] = route
        return value

    @staticmethod
    def target(value):
        return f"http://{LOOPBACK}:{value}"

    @staticmethod
    def of_target(target):
        return target.partition("://")[2].partition(":")[2].rstrip("/")

    @staticmethod
    def of_answer(body):
        port, _, path = body.decode(errors="replace").partition(" ")
        return f"{port}/{path.lstrip('/').partition('/')[0]}"


class Traffic:
    """All load on a world. What happens is told to the current history."""

    def __init__(self, world, history, seed):
        self.world, self.history = world, history
        self.values = Values(world.backends)
        self.chance = random.Random(f"traffic {seed}")
        self.headers = (f"Authorization: token {world.token}",)
        self.known = {}  # what this client takes for the state; only a guess where calls overlap
        self.working, self.looking = asyncio.Event(), asyncio.Event()
        self.under_way = 0
        self.tasks = []
        self.unanswered = []
        self.operations = {"done": 0, "first try": 0, "failed": 0}
        self.failed_operations = []
        self.sockets = {}

    def start(self):
        self.tasks = [asyncio.ensure_future(self._write(n)) for n in range(WRITERS)]
        self.tasks += [asyncio.ensure_future(self._list())]
        self.tasks += [asyncio.ensure_future(self._look(n)) for n in range(3)]
        self.tasks += [asyncio.ensure_future(self._look(None)) for _ in range(2)]

    async def stop(self):
        await end(self.tasks)
        for socket in self.sockets.values():
            await socket.close()

    # Calls of the API

    async def call(self, kind, route, replica, value=None, fresh=False):
        """One call, one entry of the history."""
        world, history = self.world, self.history
        child = world.part("pointsman", replica)
        process = child.process
        start = time.monotonic()
        if kind == "put":
            body = json.dumps({"target": Values.target(value), "user": "x"}).encode()
            status, answer = await ask(
                world.api[replica], "/api/routes" + path_of(route), "POST", body, self.headers, CALL_SECONDS
            )
            good = status == 201
        elif kind == "delete":
            status, answer = await ask(
                world.api[replica], "/api/routes" + path_of(route), "DELETE", b"", self.headers, CALL_SECONDS
            )
            good = status in (204, 404)
        else:
            status, answer = await ask(
                world.api[replica], "/api/routes" + path_of(route), headers=self.headers, timeout=CALL_SECONDS
            )
            good = status in (200, 404)
            value = Values.of_target(json.loads(answer)["target"]) if status == 200 else ABSENT
        end = time.monotonic()
        outcome = DONE if good else NEVER if status == "refused" else PERHAPS
        entry = Call(route, kind, value, status, outcome, start, end, replica)
        entry.over = end if isinstance(status, int) else FOREVER
        if kind == "delete" and good:
            entry.existed = status == 204
        entry.writes_head = good and (kind == "delete" or (kind == "put" and fresh))
        history.calls.append(entry)
        if outcome == PERHAPS and not isinstance(status, int):
            # It may be at work for as long as its process lives, and ends with it.
            self.unanswered.append((entry, process, child))
        return entry

    def settle_unanswered(self, kills, now):
        """Calls without an answer are over when their process was killed; those of one that lives stay open."""
        for entry, process, child in self.unanswered:
            if process is not child.process or process.poll() is not None:
                ends = [known for kind, n, begin, known in kills if kind == "pointsman" and n == entry.replica]
                later = [known for known in ends if known >= entry.start]
                entry.over = min(later, default=now)
            elif now - entry.end > 2 * CALL_SECONDS:
                entry.over = entry.end + 2 * CALL_SECONDS

    async def list(self, replica):
        """The whole table: one get of every route. None if it could not be read."""
        start = time.monotonic()
        status, answer = await ask(
            self.world.api[replica], "/api/routes", headers=self.headers, timeout=CALL_SECONDS
        )
        end = time.monotonic()
        if status != 200:
            if isinstance(status, int) and status < 500:
                self.history.calls.append(Call("*", "get", None, status, PERHAPS, start, end, replica))
            return None
        table = {route: Values.of_target(record["target"]) for route, record in json.loads(answer).items()}
        for route in {*ROUTES, *table, ROOT, SOCKETS}:
            self.history.calls.append(
                Call(route, "get", table.get(route, ABSENT), status, DONE, start, end, replica, over=end)
            )
        return table

    async def persist(self, kind, route, value=None, first=None, fresh=False):
        """As a hub: repeat what is answered by 5xx, or not at all, for half a minute, at one replica after another."""
        began = time.monotonic()
        replica = self.chance.randrange(3) if first is None else first
        tries = 0
        while True:
            # A second try of the same put changes nothing if the first one did.
            entry = await self.call(kind, route, replica, value, fresh and tries == 0)
            tries += 1
            if entry.outcome == DONE:
                self.operations["done"] += 1
                self.operations["first try"] += tries == 1
                return entry
            client_error = isinstance(entry.status, int) and entry.status < 500
            if client_error or time.monotonic() - began > HUB_PATIENCE_SECONDS:
                self.operations["failed"] += 1
                self.failed_operations.append(f"{kind} {route}: {entry.status} after {tries} tries")
                return None
            replica = (replica + 1) % 3
            await asyncio.sleep(0.1 if entry.status == "refused" else 0.25)

    async def put(self, route, first=None):
        value = self.values.next(route)
        entry = await self.persist("put", route, value, first, fresh=True)
        if entry:
            self.known[route] = value
        return entry

    async def fix(self):
        """What must always be there: the hub's own route, and that of the websockets."""
        for route in (ROOT, SOCKETS):
            if not self.known.get(route):
                await self.put(route)
            else:
                await self.persist("put", route, self.known[route])

    async def _write(self, number):
        chance = random.Random(f"{self.chance.random()} {number}")
        # Most routes are one writer's own, as one hub's; some are everybody's.
        own = [route for at, route in enumerate(ROUTES) if at % (WRITERS + 1) == number]
        shared = [route for at, route in enumerate(ROUTES) if at % (WRITERS + 1) == WRITERS]
        while True:
            await self.working.wait()
            self.under_way += 1
            try:
                # Three of them have a replica that they begin with.
                first = number if number < 3 else chance.randrange(3)
                await self._one_write(chance, chance.choice(shared if chance.random() < 0.2 else own), first)
            finally:
                self.under_way -= 1
            await asyncio.sleep(WRITE_PAUSE_SECONDS * chance.uniform(0.2, 1.8))

    async def _duel(self, chance, route):
        """Two replicas are asked for the same route at the same moment, as by two hubs' hands."""
        one, other = chance.sample(range(3), 2)
        kinds = chance.choice([("delete", "delete"), ("delete", "delete"), ("put", "delete"), ("put", "put")])
        calls = []
        for kind, replica in zip(kinds, (one, other)):
            value = self.values.next(route) if kind == "put" else None
            calls.append(self.persist(kind, route, value, replica, fresh=kind == "put"))
        await asyncio.gather(*calls)
        entry = await self.call("get", route, one)
        if entry.outcome == DONE:
            self.known[route] = entry.value

    async def _one_write(self, chance, route, first):
        what = chance.random()
        known = self.known.get(route)
        if what > 0.92:
            return await self._duel(chance, route)
        if what < 0.12:
            await self.call("get", route, chance.randrange(3))
        elif what < 0.2 and known:
            await self.persist("put", route, known, first)  # the same again
        elif what < 0.24:
            await self.persist("put", ROOT, self.known[ROOT], first)  # the hub's check
        elif what < 0.5 and (known or what < 0.3):
            entry = await self.persist("delete", route, first=first)
            if entry:
                self.known[route] = ABSENT
        else:
            await self.put(route, first)

    async def _list(self):
        while True:
            await self.working.wait()
            await self.list(self.chance.randrange(3))
            await asyncio.sleep(LIST_INTERVAL_SECONDS)

    async def rest(self, seconds=40):
        """Let the writers finish what they began."""
        self.working.clear()
        deadline = time.monotonic() + seconds
        while self.under_way and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return self.under_way == 0

    # Users

    async def look(self, number, route, probe=False):
        """One request of a user, through one Traefik or (None) through the balancer."""
        world, history = self.world, self.history
        port = world.users if number is None else world.public[number]
        ready = number is None or world.probes[number].ready
        start = time.monotonic()
        status, body = await ask(port, path_of(route) + "/-/?y", timeout=LOOK_SECONDS)
        end = time.monotonic()
        where = "users" if number is None else f"traefik-{number}"
        value = Values.of_answer(body) if status == 200 else None
        entry = Look(where, route, value, status, start, end, ready)
        if probe:
            return entry, value
        if status != 200:
            history.looks.append(entry)
            return entry, value
        owner = self.values.route_of.get(value)
        # Whatever lies nearer than the route that served it was not there.
        for each in above(route):
            if each == owner or each == ROOT:
                history.looks.append(Look(where, each, value, status, start, end, ready))
                break
            history.looks.append(Look(where, each, ABSENT, status, start, end, ready))
        return entry, owner

    async def _look(self, number):
        chance = random.Random(f"{self.chance.random()} look {number}")
        while True:
            await self.looking.wait()
            await self.look(number, chance.choice(ROUTES))
            await asyncio.sleep(LOOK_PAUSE_SECONDS * chance.uniform(0.2, 1.8))

    async def served(self, number, route):
        """What serves a route through one Traefik: its own value, or nothing of its own."""
        entry, value = await self.look(number, route, probe=True)
        if entry.status != 200:
            return f"status {entry.status}"
        return value if self.values.route_of.get(value) == route else ABSENT

    # Websockets

    async def open_sockets(self):
        """One through each Traefik; those that live are left alone."""
        for n in range(3):
            if n not in self.sockets or self.sockets[n].dead:
                self.sockets[n] = await Socket.open(self.world.public[n])

    def dead_sockets(self):
        """Which ones died, and when."""
        return [(n, socket.dead) for n, socket in self.sockets.items() if socket.dead]


class Socket:
    """A websocket as Traefik sees it: after the upgrade, bytes to and fro."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.dead = None  # when
        self.task = asyncio.ensure_future(self._run())

    @classmethod
    async def open(cls, port, patience=15):
        deadline = time.monotonic() + patience
        while True:
            try:
                reader, writer = await asyncio.open_connection(LOOPBACK, port)
                writer.write(
                    f"GET {SOCKETS}/x HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
                )
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
                if b" 101 " in head:
                    return cls(reader, writer)
                writer.close()
                problem = head[:100]
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                problem = repr(error)
            if time.monotonic() > deadline:
                raise RuntimeError(f"no websocket could be opened through port {port}: {problem}")
            await asyncio.sleep(0.2)

    async def _run(self):
        number = 0
        try:
            while True:
                number += 1
                message = f"{number:08d}".encode()
                self.writer.write(message)
                # A Traefik that is stopped for a while keeps its websockets.
                answer = await asyncio.wait_for(self.reader.readexactly(8), 20)
                if answer != message:
                    raise ValueError("another answer")
                await asyncio.sleep(0.3)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError):
            self.dead = time.monotonic()

    async def close(self):
        await end([self.task])
        self.writer.transport.abort()
