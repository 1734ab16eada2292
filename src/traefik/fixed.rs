//! The part of Traefik's tree that doesn't depend on the routes: the root router, the sentinel, error pages.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use url::Url;

use super::name;
use super::rule::Space;

/// The path of the readiness probe, as the configurable-http-proxy has it.
pub const SENTINEL_PATH: &str = "/_chp_healthz";

/// The header, towards the prober and towards our pages, that carries the marker.
pub const MARKER_HEADER: &str = "X-Pointsman-Revision";

/// The middleware that sets the marker, as Traefik's API names it (with the provider's name behind it).
pub const MARKER_MIDDLEWARE: &str = "marker";

/// The marker's own key, relative to the root key.
pub const MARKER_KEY: &str = "http/middlewares/marker/headers/customResponseHeaders/X-Pointsman-Revision";

/// The marker once more, for the request that the sentinel passes on to our pages.
pub const MARKER_REQUEST_KEY: &str = "http/middlewares/marker/headers/customRequestHeaders/X-Pointsman-Revision";

/// The settings that shape Traefik's tree.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Traefik's root key, without slashes at its ends.
    pub root_key: String,
    /// The entry points that users come in by.
    pub entry_points: Vec<String>,
    /// By path, or by host and path.
    pub space: Space,
    /// Where Traefik reaches our pages, if it can.
    pub pages_url: Option<Url>,
}

impl Settings {
    /// The prefix of Traefik's whole tree, with its trailing slash.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}/", self.root_key)
    }

    /// A digest of everything that shapes the tree, eight characters.
    ///
    /// # Panics
    ///
    /// Never: a SHA-256 hash has 32 bytes.
    #[must_use]
    pub fn digest(&self) -> String {
        let text = format!("{:?}", (&self.entry_points, self.space, self.pages_url.as_ref().map(Url::as_str)));
        let hash = digest(&SHA256, text.as_bytes());
        format!("{:08x}", u32::from_be_bytes(hash.as_ref()[..4].try_into().expect("a SHA-256 hash has 32 bytes")))
    }

    /// The keys that don't depend on the routes, relative to the root key, without the marker. They come with the first
    /// route: a Traefik that answers 404 to everybody is worse than one that isn't ready, and a router without children is
    /// an error in its eyes.
    #[must_use]
    pub fn keys(&self) -> BTreeMap<String, String> {
        let mut keys = BTreeMap::new();
        let mut put = |key: &str, value: &str| keys.insert(key.to_owned(), value.to_owned());
        let entry_points = self.entry_points.join(",");

        put("http/routers/sentinel/rule", &format!("Path(`{SENTINEL_PATH}`)"));
        put("http/routers/sentinel/priority", "1000000");
        put("http/routers/sentinel/entryPoints", &entry_points);
        put(&format!("http/routers/{}/rule", name::ROOT), "PathPrefix(`/`)");
        put(&format!("http/routers/{}/priority", name::ROOT), "10");
        put(&format!("http/routers/{}/entryPoints", name::ROOT), &entry_points);
        let Some(pages_url) = self.pages_url.as_ref().map(|url| url.as_str().trim_end_matches('/')) else {
            put("http/routers/sentinel/service", "ping@internal");
            put("http/routers/sentinel/middlewares", MARKER_MIDDLEWARE);
            return keys;
        };

        // The sentinel asks Pointsman, briefly: if no Pointsman answers, the probe succeeds all the same.
        put("http/routers/sentinel/service", "sentinel");
        put("http/routers/sentinel/middlewares", &format!("{MARKER_MIDDLEWARE},alone"));
        put("http/services/sentinel/loadbalancer/servers/0/url", pages_url);
        put("http/services/sentinel/loadbalancer/serverstransport", "brief");
        put("http/serversTransports/brief/forwardingTimeouts/dialTimeout", "200ms");
        put("http/serversTransports/brief/forwardingTimeouts/responseHeaderTimeout", "300ms");
        put("http/middlewares/alone/errors/status", "502-502,504-504");
        // A key of digits alone would be taken for a list index, and the whole tree refused; a range is not.
        put("http/middlewares/alone/errors/statusRewrites/502-504", "200");
        put("http/middlewares/alone/errors/service", "ping@internal");
        put("http/middlewares/alone/errors/query", "/ping");

        // Error pages, for Traefik's own failures only: a dead server is 503, as in the configurable-http-proxy.
        put("http/services/pages/loadbalancer/servers/0/url", pages_url);
        put("http/middlewares/pages/errors/status", "502-502,504-504");
        put("http/middlewares/pages/errors/statusRewrites/502-504", "503");
        put("http/middlewares/pages/errors/service", "pages");
        put("http/middlewares/pages/errors/query", "/error/{status}?url={url}");
        // Naming one header that nobody sends keeps the user's cookies out of the request for the page.
        put("http/middlewares/pages/errors/errorRequestHeaders", "X-Pointsman-None");
        put(&format!("http/routers/{}/middlewares", name::ROOT), "pages");
        keys
    }

    /// Whether a key (relative to the root key) is of the fixed part, in any setting: such a key is ours to remove.
    #[must_use]
    pub fn owns(key: &str) -> bool {
        const OURS: [&str; 8] = [
            "http/routers/sentinel/",
            "http/routers/root/",
            "http/services/sentinel/",
            "http/services/pages/",
            "http/serversTransports/brief/",
            "http/middlewares/marker/",
            "http/middlewares/alone/",
            "http/middlewares/pages/",
        ];
        OURS.iter().any(|prefix| key.starts_with(prefix))
    }
}
