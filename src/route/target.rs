//! `Target`: where a route leads.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::has_malformed_percent;

/// The URL of a server: one that Traefik can dial, or a Unix socket, which it reaches through a forwarder of ours. Nothing
/// else can be built.
///
/// It keeps two texts: the one the hub sent, which it compares with its own, and the normalised one for Traefik.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    sent: Arc<str>,
    /// Of a Unix socket, only the path in the URL.
    dial: Arc<str>,
    unix: Option<Arc<str>>,
    has_path: bool,
}

/// Why a text is not a target. Each message is fit for the caller; none repeats credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Longer than [`Target::BYTES_MAX`].
    #[error("'target' is longer than {max} bytes", max = Target::BYTES_MAX)]
    TooLong,
    /// White space, a control character, or a character that must be percent-encoded in a URL.
    #[error("'target' contains the character {0:?}, which can't stand in a URL")]
    BadCharacter(char),
    /// Not an absolute URL.
    #[error("'target' is not a URL ({0}); write it as http://HOST:PORT")]
    NotAUrl(String),
    /// A Unix socket where only TCP can be reached. [`Target::parse`] itself never says so.
    #[error(
        "'target' is a Unix socket, which can be reached only where Pointsman runs Traefik itself, without \
         --etcd-endpoints; let the server listen on TCP, as http://HOST:PORT"
    )]
    UnixSocket,
    /// A Unix socket without a path, or with one that isn't absolute.
    #[error(
        "'target' names no absolute path of a Unix socket; percent-encode it, slashes too, as \
         http+unix://%2Frun%2Fserver.sock"
    )]
    SocketPath,
    /// A path that no socket can have.
    #[error("'target' names a Unix socket whose path is longer than {max} bytes", max = Target::SOCKET_BYTES_MAX)]
    SocketPathTooLong,
    /// A scheme other than http and https.
    #[error("'target' has the scheme '{0}'; use http or https")]
    Scheme(String),
    /// No host.
    #[error("'target' names no host; write it as http://HOST:PORT")]
    NoHost,
    /// User information in the URL.
    #[error("'target' carries a user name or password; remove the part before '@'")]
    Credentials,
    /// A query or fragment, which Traefik would drop.
    #[error("'target' has a query or fragment; remove everything from '{0}' on")]
    Tail(char),
    /// Port 0.
    #[error("'target' has port 0; name the port that the server listens on")]
    PortZero,
}

impl Target {
    /// The longest target that is accepted, in bytes.
    pub const BYTES_MAX: usize = 2048;

    /// The longest path of a Unix socket that the kernel takes, in bytes.
    pub const SOCKET_BYTES_MAX: usize = 107;

