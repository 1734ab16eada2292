"""What JupyterHub does with its proxy, with the newest 6 and the newest 5."""

import concurrent.futures
import os
import signal

import pytest
from devkit.child import wait_until

SETTLE_SECONDS = 40


def test_a_server_is_routed_once_it_is_ready_and_gone_once_it_is_stopped(hub):
    hub.add_users(["ada"])
    hub.assert_gone("ada")
    hub.start("ada")
    hub.assert_reaches("ada")
    assert hub.routes()["/user/ada"]["user"] == "ada"
    hub.stop("ada")
    hub.assert_gone("ada")
    assert "/user/ada" not in hub.routes()


def test_named_servers_have_routes_of_their_own(hub):
    hub.add_users(["bo"])
    names = ["", "one", "two", "one-more"]
    for name in names:
        hub.start("bo", name)
    for name in names:
        hub.assert_reaches("bo", name)
    hub.stop("bo", "one")
    for name in ["", "two", "one-more"]:
        hub.assert_reaches("bo", name)
    # Without a route of its own the path is the default server's, as with CHP.
    assert hub.server_at("/user/bo/one/")["server"] == ""
    hub.stop("bo")
    hub.assert_gone("bo")
    hub.assert_reaches("bo", "two")


def test_a_service_is_reached(hub):
    wait_until("the service answers", lambda: hub.server_at("/services/echo/"), 20)
    for traefik in range(len(hub.stack.public_ports)):
        answer = hub.server_at("/services/echo/some/path", traefik)
        assert answer["service"] == "echo"
        assert answer["path"] == "/services/echo/some/path"
    assert hub.routes()["/services/echo"]["service"] == "echo"


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


def test_servers_and_routes_survive_a_restart_of_the_hub(hub):
    names = ["cy", "di"]
    hub.add_users(names)
    for name in names:
        hub.start(name)
    pids = [hub.server_at(hub.path(name))["pid"] for name in names]
    hub.stack.children["hub"].stop(30)
    for name in names:
        hub.assert_reaches(name)  # nobody needs the hub for this
    hub.stack.start_hub()
    for name, pid in zip(names, pids):
        hub.wait_for(name)
        hub.assert_reaches(name)
        assert hub.server_at(hub.path(name))["pid"] == pid, "the server was started anew"
    hub.stop("cy")
    hub.assert_gone("cy")


def test_a_starting_hub_repairs_the_routing_table(hub):
    """While the hub is away one route is lost, one leads astray, and one too many turns up."""
    names = ["eve", "flo"]
    hub.add_users(names)
    for name in names:
        hub.start(name)
    table = hub.routes()
    hub.stack.children["hub"].kill()
    assert hub.api("DELETE", "/api/routes/user/eve").status_code == 204
    astray = {**table["/user/flo"], "target": "http://127.0.0.1:1"}
    astray.pop("last_activity", None)
    assert hub.api("POST", "/api/routes/user/flo", json=astray).status_code == 201
    ghost = {"target": "http://127.0.0.1:1", "user": "ghost", "server_name": "", "jupyterhub": True}
    assert hub.api("POST", "/api/routes/user/ghost", json=ghost).status_code == 201
    hub.assert_gone("eve")
    hub.stack.start_hub()
    wait_until("the hub has removed the stray route", lambda: "/user/ghost" not in hub.routes(), SETTLE_SECONDS)
    targets = {route: record["target"] for route, record in table.items()}
    wait_until(
        "the table is as it was",
        lambda: {route: record["target"] for route, record in hub.routes().items()} == targets,
        SETTLE_SECONDS,
    )
    for name in names:
        hub.assert_reaches(name)


def test_a_route_of_a_server_that_died_meanwhile_goes_when_the_hub_is_back(hub):
    hub.add_users(["gus"])
    hub.start("gus")
    pid = hub.server_at("/user/gus/")["pid"]
    hub.stack.children["hub"].stop(30)
    os.kill(pid, signal.SIGKILL)
    hub.stack.start_hub()
    wait_until("the dead server's route is gone", lambda: "/user/gus" not in hub.routes(), SETTLE_SECONDS)
    assert "" not in hub.user("gus")["servers"]


def test_routes_survive_a_restart_of_pointsman(hub):
    hub.add_users(["hal", "ivy"])
    hub.start("hal")
    before = {route: record["target"] for route, record in hub.routes().items()}
    for end in (lambda child: child.stop(), lambda child: child.kill()):
        end(hub.stack.children["pointsman"])
        hub.assert_reaches("hal")  # users don't notice
        hub.stack.start_pointsman()
        hub.stack.wait_until_ready()
        assert {route: record["target"] for route, record in hub.routes().items()} == before
        hub.assert_reaches("hal")
    hub.start("ivy")
    hub.assert_reaches("ivy")
    hub.stop("hal")
    hub.assert_gone("hal")


@pytest.mark.parametrize("world", [6], ids=["hub6"], indirect=True)
def test_a_server_started_while_pointsman_is_down_is_routed_once_it_is_back(hub):
    """Hub 6 repeats its call for half a minute, so a short absence costs nobody a server."""
    hub.add_users(["joe"])
    hub.stack.children["pointsman"].kill()
    hub.ask_for("joe")
    wait_until(
        "the hub is waiting with a started server", lambda: hub.user("joe")["servers"].get("", {}).get("pending"), 20
    )
    hub.stack.start_pointsman()
    hub.wait_for("joe")
    hub.assert_reaches("joe")


@pytest.mark.parametrize("world", [5], ids=["hub5"], indirect=True)
def test_hub_5_gives_up_at_a_refused_connection_and_is_fine_again_afterwards(hub):
    """Hub 5 repeats a call only after an answer of 500 and above: a refused connection ends the start at once.

    It is so with every proxy. With hub 5, give it a name that several Pointsmen stand behind.
    """
    hub.add_users(["joe"])
    hub.stack.children["pointsman"].kill()
    hub.ask_for("joe")
    wait_until("the hub has given up", lambda: "" not in hub.user("joe")["servers"], 20)
    hub.stack.start_pointsman()
    hub.stack.wait_until_ready()
    hub.start("joe")
    hub.assert_reaches("joe")


def test_a_restarted_traefik_has_all_routes_again(hub):
    hub.add_users(["kim"])
    hub.start("kim")
    hub.stack.children["traefik"].kill()
    hub.stack.start_traefik()
    wait_until("Traefik calls itself healthy", lambda: hub.get("/_chp_healthz")[0] == 200, 20)
    hub.assert_reaches("kim")


def test_the_health_page_of_chp_answers_on_the_public_port(hub):
    status, body = hub.get("/_chp_healthz")
    assert (status, body.strip()) == (200, b'{"status":"OK"}')


def test_an_unreachable_server_is_a_503_and_the_hub_s_page(hub):
    nowhere = {"target": "http://127.0.0.1:1", "test": True}
    assert hub.api("POST", "/api/routes/nowhere", json=nowhere).status_code == 201
    status, body = hub.get("/nowhere/")
    assert status == 503
    assert b"JupyterHub" in body, body[:300]
    assert hub.api("DELETE", "/api/routes/nowhere").status_code == 204
