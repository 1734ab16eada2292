"""Websockets: the handshake, messages of all kinds and sizes, silence, and how they end."""

import hashlib
import socket
import threading
import time

from rig.backend import CLOSED, echo_websocket, raw, static
from rig.cases import group
from rig.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    accept_of,
    eventually,
    frame,
    head_of,
    read_frame,
    upgrade_head,
)

plain = group("plain")


def said(client):
    """The next frame: kind, beginning, length, whether it is the last of its message."""
    try:
        kind, payload, final = read_frame(client)
    except (TimeoutError, socket.timeout):
        return "never arrives"
    except (EOFError, OSError):
        return "closed"
    return [kind, payload[:60], len(payload), final]


@plain("messages of a websocket")
def messages(world):
    world.root(echo_websocket)
    client, answer = world.websocket("/x")
    seen = {"status": answer.status}
    sent = {
        "text": (TEXT, "grüße".encode(), True),
        "binary": (BINARY, bytes(range(256)), True),
        "empty": (TEXT, b"", True),
        "ping": (PING, b"p", True),
        "pong": (PONG, b"q", True),
        "64 KB": (BINARY, bytes(1 << 16), True),
        "first part": (TEXT, b"one ", False),
        "last part": (CONTINUATION, b"two", True),
    }
    for title, (kind, payload, final) in sent.items():
        client.send(frame(kind, payload, masked=True, final=final))
        seen[title] = said(client)
    client.send(frame(CLOSE, b"\x03\xe8bye", masked=True))
    seen["close"] = said(client)
    seen["closed"] = client.is_closed_within(3)
    return seen


@plain("messages of 16 MB")
def large(world):
    world.root(echo_websocket)
    client, answer = world.websocket("/x", seconds=30)
    seen = {"status": answer.status}
    for title, kind, payload in (
        ("binary", BINARY, bytes(range(256)) * (1 << 16)),
        ("text", TEXT, b"text" * (1 << 22)),
    ):
        sender = threading.Thread(target=client.send, args=(frame(kind, payload, masked=True),))
        sender.start()
        got, back, final = read_frame(client)
        sender.join()
        seen[title] = [got, len(back), final, hashlib.sha256(back).digest() == hashlib.sha256(payload).digest()]
    return seen


def idle(world, seconds):
    world.root(echo_websocket)
    client, answer = world.websocket("/x", seconds=seconds + 20)
    time.sleep(seconds)
    client.send(frame(TEXT, b"still there?", masked=True))
    return {"status": answer.status, "after the silence": said(client)}


@plain("a websocket idle for six seconds", at_once=True)
def quick_idle(world):
    """Longer than the 5 s after which an idle connection of HTTP is closed."""
    return idle(world, 6)


@plain("a websocket idle for ten minutes", slow=True, seconds=660, at_once=True)
def slow_idle(world):
    return idle(world, 600)


@plain("headers of a handshake")
def handshake(world):
    backend = world.root()

    def accept(exchange):
        exchange.accept_websocket([("Sec-WebSocket-Protocol", "v1.kernel"), ("X-Own", "1"), ("Set-Cookie", "a=1")])
        exchange.connection.more()
        return CLOSED

    backend.handler = accept
    sent = [("Origin", "http://hub.example"), ("Cookie", "a=1; b=2"), ("Authorization", "token x"), ("X-Mine", "1")]
    sent += [
        ("Sec-WebSocket-Protocol", "v1.kernel, v2.kernel"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ]
    client = world.client()
    head, key = upgrade_head("/x%2Fy?a=%40;b", "hub.example:8443", sent)
    client.send(head)
    answer = client.read_head()
    got = backend.last
    seen = {
        "status": answer.status,
        "reason": answer.reason,
        "path": got.target,
        "key": got.header("sec-websocket-key") == key,
    }
    seen["accepted"] = answer.header("sec-websocket-accept") == accept_of(key)
    for name in ("Host", "Connection", "Upgrade", "Sec-WebSocket-Version", *dict(sent)):
        seen[name] = got.header(name)
    for name in ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Host"):
        seen[name] = got.header(name)
    for name in ("Connection", "Upgrade", "Sec-WebSocket-Protocol", "X-Own", "Set-Cookie", "Sec-WebSocket-Extensions"):
        seen[f"answer: {name}"] = answer.header(name)
    return seen


@plain("bytes beside the handshake", at_once=True)
def early_bytes(world):
    """A client may send its first message with the handshake, and so may a server."""

    def eager(exchange):
        exchange.accept_websocket()
        exchange.send_frame(TEXT, b"first")
        kind, payload, final = exchange.read_frame()
        exchange.send_frame(kind, payload, final)

    def at_once(exchange):
        key = exchange.request.header("sec-websocket-key")
        head = head_of(
            "HTTP/1.1 101 Switching Protocols",
            [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept_of(key))],
        )
        exchange.send(head + frame(TEXT, b"first"))
        kind, payload, final = exchange.read_frame()
        exchange.send_frame(kind, payload, final)

    backend = world.root(eager)
    seen = {}
    for title, handler in {"server": eager, "server, in one piece": at_once}.items():
        backend.handler = handler
        client, _ = world.websocket("/x")
        seen[title] = said(client)
        client.send(frame(TEXT, b"mine", masked=True))
        seen[f"{title}: then the client"] = said(client)
    backend.handler = echo_websocket
    client = world.client(seconds=2)
    client.send(upgrade_head("/x")[0] + frame(TEXT, b"mine", masked=True))
    seen["client, in one piece"] = client.read_head().status
    seen["its message"] = said(client)
    return seen


