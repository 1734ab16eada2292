"""No route, dead servers, slow servers, and the pages that say so."""

import gzip
import json
import socket
import threading
import time

from rig.backend import CLOSED, raw, static
from rig.cases import group
from rig.wire import LOOPBACK, eventually, head_of, is_deserted

plain = group("plain")
error_target = group("error-target", flags_of=lambda rig: ["--error-target", f"{rig.error_backend.target}/hub/error"])
error_path = group("error-path", flags_of=lambda rig: ["--error-path", rig.pages])
proxy_timeout = group("proxy-timeout", "--proxy-timeout", "1500")
timeout = group("timeout", "--timeout", "1500")

MARK = "unlikely<mark>"


@plain("without a route")
def no_route(world):
    answer = world.ask("/nothing/" + MARK.replace("<", "%3C").replace(">", "%3E") + "?<script>")
    seen = {"status": answer.outcome, "type": answer.header("content-type"), "a page": b"404" in answer.body}
    seen["says back what it was asked"] = b"unlikely" in answer.body or b"<script>" in answer.body
    for method in ("HEAD", "POST", "OPTIONS", "DELETE"):
        answer = world.ask("/nothing", method=method)
        seen[method] = [answer.outcome, len(answer.body) > 0]
    return seen


def broken_targets(world):
    """Targets that don't answer: what each of them is, and what happens."""
    dead = world.server()
    dead.stop()

    def reset(exchange):
        exchange.read_body()
        exchange.reset()
        return CLOSED

    return {
        "refuses": dead.target,
        "a name that doesn't exist": "http://no-such-host.invalid:8888",
        "closes without an answer": world.server(handler=raw(b"")).target,
        "resets": world.server(handler=reset).target,
        "answers no HTTP": world.server(handler=raw(b"hello, this is not HTTP\r\n\r\n")).target,
        "cuts its head": world.server(handler=raw(b"HTTP/1.1 200 OK\r\nX-Half: ")).target,
        "https to a plain port": world.server().target.replace("http:", "https:"),
        "http to a TLS port": world.server(tls=world.certificates.of_server()).target.replace("https:", "http:"),
        "a certificate nobody trusts": world.server(tls=world.certificates.of_server("stranger")).target,
    }


@plain("servers that fail")
def dead(world):
    seen = {}
    for number, (title, target) in enumerate(broken_targets(world).items()):
        world.route(f"/broken{number}", target)
        answer = world.ask(f"/broken{number}/unlikely")
        seen[title] = answer.outcome
        seen[f"{title}: page"] = [answer.header("content-type"), b"unlikely" in answer.body, len(answer.body) > 0]
        seen[f"{title}: POST"] = world.ask(f"/broken{number}", method="POST", body=b"x").outcome
    return seen


@plain("a server that says chunked twice")
def chunked_twice(world):
    """A framing that RFC 9112 forbids. Some frameworks write it when an application sets the header itself."""
    heads = {
        "two lines": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "one line": b"Transfer-Encoding: chunked, chunked\r\n",
    }
    seen = {}
    for number, (title, lines) in enumerate(heads.items()):
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + lines + b"\r\n2\r\nhi\r\n0\r\n\r\n"
        world.route(f"/twice{number}", world.server(handler=raw(answer)))
        got = world.ask(f"/twice{number}/x")
        seen[title] = [got.outcome, got.gist]
    return seen


@plain("pages for long addresses")
def long_addresses(world):
    dead = world.server()
    dead.stop()
    world.route("/dead", dead)
    seen = {}
    for title, rest in {"a long name": "x" * 15000, "many escapes": "%2F" * 3300, "many slashes": "/" * 15000}.items():
        for place in ("/dead", "/nothing"):
            answer = world.ask(f"{place}/{rest}")
            seen[f"{place}, {title}"] = [answer.outcome, answer.gist.startswith(("(a page)", "<"))]
    return seen


@plain("a server that dies in the middle of its answer")
def dies(world):
    def halfway(exchange):
        exchange.read_body()
        exchange.send(head_of("HTTP/1.1 200 OK", [("Content-Length", "100")]) + b"half")
        exchange.reset()
        return CLOSED

    world.root(halfway)
    answer = world.ask("/x", client=world.client(seconds=2))
    return {"status": answer.outcome, "ending": answer.ending}


