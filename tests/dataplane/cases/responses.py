"""What a client gets of a server's answer."""

import gzip
import select
import threading

from rig.backend import CLOSED, raw, static
from rig.cases import group
from rig.wire import eventually, head_of

plain = group("plain")
auto_rewrite = group("auto-rewrite", "--auto-rewrite")
protocol_rewrite = group("protocol-rewrite", "--protocol-rewrite", "https")

STATUSES = [
    200,
    201,
    202,
    204,
    206,
    207,
    226,
    300,
    301,
    302,
    303,
    304,
    307,
    308,
    400,
    401,
    403,
    404,
    405,
    409,
    410,
    412,
]
STATUSES += [413, 416, 418, 422, 429, 451, 499, 500, 501, 502, 503, 504, 507, 511, 599]


@plain("a server's own status")
def statuses(world):
    backend = world.root()
    seen = {}
    for status in STATUSES:
        backend.handler = static(
            status, b"" if status in (204, 304) else b"the server's own body", reason="Said By Server"
        )
        answer = world.ask("/x")
        seen[str(status)] = answer.outcome
        seen[f"{status}: body"] = answer.gist
    return seen


@plain("a server's own reason phrase")
def reason(world):
    world.root(static(200, b"x", reason="Fine By Me"))
    return {"reason": world.ask("/x").reason}


