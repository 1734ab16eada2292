//! From our configuration to what each room wants to know.

use crate::activity;
use crate::api::ApiSettings;
use crate::api::auth::{AuthSettings, JwtSettings};
use crate::config::{Config, EtcdConfig, Problems, TraefikApi};
use crate::control;
use crate::route::record::RecordKeys;
use crate::store::etcd::EtcdSettings;
use crate::traefik::bucket::Sizes;
use crate::traefik::client::{ClientError, TraefikClient};
use crate::traefik::fixed;
use crate::traefik::fleet::Source;
use crate::traefik::rule::Space;

/// What shapes Traefik's tree.
pub(super) fn tree_settings(config: &Config) -> fixed::Settings {
    fixed::Settings {
        root_key: config.traefik.root_key.clone(),
        entry_points: config.traefik.entry_points.iter().map(|entry_point| entry_point.name.clone()).collect(),
        space: if config.routing.host_routing { Space::Hosts } else { Space::Paths },
        pages_url: config.pages.url.clone(),
    }
}

pub(super) fn control_settings(config: &Config) -> control::Settings {
    control::Settings {
        records: RecordKeys::new(&config.etcd.prefix),
        tree: tree_settings(config),
        sizes: Sizes::default(),
        routes_max: config.routing.max_routes,
        adopt_layout: config.traefik.adopt_layout,
    }
}

/// Where every Traefik's API is.
pub(super) fn traefik_sources(config: &Config) -> Vec<Source> {
    let source = |api: &TraefikApi| match api {
        TraefikApi::Url(url) => Source::Url(url.clone()),
        TraefikApi::Dns { name, port } => Source::Dns { name: name.clone(), port: *port },
    };
    config.traefik.apis.iter().map(source).collect()
}

/// A client for the Traefik whose API has this address.
pub(super) fn traefik_client(url: &str) -> Result<TraefikClient, ClientError> {
    let url = url.parse().map_err(|error: url::ParseError| ClientError::Silent(error.to_string()))?;
    TraefikClient::new(url)
}

/// How it is found out when routes were last used.
pub(super) fn activity_settings(config: &Config) -> activity::Settings {
    activity::Settings::new(&config.etcd.prefix, tree_settings(config).space)
}

pub(super) fn api_settings(config: &Config) -> ApiSettings {
    ApiSettings { host_routing: config.routing.host_routing, ..ApiSettings::default() }
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
pub(super) fn etcd_settings(config: &Config) -> EtcdSettings {
    let EtcdConfig { endpoints, prefix: _, user, password_file, ca, cert, key } = config.etcd.clone();
    EtcdSettings { user, password_file, ca, cert, key, ..EtcdSettings::new(endpoints) }
}
