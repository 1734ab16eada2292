//! The list itself, in the order of the help.

use super::{Group, Kind, Scope, Setting};

const fn one(
    group: Group,
    name: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting { name, value, kind: Kind::One, group, scope: Scope::Any, help, default }
}

const fn list(
    group: Group,
    name: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting { name, value, kind: Kind::List, group, scope: Scope::Any, help, default }
}

const fn switch(group: Group, name: &'static str, help: &'static str) -> Setting {
    Setting { name, value: "true|false", kind: Kind::Switch, group, scope: Scope::Any, help, default: None }
}

const fn file(group: Group, name: &'static str, help: &'static str) -> Setting {
    one(group, name, "FILE", None, help)
}

/// The same setting, with a meaning only with etcd.
const fn etcd(setting: Setting) -> Setting {
    Setting { scope: Scope::Etcd, ..setting }
}

/// The same setting, with a meaning only without etcd.
const fn one_machine(setting: Setting) -> Setting {
    Setting { scope: Scope::OneMachine, ..setting }
}

/// All settings, in the order of the help.
pub const SETTINGS: &[Setting] = &[
    file(Group::General, "config", "Read settings from this TOML file; flags and variables win over it."),
    one(Group::General, "log-level", "LEVEL", Some("info"), "debug, info, warn or error."),
    one(Group::General, "log-format", "FORMAT", Some("text"), "text for people, json for machines; written to stderr."),
    switch(
        Group::General,
        "shared-folders",
        "Also use folders that other users own or may write to; for containers, where there are no other users.",
    ),
    file(Group::General, "pid-file", "Write our process number there, and remove the file at the end."),
    one(Group::Public, "ip", "ADDRESS", Some("all addresses"), "Address that users come in by; empty or * for all."),
    one(Group::Public, "port", "PORT", Some("8000"), "Port that users come in by."),
    one_machine(one(
        Group::Public,
        "socket",
        "PATH",
        None,
        "Unix socket that users come in by, instead of --ip and --port.",
    )),
    one_machine(one(
        Group::Public,
        "max-socket-connections",
        "NUMBER",
        Some("an eighth of the limit of open files"),
        "The most connections of users by --socket, and the most to servers behind Unix sockets.",
    )),
    file(Group::Public, "ssl-key", "Private key (PEM) of the certificate that users see; makes --port speak https."),
    file(
        Group::Public,
        "ssl-cert",
        "Certificate (PEM) that users see, with its chain; it and its key are read again when the files change.",
    ),
    file(Group::Public, "ssl-ca", "Certificates (PEM) that users' own certificates must lead to."),
    switch(Group::Public, "ssl-request-cert", "Let in only users with a certificate that --ssl-ca leads to."),
    switch(Group::Public, "ssl-reject-unauthorized", "Nothing beyond --ssl-request-cert, as configurable-http-proxy."),
    one(
        Group::Public,
        "ssl-protocol",
        "NAME",
        Some("TLS 1.2 and 1.3"),
        "The one version of TLS that is spoken, for users, the API and https servers: TLSv1_2 or TLSv1_3.",
    ),
    one(
        Group::Public,
        "ssl-ciphers",
        "NAMES",
        Some("Traefik's"),
        "Ciphers for users with TLS 1.2, by OpenSSL's names, separated by colons.",
    ),
    one(
        Group::Public,
        "redirect-port",
        "PORT",
        None,
        "A second port, for plain http, that sends users to https; needs --ssl-key and --ssl-cert.",
    ),
    one(Group::Public, "redirect-to", "PORT", Some("as --port"), "The port that --redirect-port sends users to."),
    one(
        Group::Public,
        "request-timeout",
        "MILLISECONDS",
        Some("7200000"),
        "How long a request of a user may take to arrive, an upload included; silent clients are cut off after it too.",
    ),
    one(
        Group::Public,
        "keep-alive-timeout",
        "MILLISECONDS",
        Some("180000"),
        "How long a connection of a user may be idle.",
    ),
    list(
        Group::Public,
        "trusted-ips",
        "RANGES",
        Some("everybody, as configurable-http-proxy; with etcd nobody"),
        "Balancers in front of Traefik whose X-Forwarded headers count, such as 10.0.0.0/8.",
    ),
    list(
        Group::Public,
        "proxy-protocol-ips",
        "RANGES",
        None,
        "Balancers in front of Traefik that speak the PROXY protocol, such as 10.0.0.0/8.",
    ),
    one(
        Group::Public,
        "access-log",
        "FILE",
        None,
        "Let Traefik write a line for each request there; - means to its log.",
    ),
    list(
        Group::Public,
        "middlewares",
        "NAME@PROVIDER",
        None,
        "Middlewares of your own that every request of a user passes, such as limit@file.",
    ),
    one(
        Group::Api,
        "api-ip",
        "ADDRESS",
        Some("localhost"),
        "Address of the API that JupyterHub calls; empty or * for all.",
    ),
    one(Group::Api, "api-port", "PORT", Some("--port + 1"), "Port of the API that JupyterHub calls."),
    one(Group::Api, "api-socket", "PATH", None, "Unix socket of the API, instead of --api-ip and --api-port."),
    file(Group::Api, "api-ssl-key", "Private key (PEM) of the API's certificate; makes the API speak https."),
    file(Group::Api, "api-ssl-cert", "Certificate (PEM) of the API, with its chain."),
    file(Group::Api, "api-ssl-ca", "Certificates (PEM) that certificates of the API's callers must lead to."),
    switch(Group::Api, "api-ssl-request-cert", "Let in only callers with a certificate that --api-ssl-ca leads to."),
    switch(
        Group::Api,
        "api-ssl-reject-unauthorized",
        "Nothing beyond --api-ssl-request-cert, as configurable-http-proxy.",
    ),
    list(
        Group::Api,
        "token-file",
        "FILE",
        None,
        "File with tokens that the API accepts, one a line; several while tokens are being changed. The token in \
         CONFIGPROXY_AUTH_TOKEN counts too.",
    ),
    list(
        Group::Jwt,
        "jwt-key-file",
        "FILE",
        None,
        "Key that signed tokens are checked with: a public key in PEM, or a file with an HMAC secret.",
    ),
    one(Group::Jwt, "jwt-jwks-url", "URL", None, "Where the key set (JWKS) that signed tokens are checked with is."),
    file(Group::Jwt, "jwt-jwks-file", "File with such a key set."),
    one(Group::Jwt, "jwt-issuer", "TEXT", None, "Who must have issued a signed token (its claim 'iss')."),
    list(Group::Jwt, "jwt-audience", "TEXT", None, "For whom a signed token must be meant (its claim 'aud')."),
    list(
        Group::Jwt,
        "jwt-algorithms",
        "NAMES",
        Some("those that fit the key"),
        "Signature algorithms that are accepted, such as RS256,EdDSA.",
    ),
    one(Group::Jwt, "jwt-scope-claim", "NAME", Some("scope"), "Claim that holds the scopes read, write and admin."),
    one(
        Group::Jwt,
        "jwt-scope-prefix",
        "TEXT",
        Some("none"),
        "What stands before read, write and admin in that claim, such as 'pointsman:'.",
    ),
    one(
        Group::Jwt,
        "jwt-routes-claim",
        "NAME",
        Some("routes"),
        "Claim that, where a token has it, limits the token to the routes below a path.",
    ),
    one(
        Group::Jwt,
        "jwt-table-percent",
        "NUMBER",
        Some("10"),
        "How much of --max-routes and --max-table-bytes the paths of a token with that claim may fill.",
    ),
    one_machine(one(
        Group::OneMachine,
        "data-dir",
        "FOLDER",
        Some("pointsman-data, with the API's port behind it if that isn't 8001"),
        "Where the routes, and the files for our Traefik, are kept.",
    )),
    one_machine(file(
        Group::OneMachine,
        "traefik-binary",
        "The traefik to start [default: the one beside pointsman, else the one on PATH].",
    )),
    list(
        Group::Etcd,
        "etcd-endpoints",
        "URLS",
        None,
        "Where etcd is, such as http://etcd-0:2379,http://etcd-1:2379. Without it everything is on this machine.",
    ),
    etcd(one(Group::Etcd, "etcd-prefix", "TEXT", Some("pointsman"), "What the keys of our own records begin with.")),
    etcd(one(
        Group::Etcd,
        "installation",
        "NAME",
        None,
        "Name of this installation, the same for all its replicas: one of another name may not use these keys.",
    )),
    etcd(one(
        Group::Etcd,
        "snapshot-dir",
        "FOLDER",
        Some("pointsman-snapshot, with the API's port behind it if that isn't 8001"),
        "Where the last known routes are kept on this machine, for the time when etcd is away.",
    )),
    etcd(one(Group::Etcd, "etcd-user", "NAME", None, "User to log in to etcd with.")),
    etcd(file(Group::Etcd, "etcd-password-file", "File with that user's password.")),
    etcd(one(
        Group::Etcd,
        "etcd-ca",
        "FILE",
        Some("the system's"),
        "Certificates (PEM) that etcd's certificate must lead to.",
    )),
    etcd(file(Group::Etcd, "etcd-cert", "Our certificate (PEM), where etcd asks for one.")),
    etcd(file(Group::Etcd, "etcd-key", "The key (PEM) of that certificate.")),
    etcd(switch(
        Group::Etcd,
        "allow-revision-bump",
        "After a restore of etcd from a backup, write a key up to 100,000 times until its revision is where it was: so no \
         Traefik needs a restart. For an etcd of our own.",
    )),
    etcd(list(
        Group::Traefik,
        "traefik-api",
        "URL",
        None,
        "API of a Traefik, such as http://10.0.0.5:8099; one for each, or dns://NAME:PORT, a name that resolves to all.",
    )),
    etcd(one(Group::Traefik, "traefik-root-key", "TEXT", Some("traefik"), "Root key of Traefik's etcd provider.")),
    etcd(list(
        Group::Traefik,
        "entry-point",
        "NAME",
        Some("web"),
        "Traefik's entry point for users; NAME=ADDRESS also gives its address to traefik-config.",
    )),
    etcd(switch(
        Group::Traefik,
        "adopt-layout",
        "Take over Traefik's keys even if another version or other settings wrote them.",
    )),
    etcd(switch(
        Group::Traefik,
        "own-root-key",
        "Remove keys under --traefik-root-key that are none of ours, instead of reporting them.",
    )),
    etcd(one(
        Group::Traefik,
        "laggard",
        "POLICY",
        Some("proceed"),
        "What happens when a Traefik stays behind the others: proceed answers changes without it after --laggard-grace, \
         wait answers 503 until it is there.",
    )),
    etcd(one(
        Group::Traefik,
        "laggard-grace",
        "SECONDS",
        Some("6"),
        "How long a Traefik may be behind before changes go on without it: longer than its readiness probe needs.",
    )),
    etcd(one(
        Group::Traefik,
        "connections-port",
        "PORT",
        Some("none"),
        "Port of 'pointsman connections' beside each Traefik that is not on this machine: it sees open websockets.",
    )),
    switch(Group::Traefik, "strict-versions", "Refuse a Traefik or etcd that is too old, instead of warning."),
    switch(Group::Routing, "host-routing", "The first segment of a route is the host it is for."),
    one(
        Group::Routing,
        "default-target",
        "URL",
        None,
        "Where requests without a route go; only set at start, and only if '/' has no route.",
    ),
    one(Group::Routing, "max-routes", "NUMBER", Some("50000"), "The most routes that are accepted."),
    one(
        Group::Routing,
        "max-table-bytes",
        "BYTES",
        Some("67108864"),
        "The most bytes that the records of all routes may have together.",
    ),
    file(Group::Servers, "client-ssl-key", "Private key (PEM) that https servers are shown."),
    file(Group::Servers, "client-ssl-cert", "Certificate (PEM) that https servers are shown."),
    one(
        Group::Servers,
        "client-ssl-ca",
        "FILE",
        Some("the system's"),
        "Certificates (PEM) that those of https servers must lead to.",
    ),
    switch(Group::Servers, "client-ssl-request-cert", "Has no effect, here as in configurable-http-proxy."),
    switch(
        Group::Servers,
        "client-ssl-reject-unauthorized",
        "Has no effect: the certificates of https servers are always checked, unless --insecure is given.",
    ),
    switch(Group::Servers, "insecure", "Don't check the certificates of https servers."),
    one(
        Group::Servers,
        "proxy-timeout",
        "MILLISECONDS",
        Some("none"),
        "How long a server may take until its answer begins; then the user gets 503.",
    ),
    switch(Group::Servers, "change-origin", "Servers see the host of their target instead of the user's."),
    switch(Group::Servers, "no-prepend-path", "The path of a target is not put before the path of a request."),
    switch(Group::Servers, "no-include-prefix", "The path of the route is cut from the path of a request."),
    Setting {
        name: "custom-header",
        value: "NAME: VALUE",
        kind: Kind::Repeated,
        group: Group::Servers,
        scope: Scope::Any,
        help: "A header that every request to a server is given, over the user's own.",
        default: None,
    },
    etcd(one(
        Group::Pages,
        "pages-url",
        "URL",
        None,
        "Where Traefik reaches our health and error pages, such as http://10.0.0.4:8002; without it there are none.",
    )),
    etcd(one(Group::Pages, "pages-ip", "ADDRESS", Some("as --api-ip"), "Address of those pages; empty or * for all.")),
    etcd(one(Group::Pages, "pages-port", "PORT", Some("8002"), "Port of those pages.")),
    one(
        Group::Pages,
        "error-target",
        "URL",
        None,
        "Who writes the error pages: URL/503 is asked when a server is unreachable, URL/404 when there is no route.",
    ),
    one(
        Group::Pages,
        "error-path",
        "FOLDER",
        None,
        "Where the error pages are: 503.html, 404.html, or error.html for all others.",
    ),
    one(Group::Metrics, "metrics-ip", "ADDRESS", Some("all addresses"), "Address of /metrics; empty or * for all."),
    one(Group::Metrics, "metrics-port", "PORT", Some("none"), "Port of /metrics; without it there are no metrics."),
    one(Group::Metrics, "metrics-socket", "PATH", None, "Unix socket of /metrics, instead of address and port."),
];
