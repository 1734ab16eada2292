"""JupyterHub that starts Pointsman, which starts Traefik: the files of `examples/one-machine/`."""

import contextlib
import os

from .child import child_that_runs, wait_until
from .parts import Parts
from .places import EXAMPLES, program
from .ports import free_port

EXAMPLE = EXAMPLES / "one-machine" / "jupyterhub_config.py"


class OneMachine(Parts):
    """Only the hub is started by us. It finds `pointsman` on its PATH."""

    def __init__(self, folder, binary, hub_config, public_port=None, hub_version=6):
        super().__init__(folder, binary, hub_config, [public_port or free_port()], hub_version)

    def steps(self):
        return [("JupyterHub, Pointsman, Traefik", self.start_hub)]

    def table(self):
        # The three write to one place: what the hub starts has the hub's output.
        log = self.children["hub"].log
        return [
            ("hub", self.children["hub"].pid, self.hub_url, log),
            ("pointsman", self.pointsman(), self.api_url, log),
            ("traefik", self.traefik(), self.public_url, log),
        ]

    def start_hub(self, wait_seconds=60):
        """Start the hub and wait until it is reached, and until all that it starts is seen."""
        hub = super().start_hub(wait_seconds)
        wait_until("Pointsman and its Traefik are seen", self.traefik, 10, [hub])
        return hub

    def hub_path(self, python):
        """A PATH with the Pointsman that was named, and with the Traefik that `scripts/dev-env` got."""
        programs = self.place("bin")
        for name, target in (("pointsman", self.binary), ("traefik", program("traefik"))):
            with contextlib.suppress(FileExistsError):
                (programs / name).symlink_to(target)
        return f"{programs}{os.pathsep}{super().hub_path(python)}"

    def pointsman(self):
        """The process number of the Pointsman that the hub has started, or None."""
        return child_that_runs(self.children["hub"].pid, "pointsman")

    def traefik(self):
        """The process number of that Pointsman's Traefik, or None."""
        pointsman = self.pointsman()
        return pointsman and child_that_runs(pointsman, "traefik")

    def stop_all(self):
        """Stop the hub, which stops the rest."""
        if "hub" in self.children:
            self.children["hub"].stop(30)
