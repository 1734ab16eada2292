//! The oldest releases that we work with, and what is wrong with older ones.

use tokio::net::lookup_host;
use url::Url;

use crate::config::{Config, TraefikApi};
use crate::store::etcd::EtcdStore;
use crate::traefik::client::{Access, TraefikClient};
use crate::traefik::version::TraefikVersion;

/// Before it, a Traefik that logs in by password goes deaf when its token expires.
const ETCD_FLOOR: (u32, u32, u32) = (3, 5, 3);

/// What is wrong with this release of etcd, if anything is.
pub(super) fn etcd_complaint(version: &str) -> Option<String> {
    let (major, minor, patch) = ETCD_FLOOR;
    if numbers(version).is_some_and(|numbers| numbers >= ETCD_FLOOR) {
        return None;
    }
    Some(format!(
        "version {version} is older than {major}.{minor}.{patch}: a Traefik that logs in to it by password stops hearing \
         of changes; update it"
    ))
}

/// What is wrong with this release of Traefik, if anything is.
pub(super) fn traefik_complaint(version: &str) -> Option<String> {
    match version.parse::<TraefikVersion>() {
        Ok(version) if version >= TraefikVersion::FLOOR => None,
        Ok(version) => {
            Some(format!("version {version} is older than {}, the oldest supported; update it", TraefikVersion::FLOOR))
        }
        Err(error) => Some(format!("{error}; use a release")),
    }
}

/// Complaints about every etcd and Traefik that answers now. One that doesn't answer is no reason to complain.
pub(super) async fn complaints(config: &Config, store: &EtcdStore) -> Vec<String> {
    let mut found = Vec::new();
    for endpoint in store.status().await.endpoints {
        let version = endpoint.member.ok().map(|member| member.version);
        found.extend(version.and_then(|v| etcd_complaint(&v)).map(|what| format!("etcd {}: {what}", endpoint.url)));
    }
    for url in traefik_urls(config).await {
        let Ok(client) = TraefikClient::new(url.clone(), &Access::etcd()) else { continue };
        let version = client.version().await.ok();
        found.extend(version.and_then(|v| traefik_complaint(&v)).map(|what| format!("Traefik {url}: {what}")));
    }
    found
}

async fn traefik_urls(config: &Config) -> Vec<Url> {
    let mut urls = Vec::new();
    for api in &config.traefik.apis {
        match api {
            TraefikApi::Url(url) => urls.push(url.clone()),
            TraefikApi::Dns { name, port } => {
                let addresses = lookup_host((name.as_str(), *port)).await.into_iter().flatten();
                urls.extend(addresses.filter_map(|address| Url::parse(&format!("http://{address}")).ok()));
            }
        }
    }
    urls
}

fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let release = version.split(['-', '+']).next()?;
    let parts: Vec<u32> = release.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    match parts[..] {
        [major, minor, patch] => Some((major, minor, patch)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_releases_from_the_floor_on_are_good() {
        for (version, good) in
            [("3.5.3", true), ("3.6.0-rc.1", true), ("3.10.0", true), ("3.5.2", false), ("3.4.23", false), ("?", false)]
        {
            assert_eq!(etcd_complaint(version).is_none(), good, "etcd {version}");
        }
        for (version, good) in
            [("3.7.9", true), ("v3.8.0-rc1", true), ("3.7.8", false), ("2.11.56", false), ("dev", false)]
        {
            assert_eq!(traefik_complaint(version).is_none(), good, "Traefik {version}");
        }
    }
}
