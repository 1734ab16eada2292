//! What is wrong although each setting by itself is right: settings that need, contradict or exclude each other.

use std::net::IpAddr;
use std::path::Path;

use secrecy::ExposeSecret;
use url::{Host, Url};

use super::secrets::{self, check_token};
use super::settings::{self, SETTINGS, Scope, TOKEN_VARIABLE};
use super::{
    Config, EtcdConfig, JwtConfig, Listen, PagesSource, Problems, PublicConfig, Sources, StoreConfig, TraefikApi,
};
use crate::route::TargetError;

pub(super) fn together(config: &Config, sources: &Sources, problems: &mut Problems) {
    let mut check = Check { sources, problems };
    match &config.store {
        StoreConfig::Etcd(etcd) => {
            if !sources.without_traefik {
                check.needed("traefik-api", "where Traefik's API is", "http://127.0.0.1:8099");
            }
            self::etcd(etcd, &mut check);
            traefik(config, etcd, &mut check);
            pages(config, &mut check);
            if config.routing.default_target.as_ref().is_some_and(|target| target.unix_path().is_some()) {
                check.wrong("default-target", TargetError::UnixSocket);
            }
        }
        StoreConfig::OneMachine { .. } => {}
    }
    scopes(config, &mut check);
    public(config, &mut check);
    servers(config, &mut check);
    listeners(config, &mut check);
    auth(config, &mut check);
}

/// The files that settings name can be read, and hold what they should.
pub(super) fn files(config: &Config, sources: &Sources, problems: &mut Problems) {
    let mut check = Check { sources, problems };
    let mut named: Vec<(&str, &Path)> = Vec::new();
    if let Some(etcd) = config.etcd() {
        let files = [("etcd-ca", &etcd.ca), ("etcd-cert", &etcd.cert), ("etcd-key", &etcd.key)];
        named.extend(files.into_iter().filter_map(|(name, path)| Some((name, path.as_deref()?))));
    }
    for (tls, [cert, key, ca]) in [
        (&config.public.tls, ["ssl-cert", "ssl-key", "ssl-ca"]),
        (&config.api.tls, ["api-ssl-cert", "api-ssl-key", "api-ssl-ca"]),
    ] {
        if let Some(tls) = tls {
            named.extend([(cert, tls.cert.as_path()), (key, tls.key.as_path())]);
            named.extend(tls.ca.as_deref().map(|path| (ca, path)));
        }
    }
    if let Some((cert, key)) = &config.servers.client_pair {
        named.extend([("client-ssl-cert", cert.as_path()), ("client-ssl-key", key.as_path())]);
    }
    named.extend(config.servers.ca.as_deref().map(|path| ("client-ssl-ca", path)));
    if let Some(jwt) = &config.auth.jwt {
        named.extend(jwt.key_files.iter().map(|path| ("jwt-key-file", path.as_path())));
        named.extend(jwt.jwks_file.iter().map(|path| ("jwt-jwks-file", path.as_path())));
    }
    for (name, path) in named {
        check.readable(name, path);
    }
    if let PagesSource::Folder(folder) = &config.pages.source
        && !folder.is_dir()
    {
        check.wrong("error-path", format_args!("{} is not a folder", folder.display()));
    }
    let password = config.etcd().and_then(|etcd| etcd.password().err());
    for secrets in [password, config.auth.tokens().err()] {
        check.problems.0.extend(secrets.into_iter().flat_map(|more| more.0));
    }
}

struct Check<'a> {
    sources: &'a Sources,
    problems: &'a mut Problems,
}

impl Check<'_> {
    fn needed(&mut self, name: &str, what: &str, example: &str) {
        if self.sources.given(name).is_none() && !self.sources.file_is_lost {
            let variable = settings::variable(name);
            self.problems
                .add(format!("--{name} is missing: say {what}, as --{name} {example} or {variable}={example}"));
        }
    }

    fn wrong(&mut self, name: &str, what: impl std::fmt::Display) {
        self.problems.add(format!("{}: {what}", self.sources.place(name)));
    }

    /// Two settings of which each is useless alone.
    fn pair(&mut self, one: (&str, bool), other: (&str, bool)) {
        for ((name, given), (missing, there)) in [(one, other), (other, one)] {
            if given && !there {
                self.wrong(name, format_args!("needs --{missing} beside it"));
            }
        }
    }

    /// Certificate and key of a listener go together, and what concerns clients' certificates needs both.
    fn server_tls(&mut self, prefix: &str, complete: bool) {
        let name = |rest: &str| format!("{prefix}-{rest}");
        let given = |rest: &str| self.sources.given(&name(rest)).is_some();
        let (cert, key, ca) = (given("cert"), given("key"), given("ca"));
        let (asks, refuses) = (given("request-cert"), given("reject-unauthorized"));
        self.pair((&name("cert"), cert), (&name("key"), key));
        for (rest, is_given) in [("ca", ca), ("request-cert", asks), ("reject-unauthorized", refuses)] {
            if is_given && !complete && !cert && !key {
                self.wrong(&name(rest), format_args!("needs --{prefix}-key and --{prefix}-cert beside it"));
            }
        }
        if asks && complete && !ca {
            self.wrong(&name("request-cert"), format_args!("needs --{prefix}-ca beside it"));
        }
        if refuses && !asks {
            self.wrong(&name("reject-unauthorized"), format_args!("needs --{prefix}-request-cert beside it"));
        }
    }

    fn readable(&mut self, name: &str, path: &Path) {
        if let Err(error) = secrets::read_bytes(path) {
            self.wrong(name, format_args!("{} {error}", path.display()));
        }
    }
}

