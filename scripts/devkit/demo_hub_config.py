"""The hub of the demos: the example, and nothing that the hub starts outlives the demo, even if that is killed."""

import os
import sys
from pathlib import Path

from jupyterhub.spawner import SimpleLocalProcessSpawner

from devkit import with_parent

c = get_config()  # noqa: F821 (JupyterHub brings it along)
load_subconfig(os.environ["DEMO_HUB_CONFIG"])  # noqa: F821


class DemoSpawner(SimpleLocalProcessSpawner):
    """Its servers don't outlive the hub."""

    home_dir_template = SimpleLocalProcessSpawner.home_dir_template

    def make_preexec_fn(self, name):
        enter_home = super().make_preexec_fn(name)

        def before_exec():
            with_parent.die_with_parent()
            enter_home()

        return before_exec


if "DEMO_PID" in os.environ:
    # Users' servers live on while the hub is away, as they would in production, and end with the demo.
    keeper = str(Path(with_parent.__file__).with_name("while_lives.py"))
    c.Spawner.cmd = [sys.executable, keeper, os.environ["DEMO_PID"], "jupyterhub-singleuser"]
    c.JupyterHub.cleanup_servers = False
else:
    c.JupyterHub.spawner_class = DemoSpawner
    c.JupyterHub.cleanup_servers = True
if "command" in c.ConfigurableHTTPProxy:
    # Elsewhere it may outlive the hub, which is what a hub that comes back wants.
    c.ConfigurableHTTPProxy.command = [sys.executable, with_parent.__file__, *c.ConfigurableHTTPProxy.command]
