"""A server behind the proxies that keeps every byte it was sent, and answers what the case wants."""

import contextlib
import hashlib
import socket
import threading
from dataclasses import dataclass, field

from devkit.ports import free_port

from .wire import LOOPBACK, PATIENCE_SECONDS, accept_of, frame, head_of, parse_headers, read_frame, values_of

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
TLS_HELLO = 0x16


@dataclass
class Request:
    """What a server got. `target` is the path and query, byte for byte."""

    method: str
    target: str
    version: str
    headers: list
    connection: int
    body: bytes = b""
    body_length: int = 0
    body_digest: str = ""
    extra: dict = field(default_factory=dict)

    def header(self, name):
        """The values of a header, joined by a bar where it came in several lines; None without one."""
        values = values_of(self.headers, name)
        return " | ".join(values) if values else None

    @property
    def framing(self):
        """How its body is framed."""
        if self.header("transfer-encoding"):
            return self.header("transfer-encoding").lower()
        return "none" if self.header("content-length") is None else f"length {self.header('content-length')}"


class Exchange:
    """One request on one connection: for a handler that wants to do more than give an answer."""

    def __init__(self, backend, connection, request):
        self.backend, self.connection, self.request = backend, connection, request

    def send(self, data):
        self.connection.socket.sendall(data)

    def exactly(self, length):
        return self.connection.exactly(length)

    def body_parts(self):
        """The request's body, part by part as it comes."""
        request = self.request
        if "chunked" in (request.header("transfer-encoding") or "").lower():
            while size := int(self.connection.line().partition(";")[0], 16):
                yield self.connection.exactly(size)
                self.connection.line()
            while self.connection.line():
                pass
            return
        missing = int(request.header("content-length") or 0)
        while missing:
            part = self.connection.more(min(missing, 1 << 18))
            if not part:
                raise EOFError
            missing -= len(part)
            yield part

    def read_body(self, keep=1 << 20):
        """Read the body to its end; up to `keep` bytes of it are kept, of all the length and digest."""
        request, digest = self.request, hashlib.sha256()
        for part in self.body_parts():
            digest.update(part)
            request.body_length += len(part)
            if len(request.body) < keep:
                request.body += part
        request.body_digest = digest.hexdigest()

    def answer(self, status=200, body=b"", headers=(), reason="OK"):
        """A plain answer with a length."""
        fixed = [] if status in (204, 304) else [("Content-Length", str(len(body)))]
        text = head_of(f"HTTP/1.1 {status} {reason}", [*fixed, *headers])
        self.send(text + (b"" if self.request.method == "HEAD" else body))

    def accept_websocket(self, headers=()):
        key = self.request.header("sec-websocket-key")
        fixed = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept_of(key))]
        self.send(head_of("HTTP/1.1 101 Switching Protocols", [*fixed, *headers]))

    def read_frame(self):
        return read_frame(self)

    def send_frame(self, kind, payload=b"", final=True):
        self.send(frame(kind, payload, final=final))

    def reset(self):
        """End the connection with a TCP reset."""
        self.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.socket.close()


class Connection:
    """One accepted connection; reads like `wire.Client`."""

    def __init__(self, accepted, number):
        self.socket, self.number, self.pending = accepted, number, b""

    def more(self, limit=1 << 18):
        if self.pending:
            taken, self.pending = self.pending[:limit], self.pending[limit:]
            return taken
        return self.socket.recv(limit)

    def exactly(self, length):
        parts, missing = [], length
        while missing:
            part = self.more(min(missing, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def line(self):
        while b"\n" not in self.pending:
            part = self.socket.recv(1 << 16)
            if not part:
                raise EOFError
            self.pending += part
            if self.pending[0] == TLS_HELLO:
                raise EOFError  # as a server does that speaks no TLS
        found, _, self.pending = self.pending.partition(b"\n")
        return found.rstrip(b"\r").decode("latin-1")


def say_name(exchange):
    """What a server does unless the case says otherwise: read all, answer its name."""
    exchange.read_body()
    exchange.answer(body=exchange.backend.name.encode(), headers=[("Content-Type", "text/plain; charset=utf-8")])


class Backend:
    """A server on a port of its own. `handler(exchange)` may be changed at any time; `requests` is what came."""

    def __init__(self, name, tls=None, port=None):
        self.name, self.tls = name, tls
        self.port = port or free_port()
        self.handler = say_name
        self.requests = []
        self.connections = 0
        self.open = set()
        self.ended = []
        self.start()

    @property
    def target(self):
        return f"{'https' if self.tls else 'http'}://{LOOPBACK}:{self.port}"

    def start(self):
        self.listener = socket.create_server((LOOPBACK, self.port), backlog=64)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def stop(self):
        """Be dead: refuse, and cut what is open."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.close_connections()

    def close_connections(self):
        """Close every open connection, as a server does whose keep-alive time is over."""
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener):
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted):
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, EOFError, ValueError):
            if self.tls:
                accepted.settimeout(PATIENCE_SECONDS)
                accepted = self.tls.wrap_socket(accepted, server_side=True)
                accepted.settimeout(None)
            self.connections += 1
            connection = Connection(accepted, self.connections)
            self.open.add(connection)
            try:
                while self._one(connection):
                    pass
            finally:
                self.open.discard(connection)
                self.ended.append(connection.number)
        with contextlib.suppress(OSError):
            accepted.close()

    def _one(self, connection):
        first = connection.line()
        lines = []
        while line := connection.line():
            lines.append(line)
        method, _, rest = first.partition(" ")
        target, _, version = rest.rpartition(" ")
        request = Request(method, target, version, parse_headers(lines), connection.number)
        self.requests.append(request)
        return self.handler(Exchange(self, connection, request)) is not CLOSED

    @property
    def last(self):
        """The last request that came."""
        return self.requests[-1]

    def reset(self):
        """Forget what came, and answer as at first."""
        self.handler = say_name
        self.requests.clear()
        self.ended.clear()


# What a handler returns after which the connection is closed.
CLOSED = object()


def static(status=200, body=b"", headers=(), reason="OK"):
    """A handler that reads the request and gives this answer."""

    def handler(exchange):
        exchange.read_body()
        exchange.answer(status, body, headers, reason)

    return handler


def raw(data, read_body=True):
    """A handler that sends these bytes and closes."""

    def handler(exchange):
        if read_body:
            exchange.read_body()
        exchange.send(data)
        return CLOSED

    return handler


def echo_websocket(exchange):
    """A handler that accepts a websocket and sends each message back."""
    exchange.accept_websocket()
    while True:
        kind, payload, final = exchange.read_frame()
        if kind == PING:
            exchange.send_frame(PONG, payload)
        else:
            exchange.send_frame(kind, payload, final)
        if kind == CLOSE:
            return CLOSED
