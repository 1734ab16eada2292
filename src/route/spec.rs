//! `RouteSpec`: one spelling for one prefix.

use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::has_malformed_percent;

/// A route prefix in its only spelling: begins with `/`, has no trailing `/` except the root, and is percent-decoded once.
///
/// Two spellings that the configurable-http-proxy takes for one route are one value: `/u/x%40y/` and `/u/x@y`, and also
/// `/a%2Fb` and `/a/b`, which the hub itself can't tell apart. With host routing the first segment is a host name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteSpec(Arc<str>);

/// Why a path is not a route prefix. Each message names what is wrong in the path, and is fit for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A `%` that isn't followed by two hexadecimal digits.
    #[error("the path has a '%' that is not followed by two hexadecimal digits; write a literal '%' as %25")]
    MalformedPercent,
    /// The decoded path isn't UTF-8.
    #[error("the path is not UTF-8 once percent-decoded")]
    NotUtf8,
    /// A segment that is `.` or `..`: clients, proxies and servers disagree on what it means.
    #[error("the path has the segment '{0}'; a route may not contain '.' or '..' segments")]
    DotSegment(String),
    /// Longer than [`RouteSpec::BYTES_MAX`].
    #[error("the path is {0} bytes long once decoded; the limit is {max}", max = RouteSpec::BYTES_MAX)]
    TooLong(usize),
    /// With host routing: the first segment can't be a host name.
    #[error("with host routing the first segment must be a host name, and '{0}' is not one")]
    NotAHost(String),
}

impl RouteSpec {
    /// The longest prefix that is accepted, in bytes after decoding.
    pub const BYTES_MAX: usize = 4096;

    /// The prefix of everything, `/`.
    #[must_use]
    pub fn root() -> Self {
        Self(Arc::from("/"))
    }

    /// Reads the percent-encoded path of an API call (what follows `/api/routes`).
    pub fn parse_encoded(path: &str) -> Result<Self, SpecError> {
        if has_malformed_percent(path) {
            return Err(SpecError::MalformedPercent);
        }
        let decoded = percent_decode_str(path).decode_utf8().map_err(|_| SpecError::NotUtf8)?;
        Self::from_decoded(&decoded)
    }

    /// Takes a path that is already decoded. Leading and trailing slashes carry no meaning.
    pub fn from_decoded(path: &str) -> Result<Self, SpecError> {
        let path = path.trim_matches('/');
        if path.len() >= Self::BYTES_MAX {
            return Err(SpecError::TooLong(path.len() + 1));
        }
        if let Some(dots) = path.split('/').find(|segment| matches!(*segment, "." | "..")) {
            return Err(SpecError::DotSegment(dots.to_owned()));
        }
        Ok(Self(Arc::from(format!("/{path}"))))
    }

    /// Checks what host routing asks of a prefix, and folds the case of its host: a `Host` header has none.
    pub fn with_host(self) -> Result<Self, SpecError> {
        if self.is_root() {
            return Ok(self);
        }
        let (host, rest) = self.0[1..].split_once('/').map_or((&self.0[1..], ""), |(host, rest)| (host, rest));
        let is_host =
            host.len() <= 253 && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !is_host {
            return Err(SpecError::NotAHost(host.to_owned()));
        }
        let host = host.to_ascii_lowercase();
        Ok(Self(if rest.is_empty() { format!("/{host}") } else { format!("/{host}/{rest}") }.into()))
    }

    /// The prefix as text, the key of `GET /api/routes`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// Whether `path` (decoded, beginning with `/`) lies at or below this prefix, by whole segments.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        self.is_root() || path.strip_prefix(&*self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The next shorter prefix, or `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.rfind('/').unwrap_or(0);
        Some(if cut == 0 { Self::root() } else { Self(Arc::from(&self.0[..cut])) })
    }
}

impl fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Escaped, so that a name with control characters can't forge lines in a log.
        write!(f, "{}", self.0.escape_debug())
    }
}

