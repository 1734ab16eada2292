//! From our configuration to what each room wants to know.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::{info, warn};

use crate::activity;
use crate::api::ApiSettings;
use crate::api::auth::{AuthSettings, JwtSettings};
use crate::api::listen::tls::{Protocols, Tls, TlsError, TlsSettings};
use crate::api::metrics::{Ask, Sockets, Traefiks};
use crate::api::pages::{PagesSettings, PagesTls, Sentinel};
use crate::config::{
    self, AccessLog, Config, EtcdConfig, Listen, PagesSource, Problems, Redirect, ServerTls, TlsVersion, TraefikApi,
    Trusted,
};
use crate::control::{self, Room};
use crate::forward::{self, Forwards};
use crate::ownership;
use crate::route::installation::Installation;
use crate::route::record::RecordKeys;
use crate::route::{Target, Weight};
use crate::snapshot;
use crate::store::etcd::EtcdSettings;
use crate::traefik::bucket::Sizes;
use crate::traefik::dynamic_file::{self, DynamicFile, ServersTransport};
use crate::traefik::fleet::{Fleet, Laggards, Source};
use crate::traefik::folder::Pair;
use crate::traefik::marker::LAYOUT;
use crate::traefik::rule::Space;
use crate::traefik::{fixed, static_config};

/// What shapes the tree of Traefiks that read from etcd.
pub(super) fn tree_settings(config: &Config) -> fixed::Settings {
    fixed::Settings {
        root_key: config.traefik.root_key.clone(),
        entry_points: config.traefik.entry_points.iter().map(|entry_point| entry_point.name.clone()).collect(),
        space: if config.routing.host_routing { Space::Hosts } else { Space::Paths },
        pages_url: config.pages.url.clone(),
        pages_get_address: matches!(config.pages.source, PagesSource::Target(_)),
        middlewares: config.public.middlewares.clone(),
        servers: fixed::Servers {
            headers: config.servers.headers.clone(),
            change_origin: config.servers.change_origin,
            prepend_path: config.servers.prepend_path,
            include_prefix: config.servers.include_prefix,
            transport: transport(config, |path| path.display().to_string()).map(|transport| fixed::Transport {
                name: dynamic_file::TRANSPORT.to_owned(),
                plain_too: transport.answer_timeout_ms.is_some(),
            }),
            unix_sockets: None,
        },
    }
}

/// How much the table takes.
pub(super) fn room(config: &Config) -> Room {
    Room {
        max: Weight { routes: config.routing.max_routes, bytes: config.routing.max_table_bytes },
        share_percent: config.auth.jwt.as_ref().map_or(100, |jwt| jwt.table_percent),
    }
}

pub(super) fn control_settings(config: &Config, tree: fixed::Settings) -> control::Settings {
    let is_one_machine = config.etcd().is_none();
    control::Settings {
        records: RecordKeys::new(config.prefix()),
        tree,
        sizes: Sizes::default(),
        room: room(config),
        // Nobody else writes to a store of our own.
        adopt_layout: config.traefik.adopt_layout || is_one_machine,
        own_root_key: config.traefik.own_root_key || is_one_machine,
        allow_revision_bump: config.etcd().is_some_and(|etcd| etcd.allow_revision_bump),
        deliver: is_one_machine,
        snapshots: config.etcd().map(|etcd| {
            let owner = snapshot::Owner {
                prefix: RecordKeys::new(config.prefix()).prefix().to_owned(),
                installation: etcd.installation.clone(),
            };
            snapshot::Folder::new(etcd.snapshot_folder.clone(), owner)
        }),
        installation: config.etcd().and_then(|etcd| etcd.installation.clone()),
        layout: LAYOUT,
    }
}

/// Whether the folder of a setting may be used: other users must not be able to change what is in it.
pub(super) fn is_ours_alone(config: &Config, setting: &str, folder: &Path) -> Result<(), String> {
    if config.shared_folders {
        return Ok(());
    }
    ownership::check(folder).map_err(|error| format!("--{setting}: {error}"))
}

/// Whose routes in etcd we use; a folder is nobody else's.
pub(super) fn owner(config: &Config) -> Option<Installation> {
    let root_key = config.traefik.root_key.clone();
    config.etcd().map(|etcd| Installation { name: etcd.installation.clone(), root_key })
}

/// The byte forwarder, as Traefik's tree sees it.
#[derive(Debug, Clone)]
pub(super) struct Forwarded(pub(super) Forwards);

impl fixed::UnixSockets for Forwarded {
    fn address(&self, socket: &Path) -> Option<SocketAddr> {
        let address = self.0.address(socket);
        if let Err(error) = &address {
            warn!(%error, "The socket {} can't be reached by TCP: {error}", socket.display());
        }
        address.ok()
    }
}

