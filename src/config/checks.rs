//! What is wrong although each setting by itself is right: settings that need, contradict or exclude each other.

use std::net::IpAddr;
use std::path::Path;

use secrecy::ExposeSecret;
use url::{Host, Url};

use super::secrets::{self, check_token};
use super::settings::{self, TOKEN_VARIABLE};
use super::{Config, EtcdConfig, JwtConfig, Problems, Sources, TraefikApi};

pub(super) fn together(config: &Config, sources: &Sources, problems: &mut Problems) {
    let mut check = Check { sources, problems };
    check.needed("etcd-endpoints", "where etcd is", "http://127.0.0.1:2379");
    check.needed("traefik-api", "where Traefik's API is", "http://127.0.0.1:8099");
    etcd(&config.etcd, &mut check);
    traefik(config, &mut check);
    pages(config, &mut check);
    ports(config, &mut check);
    auth(config, &mut check);
}

/// The files that settings name can be read, and hold what they should.
pub(super) fn files(config: &Config, sources: &Sources, problems: &mut Problems) {
    let mut check = Check { sources, problems };
    let etcd = &config.etcd;
    for (name, path) in [("etcd-ca", &etcd.ca), ("etcd-cert", &etcd.cert), ("etcd-key", &etcd.key)] {
        if let Some(path) = path {
            check.readable(name, path);
        }
    }
    if let Some(jwt) = &config.auth.jwt {
        jwt.key_files.iter().for_each(|path| check.readable("jwt-key-file", path));
        jwt.jwks_file.iter().for_each(|path| check.readable("jwt-jwks-file", path));
    }
    for secrets in [etcd.password().err(), config.auth.tokens().err()] {
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

fn traefik(config: &Config, check: &mut Check<'_>) {
    let (prefix, root_key) = (&config.etcd.prefix, &config.traefik.root_key);
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
        if config.routing.error_target.is_some() {
            check.wrong(
                "error-target",
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

fn ports(config: &Config, check: &mut Check<'_>) {
    let (api, pages) = (&config.api, &config.pages);
    let overlap = |a: &str, b: &str| a == b || a.is_empty() || b.is_empty();
    if pages.url.is_some() && api.port == pages.port && overlap(&api.ip, &pages.ip) {
        check.wrong("pages-port", format_args!("{} is the API's port too; give each its own", api.port));
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
    let first = settings::SETTINGS
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
