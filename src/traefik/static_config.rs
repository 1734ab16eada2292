//! Traefik's static configuration, as YAML: what it must be told at start so that the keys in etcd do what they should.
//!
//! Traefik doesn't start with an option that it doesn't know, and with a file it ignores all its flags: so everything
//! stands in this one file, and what depends on its version is written for that version.

use std::fmt::Write as _;

use super::version::TraefikVersion;

/// What differs from one installation to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticConfig {
    /// The release it is written for.
    pub version: TraefikVersion,
    /// Name and `host:port` of each entry point for users.
    pub entry_points: Vec<(String, String)>,
    /// Balancers whose `X-Forwarded-*` headers are believed.
    pub trusted_ips: Vec<String>,
    /// Where Traefik's API, ping and metrics listen: for us only.
    pub private_address: String,
    /// How long open requests may go on after SIGTERM.
    pub grace_seconds: u32,
    /// Where the routes come from.
    pub etcd: EtcdProvider,
    /// A folder with more dynamic configuration, as Traefik sees it: the default certificate.
    pub dynamic_folder: Option<String>,
    /// `DEBUG`, `INFO`, `WARN` or `ERROR`.
    pub log_level: String,
    /// One JSON object a line.
    pub log_json: bool,
}

/// How Traefik reaches etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdProvider {
    /// `host:port` of each.
    pub endpoints: Vec<String>,
    /// What Traefik's keys begin with.
    pub root_key: String,
    /// User and password.
    pub login: Option<(String, Password)>,
    /// TLS, if it is used.
    pub tls: Option<ClientTls>,
}

/// A password in the file, or a place for it.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// Whoever installs the file fills it in.
    Placeholder,
    /// This one.
    Text(String),
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Placeholder { "Placeholder" } else { "Text(..)" })
    }
}

/// Files for TLS, as Traefik sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Whom to trust; the system's certificates if none is given.
    pub ca: Option<String>,
    /// Certificate and key to show.
    pub pair: Option<(String, String)>,
}

impl StaticConfig {
    /// The file's text.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut yaml =
            format!("# Static configuration for Traefik {}, written by pointsman traefik-config.\n", self.version);
        yaml.push_str(
            "# Start Traefik without HTTP_PROXY and HTTPS_PROXY in its environment: they would divert users' requests.\n\
             global:\n  checkNewVersion: false\n  sendAnonymousUsage: false\n\n",
        );
        let _ = writeln!(
            yaml,
            "log:\n  level: {}\n  format: {}\n",
            self.log_level,
            if self.log_json { "json" } else { "common" }
        );
        yaml.push_str("entryPoints:\n");
        for (name, address) in &self.entry_points {
            self.public_entry_point(&mut yaml, name, address);
        }
        self.private_entry_point(&mut yaml);
        self.providers(&mut yaml);
        yaml
    }

    fn public_entry_point(&self, yaml: &mut String, name: &str, address: &str) {
        let _ = write!(yaml, "  {}:\n    address: {}\n", quoted(name), quoted(address));
        let _ = write!(
            yaml,
            "    transport:
      respondingTimeouts:
        readTimeout: 0s # the default cuts every upload that takes longer than 60 s
      lifeCycle:
        graceTimeOut: {}s
",
            self.grace_seconds
        );
        if self.trusted_ips.is_empty() {
            yaml.push_str(
                "    # X-Forwarded headers are believed of nobody: else each client could claim an address and https.\n\
                 \x20   # Behind a balancer that ends TLS, name its addresses with --trusted-ips.\n",
            );
        } else {
            let ranges: Vec<String> = self.trusted_ips.iter().map(|range| quoted(range)).collect();
            let _ = write!(yaml, "    forwardedHeaders:\n      trustedIPs: [{}]\n", ranges.join(", "));
        }
        yaml.push_str(
            "    http:
      sanitizePath: false # paths reach the servers as sent, also with //
      encodeQuerySemicolons: true # else ?a;b becomes ?a&b
",
        );
        if self.version >= TraefikVersion::ALIAS_HEADERS {
            yaml.push_str(
                "      aliasHeadersStrategy: keep # names such as X_Under pass, and no warning at each start\n",
            );
        }
        yaml.push_str("      encodedCharacters: # user names may hold any of them\n");
        for character in ENCODED_CHARACTERS {
            let _ = writeln!(yaml, "        allowEncoded{character}: true");
        }
    }

    fn private_entry_point(&self, yaml: &mut String) {
        let _ = write!(
            yaml,
            "  # Traefik's API, ping and metrics, without a password: only Pointsman and probes may reach this address.
  traefik:
    address: {}
",
            quoted(&self.private_address)
        );
        if self.version >= TraefikVersion::ALIAS_HEADERS {
            yaml.push_str("    http:\n      aliasHeadersStrategy: keep\n");
        }
        yaml.push_str(
            "
api:
  insecure: true # on the entry point named traefik
  dashboard: false
ping: {}
metrics:
  prometheus:
    addEntryPointsLabels: false
    addServicesLabels: false
    addRoutersLabels: true
    buckets: [1]

",
        );
    }

    fn providers(&self, yaml: &mut String) {
        let endpoints: Vec<String> = self.etcd.endpoints.iter().map(|endpoint| quoted(endpoint)).collect();
        let _ = write!(
            yaml,
            "providers:
  providersThrottleDuration: 0s # Pointsman gathers changes itself
  etcd:
    endpoints: [{}]
    rootKey: {}
",
            endpoints.join(", "),
            quoted(&self.etcd.root_key)
        );
        if let Some((user, password)) = &self.etcd.login {
            let _ = writeln!(yaml, "    username: {}", quoted(user));
            match password {
                Password::Text(password) => {
                    let _ = writeln!(yaml, "    password: {}", quoted(password));
                }
                Password::Placeholder => yaml.push_str("    password: \"\" # fill in; traefik-config --dir does it\n"),
            }
        }
        if let Some(tls) = &self.etcd.tls {
            yaml.push_str("    tls:\n      insecureSkipVerify: false\n");
            let files = tls.pair.as_ref().map(|(cert, key)| [("cert", cert), ("key", key)]);
            for (name, path) in tls.ca.iter().map(|ca| ("ca", ca)).chain(files.into_iter().flatten()) {
                let _ = writeln!(yaml, "      {name}: {}", quoted(path));
            }
        }
        match &self.dynamic_folder {
            Some(folder) => {
                let _ = write!(yaml, "  file:\n    directory: {}\n    watch: true\n", quoted(folder));
            }
            None => yaml.push_str(
                "# Without a default certificate Traefik makes a new key at every change of a route, which takes longer\n\
                 # than the change itself: traefik-config --dir writes one, and the provider that reads it.\n",
            ),
        }
    }
}

/// The dynamic configuration that names the default certificate, by its paths as Traefik sees them.
#[must_use]
pub fn certificate_yaml(certificate: &str, key: &str) -> String {
    format!(
        "# The certificate for whoever asks for no other, written by pointsman traefik-config.\n\
         tls:\n  stores:\n    default:\n      defaultCertificate:\n        certFile: {}\n        keyFile: {}\n",
        quoted(certificate),
        quoted(key)
    )
}

const ENCODED_CHARACTERS: [&str; 7] =
    ["Slash", "BackSlash", "NullCharacter", "Semicolon", "Percent", "QuestionMark", "Hash"];

/// Every JSON text is a YAML text, so nothing in it can become syntax.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