fn etcd(etcd: &EtcdConfig, check: &mut Check<'_>) {
    check.pair(("etcd-user", etcd.user.is_some()), ("etcd-password-file", etcd.password_file.is_some()));
    check.pair(("etcd-cert", etcd.cert.is_some()), ("etcd-key", etcd.key.is_some()));
    let plain = etcd.endpoints.iter().filter(|endpoint| endpoint.starts_with("http://")).count();
    if plain > 0 && plain < etcd.endpoints.len() {
        check.wrong("etcd-endpoints", "some begin with http:// and some with https://; all must be of one kind");
    } else if plain > 0 {
        for (name, path) in [("etcd-ca", &etcd.ca), ("etcd-cert", &etcd.cert)] {
            if path.is_some() {
                check.wrong(name, "has no effect with http:// endpoints; write https:// in --etcd-endpoints");
            }
        }
    }
}

/// Settings that have a meaning with the other store only.
fn scopes(config: &Config, check: &mut Check<'_>) {
    let (idle, why) = match &config.store {
        StoreConfig::OneMachine { .. } if check.sources.file_is_lost => return,
        StoreConfig::OneMachine { .. } => {
            (Scope::Etcd, "only has a meaning with etcd; add --etcd-endpoints, or remove it")
        }
        StoreConfig::Etcd(_) => {
            (Scope::OneMachine, "only has a meaning without etcd, where Pointsman starts Traefik itself; remove it")
        }
    };
    for setting in SETTINGS.iter().filter(|setting| setting.scope == idle) {
        if check.sources.given(setting.name).is_some() {
            check.wrong(setting.name, why);
        }
    }
}

/// What concerns the entry point of users.
fn public(config: &Config, check: &mut Check<'_>) {
    let public = &config.public;
    check.server_tls("ssl", public.tls.is_some());
    check.server_tls("api-ssl", config.api.tls.is_some());
    if public.tls.is_none() {
        for name in ["ssl-ciphers", "redirect-port"] {
            if check.sources.given(name).is_some() {
                check.wrong(name, "needs --ssl-key and --ssl-cert beside it");
            }
        }
    }
    if check.sources.given("redirect-to").is_some() && public.redirect.is_none() {
        check.wrong("redirect-to", "needs --redirect-port beside it");
    }
    for (socket, others) in [
        ("socket", ["ip", "port"]),
        ("api-socket", ["api-ip", "api-port"]),
        ("metrics-socket", ["metrics-ip", "metrics-port"]),
    ] {
        for other in others {
            if check.sources.given(socket).is_some() && check.sources.given(other).is_some() {
                check.wrong(socket, format_args!("and --{other} exclude each other; keep one"));
            }
        }
    }
    if check.sources.given("metrics-ip").is_some() && config.metrics.is_none() {
        check.wrong("metrics-ip", "needs --metrics-port beside it");
    }
}

/// What concerns the servers behind Traefik, and pages for their failures.
fn servers(config: &Config, check: &mut Check<'_>) {
    let given = |name| check.sources.given(name).is_some();
    let (cert, key) = (given("client-ssl-cert"), given("client-ssl-key"));
    let both = given("error-target") && given("error-path");
    check.pair(("client-ssl-cert", cert), ("client-ssl-key", key));
    if config.servers.insecure && config.servers.ca.is_some() {
        check.wrong(
            "insecure",
            "and --client-ssl-ca exclude each other: with it no certificate would be checked; keep one",
        );
    }
    if both {
        check.wrong("error-path", "and --error-target exclude each other; keep one");
    }
}

fn traefik(config: &Config, etcd: &EtcdConfig, check: &mut Check<'_>) {
    let (prefix, root_key) = (&etcd.prefix, &config.traefik.root_key);
    if prefix.starts_with(root_key.as_str()) || root_key.starts_with(prefix.as_str()) {
        check.wrong(
            "traefik-root-key",
            format_args!(
                "'{root_key}' and the etcd-prefix '{prefix}' begin with one another; Traefik reads every key that \
                 begins with its root key, so choose texts that differ, such as 'traefik' and 'pointsman'"
            ),
        );
    }
    let mut names: Vec<String> = config.traefik.entry_points.iter().map(|e| e.name.to_lowercase()).collect();
    names.sort();
    if let Some([twice, ..]) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        check.wrong("entry-point", format_args!("'{twice}' is named twice (upper and lower case count as one)"));
    }
    for (i, api) in config.traefik.apis.iter().enumerate() {
        if config.traefik.apis[..i].contains(api) {
            check.wrong("traefik-api", format_args!("{} is named twice", api_text(api)));
        }
    }
}

