//! The list of all settings: each is known under one name, as a flag, as an environment variable and as a key.

use std::fmt::Write as _;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name: `--name`, `POINTSMAN_NAME` and `name =` in the file.
    pub name: &'static str,
    /// What stands for its value in the help.
    pub value: &'static str,
    /// How many values it takes.
    pub kind: Kind,
    /// The heading it stands under.
    pub group: Group,
    /// What it does, in a sentence or two.
    pub help: &'static str,
    /// The value it has when nobody sets it, in words.
    pub default: Option<&'static str>,
}

/// How many values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One value; given again, the last one counts.
    One,
    /// Any number of values: repeated or separated by commas; a list in the file.
    List,
    /// Yes or no; the bare flag means yes.
    Switch,
}

/// The headings of the help, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Where things are configured.
    General,
    /// The API that `JupyterHub` calls.
    Api,
    /// Signed tokens.
    Jwt,
    /// The store.
    Etcd,
    /// The proxies.
    Traefik,
    /// What users get.
    Routing,
    /// Error pages.
    Pages,
}

impl Group {
    /// All, in their order.
    pub const ALL: [Self; 7] =
        [Self::General, Self::Api, Self::Jwt, Self::Etcd, Self::Traefik, Self::Routing, Self::Pages];

    /// The heading's text.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Self::General => "General",
            Self::Api => "API for JupyterHub",
            Self::Jwt => "Signed tokens (JWT) for the API",
            Self::Etcd => "etcd",
            Self::Traefik => "Traefik",
            Self::Routing => "Routing",
            Self::Pages => "Error pages and health page for Traefik",
        }
    }
}

impl Setting {
    /// The setting of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        variable(self.name)
    }

    /// What the help says about it: sentence, default, variable.
    #[must_use]
    pub fn full_help(&self) -> String {
        let mut text = self.help.to_owned();
        if let Some(default) = self.default {
            let _ = write!(text, " [default: {default}]");
        }
        let _ = write!(text, " [env: {}]", self.variable());
        text
    }
}

/// The environment variable of a setting.
#[must_use]
pub fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase().replace('-', "_"))
}

/// What the names of our environment variables begin with.
pub const PREFIX: &str = "POINTSMAN_";

/// The token of the configurable-http-proxy; the only variable of ours with another prefix.
pub const TOKEN_VARIABLE: &str = "CONFIGPROXY_AUTH_TOKEN";

const fn one(
    group: Group,
    name: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting { name, value, kind: Kind::One, group, help, default }
}

const fn list(
    group: Group,
    name: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting { name, value, kind: Kind::List, group, help, default }
}

const fn switch(group: Group, name: &'static str, help: &'static str) -> Setting {
    Setting { name, value: "true|false", kind: Kind::Switch, group, help, default: None }
}

