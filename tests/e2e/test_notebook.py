"""Work in a real notebook server, through Traefik."""

from devkit.child import wait_until
from notebook import Kernel

NAME = "notebook@example.com"


def test_a_kernel_runs_over_its_websocket(hub):
    """Also while Pointsman restarts, and while routes come and go: an open websocket stays open."""
    hub.add_users([NAME, "neighbour"])
    hub.start(NAME)
    kernel = Kernel(hub, NAME)
    try:
        assert kernel.run("1+1") == "2"
        hub.start("neighbour")
        assert kernel.run("a = 20 + 1; a") == "21"
        hub.stack.children["pointsman"].kill()
        assert kernel.run("2 * a") == "42"
        hub.stack.start_pointsman()
        hub.stack.wait_until_ready()
        hub.stop("neighbour")
        assert kernel.run("len('x' * 3_000_000)") == "3000000"
        assert len(kernel.run("'x' * 3_000_000")) == 3_000_002  # one long message
    finally:
        kernel.close()
    hub.stop(NAME)
    wait_until("the route is gone", lambda: f"/user/{NAME}" not in hub.routes(), 10)
