//! Rules: which requests a router takes, in Traefik's language.
//!
//! Traefik matches the path with every percent-escape decoded but those of reserved characters, so `/user/a@b` and
//! `/user/a%40b` are two texts to it. A rule of ours takes every spelling that reaches Traefik for one decoded prefix,
//! and whatever a user typed stays inside a literal or an escaped regular expression.

use std::fmt::Write as _;

use crate::route::RouteSpec;

/// Whether routes are told apart by path only, or by host and path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// By path.
    Paths,
    /// Host routing: the first segment of a routespec is the host.
    Hosts,
}

impl Space {
    /// Where a routespec lies: the text that bucket prefixes are cut from. The root is the empty text; a path begins with
    /// `/`; with host routing a place begins with its host.
    #[must_use]
    pub fn place(self, spec: &RouteSpec) -> &str {
        match self {
            _ if spec.is_root() => "",
            Self::Paths => spec.as_str(),
            Self::Hosts => &spec.as_str()[1..],
        }
    }

    /// Splits a place into host and path. Without host routing there is no host.
    fn split(self, place: &str) -> (Option<&str>, &str) {
        match self {
            Self::Paths => (None, place),
            Self::Hosts => place.find('/').map_or((Some(place), ""), |cut| (Some(&place[..cut]), &place[cut..])),
        }
    }
}

/// A rule, and the priority it must be given where Traefik's own (the length of its text) would rank it wrongly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The rule's text.
    pub text: String,
    /// An explicit priority.
    pub priority: Option<usize>,
}

/// Explicit priorities of routes begin here: above every rule whose priority is the length of its text.
const EXPLICIT_PRIORITY_BASE: usize = 100_000;

/// A literal is written out in every spelling up to this many characters that have two.
const TWO_SPELLINGS_MAX: u32 = 2;

/// Reserved characters, which Traefik leaves as they were sent, plain or escaped.
const PLAIN_OR_ESCAPED: &str = ":[]@!$&'()*+,;=";

/// Reserved characters that can only arrive escaped.
const ALWAYS_ESCAPED: &str = "%?#";

/// The rule of a route's own router: everything at or below its place, by whole segments. The place is not the root.
#[must_use]
pub fn route(space: Space, place: &str) -> Rule {
    let (host, path) = space.split(place);
    let (paths, ranked_by_length) = if path.is_empty() { (None, true) } else { whole_path(path) };
    let text = join(host, paths.as_deref());
    // A rule that spells a character in two ways is longer than its place, and host rules are shorter than the bucket
    // rules beside them, so both are ranked by the place instead.
    let priority = (space == Space::Hosts || !ranked_by_length).then(|| EXPLICIT_PRIORITY_BASE + place.len());
    Rule { text, priority }
}

/// The rule of a bucket: every place that begins with `prefix` or, if `whole`, every place at or below it. `None` if the
/// prefix can't be written as literals; such a bucket is never made.
#[must_use]
pub fn bucket(space: Space, prefix: &str, whole: bool) -> Option<String> {
    if prefix.is_empty() {
        return Some("PathPrefix(`/`)".to_owned());
    }
    if space == Space::Hosts && !prefix.contains('/') {
        return Some(if whole {
            format!("Host(`{prefix}`)")
        } else {
            format!("HostRegexp(`^{}`)", prefix.replace('.', "\\."))
        });
    }
    let (host, path) = space.split(prefix);
    let spellings = spellings(path)?;
    let paths: Vec<_> = spellings
        .iter()
        .map(|s| if whole { format!("PathPrefix(`{s}/`)||Path(`{s}`)") } else { format!("PathPrefix(`{s}`)") })
        .collect();
    Some(join(host, Some(&paths.join("||"))))
}

/// Reads back the prefix of a bucket from its rule; `None` if it isn't one that [`bucket`] writes.
#[must_use]
pub fn bucket_prefix(space: Space, text: &str) -> Option<(String, bool)> {
    if text == "PathPrefix(`/`)" {
        return Some((String::new(), false));
    }
    let mut literals = text.split('`').skip(1).step_by(2);
    let first = literals.next()?;
    let (prefix, whole) = if text.starts_with("HostRegexp(") {
        (first.strip_prefix('^')?.replace("\\.", "."), false)
    } else {
        let (host, path) = if space == Space::Hosts { (first, literals.next()) } else { ("", Some(first)) };
        let whole = path.is_none() || text.contains("Path(`");
        let path = path.unwrap_or_default();
        let path = if whole { path.strip_suffix('/').unwrap_or(path) } else { path };
        (format!("{host}{}", percent_encoding::percent_decode_str(path).decode_utf8().ok()?), whole)
    };
    (bucket(space, &prefix, whole).as_deref() == Some(text)).then_some((prefix, whole))
}

