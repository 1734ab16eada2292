//! What Traefik's file provider is given: certificates, how servers are reached, and the doors of a Traefik of our own.
//!
//! Keys and certificates don't lie in the store, so they come to Traefik by files beside it.

use serde_json::{Map, Value, json};
use url::Url;

use super::static_config::{KEYED_ENTRY_POINT, quoted};

/// The name of the transport to the servers, with its provider.
pub const TRANSPORT: &str = "servers@file";

/// The header that carries the key of a keyed private entry point.
pub const KEY_HEADER: &str = "X-Pointsman-Key";

/// One file of dynamic configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicFile {
    /// Certificate and key for whoever asks for no other, as Traefik sees them.
    pub certificate: (String, String),
    /// How TLS is spoken to users, where it isn't as Traefik does it by itself.
    pub tls: Tls,
    /// How servers are reached, where it isn't as Traefik does it by itself.
    pub transport: Option<ServersTransport>,
    /// The doors of a Traefik that we start ourselves.
    pub own: Option<Own>,
}

/// How TLS is spoken to users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The one version, as Traefik names it: `VersionTLS12`.
    pub version: Option<&'static str>,
    /// Ciphers of TLS 1.2, by Go's names.
    pub ciphers: Vec<&'static str>,
    /// Whom to ask for certificates.
    pub clients: Option<Clients>,
}

/// Users' own certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// What they must lead to, as Traefik sees it.
    pub ca: Option<String>,
    /// Whether a user without one is refused.
    pub required: bool,
}

/// How servers are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServersTransport {
    /// What their certificates must lead to, as Traefik sees the files; empty for the system's authorities.
    pub ca: Vec<String>,
    /// Certificate and key to show them.
    pub pair: Option<(String, String)>,
    /// Their certificates are not checked.
    pub insecure: bool,
    /// The one version of TLS, as Traefik names it.
    pub version: Option<&'static str>,
    /// How long an answer may take to begin, in milliseconds.
    pub answer_timeout_ms: Option<u128>,
}

/// What only a Traefik of our own has.
#[derive(Clone, PartialEq, Eq)]
pub struct Own {
    /// What opens the private entry point.
    pub key: String,
    /// The entry points for users.
    pub entry_points: Vec<String>,
    /// Where our pages are: users see one until the first routes are there.
    pub pages_url: Url,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").field("entry_points", &self.entry_points).finish_non_exhaustive()
    }
}

impl DynamicFile {
    /// The file's text.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut yaml =
            String::from("# Written by Pointsman; changes are lost. Put files of your own beside this one.\n");
        write_map(&mut yaml, &self.document(), 0);
        yaml
    }

    fn document(&self) -> Map<String, Value> {
        let (certificate, key) = &self.certificate;
        let mut tls = json!({"stores": {"default": {"defaultCertificate": {"certFile": certificate, "keyFile": key}}}});
        let options = self.tls.document();
        if !options.is_empty() {
            tls["options"] = json!({"default": options});
        }
        let mut http = Map::new();
        if let Some(transport) = &self.transport {
            http.insert("serversTransports".to_owned(), json!({"servers": transport.document()}));
        }
        if let Some(own) = &self.own {
            http.extend(own.document());
        }
        let mut root = Map::new();
        if !http.is_empty() {
            root.insert("http".to_owned(), http.into());
        }
        root.insert("tls".to_owned(), tls);
        root
    }
}

impl Tls {
    fn document(&self) -> Map<String, Value> {
        let mut options = Map::new();
        if let Some(version) = self.version {
            options.insert("minVersion".to_owned(), version.into());
            options.insert("maxVersion".to_owned(), version.into());
        }
        if !self.ciphers.is_empty() {
            options.insert("cipherSuites".to_owned(), json!(self.ciphers));
        }
        if let Some(clients) = &self.clients {
            let kind = if clients.required { "RequireAndVerifyClientCert" } else { "RequestClientCert" };
            let mut auth = json!({"clientAuthType": kind});
            if let Some(ca) = &clients.ca {
                auth["caFiles"] = json!([ca]);
            }
            options.insert("clientAuth".to_owned(), auth);
        }
        options
    }
}

