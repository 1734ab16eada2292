//! `Config`: what the program needs to know, checked as a whole before anything starts.
//!
//! Flags win over `POINTSMAN_*` variables, and these over the file. Knows no command line and starts nothing.

pub mod layers;
pub mod secrets;
pub mod settings;

mod checks;
mod ciphers;
mod resolve;
#[cfg(test)]
mod tests;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::route::Target;
use crate::telemetry::{LogFormat, LogLevel};
pub use layers::{Layer, Origin, Problems};
pub use resolve::check_socket_address;

/// All settings, typed and checked against each other.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where users come in.
    pub public: PublicConfig,
    /// The API that `JupyterHub` calls.
    pub api: ApiConfig,
    /// The pages that Traefik calls.
    pub pages: PagesConfig,
    /// Where the metrics are, if there are any.
    pub metrics: Option<Listen>,
    /// Who may call the API.
    pub auth: AuthConfig,
    /// The store.
    pub store: StoreConfig,
    /// The proxies.
    pub traefik: TraefikConfig,
    /// What users get.
    pub routing: RoutingConfig,
    /// How users' servers are reached.
    pub servers: ServersConfig,
    /// What is logged.
    pub log: LogConfig,
    /// Whether folders are used that other users own or may write to.
    pub shared_folders: bool,
    /// Where our process number is written.
    pub pid_file: Option<PathBuf>,
    /// What is set and has no effect here, a sentence each.
    pub warnings: Vec<String>,
}

/// Somewhere to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// On a port.
    Tcp {
        /// Name or address; "" for all interfaces.
        ip: String,
        /// Port.
        port: u16,
    },
    /// On a Unix socket.
    Unix(PathBuf),
}

/// Where users come in, at Traefik.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicConfig {
    /// The first entry point's address.
    pub listen: Listen,
    /// The most connections through Unix sockets, if it isn't as many as the limit of open files is good for.
    pub socket_connections_max: Option<usize>,
    /// TLS, if it is spoken there.
    pub tls: Option<ServerTls>,
    /// The one version of TLS that is spoken, if it is not each that is safe.
    pub tls_version: Option<TlsVersion>,
    /// Ciphers of TLS 1.2, by Go's names; empty: Traefik's own choice.
    pub ciphers: Vec<&'static str>,
    /// A port for plain http that sends users to https, if there is one.
    pub redirect: Option<Redirect>,
    /// How long a request may take to arrive, its body included.
    pub request_timeout: Duration,
    /// How long a connection may be idle, if it isn't Traefik's default.
    pub idle_timeout: Option<Duration>,
    /// Whose `X-Forwarded` headers count.
    pub trusted: Trusted,
    /// Balancers that speak the PROXY protocol.
    pub proxy_protocol_ips: Vec<String>,
    /// Where each request is logged, if anywhere.
    pub access_log: Option<AccessLog>,
    /// Middlewares that each request passes, as `name@provider`.
    pub middlewares: Vec<String>,
}

/// A port that sends users to https.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// The port that takes plain http.
    pub port: u16,
    /// The port that users are sent to.
    pub to: u16,
}

/// Whose `X-Forwarded` headers count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// Everybody's, as in the configurable-http-proxy.
    Everybody,
    /// Those of clients in these ranges.
    Ranges(Vec<String>),
}

/// Where Traefik logs requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// In its log.
    Log,
    /// In this file.
    File(PathBuf),
}

/// What a listener that speaks TLS needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificate and its chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// What the certificates of clients must lead to.
    pub ca: Option<PathBuf>,
    /// Whether clients must show one: as in the configurable-http-proxy, who is asked is also refused.
    pub request_cert: bool,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// The API's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Where it listens.
    pub listen: Listen,
    /// TLS, if it is spoken there.
    pub tls: Option<ServerTls>,
}

/// The health and error pages for Traefik.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PagesConfig {
    /// Where Traefik reaches them; without it there are none. On one machine it finds them by itself.
    pub url: Option<Url>,
    /// Name or address; "" for all interfaces.
    pub ip: String,
    /// Port.
    pub port: u16,
    /// Who writes them, if it isn't us.
    pub source: PagesSource,
}

/// Who writes error pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PagesSource {
    /// We do.
    Plain,
    /// Whoever answers at this address.
    Target(Url),
    /// They lie in this folder.
    Folder(PathBuf),
}

/// Who may call the API.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// The token of `CONFIGPROXY_AUTH_TOKEN`.
    pub environment_token: Option<SecretString>,
    /// Files with more tokens, read again at SIGHUP.
    pub token_files: Vec<PathBuf>,
    /// Signed tokens, if they are accepted.
    pub jwt: Option<JwtConfig>,
}

/// How signed tokens are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtConfig {
    /// Public keys in PEM, or HMAC secrets.
    pub key_files: Vec<PathBuf>,
    /// Where a key set is.
    pub jwks_url: Option<Url>,
    /// A key set in a file.
    pub jwks_file: Option<PathBuf>,
    /// Who must have issued them.
    pub issuer: String,
    /// For whom they must be meant: one of these.
    pub audience: Vec<String>,
    /// Which algorithms are accepted; empty: each that fits its key.
    pub algorithms: Vec<String>,
    /// The claim with the scopes.
    pub scope_claim: String,
    /// What stands before `read`, `write`, `admin` there.
    pub scope_prefix: String,
    /// The claim that limits a token to some routes.
    pub routes_claim: String,
    /// How much of the table such a token may fill, in percent.
    pub table_percent: usize,
}

