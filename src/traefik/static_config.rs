//! Traefik's static configuration, as YAML: what it must be told at start so that the keys in etcd do what they should.
//!
//! Traefik doesn't start with an option that it doesn't know, and with a file it ignores all its flags: so everything
//! stands in this one file, and what depends on its version is written for that version.

use std::fmt::Write as _;
use std::time::Duration;

use super::version::TraefikVersion;

/// What differs from one installation to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticConfig {
    /// The release it is written for.
    pub version: TraefikVersion,
    /// Name and `host:port` of each entry point for users.
    pub entry_points: Vec<(String, String)>,
    /// What holds for all of them.
    pub public: Public,
    /// Where Traefik's API, ping and metrics listen: for us only.
    pub private: Private,
    /// How long new requests are taken after SIGTERM, until balancers have heard of it.
    pub accept: Duration,
    /// How long open requests may go on after that.
    pub grace: Duration,
    /// Where the routes come from.
    pub source: Source,
    /// Whom Traefik asks for the routes while its source has none.
    pub fallback: Option<FallbackProvider>,
    /// A folder with more dynamic configuration, as Traefik sees it: the default certificate.
    pub dynamic_folder: Option<String>,
    /// `DEBUG`, `INFO`, `WARN` or `ERROR`.
    pub log_level: String,
    /// One JSON object a line.
    pub log_json: bool,
}

/// What the entry points for users are like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Public {
    /// They speak TLS.
    pub tls: bool,
    /// Address of one more that sends users to https, and the port that it sends them to.
    pub redirect: Option<(String, u16)>,
    /// Whose `X-Forwarded-*` headers are believed.
    pub trusted: Trusted,
    /// Balancers that speak the PROXY protocol.
    pub proxy_protocol_ips: Vec<String>,
    /// How long a request may take to arrive, its body included.
    pub request_timeout: Duration,
    /// How long a connection may be idle, if it isn't Traefik's default.
    pub idle_timeout: Option<Duration>,
    /// Request headers are removed whose names many servers read as another header's, such as `X_Given` for `X-Given`.
    pub drop_alias_headers: bool,
    /// Where each request is logged, if anywhere.
    pub access_log: Option<AccessLog>,
}

/// Whose `X-Forwarded-*` headers are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// Everybody's.
    Everybody,
    /// Those of these addresses.
    Ranges(Vec<String>),
}

impl Default for Trusted {
    fn default() -> Self {
        Self::Ranges(Vec::new())
    }
}

/// Where requests are logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Beside Traefik's log.
    Log,
    /// In this file.
    File(String),
}

/// The private entry point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Private {
    /// Open to whoever reaches this address.
    Open(String),
    /// At this address, and reached by way of routers of the dynamic file that ask for a key.
    Keyed(String),
}

/// The longest request line with headers, in bytes. Go adds 4,096 to it before it refuses with 431.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How long a request to the private entry point may take to arrive: nothing there is longer than our own tree.
const PRIVATE_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The name of a private entry point that asks for a key.
pub const KEYED_ENTRY_POINT: &str = "private";

/// The names of private entry points: no user comes in there.
pub const PRIVATE_ENTRY_POINTS: [&str; 2] = ["traefik", KEYED_ENTRY_POINT];

/// The name of the entry point that sends users to https.
pub const REDIRECT_ENTRY_POINT: &str = "redirect";

/// Where Traefik's routes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// It follows etcd.
    Etcd(EtcdProvider),
    /// They are pushed to its REST provider.
    Push,
}

