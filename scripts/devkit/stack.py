"""etcd, Pointsman, Traefik and JupyterHub on one machine, started from the files in `examples/`."""

import os
import secrets
import urllib.error
import urllib.request
from pathlib import Path

from .child import Child, PartFailed, wait_until
from .places import BIN, EXAMPLES, ROOT, hub_python, program
from .ports import free_port

LOOPBACK = "127.0.0.1"


def plain_environment():
    """Our environment without what would configure a program behind our back: proxies, tokens, settings."""
    dropped = ("POINTSMAN_", "CONFIGPROXY_", "JUPYTERHUB_", "JPY_", "TRAEFIK_", "ETCD")
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


class Stack:
    """The four programs, each with ports and a folder of its own.

    Parts are started and stopped one by one, so that a test can take one away.
    """

    def __init__(self, folder, binary, public_port=None, traefiks=1, hub_version=6, hub_config=None):
        self.folder = Path(folder)
        self.binary = Path(binary)
        self.token = secrets.token_hex(24)
        self.hub_version = hub_version
        self.hub_config = hub_config or EXAMPLES / "jupyterhub_config.py"
        self.hub_environment = {}
        self.pointsman_environment = {}
        self.public_ports = [public_port or free_port()] + [free_port() for _ in range(traefiks - 1)]
        self.traefik_ports = [free_port() for _ in range(traefiks)]
        self.etcd_port, self.peer_port = free_port(), free_port()
        self.api_port, self.pages_port, self.hub_port = free_port(), free_port(), free_port()
        self.children = {}

    @property
    def public_url(self):
        return f"http://{LOOPBACK}:{self.public_ports[0]}"

    @property
    def api_url(self):
        return f"http://{LOOPBACK}:{self.api_port}"

    @property
    def etcd_url(self):
        return f"http://{LOOPBACK}:{self.etcd_port}"

    def _place(self, name):
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _start(self, name, command, env, cwd=None):
        log = self._place("logs") / f"{name}.log"
        child = Child(name, command, log, env=env, cwd=cwd or self._place(name))
        self.children[name] = child
        return child.start()

    # etcd

    def start_etcd(self):
        """Start etcd, on the data that it had before if it is started again."""
        peer = f"http://{LOOPBACK}:{self.peer_port}"
        data = self._place("etcd") / "data"
        command = [
            program("etcd"), "--name", "demo", "--data-dir", data,
            "--listen-client-urls", self.etcd_url, "--advertise-client-urls", self.etcd_url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"demo={peer}",
        ]  # fmt: skip
        child = self._start("etcd", command, plain_environment())
        wait_until("etcd is healthy", answers(f"{self.etcd_url}/health"), 30, [child])
        return child

    # Pointsman

    def settings(self, traefik=None):
        """The variables that bring examples/pointsman.toml to our ports."""
        apis = self.traefik_ports if traefik is None else [self.traefik_ports[traefik]]
        return {
            "POINTSMAN_API_PORT": str(self.api_port),
            "POINTSMAN_ETCD_ENDPOINTS": self.etcd_url,
            "POINTSMAN_TRAEFIK_API": ",".join(f"http://{LOOPBACK}:{port}" for port in apis),
            "POINTSMAN_PORT": str(self.public_ports[traefik or 0]),
            "POINTSMAN_PAGES_PORT": str(self.pages_port),
            "POINTSMAN_PAGES_URL": f"http://{LOOPBACK}:{self.pages_port}",
            "POINTSMAN_ERROR_TARGET": f"http://{LOOPBACK}:{self.hub_port}/hub/error",
            "CONFIGPROXY_AUTH_TOKEN": self.token,
            **self.pointsman_environment,
        }

    def pointsman_command(self, *words):
        return [self.binary, *words, "--config", EXAMPLES / "pointsman.toml"]

    def start_pointsman(self):
        """Start Pointsman and wait until it lives. It is ready only once a Traefik serves its routes."""
        child = self._start("pointsman", self.pointsman_command(), {**plain_environment(), **self.settings()})
        wait_until("Pointsman answers", answers(f"{self.api_url}/healthz"), 20, [child])
        return child

    # Traefik

    def write_traefik_config(self, number):
        """Let Pointsman write the files of one Traefik, and say which file to start it with."""
        place = self._place(f"traefik{number or ''}")
        child = Child(
            "pointsman traefik-config",
            self.pointsman_command("traefik-config", "--dir", place, "--grace-seconds", "2"),
            self._place("logs") / "traefik-config.log",
            env={**plain_environment(), **self.settings(number)},
        ).start()
        if child.process.wait(20) != 0:
            raise PartFailed(
                f"`pointsman traefik-config` failed with status {child.process.returncode}:\n{child.tail()}"
            )
        return place / "traefik.yaml"

    def start_traefik(self, number=0):
        """Start a Traefik and wait until it answers. It has routes once the hub has brought some."""
        config = self.write_traefik_config(number)
        child = self._start(f"traefik{number or ''}", [program("traefik"), "--configFile", config], plain_environment())
        wait_until(
            "Traefik answers", answers(f"http://{LOOPBACK}:{self.traefik_ports[number]}/api/version"), 20, [child]
        )
        return child

    def wait_until_ready(self):
        """Wait until Pointsman says that all it needs is there."""
        watched = [child for child in self.children.values() if child.is_running()]
        wait_until("Pointsman is ready", answers(f"{self.api_url}/readyz"), 30, watched)

    # JupyterHub

    def start_hub(self, wait_seconds=60):
        """Start JupyterHub and wait until it is reached through Traefik."""
        python = hub_python(self.hub_version)
        environment = plain_environment()
        environment.update(
            PATH=f"{python.parent}{os.pathsep}{environment['PATH']}",
            CONFIGPROXY_AUTH_TOKEN=self.token,
            PROXY_API_URL=self.api_url,
            PUBLIC_URL=self.public_url,
            HUB_PORT=str(self.hub_port),
            USERS_FOLDER=str(self._place("users")),
            PYTHONPATH=str(ROOT / "scripts"),
            **self.hub_environment,
        )
        command = [python, "-m", "jupyterhub", "-f", self.hub_config]
        child = self._start("hub", command, environment)
        wait_until(
            "JupyterHub is reached through Traefik", answers(f"{self.public_url}/hub/api"), wait_seconds, [child]
        )
        return child

    def start_all(self):
        """Start everything, in order."""
        self.start_etcd()
        self.start_pointsman()
        for number in range(len(self.traefik_ports)):
            self.start_traefik(number)
        self.wait_until_ready()
        self.start_hub()
        return self

    def stop_all(self):
        """Stop everything, in the order that lets each say goodbye to the next."""
        order = ["hub", "pointsman", *(name for name in self.children if name.startswith("traefik")), "etcd"]
        for name in order:
            if name in self.children:
                self.children[name].stop(30 if name == "hub" else 10)
