//! Discovery: the addresses of all Traefiks, from a list and from names whose addresses change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tracing::warn;
use url::Url;

/// Where Traefik's API is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// One Traefik.
    Url(Url),
    /// Every address that a name stands for, such as a headless Service's.
    Dns {
        /// The name.
        name: String,
        /// The API's port.
        port: u16,
    },
}

/// What a look-up gives, or why it gives nothing.
pub type LookedUp = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, String>> + Send>>;

/// Looks up the addresses of a name.
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn(String, u16) -> LookedUp + Send + Sync>);

impl Resolver {
    /// One that looks up names in a way of its own.
    #[must_use]
    pub fn new(look_up: impl Fn(String, u16) -> LookedUp + Send + Sync + 'static) -> Self {
        Self(Arc::new(look_up))
    }

    /// The operating system's.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|name, port| {
            Box::pin(async move {
                let addresses = tokio::net::lookup_host((name.as_str(), port)).await.map_err(|e| e.to_string())?;
                Ok(addresses.collect())
            })
        })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// The addresses of all sources.
#[derive(Debug)]
pub(super) struct Discovery {
    sources: Vec<Source>,
    resolver: Resolver,
    resolved: BTreeMap<(String, u16), Resolved>,
}

/// What a name stands for.
#[derive(Debug, Default)]
struct Resolved {
    /// The last good answer.
    urls: BTreeSet<String>,
    /// Since then there was none, and the log has it.
    failing: bool,
}

impl Discovery {
    pub(super) fn new(sources: Vec<Source>, resolver: Resolver) -> Self {
        Self { sources, resolver, resolved: BTreeMap::new() }
    }

    /// The API's address of every Traefik there is now.
    pub(super) async fn urls(&mut self) -> BTreeSet<String> {
        let mut urls = BTreeSet::new();
        for source in &self.sources {
            match source {
                Source::Url(url) => drop(urls.insert(url.as_str().trim_end_matches('/').to_owned())),
                Source::Dns { name, port } => {
                    let known = self.resolved.entry((name.clone(), *port)).or_default();
                    resolve(&self.resolver, name, *port, known).await;
                    urls.extend(known.urls.iter().cloned());
                }
            }
        }
        urls
    }
}

/// Resolves a name; a failed or empty answer keeps what was known.
async fn resolve(resolver: &Resolver, name: &str, port: u16, known: &mut Resolved) {
    let reason = match (resolver.0)(name.to_owned(), port).await {
        Ok(addresses) => {
            let urls: BTreeSet<String> = addresses.into_iter().map(|a| format!("http://{a}")).collect();
            if !urls.is_empty() {
                *known = Resolved { urls, failing: false };
                return;
            }
            "it has no address".to_owned()
        }
        Err(error) => error,
    };
    // We ask every second; one line tells of it.
    if !known.failing {
        known.failing = true;
        warn!(%name, "The name {name} of --traefik-api can't be resolved: {reason}; keeping the {} known addresses", known.urls.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_stops_resolving_stands_for_what_it_did() {
        let (mut known, system) = (Resolved::default(), Resolver::system());
        resolve(&system, "127.0.0.1", 8099, &mut known).await;
        let before = BTreeSet::from(["http://127.0.0.1:8099".to_owned()]);
        assert_eq!((&known.urls, known.failing), (&before, false));
        for _ in 0..2 {
            resolve(&system, "no host name", 8099, &mut known).await;
            assert_eq!((&known.urls, known.failing), (&before, true));
        }
        resolve(&system, "127.0.0.2", 8099, &mut known).await;
        assert_eq!((known.urls.len(), known.failing), (1, false));
    }
}