impl fmt::Debug for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", "/")]
    #[case("/", "/")]
    #[case("///", "/")]
    #[case("/a", "/a")]
    #[case("/a/", "/a")]
    #[case("//a//", "/a")]
    #[case("/%61", "/a")]
    #[case("/u/x%40y", "/u/x@y")]
    #[case("/u/x@y/", "/u/x@y")]
    #[case("/%e7%a7%80", "/秀")]
    #[case("/%E7%A7%80", "/秀")]
    #[case("/a%2Bb", "/a+b")]
    #[case("/a+b", "/a+b")]
    #[case("/a%20b", "/a b")]
    #[case("/a%2Fb", "/a/b")]
    #[case("/a%252Fb", "/a%2Fb")]
    #[case("/a%3Fb%23c", "/a?b#c")]
    #[case("/a//b", "/a//b")]
    #[case("/...", "/...")]
    #[case("/a%00b", "/a\0b")]
    fn one_spelling(#[case] sent: &str, #[case] key: &str) {
        assert_eq!(RouteSpec::parse_encoded(sent).expect("valid").as_str(), key);
    }

    #[rstest]
    #[case("/%zz", SpecError::MalformedPercent)]
    #[case("/a%", SpecError::MalformedPercent)]
    #[case("/a%4", SpecError::MalformedPercent)]
    #[case("/%ff", SpecError::NotUtf8)]
    #[case("/user/..", SpecError::DotSegment("..".into()))]
    #[case("/%2e%2E/a", SpecError::DotSegment("..".into()))]
    #[case("/a/./b", SpecError::DotSegment(".".into()))]
    fn refused(#[case] sent: &str, #[case] error: SpecError) {
        assert_eq!(RouteSpec::parse_encoded(sent), Err(error));
    }

    #[test]
    fn length_is_limited() {
        let fits = "a".repeat(RouteSpec::BYTES_MAX - 1);
        assert!(RouteSpec::from_decoded(&fits).is_ok());
        assert_eq!(RouteSpec::from_decoded(&(fits + "a")), Err(SpecError::TooLong(RouteSpec::BYTES_MAX + 1)));
    }

    #[test]
    fn hosts_are_checked_and_folded() {
        let host = |path: &str| RouteSpec::from_decoded(path).and_then(RouteSpec::with_host);
        assert_eq!(host("/Hub.Example.com/User/A").expect("a host").as_str(), "/hub.example.com/User/A");
        assert_eq!(host("/jane_40x.example.com").expect("a host").as_str(), "/jane_40x.example.com");
        assert_eq!(host("/").expect("root").as_str(), "/");
        assert_eq!(host("/a b/c"), Err(SpecError::NotAHost("a b".into())));
    }

    #[test]
    fn covers_whole_segments() {
        let spec = RouteSpec::from_decoded("/user/a").expect("valid");
        assert!(spec.covers("/user/a") && spec.covers("/user/a/") && spec.covers("/user/a/x"));
        assert!(!spec.covers("/user/ab") && !spec.covers("/user") && !spec.covers("/user/A"));
        assert!(RouteSpec::root().covers("/anything"));
    }

    #[test]
    fn parents_end_at_the_root() {
        let chain: Vec<_> = std::iter::successors(RouteSpec::from_decoded("/a/b").ok(), RouteSpec::parent)
            .map(|s| s.as_str().to_owned())
            .collect();
        assert_eq!(chain, ["/a/b", "/a", "/"]);
    }

    proptest! {
        #[test]
        fn encoding_does_not_matter(text in any::<String>(), mask in any::<u64>()) {
            // Any subset of the bytes may be escaped without changing which route is meant.
            let escaped: String = text
                .char_indices()
                .flat_map(|(i, c)| {
                    let must = !c.is_ascii_graphic() || c == '%';
                    if must || mask >> (i % 64) & 1 == 1 {
                        let mut buffer = [0; 4];
                        c.encode_utf8(&mut buffer).bytes().map(|b| format!("%{b:02x}")).collect::<Vec<_>>()
                    } else {
                        vec![c.to_string()]
                    }
                })
                .collect();
            prop_assert_eq!(RouteSpec::parse_encoded(&escaped), RouteSpec::from_decoded(&text));
        }

        #[test]
        fn reading_a_spec_again_changes_nothing(text in any::<String>()) {
            if let Ok(spec) = RouteSpec::from_decoded(&text) {
                prop_assert_eq!(RouteSpec::from_decoded(spec.as_str()), Ok(spec.clone()));
                prop_assert!(spec.as_str().starts_with('/'));
                prop_assert!(spec.is_root() || !spec.as_str().ends_with('/'));
            }
        }
    }
}