@plain("ways to ask for a websocket")
def ways(world):
    backend = world.root(echo_websocket)
    seen = {}
    for title, upgrade in {"WebSocket": "WebSocket", "WEBSOCKET": "WEBSOCKET"}.items():
        client = world.client()
        client.send(upgrade_head("/x", upgrade=upgrade)[0])
        seen[title] = client.answer().outcome
    backend.handler = static(200, b"plain")
    host = ("Host", "hub.example")
    texts = {
        "h2c": head_of(
            "GET /x HTTP/1.1",
            [
                host,
                ("Connection", "Upgrade, HTTP2-Settings"),
                ("Upgrade", "h2c"),
                ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
            ],
        ),
        "POST": head_of(
            "POST /x HTTP/1.1", [host, ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Content-Length", "0")]
        ),
        "Upgrade without Connection": head_of("GET /x HTTP/1.1", [host, ("Upgrade", "websocket")]),
    }
    for title, data in texts.items():
        seen[title] = world.raw(data).outcome
    return seen


@plain("a server that refuses a websocket")
def refused(world):
    backend = world.root()
    seen = {}
    for status in (200, 302, 400, 403, 404, 426, 500, 502, 503):
        backend.handler = static(status, b"no websocket here", [("X-Own", "1"), ("Location", "/login")], reason="No")
        client, answer = world.websocket("/x")
        seen[str(status)] = [answer.outcome, answer.gist, answer.header("x-own"), answer.header("location")]
    backend.handler = raw(b"")
    _, answer = world.websocket("/x")
    seen["closes without an answer"] = [answer.outcome, answer.gist]
    return seen


@plain("a websocket without a server")
def no_server(world):
    dead = world.server()
    dead.stop()
    world.route("/dead", dead)
    seen = {}
    for path in ("/nothing", "/dead/x"):
        _, answer = world.websocket(path)
        seen[path] = answer.outcome
        seen[f"{path}: body"] = len(answer.body) > 0
    return seen


@plain("an open websocket and its route")
def outlives(world):
    """It goes on when its route is changed or removed."""
    world.root()
    backend = world.server("one", echo_websocket)
    world.route("/user/a", backend)
    client, _ = world.websocket("/user/a/x")
    seen = {}
    for title, change in {
        "target changed": lambda: world.route("/user/a", world.server("two")),
        "another route added": lambda: world.route("/user/a/b", world.server("three")),
        "removed": lambda: world.unroute("/user/a"),
    }.items():
        change()
        client.send(frame(TEXT, title.encode(), masked=True))
        seen[title] = said(client)
    return seen


@plain("how a websocket ends")
def endings(world):
    ends = []

    def closing(exchange):
        exchange.accept_websocket()
        exchange.read_frame()
        return CLOSED

    def resetting(exchange):
        exchange.accept_websocket()
        exchange.read_frame()
        exchange.reset()
        return CLOSED

    def listening(exchange):
        exchange.accept_websocket()
        try:
            exchange.connection.more()
        except OSError:
            pass
        ends.append(True)
        return CLOSED

    backend = world.root(closing)
    seen = {}
    for title, handler in {"the server closes": closing, "the server resets": resetting}.items():
        backend.handler = handler
        client, _ = world.websocket("/x")
        client.send(frame(TEXT, b"x", masked=True))
        seen[title] = client.is_closed_within(4)
    backend.handler = listening
    client, _ = world.websocket("/x")
    client.close()
    seen["the client closes"] = eventually(lambda: ends, 4)
    return seen
