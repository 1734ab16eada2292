"""A hub that starts Pointsman by its class, with routes in etcd and a Traefik that somebody else started."""

import os
import signal

from devkit.child import wait_until
from started import started

CONFIG = """
c.JupyterHub.proxy_class = "pointsman"
c.PointsmanProxy.etcd_endpoints = ["{etcd_url}"]
c.PointsmanProxy.traefik_api = ["http://127.0.0.1:{traefik_ports[0]}"]
c.PointsmanProxy.pages_url = "http://127.0.0.1:{pages_port}"
c.PointsmanProxy.extra_args = ["--pages-port", "{pages_port}"]
"""


def test_the_hub_starts_it_watches_it_and_stops_it(installed, tmp_path):
    with started(tmp_path, installed, CONFIG) as stack:
        stack.start_etcd()
        stack.start_traefik()
        hub = stack.start_hub()
        hub.add_users(["jane"])
        hub.start("jane")
        hub.assert_reaches("jane")

        first = stack.one_running("pointsman")
        os.kill(first, signal.SIGKILL)
        second = stack.one_running("pointsman", other_than=first)
        wait_until("its API answers again", lambda: "/user/jane" in hub.routes(), 30, [stack.children["hub"]])
        hub.assert_reaches("jane")

        assert stack.children["hub"].stop(30)
        wait_until("no Pointsman is left", lambda: not stack.running("pointsman"), 10)
        assert second
