"""A JupyterHub whose proxy is Pointsman, for trying it out.

Start it with the token that Pointsman has, in the folder where its database may lie:

    CONFIGPROXY_AUTH_TOKEN=... jupyterhub -f examples/jupyterhub_config.py

The addresses are those of examples/pointsman.toml. Each can be changed from outside by a
variable, which is how `make demo`, the tests and examples/compose.yaml use this file.
"""

import os

c = get_config()  # noqa: F821 (JupyterHub brings it along)

# These four lines are all that a hub of yours needs to run on Pointsman. The token is read
# from CONFIGPROXY_AUTH_TOKEN.
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = os.environ.get("PROXY_API_URL", "http://127.0.0.1:8001")
# Where users reach Traefik. The hub doesn't listen there itself.
c.JupyterHub.bind_url = os.environ.get("PUBLIC_URL", "http://127.0.0.1:8000")
# Traefik goes on serving users while the hub restarts, so let their servers live on.
c.JupyterHub.cleanup_servers = os.environ.get("CLEANUP_SERVERS", "no") == "yes"

# Where Traefik and the users' servers reach the hub.
c.JupyterHub.hub_ip = os.environ.get("HUB_IP", "127.0.0.1")
c.JupyterHub.hub_port = int(os.environ.get("HUB_PORT", "8081"))
if "HUB_CONNECT_URL" in os.environ:
    c.JupyterHub.hub_connect_url = os.environ["HUB_CONNECT_URL"]

# What follows is for trying out only: anybody may log in with any name and password, and all
# users' servers run as the one user who started the hub.
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.Spawner.ip = os.environ.get("SERVER_IP", "127.0.0.1")
c.SimpleLocalProcessSpawner.home_dir_template = os.environ.get("USERS_FOLDER", "/tmp/pointsman-users") + "/{username}"
if os.getuid() == 0:
    c.Spawner.args = ["--allow-root"]
