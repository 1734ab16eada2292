//! How a route and the head are written in the store: keys and values of the records tree.
//!
//! ```text
//! PREFIX/hub/head                    1 <epoch> <n> <nonce>
//! PREFIX/hub/installation            whose records these are: see `installation`
//! PREFIX/hub/routes/user/jane%40x    {"v":1,"spec":"/user/jane@x","target":"http://…","data":{…},"n":7,"created":"…"}
//! ```

use std::fmt;

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::{Deserialize, Serialize};

use super::{Route, RouteData, RouteSpec, Target};

/// What stays readable in a key. Everything else is escaped, so a name can't leave its place in the tree.
const READABLE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The version of the record format that this program writes; it reads this one only.
const FORMAT: u32 = 1;

/// Where the records of one installation lie in the store.
#[derive(Debug, Clone)]
pub struct RecordKeys {
    prefix: String,
}

impl RecordKeys {
    /// Records below `prefix`, which is written without a trailing slash.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: format!("{}/hub/", prefix.trim_end_matches('/')) }
    }

    /// The prefix of all records, with its trailing slash.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of the head.
    #[must_use]
    pub fn head(&self) -> String {
        format!("{}head", self.prefix)
    }

    /// The key that says whose records these are.
    #[must_use]
    pub fn installation(&self) -> String {
        format!("{}installation", self.prefix)
    }

    /// A key beside the records that is written again and again when the store's revision has to grow.
    #[must_use]
    pub fn push(&self) -> String {
        format!("{}-push", self.prefix.trim_end_matches('/'))
    }

    /// The key of one route's record.
    #[must_use]
    pub fn route(&self, spec: &RouteSpec) -> String {
        format!("{}routes{}", self.prefix, percent_encode(spec.as_str().as_bytes(), READABLE))
    }

    /// Whether `key` is the place of a route's record.
    #[must_use]
    pub fn is_route(&self, key: &str) -> bool {
        key.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with("routes/"))
    }
}

/// The number of the last record change, and who made it. Every transaction that changes records compares and moves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Names one unbroken history of the records; a wiped store begins another.
    pub epoch: String,
    /// Counts the transactions that changed records.
    pub n: u64,
    /// Drawn by the writer for each transaction: it knows its own commit again when the answer got lost.
    pub nonce: String,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORMAT} {} {} {}", self.epoch, self.n, self.nonce)
    }
}

impl Head {
    /// Reads the value of the head's key.
    pub fn parse(value: &[u8]) -> Result<Self, RecordError> {
        let text = std::str::from_utf8(value).map_err(|_| RecordError::Head)?;
        let [format, epoch, n, nonce] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(RecordError::Head) };
        if format != FORMAT.to_string() {
            return Err(RecordError::Format(format.to_owned()));
        }
        if epoch.is_empty() || !epoch.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(RecordError::Head);
        }
        let n = n.parse().map_err(|_| RecordError::Head)?;
        Ok(Self { epoch: epoch.to_owned(), n, nonce: nonce.to_owned() })
    }
}

/// Why a value in the records tree can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The head isn't `FORMAT EPOCH N NONCE`.
    #[error("the head is malformed")]
    Head,
    /// Written by a version of Pointsman that uses another format.
    #[error("it has format {0}, and this version of Pointsman reads format {FORMAT}")]
    Format(String),
    /// Not the JSON of a record.
    #[error("it is not a record: {0}")]
    Json(String),
    /// The record's own prefix or target is refused.
    #[error("its {field} is refused: {reason}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Why.
        reason: String,
    },
    /// The record lies under a key that isn't its own.
    #[error("it describes {0:?}, whose key is another one")]
    WrongKey(String),
}

#[derive(Serialize, Deserialize)]
struct Record {
    v: u32,
    spec: String,
    target: String,
    data: RouteData,
    n: u64,
    created: Timestamp,
}

/// Writes the record of a route.
///
/// # Panics
///
/// Never: a record is made of text, numbers and JSON values, which can always be written.
#[must_use]
pub fn encode(route: &Route) -> Vec<u8> {
    let record = Record {
        v: FORMAT,
        spec: route.spec.as_str().to_owned(),
        target: route.target.as_str().to_owned(),
        data: route.data.clone(),
        n: route.n,
        created: route.created,
    };
    serde_json::to_vec(&record).expect("a record is made of text, numbers and JSON values")
}

