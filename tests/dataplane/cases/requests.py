"""What a server gets of a request."""

import hashlib
import time

from rig.cases import group
from rig.wire import head_of

plain = group("plain")
custom = group("custom-header", "--custom-header", "X-Custom: one: two", "--custom-header", "X-Second:2")
change_origin = group("change-origin", "--change-origin")
no_forward = group("no-x-forward", "--no-x-forward")

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "MKCOL", "REPORT", "TRACE"]
FORWARDED = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"]


@plain("methods without a body")
def methods(world):
    backend = world.root()
    seen = {}
    for method in METHODS:
        backend.reset()
        answer = world.ask("/x", method=method)
        seen[method] = answer.outcome
        if backend.requests:
            seen[f"{method}: server got"] = [backend.last.method, backend.last.framing]
            seen[f"{method}: body"] = answer.text
    for method in ("CONNECT", "NONSENSE"):
        seen[method] = world.ask("/x", method=method).outcome
    return seen


@plain("methods with a body")
def methods_with_body(world):
    backend = world.root()
    seen = {}
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        backend.reset()
        answer = world.ask("/x", method=method, body=b"some body")
        seen[method] = answer.outcome
        if backend.requests:
            seen[f"{method}: server got"] = [backend.last.method, backend.last.body, backend.last.framing]
    return seen


@plain("framing of a body")
def framing(world):
    backend = world.root()
    host = ("Host", "hub.example")
    chunks = b"5\r\nhello\r\n6;note=x\r\n world\r\n0\r\n\r\n"
    texts = {
        "chunked": head_of("POST /x HTTP/1.1", [host, ("Transfer-Encoding", "chunked")]) + chunks,
        "empty": head_of("POST /x HTTP/1.1", [host, ("Content-Length", "0")]),
        "no length": head_of("POST /x HTTP/1.1", [host]),
        "HTTP/1.0": head_of("POST /x HTTP/1.0", [host, ("Content-Length", "3")]) + b"abc",
        "HTTP/1.0 without Host": head_of("GET /x HTTP/1.0", []),
        "HTTP/1.1 without Host": head_of("GET /x HTTP/1.1", []),
        "length and chunked": head_of(
            "POST /x HTTP/1.1", [host, ("Content-Length", "3"), ("Transfer-Encoding", "chunked")]
        )
        + chunks,
        "two lengths": head_of("POST /x HTTP/1.1", [host, ("Content-Length", "3"), ("Content-Length", "4")]) + b"abcd",
    }
    seen = {}
    for title, data in texts.items():
        backend.reset()
        answer = world.raw(data)
        seen[title] = answer.outcome
        if backend.requests:
            seen[f"{title}: server got"] = [backend.last.framing, backend.last.body]
    return seen


@plain("Expect: 100-continue")
def expect_continue(world):
    backend = world.root()
    client = world.client()
    client.send(
        head_of("PUT /x HTTP/1.1", [("Host", "hub.example"), ("Content-Length", "5"), ("Expect", "100-continue")])
    )
    try:
        interim = client.line()
        client.line()
    except OSError:
        interim = "nothing before the body"
    client.send(b"hello")
    answer = client.answer()
    return {"interim": interim, "status": answer.outcome, "body": backend.last.body}


@plain("headers of a request")
def headers(world):
    backend = world.root()
    sent = [
        ("Accept", "text/html;q=0.9, */*"),
        ("User-Agent", "test/1"),
        ("Authorization", "token abc"),
        ("Cookie", 'a=1; b="two words"'),
        ("Referer", "http://hub.example/x"),
        ("Origin", "http://hub.example"),
        ("X-Under_score", "1"),
        ("X_Under", "2"),
        ("X-XSRFToken", "3"),
        ("Via", "1.1 front"),
        ("Forwarded", "for=1.2.3.4"),
        ("X-Real-IP", "1.2.3.4"),
        ("X-Scheme", "https"),
        ("Range", "bytes=0-5"),
        ("If-None-Match", 'W/"x"'),
        ("Accept-Encoding", "br, gzip"),
        ("X-Empty", ""),
        ("X-Latin", "\xfc"),
        ("X-Long", "y" * 9000),
        ("Cache-Control", "no-cache"),
        ("Content-Type", "application/json"),
        ("DNT", "1"),
        ("Date", "today"),
        ("Sec-Fetch-Site", "same-origin"),
        ("X-Request-Id", "7"),
    ]
    world.ask("/x", headers=sent)
    seen = {}
    for name, value in sent:
        got = backend.last.header(name)
        seen[name] = "the same" if got == value else got
    known = {name.lower() for name, _ in sent} | {"host", *FORWARDED}
    extra = sorted({name.lower() for name, _ in backend.last.headers} - known)
    seen["added by the proxy"] = [
        f"{name}: {world.tidy(backend.last.header(name))}" for name in extra if name != "x-real-ip"
    ]
    return seen


