"""Bodies that are passed on as they come: events, uploads, downloads, of any size."""

import hashlib
import socket
import threading
import time

from rig.backend import CLOSED
from rig.cases import group
from rig.wire import head_of

plain = group("plain")

MEGABYTE = 1 << 20
# A proxy that keeps a transfer in memory grows by its size. What both need for buffers and garbage is below this.
QUICK, QUICK_GROWTH = 64 * MEGABYTE, 48
SLOW, SLOW_GROWTH = 1024 * MEGABYTE, 160


@plain("server-sent events")
def events(world):
    go_on = threading.Event()

    def stream(exchange):
        exchange.read_body()
        exchange.send(
            head_of("HTTP/1.1 200 OK", [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")])
        )
        for number in range(3):
            text = f"data: {number}\n\n".encode()
            exchange.send(f"{len(text):x}\r\n".encode() + text + b"\r\n")
            go_on.wait(5)
            go_on.clear()
        exchange.send(b"0\r\n\r\n")

    world.root(stream)
    client = world.client()
    client.send(head_of("GET /x HTTP/1.1", [("Host", "hub.example"), ("Accept", "text/event-stream")]))
    answer = client.read_head()
    seen = {"status": answer.status, "type": answer.header("content-type")}
    for number in range(3):
        size = int(client.line(), 16)
        seen[f"event {number}, before the next is sent"] = client.exactly(size)
        client.line()
        go_on.set()
    seen["end"] = client.line()
    return seen


@plain("the first byte before the last")
def first_byte(world):
    """In both directions, with a length, so that nothing hints at a stream."""
    arrived, go_on = threading.Event(), threading.Event()

    def handler(exchange):
        if exchange.request.method == "GET":
            exchange.send(head_of("HTTP/1.1 200 OK", [("Content-Length", "2")]) + b"a")
            go_on.wait(5)
            exchange.send(b"b")
        else:
            exchange.request.body = exchange.exactly(1)
            arrived.set()
            exchange.request.body += exchange.exactly(1)
            exchange.answer(body=b"done")

    world.root(handler)
    seen = {}
    client = world.client()
    client.send(head_of("GET /x HTTP/1.1", [("Host", "hub.example")]))
    client.read_head()
    seen["download"] = client.exactly(1)
    go_on.set()
    seen["its end"] = client.exactly(1)
    for title, headers, first, second in (("upload", [("Content-Length", "2")], b"a", b"b"),):
        client.send(head_of("PUT /x HTTP/1.1", [("Host", "hub.example"), *headers]) + first)
        seen[f"{title} arrives before its end"] = arrived.wait(5)
        client.send(second)
        seen[f"{title} is answered"] = client.answer().text
    return seen


def block():
    return bytes(range(256)) * 4096


def upload(world, size, growth, chunked=False):
    """Send `size` bytes; what arrives, and whether the proxy kept them."""
    backend = world.root()
    backend.handler = reading
    client = world.client(seconds=60)
    part, digest = block(), hashlib.sha256()
    before = world.proxy.memory()
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(size))
    client.send(head_of("PUT /x HTTP/1.1", [("Host", "hub.example"), framing]))
    most = before
    for number in range(size // len(part)):
        digest.update(part)
        client.send(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
        if number % 16 == 0:
            most = max(most, world.proxy.memory())
    if chunked:
        client.send(b"0\r\n\r\n")
    answer = client.answer()
    seen = {"status": answer.outcome, "arrives whole": backend.last.body_digest == digest.hexdigest()}
    seen["length"] = backend.last.body_length
    seen[f"memory grows by less than {growth} MB"] = most - before < growth or f"{most - before:.0f} MB"
    return seen


def reading(exchange):
    exchange.read_body(keep=0)
    exchange.answer(body=b"read")


def download(world, size, growth):
    """Fetch `size` bytes; what arrives, and whether the proxy kept them."""
    part = block()

    def sending(exchange):
        exchange.read_body()
        exchange.send(head_of("HTTP/1.1 200 OK", [("Content-Length", str(size))]))
        for _ in range(size // len(part)):
            exchange.send(part)

    world.root(sending)
    client = world.client(seconds=60)
    before = most = world.proxy.memory()
    client.send(head_of("GET /x HTTP/1.1", [("Host", "hub.example")]))
    answer = client.read_head()
    digest, wanted, got, looked = hashlib.sha256(), hashlib.sha256(), 0, 0
    while got < size and (data := client.more(1 << 20)):
        digest.update(data)
        got += len(data)
        if got - looked > 16 * MEGABYTE:
            most, looked = max(most, world.proxy.memory()), got
    for _ in range(size // len(part)):
        wanted.update(part)
    seen = {"status": answer.status, "length": got, "arrives whole": digest.digest() == wanted.digest()}
    seen[f"memory grows by less than {growth} MB"] = most - before < growth or f"{most - before:.0f} MB"
    return seen


@plain("an upload of 64 MB")
def quick_upload(world):
    return upload(world, QUICK, QUICK_GROWTH)


@plain("a chunked upload of 64 MB")
def quick_chunked(world):
    return upload(world, QUICK, QUICK_GROWTH, chunked=True)


@plain("a download of 64 MB")
def quick_download(world):
    return download(world, QUICK, QUICK_GROWTH)


@plain("an upload of 1 GB", slow=True, seconds=150)
def slow_upload(world):
    return upload(world, SLOW, SLOW_GROWTH)


@plain("a chunked upload of 1 GB", slow=True, seconds=150)
def slow_chunked(world):
    return upload(world, SLOW, SLOW_GROWTH, chunked=True)


@plain("a download of 1 GB", slow=True, seconds=150)
def slow_download(world):
    return download(world, SLOW, SLOW_GROWTH)


@plain("a client that reads slowly")
def back_pressure(world):
    """The server must be held up by a client that doesn't read: else the proxy would keep all of it."""
    sent = []

    def sending(exchange):
        exchange.read_body()
        exchange.connection.socket.settimeout(1.5)
        exchange.send(head_of("HTTP/1.1 200 OK", [("Content-Length", str(1 << 30))]))
        part = bytes(1 << 18)
        try:
            for _ in range(512):
                exchange.send(part)
                sent.append(len(part))
        except (TimeoutError, socket.timeout):
            pass
        stopped.set()
        return CLOSED

    stopped = threading.Event()
    world.root(sending)
    client = world.client(receive_buffer=1 << 16)
    client.send(head_of("GET /x HTTP/1.1", [("Host", "hub.example")]))
    client.read_head()
    seen = {"the server is held up": stopped.wait(20)}
    seen["before 128 MB are sent"] = sum(sent) < 128 * MEGABYTE
    return seen


def silent(world, seconds):
    """A request that is answered after a long silence, and one whose body comes after one."""

    def late(exchange):
        exchange.read_body()
        time.sleep(seconds)
        exchange.answer(body=b"late")

    world.root(late)
    client = world.client(seconds=seconds + 10)
    answer = world.ask("/x", client=client)
    return {"status": answer.outcome, "body": answer.text}


@plain("a server that thinks for three seconds", at_once=True)
def quick_silence(world):
    return silent(world, 3)


@plain("a server that thinks for two minutes", slow=True, seconds=150, at_once=True)
def slow_silence(world):
    return silent(world, 120)


@plain("an upload that trickles for 75 seconds", slow=True, seconds=110, at_once=True)
def trickle(world):
    backend = world.root()
    client = world.client()
    client.send(head_of("PUT /x HTTP/1.1", [("Host", "hub.example"), ("Content-Length", "75")]))
    for _ in range(75):
        client.send(b"x")
        time.sleep(1)
    answer = client.answer()
    return {"status": answer.outcome, "length": backend.last.body_length}
