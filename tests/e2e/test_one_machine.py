"""One machine without etcd: the hub starts Pointsman, which starts Traefik. With the newest JupyterHub 6 and 5."""

import concurrent.futures
import datetime
import json
import os
import re
import signal
from pathlib import Path

import pytest
import requests
from conftest import FOLDER, HUB_CONFIG, ROOT, running
from devkit.child import wait_until
from devkit.one_machine import OneMachine
from devkit.ports import is_free
from test_browser import work_in_jupyterlab
from test_names import check_every_name_in_every_spelling

# The hub itself gives its proxy 10 s. The programs under test are not even optimized.
START_SECONDS_MAX = 5
SETTLE_SECONDS = 40
LEAVE_SERVERS = {"JupyterHub": {"cleanup_servers": False}}
LEAVE_ALL = {"JupyterHub": {"cleanup_servers": False, "cleanup_proxy": False}}


def machine(binary, name, version):
    """A hub on a folder of its own, around the example."""
    stack = OneMachine(FOLDER / name, binary, HUB_CONFIG, hub_version=version)
    stack.hub_environment["E2E_HUB_CONFIG"] = str(ROOT / "scripts" / "devkit" / "one_machine_hub_config.py")
    return stack


def configure(stack, settings):
    """What the next hub gets beside the example. It looks after its proxy more often than the usual 5 s."""
    often = {"check_running_interval": 1, **settings.get("ConfigurableHTTPProxy", {})}
    settings = {**settings, "ConfigurableHTTPProxy": often}
    stack.hub_environment["E2E_SETTINGS"] = json.dumps(settings)


@pytest.fixture(scope="module", params=[6, 5], ids=["hub6", "hub5"])
def world(request, binary):
    stack = machine(binary, f"one-machine-{request.param}", request.param)
    configure(stack, {})
    with running(stack) as hub:
        yield hub


@pytest.fixture
def hub(world):
    """A running hub without users. At the end its log is asked how long its proxies took to start."""
    restart(world, {})
    world.stop_everything()
    yield world
    assert 0 < max(start_times(world.stack.children["hub"].log)) < START_SECONDS_MAX


def restart(hub, settings, end=None):
    """Go on with a hub that has these settings. The old one, if there must be another, gets a SIGTERM, or `end`."""
    before = hub.stack.hub_environment["E2E_SETTINGS"]
    configure(hub.stack, settings)
    child = hub.stack.children["hub"]
    if end or before != hub.stack.hub_environment["E2E_SETTINGS"]:
        (end or child.stop)()
    child.is_running() or hub.stack.start_hub()


def start_times(log):
    """From the hub's log: the seconds between each start of a proxy and the moment when it was up."""
    line = r"^\[\w ([-\d]+ [:.\d]+) JupyterHub [\w.: ]+\] (Starting proxy|Hub API listening)"
    events = [(what, datetime.datetime.fromisoformat(when)) for when, what in re.findall(line, log.read_text(), re.M)]
    return [
        (up - began).total_seconds()
        for (first, began), (second, up) in zip(events, events[1:])
        if (first, second) == ("Starting proxy", "Hub API listening")
    ]


def processes(stack):
    """The process numbers of Pointsman and of its Traefik."""
    found = wait_until("Pointsman and Traefik run", lambda: stack.traefik() and (stack.pointsman(), stack.traefik()), 10)
    return list(found)


def is_gone(pid):
    return not Path(f"/proc/{pid}").exists()


def assert_nothing_runs(stack, pids):
    """No process of before, and no port."""
    for pid in pids:
        wait_until(f"process {pid} is gone", lambda pid=pid: is_gone(pid), 10)
    assert is_free(stack.public_ports[0]) and is_free(stack.api_port)


def test_servers_and_named_servers_are_routed_and_gone(hub):
    hub.add_users(["ada"])
    names = ["", "one", "one-more"]
    for name in names:
        hub.start("ada", name)
        hub.assert_reaches("ada", name)
    hub.stop("ada", "one")
    for name in ["", "one-more"]:
        hub.assert_reaches("ada", name)
    hub.stop("ada", "one-more")
    hub.stop("ada")
    hub.assert_gone("ada")
    assert "/user/ada" not in hub.routes()


def test_twenty_users_at_once(hub):
    names = [f"crowd-{number:02}" for number in range(20)]
    hub.add_users(names)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        list(pool.map(hub.ask_for, names))
        list(pool.map(hub.wait_for, names))
        list(pool.map(hub.assert_reaches, names))
        list(pool.map(hub.stop, names))
    for name in names:
        hub.assert_gone(name)
    assert not [route for route in hub.routes() if route.startswith("/user/crowd-")]


def test_every_name_in_every_spelling(hub):
    check_every_name_in_every_spelling(hub)


def test_a_service_the_health_page_and_the_error_page(hub):
    wait_until("the service answers", lambda: hub.server_at("/services/echo/"), 20)
    assert hub.get("/_chp_healthz") == (200, b'{"status":"OK"}')
    nowhere = {"target": "http://127.0.0.1:1", "test": True}
    assert hub.api("POST", "/api/routes/nowhere", json=nowhere).status_code == 201
    status, body = hub.get("/nowhere/")
    assert status == 503
    assert b"JupyterHub" in body, body[:300]
    assert hub.api("DELETE", "/api/routes/nowhere").status_code == 204