@plain("headers the proxy adds")
def added(world):
    backend = world.root()
    seen = {}
    for title, sent in {"bare": [], "with Accept-Encoding": [("Accept-Encoding", "identity")]}.items():
        backend.reset()
        world.ask("/x", headers=sent)
        lines = [f"{name.lower()}: {world.tidy(value)}" for name, value in backend.last.headers]
        seen[title] = sorted(line for line in lines if not line.startswith(("host:", *FORWARDED)))
    return seen


@plain("repeated headers")
def repeated(world):
    backend = world.root()
    sent = [
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("Accept", "a/b"),
        ("Accept", "c/d"),
    ]
    sent += [("User-Agent", "one"), ("User-Agent", "two"), ("Content-Type", "a/b"), ("Content-Type", "c/d")]
    world.ask("/x", headers=sent)
    return {name: backend.last.header(name) for name in dict(sent)}


@plain("headers of one hop")
def hop_by_hop(world):
    backend = world.root()
    sent = [("Connection", "keep-alive, X-Named"), ("Keep-Alive", "timeout=5"), ("X-Named", "1"), ("TE", "trailers")]
    sent += [
        ("Proxy-Authorization", "Basic eDp5"),
        ("Proxy-Connection", "keep-alive"),
        ("Upgrade-Insecure-Requests", "1"),
    ]
    world.ask("/x", headers=sent)
    return {name: backend.last.header(name) for name in dict(sent) if name != "Connection"}


@plain("Host")
def host(world):
    backend = world.root()
    seen = {}
    for name in (
        "hub.example",
        "hub.example:8443",
        "HUB.example",
        "127.0.0.1",
        "[::1]:80",
        "hub.example.",
        "xn--bcher-kva.example",
    ):
        backend.reset()
        answer = world.ask("/x", host=name)
        seen[name] = backend.last.header("host") if backend.requests else answer.outcome
    return seen


def forwarded(world, backend, sent=(), host="hub.example"):
    backend.reset()
    world.ask("/x", headers=sent, host=host)
    return {name: backend.last.header(name) for name in FORWARDED}


@plain("X-Forwarded headers")
def x_forwarded(world):
    return forwarded_by_all(world)


@no_forward("X-Forwarded headers")
def no_x_forward(world):
    return forwarded_by_all(world)


def forwarded_by_all(world):
    """What X-Forwarded headers a server gets, in five situations."""
    backend = world.root()
    situations = {
        "none sent": ((), "hub.example"),
        "a port in Host": ((), "hub.example:8443"),
        "behind a TLS balancer": (
            [
                ("X-Forwarded-For", "1.2.3.4"),
                ("X-Forwarded-Proto", "https"),
                ("X-Forwarded-Port", "443"),
                ("X-Forwarded-Host", "www.example"),
            ],
            "hub.example",
        ),
        "behind two": (
            [
                ("X-Forwarded-For", "1.2.3.4, 5.6.7.8"),
                ("X-Forwarded-Proto", "https,http"),
                ("X-Forwarded-Port", "443,80"),
            ],
            "hub.example",
        ),
    }
    seen = {}
    for title, (sent, host) in situations.items():
        for name, value in forwarded(world, backend, sent, host).items():
            seen[f"{title}: {name}"] = value
    names = {name.lower() for name, _ in backend.last.headers}
    seen["other X-Forwarded and X-Real headers"] = sorted(
        name for name in names if name.startswith(("x-forwarded", "x-real")) and name not in FORWARDED
    )
    return seen


@plain("large heads")
def large_heads(world):
    backend = world.root()
    seen = {}
    for kilobytes in (8, 12, 15, 20, 60, 100, 2000):
        backend.reset()
        answer = world.ask("/x", headers=[("X-Large", "z" * (kilobytes * 1024))])
        arrived = backend.requests and len(backend.last.header("x-large") or "")
        seen[f"{kilobytes} KB"] = "arrives" if arrived else answer.outcome
    return seen


