//! The fallback: what Traefik's HTTP provider is given for times when the etcd provider has nothing.
//!
//! The same tree, as a document, and always in the shadow of etcd's: both providers may be active at once, and then every
//! request must take etcd's routers. Traefik keeps the names of providers apart, so only the two routers that users come
//! in by need other priorities.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::bucket::Sizes;
use super::document::document;
use super::fixed::Settings;
use super::marker::Marker;
use super::name;
use super::plan::{self, Edit, Limits};
use super::tree::Tree;
use crate::route::RouteTable;

/// The name of the provider, as Traefik puts it behind the names of what it was given.
pub const PROVIDER: &str = "http";

/// Priorities of the routers that users come in by: each below its namesake from etcd, and above what a file may hold for
/// a proxy without routes.
const PRIORITIES: [(&str, u32); 3] = [(name::ROOT, 5), ("empty", 2), ("sentinel", 999_999)];

/// A document with all routes of the table and this marker.
#[must_use]
pub fn routes(table: &RouteTable, settings: &Settings, sizes: Sizes, marker: Marker) -> Value {
    let limits = Limits { edits_max: usize::MAX, bytes_max: usize::MAX, reserved_edits: 0, reserved_bytes: 0 };
    let mut tree = Tree::default();
    for step in plan::plan(table, &tree.clone(), settings, sizes, limits, &BTreeSet::new()) {
        for edit in step.edits {
            match edit {
                Edit::Put { key, value } => tree.put(&key, &value, 0),
                // What was empty has nothing to remove.
                Edit::Delete { .. } | Edit::DeletePrefix { .. } => {}
            }
        }
    }
    tree.marker = Some(marker);
    let mut document = document(&tree, settings);
    for (router, priority) in PRIORITIES {
        if let Some(router) = document["http"]["routers"].get_mut(router) {
            router["priority"] = priority.into();
        }
    }
    document
}

/// A document without routes, for as long as etcd's tree is served. Traefik takes it, and forgets what it had.
#[must_use]
pub fn nothing() -> Value {
    json!({})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::route::{Route, RouteData, RouteSpec, Target};
    use crate::traefik::fixed::Servers;
    use crate::traefik::marker::LAYOUT;
    use crate::traefik::rule::Space;

    fn settings() -> Settings {
        Settings {
            root_key: "traefik".to_owned(),
            entry_points: vec!["web".to_owned()],
            space: Space::Paths,
            pages_url: Some("http://127.0.0.1:8003".parse().expect("a URL")),
            pages_get_address: false,
            middlewares: vec!["limit@file".to_owned()],
            servers: Servers { headers: vec![("X-A".to_owned(), "b".to_owned())], ..Servers::default() },
        }
    }

    fn of(routes: usize) -> Value {
        let route = |i: usize| Route {
            spec: RouteSpec::from_decoded(&if i == 0 { "/".to_owned() } else { format!("/user/u{i}") }).expect("valid"),
            target: Target::parse(&format!("http://10.0.0.1:{}", 1000 + i)).expect("valid"),
            data: RouteData::new(),
            created: jiff::Timestamp::UNIX_EPOCH,
            n: 1,
        };
        let marker = Marker { layout: LAYOUT, digest: "d".to_owned(), tag: String::new(), epoch: "e".to_owned(), n: 7 };
        super::routes(&(0..routes).map(route).collect(), &settings(), Sizes::default(), marker)
    }

    /// Everything that etcd's tree has at the entry points outranks what the fallback has there.
    #[test]
    fn etcd_always_comes_first() {
        let etcd: BTreeMap<_, _> = settings().keys();
        let priority = |name: &str| etcd[&format!("http/routers/{name}/priority")].parse::<u64>().expect("a number");
        for routes in [0, 1, 2000] {
            let document = of(routes);
            let routers = document["http"]["routers"].as_object().expect("routers");
            let mut entries = 0;
            for (name, router) in routers.iter().filter(|(_, router)| router.get("parentRefs").is_none()) {
                let own = router["priority"].as_u64().expect("a priority");
                let rival = if name == "sentinel" { priority("sentinel") } else { priority(name::ROOT) };
                assert!(own < rival, "{name}: {own}");
                assert_eq!(router["entryPoints"], json!(["web"]), "{name}");
                entries += 1;
            }
            assert_eq!(entries, 2, "the routes and the sentinel");
            // In the shadow, etcd's root must also outrank our sentinel's path only by way of etcd's own sentinel.
            assert!(priority("sentinel") > routers["sentinel"]["priority"].as_u64().expect("a priority"));
        }
    }

    /// Nothing names what isn't there: Traefik would switch the router off, and with the root everything.
    #[test]
    fn every_reference_leads_somewhere() {
        let document = of(2000);
        let http = &document["http"];
        let there = |kind: &str, name: &str| name.contains('@') || http[kind].get(name).is_some();
        let routers = http["routers"].as_object().expect("routers");
        assert!(routers.len() > 2000, "all routes are there");
        for (name, router) in routers {
            for (field, kind) in [("parentRefs", "routers"), ("middlewares", "middlewares")] {
                for other in router.get(field).and_then(Value::as_array).into_iter().flatten() {
                    assert!(there(kind, other.as_str().expect("a name")), "{name} names {other}");
                }
            }
            if let Some(service) = router.get("service") {
                assert!(there("services", service.as_str().expect("a name")), "{name} names {service}");
            }
        }
        let marker = &http["middlewares"]["marker"]["headers"]["customResponseHeaders"]["X-Pointsman-Revision"];
        assert_eq!(marker, &json!(format!("{LAYOUT}.d.e.7")));
    }
}
