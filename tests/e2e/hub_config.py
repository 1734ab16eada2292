"""The hub of the end-to-end tests: an example, with light servers, a service, and a token for the tests."""

import json
import os
import sys
from pathlib import Path

from devkit.places import EXAMPLES
from devkit.ports import free_port
from jupyterhub.auth import DummyAuthenticator
from jupyterhub.spawner import SimpleLocalProcessSpawner

c = get_config()  # noqa: F821 (JupyterHub brings it along)
load_subconfig(os.environ.get("E2E_HUB_CONFIG") or str(EXAMPLES / "jupyterhub_config.py"))  # noqa: F821

# Without site-packages, which it doesn't need, a light server starts in half the time.
LIGHT_SERVER = [sys.executable, "-S", str(Path(__file__).with_name("light_server.py"))]


class AnyNameAuthenticator(DummyAuthenticator):
    """Keeps upper case, which JupyterHub's own authenticators fold."""

    def normalize_username(self, username):
        return username


class LightSpawner(SimpleLocalProcessSpawner):
    """Real notebook servers for users whose names say so, stand-ins for all others."""

    home_dir_template = SimpleLocalProcessSpawner.home_dir_template

    def get_args(self):
        # Jupyter's servers ping open websockets twice a minute; a test should not have to wait for that, and answers only
        # when it reads.
        pings = ["--ServerApp.tornado_settings={'ws_ping_interval': 5000, 'ws_ping_timeout': 600000}"]
        return super().get_args() + pings if self.user.name.startswith("notebook") else []

    async def start(self):
        if not self.user.name.startswith("notebook"):
            self.cmd = LIGHT_SERVER
        # JupyterHub's own choice may be the same for two servers that start at once.
        self.port = free_port()
        return await super().start()


c.JupyterHub.authenticator_class = AnyNameAuthenticator
c.JupyterHub.spawner_class = LightSpawner
c.JupyterHub.allow_named_servers = True
if "E2E_ACTIVITY_INTERVAL" in os.environ:
    c.JupyterHub.last_activity_interval = int(os.environ["E2E_ACTIVITY_INTERVAL"])
c.JupyterHub.services = [
    {"name": "e2e", "api_token": os.environ["E2E_TOKEN"]},
    {"name": "echo", "url": f"http://127.0.0.1:{os.environ['E2E_SERVICE_PORT']}", "command": LIGHT_SERVER},
]
c.JupyterHub.load_roles = [
    {
        "name": "e2e",
        "services": ["e2e"],
        "scopes": [
            "admin:users",
            "admin:servers",
            "access:servers",
            "access:services",
            "list:services",
            "proxy",
            "read:hub",
        ],
    }
]
# What a single test wants to be different.
for section, settings in json.loads(os.environ.get("E2E_SETTINGS", "{}")).items():
    c[section].update(settings)
