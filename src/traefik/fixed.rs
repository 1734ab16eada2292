//! The part of Traefik's tree that doesn't depend on the routes: the root router, the sentinel, error pages.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use url::Url;

use super::name;
use super::rule::{self, Space};
use crate::route::{self, Target};

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

/// Service and middleware of the router that takes what no route takes: together they answer 404 with a page.
pub const NOWHERE: (&str, &str) = ("noop@internal", "nowhere");

/// Where a service's address stands behind its name.
pub const SERVER_URL_FIELD: &str = "loadbalancer/servers/0/url";

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
    /// A request for an error page says what the user asked for. An error target needs it; without one an address of any
    /// length gets its page.
    pub pages_get_address: bool,
    /// Middlewares of the administrator's that each request of a user passes, as `name@provider`.
    pub middlewares: Vec<String>,
    /// How servers are reached.
    pub servers: Servers,
}

/// How servers are reached.
#[derive(Debug, Clone)]
pub struct Servers {
    /// Headers that every request is given.
    pub headers: Vec<(String, String)>,
    /// They see the host of their target instead of the user's.
    pub change_origin: bool,
    /// The path of a target comes before that of a request.
    pub prepend_path: bool,
    /// The path of the route stays in that of a request.
    pub include_prefix: bool,
    /// The transport that is used, if it isn't Traefik's default.
    pub transport: Option<Transport>,
    /// Where servers on Unix sockets are reached, if they can be.
    pub unix_sockets: Option<Arc<dyn UnixSockets>>,
}

impl Default for Servers {
    fn default() -> Self {
        Self {
            headers: Vec::new(),
            change_origin: false,
            prepend_path: true,
            include_prefix: true,
            transport: None,
            unix_sockets: None,
        }
    }
}

/// A transport of Traefik's file provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// Its name, as `name@provider`.
    pub name: String,
    /// Whether servers without TLS are reached by it too.
    pub plain_too: bool,
}

/// Traefik can't dial Unix sockets: somebody stands between.
pub trait UnixSockets: fmt::Debug + Send + Sync {
    /// The address by which the server on this socket is reached.
    fn address(&self, socket: &Path) -> Option<SocketAddr>;
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
        let Servers { headers, change_origin, prepend_path, include_prefix, transport, unix_sockets: _ } =
            &self.servers;
        let pages_url = self.pages_url.as_ref().map(|url| (url.as_str(), self.pages_get_address));
        let servers = (headers, change_origin, prepend_path, include_prefix, transport);
        let text = format!("{:?}", (&self.entry_points, self.space, pages_url, &self.middlewares, servers));
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
        let pages_url = self.pages_url.as_ref().map(|url| url.as_str().trim_end_matches('/'));
        // From outside to inside: what Traefik itself answers for a dead server must pass our pages.
        let mut middlewares: Vec<&str> = pages_url.iter().map(|_| "pages").collect();
        middlewares.extend(self.middlewares.iter().map(String::as_str));
        for (name, value) in &self.servers.headers {
            put(&format!("http/middlewares/given/headers/customRequestHeaders/{name}"), value);
        }
        if !self.servers.headers.is_empty() {
            middlewares.push("given");
        }
        if !middlewares.is_empty() {
            put(&format!("http/routers/{}/middlewares", name::ROOT), &middlewares.join(","));
        }
        let Some(pages_url) = pages_url else {
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
        let page = if self.pages_get_address { "/error/{status}?url={url}" } else { "/error/{status}" };
        put("http/middlewares/pages/errors/query", page);
        // Naming one header that nobody sends keeps the user's cookies out of the request for the page.
        put("http/middlewares/pages/errors/errorRequestHeaders", "X-Pointsman-None");

        // The page for what no route takes: it belongs to a service that answers 418 to everything.
        put("http/middlewares/nowhere/errors/status", "418-418");
        put("http/middlewares/nowhere/errors/statusRewrites/418-418", "404");
        put("http/middlewares/nowhere/errors/service", "pages");
        put("http/middlewares/nowhere/errors/query", page);
        put("http/middlewares/nowhere/errors/errorRequestHeaders", "X-Pointsman-None");
        keys
    }

    /// Whether there is a page for what no route takes.
    #[must_use]
    pub fn has_pages(&self) -> bool {
        self.pages_url.is_some()
    }

    /// The fields of the middleware that cuts the path of a route's place from its requests; `None` if nothing is cut.
    ///
    /// Traefik has a middleware for prefixes too, but a comma in a key would make two of one prefix, and older releases
    /// leave a prefix that was sent in another spelling.
    #[must_use]
    pub fn cut(&self, place: &str) -> Option<Vec<(&'static str, String)>> {
        if self.servers.include_prefix {
            return None;
        }
        let expression = rule::own_path(self.space, place)?;
        Some(vec![("replacePathRegex/regex", expression), ("replacePathRegex/replacement", "/".to_owned())])
    }

    /// The fields of a route's service: keys behind its name, and values.
    #[must_use]
    pub fn service(&self, target: &Target) -> Vec<(&'static str, String)> {
        let servers = &self.servers;
        let url = match target.unix_path() {
            None if target.has_path() && !servers.prepend_path => route::origin(target.dial_url()).to_owned(),
            None => target.dial_url().to_owned(),
            Some(path) => {
                let address = servers.unix_sockets.as_ref().and_then(|sockets| sockets.address(path));
                // A server that can't be reached now is like one that is down: a port where nobody listens.
                let url = target.dial_at(address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 1))));
                if target.has_path() && !servers.prepend_path { route::origin(&url).to_owned() } else { url }
            }
        };
        let mut fields = vec![(SERVER_URL_FIELD, url)];
        if target.has_path() && servers.prepend_path {
            fields.push(("loadbalancer/servers/0/preservePath", "true".to_owned()));
        }
        if servers.change_origin {
            fields.push(("loadbalancer/passHostHeader", "false".to_owned()));
        }
        if let Some(transport) = servers.transport.as_ref().filter(|t| t.plain_too || target.is_https()) {
            fields.push(("loadbalancer/serverstransport", transport.name.clone()));
        }
        fields
    }

    /// Whether a key (relative to the root key) is of the fixed part, in any setting: such a key is ours to remove.
    #[must_use]
    pub fn owns(key: &str) -> bool {
        const OURS: [&str; 10] = [
            "http/routers/sentinel/",
            "http/routers/root/",
            "http/services/sentinel/",
            "http/services/pages/",
            "http/serversTransports/brief/",
            "http/middlewares/marker/",
            "http/middlewares/alone/",
            "http/middlewares/pages/",
            "http/middlewares/given/",
            "http/middlewares/nowhere/",
        ];
        OURS.iter().any(|prefix| key.starts_with(prefix))
    }
}
