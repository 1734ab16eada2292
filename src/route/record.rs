//! How a route and the head are written in the store: keys and values of the records tree.
//!
//! ```text
//! PREFIX/hub/head                    1 <epoch> <n> <nonce>
//! PREFIX/hub/installation            whose records these are: see `installation`
//! PREFIX/hub/routes/user/jane%40x    {"v":1,"spec":"/user/jane@x","target":"http://…","data":{…},"n":7,"created":"…"}
//! ```

use std::borrow::Cow;
use std::{fmt, io};

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};

use super::{LEVELS_MAX, Route, RouteData, RouteSpec, Target, is_too_deep};

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

    /// The route whose record has this key: the other way round from [`RecordKeys::route`], also where the record itself
    /// can't be read. `None` for a key that no route has.
    #[must_use]
    pub fn spec(&self, key: &str) -> Option<RouteSpec> {
        let path = key.strip_prefix(&self.prefix)?.strip_prefix("routes")?;
        let spec = RouteSpec::from_decoded(&percent_decode_str(path).decode_utf8().ok()?).ok()?;
        (self.route(&spec) == key).then_some(spec)
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
    /// Its data has too many levels.
    #[error("its data has more than {LEVELS_MAX} levels of lists and objects, the limit")]
    TooDeep,
    /// What would be written is not what would be read.
    #[error("it would not be read as it is written")]
    Unfaithful,
}

/// A route as it is written.
#[derive(Serialize, Deserialize)]
pub struct Record<'a> {
    v: u32,
    spec: Cow<'a, str>,
    target: Cow<'a, str>,
    data: Cow<'a, RouteData>,
    n: u64,
    created: Timestamp,
}

impl<'a> Record<'a> {
    /// The record of a route.
    #[must_use]
    pub fn of(route: &'a Route) -> Self {
        Self {
            v: FORMAT,
            spec: Cow::Borrowed(route.spec.as_str()),
            target: Cow::Borrowed(route.target.as_str()),
            data: Cow::Borrowed(&route.data),
            n: route.n,
            created: route.created,
        }
    }

    /// The route of a record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn into_route(self) -> Result<Route, RecordError> {
        if self.v != FORMAT {
            return Err(RecordError::Format(self.v.to_string()));
        }
        let refused = |field, reason: &dyn fmt::Display| RecordError::Field { field, reason: reason.to_string() };
        let spec = RouteSpec::from_decoded(&self.spec).map_err(|error| refused("spec", &error))?;
        let target = Target::parse(&self.target).map_err(|error| refused("target", &error))?;
        let data = self.data.into_owned();
        if is_too_deep(&data) {
            return Err(RecordError::TooDeep);
        }
        Ok(Route { spec, target, data, created: self.created, n: self.n })
    }
}

/// Writes the record of a route.
///
/// # Panics
///
/// Never: a record is made of text, numbers and JSON values, which can always be written.
#[must_use]
pub fn encode(route: &Route) -> Vec<u8> {
    serde_json::to_vec(&Record::of(route)).expect("a record is made of text, numbers and JSON values")
}

/// Writes the record of a route for the store, and makes sure that it is read as the same route.
///
/// # Errors
/// If it isn't.
pub fn encode_checked(route: &Route) -> Result<Vec<u8>, RecordError> {
    let value = encode(route);
    if parse(&value)? == *route { Ok(value) } else { Err(RecordError::Unfaithful) }
}

/// How many bytes [`encode`] writes.
#[must_use]
pub fn size(route: &Route) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What can't be written has no size.
    let _ = serde_json::to_writer(&mut count, &Record::of(route));
    count.0
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
    serde_json::from_slice::<Record<'_>>(value).map_err(json)?.into_route()
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

    #[test]
    fn a_key_names_its_route_and_no_other_key_does() {
        let keys = RecordKeys::new("p");
        for path in ["/", "/user/jane@x.org/a b", "/user/%61", "/秀"] {
            let spec = RouteSpec::from_decoded(path).expect("valid");
            assert_eq!(keys.spec(&keys.route(&spec)), Some(spec));
        }
        for other in
            ["p/hub/head", "p/hub/routes", "p/hub/routesx", "p/hub/routes/%61", "p/hub/routes/a/", "q/hub/routes/a"]
        {
            assert_eq!(keys.spec(other), None, "{other}");
        }
    }

    fn nested(levels: usize) -> RouteData {
        let value = (2..levels).fold(serde_json::json!([]), |inner, _| serde_json::json!([inner]));
        RouteData::from_iter([("x".to_owned(), value)])
    }

    #[test]
    fn data_has_so_many_levels_and_no_more() {
        let with = |levels| Route { data: nested(levels), ..route("/a") };
        let keys = RecordKeys::new("p");
        let value = encode_checked(&with(LEVELS_MAX)).expect("within the limit");
        assert_eq!(decode(&keys, "p/hub/routes/a", &value), Ok(with(LEVELS_MAX)));
        assert_eq!(encode_checked(&with(LEVELS_MAX + 1)), Err(RecordError::TooDeep));
        assert!(matches!(encode_checked(&with(127)), Err(RecordError::Json(_))), "not even the library reads it");
    }

    /// What the library does with such a key only if it is told to, which must not come back.
    #[test]
    fn no_key_has_a_meaning() {
        for key in ["$serde_json::private::RawValue", "$serde_json::private::Number"] {
            let data = serde_json::json!({"target": "http://x", "x": {key: "[[[[1]]]]"}});
            let route = Route { data: data.as_object().expect("an object").clone(), ..route("/a") };
            let read: RouteData = serde_json::from_str(&data.to_string()).expect("JSON");
            assert_eq!(read, route.data, "{key}");
            assert_eq!(parse(&encode_checked(&route).expect("as any other")), Ok(route));
        }
    }

    /// Any JSON, with the numbers that JavaScript gives.
    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let number = prop_oneof![
            any::<i64>().prop_map(serde_json::Value::from),
            any::<u64>().prop_map(serde_json::Value::from),
            any::<f64>().prop_map(serde_json::Value::from),
        ];
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            number,
            any::<String>().prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(8, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| map.into_iter().collect::<RouteData>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_read_back(key in any::<String>(), value in any_json()) {
            let route = Route { data: RouteData::from_iter([(key, value)]), ..route("/a") };
            let value = encode_checked(&route).expect("within the limit");
            prop_assert_eq!(value.len(), size(&route));
            prop_assert_eq!(parse(&value), Ok(route));
        }

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
