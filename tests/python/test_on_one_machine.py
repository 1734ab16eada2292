"""A hub in a fresh environment into which only the wheel was installed: no etcd, no Traefik beside it."""

import os
import re
import signal

import pytest
from conftest import run
from devkit.child import wait_until
from devkit.parts import answers
from devkit.ports import is_free
from started import started

BY_CLASS = """
c.JupyterHub.proxy_class = "pointsman"
c.PointsmanProxy.data_dir = "routes"
"""
AS_COMMAND = """
c.ConfigurableHTTPProxy.command = ["{programs}/pointsman", "--data-dir", "routes"]
"""


@pytest.mark.parametrize("config", [BY_CLASS, AS_COMMAND], ids=["class", "command"])
def test_installing_the_wheel_is_the_whole_installation(installed, tmp_path, config):
    with started(tmp_path, installed, config) as stack:
        hub = stack.start_hub()
        assert stack.one_running("traefik"), "it is not the Traefik that came with the wheel"
        assert (tmp_path / "hub" / "routes").is_dir()
        hub.add_users(["jane", "joe@example.com"])
        for name in ("jane", "joe@example.com"):
            hub.start(name)
            hub.assert_reaches(name)
        hub.stop("joe@example.com")
        hub.assert_gone("joe@example.com")

        first = stack.one_running("pointsman")
        os.kill(first, signal.SIGKILL)
        stack.one_running("pointsman", other_than=first)
        # The table can be read a moment before Traefik serves it.
        wait_until("it is ready again", answers(f"{stack.api_url}/readyz"), 30, [stack.children["hub"]])
        assert "/user/jane" in hub.routes()
        hub.assert_reaches("jane")

        assert stack.children["hub"].stop(30)
        for name in ("pointsman", "traefik"):
            wait_until(f"no {name} is left", lambda name=name: not stack.running(name), 10)
        assert is_free(stack.public_ports[0]) and is_free(stack.api_port)


def test_every_setting_of_the_class_is_a_flag_of_the_program(installed):
    code = """
from pointsman.proxy import PointsmanProxy
print(*(trait.metadata["flag"] for trait in PointsmanProxy.class_traits(flag=bool).values()))
"""
    flags = run([installed / "python", "-c", code]).split()
    known = re.findall(r"--[a-z-]+", run([installed / "pointsman", "--help"]))
    assert len(flags) >= 15
    assert set(flags) <= set(known), sorted(set(flags) - set(known))