@plain("a server that comes back on its port")
def comes_back(world):
    backend = world.root()
    seen = {"before": world.who("/x")}
    backend.stop()
    seen["dead"] = world.ask("/x").outcome
    backend.start()
    seen["again"] = world.who("/x")
    seen["again, POST"] = world.ask("/x", method="POST", body=b"x").outcome
    backend.stop()
    backend.start()
    eventually(lambda: is_deserted(backend.port))
    seen["restarted between requests, POST"] = world.ask("/x", method="POST", body=b"x").outcome
    return seen


@plain("a kept connection that the server has closed")
def reused(world):
    backend = world.root()
    seen = {}
    for method, body in (("GET", None), ("POST", b"body"), ("PUT", b"body"), ("DELETE", None)):
        backend.reset()
        first = world.ask("/x", method=method, body=body).outcome
        backend.close_connections()
        eventually(lambda: is_deserted(backend.port))
        second = world.ask("/x", method=method, body=body).outcome
        seen[method] = [first, second]
        seen[f"{method}: requests that arrived"] = len(backend.requests)
    return seen


@plain("a kept connection that the server closes at the next request")
def race(world):
    """The race of keep-alive: the request is on its way when the server closes. Nobody may send a POST twice."""
    backend = world.root()

    def once(exchange):
        exchange.read_body()
        if exchange.connection.number in served:
            return CLOSED
        served.add(exchange.connection.number)
        exchange.answer(body=b"x")

    seen = {}
    for method, body in (("GET", None), ("POST", b"body")):
        served = set()
        backend.reset()
        backend.close_connections()
        eventually(lambda: is_deserted(backend.port))
        backend.handler = once
        answers = [world.ask("/x", method=method, body=body).outcome for _ in range(2)]
        seen[method] = answers
        seen[f"{method}: requests that arrived"] = len(backend.requests)
    return seen


@plain("connections to a server are kept")
def kept(world):
    backend = world.root()
    before = backend.connections
    for _ in range(10):
        world.ask("/x")
    return {"connections for ten requests": backend.connections - before}


def with_error_target(world, path, method="GET", **named):
    """One failing request: the proxy's answer, and what the error target was asked."""
    world.error_backend.requests.clear()
    answer = world.ask(path, method=method, **named)
    asked = [f"{request.method} {request.target}" for request in world.error_backend.requests]
    return answer, asked


PAGE = [
    ("Content-Type", "text/html; charset=UTF-8"),
    ("X-Own", "1"),
    ("Set-Cookie", "a=1"),
    ("Cache-Control", "max-age=5"),
]


@error_target("pages of the error target")
def pages(world):
    dead = world.server()
    dead.stop()
    world.route("/dead", dead)
    world.error_backend.handler = static(200, b"<h1>the hub's page</h1>", PAGE)
    seen, secrets = {}, set()
    for title, path in {
        "no route": "/nothing",
        "a query": "/nothing/x?y=1&z=%40;a",
        "dead": "/dead/x%2Fy?z=1",
        "characters": "/n/%C3%BC%20'\"<b>",
    }.items():
        answer, asked = with_error_target(world, path, headers=[("Cookie", "secret=1"), ("Authorization", "token x")])
        seen[title] = [answer.outcome, answer.text]
        seen[f"{title}: asked"] = asked
        for request in world.error_backend.requests:
            secrets.update(name.lower() for name, _ in request.headers if name.lower() in ("cookie", "authorization"))
        for name in ("Content-Type", "X-Own", "Set-Cookie", "Cache-Control"):
            seen[f"{title}: {name}"] = answer.header(name)
    seen["secrets that go along"] = sorted(secrets)
    for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        body = b"a body" if method in ("POST", "PUT") else None
        answer, asked = with_error_target(world, "/dead/m", method, body=body)
        seen[method] = [answer.outcome, len(answer.body) > 0, *asked]
    return seen


@error_target("answers of the error target")
def page_answers(world):
    dead = world.server()
    dead.stop()
    world.route("/dead", dead)
    seen = {}
    handlers = {
        "200": static(200, b"page", PAGE),
        "404 with a page": static(404, b"page", PAGE),
        "500 with a page": static(500, b"page", PAGE),
        "empty": static(200, b"", PAGE),
        "a redirect": static(302, b"moved", [("Location", "/login")]),
        "an encoding": static(
            200, gzip.compress(b"packed page", mtime=0), [("Content-Encoding", "gzip"), ("Content-Type", "text/html")]
        ),
        "no type": static(200, b"page"),
        "closes": raw(b""),
    }
    for title, handler in handlers.items():
        world.error_backend.handler = handler
        answer = world.ask("/dead/x", headers=[("Accept-Encoding", "gzip")])
        seen[title] = [
            answer.outcome,
            answer.header("content-type"),
            answer.header("content-encoding"),
            answer.header("location"),
        ]
        packed = answer.header("content-encoding") == "gzip"
        seen[f"{title}: body"] = gzip.decompress(answer.body) if packed else answer.gist
    return seen


