"""A client that sends exactly the bytes it is given, and tells exactly what came back."""

import base64
import hashlib
import os
import socket
import struct
import time
from dataclasses import dataclass, field

LOOPBACK = "127.0.0.1"
PATIENCE_SECONDS = 8


def head_of(first_line, headers):
    """The bytes of a request's or answer's head."""
    lines = [first_line, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def parse_headers(lines):
    pairs = (line.partition(":") for line in lines if line)
    return [(name, value.strip(" \t")) for name, _, value in pairs]


def values_of(headers, wanted):
    """All values of a header, in the order they came."""
    return [value for name, value in headers if name.lower() == wanted.lower()]


@dataclass
class Answer:
    """What a client saw. `ending` says how the body ended: length, chunked, close, none, cut, timeout."""

    status: int = 0
    reason: str = ""
    version: str = ""
    headers: list = field(default_factory=list)
    body: bytes = b""
    ending: str = "none"
    interim: list = field(default_factory=list)
    trailers: list = field(default_factory=list)

    def header(self, name):
        """The values of a header, joined; None without one."""
        values = values_of(self.headers, name)
        return " | ".join(values) if values else None

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    @property
    def gist(self):
        """The body, or that it is a page of the proxy's own: its words are nobody's business here."""
        return "(a page)" if self.text.startswith("<!DOCTYPE") else self.text

    @property
    def outcome(self):
        """The status, or how the connection ended without one."""
        return self.status or self.ending


class Client:
    """One connection to a proxy (or to anything else)."""

    def __init__(self, port, tls=None, server_name="localhost", seconds=PATIENCE_SECONDS, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(seconds)
        self.socket.connect((LOOPBACK, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=server_name)
        self.pending = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def finish(self):
        """Say that nothing more will be sent; answers can still come."""
        self.socket.shutdown(socket.SHUT_WR)

    def more(self, limit=1 << 16):
        """Some bytes, or none when the other side has closed."""
        if self.pending:
            taken, self.pending = self.pending[:limit], self.pending[limit:]
            return taken
        return self.socket.recv(limit)

    def exactly(self, length):
        """So many bytes; EOFError if there are fewer."""
        parts, missing = [], length
        while missing:
            part = self.more(min(missing, 1 << 20))
            if not part:
                raise EOFError(b"".join(parts))
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def line(self):
        """A line, without its end."""
        found = b""
        while not found.endswith(b"\n"):
            part = self.more(1 if not self.pending else len(self.pending))
            if not part:
                raise EOFError(found)
            found += part
            if b"\n" in found:
                found, _, rest = found.partition(b"\n")
                self.pending = rest + self.pending
                break
        return found.rstrip(b"\r\n").decode("latin-1")

    def rest(self):
        """All that comes until the other side closes."""
        parts = []
        while part := self.more():
            parts.append(part)
        return b"".join(parts)

    def read_head(self):
        """Status line and headers; interim answers are collected."""
        interim = []
        while True:
            version, _, rest = self.line().partition(" ")
            code, _, reason = rest.partition(" ")
            lines = []
            while line := self.line():
                lines.append(line)
            answer = Answer(int(code), reason, version, parse_headers(lines), interim=interim)
            if answer.status >= 200 or answer.status == 101:
                return answer
            interim.append(answer.status)

    def read_body(self, answer, method="GET"):
        """The body, as the head says it is framed, or as much of it as comes."""
        length = answer.header("content-length")
        if method == "HEAD" or answer.status in (101, 204, 304):
            return answer
        try:
            if "chunked" in (answer.header("transfer-encoding") or ""):
                self._read_chunks(answer)
                answer.ending = "chunked"
            elif length is not None:
                while len(answer.body) < int(length):
                    answer.body += self._part(int(length) - len(answer.body))
                answer.ending = "length"
            else:
                while part := self.more():
                    answer.body += part
                answer.ending = "close"
        except (TimeoutError, socket.timeout):
            answer.ending = "timeout"
        except (EOFError, ValueError, OSError):
            answer.ending = "cut"
        return answer

    def _part(self, limit):
        part = self.more(limit)
        if not part:
            raise EOFError
        return part

    def _read_chunks(self, answer):
        while missing := int(self.line().partition(";")[0], 16):
            while missing:
                part = self._part(missing)
                answer.body += part
                missing -= len(part)
            self.line()
        lines = []
        while line := self.line():
            lines.append(line)
        answer.trailers = parse_headers(lines)

    def answer(self, method="GET"):
        """A whole answer, or how it ended: nothing here raises, for the end is what is observed."""
        try:
            return self.read_body(self.read_head(), method)
        except (TimeoutError, socket.timeout):
            return Answer(ending="timeout")
        except (EOFError, OSError):
            return Answer(ending="closed")
        except ValueError as error:
            return Answer(ending=f"no HTTP ({error})")

    def is_closed_within(self, seconds):
        """Whether the other side closes in that time."""
        self.socket.settimeout(seconds)
        try:
            return not self.socket.recv(1)
        except (TimeoutError, socket.timeout):
            return False
        except ConnectionError:
            return True
        finally:
            self.socket.settimeout(PATIENCE_SECONDS)


# Websockets, by hand: frames as RFC 6455 has them.

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 1, 2, 8, 9, 10, 0


def upgrade_head(path, host="hub.example", headers=(), upgrade="websocket", version="13"):
    """The head of a websocket's handshake, and its key."""
    key = base64.b64encode(os.urandom(16)).decode()
    fixed = [
        ("Host", host),
        ("Connection", "Upgrade"),
        ("Upgrade", upgrade),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", version),
    ]
    return head_of(f"GET {path} HTTP/1.1", [*fixed, *headers]), key


def accept_of(key):
    """The proof of the other side that it speaks websocket."""
    return base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()


def frame(kind, payload=b"", masked=False, final=True):
    """One frame. The mask is four zero bytes, so that a payload can be sent as it is."""
    first = (0x80 if final else 0) | kind
    flag = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, flag | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, flag | 126, size)
    else:
        head = struct.pack("!BBQ", first, flag | 127, size)
    return head + (b"\0\0\0\0" if masked else b"") + payload


def read_frame(peer):
    """Kind, payload and whether it is the last of its message. `peer` has `exactly`."""
    first, second = peer.exactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", peer.exactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", peer.exactly(8))
    if second & 0x80:
        peer.exactly(4)
    return first & 0x0F, peer.exactly(size), bool(first & 0x80)


def is_deserted(port):
    """Whether nobody holds a connection to this port of ours any more, not even one that was closed at our end."""
    held = ("01", "08")  # established, and closed by the other side only
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return not any(int(row[2].partition(":")[2], 16) == port and row[3] in held for row in rows)


def eventually(condition, seconds=PATIENCE_SECONDS, interval_seconds=0.01):
    """Whether the condition comes true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval_seconds)
    return True