/// Where routes are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// On this machine, in this folder; and Traefik is started by us.
    OneMachine {
        /// The folder for everything that is kept.
        folder: PathBuf,
        /// The Traefik to start, if one was named.
        traefik: Option<PathBuf>,
    },
    /// In etcd, from where Traefiks that others start take them.
    Etcd(EtcdConfig),
}

/// Where the store is, and how to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `scheme://host:port`, all of one scheme; at least one.
    pub endpoints: Vec<String>,
    /// What the keys of our records begin with; no slash around it.
    pub prefix: String,
    /// The name that all replicas of one installation share.
    pub installation: Option<String>,
    /// Where the last known routes are kept on this machine.
    pub snapshot_folder: PathBuf,
    /// User.
    pub user: Option<String>,
    /// The user's password; there is one exactly if there is a user.
    pub password_file: Option<PathBuf>,
    /// Whom to trust.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its key; there is one exactly if there is a certificate.
    pub key: Option<PathBuf>,
    /// Its revision may be moved on by writing.
    pub allow_revision_bump: bool,
}

/// Which Traefiks there are, and what they look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraefikConfig {
    /// Their APIs; at least one with etcd, and none without.
    pub apis: Vec<TraefikApi>,
    /// Root key of their etcd provider; no slash around it.
    pub root_key: String,
    /// Their entry points for users; at least one.
    pub entry_points: Vec<EntryPoint>,
    /// The port of `pointsman connections` beside each of them, if it runs there.
    pub connections_port: Option<u16>,
    /// Take over a tree of another layout.
    pub adopt_layout: bool,
    /// Remove keys under the root key that are none of ours.
    pub own_root_key: bool,
    /// What becomes of changes when one of them stays behind.
    pub laggard: Laggard,
    /// Refuse old versions.
    pub strict_versions: bool,
}

/// What becomes of changes when one Traefik stays behind the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Laggard {
    /// They go on without it once it has been behind for so long.
    Proceed(Duration),
    /// They wait for it.
    Wait,
}

/// One Traefik's API, or a name that resolves to several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraefikApi {
    /// This one.
    Url(Url),
    /// All that this name resolves to.
    Dns {
        /// The name.
        name: String,
        /// The port of each.
        port: u16,
    },
}

/// One of Traefik's entry points for users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPoint {
    /// Its name in Traefik.
    pub name: String,
    /// Its address, as `host:port`, where it was given.
    pub address: Option<String>,
}

/// What users get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingConfig {
    /// The first segment of a route is a host.
    pub host_routing: bool,
    /// Where `/` leads if nobody says otherwise.
    pub default_target: Option<Target>,
    /// The most routes that are accepted.
    pub max_routes: usize,
    /// The most bytes that their records may have together.
    pub max_table_bytes: usize,
}

/// How users' servers are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches of the command line, and independent")]
pub struct ServersConfig {
    /// Certificate and key that https servers are shown.
    pub client_pair: Option<(PathBuf, PathBuf)>,
    /// What the certificates of https servers must lead to, instead of the system's authorities.
    pub ca: Option<PathBuf>,
    /// More authorities, beside the system's.
    pub extra_ca: Option<PathBuf>,
    /// The certificates of https servers are not checked.
    pub insecure: bool,
    /// How long a server may take until its answer begins.
    pub answer_timeout: Option<Duration>,
    /// Servers see the host of their target.
    pub change_origin: bool,
    /// The path of a target comes before that of a request.
    pub prepend_path: bool,
    /// The path of the route stays in that of a request.
    pub include_prefix: bool,
    /// Headers that every request is given.
    pub headers: Vec<(String, String)>,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// How much.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
}

/// The three sources, each read but not yet understood.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The command line.
    pub flags: Layer,
    /// The variables.
    pub environment: Layer,
    /// The file.
    pub file: Layer,
    /// The file can't be read, so what seems to be missing may stand in it.
    pub file_is_lost: bool,
    /// The command has nothing to do with Traefik, so it need not be named.
    pub without_traefik: bool,
    /// The content of `CONFIGPROXY_AUTH_TOKEN`.
    pub environment_token: Option<SecretString>,
    /// The file that `NODE_EXTRA_CA_CERTS` names: more authorities for https servers.
    pub extra_ca: Option<PathBuf>,
    /// Variables of the configurable-http-proxy, or of Node, that have no effect here: a sentence each.
    pub warnings: Vec<String>,
}

/// Whether the files that settings name are read as part of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// They are ours: what can't be read is a problem.
    Check,
    /// They may be on another machine.
    Ignore,
}

impl Config {
    /// The settings of etcd, if that is where routes are kept.
    #[must_use]
    pub fn etcd(&self) -> Option<&EtcdConfig> {
        match &self.store {
            StoreConfig::Etcd(etcd) => Some(etcd),
            StoreConfig::OneMachine { .. } => None,
        }
    }

    /// What the keys of our records begin with, in each store.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.etcd().map_or(resolve::PREFIX, |etcd| &etcd.prefix)
    }

    /// Understands the sources, or says everything that is wrong with them at once. `problems` are those that reading
    /// the sources has already brought up.
    pub fn from_sources(sources: &Sources, files: Files, mut problems: Problems) -> Result<Self, Problems> {
        let config = resolve::config(sources, &mut problems);
        checks::together(&config, sources, &mut problems);
        if files == Files::Check {
            checks::files(&config, sources, &mut problems);
        }
        problems.or(config)
    }
}
