"""Where Pointsman's data plane differs from configurable-http-proxy's, and why. The table in the docs is made of it.

`make test-dataplane` holds each line: what is listed must occur, and nothing else may.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One field of one case. `reason` is a key of REASONS."""

    reason: str
    case: str
    field: str
    chp: str
    pointsman: str


# Reason to its heading, and what there is to say about it.
REASONS = {
    "failures": (
        "A server that fails",
        "Traefik answers 502 or 504 if a server can't be reached or hangs up, which becomes CHP's 503, "
        "but 500 if what comes back is no HTTP, which a second `chunked` is for Go, or if a certificate isn't "
        "trusted. A 500 has no page of ours, for a server's own 500 must pass, and nothing in Traefik's configuration "
        "tells one from the other; Traefik's log has the cause at level debug.",
    ),
    "own-5xx": (
        "A server's own 502 and 504",
        "Traefik sees the status only, so it can't tell a server's own 502 or 504 from its own, and "
        "answers both with 503 and a page. JupyterHub and Jupyter servers don't send them.",
    ),
    "page": (
        "Pages of our own",
        "Pointsman's own page has other words and says its character set, and no error page may be kept by a cache.",
    ),
    "error-page": (
        "Answers of an error target that are no pages",
        "A page is a body with a type; Pointsman shows its own page instead of a bare phrase, and "
        "doesn't show the body of a redirect.",
    ),
    "ws-page": (
        "Refused websockets",
        "A refusal of Traefik has a page as its body, which no browser shows.",
    ),
    "cut": (
        "Answers that a server cuts",
        "CHP leaves its client waiting for the rest for ever; Traefik ends the connection, so that the "
        "client sees that something is missing.",
    ),
    "early": (
        "An answer before the request has come",
        "Traefik passes an early answer on when the rest of the body has come, or a part of it; a client"
        " that stops sending to wait for an answer waits in vain. Browsers go on sending.",
    ),
    "retry": (
        "Connections that a server closes as a request comes",
        "Traefik sends a request again that may be repeated (GET, and others without an effect), and never a POST.",
    ),
    "health": (
        "Spellings of the health page",
        "Traefik decodes a path and takes the query off before it looks at it.",
    ),
    "framing": (
        "Requests without a body",
        "CHP adds `Content-Length: 0`; without it such a request has no body either.",
    ),
    "strict": (
        "Requests that are no good HTTP",
        "The two parsers are strict at different places. No browser sends these.",
    ),
    "added": (
        "Headers that are added",
        "Traefik adds who was asked and by whom, and asks servers for gzip on its own if the client "
        "named no encoding. It then unpacks the answer, so the client gets what it asked for.",
    ),
    "joined": (
        "Repeated headers",
        "CHP joins them with a comma, or keeps the first; Traefik passes each line on, which means the same.",
    ),
    "hop": (
        "Headers of one hop",
        "CHP passes them on; Traefik removes them, as RFC 9110 wants.",
    ),
    "forwarded": (
        "X-Forwarded headers that came from a balancer",
        "CHP appends to each; Traefik appends to X-Forwarded-For only. JupyterHub and tornado look at "
        "the first (protocol) or walk from the last (address), and see the same.",
    ),
    "forwarded-ws": (
        "X-Forwarded-Host of websockets",
        "CHP sets it for requests only.",
    ),
    "big": (
        "Large heads",
        "CHP's limit is 16 KB. Traefik's, as Pointsman sets it, is 64 KB; Go adds 4 KB to it.",
    ),
    "alias": (
        "Names that servers read as one",
        "CGI and WSGI read `X_Custom` and `X.Custom` as `X-Custom`. Where servers rely on a header, because of "
        "`--custom-header`, `--middlewares` or `--trusted-ips`, Traefik removes all request headers with other "
        "characters than letters, digits and dashes. CHP passes them, and so does Pointsman without these settings.",
    ),
    "half-closed": (
        "Clients that close their side of the connection",
        "Neither answers: CHP ends the connection, Traefik sends and logs 499, for Go takes the end of what a client "
        "sends for the end of the client. Traefik has no setting for it. Browsers and HTTP libraries don't close their "
        "side. The API does answer.",
    ),
    "slow": (
        "Clients that are slow to ask",
        "CHP ends a connection whose head has not come within 60 s, and one whose request has not come within 300 s, "
        "which cuts long uploads. Traefik has one limit for head and body together: `--request-timeout`, two hours if "
        "nothing else is said. It ends silent connections too.",
    ),
    "reason": (
        "Reason phrases",
        "Traefik sends the standard phrase of a status. Nothing reads it.",
    ),
    "hints": (
        "Interim answers and trailers",
        "CHP drops them, Traefik passes them on.",
    ),
    "idle": (
        "Idle connections of users",
        "Traefik keeps them longer than CHP's 5 s; `--keep-alive-timeout` sets it.",
    ),
    "slash": (
        "An encoded slash in the part that chooses the route",
        "CHP takes `%2F` for a slash when it looks for the route. In Traefik it is a character, so such "
        "a path never reaches another user's server by a trick. Behind the route's own part both pass it"
        " on as it is.",
    ),
    "dots": (
        "Dot segments",
        "CHP resolves `.` and `..` before it looks for a route, and Traefik passes them on. Browsers "
        "resolve them before they send.",
    ),
    "escapes": (
        "Spelling of escapes",
        "Traefik decodes escapes that needn't be, writes the others in capitals, and escapes what must "
        "be. By RFC 3986 it is the same path.",
    ),
    "semicolon": (
        "Semicolons in a query",
        "Traefik escapes them, which keeps the value for servers that take `;` for a separator and for "
        "those that don't.",
    ),
    "malformed": (
        "Escapes that are no UTF-8, or none at all",
        "CHP fails with 500; Traefik refuses what can't be decoded and passes on what can.",
    ),
    "absolute": (
        "A URL in the request line",
        "Traefik takes the host of the URL, as RFC 9112 wants. Only a client that thinks it speaks to a "
        "forward proxy sends one.",
    ),
    "case": (
        "Host names",
        "Case and a final dot don't matter in a host name; CHP compares them as text.",
    ),
    "upgrade": (
        "Other upgrades",
        "CHP drops the connection; Traefik passes the request on without the upgrade.",
    ),
    "ws-reset": (
        "A websocket's server that resets",
        "CHP leaves the client's connection open, Traefik closes it.",
    ),
    "strip": (
        "Cutting the prefix",
        "What is left of a path always begins with a slash, and a path of which two slashes are left is "
        "refused with 400, for servers may take it for the address of a host.",
    ),
    "silence": (
        "Silence within an answer",
        "`--proxy-timeout` limits how long a server may take to begin its answer. Traefik has no limit "
        "for silence after that; CHP ends the connection to the server then, and leaves its client "
        "waiting.",
    ),
    "insecure": (
        "`--insecure`",
        "In CHP 5.3 the flag has no effect on servers with TLS; Pointsman takes it at its word.",
    ),
    "refused": (
        "Flags that are refused",
        "Traefik can't do what they ask for. Pointsman says so at the start, by name, rather than to ignore them.",
    ),
    "redirect": (
        "The redirecting port",
        "Traefik answers other methods than GET with 308, so that a POST stays a POST, and leaves a "
        "`:443` out, which `https:` means anyway.",
    ),
    "tls": (
        "TLS towards users",
        "Traefik offers HTTP/2 too, and tells a client that speaks plain HTTP to the TLS port that there is nothing.",
    ),
}

