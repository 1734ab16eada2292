//! From the three sources to typed values, one setting at a time. What concerns two settings is in `checks`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::settings::{Kind, Setting};
use super::{
    AccessLog, ApiConfig, AuthConfig, Config, EntryPoint, EtcdConfig, JwtConfig, Laggard, Listen, LogConfig,
    PagesConfig, PagesSource, Problems, PublicConfig, Redirect, RoutingConfig, ServerTls, ServersConfig, Sources,
    StoreConfig, TraefikConfig, Trusted,
};
use super::{ciphers, values};
use crate::config::layers::Given;
use crate::telemetry::{LogFormat, LogLevel};

/// What the keys of our records begin with, unless something else is said.
pub(super) const PREFIX: &str = "pointsman";

/// How long a Traefik may be behind unless something else is said.
const LAGGARD_GRACE_S: usize = 6;

/// How long a request of a user may take to arrive unless something else is said: an upload of an hour must pass.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7200);

/// The port of the API where nothing else is said.
const DEFAULT_API_PORT: u16 = 8001;

pub(super) fn config(sources: &Sources, problems: &mut Problems) -> Config {
    let mut read = Reader { sources, problems };
    let public = public(&mut read);
    let port = match &public.listen {
        Listen::Tcp { port, .. } if read.is_one_machine() => port.saturating_add(1),
        _ => DEFAULT_API_PORT,
    };
    let api = ApiConfig {
        listen: read.listen(["api-socket", "api-ip", "api-port"], "localhost", port),
        tls: read.server_tls(["api-ssl-cert", "api-ssl-key", "api-ssl-ca"], "api-ssl"),
    };
    let api_listen = api.listen.clone();
    Config {
        pages: pages(&mut read, &api),
        api,
        public,
        metrics: ["metrics-port", "metrics-socket"]
            .iter()
            .any(|name| read.sources.given(name).is_some())
            .then(|| read.listen(["metrics-socket", "metrics-ip", "metrics-port"], "", 0)),
        auth: AuthConfig {
            environment_token: sources.environment_token.clone(),
            token_files: read.list("token-file", values::path),
            jwt: jwt(&mut read),
        },
        store: store(&mut read, &api_listen),
        traefik: traefik(&mut read),
        routing: RoutingConfig {
            host_routing: read.switch("host-routing"),
            default_target: read.one("default-target", values::target),
            max_routes: read.or("max-routes", 50_000, values::count),
            max_table_bytes: read.or("max-table-bytes", 64 << 20, values::count),
        },
        servers: servers(&mut read),
        log: LogConfig {
            level: read.or("log-level", LogLevel::default(), FromStr::from_str),
            format: read.or("log-format", LogFormat::default(), FromStr::from_str),
        },
        shared_folders: read.switch("shared-folders"),
        pid_file: read.path("pid-file"),
        warnings: sources.warnings.clone(),
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
        debug_assert!(
            Setting::find(name).is_some_and(|s| matches!(s.kind, Kind::One | Kind::Switch)),
            "{name} is no single setting"
        );
        let given = self.sources.given(name)?;
        let text = given.values.last()?;
        parse(text).map_err(|error| self.problems.add(format!("{}: {error}", given.origin.place(name)))).ok()
    }

    fn or<T>(&mut self, name: &'static str, default: T, parse: impl Fn(&str) -> Result<T, String>) -> T {
        self.one(name, parse).unwrap_or(default)
    }

    fn list<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        debug_assert!(
            Setting::find(name).is_some_and(|s| matches!(s.kind, Kind::List | Kind::Repeated)),
            "{name} is no list"
        );
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

    fn switch(&mut self, name: &'static str) -> bool {
        self.or(name, false, values::switch)
    }

    fn milliseconds(&mut self, name: &'static str) -> Option<Duration> {
        self.one(name, values::count).map(|count| Duration::from_millis(count as u64))
    }

    /// Whether everything is on this machine: no etcd is named.
    fn is_one_machine(&self) -> bool {
        self.sources.given("etcd-endpoints").is_none() && !self.sources.file_is_lost
    }

    /// The Unix socket, or address and port.
    fn listen(&mut self, [socket, ip, port]: [&'static str; 3], default_ip: &str, default_port: u16) -> Listen {
        if let Some(path) = self.path(socket) {
            return Listen::Unix(path);
        }
        Listen::Tcp {
            ip: self.or(ip, default_ip.to_owned(), values::listen_address),
            port: self.or(port, default_port, values::port),
        }
    }

    /// What a listener needs for TLS; `None` unless it has a certificate and a key. `prefix` is that of its switches.
    fn server_tls(&mut self, [cert, key, ca]: [&'static str; 3], prefix: &str) -> Option<ServerTls> {
        let mut switch = |name: String| Setting::find(&name).is_some_and(|setting| self.switch(setting.name));
        let request_cert = switch(format!("{prefix}-request-cert"));
        // Node's default is to reject, so this changes nothing; what it needs beside it is checked elsewhere.
        switch(format!("{prefix}-reject-unauthorized"));
        let (cert, key, ca) = (self.path(cert), self.path(key), self.path(ca));
        Some(ServerTls { cert: cert?, key: key?, ca, request_cert })
    }
}

fn public(read: &mut Reader<'_>) -> PublicConfig {
    let listen = read.listen(["socket", "ip", "port"], "", 8000);
    let default_to = if let Listen::Tcp { port, .. } = listen { port } else { 443 };
    let trusted = read.list("trusted-ips", values::address_range);
    PublicConfig {
        listen,
        socket_connections_max: read.one("max-socket-connections", values::count),
        tls: read.server_tls(["ssl-cert", "ssl-key", "ssl-ca"], "ssl"),
        tls_version: read.one("ssl-protocol", values::tls_version),
        ciphers: read.or("ssl-ciphers", Vec::new(), ciphers::parse),
        redirect: read
            .one("redirect-port", values::port)
            .map(|port| Redirect { port, to: read.or("redirect-to", default_to, values::port) }),
        request_timeout: read.milliseconds("request-timeout").unwrap_or(REQUEST_TIMEOUT),
        idle_timeout: read.milliseconds("keep-alive-timeout"),
        trusted: if trusted.is_empty() && read.is_one_machine() {
            Trusted::Everybody
        } else {
            Trusted::Ranges(trusted)
        },
        proxy_protocol_ips: read.list("proxy-protocol-ips", values::address_range),
        access_log: read.one("access-log", |text| match text {
            "-" => Ok(AccessLog::Log),
            path => values::path(path).map(AccessLog::File),
        }),
        middlewares: read.list("middlewares", values::middleware),
    }
}

fn pages(read: &mut Reader<'_>, api: &ApiConfig) -> PagesConfig {
    let api_ip = if let Listen::Tcp { ip, .. } = &api.listen { ip.clone() } else { "localhost".to_owned() };
    let target = read.one("error-target", |text| values::web_url(text, "http://HUB:8081/hub/error"));
    PagesConfig {
        url: read.one("pages-url", values::pages_url),
        ip: read.or("pages-ip", api_ip, values::listen_address),
        port: read.or("pages-port", 8002, values::port),
        source: match (target, read.path("error-path")) {
            (Some(target), _) => PagesSource::Target(target),
            (None, Some(folder)) => PagesSource::Folder(folder),
            (None, None) => PagesSource::Plain,
        },
    }
}

/// Where everything is kept unless something else is said. Two proxies in one working folder have two of it, as their APIs
/// have two addresses.
fn default_folder(name: &str, api: &Listen) -> PathBuf {
    match api {
        Listen::Tcp { port: DEFAULT_API_PORT, .. } => PathBuf::from(name),
        Listen::Tcp { port, .. } => PathBuf::from(format!("{name}-{port}")),
        Listen::Unix(path) => {
            let socket = path.file_name().unwrap_or_default().to_string_lossy();
            PathBuf::from(format!("{name}-{socket}"))
        }
    }
}

fn store(read: &mut Reader<'_>, api: &Listen) -> StoreConfig {
    if read.is_one_machine() {
        return StoreConfig::OneMachine {
            folder: read.path("data-dir").unwrap_or_else(|| default_folder("pointsman-data", api)),
            traefik: read.path("traefik-binary"),
        };
    }
    StoreConfig::Etcd(EtcdConfig {
        endpoints: read.list("etcd-endpoints", values::etcd_endpoint),
        prefix: read.or("etcd-prefix", PREFIX.to_owned(), values::key_prefix),
        installation: read.one("installation", values::installation),
        snapshot_folder: read.path("snapshot-dir").unwrap_or_else(|| default_folder("pointsman-snapshot", api)),
        user: read.one("etcd-user", values::not_empty),
        password_file: read.path("etcd-password-file"),
        ca: read.path("etcd-ca"),
        cert: read.path("etcd-cert"),
        key: read.path("etcd-key"),
        allow_revision_bump: read.switch("allow-revision-bump"),
    })
}

fn servers(read: &mut Reader<'_>) -> ServersConfig {
    // Always as if given: the hub passes them, and they are what we do anyway.
    let _ = (read.switch("client-ssl-request-cert"), read.switch("client-ssl-reject-unauthorized"));
    ServersConfig {
        client_pair: read.path("client-ssl-cert").zip(read.path("client-ssl-key")),
        ca: read.path("client-ssl-ca"),
        // With etcd Traefik has an environment of its own, and this one says nothing of it.
        extra_ca: read.sources.extra_ca.clone().filter(|_| read.is_one_machine()),
        insecure: read.switch("insecure"),
        answer_timeout: read.milliseconds("proxy-timeout"),
        change_origin: read.switch("change-origin"),
        prepend_path: !read.switch("no-prepend-path"),
        include_prefix: !read.switch("no-include-prefix"),
        headers: read.list("custom-header", values::header),
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
        connections_port: read.one("connections-port", values::port),
        adopt_layout: read.switch("adopt-layout"),
        own_root_key: read.switch("own-root-key"),
        laggard: laggard(read),
        strict_versions: read.switch("strict-versions"),
    }
}

/// The shortest grace is checked even where it isn't used.
fn laggard(read: &mut Reader<'_>) -> Laggard {
    let grace = read.or("laggard-grace", LAGGARD_GRACE_S, values::grace);
    match read.or("laggard", values::Policy::Proceed, values::policy) {
        values::Policy::Proceed => Laggard::Proceed(Duration::from_secs(grace as u64)),
        values::Policy::Wait => Laggard::Wait,
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
        table_percent: read.or("jwt-table-percent", 10, values::percent),
    };
    let given = super::settings::SETTINGS
        .iter()
        .any(|setting| setting.name.starts_with("jwt-") && read.sources.given(setting.name).is_some());
    given.then_some(jwt)
}