/// Reads the record under `key`.
pub fn decode(keys: &RecordKeys, key: &str, value: &[u8]) -> Result<Route, RecordError> {
    let route = parse(value)?;
    if keys.route(&route.spec) != key {
        return Err(RecordError::WrongKey(route.spec.as_str().to_owned()));
    }
    Ok(route)
}

/// Reads a record, wherever it lies.
pub fn parse(value: &[u8]) -> Result<Route, RecordError> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let json = |e: serde_json::Error| RecordError::Json(e.to_string());
    let version: Version = serde_json::from_slice(value).map_err(json)?;
    if version.v != FORMAT {
        return Err(RecordError::Format(version.v.to_string()));
    }
    let record: Record = serde_json::from_slice(value).map_err(json)?;
    let spec = RouteSpec::from_decoded(&record.spec)
        .map_err(|e| RecordError::Field { field: "spec", reason: e.to_string() })?;
    let target =
        Target::parse(&record.target).map_err(|e| RecordError::Field { field: "target", reason: e.to_string() })?;
    Ok(Route { spec, target, data: record.data, created: record.created, n: record.n })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(path: &str) -> Route {
        let data = serde_json::json!({"target": "http://10.0.0.1:8888", "user": "jane", "x": {"deep": [1, null]}});
        Route {
            spec: RouteSpec::from_decoded(path).expect("valid"),
            target: Target::parse("http://10.0.0.1:8888").expect("valid"),
            data: data.as_object().expect("an object").clone(),
            created: "2026-01-02T03:04:05.678Z".parse().expect("a time"),
            n: 7,
        }
    }

    #[test]
    fn a_key_is_readable_and_escaped() {
        let keys = RecordKeys::new("pointsman");
        assert_eq!(keys.route(&RouteSpec::root()), "pointsman/hub/routes/");
        let spec = RouteSpec::from_decoded("/user/jane@x.org/a b").expect("valid");
        assert_eq!(keys.route(&spec), "pointsman/hub/routes/user/jane%40x.org/a%20b");
    }

    #[test]
    fn a_record_of_another_format_is_named() {
        let keys = RecordKeys::new("p");
        let error = decode(&keys, "p/hub/routes/a", br#"{"v":2,"new":true}"#).expect_err("another format");
        assert_eq!(error, RecordError::Format("2".into()));
    }

    #[test]
    fn a_record_under_a_foreign_key_is_refused() {
        let keys = RecordKeys::new("p");
        let error = decode(&keys, "p/hub/routes/b", &encode(&route("/a"))).expect_err("a foreign key");
        assert_eq!(error, RecordError::WrongKey("/a".into()));
    }

    #[test]
    fn the_head_reads_what_it_wrote() {
        let head = Head { epoch: "e1".into(), n: 12, nonce: "x".into() };
        assert_eq!(Head::parse(head.to_string().as_bytes()), Ok(head));
        for bad in ["", "1 e 1", "1 e x y", "1  1 y", "1 e.f 1 y"] {
            assert_eq!(Head::parse(bad.as_bytes()), Err(RecordError::Head), "{bad:?}");
        }
        assert_eq!(Head::parse(b"2 e 1 y"), Err(RecordError::Format("2".into())));
    }

    proptest! {
        #[test]
        fn records_survive_the_store(path in any::<String>()) {
            prop_assume!(RouteSpec::from_decoded(&path).is_ok());
            let keys = RecordKeys::new("p");
            let route = route(&path);
            let key = keys.route(&route.spec);
            prop_assert!(key.starts_with("p/hub/routes/") && key.is_ascii());
            prop_assert_eq!(decode(&keys, &key, &encode(&route)), Ok(route));
        }

        #[test]
        fn any_bytes_are_refused_in_peace(value in any::<Vec<u8>>()) {
            let keys = RecordKeys::new("p");
            prop_assert!(decode(&keys, "p/hub/routes/a", &value).is_err());
        }
    }
}
