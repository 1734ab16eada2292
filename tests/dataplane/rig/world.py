"""What a case works with: one proxy, servers behind it, and the ways to ask."""

import re
import socket

from .backend import Backend
from .wire import Answer, Client, head_of, upgrade_head


class World:
    """One proxy with servers behind it. Every case gets a table of routes that is empty but for the rig's own."""

    def __init__(self, proxy, certificates, error_backend):
        self.proxy, self.certificates, self.error_backend = proxy, certificates, error_backend
        self.routes, self.backends, self.clients = [], [], []
        self.tls = None

    def clean(self):
        """Take away what the case has made."""
        for client in self.clients:
            client.close()
        for path in self.routes:
            self.proxy.call("DELETE", path)
        for backend in self.backends:
            backend.stop()
        self.error_backend.reset()
        self.routes, self.backends, self.clients = [], [], []

    # Servers and routes

    def server(self, name="server", handler=None, tls=None):
        backend = Backend(name, tls)
        if handler:
            backend.handler = handler
        self.backends.append(backend)
        return backend

    def route(self, path, target):
        """Add a route; the API must say that it is there."""
        address = target.target if isinstance(target, Backend) else target
        status = self.proxy.call("POST", path, {"target": address})
        assert status == 201, f"{self.proxy.name} answers {status} to a route {path} to {address}"
        if path not in self.routes:
            self.routes.append(path)

    def unroute(self, path):
        status = self.proxy.call("DELETE", path)
        assert status == 204, f"{self.proxy.name} answers {status} to the removal of {path}"
        self.routes.remove(path)

    def root(self, handler=None, **named):
        """A server behind `/`."""
        backend = self.server(handler=handler, **named)
        self.route("/", backend)
        return backend

    # Asking

    def client(self, port=None, **named):
        client = Client(port or self.proxy.port, tls=self.tls, **named)
        self.clients.append(client)
        return client

    def ask(self, path="/", method="GET", headers=(), body=None, host="hub.example", version="1.1", client=None):
        """One request, and its answer. A client may be given; else the connection is a new one, and is closed."""
        fixed = [] if host is None else [("Host", host)]
        if body is not None:
            fixed.append(("Content-Length", str(len(body))))
        data = head_of(f"{method} {path} HTTP/{version}", [*fixed, *headers]) + (body or b"")
        return self.raw(data, method, client)

    def raw(self, data, method="GET", client=None):
        """These bytes, and the answer to them."""
        own = client is None
        client = client or self.client()
        try:
            client.send(data)
        except OSError:
            pass  # the other side may answer before it has read all
        answer = client.answer(method)
        if own:
            client.close()
        return answer

    def who(self, path, **named):
        """Which server answers there: its name, or the proxy's own status."""
        answer = self.ask(path, **named)
        return answer.text if answer.status == 200 else answer.outcome

    def websocket(self, path, headers=(), host="hub.example", **named):
        """A handshake: the client and the answer."""
        client = self.client(**named)
        head, key = upgrade_head(path, host, headers)
        client.send(head)
        try:
            answer = client.read_head()
            if answer.status != 101:
                client.read_body(answer)
        except (EOFError, OSError):
            answer = Answer(ending="closed")
        return client, answer

    def tidy(self, text):
        """A text without what differs from run to run: the ports."""
        if text is None:
            return None
        text = re.sub(rf"\b{re.escape(socket.gethostname())}\b", "THIS-HOST", text)
        for port, name in [(self.proxy.port, "PUBLIC"), (self.error_backend.port, "ERRORS")]:
            text = text.replace(str(port), name)
        for backend in self.backends:
            text = text.replace(str(backend.port), backend.name.upper())
        return text