    /// Checks what the hub sent.
    pub fn parse(sent: &str) -> Result<Self, TargetError> {
        if sent.len() > Self::BYTES_MAX {
            return Err(TargetError::TooLong);
        }
        // The URL standard silently drops or rewrites these; Traefik's parser doesn't, so neither may pass.
        let bad = |c: &char| {
            !c.is_ascii_graphic() && !c.is_alphanumeric()
                || matches!(c, '\\' | '`' | '"' | '<' | '>' | '{' | '}' | '|' | '^')
        };
        if let Some(c) = sent.chars().find(bad) {
            return Err(TargetError::BadCharacter(c));
        }
        let url = Url::parse(sent).map_err(|e| TargetError::NotAUrl(e.to_string()))?;
        match url.scheme() {
            "http" | "https" => {}
            "http+unix" | "unix+http" => return Self::parse_unix(sent),
            other => return Err(TargetError::Scheme(other.to_owned())),
        }
        // `Url::parse` mends `http:host` and `http:///host`; what the hub compares must be what Traefik dials.
        let after_scheme = &sent[sent.find(':').map_or(0, |i| i + 1)..];
        if !after_scheme.starts_with("//") || after_scheme.starts_with("///") {
            return Err(TargetError::NoHost);
        }
        match url.host() {
            None => return Err(TargetError::NoHost),
            Some(Host::Domain(name))
                if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) =>
            {
                let c = name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'));
                return Err(TargetError::BadCharacter(c.unwrap_or(' ')));
            }
            Some(_) => {}
        }
        if !url.username().is_empty()
            || url.password().is_some()
            || after_scheme[2..].split(['/', '?', '#']).next().is_some_and(|a| a.contains('@'))
        {
            return Err(TargetError::Credentials);
        }
        if url.query().is_some() {
            return Err(TargetError::Tail('?'));
        }
        if url.fragment().is_some() {
            return Err(TargetError::Tail('#'));
        }
        if url.port() == Some(0) {
            return Err(TargetError::PortZero);
        }
        if has_malformed_percent(url.path()) {
            return Err(TargetError::BadCharacter('%'));
        }
        let has_path = url.path() != "/";
        let dial = if has_path { url.as_str() } else { url.as_str().trim_end_matches('/') };
        Ok(Self { sent: Arc::from(sent), dial: Arc::from(dial), unix: None, has_path })
    }

    /// Reads `http+unix://SOCKET/PATH`, where SOCKET is the percent-encoded path of the socket.
    fn parse_unix(sent: &str) -> Result<Self, TargetError> {
        let rest = sent.split_once("://").ok_or(TargetError::SocketPath)?.1;
        if let Some(c) = rest.chars().find(|c| matches!(c, '?' | '#')) {
            return Err(TargetError::Tail(c));
        }
        let (socket, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if socket.contains('@') {
            return Err(TargetError::Credentials);
        }
        // A port makes no sense here, and a colon in a file's name is percent-encoded by whoever encodes at all.
        if let Some(c) = socket.chars().find(|c| matches!(c, ':' | '[' | ']')) {
            return Err(TargetError::BadCharacter(c));
        }
        if has_malformed_percent(rest) {
            return Err(TargetError::BadCharacter('%'));
        }
        let socket = percent_decode_str(socket).decode_utf8().map_err(|_| TargetError::BadCharacter('%'))?;
        if let Some(c) = socket.chars().find(|c| c.is_control()) {
            return Err(TargetError::BadCharacter(c));
        }
        if !socket.starts_with('/') || socket.ends_with('/') {
            return Err(TargetError::SocketPath);
        }
        if socket.len() > Self::SOCKET_BYTES_MAX {
            return Err(TargetError::SocketPathTooLong);
        }
        let path = path.strip_suffix('/').filter(|path| path.is_empty()).unwrap_or(path);
        let url = Url::parse(&format!("http://socket{path}")).map_err(|e| TargetError::NotAUrl(e.to_string()))?;
        let has_path = url.path() != "/";
        let dial = if has_path { url.path() } else { "" };
        Ok(Self { sent: Arc::from(sent), dial: Arc::from(dial), unix: Some(Arc::from(&*socket)), has_path })
    }

    /// The target as the hub sent it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.sent
    }

    /// The URL for Traefik, in normal form. A Unix socket has none of its own: it is dialled by [`Target::dial_at`], and
    /// what is given here is only the path, which nobody can dial.
    #[must_use]
    pub fn dial_url(&self) -> &str {
        &self.dial
    }

    /// Whether the server speaks TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.dial.starts_with("https:")
    }

    /// The absolute path of the Unix socket, if the target is one.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        self.unix.as_deref().map(Path::new)
    }

    /// The URL for Traefik of a Unix socket that is reached by a forwarder at `address`.
    #[must_use]
    pub fn dial_at(&self, address: SocketAddr) -> String {
        format!("http://{address}{}", self.dial)
    }

    /// Whether the URL has a path of its own, which is put in front of each request's path.
    #[must_use]
    pub fn has_path(&self) -> bool {
        self.has_path
    }
}

