"""The hub of `examples/one-machine/`, on the ports and with the folder that the environment names."""

import os

from devkit.one_machine import EXAMPLE

c = get_config()  # noqa: F821 (JupyterHub brings it along)
load_subconfig(str(EXAMPLE))  # noqa: F821

c.JupyterHub.bind_url = os.environ["PUBLIC_URL"]
c.JupyterHub.hub_port = int(os.environ["HUB_PORT"])
c.ConfigurableHTTPProxy.api_url = os.environ["PROXY_API_URL"]
c.SimpleLocalProcessSpawner.home_dir_template = os.environ["USERS_FOLDER"] + "/{username}"
if os.getuid() == 0:
    c.Spawner.args = ["--allow-root"]
