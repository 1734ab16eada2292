//! Which routes lead to which server's address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use url::{Host, Url};

use crate::route::{RouteSpec, RouteTable, Target};

/// The address that Traefik connects to for a target that it can't reach itself, such as a Unix socket.
pub type Forwarders = Arc<dyn Fn(&Target) -> Option<SocketAddr> + Send + Sync>;

/// A name is resolved again after this time.
const NAME_AGE_MAX: Duration = Duration::from_secs(60);

/// So many names are resolved in one look, within this time; the others keep what they had, and have their turn later.
const NAMES_MAX: usize = 64;
const NAMES_PATIENCE: Duration = Duration::from_secs(1);

/// The names of the routes that lead to each address.
pub(super) type ByServer = HashMap<SocketAddr, Vec<Box<str>>>;

/// Finds addresses, and remembers what names stand for.
pub(super) struct Servers {
    forwarders: Forwarders,
    resolved: HashMap<String, Resolved>,
}

#[derive(Default)]
struct Resolved {
    addresses: Vec<IpAddr>,
    asked: Option<Instant>,
}

impl Servers {
    pub(super) fn new(forwarders: Forwarders) -> Self {
        Self { forwarders, resolved: HashMap::new() }
    }

    /// The addresses of all routes in the table, whose names are given.
    pub(super) async fn of(&mut self, table: &RouteTable, names: &HashMap<RouteSpec, Box<str>>) -> ByServer {
        let mut servers = ByServer::new();
        let mut by_name: HashMap<String, Vec<(u16, Box<str>)>> = HashMap::new();
        for route in table.iter() {
            let Some(name) = names.get(&route.spec) else { continue };
            let mut lead = |ip: IpAddr, port| servers.entry(normal(ip, port)).or_default().push(name.clone());
            if let Some(address) = (self.forwarders)(&route.target) {
                lead(address.ip(), address.port());
                continue;
            }
            let Ok(url) = Url::parse(route.target.dial_url()) else { continue };
            let Some(port) = url.port_or_known_default() else { continue };
            match url.host() {
                Some(Host::Ipv4(ip)) => lead(ip.into(), port),
                Some(Host::Ipv6(ip)) => lead(ip.into(), port),
                Some(Host::Domain(host)) => by_name.entry(host.to_owned()).or_default().push((port, name.clone())),
                None => {}
            }
        }
        self.resolve(&by_name).await;
        for (host, routes) in by_name {
            for ip in self.resolved.get(&host).iter().flat_map(|resolved| &resolved.addresses) {
                for (port, name) in &routes {
                    servers.entry(normal(*ip, *port)).or_default().push(name.clone());
                }
            }
        }
        servers
    }

    /// Asks for names that are new or old. A failed or empty answer keeps what was known.
    async fn resolve(&mut self, wanted: &HashMap<String, Vec<(u16, Box<str>)>>) {
        self.resolved.retain(|host, _| wanted.contains_key(host));
        for host in wanted.keys() {
            self.resolved.entry(host.clone()).or_default();
        }
        let mut due: Vec<_> = self
            .resolved
            .iter()
            .filter(|(_, resolved)| resolved.asked.is_none_or(|asked| asked.elapsed() > NAME_AGE_MAX))
            .map(|(host, resolved)| (resolved.asked, host.clone()))
            .collect();
        due.sort();
        let mut questions = JoinSet::new();
        for (_, host) in due.into_iter().take(NAMES_MAX) {
            if let Some(resolved) = self.resolved.get_mut(&host) {
                resolved.asked = Some(Instant::now());
            }
            questions.spawn(async move {
                let found = tokio::net::lookup_host((host.as_str(), 0)).await;
                let found = found.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>());
                (host, found)
            });
        }
        let deadline = Instant::now() + NAMES_PATIENCE;
        while let Ok(Some(Ok((host, found)))) = timeout_at(deadline, questions.join_next()).await {
            match found {
                Ok(addresses) if !addresses.is_empty() => {
                    if let Some(resolved) = self.resolved.get_mut(&host) {
                        resolved.addresses = addresses;
                    }
                }
                other => debug!(host, "The server {host} can't be found by its name: {:?}", other.err()),
            }
        }
    }
}

/// The address as the kernel shows it for a connection there.
pub(super) fn normal(ip: IpAddr, port: u16) -> SocketAddr {
    let ip = match ip.to_canonical() {
        // To connect to no address in particular is to connect to this machine.
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::route::{Route, RouteData};

    #[tokio::test]
    async fn addresses_are_as_the_kernel_shows_them() {
        let targets = [
            ("/a", "http://127.0.0.1:8888/base"),
            ("/b", "http://127.0.0.1:8888"),
            ("/c", "https://[::ffff:10.0.0.1]"),
            ("/d", "http://localhost:81"),
            ("/e", "http://0.0.0.0:82"),
            ("/f", "http://no.such.name.invalid"),
            ("/g", "http://10.9.9.9:9"),
        ];
        let route = |(spec, target): &(&str, &str)| Route {
            spec: RouteSpec::from_decoded(spec).expect("valid"),
            target: Target::parse(target).expect("valid"),
            data: RouteData::new(),
            created: Timestamp::UNIX_EPOCH,
            n: 1,
        };
        let table: RouteTable = targets.iter().map(route).collect();
        let names = table.iter().map(|route| (route.spec.clone(), route.spec.as_str().into())).collect();
        let forwarder = |target: &Target| {
            (target.as_str() == "http://10.9.9.9:9").then(|| "127.0.0.1:83".parse().expect("an address"))
        };
        let mut servers = Servers::new(Arc::new(forwarder));
        let found = servers.of(&table, &names).await;
        let at = |address: &str| found.get(&address.parse().expect("an address")).map(|names| names.join(" "));
        assert_eq!(at("127.0.0.1:8888").as_deref(), Some("/a /b"));
        assert_eq!(at("10.0.0.1:443").as_deref(), Some("/c"));
        assert_eq!(at("127.0.0.1:81").as_deref(), Some("/d"));
        assert_eq!(at("127.0.0.1:82").as_deref(), Some("/e"));
        assert_eq!(at("127.0.0.1:83").as_deref(), Some("/g"));
        assert!(!found.values().flatten().any(|name| &**name == "/f"));
        servers.of(&RouteTable::default(), &HashMap::new()).await;
        assert!(servers.resolved.is_empty());
    }
}