@plain("unusual requests", at_once=True)
def unusual(world):
    world.root()
    texts = {
        "a fragment": b"GET /x#y HTTP/1.1\r\nHost: hub.example\r\n\r\n",
        "a blank in the path": b"GET /x y HTTP/1.1\r\nHost: hub.example\r\n\r\n",
        "bytes beyond ASCII in the path": b"GET /\xc3\xbc HTTP/1.1\r\nHost: hub.example\r\n\r\n",
        "a folded header": b"GET /x HTTP/1.1\r\nHost: hub.example\r\nX-Folded: a\r\n b\r\n\r\n",
        "a blank before the colon": b"GET /x HTTP/1.1\r\nHost: hub.example\r\nX-Blank : a\r\n\r\n",
        "two hosts": b"GET /x HTTP/1.1\r\nHost: hub.example\r\nHost: other.example\r\n\r\n",
        "no path": b"GET  HTTP/1.1\r\nHost: hub.example\r\n\r\n",
        "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: hub.example\r\n\r\n",
        "no HTTP": b"hello\r\n\r\n",
        "HTTP/3.0": b"GET /x HTTP/3.0\r\nHost: hub.example\r\n\r\n",
    }
    return {title: world.raw(data, client=world.client(seconds=2)).outcome for title, data in texts.items()}


@plain("a client that closes its side after its request", at_once=True)
def half_closed(world):
    world.root()
    seen = {}
    for title, method, body in [("GET", "GET", None), ("POST", "POST", b"x")]:
        client = world.client()
        length = [] if body is None else [("Content-Length", str(len(body)))]
        client.send(head_of(f"{method} /x HTTP/1.1", [("Host", "hub.example"), *length]) + (body or b""))
        client.finish()
        seen[title] = client.answer().outcome
    return seen


@plain("clients that are slow to ask", slow=True, seconds=180, at_once=True)
def slow_to_ask(world):
    """Node gives a head 60 s, and looks each 30 s whether one is late."""
    world.root()
    clients = {"silent": b"", "half a head": b"GET /x HTTP/1.1\r\nX-Half: "}
    opened = {title: world.client(seconds=120) for title in clients}
    deadline = time.monotonic() + 110
    for title, data in clients.items():
        opened[title].send(data)
    seen = {}
    for title, client in opened.items():
        client.socket.settimeout(max(deadline - time.monotonic(), 0.1))
        try:
            seen[f"{title}: ended within 110 s"] = not client.rest().startswith(b"HTTP/1.1 2")
        except (TimeoutError, OSError):
            seen[f"{title}: ended within 110 s"] = False
    return seen


@plain("many requests on one connection")
def pipelined(world):
    backend = world.root()
    client = world.client()
    seen = {}
    for number in range(5):
        answer = world.ask(f"/{number}", client=client)
        seen[f"request {number}"] = answer.outcome
    one = head_of("GET /p HTTP/1.1", [("Host", "hub.example")])
    client.send(one * 3)
    seen["three at once"] = [client.answer().outcome for _ in range(3)]
    seen["requests"] = len(backend.requests)
    return seen


@custom("custom headers")
def custom_headers(world):
    backend = world.root()
    seen = {}
    for title, sent in {"none sent": [], "over the client's": [("X-Custom", "mine"), ("x-second", "mine")]}.items():
        backend.reset()
        world.ask("/x", headers=sent)
        seen[title] = [backend.last.header("x-custom"), backend.last.header("x-second")]
    backend.reset()
    world.websocket("/x")
    seen["a websocket"] = [backend.last.header("x-custom"), backend.last.header("x-second")]
    return seen


@custom("names that servers read as a custom header's")
def aliases(world):
    """CGI and WSGI turn each of them into HTTP_X_CUSTOM."""
    backend = world.root()
    names = ["X_Custom", "X.Custom", "x~custom", "X_Under"]
    world.ask("/x", headers=[(name, "mine") for name in names])
    return {name: backend.last.header(name) for name in ["X-Custom", *names]}


@change_origin("change origin")
def origin(world):
    backend = world.root()
    world.ask("/x", host="hub.example")
    seen = {
        "host": world.tidy(backend.last.header("host")),
        "x-forwarded-host": backend.last.header("x-forwarded-host"),
    }
    world.websocket("/x")
    seen["host of a websocket"] = world.tidy(backend.last.header("host"))
    return seen


@plain("a body of many kinds of bytes")
def binary_body(world):
    backend = world.root()
    body = bytes(range(256)) * 4096
    answer = world.ask("/x", method="PUT", body=body)
    same = backend.last.body_digest == hashlib.sha256(body).hexdigest()
    return {"status": answer.outcome, "arrives whole": same, "framing": backend.last.framing}
