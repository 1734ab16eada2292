"""What every arrangement of programs on this machine has: ports, a folder, children, and a JupyterHub."""

import os
import secrets
import signal
import urllib.error
import urllib.request
from pathlib import Path

from .child import Child, wait_until
from .places import BIN, ROOT, hub_python
from .ports import free_port

LOOPBACK = "127.0.0.1"


def plain_environment():
    """Our environment without what would configure a program behind our back: proxies, tokens, settings."""
    dropped = ("POINTSMAN_", "CONFIGPROXY_", "JUPYTERHUB_", "JPY_", "TRAEFIK_", "ETCD", "NODE_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(dropped) and not name.lower().endswith("_proxy") and name != "PYTHONPATH"
    }
    # Pointsman asks `traefik version` which release it writes a configuration for.
    kept["PATH"] = f"{BIN}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return kept


def status_of(url, headers=None, timeout_seconds=3):
    """The status and body of a GET, also when it is an error."""
    request = urllib.request.Request(url, headers=headers or {})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=timeout_seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def answers(url, status=200):
    """A condition for `wait_until`: the URL answers with this status."""

    def condition():
        seen, body = status_of(url)
        if seen != status:
            raise AssertionError(f"{url} answers {seen}: {body[:200]!r}")
        return True

    return condition


class Parts:
    """Programs that belong together. Each has a folder of its own, and a log.

    Those that we start are in `children`, and can be stopped and started one by one, so that a test can take one away.
    """

    def __init__(self, folder, binary, hub_config, public_ports, hub_version=6):
        self.folder = Path(folder)
        self.binary = Path(binary)
        self.token = secrets.token_hex(24)
        self.hub_version = hub_version
        self.hub_config = hub_config
        self.hub_environment = {}
        self.public_ports = public_ports
        self.api_port, self.hub_port = free_port(), free_port()
        self.children = {}

    @property
    def public_url(self):
        return f"http://{LOOPBACK}:{self.public_ports[0]}"

    @property
    def api_url(self):
        return f"http://{LOOPBACK}:{self.api_port}"

    @property
    def hub_url(self):
        return f"http://{LOOPBACK}:{self.hub_port}"

    def steps(self):
        """What there is to start, in order: names, and what to call."""
        raise NotImplementedError

    def table(self):
        """What runs: name, process number, address and log of each part."""
        raise NotImplementedError

    def place(self, name):
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def start(self, name, command, env, cwd=None):
        log = self.place("logs") / f"{name}.log"
        child = Child(name, command, log, env=env, cwd=cwd or self.place(name))
        self.children[name] = child
        return child.start()

    def start_all(self):
        """Start everything, in order."""
        for _, step in self.steps():
            step()
        return self

    # JupyterHub

    def hub_path(self, python):
        """Where the hub finds programs: first those of its own environment."""
        return f"{python.parent}{os.pathsep}{plain_environment()['PATH']}"

    def start_hub(self, wait_seconds=60):
        """Start JupyterHub and wait until it is reached through Traefik."""
        python = hub_python(self.hub_version)
        environment = {
            **plain_environment(),
            "PATH": self.hub_path(python),
            "CONFIGPROXY_AUTH_TOKEN": self.token,
            "PROXY_API_URL": self.api_url,
            "PUBLIC_URL": self.public_url,
            "HUB_PORT": str(self.hub_port),
            "USERS_FOLDER": str(self.place("users")),
            "PYTHONPATH": str(ROOT / "scripts"),
            **self.hub_environment,
        }
        child = self.start("hub", [python, "-m", "jupyterhub", "-f", self.hub_config], environment)
        self.wait_for_hub(child, wait_seconds)
        return child

    def wait_for_hub(self, child, wait_seconds):
        """Wait until it is reached, and has started all: asked to end before that it leaves its proxy behind."""
        reached = answers(f"{self.public_url}/hub/api")
        wait_until("JupyterHub is reached through Traefik", reached, wait_seconds, [child])
        wait_until("JupyterHub can be asked to end", lambda: child.catches(signal.SIGTERM), wait_seconds, [child])
