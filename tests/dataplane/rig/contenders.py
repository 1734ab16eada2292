"""The two proxies, started as JupyterHub starts its proxy."""

import http.client
import json
import os
import re
import socket
from pathlib import Path

from devkit.child import Child, PartFailed, children_of, wait_until
from devkit.parts import plain_environment
from devkit.places import BIN, ROOT, Missing, program
from devkit.ports import free_port

from .wire import LOOPBACK

TOKEN = "a-token-of-the-tests"
# A route that is always there, so that no case finds an empty table unless it wants one.
KEPT = "/kept-by-the-rig"


class Refused(Exception):
    """It does not start with these flags. The message is the line in which it says why."""


def accepts(port):
    """A condition: somebody listens there."""

    def condition():
        socket.create_connection((LOOPBACK, port), 1).close()
        return True

    return condition


class Contender:
    """A running proxy with configurable-http-proxy's command line and API."""

    name = ""

    def __init__(self, folder, flags=(), environment=None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True)
        self.port, self.api_port = free_port(), free_port()
        self.flags = [str(flag) for flag in flags]
        self.environment = environment or {}
        self.child = None

    def command(self):
        raise NotImplementedError

    def start(self):
        """Start it; `Refused` if it ends by itself at once."""
        flags = ["--ip", LOOPBACK, "--port", str(self.port), "--api-ip", LOOPBACK, "--api-port", str(self.api_port)]
        env = {**plain_environment(), "CONFIGPROXY_AUTH_TOKEN": TOKEN, **self.environment}
        self.child = Child(
            self.name,
            [*self.command(), *flags, "--log-level", "info", *self.flags],
            self.folder / "log",
            env,
            self.folder,
        ).start()
        try:
            wait_until(f"{self.name} listens", accepts(self.api_port), 30, [self.child])
            wait_until(f"{self.name} serves users", accepts(self.port), 30, [self.child])
            wait_until(f"{self.name} answers", self.has_its_routes, 30, [self.child])
        except PartFailed as failed:
            if self.child.is_running():
                self.stop()
                raise
            raise Refused(self.why(str(failed))) from None
        return self

    def why(self, text):
        """Whether it names one of our flags as it ends."""
        log = self.child.log.read_text(errors="replace")
        named = [flag for flag in self.flags if flag.startswith("--") and flag in log]
        return f"names {named[0]}" if named else text

    def has_its_routes(self):
        return self.call("POST", KEPT, {"target": f"http://{LOOPBACK}:9"}) == 201

    def call(self, method, path="", body=None):
        """One call of the API: its status."""
        connection = http.client.HTTPConnection(LOOPBACK, self.api_port, timeout=20)
        data = None if body is None else json.dumps(body)
        connection.request(method, "/api/routes" + path, data, {"Authorization": f"token {TOKEN}"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    def memory(self):
        """Resident memory of the process and its children, in MB."""
        pids = [self.child.pid]
        for pid in pids:
            pids.extend(children_of(pid))
        found = [re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()) for pid in pids]
        return sum(int(match.group(1)) for match in found if match) / 1024

    def stop(self):
        if self.child:
            self.child.stop(5)


class Chp(Contender):
    name = "chp"

    def command(self):
        return [program("configurable-http-proxy")]


class Pointsman(Contender):
    name = "pointsman"

    def command(self):
        named = os.environ.get("POINTSMAN_TEST_BINARY")
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        built = [Path(named)] if named else [target / profile / "pointsman" for profile in ("release", "debug")]
        built = [path.resolve() for path in built if path.exists()]
        if not built:
            raise Missing(f"There is no pointsman in {target}. `make test-dataplane` builds it.")
        if not (BIN / "traefik").exists():
            raise Missing("There is no Traefik in .pointsman/bin. `make setup` gets it.")
        return [max(built, key=lambda path: path.stat().st_mtime)]


CONTENDERS = {kind.name: kind for kind in (Chp, Pointsman)}