def test_a_killed_proxy_is_started_again_and_has_all_routes(hub):
    hub.add_users(["hal", "ivy"])
    hub.start("hal")
    table = {route: record["target"] for route, record in hub.routes().items()}
    pointsman, traefik = processes(hub.stack)
    os.kill(pointsman, signal.SIGKILL)
    wait_until("Traefik went with it", lambda: is_gone(traefik), 5)
    wait_until("another Pointsman runs", lambda: hub.stack.pointsman() not in (None, pointsman), 15)
    wait_until("its API answers", hub.routes, 10)
    assert {route: record["target"] for route, record in hub.routes().items()} == table
    # A Traefik may take its first document and never answer; then it is soon sent again.
    hub_log = [hub.stack.children["hub"]]
    wait_until("its Traefik has the routes", lambda: hub.get("/_chp_healthz")[0] == 200, 10, hub_log)
    hub.assert_reaches("hal")
    hub.start("ivy")
    hub.assert_reaches("ivy")


def test_a_killed_traefik_is_started_again_by_pointsman(hub):
    hub.add_users(["kim", "lea"])
    hub.start("kim")
    pointsman, traefik = processes(hub.stack)
    os.kill(traefik, signal.SIGKILL)
    # The port stays open. For some milliseconds the new Traefik has no routes.
    wait_until("the new Traefik has the routes", lambda: hub.get("/_chp_healthz")[0] == 200, 10)
    hub.assert_reaches("kim")
    again = processes(hub.stack)
    assert again[0] == pointsman and again[1] != traefik
    hub.start("lea")
    hub.assert_reaches("lea")


def test_a_stop_of_the_hub_leaves_nothing(hub):
    hub.add_users(["cy"])
    hub.start("cy")
    pids = [*processes(hub.stack), hub.server_at("/user/cy/")["pid"]]
    assert hub.stack.children["hub"].stop(30)
    assert_nothing_runs(hub.stack, pids)
    hub.stack.start_hub()
    wait_until("the old route is gone", lambda: "/user/cy" not in hub.routes(), SETTLE_SECONDS)
    hub.assert_gone("cy")
    hub.start("cy")
    hub.assert_reaches("cy")


def test_servers_that_outlive_hub_and_proxy_are_reached_as_soon_as_both_are_back(hub):
    restart(hub, LEAVE_SERVERS)
    hub.add_users(["di"])
    hub.start("di")
    server = hub.server_at("/user/di/")["pid"]
    pids = processes(hub.stack)
    restart(hub, LEAVE_SERVERS, end=lambda: hub.stack.children["hub"].stop(30) and assert_nothing_runs(hub.stack, pids))
    hub.assert_reaches("di")
    hub.wait_for("di")
    assert hub.server_at("/user/di/")["pid"] == server


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_proxy_that_outlives_its_hub_serves_on_and_makes_way_for_the_next(hub, end):
    restart(hub, LEAVE_ALL)
    hub.add_users(["eve"])
    hub.start("eve")
    server = hub.server_at("/user/eve/")["pid"]
    left = processes(hub.stack)
    child = hub.stack.children["hub"]

    def end_hub():
        child.kill() if end == "killed" else child.stop(30)
        hub.assert_reaches("eve")  # nobody needs the hub for this
        assert "/user/eve" in hub.routes()

    restart(hub, LEAVE_ALL, end_hub)
    assert all(is_gone(pid) for pid in left)
    assert "Stopped proxy at pid=" in child.log.read_text()
    hub.assert_reaches("eve")
    assert hub.server_at("/user/eve/")["pid"] == server
    hub.wait_for("eve")
    hub.stop("eve")
    hub.assert_gone("eve")


@pytest.mark.parametrize("world", [6], ids=["hub6"], indirect=True)
def test_a_person_works_in_jupyterlab_in_a_browser(hub, browser):
    work_in_jupyterlab(hub, browser)


@pytest.fixture(params=[6, 5], ids=["hub6", "hub5"])
def ssl_hub(request, binary):
    """A hub with an authority of its own, by whose certificates it, its proxy and the servers know one another."""
    stack = machine(binary, f"internal-ssl-{request.param}", request.param)
    secure_api = {"api_url": stack.api_url.replace("http:", "https:")}
    # A server starts in its user's folder, from where the usual relative paths lead nowhere.
    certificates = {"internal_ssl": True, "internal_certs_location": str(stack.place("certificates"))}
    configure(stack, {"JupyterHub": certificates, "ConfigurableHTTPProxy": secure_api})
    with running(stack) as hub:
        yield hub


def test_internal_ssl(ssl_hub):
    hub, name = ssl_hub, "notebook"
    hub.add_users([name])
    hub.start(name)
    headers = {"Authorization": f"token {hub.token}"}
    status, body = hub.get(f"/user/{name}/api/status", headers=headers)
    assert (status, "kernels" in json.loads(body)) == (200, True), body

    # The API and the server itself speak only to those who show a certificate of the hub's authorities.
    certificates = hub.stack.place("certificates")
    hub_s = tuple(str(certificates / "hub-internal" / f"hub-internal.{kind}") for kind in ("crt", "key"))
    options = {
        "headers": {"Authorization": f"token {hub.stack.token}"},
        "verify": str(certificates / "hub-ca_trust.crt"),
        "timeout": 10,
    }
    api = f"https://127.0.0.1:{hub.stack.api_port}/api/routes"
    server = requests.get(api, cert=hub_s, **options).json()[f"/user/{name}"]["target"]
    assert server.startswith("https://")
    for url in (api, f"{server}/user/{name}/api"):
        assert requests.get(url, cert=hub_s, **options).status_code == 200
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(url, **options)

    hub.stop(name)
    status, _ = hub.get(f"/user/{name}/api/status", headers=headers)
    assert status != 200
