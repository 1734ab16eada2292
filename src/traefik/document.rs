//! Traefik's tree as one document: what its REST provider takes, where its etcd provider would read key by key.
//!
//! Keys are text and name their place; the document has types. So the few fields that aren't text are listed here, and
//! whatever is written to the tree must be of these shapes.

use serde_json::{Map, Value};

use super::fixed::{MARKER_KEY, MARKER_REQUEST_KEY, NOWHERE, Settings};
use super::name;
use super::tree::{Fields, Tree};

/// Fields that hold a list, written with commas in a key.
const LISTS: &[&str] = &["entryPoints", "middlewares", "parentRefs", "status", "errorRequestHeaders", "prefixes"];

/// Fields that hold a number.
const NUMBERS: &[&str] = &["priority"];

/// Fields that hold yes or no.
const SWITCHES: &[&str] = &["passHostHeader", "preservePath"];

/// A map whose values are numbers.
const NUMBER_MAP: &str = "statusRewrites";

/// Everything below Traefik's root key, as JSON. Keys of other hands stay out: they may hold what nobody can read.
///
/// While there are no routes there is no root router either, which may not be without children. Then a router of its own
/// gives everybody the page for what no route takes, and the sentinel answers: an empty proxy is not a broken one.
#[must_use]
pub fn document(tree: &Tree, settings: &Settings) -> Value {
    let mut root = Map::new();
    if !tree.has_root() && settings.pages_url.is_some() {
        let of_root = format!("http/routers/{}/", name::ROOT);
        for (key, value) in settings.keys().iter().filter(|(key, _)| !key.starts_with(&of_root)) {
            put(&mut root, key, value);
        }
        for (field, value) in [
            ("rule", "PathPrefix(`/`)"),
            // Above the page of a Traefik that has not been sent anything yet.
            ("priority", "2"),
            ("entryPoints", &settings.entry_points.join(",")),
            ("service", NOWHERE.0),
            ("middlewares", NOWHERE.1),
        ] {
            put(&mut root, &format!("http/routers/empty/{field}"), value);
        }
    }
    let fields = |kind: &'static str, name: &str, fields: &Fields, root: &mut Map<String, Value>| {
        let one = entry(entry(entry(root, "http"), kind), name);
        for (field, value) in fields {
            put(one, field, value);
        }
    };
    for (name, router) in &tree.routers {
        fields("routers", name, router, &mut root);
    }
    for (name, service) in &tree.services {
        fields("services", name, service, &mut root);
    }
    for (name, middleware) in &tree.middlewares {
        fields("middlewares", name, middleware, &mut root);
    }
    for (key, value) in &tree.fixed {
        put(&mut root, key, value);
    }
    if let Some(marker) = &tree.marker {
        put(&mut root, MARKER_KEY, &marker.to_string());
        put(&mut root, MARKER_REQUEST_KEY, &marker.to_string());
    }
    Value::Object(root)
}

/// Puts a value at its place. `servers/0/url` is a list of one object.
fn put(root: &mut Map<String, Value>, key: &str, value: &str) {
    let Some((place, field)) = key.rsplit_once('/') else {
        root.insert(key.to_owned(), typed("", key, value));
        return;
    };
    let mut here = root;
    let mut parts = place.split('/').peekable();
    let mut last = "";
    while let Some(part) = parts.next() {
        last = part;
        here = if parts.next_if(|next| *next == "0").is_some() { first_of(here, part) } else { entry(here, part) };
    }
    here.insert(field.to_owned(), typed(last, field, value));
}

fn entry<'a>(map: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it has just been made an object")
}

fn first_of<'a>(map: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(name).or_insert_with(|| Value::Array(vec![Value::Object(Map::new())]));
    if value.get(0).is_none_or(|first| !first.is_object()) {
        *value = Value::Array(vec![Value::Object(Map::new())]);
    }
    value.get_mut(0).and_then(Value::as_object_mut).expect("it has just been made a list of an object")
}

