//! What a route is: a prefix of the URL space, the server it leads to, and what the hub wants to remember about it.
//!
//! Plain values and functions: knows nothing about stores, Traefik, HTTP or time.

pub mod chain;
pub mod installation;
pub mod record;
pub mod spec;
pub mod table;
pub mod target;

pub use spec::{RouteSpec, SpecError};
pub use table::{RouteTable, Weight};
pub use target::{Target, TargetError, origin};

use jiff::Timestamp;

/// The JSON object that the hub posted, kept as it came (its `target` included).
pub type RouteData = serde_json::Map<String, serde_json::Value>;

/// How many levels of lists and objects a route's data may have, its own object included. The JSON library reads 128, and
/// data is stored inside of a record, which adds levels of its own.
pub const LEVELS_MAX: usize = 64;

/// Whether data has more levels than [`LEVELS_MAX`].
#[must_use]
pub fn is_too_deep(data: &RouteData) -> bool {
    data.values().any(|value| is_deeper(value, LEVELS_MAX - 1))
}

fn is_deeper(value: &serde_json::Value, levels: usize) -> bool {
    use serde_json::Value::{Array, Object};
    match value {
        Array(_) | Object(_) if levels == 0 => true,
        Array(values) => values.iter().any(|value| is_deeper(value, levels - 1)),
        Object(map) => map.values().any(|value| is_deeper(value, levels - 1)),
        _ => false,
    }
}

/// One route: where requests below a prefix go.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The prefix, in its only spelling.
    pub spec: RouteSpec,
    /// The server behind it.
    pub target: Target,
    /// What the hub posted; `GET /api/routes` gives it back.
    pub data: RouteData,
    /// When this prefix was first recorded; a later POST of the same prefix keeps it.
    pub created: Timestamp,
    /// The number of the record change that wrote this version of the route.
    pub n: u64,
}

/// Whether a `%` in `text` is not followed by two hexadecimal digits.
fn has_malformed_percent(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes
        .iter()
        .enumerate()
        .any(|(i, b)| *b == b'%' && !bytes.get(i + 1..i + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
}
