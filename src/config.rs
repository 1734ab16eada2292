//! `Config`: what the program needs to know, checked as a whole before anything starts.
//!
//! Flags win over `POINTSMAN_*` variables, and these over the file. Knows no command line and starts nothing.

pub mod layers;
pub mod secrets;
pub mod settings;

mod checks;
mod resolve;
#[cfg(test)]
mod tests;
mod values;

use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

use crate::route::Target;
use crate::telemetry::{LogFormat, LogLevel};
pub use layers::{Layer, Origin, Problems};
pub use resolve::check_socket_address;

/// All settings, typed and checked against each other.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where users reach Traefik; only `traefik-config` needs it.
    pub public: PublicConfig,
    /// The API that `JupyterHub` calls.
    pub api: ApiConfig,
    /// The pages that Traefik calls.
    pub pages: PagesConfig,
    /// Who may call the API.
    pub auth: AuthConfig,
    /// The store.
    pub etcd: EtcdConfig,
    /// The proxies.
    pub traefik: TraefikConfig,
    /// What users get.
    pub routing: RoutingConfig,
    /// What is logged.
    pub log: LogConfig,
}

/// The first entry point's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicConfig {
    /// Name or address; "" for all interfaces.
    pub ip: String,
    /// Port.
    pub port: u16,
}

/// The API's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Name or address; "" for all interfaces.
    pub ip: String,
    /// Port.
    pub port: u16,
}

/// The health and error pages for Traefik.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PagesConfig {
    /// Where Traefik reaches them; without it there are none.
    pub url: Option<Url>,
    /// Name or address; "" for all interfaces.
    pub ip: String,
    /// Port.
    pub port: u16,
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
}

/// Where the store is, and how to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `scheme://host:port`, all of one scheme; at least one.
    pub endpoints: Vec<String>,
    /// What the keys of our records begin with; no slash around it.
    pub prefix: String,
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
}

/// Which Traefiks there are, and what they look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraefikConfig {
    /// Their APIs; at least one.
    pub apis: Vec<TraefikApi>,
    /// Root key of their etcd provider; no slash around it.
    pub root_key: String,
    /// Their entry points for users; at least one.
    pub entry_points: Vec<EntryPoint>,
    /// Balancers in front of them.
    pub trusted_ips: Vec<String>,
    /// Take over a tree of another layout.
    pub adopt_layout: bool,
    /// Refuse old versions.
    pub strict_versions: bool,
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
    /// Who writes the error pages.
    pub error_target: Option<Url>,
    /// The most routes that are accepted.
    pub max_routes: usize,
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
    /// The content of `CONFIGPROXY_AUTH_TOKEN`.
    pub environment_token: Option<SecretString>,
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