/// All settings, in the order of the help.
pub const SETTINGS: &[Setting] = &[
    one(Group::General, "config", "FILE", None, "Read settings from this TOML file; flags and variables win over it."),
    one(Group::General, "log-level", "LEVEL", Some("info"), "debug, info, warn or error."),
    one(Group::General, "log-format", "FORMAT", Some("text"), "text for people, json for machines; written to stderr."),
    one(
        Group::Api,
        "api-ip",
        "ADDRESS",
        Some("localhost"),
        "Address of the API that JupyterHub calls; empty or * for all.",
    ),
    one(Group::Api, "api-port", "PORT", Some("8001"), "Port of the API that JupyterHub calls."),
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
    one(Group::Jwt, "jwt-jwks-file", "FILE", None, "File with such a key set."),
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
    list(Group::Etcd, "etcd-endpoints", "URLS", None, "Where etcd is, such as http://etcd-0:2379,http://etcd-1:2379."),
    one(Group::Etcd, "etcd-prefix", "TEXT", Some("pointsman"), "What the keys of our own records begin with."),
    one(Group::Etcd, "etcd-user", "NAME", None, "User to log in to etcd with."),
    one(Group::Etcd, "etcd-password-file", "FILE", None, "File with that user's password."),
    one(
        Group::Etcd,
        "etcd-ca",
        "FILE",
        Some("the system's"),
        "Certificates (PEM) that etcd's certificate must lead to.",
    ),
    one(Group::Etcd, "etcd-cert", "FILE", None, "Our certificate (PEM), where etcd asks for one."),
    one(Group::Etcd, "etcd-key", "FILE", None, "The key (PEM) of that certificate."),
    list(
        Group::Traefik,
        "traefik-api",
        "URL",
        None,
        "API of a Traefik, such as http://10.0.0.5:8099; one for each, or dns://NAME:PORT, a name that resolves to all.",
    ),
    one(Group::Traefik, "traefik-root-key", "TEXT", Some("traefik"), "Root key of Traefik's etcd provider."),
    list(
        Group::Traefik,
        "entry-point",
        "NAME",
        Some("web"),
        "Traefik's entry point for users; NAME=ADDRESS also gives its address to traefik-config.",
    ),
    one(
        Group::Traefik,
        "ip",
        "ADDRESS",
        Some("all addresses"),
        "Public address of the first entry point, for traefik-config; empty or * for all.",
    ),
    one(Group::Traefik, "port", "PORT", Some("8000"), "Public port of the first entry point, for traefik-config."),
    list(
        Group::Traefik,
        "trusted-ips",
        "RANGES",
        None,
        "Balancers in front of Traefik whose X-Forwarded headers count, such as 10.0.0.0/8, for traefik-config.",
    ),
    switch(
        Group::Traefik,
        "adopt-layout",
        "Take over Traefik's keys even if another version or other settings wrote them.",
    ),
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
        Group::Pages,
        "pages-url",
        "URL",
        None,
        "Where Traefik reaches our health and error pages, such as http://10.0.0.4:8002; without it there are none.",
    ),
    one(Group::Pages, "pages-ip", "ADDRESS", Some("as --api-ip"), "Address of those pages; empty or * for all."),
    one(Group::Pages, "pages-port", "PORT", Some("8002"), "Port of those pages."),
    one(
        Group::Pages,
        "error-target",
        "URL",
        None,
        "Who writes the error pages: URL/503 is asked when a server is unreachable, URL/404 when there is no route.",
    ),
];

/// A setting of the configurable-http-proxy that this version doesn't have.
#[derive(Debug, Clone, Copy)]
pub struct Missing {
    /// Its name there.
    pub name: &'static str,
    /// Whether a value follows it.
    pub takes_value: bool,
}

const fn value(name: &'static str) -> Missing {
    Missing { name, takes_value: true }
}

const fn bare(name: &'static str) -> Missing {
    Missing { name, takes_value: false }
}

/// The flags of the configurable-http-proxy 5.3 that are refused by name.
pub const MISSING: &[Missing] = &[
    value("socket"),
    value("api-socket"),
    value("ssl-key"),
    value("ssl-cert"),
    value("ssl-ca"),
    bare("ssl-request-cert"),
    bare("ssl-reject-unauthorized"),
    value("ssl-protocol"),
    value("ssl-ciphers"),
    bare("ssl-allow-rc4"),
    value("ssl-dhparam"),
    value("api-ssl-key"),
    value("api-ssl-cert"),
    value("api-ssl-ca"),
    bare("api-ssl-request-cert"),
    bare("api-ssl-reject-unauthorized"),
    value("client-ssl-key"),
    value("client-ssl-cert"),
    value("client-ssl-ca"),
    bare("client-ssl-request-cert"),
    bare("client-ssl-reject-unauthorized"),
    value("error-path"),
    value("redirect-port"),
    value("redirect-to"),
    value("pid-file"),
    bare("no-x-forward"),
    bare("no-prepend-path"),
    bare("no-include-prefix"),
    bare("auto-rewrite"),
    value("protocol-rewrite"),
    bare("change-origin"),
    value("custom-header"),
    bare("insecure"),
    value("metrics-ip"),
    value("metrics-port"),
    value("metrics-socket"),
    value("timeout"),
    value("proxy-timeout"),
    value("keep-alive-timeout"),
    value("storage-backend"),
];

/// The sentence that refuses a setting of [`MISSING`].
#[must_use]
pub fn missing_sentence(place: &str) -> String {
    format!(
        "{place}: configurable-http-proxy has this setting, but this version of Pointsman doesn't yet; \
         remove it (docs/configuration.md lists what there is)"
    )
}

/// The known name most like `name`, if one is like it.
#[must_use]
pub fn suggestion(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase().replace('_', "-");
    SETTINGS
        .iter()
        .map(|setting| (strsim::jaro_winkler(&name, setting.name), setting.name))
        .filter(|(likeness, _)| *likeness > 0.84)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