/// The connections through Unix sockets, for /metrics.
pub(super) fn sockets(counts: Arc<forward::Counts>) -> Ask<Sockets> {
    Box::new(move || {
        let forward::Connections { open, max, limit_reached } = counts.read();
        Sockets { open, max, limit_reached }
    })
}

/// What Traefik's entry points for users are like.
pub(super) fn public_entry_points(config: &Config) -> static_config::Public {
    let public = &config.public;
    static_config::Public {
        tls: public.tls.is_some(),
        redirect: public.redirect.map(|Redirect { port, to }| (format!(":{port}"), to)),
        trusted: match &public.trusted {
            Trusted::Everybody => static_config::Trusted::Everybody,
            Trusted::Ranges(ranges) => static_config::Trusted::Ranges(ranges.clone()),
        },
        proxy_protocol_ips: public.proxy_protocol_ips.clone(),
        request_timeout: public.request_timeout,
        idle_timeout: public.idle_timeout,
        drop_alias_headers: vouches_for_headers(config),
        access_log: public.access_log.as_ref().map(|log| match log {
            AccessLog::Log => static_config::AccessLog::Log,
            AccessLog::File(path) => static_config::AccessLog::File(absolute(path)),
        }),
    }
}

/// Whether servers are promised headers that no client can set: the administrator's own, those of the administrator's
/// middlewares, or the address and scheme that only named balancers may say.
pub(super) fn vouches_for_headers(config: &Config) -> bool {
    let names_balancers = matches!(&config.public.trusted, Trusted::Ranges(ranges) if !ranges.is_empty());
    !config.servers.headers.is_empty() || !config.public.middlewares.is_empty() || names_balancers
}

/// What Traefik's file provider is given, with this certificate for users. `place` says how Traefik sees a file.
pub(super) fn dynamic_file(config: &Config, pair: &Pair, place: impl Fn(&Path) -> String + Copy) -> DynamicFile {
    let public = &config.public;
    let clients = public.tls.as_ref().filter(|tls| tls.request_cert);
    DynamicFile {
        certificate: (place(&pair.certificate), place(&pair.key)),
        tls: dynamic_file::Tls {
            version: public.tls_version.map(tls_version),
            ciphers: public.ciphers.clone(),
            clients: clients.map(|tls| dynamic_file::Clients { ca: tls.ca.as_deref().map(place), required: true }),
        },
        transport: transport(config, place),
        own: None,
    }
}

/// How servers are reached, where it isn't as Traefik does it by itself.
fn transport(config: &Config, place: impl Fn(&Path) -> String + Copy) -> Option<ServersTransport> {
    let servers = &config.servers;
    let ca = match (&servers.ca, &servers.extra_ca) {
        (Some(ca), _) => vec![place(ca)],
        // More authorities beside the system's: Traefik has only these or those, so both are named.
        (None, Some(extra)) => SYSTEM_CA
            .iter()
            .map(Path::new)
            .filter(|path| path.is_file())
            .take(1)
            .chain([extra.as_path()])
            .map(place)
            .collect(),
        (None, None) => Vec::new(),
    };
    let transport = ServersTransport {
        ca,
        pair: servers.client_pair.as_ref().map(|(certificate, key)| (place(certificate), place(key))),
        insecure: servers.insecure,
        version: config.public.tls_version.map(tls_version),
        answer_timeout_ms: servers.answer_timeout.map(|timeout| timeout.as_millis()),
    };
    (transport != ServersTransport::default()).then_some(transport)
}

/// A version of TLS, as Traefik names it.
fn tls_version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::Tls12 => "VersionTLS12",
        TlsVersion::Tls13 => "VersionTLS13",
    }
}

/// Whether these settings need a file that Traefik reads beside its routes.
pub(super) fn needs_dynamic_file(config: &Config) -> bool {
    let public = &config.public;
    public.tls.is_some() || transport(config, |path| path.display().to_string()).is_some()
}

/// Where distributions keep the certificates of all authorities in one file.
const SYSTEM_CA: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A path as every process sees it.
pub(super) fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Where error pages come from.
pub(super) fn pages_settings(config: &Config) -> PagesSettings {
    let (error_target, error_path) = match &config.pages.source {
        PagesSource::Target(url) => (Some(url.clone()), None),
        PagesSource::Folder(folder) => (None, Some(folder.clone())),
        PagesSource::Plain => (None, None),
    };
    let (cert, key) = config.servers.client_pair.clone().unzip();
    PagesSettings { error_target, error_path, tls: PagesTls { ca: config.servers.ca.clone(), cert, key } }
}

/// Where to listen, as Traefik writes it.
pub(super) fn address(listen: &Listen) -> String {
    match listen {
        Listen::Tcp { ip, port } if ip.contains(':') => format!("[{ip}]:{port}"),
        Listen::Tcp { ip, port } => format!("{ip}:{port}"),
        Listen::Unix(path) => path.display().to_string(),
    }
}

