"""The clients: users on a public port, the hub on the REST API, and a plain etcd client."""

import base64
import http.client
import json
import queue
import select
import socket
import threading
import time

LOOPBACK = "127.0.0.1"
CALL_SECONDS = 60


class Failed(Exception):
    """Something answered what it must not answer. A benchmark of wrong answers is worth nothing."""


class Public:
    """A user's browser: one connection that is kept open."""

    def __init__(self, port):
        self.port = port
        self.socket = None

    def get(self, path):
        """The status of a GET, and the body."""
        for last_try in (False, True):
            try:
                return self._get(path)
            except OSError:
                self.close()
                if last_try:
                    raise

    def _get(self, path):
        if self.socket is None:
            self.socket = socket.create_connection((LOOPBACK, self.port), timeout=CALL_SECONDS)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: hub.example\r\n\r\n".encode())
        text = b""
        while b"\r\n\r\n" not in text:
            text += self._more()
        head, _, body = text.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += self._more()
        return int(head[9:12]), body.decode()

    def _more(self):
        more = self.socket.recv(65536)
        if not more:
            raise ConnectionError("closed")
        return more

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket = None

    def wait_for(self, path, word, seconds, interval_seconds):
        """Ask until the server named `word` answers."""
        deadline = time.monotonic() + seconds
        while True:
            last = self.get(path)
            if last == (200, f"<{word}>"):
                return
            if time.monotonic() > deadline:
                raise Failed(f"Waited {seconds} s in vain for {path} to reach <{word}>. Last seen: {last}")
            time.sleep(interval_seconds)


class Client:
    """One connection that is kept open while it is in use. Servers close what is idle: Node after 5 s."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection(LOOPBACK, port, timeout=CALL_SECONDS)
        self.used = 0.0

    def ask(self, method, path, body=None, headers=None):
        """The status and the body of the answer."""
        if time.monotonic() - self.used > 1:
            self.connection.close()
        self.connection.request(method, path, body, headers or {})
        answer = self.connection.getresponse()
        text = answer.read()
        self.used = time.monotonic()
        return answer.status, text


class Api(Client):
    """The hub, on configurable-http-proxy's REST API."""

    def __init__(self, port, token):
        super().__init__(port)
        self.headers = {"Authorization": f"token {token}"}

    def call(self, method, path, body=None, expected=(200, 201, 204)):
        status, text = self.ask(method, "/api/routes" + path, body, self.headers)
        if status not in expected:
            raise Failed(f"{method} {path}: {status} {text[:300]!r}")
        return text

    def add(self, route, target):
        data = {"user": route.user, "server_name": route.server}
        self.call("POST", route.path, json.dumps({"target": target, **data}), (201,))

    def remove(self, route):
        self.call("DELETE", route.path, expected=(204,))


def at_once(workers, items, make_client, work):
    """Do `work(client, item)` for every item, `workers` at a time. Gives the seconds that each took."""
    todo, took, errors = queue.SimpleQueue(), [], []
    for item in items:
        todo.put(item)

    def run():
        client = make_client()
        while not errors:
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            began = time.perf_counter()
            try:
                work(client, item)
            except Exception as error:
                errors.append(error)
            took.append(time.perf_counter() - began)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return took


class Etcd(Client):
    """A plain etcd client: etcd's own JSON gateway, so that nothing has to be installed."""

    # etcd takes at most 128 operations in a transaction.
    LIMIT = 120

    def call(self, verb, what):
        status, text = self.ask("POST", "/v3/kv/" + verb, json.dumps(what))
        if status != 200:
            raise Failed(f"etcd {verb}: {status} {text[:300]!r}")
        return json.loads(text)

    def commit(self, puts=None, prefixes=(), keys=()):
        """One transaction: keys to put; prefixes and keys to delete."""
        steps = [{"requestPut": {"key": coded(key), "value": coded(value)}} for key, value in (puts or {}).items()]
        steps += [{"requestDeleteRange": below(prefix)} for prefix in prefixes]
        steps += [{"requestDeleteRange": {"key": coded(key)}} for key in keys]
        if not self.call("txn", {"success": steps}).get("succeeded"):
            raise Failed("etcd refused a transaction without conditions")

    def fill(self, puts):
        """Many keys, in as many transactions as it takes."""
        pairs = list(puts.items())
        for start in range(0, len(pairs), self.LIMIT):
            self.commit(dict(pairs[start : start + self.LIMIT]))

    def clear(self, prefix):
        self.call("deleterange", below(prefix))

    def revision(self):
        return int(self.call("range", {"key": coded("x"), "count_only": True})["header"]["revision"])

    def read(self, prefix, since=0):
        """All keys below a prefix that have changed since a revision: key, value, made, changed."""
        found, start, end = [], coded(prefix), below(prefix)["range_end"]
        while True:
            page = {"key": start, "range_end": end, "limit": 5000, "min_mod_revision": since}
            answer = self.call("range", page)
            for kv in answer.get("kvs", []):
                texts = (plain(kv["key"]), plain(kv.get("value", "")))
                found.append((*texts, int(kv["create_revision"]), int(kv["mod_revision"])))
            if not answer.get("more"):
                return found
            start = coded(found[-1][0] + "\0")


def coded(text):
    return base64.b64encode(text.encode()).decode()


def plain(text):
    return base64.b64decode(text).decode()


def below(prefix):
    return {"key": coded(prefix), "range_end": coded(prefix[:-1] + chr(ord(prefix[-1]) + 1))}


def requests_per_second(port, path, connections, seconds):
    """Keep `connections` connections busy with GETs that must all reach the hub; one process, no threads."""
    asked = f"GET {path} HTTP/1.1\r\nHost: hub.example\r\n\r\n".encode()
    poll = select.epoll()
    sockets, halves = {}, {}
    for _ in range(connections):
        each = socket.create_connection((LOOPBACK, port), timeout=CALL_SECONDS)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(each.fileno(), select.EPOLLIN)
        sockets[each.fileno()] = each
    began = time.perf_counter()
    for each in sockets.values():
        each.send(asked)
    done, now = 0, began
    while now - began < seconds:
        for number, _ in poll.poll(CALL_SECONDS):
            # The answer is small, comes in one piece or two, and ends with the server's word.
            text = halves.pop(number, b"") + sockets[number].recv(65536)
            if not text.endswith(b"<hub>"):
                if not text.startswith(b"HTTP/1.1 200") or len(text) > 4096:
                    raise Failed(f"GET {path} under load: {text[:300]!r}")
                halves[number] = text
                continue
            done += 1
            sockets[number].send(asked)
        now = time.perf_counter()
    for each in sockets.values():
        each.close()
    return done / (now - began)
