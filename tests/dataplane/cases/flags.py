"""Flags of configurable-http-proxy that are about the process rather than about one request."""

import time

from rig.cases import group

hosts = group("host routing", "--host-routing")
keep_alive = group("keep-alive-timeout", "--keep-alive-timeout", "1000")
plain = group("plain")
default_target = group("default-target", flags_of=lambda rig: ["--default-target", rig.error_backend.target])
pid_file = group("pid-file", "--pid-file", "proxy.pid")
insecure = group("insecure", "--insecure")
metrics = group("metrics", flags_of=lambda rig: ["--metrics-ip", "127.0.0.1", "--metrics-port", rig.extra_port])


def idle_time(world, limits):
    """Whether an idle connection is closed within each of these seconds."""
    world.root()
    seen = {}
    for seconds in limits:
        client = world.client()
        world.ask("/x", client=client)
        seen[f"closed within {seconds} s"] = client.is_closed_within(seconds)
    return seen


@keep_alive("an idle connection", at_once=True)
def one_second(world):
    return idle_time(world, (0.5, 3))


@plain("an idle connection", at_once=True)
def five_seconds(world):
    return idle_time(world, (3, 7.5))


@default_target("the root route")
def root_route(world):
    seen = {"status of the route": world.proxy.call("GET", "/"), "who": world.who("/x/y")}
    world.route("/", world.server("another"))
    seen["replaced"] = world.who("/x")
    world.unroute("/")
    seen["removed"] = world.who("/x")
    return seen


@pid_file("the file")
def pid(world):
    file = world.proxy.folder / "proxy.pid"
    seen = {"holds our number": file.read_text().strip() == str(world.proxy.child.pid)}
    return seen


@insecure("a certificate nobody trusts")
def not_verified(world):
    world.route("/", world.server(tls=world.certificates.of_server("stranger")))
    return {"status": world.ask("/x").outcome}


@hosts("the health page")
def health(world):
    world.route("/one.example/", world.server("one"))
    seen = {}
    for host in ("one.example", "127.0.0.1", "other.example"):
        seen[host] = world.ask("/_chp_healthz", host=host).text
    return seen


@metrics("the metrics page")
def metrics_page(world):
    world.root()
    world.ask("/x")
    try:
        world.client(world.extra_port)
    except ConnectionRefusedError:
        return {"listens": False}
    seen = {"listens": True}
    # Pointsman has the counts of users' requests from Traefik, which it asks every ten seconds.
    deadline = time.monotonic() + 40
    while "requests_proxy{" not in world.ask("/metrics", client=world.client(world.extra_port)).text:
        assert time.monotonic() < deadline, "users' requests are not counted"
        time.sleep(0.2)
    for path in ("/metrics", "/", "/metrics/"):
        client = world.client(world.extra_port)
        answer = world.ask(path, client=client)
        seen[path] = answer.outcome
        if path == "/metrics":
            names = [
                "requests_web",
                "requests_ws",
                "requests_proxy",
                "requests_api",
                "api_route_get",
                "api_route_add",
                "api_route_delete",
            ]
            seen["counters"] = [name for name in names if f"# TYPE {name} " in answer.text]
    return seen