@plain("headers of an answer")
def headers(world):
    sent = [
        ("Content-Type", "text/x-own; charset=utf-8"),
        ("Server", "TornadoServer/6.5"),
        ("Date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ("Set-Cookie", "a=1; Path=/; HttpOnly"),
        ("Set-Cookie", "b=2; Secure; SameSite=Lax"),
        ("ETag", 'W/"x"'),
        ("Vary", "Cookie"),
        ("Vary", "Accept"),
        ("X-Own", "1"),
        ("X_Under", "2"),
        ("Content-Security-Policy", "frame-ancestors 'self'"),
        ("Via", "1.0 x"),
        ("Access-Control-Allow-Origin", "*"),
        ("Cache-Control", "no-store"),
        ("WWW-Authenticate", "Basic"),
        ("X-Latin", "\xfc"),
        ("Strict-Transport-Security", "max-age=1"),
        ("Content-Disposition", 'attachment; filename="x y"'),
        ("Link", "</x>; rel=next"),
        ("X-Powered-By", "server"),
        ("Alt-Svc", "h3"),
        ("Refresh", "5"),
    ]
    world.root(static(200, b"body", sent))
    answer = world.ask("/x")
    seen = {name: answer.header(name) for name in dict(sent)}
    known = {name.lower() for name in dict(sent)}
    seen["others"] = sorted({name.lower() for name, _ in answer.headers} - known)
    return seen


@plain("bare answers", at_once=True)
def bare(world):
    backend = world.root()
    kinds = {
        "a length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "until closed": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi",
        "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhi",
        "trailers": b"HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n",
        "cut short of its length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi",
        "cut in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhi",
        "cut between chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
        "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    }
    seen = {}
    for title, data in kinds.items():
        backend.handler = raw(data)
        # A proxy that doesn't tell its client that an answer was cut is silent for ever.
        answer = world.ask("/x", client=world.client(seconds=2))
        seen[title] = answer.outcome
        seen[f"{title}: body"] = [answer.text, answer.ending]
        if answer.trailers or answer.interim:
            seen[f"{title}: beside"] = [
                *map(str, answer.interim),
                *(f"{name}: {value}" for name, value in answer.trailers),
            ]
    return seen


@plain("answers to HTTP/1.0")
def old_client(world):
    backend = world.root()
    backend.handler = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
    answer = world.ask("/x", version="1.0")
    return {"status": answer.outcome, "body": answer.text, "ending": answer.ending}


@plain("HEAD")
def head(world):
    world.root(static(200, b"twelve bytes", [("Content-Type", "text/x"), ("ETag", '"e"')]))
    with world.client() as client:
        answer = world.ask("/x", method="HEAD", client=client)
        seen = {"status": answer.outcome, "length": answer.header("content-length"), "etag": answer.header("etag")}
        seen["type"] = answer.header("content-type")
        seen["the next request on this connection"] = world.ask("/x", client=client).text
    return seen


@plain("compression is the server's own")
def compression(world):
    packed = gzip.compress(b"hello " * 100, mtime=0)
    backend = world.root(static(200, packed, [("Content-Encoding", "gzip"), ("Content-Type", "text/plain")]))
    seen = {}
    for title, sent in {"asked for": [("Accept-Encoding", "gzip")], "not asked for": []}.items():
        answer = world.ask("/x", headers=sent)
        seen[f"{title}: untouched"] = answer.body == packed
        seen[f"{title}: encoding"] = answer.header("content-encoding")
        seen[f"{title}: ending"] = answer.ending
    backend.handler = static(200, b"hello " * 100, [("Content-Type", "text/plain")])
    seen["nothing is compressed by the proxy"] = (
        world.ask("/x", headers=[("Accept-Encoding", "gzip")]).body == b"hello " * 100
    )
    return seen


def redirected(world):
    """What becomes of Location."""
    backend = world.root()
    seen = {}
    for status in (201, 301, 302, 303, 307, 308):
        for title, location in {
            "relative": "/hub/login?next=%2F",
            "to the server": f"{backend.target}/x",
            "elsewhere": "https://other.example/x",
        }.items():
            backend.handler = static(status, b"", [("Location", location)])
            answer = world.ask("/x", host=f"hub.example:{world.proxy.port}")
            seen[f"{status} {title}"] = [answer.outcome, world.tidy(answer.header("location"))]
    return seen


@plain("redirects of a server")
def redirects(world):
    return redirected(world)


@auto_rewrite("redirects of a server")
def rewritten(world):
    return redirected(world)


@protocol_rewrite("redirects of a server")
def protocol_rewritten(world):
    return redirected(world)


@plain("an answer before the body has come", at_once=True)
def early_answer(world):
    ended = threading.Event()

    def refuse(exchange):
        exchange.answer(413, b"too large", reason="Too Large")
        ended.wait(2)
        return CLOSED

    backend = world.root()
    seen = {}
    backend.handler = refuse
    client = world.client(seconds=2)
    client.send(head_of("POST /x HTTP/1.1", [("Host", "hub.example"), ("Content-Length", "100000000")]) + b"x" * 1000)
    answer = client.answer()
    seen["a client that waits"] = [answer.outcome, answer.gist]
    ended.set()

    def refuse_and_read_on(exchange):
        exchange.answer(413, b"too large", [("Connection", "close")], reason="Too Large")
        exchange.read_body(keep=0)
        return CLOSED

    backend.handler = refuse_and_read_on
    seen["a client that goes on sending"] = answer_while_sending(world)
    return seen


def answer_while_sending(world):
    """The status that a client gets that sends its body until it is answered, as browsers do."""
    client = world.client(seconds=3)
    client.send(head_of("POST /x HTTP/1.1", [("Host", "hub.example"), ("Content-Length", "100000000")]))
    try:
        for _ in range(1500):
            client.send(bytes(1 << 16))
            if select.select([client.socket], [], [], 0)[0]:
                break
    except OSError:
        pass  # closed by the other side, which may have answered before
    return client.answer().outcome


@plain("a client that goes away")
def client_gone(world):
    began, ended = threading.Event(), threading.Event()

    def slow(exchange):
        exchange.read_body()
        began.set()
        try:
            exchange.connection.more()
        except OSError:
            pass
        ended.set()
        return CLOSED

    world.root(slow)
    client = world.client()
    client.send(head_of("GET /x HTTP/1.1", [("Host", "hub.example")]))
    seen = {"request arrives": began.wait(5)}
    client.close()
    seen["the server's connection is ended"] = ended.wait(5)
    return seen


@plain("a client that goes away in its upload")
def upload_gone(world):
    ended = []

    def read(exchange):
        try:
            exchange.read_body()
            ended.append("whole")
        except (EOFError, OSError, ValueError):
            ended.append("cut")
        return CLOSED

    world.root(read)
    seen = {}
    for title, headers, body in (
        ("with a length", [("Content-Length", "1000")], b"x" * 10),
        ("chunked", [("Transfer-Encoding", "chunked")], b"5\r\nhello\r\n"),
    ):
        ended.clear()
        client = world.client()
        client.send(head_of("POST /x HTTP/1.1", [("Host", "hub.example"), *headers]) + body)
        client.close()
        eventually(lambda: ended, 2)
        seen[title] = ended or "never reached the server"
    return seen
