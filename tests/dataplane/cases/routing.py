"""Which server a request reaches."""

from rig.cases import group
from rig.wire import LOOPBACK, head_of

plain = group("plain")
hosts = group("host routing", "--host-routing")
no_prepend = group("no-prepend-path", "--no-prepend-path")
no_include = group("no-include-prefix", "--no-include-prefix")


def asked(world, paths, **named):
    """Which server each path reaches."""
    return {path: world.who(path, **named) for path in paths}


def nested(world, *routes):
    for path in routes:
        world.route(path, world.server(f"at {path}"))


@plain("longest prefix")
def longest_prefix(world):
    nested(world, "/", "/a", "/a/b", "/a/b/c/d", "/x/y")
    paths = ["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/b/c/d", "/a/b/c/d/e/f", "/a/c/b", "/x", "/x/y", "/x/y/z"]
    return asked(world, [*paths, "/b", "/a?b", "/?/a/b", "/a/b?x=/a", "/index.html"])


@plain("segment boundary")
def segment_boundary(world):
    nested(world, "/", "/user/a", "/user/ab", "/user/a/named")
    paths = ["/user/a", "/user/a/", "/user/a?x", "/user/ab", "/user/ab/", "/user/abc", "/user/a;x", "/user/a.b"]
    paths += ["/user/A", "/USER/a", "/user", "/user/", "/user//a", "/user/a//", "/user/a//named", "/user/a/namedx"]
    return asked(world, [*paths, "//user/a", "/user/a%20", "/user/a&b", "/user/-a", "/auser/a"])


NAMES = {
    "/user/x%40y.org": [
        "/user/x@y.org",
        "/user/x%40y.org",
        "/user/x%40y.org/lab",
        "/user/x@y.orgz",
        "/user/x%2540y.org",
    ],
    "/user/a%20b": ["/user/a%20b", "/user/a%20b/", "/user/a+b", "/user/a", "/user/a%20bc"],
    "/user/c%2Bd": ["/user/c+d", "/user/c%2Bd", "/user/c%2bd/x", "/user/c%20d"],
    "/user/%C3%BCser": ["/user/%C3%BCser", "/user/%c3%bcser/lab", "/user/u%CC%88ser"],
    "/user/%E7%A7%80%E6%A8%B9": ["/user/%E7%A7%80%E6%A8%B9", "/user/%e7%a7%80%e6%a8%b9/tree", "/user/%E7%A7%80"],
    "/user/~tilde": ["/user/~tilde", "/user/%7Etilde", "/user/%7etilde/x"],
    "/user/100%25": ["/user/100%25", "/user/100%25/x", "/user/100%2525"],
    "/user/semi%3Bcolon": ["/user/semi;colon", "/user/semi%3Bcolon", "/user/semi"],
    "/user/quote%27s": ["/user/quote's", "/user/quote%27s/x"],
    "/user/back%60tick": ["/user/back%60tick", "/user/back%60tick/x"],
    "/user/brace%7Bx%7D": ["/user/brace%7Bx%7D", "/user/brace%7bx%7d/y"],
    "/user/all!$%26()*,:=": ["/user/all!$&()*,:=", "/user/all%21%24%26%28%29%2A%2C%3A%3D/x"],
    "/user/q%3Fh%23": ["/user/q%3Fh%23", "/user/q%3Fh%23/x", "/user/q"],
    "/user/b%5Bx%5D": ["/user/b%5Bx%5D", "/user/b[x]"],
    "/user/plain": ["/user/plain", "/user/%70lain", "/user/pl%61in/x", "/%75ser/plain"],
    "/user/.hidden": ["/user/.hidden", "/user/%2Ehidden"],
    "/user/...": ["/user/...", "/user/.../x"],
    "/constructor": ["/constructor", "/constructor/x"],
    "/__proto__": ["/__proto__", "/__proto__/x"],
}


@plain("names in every spelling")
def spellings(world):
    nested(world, "/", *NAMES)
    return asked(world, [path for paths in NAMES.values() for path in paths])


@plain("an encoded slash")
def encoded_slash(world):
    nested(world, "/", "/a", "/a/b")
    return asked(world, ["/a%2Fb", "/a%2fb/c", "/a/x%2Fb", "/a/b/x%2Fy", "/%2Fa", "/a/b%2F", "/a%252Fb"])


@plain("dots in a path")
def dots(world):
    nested(world, "/", "/user/a", "/user/b")
    paths = [
        "/user/a/./x",
        "/user/a/x/../y",
        "/user/a/../b",
        "/user/a/%2e%2e/b",
        "/user/./b",
        "/../user/a",
        "/user/a/..",
    ]
    return asked(world, [*paths, "/user/a/...", "/user/a/..x", "/user/a/.%2e/b/x"])


@plain("malformed escapes")
def malformed(world):
    nested(world, "/", "/user/a")
    return asked(world, ["/user/a/%zz", "/%", "/user/a/%f", "/user/a?x=%zz", "/user/a/%ff", "/%80"])


@plain("without a root route")
def without_root(world):
    nested(world, "/user/a")
    seen = asked(world, ["/", "/user", "/user/a", "/user/ab", "/nothing"])
    return seen


@plain("a URL in the request line")
def absolute_form(world):
    nested(world, "/", "/user/a")
    seen = {}
    for url in ("http://other.example/user/a", "http://other.example/", "http://other.example/user/a/x?y=1"):
        answer = world.raw(head_of(f"GET {url} HTTP/1.1", [("Host", "hub.example")]))
        got = next(reversed([request for backend in world.backends for request in backend.requests]), None)
        for backend in world.backends:
            if backend.requests:
                got = backend.last
                seen[f"{url}: path"], seen[f"{url}: host"] = got.target, got.header("host")
                backend.reset()
        seen[url] = answer.text if answer.status == 200 else answer.outcome
    return seen


