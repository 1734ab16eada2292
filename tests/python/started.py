"""A JupyterHub of a fresh environment, which starts the Pointsman that was installed into it."""

import contextlib
import os
import secrets
from pathlib import Path

from conftest import E2E, ROOT
from devkit.child import wait_until
from devkit.parts import plain_environment
from devkit.ports import free_port
from devkit.stack import Stack
from hub import Hub

CONFIG = f"""
load_subconfig({str(E2E / "hub_config.py")!r})
c.ConfigurableHTTPProxy.should_start = True
c.ConfigurableHTTPProxy.check_running_interval = 1
c.JupyterHub.cleanup_servers = True
"""


class StartedHub(Stack):
    """The hub, and what it starts. etcd and a Traefik beside it only where a test starts them."""

    def __init__(self, folder, programs, config, path=os.defpath):
        super().__init__(folder, programs / "pointsman", hub_config=Path(folder) / "jupyterhub_config.py")
        self.programs = programs
        self.path = path
        self.config = config
        self.hub_environment = {"E2E_TOKEN": secrets.token_hex(16), "E2E_SERVICE_PORT": str(free_port())}

    def start_hub(self, wait_seconds=60):
        """Start the hub as an administrator does, without the folder of its programs on PATH."""
        self.hub_config.write_text(CONFIG + self.config.format(**vars(self), etcd_url=self.etcd_url))
        environment = {
            **plain_environment(),
            "PATH": self.path,
            "CONFIGPROXY_AUTH_TOKEN": self.token,
            "PROXY_API_URL": self.api_url,
            "PUBLIC_URL": self.public_url,
            "HUB_PORT": str(self.hub_port),
            "USERS_FOLDER": str(self.place("users")),
            "PYTHONPATH": str(ROOT / "scripts"),
            **self.hub_environment,
        }
        child = self.start("hub", [self.programs / "python", "-m", "jupyterhub", "-f", self.hub_config], environment)
        self.wait_for_hub(child, wait_seconds)
        return Hub(self, self.hub_environment["E2E_TOKEN"])

    def running(self, name):
        """The processes of a program of this environment, by number."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "exe") == str((self.programs / name).resolve()):
                    found.append(int(entry.name))
        return found

    def one_running(self, name, other_than=None):
        """Wait until one such process runs, and give its number."""

        def condition():
            found = self.running(name)
            return found[0] if len(found) == 1 and found[0] != other_than else None

        return wait_until(f"one {name} runs", condition, 30, [self.children["hub"]])


@contextlib.contextmanager
def started(folder, programs, config):
    """Such a hub, of which nothing is left afterwards."""
    stack = StartedHub(folder, programs, config)
    try:
        yield stack
    finally:
        stack.stop_all()
