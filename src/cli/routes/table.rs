//! A table of routes as text: what `GET /api/routes` of configurable-http-proxy answers, an object from path to record.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny};

use crate::api::{ApiSettings, would_record};
use crate::route::{RouteData, RouteSpec, Target};
use crate::traefik::name;
use crate::traefik::rule::Space;

/// Records by path, each as it was written: one that can't be understood is no harm to the others.
#[derive(Debug, Default)]
pub(in crate::cli) struct Table(pub(in crate::cli) BTreeMap<String, Box<str>>);

/// What a table says, as far as it can be recorded here.
#[derive(Debug, Default)]
pub(in crate::cli) struct Understood {
    /// Where each route leads, and its record.
    pub(in crate::cli) routes: BTreeMap<RouteSpec, (Target, RouteData)>,
    /// When each was last used, if the table says so.
    pub(in crate::cli) used: HashMap<RouteSpec, Timestamp>,
    /// Paths that can't be routes here, each with the reason.
    pub(in crate::cli) refused: Vec<(String, String)>,
}

impl Table {
    /// Reads the text. The error is the end of a sentence.
    pub(in crate::cli) fn parse(text: &[u8]) -> Result<Self, String> {
        let table = split(text)
            .map_err(|error| format!("is not a table of routes, a JSON object from path to record: {error}"))?;
        match table.keys().next() {
            Some(key) if table.keys().all(|key| !key.starts_with('/')) => Err(format!(
                "is JSON but not a table of routes: its first key is {:?}, and paths begin with '/'",
                shorten(key)
            )),
            _ => Ok(Self(table)),
        }
    }

    /// The text: one route a line, ordered by path, and a line break at the end.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut text = String::from("{");
        for (i, (path, record)) in self.0.iter().enumerate() {
            let path = serde_json::Value::from(path.as_str());
            let _ = write!(text, "{}\n{path}: {}", if i == 0 { "" } else { "," }, record.trim());
        }
        text.push_str(if self.0.is_empty() { "}\n" } else { "\n}\n" });
        text
    }

    /// Takes each route as the API would take it.
    pub(in crate::cli) fn understand(self, settings: &ApiSettings) -> Understood {
        let mut found = Understood::default();
        let mut written: HashMap<RouteSpec, String> = HashMap::new();
        // The usual spelling first, so that it wins over an odd one of the same route.
        let (usual, odd): (Vec<_>, Vec<_>) =
            self.0.into_iter().partition(|(path, _)| path == "/" || (!path.starts_with("//") && !path.ends_with('/')));
        for (path, record) in usual.into_iter().chain(odd) {
            let read = if path.starts_with('/') {
                would_record(&path, &record, settings)
            } else {
                Err("a path begins with '/'".to_owned())
            };
            match read {
                Ok((spec, ..)) if written.contains_key(&spec) => {
                    let reason = format!("it is the same route as {}, which counts", written[&spec]);
                    found.refused.push((path, reason));
                }
                Ok((spec, target, data)) => {
                    written.insert(spec.clone(), path);
                    found.used.extend(last_activity(&record).map(|used| (spec.clone(), used)));
                    found.routes.insert(spec, (target, data));
                }
                Err(reason) => found.refused.push((path, reason)),
            }
        }
        found
    }
}

impl Understood {
    /// Refuses what would share its name in Traefik with another route, of the table or of `there`.
    pub(in crate::cli) fn refuse_clashes<'a>(
        &mut self,
        there: impl Iterator<Item = &'a RouteSpec>,
        host_routing: bool,
    ) {
        let space = if host_routing { Space::Hosts } else { Space::Paths };
        let name = |spec: &RouteSpec| name::route(space.place(spec));
        let mut taken: HashMap<String, RouteSpec> = there.map(|spec| (name(spec), spec.clone())).collect();
        self.routes.retain(|spec, _| {
            let holder = taken.entry(name(spec)).or_insert_with(|| spec.clone());
            if holder != spec {
                let reason = format!("it would share its name in Traefik with {holder}; rename one of the two servers");
                self.refused.push((spec.as_str().to_owned(), reason));
            }
            holder == spec
        });
    }
}