/// A URL for Traefik without its path.
#[must_use]
pub fn origin(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |at| at + 3);
    url[authority..].find('/').map_or(url, |at| &url[..authority + at])
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sent)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.sent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://10.1.2.3:8888", "http://10.1.2.3:8888", false)]
    #[case("http://10.1.2.3:8888/", "http://10.1.2.3:8888", false)]
    #[case("HTTP://Hub:80", "http://hub", false)]
    #[case("https://[::1]:8443", "https://[::1]:8443", false)]
    #[case("http://my_pod.ns:8888/base/", "http://my_pod.ns:8888/base/", true)]
    #[case("http://127.0.0.1:1/a%20b", "http://127.0.0.1:1/a%20b", true)]
    fn accepted(#[case] sent: &str, #[case] dial: &str, #[case] has_path: bool) {
        let target = Target::parse(sent).expect("valid");
        assert_eq!((target.as_str(), target.dial_url(), target.has_path()), (sent, dial, has_path));
    }

    #[rstest]
    #[case("", TargetError::NotAUrl("relative URL without a base".into()))]
    #[case("nonsense", TargetError::NotAUrl("relative URL without a base".into()))]
    #[case("ftp://host:21", TargetError::Scheme("ftp".into()))]
    #[case("ws://host:21", TargetError::Scheme("ws".into()))]
    #[case("http+unix://", TargetError::SocketPath)]
    #[case("http+unix:///run/sock", TargetError::SocketPath)]
    #[case("http+unix://run%2Fsock", TargetError::SocketPath)]
    #[case("http+unix://.%2Fsock", TargetError::SocketPath)]
    #[case("http+unix://%2F", TargetError::SocketPath)]
    #[case("http+unix:%2Frun%2Fsock", TargetError::SocketPath)]
    #[case("unix+http://", TargetError::SocketPath)]
    #[case("http+unix://%2Frun%2Fsock%00", TargetError::BadCharacter('\0'))]
    #[case("http+unix://%2Frun%2Fsock:80", TargetError::BadCharacter(':'))]
    #[case("http+unix://%2Frun%2F%ff", TargetError::BadCharacter('%'))]
    #[case("http+unix://%2Frun%2Fsock?q", TargetError::Tail('?'))]
    #[case("http+unix://u@%2Frun%2Fsock", TargetError::Credentials)]
    #[case("https+unix://%2Frun%2Fsock", TargetError::Scheme("https+unix".into()))]
    #[case("unix:///run/sock", TargetError::Scheme("unix".into()))]
    #[case("http://", TargetError::NotAUrl("empty host".into()))]
    #[case("http:///x", TargetError::NoHost)]
    #[case("http:host:80", TargetError::NoHost)]
    #[case("http://user:secret@host:80", TargetError::Credentials)]
    #[case("http://@host:80", TargetError::Credentials)]
    #[case("http://host:80\n", TargetError::BadCharacter('\n'))]
    #[case("http://ho st", TargetError::BadCharacter(' '))]
    #[case("http://host`", TargetError::BadCharacter('`'))]
    #[case("http://host/?q", TargetError::Tail('?'))]
    #[case("http://host/#f", TargetError::Tail('#'))]
    #[case("http://host:0", TargetError::PortZero)]
    #[case("http://host/%zz", TargetError::BadCharacter('%'))]
    #[case("http://ho,st/", TargetError::BadCharacter(','))]
    fn refused(#[case] sent: &str, #[case] error: TargetError) {
        assert_eq!(Target::parse(sent), Err(error));
    }

    #[rstest]
    #[case("http+unix://%2Fsrv%2Fhub%2Fproxy.sock", "/srv/hub/proxy.sock", "http://127.0.0.1:81")]
    #[case("http+unix://%2Frun%2Fx.sock/", "/run/x.sock", "http://127.0.0.1:81")]
    #[case("unix+http://%2frun%2fa%20b.sock", "/run/a b.sock", "http://127.0.0.1:81")]
    #[case("HTTP+unix://%2Frun%2F%E7%A7%80.sock", "/run/秀.sock", "http://127.0.0.1:81")]
    #[case("http+unix://%2Frun%2Fx.sock/base/", "/run/x.sock", "http://127.0.0.1:81/base/")]
    fn unix_sockets(#[case] sent: &str, #[case] path: &str, #[case] dial: &str) {
        let target = Target::parse(sent).expect("valid");
        assert_eq!((target.as_str(), target.unix_path()), (sent, Some(Path::new(path))));
        assert_eq!(target.dial_at(([127, 0, 0, 1], 81).into()), dial);
        assert_eq!(target.has_path(), dial.ends_with("/base/"));
        assert_eq!(Target::parse("http://x").expect("valid").unix_path(), None);
    }

    #[test]
    fn a_socket_path_has_a_limit() {
        let url = |length: usize| format!("http+unix://%2F{}", "x".repeat(length - 1));
        assert!(Target::parse(&url(Target::SOCKET_BYTES_MAX)).is_ok());
        assert_eq!(Target::parse(&url(Target::SOCKET_BYTES_MAX + 1)), Err(TargetError::SocketPathTooLong));
    }

    proptest! {
        #[test]
        fn every_absolute_path_comes_through(path in "/[^\\x00-\\x1f\\x7f-\\u{9f}]{0,24}[^/\\x00-\\x1f\\x7f-\\u{9f}]") {
            let encoded = percent_encoding::utf8_percent_encode(&path, percent_encoding::NON_ALPHANUMERIC);
            let target = Target::parse(&format!("http+unix://{encoded}")).expect("valid");
            prop_assert_eq!(target.unix_path(), Some(Path::new(&path)));
        }

        #[test]
        fn no_text_breaks_the_reader(text in any::<String>(), socket in any::<String>()) {
            let _ = Target::parse(&text);
            if let Ok(target) = Target::parse(&format!("http+unix://{socket}")) {
                prop_assert!(target.unix_path().is_some_and(Path::is_absolute));
            }
        }
    }

    #[test]
    fn a_refusal_never_repeats_the_password() {
        let error = Target::parse("http://user:hunter2@host:80").expect_err("credentials");
        assert!(!error.to_string().contains("hunter2"));
    }
}
