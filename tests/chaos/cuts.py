"""Everything between the processes of a chaos run, in one process: links that can be cut, two balancers, the backends.

Started as a program, it reads its plan from the first line of its standard input, answers `ready`, and then takes one
JSON command a line, answering each. It ends when its input does. See `Cuts` for the side that steers it.

A **link** listens on a port of its own and passes bytes on to the real one, in one of these modes:

    pass     bytes go through
    refuse   nobody listens; connections that are open are reset
    hole     connections are taken by the kernel, and nothing that is sent ever arrives; afterwards they are reset
    stall    as `hole`, but what was sent arrives afterwards, late
    mute     requests are swallowed, answers arrive; afterwards connections are reset
    deaf     requests arrive, answers are swallowed; afterwards connections are reset
    slow     each piece of bytes arrives a quarter of a second late
    tear     now and then an answer is thrown away, and its connection reset: the request has arrived

A link may have a mode of its own for one process: `{"set": "peer-1", "from": 4711, "mode": "hole"}`. Whose a connection
is, is read from /proc, for members of etcd all use the same address of another member.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import struct
import sys

LOOPBACK = "127.0.0.1"
MODES = ("pass", "refuse", "hole", "stall", "mute", "deaf", "slow", "tear")
# What was open in these modes has lost bytes, and can't go on.
LOSING = ("hole", "mute", "deaf")
SLOW_SECONDS = 0.25
TEAR_CHANCE = 0.04
HIGH_WATER_BYTES = 1 << 20


def reset(transport):
    """Close a connection so that the other side gets a reset and not an end."""
    with contextlib.suppress(OSError, AttributeError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def owner_of(port, candidates, table="/proc/net/tcp"):
    """Which of the processes has the socket with this local port on loopback; None if none of them has."""
    wanted = f"0100007F:{port:04X}"
    with open(table) as lines:
        inode = next((words[9] for words in map(str.split, lines) if words[1] == wanted and words[9] != "0"), None)
    if inode is None:
        return None
    name = f"socket:[{inode}]"
    for pid in candidates:
        with contextlib.suppress(OSError):
            with os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        if os.readlink(entry.path) == name:
                            return pid
    return None


class Half(asyncio.Protocol):
    """One side of a connection through a link."""

    def __init__(self, pair, is_client):
        self.pair, self.is_client = pair, is_client
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        self.pair.made(self)

    def data_received(self, data):
        self.pair.received(self, data)

    def eof_received(self):
        self.pair.ended(self)
        return True  # the other direction may go on

    def connection_lost(self, error):
        self.pair.lost(self)

    def pause_writing(self):
        self.pair.other(self).hold_reading()

    def resume_writing(self):
        self.pair.other(self).go_on_reading()

    def hold_reading(self):
        with contextlib.suppress(RuntimeError, AttributeError):
            self.transport.pause_reading()

    def go_on_reading(self):
        with contextlib.suppress(RuntimeError, AttributeError):
            self.transport.resume_reading()


class Pair:
    """A connection through a link: the client's half and the server's."""

    def __init__(self, link):
        self.link = link
        self.client, self.server = Half(self, True), Half(self, False)
        self.owner = None
        self.waiting = {True: [], False: []}  # what came while nothing could be passed on, by whether the client sent it
        self.ended_halves = set()
        self.over = False

    def other(self, half):
        return self.server if half is self.client else self.client

    @property
    def mode(self):
        return self.link.mode_for(self.owner)

    def made(self, half):
        if half is self.client:
            self.link.pairs.add(self)
            if self.link.candidates:
                port = half.transport.get_extra_info("peername")[1]
                self.owner = owner_of(port, self.link.candidates)
            if self.mode == "refuse":
                reset(half.transport)
                return
            if self.mode != "hole":
                asyncio.ensure_future(self.connect())
        else:
            self.flush()

    async def connect(self):
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.server, *self.link.target)
        except OSError:
            self.close(True)

    def received(self, half, data):
        mode = self.mode
        if mode == "hole" or mode == ("mute" if half is self.client else "deaf"):
            return
        if mode == "tear" and half is self.server and random.random() < TEAR_CHANCE:
            self.close(True)
            return
        self.waiting[half.is_client].append(data)
        if mode == "slow":
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self.flush_one, half.is_client)
        else:
            self.flush()

    def flush_one(self, from_client):
        to = self.server if from_client else self.client
        if to.transport is None and not self.over:
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self.flush_one, from_client)
        elif self.waiting[from_client] and self.mode != "stall" and not self.over:
            to.transport.write(self.waiting[from_client].pop(0))

    def flush(self):
        if self.mode in ("stall", "slow", "hole"):
            return
        for from_client, to in ((True, self.server), (False, self.client)):
            if to.transport is not None and self.waiting[from_client]:
                to.transport.write(b"".join(self.waiting[from_client]))
                self.waiting[from_client].clear()
        for half in list(self.ended_halves):
            to = self.other(half)
            if to.transport is not None and self.mode == "pass":
                self.ended_halves.discard(half)
                with contextlib.suppress(OSError, RuntimeError):
                    to.transport.write_eof()

    def ended(self, half):
        self.ended_halves.add(half)
        if self.mode == "slow":
            asyncio.get_running_loop().call_later(2 * SLOW_SECONDS, self.close, False)
        else:
            self.flush()

    def lost(self, half):
        # In a hole the end of one side isn't heard of by the other.
        if self.mode in ("pass", "refuse", "slow", "tear"):
            self.close(True)

    def changed(self, before, after):
        """The mode of this connection is another one now."""
        if after == "refuse" or (before in LOSING and after != before):
            self.close(True)
        elif after == "pass":
            for half in (self.client, self.server):
                if half.transport is not None and half.transport.is_closing():
                    self.close(True)
                    return
            if self.server.transport is None and before == "stall":
                asyncio.ensure_future(self.connect())
            self.flush()

    def close(self, hard):
        if self.over:
            return
        self.over = True
        self.link.pairs.discard(self)
        for half in (self.client, self.server):
            if half.transport is not None:
                reset(half.transport) if hard else half.transport.close()


class Link:
    """A port that leads to another one."""

    def __init__(self, name, port, target):
        self.name, self.port, self.target = name, port, tuple(target)
        self.mode = "pass"
        self.own_modes = {}  # by process
        self.candidates = ()  # the processes that are told apart
        self.pairs = set()
        self.server = None
        # Bound for good: nobody else may take the port while we refuse connections.
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.bind((LOOPBACK, port))

    def mode_for(self, owner):
        return self.own_modes.get(owner, self.mode)

    async def listen(self):
        if self.server is None:
            loop = asyncio.get_running_loop()
            # With it connections of before may linger; without it nobody else can bind the port.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening = self.socket.dup()
            self.server = await loop.create_server(lambda: Pair(self).client, sock=listening, backlog=256)

    async def set_mode(self, mode, owner=None):
        before = {pair: pair.mode for pair in self.pairs}
        if owner is None:
            self.mode = mode
        elif mode == "pass":
            self.own_modes.pop(owner, None)
        else:
            self.own_modes[owner] = mode
        if self.mode == "refuse":
            if self.server is not None:
                self.server.close()
                self.server = None
                # On Linux that ends the listening, and leaves the port with us.
                self.socket.shutdown(socket.SHUT_RDWR)
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        else:
            await self.listen()
        for pair, old in before.items():
            new = pair.mode
            if new != old:
                pair.changed(old, new)


class Balancer:
    """A port that leads to one of several, and skips those that refuse."""

    def __init__(self, name, port, targets):
        self.name, self.port, self.targets = name, port, list(targets)

    async def listen(self):
        await asyncio.start_server(self.serve, LOOPBACK, self.port, backlog=512)

    async def serve(self, reader, writer):
        for port in random.sample(self.targets, len(self.targets)):
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(LOOPBACK, port)
                break
        else:
            reset(writer.transport)
            return
        one, two = pump(reader, far_writer), pump(far_reader, writer)
        hard = await asyncio.gather(one, two)
        for each in (writer, far_writer):
            reset(each.transport) if any(hard) else each.close()


async def pump(reader, writer):
    """Pass on until the end. True if it was no good end."""
    try:
        while True:
            data = await reader.read(65536)
            if not data:
                with contextlib.suppress(OSError, RuntimeError):
                    writer.write_eof()
                return False
            writer.write(data)
            await writer.drain()
    except (OSError, ConnectionError):
        reset(writer.transport)
        return True


class Backends:
    """Servers of users. An answer says where it came from: the port, and the path as it arrived. `/ws` echoes."""

    @staticmethod
    async def serve(reader, writer):
        port = writer.get_extra_info("sockname")[1]
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode("latin-1")
                if b"upgrade: websocket" in head.lower():
                    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                    while True:
                        data = await reader.read(4096)
                        if not data:
                            break
                        writer.write(data)
                        await writer.drain()
                    break
                body = f"{port} {path}".encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
        writer.close()


class Server:
    """The process itself."""

    def __init__(self, plan):
        self.links = {each["name"]: Link(each["name"], each["port"], (LOOPBACK, each["to"])) for each in plan["links"]}
        self.balancers = {each["name"]: Balancer(**each) for each in plan["balancers"]}
        self.backends = plan["backends"]

    async def start(self):
        for each in (*self.links.values(), *self.balancers.values()):
            await each.listen()
        for port in self.backends:
            await asyncio.start_server(Backends.serve, LOOPBACK, port, backlog=512)

    async def obey(self, command):
        if "set" in command:
            await self.links[command["set"]].set_mode(command["mode"], command.get("from"))
        elif "targets" in command:
            self.balancers[command["balancer"]].targets = command["targets"]
        elif "candidates" in command:
            self.links[command["link"]].candidates = tuple(command["candidates"])
        return {}


async def serve():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    server = Server(json.loads(await reader.readline()))
    await server.start()
    print("ready", flush=True)
    while True:
        line = await reader.readline()
        if not line:
            return
        try:
            await server.obey(json.loads(line))
            print("done", flush=True)
        except Exception as error:  # the other side must hear of it, whatever it is
            print(f"failed {error!r}", flush=True)


class Cuts:
    """The side that steers: it belongs to the process of the run."""

    def __init__(self, process):
        self.process = process
        self.lock = asyncio.Lock()

    @classmethod
    async def start(cls, plan, log, before_exec):
        with open(log, "ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-u", __file__,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
                start_new_session=True, preexec_fn=before_exec,
            )  # fmt: skip
        cuts = cls(process)
        try:
            await cuts._say(plan, "ready")
        except RuntimeError:
            await process.wait()
            raise
        return cuts

    async def _say(self, what, answer="done"):
        async with self.lock:
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            await self.process.stdin.drain()
            line = (await asyncio.wait_for(self.process.stdout.readline(), 30)).decode().strip()
            if line != answer:
                raise RuntimeError(f"the links' process answered {line!r} to {what}")

    async def set(self, link, mode, owner=None):
        await self._say({"set": link, "mode": mode, "from": owner})

    async def targets(self, balancer, ports):
        await self._say({"balancer": balancer, "targets": ports})

    async def tell_apart(self, link, pids):
        await self._say({"link": link, "candidates": pids})


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())
