"""What a test does with a running stack: the hub's own API, Pointsman's API, and raw requests through Traefik."""

import http.client
import json
from urllib.parse import quote

import requests
from devkit.child import wait_until


class Hub:
    """A stack, and the tokens to talk to its parts."""

    def __init__(self, stack, token):
        self.stack = stack
        self.token = token

    # JupyterHub's API, through Traefik

    def call(self, method, path, expected, **options):
        """Call the hub's API and check the status."""
        answer = requests.request(
            method,
            f"{self.stack.public_url}/hub/api{path}",
            headers={"Authorization": f"token {self.token}"},
            timeout=90,
            **options,
        )
        assert answer.status_code in expected, f"{method} {path}: {answer.status_code} {answer.text[:300]}"
        return answer

    def add_users(self, names):
        """Create these users, if they don't exist."""
        for name in names:
            self.call("POST", f"/users/{quote(name, safe='')}", (201, 409))

    @staticmethod
    def _server(name, server):
        user = f"/users/{quote(name, safe='')}"
        return f"{user}/servers/{quote(server, safe='')}" if server else f"{user}/server"

    def ask_for(self, name, server=""):
        """Ask the hub to start a server, without waiting for it."""
        self.call("POST", self._server(name, server), (201, 202))

    def wait_for(self, name, server="", seconds=60):
        """Wait until the hub calls the server ready, which it does once its route is there."""
        wait_until(
            f"the server {name!r}/{server!r} is ready",
            lambda: self.user(name)["servers"].get(server, {}).get("ready"),
            seconds,
            interval_seconds=0.2,  # each look costs the hub some work
        )

    def start(self, name, server=""):
        """Start a server and wait for it."""
        self.ask_for(name, server)
        self.wait_for(name, server)

    def stop(self, name, server=""):
        """Stop a server and wait until the hub has forgotten it."""
        self.call("DELETE", self._server(name, server), (202, 204))
        wait_until(f"{name!r}/{server!r} has stopped", lambda: server not in self.user(name)["servers"], 60, (), 0.2)

    def user(self, name):
        """What the hub knows of a user."""
        return self.call("GET", f"/users/{quote(name, safe='')}", (200,)).json()

    def stop_everything(self):
        """Stop all servers that there are, and remove users and foreign routes: a clean table for the next test."""
        for user in self.call("GET", "/users?include_stopped_servers=false", (200,)).json():
            for server in list(self.user(user["name"])["servers"]):
                self.stop(user["name"], server)
            self.call("DELETE", f"/users/{quote(user['name'], safe='')}", (204,))
        for route, record in self.routes().items():
            if not record.get("jupyterhub") or route.startswith("/user/"):
                removed = self.api("DELETE", f"/api/routes{quote(route, safe='/@~')}").status_code
                assert removed in (204, 404), f"{route}: {removed}"

    # Pointsman's API

    def api(self, method="GET", path="/api/routes", timeout=10, **options):
        """Call Pointsman's API as the hub does."""
        return requests.request(
            method,
            self.stack.api_url + path,
            headers={"Authorization": f"token {self.stack.token}"},
            timeout=timeout,
            **options,
        )

    def routes(self):
        """The routing table."""
        answer = self.api()
        assert answer.status_code == 200, f"GET /api/routes: {answer.status_code} {answer.text[:300]}"
        assert answer.headers["Content-Type"] == "application/json"
        return answer.json()

    # Users' traffic

    def get(self, path, traefik=0, timeout=10, headers=None):
        """Ask a Traefik for exactly this path, as typed: no client tidies it up on the way."""
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.public_ports[traefik], timeout=timeout)
        try:
            connection.putrequest("GET", path, skip_accept_encoding=True)
            for key, value in (headers or {}).items():
                connection.putheader(key, value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def server_at(self, path, traefik=0):
        """Which light server answers at this path, or None if none does."""
        status, body = self.get(path, traefik)
        if status != 200:
            return None
        try:
            answer = json.loads(body)
        except ValueError:
            return None
        return answer if answer.get("light_server") else None

    def assert_reaches(self, name, server="", path=None):
        """A user's server answers at its path through every Traefik, at the first try: 201 means routed."""
        path = path or self.path(name, server)
        for traefik in range(len(self.stack.public_ports)):
            answer = self.server_at(path, traefik)
            assert answer, f"Traefik {traefik}: nobody answers at {path}: {self.get(path, traefik)}"
            assert (answer["user"], answer["server"]) == (name, server), (
                f"Traefik {traefik}: wrong server at {path}: {answer}"
            )

    def assert_gone(self, name, server=""):
        """No server answers any more at that path, through no Traefik, at the first try."""
        for traefik in range(len(self.stack.public_ports)):
            answer = self.server_at(self.path(name, server), traefik)
            assert answer is None, f"Traefik {traefik}: still there: {answer}"

    @staticmethod
    def path(name, server=""):
        """The path of a server as the hub writes it."""
        path = f"/user/{quote(name, safe='@~')}/"
        return path + f"{quote(server, safe='@~')}/" if server else path
