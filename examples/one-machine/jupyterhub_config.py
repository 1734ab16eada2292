"""A JupyterHub on one machine whose proxy is Pointsman, for trying it out: `jupyterhub -f` this file.

`pointsman` must be on PATH, and Traefik beside it or on PATH too; `pip install pointsman` sees to both.
"""

c = get_config()  # noqa: F821 (JupyterHub brings it along)

# This line is all that a hub of yours needs to run on Pointsman. The hub starts and stops it, and
# the routes are kept in the folder pointsman-data, beside the hub's own database.
c.ConfigurableHTTPProxy.command = ["pointsman"]

# What follows is for trying out only: anybody may log in with any name and password, and all
# users' servers run as the one user who started the hub.
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "/tmp/pointsman-users/{username}"
