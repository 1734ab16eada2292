//! From the three sources to typed values, one setting at a time. What concerns two settings is in `checks`.

use std::path::PathBuf;
use std::str::FromStr;

use super::settings::{Kind, Setting};
use super::values;
use super::{
    ApiConfig, AuthConfig, Config, EntryPoint, EtcdConfig, JwtConfig, LogConfig, PagesConfig, Problems, PublicConfig,
    RoutingConfig, Sources, TraefikConfig,
};
use crate::config::layers::Given;
use crate::telemetry::{LogFormat, LogLevel};

pub(super) fn config(sources: &Sources, problems: &mut Problems) -> Config {
    let mut read = Reader { sources, problems };
    let api = ApiConfig {
        ip: read.or("api-ip", "localhost".to_owned(), values::listen_address),
        port: read.or("api-port", 8001, values::port),
    };
    Config {
        public: PublicConfig {
            ip: read.or("ip", String::new(), values::listen_address),
            port: read.or("port", 8000, values::port),
        },
        pages: PagesConfig {
            url: read.one("pages-url", values::pages_url),
            ip: read.or("pages-ip", api.ip.clone(), values::listen_address),
            port: read.or("pages-port", 8002, values::port),
        },
        api,
        auth: AuthConfig {
            environment_token: sources.environment_token.clone(),
            token_files: read.list("token-file", values::path),
            jwt: jwt(&mut read),
        },
        etcd: etcd(&mut read),
        traefik: traefik(&mut read),
        routing: RoutingConfig {
            host_routing: read.or("host-routing", false, values::switch),
            default_target: read.one("default-target", values::target),
            error_target: read.one("error-target", |text| values::web_url(text, "http://HUB:8081/hub/error")),
            max_routes: read.or("max-routes", 50_000, values::count),
        },
        log: LogConfig {
            level: read.or("log-level", LogLevel::default(), FromStr::from_str),
            format: read.or("log-format", LogFormat::default(), FromStr::from_str),
        },
    }
}

/// Whether a text is an address that Traefik can listen on.
pub fn check_socket_address(text: &str) -> Result<String, String> {
    values::socket_address(text)
}

impl Sources {
    /// What the strongest source says about a setting.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<&Given> {
        [&self.flags, &self.environment, &self.file].into_iter().find_map(|layer| layer.get(name))
    }

    /// Where a setting stands, or what its flag would be.
    #[must_use]
    pub fn place(&self, name: &str) -> String {
        self.given(name).map_or_else(|| format!("--{name}"), |given| given.origin.place(name))
    }
}

struct Reader<'a> {
    sources: &'a Sources,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn one<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        debug_assert!(Setting::find(name).is_some_and(|s| s.kind != Kind::List), "{name} is no single setting");
        let given = self.sources.given(name)?;
        let text = given.values.last()?;
        parse(text).map_err(|error| self.problems.add(format!("{}: {error}", given.origin.place(name)))).ok()
    }

    fn or<T>(&mut self, name: &'static str, default: T, parse: impl Fn(&str) -> Result<T, String>) -> T {
        self.one(name, parse).unwrap_or(default)
    }

    fn list<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        debug_assert!(Setting::find(name).is_some_and(|s| s.kind == Kind::List), "{name} is no list");
        let Some(given) = self.sources.given(name) else { return Vec::new() };
        if given.values.is_empty() {
            self.problems.add(format!("{}: is empty", given.origin.place(name)));
        }
        let mut found = Vec::new();
        for text in &given.values {
            match parse(text) {
                Ok(value) => found.push(value),
                Err(error) => self.problems.add(format!("{}: {error}", given.origin.place(name))),
            }
        }
        found
    }

    fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        self.one(name, values::path)
    }
}

fn etcd(read: &mut Reader<'_>) -> EtcdConfig {
    EtcdConfig {
        endpoints: read.list("etcd-endpoints", values::etcd_endpoint),
        prefix: read.or("etcd-prefix", "pointsman".to_owned(), values::key_prefix),
        user: read.one("etcd-user", values::not_empty),
        password_file: read.path("etcd-password-file"),
        ca: read.path("etcd-ca"),
        cert: read.path("etcd-cert"),
        key: read.path("etcd-key"),
    }
}

fn traefik(read: &mut Reader<'_>) -> TraefikConfig {
    let mut entry_points = read.list("entry-point", values::entry_point);
    if entry_points.is_empty() {
        entry_points.push(EntryPoint { name: "web".to_owned(), address: None });
    }
    TraefikConfig {
        apis: read.list("traefik-api", values::traefik_api),
        root_key: read.or("traefik-root-key", "traefik".to_owned(), values::key_prefix),
        entry_points,
        trusted_ips: read.list("trusted-ips", values::address_range),
        adopt_layout: read.or("adopt-layout", false, values::switch),
        strict_versions: read.or("strict-versions", false, values::switch),
    }
}

fn jwt(read: &mut Reader<'_>) -> Option<JwtConfig> {
    let jwt = JwtConfig {
        key_files: read.list("jwt-key-file", values::path),
        jwks_url: read.one("jwt-jwks-url", |text| values::web_url(text, "https://HOST/jwks.json")),
        jwks_file: read.path("jwt-jwks-file"),
        issuer: read.or("jwt-issuer", String::new(), values::not_empty),
        audience: read.list("jwt-audience", values::not_empty),
        algorithms: read.list("jwt-algorithms", values::algorithm),
        scope_claim: read.or("jwt-scope-claim", "scope".to_owned(), values::not_empty),
        scope_prefix: read.or("jwt-scope-prefix", String::new(), |text| Ok(text.to_owned())),
        routes_claim: read.or("jwt-routes-claim", "routes".to_owned(), values::not_empty),
    };
    let given = super::settings::SETTINGS
        .iter()
        .any(|setting| setting.name.starts_with("jwt-") && read.sources.given(setting.name).is_some());
    given.then_some(jwt)
}