fn typed(map: &str, field: &str, value: &str) -> Value {
    // The names of headers are no fields: a header may be called "priority".
    let is_header = matches!(map, "customRequestHeaders" | "customResponseHeaders");
    if is_header {
        return value.into();
    }
    if NUMBERS.contains(&field) || map == NUMBER_MAP {
        return value.parse::<i64>().map_or_else(|_| value.into(), Value::from);
    }
    if SWITCHES.contains(&field) {
        return (value == "true").into();
    }
    if LISTS.contains(&field) {
        return value.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    }
    value.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::traefik::fixed::Servers;
    use crate::traefik::rule::Space;

    #[test]
    fn keys_become_a_document_with_types() {
        let mut tree = Tree::default();
        for (key, value) in [
            (MARKER_KEY, "1.a.e.7"),
            (MARKER_REQUEST_KEY, "1.a.e.7"),
            ("http/routers/root/rule", "PathPrefix(`/`)"),
            ("http/routers/root/priority", "10"),
            ("http/routers/root/entryPoints", "web,tls"),
            ("http/routers/aaaaaaaaaar/rule", "Path(`/a,b`)"),
            ("http/routers/aaaaaaaaaar/parentRefs", "root"),
            ("http/services/aaaaaaaaaar/loadbalancer/servers/0/url", "http://a:1"),
            ("http/services/aaaaaaaaaar/loadbalancer/servers/0/preservePath", "true"),
            ("http/services/aaaaaaaaaar/loadbalancer/passHostHeader", "false"),
            ("http/middlewares/given/headers/customRequestHeaders/priority", "a, b"),
            ("http/middlewares/pages/errors/statusRewrites/502-504", "503"),
            ("http/foreign/x", "1"),
        ] {
            tree.put(key, value, 3);
        }
        assert_eq!(
            document(&tree, &settings(None)),
            json!({"http": {
                "routers": {
                    "root": {"rule": "PathPrefix(`/`)", "priority": 10, "entryPoints": ["web", "tls"]},
                    "aaaaaaaaaar": {"rule": "Path(`/a,b`)", "parentRefs": ["root"]},
                },
                "services": {"aaaaaaaaaar": {"loadbalancer": {
                    "servers": [{"url": "http://a:1", "preservePath": true}], "passHostHeader": false,
                }}},
                "middlewares": {
                    "marker": {"headers": {
                        "customResponseHeaders": {"X-Pointsman-Revision": "1.a.e.7"},
                        "customRequestHeaders": {"X-Pointsman-Revision": "1.a.e.7"},
                    }},
                    "given": {"headers": {"customRequestHeaders": {"priority": "a, b"}}},
                    "pages": {"errors": {"statusRewrites": {"502-504": 503}}},
                },
            }})
        );
    }

    fn settings(pages_url: Option<&str>) -> Settings {
        Settings {
            root_key: "traefik".to_owned(),
            entry_points: vec!["web".to_owned()],
            space: Space::Paths,
            pages_url: pages_url.map(|url| url.parse().expect("a URL")),
            pages_get_address: false,
            middlewares: Vec::new(),
            servers: Servers::default(),
        }
    }

    #[test]
    fn without_routes_everybody_gets_a_page_and_the_sentinel_answers() {
        let document = document(&Tree::default(), &settings(Some("http://127.0.0.1:40000")));
        let routers = document["http"]["routers"].as_object().expect("routers");
        assert_eq!(routers.keys().collect::<Vec<_>>(), ["empty", "sentinel"]);
        assert_eq!(routers["empty"]["middlewares"], json!([NOWHERE.1]));
        assert!(
            document["http"]["middlewares"][NOWHERE.1].is_object() && document["http"]["services"]["pages"].is_object()
        );
    }

    #[test]
    fn an_empty_tree_is_an_empty_document() {
        assert_eq!(document(&Tree::default(), &settings(None)), json!({}));
    }
}