/// The values of a JSON object, each as it is written. The JSON library has a way to do that, which also gives a meaning to a
/// key that anybody may write.
fn split(text: &[u8]) -> Result<BTreeMap<String, Box<str>>, serde_json::Error> {
    let IgnoredAny = serde_json::from_slice(text)?;
    let text = std::str::from_utf8(text).map_err(serde_json::Error::custom)?.trim_ascii();
    let Some(inner) = text.strip_prefix('{') else { return Err(serde_json::Error::custom("it is no object")) };
    // From here on only the object's own commas and colons stand between two values.
    let (mut at, mut values) = (1, BTreeMap::new());
    let mut is_more = !inner.trim_ascii_start().starts_with('}');
    while is_more {
        let key = next::<String>(text, &mut at)?.0;
        at += text[at..].find(':').unwrap_or_default() + 1;
        // The last of two with the same key counts, as for everybody who reads JSON.
        values.insert(key, next::<IgnoredAny>(text, &mut at)?.1.into());
        let comma = text[at..].find(',');
        at += comma.unwrap_or_default() + 1;
        is_more = comma.is_some();
    }
    Ok(values)
}

/// The JSON value that begins at `at`, and its text; afterwards `at` is where it ends.
fn next<'a, T: Deserialize<'a>>(text: &'a str, at: &mut usize) -> Result<(T, &'a str), serde_json::Error> {
    let mut values = serde_json::Deserializer::from_str(&text[*at..]).into_iter::<T>();
    let value = values.next().unwrap_or_else(|| Err(serde_json::Error::custom("it ends early")))?;
    let begin = std::mem::replace(at, *at + values.byte_offset());
    Ok((value, text[begin..*at].trim_ascii()))
}

/// What a proxy says of a route's last use.
fn last_activity(record: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Times {
        last_activity: Option<Timestamp>,
    }
    serde_json::from_str::<Times>(record).ok()?.last_activity
}

