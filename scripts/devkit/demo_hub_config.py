"""The hub of `make demo`: the example, and servers that end with the hub, even if it is killed."""

from jupyterhub.spawner import SimpleLocalProcessSpawner

from devkit.child import die_with_parent
from devkit.places import EXAMPLES

c = get_config()  # noqa: F821 (JupyterHub brings it along)
load_subconfig(str(EXAMPLES / "jupyterhub_config.py"))  # noqa: F821


class DemoSpawner(SimpleLocalProcessSpawner):
    """Its servers don't outlive the hub."""

    home_dir_template = SimpleLocalProcessSpawner.home_dir_template

    def make_preexec_fn(self, name):
        enter_home = super().make_preexec_fn(name)

        def before_exec():
            die_with_parent()
            enter_home()

        return before_exec


c.JupyterHub.spawner_class = DemoSpawner
c.JupyterHub.cleanup_servers = True