/// How Traefik asks Pointsman for the fallback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackProvider {
    /// The whole URL.
    pub endpoint: String,
    /// The header with the key.
    pub key_header: &'static str,
    /// The key: whoever has it can list the routes.
    pub key: String,
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
        if let Some((address, to)) = &self.public.redirect {
            self.redirect_entry_point(&mut yaml, address, *to);
        }
        self.private_entry_point(&mut yaml);
        self.providers(&mut yaml);
        yaml
    }

    fn public_entry_point(&self, yaml: &mut String, name: &str, address: &str) {
        let _ = write!(yaml, "  {}:\n    address: {}\n", quoted(name), quoted(address));
        self.public_transport(yaml);
        match &self.public.trusted {
            Trusted::Everybody => yaml.push_str(
                "    forwardedHeaders:
      insecure: true # everybody is believed, as by configurable-http-proxy; narrow it with --trusted-ips
",
            ),
            Trusted::Ranges(ranges) if ranges.is_empty() => yaml.push_str(
                "    # X-Forwarded headers are believed of nobody: else each client could claim an address and https.
    # Behind a balancer that ends TLS, name its addresses with --trusted-ips.
",
            ),
            Trusted::Ranges(ranges) => {
                let _ = write!(yaml, "    forwardedHeaders:\n      trustedIPs: {}\n", list(ranges));
            }
        }
        if !self.public.proxy_protocol_ips.is_empty() {
            let ranges = list(&self.public.proxy_protocol_ips);
            let _ = write!(yaml, "    proxyProtocol:\n      trustedIPs: {ranges}\n");
        }
        self.http(yaml);
        if self.public.tls {
            yaml.push_str("      tls: {}\n");
        }
    }

    /// What holds for the requests of every entry point, the redirecting and the private one too.
    fn http(&self, yaml: &mut String) {
        let _ = write!(
            yaml,
            "    http:
      maxHeaderBytes: {HEAD_BYTES_MAX} # a longer head is answered with 431
      sanitizePath: false # paths are passed on as sent, also with //
      encodeQuerySemicolons: true # else ?a;b becomes ?a&b
"
        );
        let strategy = if self.public.drop_alias_headers {
            "delete # X_Given must not reach a server that reads it as X-Given"
        } else {
            "keep # names such as X_Under pass, and no warning at each start"
        };
        if self.version >= TraefikVersion::ALIAS_HEADERS {
            let _ = writeln!(yaml, "      aliasHeadersStrategy: {strategy}");
        } else if self.version >= TraefikVersion::UNDERSCORE_HEADERS {
            let _ = writeln!(yaml, "      underscoreHeadersStrategy: {strategy}");
        }
        yaml.push_str("      encodedCharacters: # user names may hold any of them\n");
        for character in ENCODED_CHARACTERS {
            let _ = writeln!(yaml, "        allowEncoded{character}: true");
        }
    }

    fn public_transport(&self, yaml: &mut String) {
        self.transport(yaml, self.public.request_timeout, self.public.idle_timeout);
    }

    fn transport(&self, yaml: &mut String, request_timeout: Duration, idle_timeout: Option<Duration>) {
        let _ = write!(
            yaml,
            "    transport:
      respondingTimeouts:
        readTimeout: {}ms # for the whole request, uploads too: Traefik has no limit for the head alone
",
            request_timeout.as_millis()
        );
        if let Some(timeout) = idle_timeout {
            let _ = writeln!(yaml, "        idleTimeout: {}ms", timeout.as_millis());
        }
        yaml.push_str("      lifeCycle:\n");
        if !self.accept.is_zero() {
            let _ = writeln!(yaml, "        requestAcceptGraceTimeout: {}ms", self.accept.as_millis());
        }
        let _ = writeln!(yaml, "        graceTimeOut: {}ms", self.grace.as_millis());
    }

    fn redirect_entry_point(&self, yaml: &mut String, address: &str, to: u16) {
        let _ = write!(yaml, "  {REDIRECT_ENTRY_POINT}:\n    address: {}\n", quoted(address));
        self.public_transport(yaml);
        self.http(yaml);
        let _ = write!(
            yaml,
            "      redirections:
        entryPoint:
          to: \":{to}\"
          scheme: https
          permanent: true
"
        );
    }

    fn private_entry_point(&self, yaml: &mut String) {
        let (name, address, comment) = match &self.private {
            Private::Open(address) => {
                ("traefik", address, "without a password: only Pointsman and probes may reach this address")
            }
            Private::Keyed(address) => (KEYED_ENTRY_POINT, address, "for whoever knows the key of the dynamic file"),
        };
        let _ = write!(
            yaml,
            "  # Traefik's API, ping and metrics, {comment}.\n  {name}:\n    address: {}\n",
            quoted(address)
        );
        // As long as users come in, changes must be seen to arrive.
        self.transport(yaml, PRIVATE_REQUEST_TIMEOUT, None);
        self.http(yaml);
        let keyed = matches!(self.private, Private::Keyed(_));
        yaml.push_str(if keyed {
            "\napi:\n  dashboard: false\nping:\n  manualRouting: true\nmetrics:\n  prometheus:\n    manualRouting: true\n"
        } else {
            "\napi:\n  insecure: true # on the entry point named traefik\n  dashboard: false\nping: {}\nmetrics:\n  prometheus:\n"
        });
        yaml.push_str(
            "    addEntryPointsLabels: true
    addServicesLabels: false
    addRoutersLabels: true
    buckets: [1]

",
        );
        match &self.public.access_log {
            None => {}
            Some(AccessLog::Log) => yaml.push_str("accessLog: {}\n\n"),
            Some(AccessLog::File(path)) => {
                let _ = write!(yaml, "accessLog:\n  filePath: {}\n\n", quoted(path));
            }
        }
    }

    fn providers(&self, yaml: &mut String) {
        yaml.push_str("providers:\n  providersThrottleDuration: 0s # Pointsman gathers changes itself\n");
        match &self.source {
            Source::Etcd(etcd) => etcd.write(yaml),
            Source::Push => yaml.push_str("  rest: {} # Pointsman sends the routes\n"),
        }
        if let Some(fallback) = &self.fallback {
            fallback.write(yaml);
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

impl FallbackProvider {
    fn write(&self, yaml: &mut String) {
        let _ = write!(
            yaml,
            "  http: # Pointsman has the routes for a Traefik that starts while etcd is away
    endpoint: {}
    pollInterval: 2s
    pollTimeout: 5s
    headers:
      {}: {} # follows from the API's token; opens the list of routes
",
            quoted(&self.endpoint),
            self.key_header,
            quoted(&self.key)
        );
    }
}

impl EtcdProvider {
    fn write(&self, yaml: &mut String) {
        let _ = write!(
            yaml,
            "  etcd:\n    endpoints: {}\n    rootKey: {}\n",
            list(&self.endpoints),
            quoted(&self.root_key)
        );
        if let Some((user, password)) = &self.login {
            let _ = writeln!(yaml, "    username: {}", quoted(user));
            match password {
                Password::Text(password) => {
                    let _ = writeln!(yaml, "    password: {}", quoted(password));
                }
                Password::Placeholder => yaml.push_str("    password: \"\" # fill in; traefik-config --dir does it\n"),
            }
        }
        if let Some(tls) = &self.tls {
            yaml.push_str("    tls:\n      insecureSkipVerify: false\n");
            let files = tls.pair.as_ref().map(|(cert, key)| [("cert", cert), ("key", key)]);
            for (name, path) in tls.ca.iter().map(|ca| ("ca", ca)).chain(files.into_iter().flatten()) {
                let _ = writeln!(yaml, "      {name}: {}", quoted(path));
            }
        }
    }
}

const ENCODED_CHARACTERS: [&str; 7] =
    ["Slash", "BackSlash", "NullCharacter", "Semicolon", "Percent", "QuestionMark", "Hash"];

fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// Every JSON text is a YAML text, so nothing in it can become syntax.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