/// The beginning of a text that may be long.
pub(in crate::cli) fn shorten(text: &str) -> String {
    const CHARACTERS_MAX: usize = 80;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn understood(text: &str, host_routing: bool) -> Understood {
        let settings = ApiSettings { host_routing, ..ApiSettings::default() };
        Table::parse(text.as_bytes()).expect("a table").understand(&settings)
    }

    #[test]
    fn the_text_is_one_route_a_line_and_sorted() {
        let text = "{ \"/b\":{\"target\":\"http://x\"}, \"/a\\n\" :{\"target\":\"http://y\",\"n\":1.50}}";
        let table = Table::parse(text.as_bytes()).unwrap();
        assert_eq!(
            table.to_text(),
            "{\n\"/a\\n\": {\"target\":\"http://y\",\"n\":1.50},\n\"/b\": {\"target\":\"http://x\"}\n}\n"
        );
        assert_eq!(Table::default().to_text(), "{}\n");
    }

    #[test]
    fn each_record_is_kept_as_it_is_written() {
        for (text, records) in [
            ("{}", &[][..]),
            (" { \"/a\" : 1.50 } ", &[("/a", "1.50")]),
            (
                r#"{"/a,:}":"x,\"}:","/b":{"c":[1,{"d":"}"}]},"/e":null}"#,
                &[("/a,:}", r#""x,\"}:""#), ("/b", r#"{"c":[1,{"d":"}"}]}"#), ("/e", "null")],
            ),
            (r#"{"/\u0061":1,"/a":2}"#, &[("/a", "2")]),
        ] {
            let table = Table::parse(text.as_bytes()).unwrap();
            let found: Vec<_> = table.0.iter().map(|(path, record)| (path.as_str(), &**record)).collect();
            assert_eq!(found, records, "{text}");
        }
    }

    #[test]
    fn a_deep_record_is_refused_and_a_strange_key_has_no_meaning() {
        let deep = format!(r#"{{"target":"http://x","x":{}{}}}"#, "[".repeat(70), "]".repeat(70));
        let deeper = format!(r#"{{"target":"http://x","x":{}{}}}"#, "[".repeat(700), "]".repeat(700));
        let raw = r#"{"$serde_json::private::RawValue":"[[[7]]]","target":"http://x"}"#;
        let found = understood(&format!(r#"{{"/deep":{deep},"/deeper":{deeper},"/raw":{raw}}}"#), false);
        assert!(
            found.refused.len() == 2 && found.refused.iter().all(|(_, why)| why.contains("64 levels")),
            "{found:?}"
        );
        let data = &found.routes[&RouteSpec::from_decoded("/raw").unwrap()].1;
        assert_eq!(serde_json::to_string(data).unwrap(), raw);
    }

    #[rstest]
    #[case("", "is not a table of routes")]
    #[case("[]", "is not a table of routes")]
    #[case("<html>", "is not a table of routes")]
    #[case("{\"/a\":{}", "is not a table of routes")]
    #[case(r#"{"message":"hello"}"#, "its first key is \"message\"")]
    fn what_is_no_table_is_refused(#[case] text: &str, #[case] says: &str) {
        let error = Table::parse(text.as_bytes()).unwrap_err();
        assert!(error.contains(says), "{error}");
    }

    #[rstest]
    #[case("/a", r#"{"target":"ftp://x"}"#, "has the scheme 'ftp'")]
    #[case("/a", r#"{"target":"http://x?y"}"#, "query or fragment")]
    #[case("/a", r"{}", "Must specify 'target'")]
    #[case("/a", r"7", "Must specify 'target'")]
    #[case("/a", r#"{"target":"http://x","half":"\ud800"}"#, "not valid JSON")]
    #[case("/a/../b", r#"{"target":"http://x"}"#, "'..'")]
    #[case("a", r#"{"target":"http://x"}"#, "begins with '/'")]
    #[case("/", r#"{"target":"http://x","user":"..","jupyterhub":true}"#, "can't have the route '/'")]
    fn a_route_that_cant_be_recorded_is_named_and_the_others_stay(
        #[case] path: &str,
        #[case] record: &str,
        #[case] says: &str,
    ) {
        let found = understood(&format!(r#"{{"{path}":{record},"/good":{{"target":"http://x"}}}}"#), false);
        assert_eq!(found.routes.len(), 1);
        assert_eq!(found.refused.len(), 1);
        assert!(found.refused[0].0 == path && found.refused[0].1.contains(says), "{:?}", found.refused);
    }

    #[test]
    fn of_two_spellings_the_usual_one_counts() {
        let found = understood(r#"{"//a":{"target":"http://odd"},"/a":{"target":"http://usual"}}"#, false);
        let spec = RouteSpec::from_decoded("/a").unwrap();
        assert_eq!(found.routes[&spec].0.as_str(), "http://usual");
        assert_eq!(found.refused, [("//a".to_owned(), "it is the same route as /a, which counts".to_owned())]);
        assert_eq!(understood(r#"{"//a":{"target":"http://odd"}}"#, false).routes.len(), 1);
    }

    #[test]
    fn fields_of_the_proxy_are_no_data() {
        let record = r#"{"target":"http://x","host":"h","last_activity":"2026-01-02T03:04:05.678Z","n":1.0}"#;
        let text = format!(r#"{{"/h.org/a":{record},"/":{record}}}"#);
        let keys = |host_routing, path: &str| -> Vec<String> {
            let found = understood(&text, host_routing);
            found.routes[&RouteSpec::from_decoded(path).unwrap()].1.keys().cloned().collect()
        };
        assert_eq!(keys(true, "/h.org/a"), ["n", "target"]);
        assert_eq!(keys(true, "/"), ["host", "n", "target"]);
        assert_eq!(keys(false, "/h.org/a"), ["host", "n", "target"]);
    }

    #[test]
    fn with_host_routing_the_first_segment_is_a_host() {
        let found = understood(r#"{"/H.org/a":{"target":"http://x"},"/a b/c":{"target":"http://x"}}"#, true);
        assert_eq!(found.routes.keys().map(RouteSpec::as_str).collect::<Vec<_>>(), ["/h.org/a"]);
        assert!(found.refused[0].1.contains("must be a host name"), "{:?}", found.refused);
    }

    proptest! {
        #[test]
        fn nothing_breaks_the_parser(text in any::<Vec<u8>>()) {
            let _ = Table::parse(&text).map(|table| table.understand(&ApiSettings::default()));
        }

        #[test]
        fn any_paths_survive_the_text(paths in prop::collection::btree_set("/\\PC{0,12}|/[\u{0}-\u{ff}]{0,9}", 0..9)) {
            let table = Table(paths.iter().map(|path| (path.clone(), r#"{"target":"http://x"}"#.into())).collect());
            let text = table.to_text();
            prop_assert_eq!(text.lines().count(), if paths.is_empty() { 1 } else { paths.len() + 2 });
            let read = Table::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(read.0.keys().collect::<Vec<_>>(), paths.iter().collect::<Vec<_>>());
        }
    }
}
