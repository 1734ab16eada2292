//! `Target`: where a route leads.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use url::{Host, Url};

use super::has_malformed_percent;

/// The URL of a server that Traefik can dial; nothing else can be built.
///
/// It keeps two texts: the one the hub sent, which it compares with its own, and the normalised one for Traefik.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    sent: Arc<str>,
    dial: Arc<str>,
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
    /// A Unix socket, which Traefik can't dial.
    #[error("'target' is a Unix socket, which Traefik can't reach; let the server listen on TCP, as http://HOST:PORT")]
    UnixSocket,
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
            "http+unix" | "unix+http" | "https+unix" | "unix" => return Err(TargetError::UnixSocket),
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
        Ok(Self { sent: Arc::from(sent), dial: Arc::from(dial), has_path })
    }

    /// The target as the hub sent it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.sent
    }

    /// The URL for Traefik, in normal form.
    #[must_use]
    pub fn dial_url(&self) -> &str {
        &self.dial
    }

    /// The URL for Traefik without its path.
    #[must_use]
    pub fn origin(&self) -> &str {
        let authority = self.dial.find("://").map_or(0, |at| at + 3);
        self.dial[authority..].find('/').map_or(&*self.dial, |at| &self.dial[..authority + at])
    }

    /// Whether the server speaks TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.dial.starts_with("https:")
    }

    /// The Unix socket that the server listens on, if it is one.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        None
    }

    /// Whether the URL has a path of its own, which is put in front of each request's path.
    #[must_use]
    pub fn has_path(&self) -> bool {
        self.has_path
    }
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
    #[case("http+unix://%2Frun%2Fsock", TargetError::UnixSocket)]
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

    #[test]
    fn a_refusal_never_repeats_the_password() {
        let error = Target::parse("http://user:hunter2@host:80").expect_err("credentials");
        assert!(!error.to_string().contains("hunter2"));
    }
}