impl ServersTransport {
    fn document(&self) -> Map<String, Value> {
        let mut transport = Map::new();
        // Notebook servers speak HTTP/1.1, and websockets need it.
        transport.insert("disableHTTP2".to_owned(), true.into());
        if !self.ca.is_empty() {
            transport.insert("rootCAs".to_owned(), json!(self.ca));
        }
        if let Some((certificate, key)) = &self.pair {
            transport.insert("certificates".to_owned(), json!([{"certFile": certificate, "keyFile": key}]));
        }
        if self.insecure {
            transport.insert("insecureSkipVerify".to_owned(), true.into());
        }
        if let Some(version) = self.version {
            transport.insert("minVersion".to_owned(), version.into());
            transport.insert("maxVersion".to_owned(), version.into());
        }
        if let Some(timeout) = self.answer_timeout_ms {
            transport.insert(
                "forwardingTimeouts".to_owned(),
                json!({"responseHeaderTimeout": format!("{timeout}ms"), "dialTimeout": format!("{timeout}ms")}),
            );
        }
        transport
    }
}

impl Own {
    fn document(&self) -> Map<String, Value> {
        // The key is made of letters and digits, so it can't leave its literal.
        let keyed = |path: &str| format!("Header(`{KEY_HEADER}`,`{}`)&&PathPrefix(`{path}`)", self.key);
        let private = |path: &str, service: &str| json!({"rule": keyed(path), "service": service, "entryPoints": [KEYED_ENTRY_POINT]});
        let pages = self.pages_url.as_str().trim_end_matches('/');
        let document = json!({
            "routers": {
                "private-api": private("/api", "api@internal"),
                // Longer than the rule before, so it comes first.
                "private-rest": private("/api/providers/rest", "rest@internal"),
                "private-metrics": private("/metrics", "prometheus@internal"),
                // Below everything that is sent: only seen by those who come before the first routes.
                "starting": {
                    "rule": "PathPrefix(`/`)", "priority": 1, "entryPoints": self.entry_points,
                    "service": "noop@internal", "middlewares": ["starting"],
                },
            },
            "middlewares": {"starting": {"errors": {
                "status": ["418-418"], "statusRewrites": {"418-418": 503}, "service": "starting", "query": "/starting",
                "errorRequestHeaders": ["X-Pointsman-None"],
            }}},
            "services": {"starting": {"loadBalancer": {"servers": [{"url": pages}]}}},
        });
        match document {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// Writes a map as YAML: one line a value, and what isn't a map as JSON, which is YAML too.
fn write_map(yaml: &mut String, map: &Map<String, Value>, depth: usize) {
    for (name, value) in map {
        yaml.push_str(&"  ".repeat(depth));
        // Names of digits and dashes would be numbers or dates without quotes.
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && name.starts_with(|c: char| c.is_ascii_alphabetic());
        yaml.push_str(&if plain { name.clone() } else { quoted(name) });
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                yaml.push_str(":\n");
                write_map(yaml, inner, depth + 1);
            }
            other => {
                yaml.push_str(": ");
                yaml.push_str(&other.to_string());
                yaml.push('\n');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> DynamicFile {
        DynamicFile {
            certificate: ("/etc/traefik/dynamic/default.crt".to_owned(), "/etc/traefik/dynamic/default.key".to_owned()),
            tls: Tls::default(),
            transport: None,
            own: None,
        }
    }

    #[test]
    fn the_default_certificate_alone() {
        insta::assert_snapshot!(plain().to_yaml());
    }

    #[test]
    fn everything() {
        let file = DynamicFile {
            tls: Tls {
                version: Some("VersionTLS12"),
                ciphers: vec!["TLS_RSA_WITH_AES_128_CBC_SHA"],
                clients: Some(Clients { ca: Some("/x/ca \"1\".pem".to_owned()), required: true }),
            },
            transport: Some(ServersTransport {
                ca: vec!["/x/ca.pem".to_owned()],
                pair: Some(("/x/c.pem".to_owned(), "/x/k.pem".to_owned())),
                insecure: true,
                version: Some("VersionTLS12"),
                answer_timeout_ms: Some(1500),
            }),
            own: Some(Own {
                key: "0123abcd".to_owned(),
                entry_points: vec!["web".to_owned()],
                pages_url: Url::parse("http://127.0.0.1:40000").expect("a URL"),
            }),
            ..plain()
        };
        insta::assert_snapshot!(file.to_yaml());
        assert!(!format!("{file:?}").contains("0123abcd"));
    }
}