fn join(host: Option<&str>, paths: Option<&str>) -> String {
    match (host, paths) {
        (None, paths) => paths.unwrap_or_default().to_owned(),
        (Some(host), None) => format!("Host(`{host}`)"),
        (Some(host), Some(paths)) => format!("Host(`{host}`)&&({paths})"),
    }
}

/// Everything at or below `path`, and whether the length of the text ranks it rightly among the routes above and below.
fn whole_path(path: &str) -> (Option<String>, bool) {
    let Some(spellings) = spellings(path) else {
        return (Some(format!("PathRegexp(`^{}(?:/|$)`)", expression(path))), false);
    };
    let alternatives: Vec<_> = spellings.iter().map(|s| format!("PathPrefix(`{s}/`)||Path(`{s}`)")).collect();
    (Some(alternatives.join("||")), spellings.len() == 1)
}

/// Every text in which a decoded path can reach Traefik's matcher, the plainest first; `None` if there are too many, or
/// if one can't stand in a literal.
fn spellings(path: &str) -> Option<Vec<String>> {
    let two = path.chars().filter(|c| PLAIN_OR_ESCAPED.contains(*c)).count();
    if two > TWO_SPELLINGS_MAX as usize || !path.chars().all(fits_literal) {
        return None;
    }
    let mut spellings = vec![String::with_capacity(path.len() + 8)];
    for c in path.chars() {
        if PLAIN_OR_ESCAPED.contains(c) {
            let mut escaped = spellings.clone();
            extend_each(&mut spellings, |s| s.push(c));
            extend_each(&mut escaped, |s| push_escaped(s, c));
            spellings.append(&mut escaped);
        } else if ALWAYS_ESCAPED.contains(c) {
            extend_each(&mut spellings, |s| push_escaped(s, c));
        } else {
            extend_each(&mut spellings, |s| s.push(c));
        }
    }
    Some(spellings)
}

fn extend_each(spellings: &mut [String], extend: impl Fn(&mut String)) {
    for spelling in spellings {
        extend(spelling);
    }
}

/// Whether a character may stand in a backtick literal. Such a literal is raw text in Go, apart from the backtick that
/// ends it, carriage returns, which are dropped, and marks that its scanner refuses; we keep to what is surely plain.
fn fits_literal(c: char) -> bool {
    c.is_alphanumeric() || c == ' ' || (c.is_ascii_graphic() && c != '`')
}

/// A regular expression for exactly the spellings of a decoded path.
fn expression(path: &str) -> String {
    let mut out = String::with_capacity(path.len() * 2);
    for c in path.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '~') {
            out.push(c);
        } else if PLAIN_OR_ESCAPED.contains(c) {
            let _ = write!(out, "(?:\\x{{{:x}}}|", c as u32);
            push_escaped(&mut out, c);
            out.push(')');
        } else if ALWAYS_ESCAPED.contains(c) {
            push_escaped(&mut out, c);
        } else {
            let _ = write!(out, "\\x{{{:x}}}", c as u32);
        }
    }
    out
}

/// A regular expression for the beginning of a request's path, as it is sent on, that is the path of a place; `None` if
/// the place has none. Traefik has made plain what needs no escape, and has put hexadecimal digits into capitals.
#[must_use]
pub fn own_path(space: Space, place: &str) -> Option<String> {
    let (_, path) = space.split(place);
    if path.is_empty() {
        return None;
    }
    let mut out = String::from("^");
    for c in path.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '~') {
            out.push(c);
        } else if c == '.' {
            out.push_str("\\x{2e}");
        } else if ALWAYS_ESCAPED.contains(c) {
            push_escaped(&mut out, c);
        } else {
            let _ = write!(out, "(?:\\x{{{:x}}}|", c as u32);
            push_escaped(&mut out, c);
            out.push(')');
        }
    }
    out.push_str("(?:/|$)");
    Some(out)
}

fn push_escaped(out: &mut String, c: char) {
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        let _ = write!(out, "%{byte:02X}");
    }
}

#[cfg(test)]
pub(crate) mod tests;