/// TLS for the API, read now.
pub(super) fn api_tls(config: &Config) -> Result<Option<Tls>, TlsError> {
    let Some(ServerTls { cert, key, ca, request_cert }) = config.api.tls.clone() else { return Ok(None) };
    let protocols = match config.public.tls_version {
        None => Protocols::Safe,
        Some(TlsVersion::Tls12) => Protocols::Tls12,
        Some(TlsVersion::Tls13) => Protocols::Tls13,
    };
    Tls::new(TlsSettings { ca, request_cert, protocols, ..TlsSettings::new("--api-ssl", key, cert) }).map(Some)
}

/// Where every Traefik's API is.
pub(super) fn traefik_sources(config: &Config) -> Vec<Source> {
    let source = |api: &TraefikApi| match api {
        TraefikApi::Url(url) => Source::Url(url.clone()),
        TraefikApi::Dns { name, port } => Source::Dns { name: name.clone(), port: *port },
    };
    config.traefik.apis.iter().map(source).collect()
}

/// How it is found out when routes were last used.
pub(super) fn activity_settings(config: &Config, tree: &fixed::Settings) -> activity::Settings {
    let sockets = tree.servers.unix_sockets.clone();
    let forwarder = move |target: &Target| sockets.as_ref()?.address(target.unix_path()?);
    let settings = activity::Settings::new(config.prefix(), tree.space);
    let settings = if config.etcd().is_none() { settings.alone() } else { settings };
    activity::Settings {
        connections_port: config.traefik.connections_port,
        // Whoever stands beside Traefik takes the tokens that we take.
        connections_token: config.auth.tokens().ok().and_then(|tokens| tokens.into_iter().next()),
        forwarders: Arc::new(forwarder),
        ..settings
    }
}

pub(super) fn api_settings(config: &Config) -> ApiSettings {
    ApiSettings {
        host_routing: config.routing.host_routing,
        unix_targets: config.etcd().is_none(),
        ..ApiSettings::default()
    }
}

/// Reads the files with tokens and keys, now.
pub(super) fn auth_settings(config: &Config) -> Result<AuthSettings, Problems> {
    let jwt = config.auth.jwt.as_ref().map(|jwt| JwtSettings {
        key_files: jwt.key_files.clone(),
        jwks_file: jwt.jwks_file.clone(),
        jwks_url: jwt.jwks_url.clone(),
        issuer: jwt.issuer.clone(),
        scope_claim: jwt.scope_claim.clone(),
        audiences: jwt.audience.clone(),
        algorithms: jwt.algorithms.clone(),
        scope_prefix: jwt.scope_prefix.clone(),
        routes_claim: jwt.routes_claim.clone(),
    });
    Ok(AuthSettings { tokens: config.auth.tokens()?, jwt })
}

/// Where etcd is, and who we are to it.
pub(super) fn etcd_settings(etcd: &EtcdConfig) -> EtcdSettings {
    let EtcdConfig { endpoints, user, password_file, ca, cert, key, .. } = etcd.clone();
    EtcdSettings { user, password_file, ca, cert, key, ..EtcdSettings::new(endpoints) }
}

/// What becomes of changes when a Traefik lags. Without a way to its probe nobody takes it out of service, so it is waited
/// for.
pub(super) fn laggards(config: &Config) -> Laggards {
    match (config.traefik.laggard, &config.pages.url) {
        (config::Laggard::Proceed(grace), Some(_)) => Laggards::Proceed(grace),
        (config::Laggard::Proceed(_), None) => {
            info!(
                "Changes wait for every Traefik, as its readiness can't be withdrawn; set --pages-url for --laggard proceed"
            );
            Laggards::Wait
        }
        (config::Laggard::Wait, _) => Laggards::Wait,
    }
}

/// Answers the probes of Traefiks by what the fleet knows.
pub(super) struct FleetSentinel(pub(super) Arc<Fleet>);

#[async_trait]
impl Sentinel for FleetSentinel {
    async fn withdrawn(&self, revision: &str) -> Option<String> {
        self.0.withdrawn(revision).await
    }
}

/// What is told of Traefiks at /metrics.
pub(super) fn traefiks(fleet: &Fleet) -> Traefiks {
    let laggards = fleet.laggards();
    let mut told = Traefiks { went_on: fleet.went_on(), ..Traefiks::default() };
    for (url, seen) in &*fleet.watch().borrow() {
        *told.by_status.entry(seen.status.word()).or_default() += 1;
        told.lags.insert(url.clone(), laggards.get(url).map_or(Duration::ZERO, |laggard| laggard.lag));
        told.router_errors.extend(seen.router_errors.map(|errors| (url.clone(), errors)));
    }
    told
}