fn pages(config: &Config, check: &mut Check<'_>) {
    let Some(url) = &config.pages.url else {
        if config.pages.source != PagesSource::Plain {
            check.wrong(
                if matches!(config.pages.source, PagesSource::Folder(_)) { "error-path" } else { "error-target" },
                "needs --pages-url beside it: Traefik gets its error pages from us, so say where it reaches us, \
                 as --pages-url http://HOST:8002",
            );
        }
        return;
    };
    let remote = config.traefik.apis.iter().find(|api| match api {
        TraefikApi::Url(api) => !is_loopback_url(api),
        TraefikApi::Dns { .. } => true,
    });
    if let Some(remote) = remote.filter(|_| is_loopback_url(url)) {
        check.wrong(
            "pages-url",
            format_args!(
                "{} is an address of this machine only, and the Traefik at {} is elsewhere; give an address of ours \
                 that it can reach",
                url.as_str().trim_end_matches('/'),
                api_text(remote)
            ),
        );
    }
    let given_address = check.sources.given("pages-ip").is_some();
    if !is_loopback_url(url) && is_loopback_name(&config.pages.ip) && !given_address {
        check.wrong(
            "pages-url",
            format_args!(
                "says that Traefik reaches us at {}, but our pages listen on this machine's loopback only; \
                 add --pages-ip '*', or an address",
                url.host_str().unwrap_or_default()
            ),
        );
    }
}

/// Two of our own listeners, or one of ours and Traefik's, at one address.
fn listeners(config: &Config, check: &mut Check<'_>) {
    let on = |name, listen: &Listen| match listen {
        Listen::Tcp { ip, port } => Some((name, ip.clone(), *port)),
        Listen::Unix(_) => None,
    };
    let mut used: Vec<(&str, String, u16)> = Vec::new();
    used.extend(on("api-port", &config.api.listen));
    used.extend(config.metrics.as_ref().and_then(|listen| on("metrics-port", listen)));
    if config.etcd().is_none() {
        let PublicConfig { listen, redirect, .. } = &config.public;
        used.extend(on("port", listen));
        used.extend(redirect.map(|redirect| ("redirect-port", String::new(), redirect.port)));
    } else if config.pages.url.is_some() {
        used.push(("pages-port", config.pages.ip.clone(), config.pages.port));
    }
    let overlap = |a: &str, b: &str| a == b || a.is_empty() || b.is_empty();
    for (i, (name, ip, port)) in used.iter().enumerate() {
        for (other, other_ip, other_port) in &used[..i] {
            if port == other_port && overlap(ip, other_ip) {
                check.wrong(name, format_args!("{port} is taken by --{other} too; give each its own"));
            }
        }
    }
}

fn auth(config: &Config, check: &mut Check<'_>) {
    if let Some(Err(error)) = config.auth.environment_token.as_ref().map(|token| check_token(token.expose_secret())) {
        check.problems.add(format!("{TOKEN_VARIABLE}: {error}"));
    }
    if let Some(jwt) = &config.auth.jwt {
        signed_tokens(jwt, check);
    }
}

fn signed_tokens(jwt: &JwtConfig, check: &mut Check<'_>) {
    let first = SETTINGS
        .iter()
        .map(|setting| setting.name)
        .find(|name| name.starts_with("jwt-") && check.sources.given(name).is_some())
        .unwrap_or("jwt-key-file");
    if jwt.key_files.is_empty() && jwt.jwks_url.is_none() && jwt.jwks_file.is_none() {
        check.wrong(first, "signed tokens need a key: add --jwt-key-file, --jwt-jwks-url or --jwt-jwks-file");
    }
    if jwt.issuer.is_empty() {
        check.wrong(first, "signed tokens need --jwt-issuer: else tokens of anybody who shares the key would count");
    }
    if jwt.audience.is_empty() {
        check.wrong(first, "signed tokens need --jwt-audience: else tokens meant for other services would count");
    }
    if jwt.jwks_url.is_some() && jwt.jwks_file.is_some() {
        check.wrong("jwt-jwks-file", "and --jwt-jwks-url exclude each other; keep one");
    }
}

fn api_text(api: &TraefikApi) -> String {
    match api {
        TraefikApi::Url(url) => url.as_str().trim_end_matches('/').to_owned(),
        TraefikApi::Dns { name, port } => format!("dns://{name}:{port}"),
    }
}

fn is_loopback_url(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => is_loopback_name(name),
        None => false,
    }
}

fn is_loopback_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
