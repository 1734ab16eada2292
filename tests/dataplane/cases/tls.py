"""TLS towards users, towards servers, and the port that only redirects."""

import ssl

from rig.backend import echo_websocket, static
from rig.cases import group
from rig.wire import TEXT, frame, head_of, read_frame


def pair(rig, name="server"):
    return ["--ssl-key", rig.certificates.path(f"{name}.key"), "--ssl-cert", rig.certificates.path(f"{name}.crt")]


def client_pair(rig):
    files = {"key": "client.key", "cert": "client.crt", "ca": "ca.crt"}
    return [word for part, file in files.items() for word in (f"--client-ssl-{part}", rig.certificates.path(file))]


def asking(rig):
    return [*pair(rig), "--ssl-ca", rig.certificates.path("ca.crt"), "--ssl-request-cert", "--ssl-reject-unauthorized"]


https = group("ssl", flags_of=pair, tls=True)
https_asking = group("ssl with client certificates", flags_of=asking)
to_servers = group("client-ssl", flags_of=client_pair)
errors_tls = group(
    "client-ssl with error-target",
    flags_of=lambda rig: [*client_pair(rig), "--error-target", f"{rig.error_backend_tls.target}/hub/error"],
)
protocol = group("ssl-protocol", flags_of=lambda rig: [*pair(rig), "--ssl-protocol", "TLSv1_2"], tls=True)
redirect = group("redirect-port", flags_of=lambda rig: [*pair(rig), "--redirect-port", rig.extra_port], tls=True)
redirect_to = group(
    "redirect-to",
    flags_of=lambda rig: [*pair(rig), "--redirect-port", rig.extra_port, "--redirect-to", "443"],
    tls=True,
)
redirect_other = group(
    "redirect-to another port",
    flags_of=lambda rig: [*pair(rig), "--redirect-port", rig.extra_port, "--redirect-to", "8443"],
    tls=True,
)


def failed(action):
    """What an action gives, or the name of what stopped it."""
    try:
        return action()
    except (ssl.SSLError, OSError):
        return "refused"


@https("requests")
def requests(world):
    backend = world.root()
    answer = world.ask("/x%2Fy?z")
    seen = {"status": answer.outcome, "path": backend.last.target}
    for host in ("hub.example", "hub.example:8443"):
        world.ask("/x", host=host)
        for name in ("x-forwarded-proto", "x-forwarded-port", "x-forwarded-host", "x-forwarded-for"):
            seen[f"{host}: {name}"] = backend.last.header(name)
    seen["a name the certificate hasn't"] = world.who("/x", host="other.example")
    return seen


@https("a websocket")
def websocket(world):
    backend = world.root(echo_websocket)
    client, answer = world.websocket("/x")
    client.send(frame(TEXT, b"hello", masked=True))
    seen = {"status": answer.status, "echo": read_frame(client)[1]}
    for name in ("x-forwarded-proto", "x-forwarded-port"):
        seen[name] = backend.last.header(name)
    return seen


@https("the handshake")
def handshake(world):
    world.root()
    certificates = world.certificates
    seen = {}
    for title, protocols in {"offers h2 and http/1.1": ["h2", "http/1.1"], "offers http/1.1": ["http/1.1"]}.items():
        world.tls = certificates.of_client(protocols=protocols)
        with world.client() as client:
            seen[title] = client.socket.selected_alpn_protocol()
    for title, version in {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}.items():
        world.tls = certificates.of_client(version=version)
        seen[title] = failed(lambda: world.who("/x"))
    world.tls = certificates.of_client()
    with world.client(server_name="hub.example") as client:
        served = ssl.DER_cert_to_PEM_cert(client.socket.getpeercert(binary_form=True)).split()
    with open(certificates.path("server.crt")) as file:
        seen["our certificate"] = served == file.read().split()
    world.tls = None
    plain = world.raw(head_of("GET /x HTTP/1.1", [("Host", "hub.example")]))
    seen["plain HTTP"] = plain.outcome
    world.tls = certificates.of_client()
    return seen


@protocol("the handshake")
def one_protocol(world):
    world.root()
    seen = {}
    for title, version in {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}.items():
        world.tls = world.certificates.of_client(version=version)
        seen[title] = failed(lambda: world.who("/x"))
    world.tls = world.certificates.of_client()
    return seen


@https("without a route")
def no_route(world):
    return {"status": world.ask("/nothing").outcome, "health": world.ask("/_chp_healthz").text}


@https_asking("client certificates")
def client_certificates(world):
    world.root()
    seen = {}
    for title, name in {"ours": "client", "a stranger's": "stranger", "none": None}.items():
        world.tls = world.certificates.of_client(name)
        seen[title] = failed(lambda: world.ask("/x").status or "refused")
    world.tls = None
    return seen


@to_servers("servers with TLS")
def servers(world):
    certificates = world.certificates
    world.route("/plain", world.server("plain"))
    world.route("/asks", world.server("asks for a certificate", tls=certificates.of_server(ask=True)))
    world.route("/tls", world.server("TLS", tls=certificates.of_server()))
    world.route("/stranger", world.server("a stranger", tls=certificates.of_server("stranger")))
    wrong_name = world.server("by another name", tls=certificates.of_server())
    world.route("/name", wrong_name.target.replace("127.0.0.1", "127.0.0.2"))
    seen = {path: world.who(path + "/x") for path in ("/plain", "/asks", "/tls", "/stranger", "/name")}
    world.backends[1].handler = echo_websocket
    client, answer = world.websocket("/asks/x")
    seen["a websocket"] = answer.status
    if answer.status == 101:
        client.send(frame(TEXT, b"hello", masked=True))
        seen["its echo"] = read_frame(client)[1]
    seen["POST"] = world.who("/tls/x", method="POST", body=b"x")
    return seen


@errors_tls("pages of an error target with TLS")
def error_pages(world):
    errors = world.rig.error_backend_tls
    errors.reset()
    errors.handler = static(200, b"the hub's page", [("Content-Type", "text/html")])
    answer = world.ask("/nothing")
    return {"status": answer.outcome, "body": answer.text, "asked": [request.target for request in errors.requests]}


def redirected(world):
    """What the redirecting port says."""
    world.root()
    seen = {}
    tls, world.tls = world.tls, None
    asked = {
        "GET": ("GET", "/x%2Fy?z=1", "hub.example"),
        "HEAD": ("HEAD", "/x", "hub.example"),
        "POST": ("POST", "/x", "hub.example"),
        "a port in Host": ("GET", "/x", f"hub.example:{world.extra_port}"),
        "the root": ("GET", "/", "hub.example"),
        "PUT": ("PUT", "/x", "hub.example"),
        "health": ("GET", "/_chp_healthz", "hub.example"),
        "two slashes": ("GET", "/user/a//b", "hub.example"),
        "encoded characters": ("GET", "/a%2Fb%5C%3F%23%25%3B", "hub.example"),
    }
    for title, (method, path, host) in asked.items():
        client = world.client(world.extra_port)
        answer = world.ask(path, method=method, host=host, client=client)
        seen[title] = [answer.outcome, world.tidy(answer.header("location"))]
    world.tls = tls
    seen["the TLS port serves"] = world.ask("/x").outcome
    return seen


@redirect("the port")
def redirect_port(world):
    return redirected(world)


@redirect_to("the port")
def redirect_to_port(world):
    return redirected(world)


@redirect_other("the port")
def redirect_to_other(world):
    return redirected(world)