@error_target("an error target that is down")
def target_down(world):
    dead = world.server()
    dead.stop()
    world.route("/dead", dead)
    world.error_backend.stop()
    try:
        answer = world.ask("/dead/unlikely")
        missing = world.ask("/unlikely")
    finally:
        world.error_backend.start()
    return {
        "dead": answer.outcome,
        "no route": missing.outcome,
        "body": answer.gist,
        "type": answer.header("content-type"),
        "says back what it was asked": b"unlikely" in answer.body + missing.body,
    }


@error_target("a server's own errors")
def own_errors(world):
    """They are the server's, and the error target is not asked."""
    backend = world.root()
    world.error_backend.handler = static(200, b"the hub's page", PAGE)
    seen = {}
    for status in (400, 403, 404, 418, 500, 502, 503, 504):
        backend.handler = static(status, b"the server's own", [("X-Own", "1")])
        answer, asked = with_error_target(world, "/x")
        seen[str(status)] = [answer.outcome, answer.text, answer.header("x-own"), *asked]
    return seen


@error_target("a websocket")
def websocket_page(world):
    dead = world.server()
    dead.stop()
    world.route("/dead", dead)
    world.error_backend.handler = static(200, b"the hub's page", PAGE)
    seen = {}
    for path in ("/dead/x", "/nothing"):
        _, answer = world.websocket(path)
        seen[path] = [answer.outcome, answer.text]
    return seen


@error_path("pages from a folder")
def folder(world):
    dead = world.server()
    dead.stop()
    world.route("/dead", dead)
    seen = {}
    for title, path in {"404": "/nothing", "503": "/dead/x"}.items():
        answer = world.ask(path)
        seen[title] = [answer.outcome, answer.header("content-type"), answer.gist]
        seen[f"{title}: HEAD"] = [world.ask(path, method="HEAD").outcome]
    return seen


@proxy_timeout("slow servers", at_once=True)
def proxy_timeouts(world):
    return silences(world)


@timeout("slow servers", at_once=True)
def timeouts(world):
    return silences(world)


def silences(world):
    """Servers that are silent for 3 s, before their answer and within it."""
    stop = threading.Event()

    def late(exchange):
        exchange.read_body()
        stop.wait(3)
        exchange.answer(body=b"late")

    def pausing(exchange):
        exchange.read_body()
        exchange.send(head_of("HTTP/1.1 200 OK", [("Content-Length", "4")]) + b"ab")
        stop.wait(3)
        exchange.send(b"cd")

    backend = world.root()
    seen = {"quick": world.ask("/x").outcome}
    for title, handler in {"before the answer": late, "within the answer": pausing}.items():
        backend.handler = handler
        began = time.monotonic()
        answer = world.ask("/x", client=world.client(seconds=4))
        seen[title] = answer.outcome
        seen[f"{title}: whole"] = answer.body in (b"late", b"abcd")
        seen[f"{title}: within 2.8 s"] = time.monotonic() - began < 2.8
    stop.set()
    return seen


@plain("a server that accepts and never answers", at_once=True)
def hangs(world):
    """There is no limit: the request waits as long as the client does."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        world.route("/hangs", f"http://{LOOPBACK}:{listener.getsockname()[1]}")
        client = world.client(seconds=2)
        return {"after two seconds": world.ask("/hangs", client=client).outcome}


@plain("the health page")
def health(world):
    world.root()
    world.route("/_chp_healthz", world.server("a route of that name"))
    seen = {}
    for path in (
        "/_chp_healthz",
        "/_chp_healthz?x=1",
        "/_chp_healthz/",
        "/_chp_healthz/x",
        "/_chp_healthzz",
        "/%5Fchp_healthz",
    ):
        answer = world.ask(path)
        seen[path] = [
            answer.outcome,
            json.dumps(json.loads(answer.text)) if answer.text.startswith("{") else answer.text,
        ]
    seen["type"] = world.ask("/_chp_healthz").header("content-type")
    for method in ("HEAD", "POST", "OPTIONS"):
        seen[method] = world.ask("/_chp_healthz", method=method).outcome
    return seen