@plain("changed and removed routes")
def changes(world):
    nested(world, "/")
    seen = {}
    with world.client() as kept:
        seen["before"] = world.who("/user/a", client=kept)
        world.route("/user/a", world.server("first"))
        seen["added"] = world.who("/user/a", client=kept)
        world.route("/user/a", world.server("second"))
        seen["changed"] = world.who("/user/a", client=kept)
        world.unroute("/user/a")
        seen["removed"] = world.who("/user/a", client=kept)
    return seen


@plain("a target with a path")
def target_path(world):
    return prefixed(world)


@no_prepend("a target with a path")
def target_path_ignored(world):
    return prefixed(world)


@no_include("a target with a path")
def prefix_cut(world):
    return prefixed(world)


def prefixed(world):
    """What reaches a server whose target, or whose route, has a path."""
    backend = world.server()
    routes = {"/": "", "/plain": "", "/with": "/base", "/slash": "/base/", "/deep": "/a/b%20c", "/x%40y": "/base"}
    for path, base in routes.items():
        world.route(path, backend.target + base)
    seen = {}
    paths = ["/", "/q?x=1", "/plain", "/plain/", "/plain/x?y", "/with", "/with/", "/with/x/y?z=1", "/with?z", "/slash"]
    for path in [*paths, "/slash/x", "/deep/x%2Fy", "/x@y/z", "/with//x"]:
        answer = world.ask(path)
        seen[path] = backend.last.target if answer.status == 200 else answer.outcome
    return seen


@plain("kinds of addresses")
def addresses(world):
    backend = world.server()
    targets = {"by name": "localhost", "by address": LOOPBACK}
    seen = {}
    for number, (title, host) in enumerate(targets.items()):
        world.route(f"/t{number}", f"http://{host}:{backend.port}")
        seen[title] = world.who(f"/t{number}")
    quoted = str(world.proxy.folder / "server.sock").replace("/", "%2F")
    seen["a Unix socket: answer of the API"] = world.proxy.call("POST", "/socket", {"target": f"http+unix://{quoted}"})
    world.proxy.call("DELETE", "/socket")
    return seen


@plain("paths reach the server as they are")
def verbatim(world):
    backend = world.root()
    paths = [
        "/a%2Fb",
        "/a//b",
        "//a/b",
        "/a/%40/@",
        "/%7Ex/~x",
        "/a%20b",
        "/%C3%BC",
        "/%c3%bc",
        "/a;b;c",
        "/x:y",
        "/a,b",
    ]
    paths += [
        "/a'b",
        "/(a)",
        "/a*b",
        "/a!b",
        "/$a&b=c",
        "/a|b",
        "/a^b",
        "/a`b",
        "/a{b}",
        "/a[b]",
        '/a"b',
        "/a<b>",
        "/a\\b",
    ]
    paths += ["/a/./b", "/a/../b", "/a/%2e%2e/b", "/%61", "/a%2fb%2Fc", "/" + "x" * 4000]
    return {path[:40]: reached(world, backend, path) for path in paths}


@plain("queries reach the server as they are")
def queries(world):
    backend = world.root()
    queries = [
        "?",
        "?a=1&b=2",
        "?a=1;b=2",
        "?a=%3B",
        "?a+b=c%20d",
        "?a=b?c=d",
        "?/x//y/../z",
        "?a[]=1&a[]=2",
        "?q=%C3%BC",
    ]
    queries += ["?%zz", "?a=%2F/", "?&&", "?=", "?a={b}|c", "?'", '?a="b"', "?u=http://x/y", "?" + "q" * 6000]
    return {query[:40]: reached(world, backend, "/x" + query) for query in queries}


def reached(world, backend, path):
    """The path and query that the server got, or the proxy's own answer."""
    backend.reset()
    answer = world.ask(path)
    if not backend.requests:
        return answer.outcome
    return "the same" if backend.last.target == path else backend.last.target


@hosts("hosts")
def host_routing(world):
    for path in (
        "/",
        "/one.example/",
        "/one.example/user/a",
        "/two.example/user/a",
        "/two.example/user/a/b",
        "/under_score.example/",
    ):
        world.route(path, world.server(f"at {path}"))
    asked_for = [
        ("one.example", "/"),
        ("one.example", "/user/a"),
        ("one.example", "/user/ab"),
        ("one.example:8000", "/user/a/x"),
        ("two.example", "/"),
        ("two.example", "/user/a"),
        ("two.example", "/user/a/b/c"),
        ("three.example", "/user/a"),
        ("ONE.example", "/user/a"),
        ("one.example.", "/user/a"),
        ("sub.one.example", "/user/a"),
        ("under_score.example", "/x"),
        ("127.0.0.1", "/"),
        ("two.example", "/one.example/user/a"),
        ("", "/user/a"),
        ("hub.example", "/one.example/"),
    ]
    return {f"{host} {path}": world.who(path, host=host) for host, path in asked_for}


@hosts("a name in every spelling")
def host_spellings(world):
    for path in ("/", "/x.example/user/x%40y", "/x.example/user/a%20b"):
        world.route(path, world.server(f"at {path}"))
    paths = ["/user/x@y", "/user/x%40y/lab", "/user/a%20b", "/user/a+b", "/user/x%2540y"]
    return asked(world, paths, host="x.example")


@hosts("a websocket")
def host_websocket(world):
    from rig.backend import echo_websocket

    world.route("/", world.server("root"))
    one = world.server("one", echo_websocket)
    world.route("/one.example/user/a", one)
    _, answer = world.websocket("/user/a/x", host="one.example")
    return {"status": answer.status, "host": one.last.header("host")}