# Reason and case to what differs: field to what CHP gives and what Pointsman gives.
LISTED = {
    ("failures", "plain: servers that fail"): {
        "answers no HTTP": ("503", "500"),
        "answers no HTTP: POST": ("503", "500"),
        "cuts its head": ("503", "500"),
        "cuts its head: POST": ("503", "500"),
        "a certificate nobody trusts": ("503", "500"),
        "a certificate nobody trusts: POST": ("503", "500"),
    },
    ("failures", "plain: a server that says chunked twice"): {
        "two lines": ("200, hi", "500, Internal Server Error"),
        "one line": ("200, hi", "500, Internal Server Error"),
    },
    ("failures", "client-ssl: servers with TLS"): {
        "/stranger": ("503", "500"),
    },
    ("own-5xx", "error-target: a server's own errors"): {
        "502": ("502, the server's own, 1", "503, the hub's page, (nothing), GET /hub/error/503?url=%2Fx"),
        "504": ("504, the server's own, 1", "503, the hub's page, (nothing), GET /hub/error/503?url=%2Fx"),
    },
    ("own-5xx", "plain: a server's own status"): {
        "502": ("502", "503"),
        "502: body": ("the server's own body", "(a page)"),
        "504": ("504", "503"),
        "504: body": ("the server's own body", "(a page)"),
    },
    ("own-5xx", "plain: a server that refuses a websocket"): {
        "502": ("502, no websocket here, 1, /login", "503, (a page), (nothing), (nothing)"),
    },
    ("page", "plain: without a route"): {
        "type": ("text/html", "text/html; charset=utf-8"),
    },
    ("page", "plain: servers that fail"): {
        "refuses: page": ("text/html, no, yes", "text/html; charset=utf-8, no, yes"),
        "a name that doesn't exist: page": ("text/html, no, yes", "text/html; charset=utf-8, no, yes"),
        "closes without an answer: page": ("text/html, no, yes", "text/html; charset=utf-8, no, yes"),
        "resets: page": ("text/html, no, yes", "text/html; charset=utf-8, no, yes"),
        "answers no HTTP: page": ("text/html, no, yes", "(nothing), no, yes"),
        "cuts its head: page": ("text/html, no, yes", "(nothing), no, yes"),
        "https to a plain port: page": ("text/html, no, yes", "text/html; charset=utf-8, no, yes"),
        "http to a TLS port: page": ("text/html, no, yes", "text/html; charset=utf-8, no, yes"),
        "a certificate nobody trusts: page": ("text/html, no, yes", "(nothing), no, yes"),
    },
    ("page", "error-target: pages of the error target"): {
        "no route: Cache-Control": ("(nothing)", "no-store"),
        "a query: Cache-Control": ("(nothing)", "no-store"),
        "dead: Cache-Control": ("(nothing)", "no-store"),
        "characters: Cache-Control": ("(nothing)", "no-store"),
    },
    ("error-page", "error-target: answers of the error target"): {
        "a redirect": ("503, (nothing), (nothing), (nothing)", "503, text/html; charset=utf-8, (nothing), (nothing)"),
        "a redirect: body": ("moved", "(a page)"),
        "an encoding": ("503, text/html, gzip, (nothing)", "503, text/html, (nothing), (nothing)"),
        "closes": ("503, (nothing), (nothing), (nothing)", "503, text/html; charset=utf-8, (nothing), (nothing)"),
        "closes: body": ("Service Unavailable", "(a page)"),
    },
    ("error-page", "error-target: an error target that is down"): {
        "body": ("Service Unavailable", "(a page)"),
        "type": ("(nothing)", "text/html; charset=utf-8"),
    },
    ("ws-page", "error-target: a websocket"): {
        "/dead/x": ("503, (empty)", "503, the hub's page"),
        "/nothing": ("404, (empty)", "404, the hub's page"),
    },
    ("ws-page", "plain: a server that refuses a websocket"): {
        "closes without an answer": ("503, (empty)", "503, (a page)"),
    },
    ("ws-page", "plain: a websocket without a server"): {
        "/nothing: body": ("no", "yes"),
        "/dead/x: body": ("no", "yes"),
    },
    ("cut", "plain: a server that dies in the middle of its answer"): {
        "status": ("200", "closed"),
        "ending": ("timeout", "closed"),
    },
    ("cut", "plain: bare answers"): {
        "cut short of its length": ("200", "closed"),
        "cut short of its length: body": ("hi, timeout", "(empty), closed"),
        "cut in a chunk: body": ("hi, timeout", "hi, cut"),
        "cut between chunks: body": ("hi, timeout", "hi, cut"),
    },
    ("early", "plain: an answer before the body has come"): {
        "a client that waits": ("413, too large", "timeout, (empty)"),
    },
    ("retry", "plain: a kept connection that the server closes at the next request"): {
        "GET": ("200, 503", "200, 200"),
        "GET: requests that arrived": ("2", "3"),
    },
    ("health", "plain: the health page"): {
        "/_chp_healthz?x=1": ("200, a route of that name", '200, {"status": "OK"}'),
        "/%5Fchp_healthz": ("200, a route of that name", '200, {"status": "OK"}'),
    },
    ("framing", "plain: methods without a body"): {
        "DELETE: server got": ("DELETE, length 0", "DELETE, none"),
        "OPTIONS: server got": ("OPTIONS, length 0", "OPTIONS, none"),
        "PROPFIND: server got": ("PROPFIND, length 0", "PROPFIND, none"),
        "MKCOL: server got": ("MKCOL, length 0", "MKCOL, none"),
        "REPORT: server got": ("REPORT, length 0", "REPORT, none"),
    },
    ("strict", "plain: methods without a body"): {
        "CONNECT": ("closed", "501"),
        "NONSENSE": ("400", "200"),
    },
    ("strict", "plain: framing of a body"): {
        "length and chunked": ("400", "200"),
        "length and chunked: server got": ("(nothing)", "chunked, hello world"),
    },
    ("strict", "plain: unusual requests"): {
        "a fragment": ("200", "400"),
        "bytes beyond ASCII in the path": ("400", "200"),
        "a folded header": ("400", "200"),
        "two hosts": ("200", "400"),
        "no HTTP": ("400", "timeout"),
        "HTTP/3.0": ("400", "505"),
    },
    ("added", "plain: headers of a request"): {
        "added by the proxy": ("connection: keep-alive", "x-forwarded-server: THIS-HOST"),
    },
    ("added", "plain: headers the proxy adds"): {
        "bare": (
            "connection: keep-alive",
            "accept-encoding: gzip, x-forwarded-server: THIS-HOST, x-real-ip: 127.0.0.1",
        ),
        "with Accept-Encoding": (
            "accept-encoding: identity, connection: keep-alive",
            "accept-encoding: identity, x-forwarded-server: THIS-HOST, x-real-ip: 127.0.0.1",
        ),
    },
    ("added", "plain: X-Forwarded headers"): {
        "other X-Forwarded and X-Real headers": ("(nothing)", "x-forwarded-server, x-real-ip"),
    },
    ("added", "plain: headers of an answer"): {
        "others": ("connection, content-length", "content-length"),
    },
    ("added", "plain: compression is the server's own"): {
        "not asked for: untouched": ("yes", "no"),
        "not asked for: encoding": ("gzip", "(nothing)"),
        "not asked for: ending": ("length", "chunked"),
    },
    ("joined", "plain: repeated headers"): {
        "Cookie": ("a=1; b=2", "a=1 | b=2"),
        "X-Twice": ("1, 2", "1 | 2"),
        "Accept": ("a/b, c/d", "a/b | c/d"),
        "Content-Type": ("a/b", "a/b | c/d"),
    },
    ("joined", "plain: headers of an answer"): {
        "Vary": ("Cookie, Accept", "Cookie | Accept"),
    },
    ("hop", "plain: headers of one hop"): {
        "Keep-Alive": ("timeout=5", "(nothing)"),
        "X-Named": ("1", "(nothing)"),
        "Proxy-Authorization": ("Basic eDp5", "(nothing)"),
        "Proxy-Connection": ("keep-alive", "(nothing)"),
    },
    ("forwarded", "plain: X-Forwarded headers"): {
        "behind a TLS balancer: x-forwarded-for": ("1.2.3.4,127.0.0.1", "1.2.3.4, 127.0.0.1"),
        "behind a TLS balancer: x-forwarded-port": ("443,80", "443"),
        "behind a TLS balancer: x-forwarded-proto": ("https,http", "https"),
        "behind two: x-forwarded-for": ("1.2.3.4, 5.6.7.8,127.0.0.1", "1.2.3.4, 5.6.7.8, 127.0.0.1"),
        "behind two: x-forwarded-port": ("443,80,80", "443,80"),
        "behind two: x-forwarded-proto": ("https,http,http", "https,http"),
    },
    ("forwarded-ws", "plain: headers of a handshake"): {
        "X-Forwarded-Host": ("(nothing)", "hub.example:8443"),
    },
    ("big", "plain: large heads"): {
        "20 KB": ("431", "arrives"),
        "60 KB": ("431", "arrives"),
    },
    ("alias", "custom-header: names that servers read as a custom header's"): {
        "X_Custom": ("mine", "(nothing)"),
        "X.Custom": ("mine", "(nothing)"),
        "x~custom": ("mine", "(nothing)"),
        "X_Under": ("mine", "(nothing)"),
    },
    ("half-closed", "plain: a client that closes its side after its request"): {
        "GET": ("closed", "499"),
        "POST": ("closed", "499"),
    },
    ("slow", "plain: clients that are slow to ask"): {
        "silent: ended within 110 s": ("yes", "no"),
        "half a head: ended within 110 s": ("yes", "no"),
    },
    ("reason", "plain: a server's own reason phrase"): {
        "reason": ("Fine By Me", "OK"),
    },
    ("hints", "plain: bare answers"): {
        "trailers: beside": ("(nothing)", "X-T: 1"),
        "early hints: beside": ("(nothing)", "103"),
    },
    ("idle", "plain: an idle connection"): {
        "closed within 7.5 s": ("yes", "no"),
    },
    ("slash", "plain: an encoded slash"): {
        "/a%2Fb": ("at /a/b", "at /"),
        "/a%2fb/c": ("at /a/b", "at /"),
        "/%2Fa": ("at /a", "at /"),
        "/a/b%2F": ("at /a/b", "at /a"),
    },
    ("dots", "plain: dots in a path"): {
        "/user/a/../b": ("at /user/b", "at /user/a"),
        "/user/a/%2e%2e/b": ("at /user/b", "at /user/a"),
        "/user/./b": ("at /user/b", "at /"),
        "/../user/a": ("at /user/a", "at /"),
        "/user/a/..": ("at /", "at /user/a"),
        "/user/a/.%2e/b/x": ("at /user/b", "at /user/a"),
    },
    ("dots", "plain: paths reach the server as they are"): {
        "/a/./b": ("/a/b", "the same"),
        "/a/../b": ("/b", "the same"),
        "/a/%2e%2e/b": ("/b", "/a/../b"),
    },
    ("escapes", "error-target: pages of the error target"): {
        "characters: asked": (
            "GET /hub/error/404?url=%2Fn%2F%25C3%25BC%2520%27%22%3Cb%3E",
            "GET /hub/error/404?url=%2Fn%2F%25C3%25BC%2520%2527%2522%253Cb%253E",
        ),
    },
    ("escapes", "plain: paths reach the server as they are"): {
        "/%7Ex/~x": ("the same", "/~x/~x"),
        "/%c3%bc": ("the same", "/%C3%BC"),
        "/a|b": ("the same", "/a%7Cb"),
        "/a^b": ("the same", "/a%5Eb"),
        "/a\\b": ("/a/b", "/a%5Cb"),
        "/%61": ("the same", "/a"),
        "/a%2fb%2Fc": ("the same", "/a%2Fb%2Fc"),
    },
    ("escapes", "plain: queries reach the server as they are"): {
        "?": ("/x", "the same"),
        "?'": ("/x?%27", "the same"),
        '?a="b"': ("/x?a=%22b%22", "the same"),
    },
    ("semicolon", "error-target: pages of the error target"): {
        "a query: asked": (
            "GET /hub/error/404?url=%2Fnothing%2Fx%3Fy%3D1%26z%3D%2540%3Ba",
            "GET /hub/error/404?url=%2Fnothing%2Fx%3Fy%3D1%26z%3D%2540%253Ba",
        ),
    },
    ("semicolon", "plain: queries reach the server as they are"): {
        "?a=1;b=2": ("the same", "/x?a=1%3Bb=2"),
    },
    ("semicolon", "plain: headers of a handshake"): {
        "path": ("/x%2Fy?a=%40;b", "/x%2Fy?a=%40%3Bb"),
    },
    ("malformed", "plain: malformed escapes"): {
        "/user/a/%zz": ("500", "400"),
        "/%": ("500", "400"),
        "/user/a/%f": ("500", "400"),
        "/user/a/%ff": ("500", "at /user/a"),
        "/%80": ("500", "at /"),
    },
    ("absolute", "plain: a URL in the request line"): {
        "http://other.example/user/a: host": ("hub.example", "other.example"),
        "http://other.example/: host": ("hub.example", "other.example"),
        "http://other.example/user/a/x?y=1: host": ("hub.example", "other.example"),
    },
    ("case", "host routing: hosts"): {
        "ONE.example /user/a": ("at /", "at /one.example/user/a"),
        "one.example. /user/a": ("at /", "at /one.example/user/a"),
    },
    ("upgrade", "plain: ways to ask for a websocket"): {
        "h2c": ("closed", "200"),
        "POST": ("closed", "200"),
    },
    ("ws-reset", "plain: how a websocket ends"): {
        "the server resets": ("no", "yes"),
    },
    ("strip", "no-include-prefix: a target with a path"): {
        "/with": ("/base", "/base/"),
        "/with?z": ("/base?z", "/base/?z"),
        "/with//x": ("/base//x", "400"),
    },
    ("silence", "proxy-timeout: slow servers"): {
        "within the answer: whole": ("no", "yes"),
    },
    ("insecure", "insecure: a certificate nobody trusts"): {
        "status": ("503", "200"),
    },
    ("refused", "timeout: slow servers"): {
        "start": ("starts", "refused, names --timeout"),
    },
    ("refused", "no-x-forward: X-Forwarded headers"): {
        "start": ("starts", "refused, names --no-x-forward"),
    },
    ("refused", "auto-rewrite: redirects of a server"): {
        "start": ("starts", "refused, names --auto-rewrite"),
    },
    ("refused", "protocol-rewrite: redirects of a server"): {
        "start": ("starts", "refused, names --protocol-rewrite"),
    },
    ("redirect", "redirect-port: the port"): {
        "HEAD": ("301, https://hub.example:PUBLIC/x", "308, https://hub.example:PUBLIC/x"),
        "POST": ("301, https://hub.example:PUBLIC/x", "308, https://hub.example:PUBLIC/x"),
        "PUT": ("301, https://hub.example:PUBLIC/x", "308, https://hub.example:PUBLIC/x"),
    },
    ("redirect", "redirect-to: the port"): {
        "GET": ("301, https://hub.example:443/x%2Fy?z=1", "301, https://hub.example/x%2Fy?z=1"),
        "HEAD": ("301, https://hub.example:443/x", "308, https://hub.example/x"),
        "POST": ("301, https://hub.example:443/x", "308, https://hub.example/x"),
        "a port in Host": ("301, https://hub.example:443/x", "301, https://hub.example/x"),
        "the root": ("301, https://hub.example:443/", "301, https://hub.example/"),
        "PUT": ("301, https://hub.example:443/x", "308, https://hub.example/x"),
        "health": ("301, https://hub.example:443/_chp_healthz", "301, https://hub.example/_chp_healthz"),
        "two slashes": ("301, https://hub.example:443/user/a//b", "301, https://hub.example/user/a//b"),
        "encoded characters": (
            "301, https://hub.example:443/a%2Fb%5C%3F%23%25%3B",
            "301, https://hub.example/a%2Fb%5C%3F%23%25%3B",
        ),
    },
    ("redirect", "redirect-to another port: the port"): {
        "HEAD": ("301, https://hub.example:8443/x", "308, https://hub.example:8443/x"),
        "POST": ("301, https://hub.example:8443/x", "308, https://hub.example:8443/x"),
        "PUT": ("301, https://hub.example:8443/x", "308, https://hub.example:8443/x"),
    },
    ("tls", "ssl: the handshake"): {
        "offers h2 and http/1.1": ("http/1.1", "h2"),
        "plain HTTP": ("closed", "404"),
    },
}

DIFFERENCES = [
    Difference(reason, case, field, *pair)
    for (reason, case), fields in LISTED.items()
    for field, pair in fields.items()
]
