"""A steady probe: requests as a user sends them, changes as a hub makes them, and every failure counted."""

import contextlib
import http.client
import json
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .parts import LOOPBACK

WINDOW_SECONDS = 60
REQUEST_PAUSE_SECONDS = 0.5
BUSY_PAUSE_SECONDS = 0.05
WRITE_PAUSE_SECONDS = 1.0
RETRY_PAUSE_SECONDS = 0.1
PATIENCE_SECONDS = 5
CALL_PATIENCE_SECONDS = 10
STEADY, COMES_AND_GOES = "/probe/steady", "/probe/comes-and-goes"
SIGN = b"this is the probe's own server\n"
LONG_SECONDS = 1.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(SIGN)))
        self.end_headers()
        self.wfile.write(SIGN)

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A Traefik that comes back from being frozen asks for what nobody waits for any more."""


def ask(port, method, path, token=None, record=None, patience_seconds=PATIENCE_SECONDS):
    """One request on a connection of its own. Status and body, or in place of the status what went wrong."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=patience_seconds)
    headers = {"Authorization": f"token {token}"} if token else {}
    try:
        connection.request(method, path, json.dumps(record) if record else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, b""
    finally:
        connection.close()


class Tally:
    """What was seen between two moments."""

    def __init__(self, requests, writes):
        self.requests = len(requests)
        self.failures = [why for _, why in requests if why]
        self.writes = len(writes)
        self.repeated = sum(repeats for _, _, repeats in writes)
        self.seconds = sorted(seconds for _, seconds, _ in writes)

    def __str__(self):
        text = f"{self.requests} requests, {len(self.failures)} failed; {self.writes} writes"
        if self.seconds:
            text += f", answered in {1000 * self.seconds[len(self.seconds) // 2]:.0f} ms"
            text += f", the slowest in {describe_seconds(self.seconds[-1])}"
        return text + (f", {self.repeated} repeated" if self.repeated else "")


def describe_seconds(seconds):
    return f"{1000 * seconds:.0f} ms" if seconds < LONG_SECONDS else f"{seconds:.1f} s"


class Probe:
    """Two threads, one asking and one writing, and a server of our own that both lead to.

    A write is a route that is added or removed, repeated as a hub repeats it until it is acknowledged. The very next
    request must see it: if not, that counts as a failed request.
    """

    def __init__(self, stack):
        self.stack = stack
        self.requests, self.writes = deque(), deque()
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.pause_seconds = REQUEST_PAUSE_SECONDS
        self.waiting_since = None
        self.complaints = deque(maxlen=100)
        self.server = _Server((LOOPBACK, 0), _Handler)
        self.target = f"http://{LOOPBACK}:{self.server.server_port}"
        works = (self.server.serve_forever, self._ask_on_and_on, self._write_on_and_on)
        self.threads = [threading.Thread(target=work, daemon=True) for work in works]

    def start(self):
        """Add the route that the requests are for, and begin."""
        self.threads[0].start()
        self._write("POST", STEADY)
        self.writes.clear()
        for thread in self.threads[1:]:
            thread.start()
        return self

    def stop(self):
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()

    @contextlib.contextmanager
    def busy(self):
        """Ask more often meanwhile."""
        self.pause_seconds = BUSY_PAUSE_SECONDS
        try:
            yield
        finally:
            self.pause_seconds = REQUEST_PAUSE_SECONDS

    def tally(self, since):
        """What has been seen since a moment of the monotonic clock."""
        with self.lock:
            return Tally(
                [each for each in self.requests if each[0] >= since], [each for each in self.writes if each[0] >= since]
            )

    def line(self):
        """The last minute in one line."""
        now, waiting = time.monotonic(), self.waiting_since
        text = f"last {WINDOW_SECONDS} s: {self.tally(now - WINDOW_SECONDS)}"
        if waiting and now - waiting > LONG_SECONDS:
            text += f"; a write has waited for {now - waiting:.0f} s"
        return text

    def new_complaints(self):
        """What went wrong and has not been told yet."""
        with contextlib.suppress(IndexError):
            while True:
                yield self.complaints.popleft()

    # The two threads

    def _keep(self, where, entry):
        with self.lock:
            where.append(entry)
            # A rolling restart is looked back at as a whole, so more than a minute is kept.
            while where[0][0] < time.monotonic() - 10 * WINDOW_SECONDS:
                where.popleft()

    def _count(self, path, wanted):
        """Ask once for a path, and note whether our server answered (or, if not wanted, did not)."""
        began = time.monotonic()
        status, body = ask(self.stack.users.port, "GET", path)
        right = isinstance(status, int) and (body == SIGN) == wanted
        why = None if right else f"GET {path}: {status}" + ("" if wanted else ", though it was removed")
        if why:
            self.complaints.append(f"a request failed after {describe_seconds(time.monotonic() - began)}: {why}")
        self._keep(self.requests, (began, why))

    def _ask_on_and_on(self):
        while not self.stopping.wait(self.pause_seconds):
            self._count(STEADY, True)

    def _write(self, method, path):
        """Change a route, and repeat it until that is acknowledged. True if it was."""
        good = (201,) if method == "POST" else (204, 404)
        record = {"target": self.target, "probe": True} if method == "POST" else None
        began, repeats = time.monotonic(), 0
        self.waiting_since = began
        try:
            while True:
                status, body = ask(
                    self.stack.api_port, method, f"/api/routes{path}", self.stack.token, record, CALL_PATIENCE_SECONDS
                )
                if status in good:
                    self._keep(self.writes, (time.monotonic(), time.monotonic() - began, repeats))
                    return True
                if isinstance(status, int) and 400 <= status < 500:
                    text = body.decode(errors="replace").strip()
                    self.complaints.append(f"{method} {path}: {status} {text}, at which a hub gives up")
                repeats += 1
                if self.stopping.wait(RETRY_PAUSE_SECONDS):
                    return False
        finally:
            self.waiting_since = None

    def _write_on_and_on(self):
        while not self.stopping.wait(WRITE_PAUSE_SECONDS):
            for method, wanted in (("POST", True), ("DELETE", False)):
                if self._write(method, COMES_AND_GOES):
                    self._count(COMES_AND_GOES, wanted)
