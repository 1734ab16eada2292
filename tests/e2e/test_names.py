"""Every user name that JupyterHub accepts is reached, in every spelling that a browser can produce."""

import concurrent.futures
from urllib.parse import quote

import pytest

NAMES = [
    "plain", "UpperCase", "uppercase", "UPPER_CASE", "at@example.com", "two@@signs", "@first", "plus+plus", "+first",
    "it's", "(round)", "per%cent", "%40literal", "percent%2Fslash", "tilde~", "~first", "dot.ted", ".first", "a..b",
    "with space", "ünïcödé", "日本語", "e\u0301 decomposed", "🚂", "semi;colon", "com,ma", "a&b", "a=b", "a$b", "a!b", "st*r",
    "co:lon", "ha#sh", "what?", "[square]", "{curly}", "<angle>", "back`tick", 'double"quote', "back\\slash", "pi|pe",
    "ca^ret", "-dash", "_under", "12345", "user", "hub", "x" * 80, "`) || PathPrefix(`x", "${env}", "{{.Name}}", "\u202eright",
]  # fmt: skip

# What a browser leaves as it is in a path; the rest it encodes by itself.
BROWSERS_LEAVE = "!$&'()*+,;=:@~|[]^"


def spellings(name):
    """All the ways in which a URL can say this name as one path segment."""
    every = "".join(f"%{byte:02X}" for byte in name.encode())
    encoded = quote(name, safe="")
    return {
        "as the hub writes it": quote(name, safe="@~"),
        "all but letters encoded": encoded,
        "in small hexadecimal": small_hexadecimal(encoded),
        "as a browser leaves it": quote(name, safe=BROWSERS_LEAVE),
        "every byte encoded": every,
    }


def small_hexadecimal(text):
    """The same percent-encoded text with small letters in its escapes."""
    first, *rest = text.split("%")
    return first + "".join("%" + part[:2].lower() + part[2:] for part in rest)


def check_every_name_in_every_spelling(hub):
    """Start a server for each name, reach it in each spelling, stop it."""
    hub.add_users(NAMES)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(hub.start, NAMES))
    wrong = []
    for name in NAMES:
        for kind, spelling in spellings(name).items():
            for rest in ("/", "/api/status?x=%2F&y=1", ""):
                path = f"/user/{spelling}{rest}"
                for traefik in range(len(hub.stack.public_ports)):
                    answer = hub.server_at(path, traefik)
                    if not answer or answer["user"] != name:
                        seen = answer or hub.get(path, traefik)
                        wrong.append(f"{name!r} {kind}: {path} at Traefik {traefik}: {str(seen)[:200]}")
    assert not wrong, f"{len(wrong)} wrong answers:\n" + "\n".join(wrong[:40])
    # A name that only begins like another one is nobody's.
    assert hub.server_at("/user/plainer/") is None
    assert hub.server_at("/user/plai/") is None
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(hub.stop, NAMES))
    for name in NAMES:
        hub.assert_gone(name)
    assert not [route for route in hub.routes() if route.startswith("/user/")]


def test_every_name_in_every_spelling(hub):
    check_every_name_in_every_spelling(hub)


@pytest.mark.parametrize(
    "path", ["/user/plain/a//b", "/user/plain/a%2Fb", "/user/plain/a%20b/%E2%82%AC", "/user/plain/x;y=1?q=a%3Bb"]
)
def test_the_path_reaches_the_server_as_it_was_sent(hub, path):
    hub.add_users(["plain"])
    hub.start("plain")
    assert hub.server_at(path)["path"] == path
