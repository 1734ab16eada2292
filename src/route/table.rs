//! `RouteTable`: all routes at one moment.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use super::{Route, RouteSpec, record};

/// All routes at one moment, ordered by prefix.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteTable {
    routes: BTreeMap<RouteSpec, Entry>,
    weight: Weight,
}

/// A route, and how many bytes its record has.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    route: Arc<Route>,
    bytes: usize,
}

/// How much some routes are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// Their number.
    pub routes: usize,
    /// The bytes of their records together.
    pub bytes: usize,
}

impl RouteTable {
    /// Adds a route, or replaces the one of the same prefix.
    pub fn insert(&mut self, route: Arc<Route>) {
        self.remove(&route.spec);
        let entry = Entry { bytes: record::size(&route), route };
        self.weight.routes += 1;
        self.weight.bytes += entry.bytes;
        self.routes.insert(entry.route.spec.clone(), entry);
    }

    /// Removes a route.
    pub fn remove(&mut self, spec: &RouteSpec) -> Option<Arc<Route>> {
        let entry = self.routes.remove(spec)?;
        self.weight.routes -= 1;
        self.weight.bytes -= entry.bytes;
        Some(entry.route)
    }

    /// How many bytes the record of the route of exactly this prefix has; 0 without one.
    #[must_use]
    pub fn record_bytes(&self, spec: &RouteSpec) -> usize {
        self.routes.get(spec).map_or(0, |entry| entry.bytes)
    }

    /// How much all routes are.
    #[must_use]
    pub fn weight(&self) -> Weight {
        self.weight
    }

    /// How much the routes at and below these prefixes are.
    #[must_use]
    pub fn weight_below(&self, prefixes: &[RouteSpec]) -> Weight {
        let is_in_another =
            |prefix: &RouteSpec| prefixes.iter().any(|other| other != prefix && other.covers(prefix.as_str()));
        let mut distinct: Vec<&RouteSpec> = prefixes.iter().filter(|prefix| !is_in_another(prefix)).collect();
        distinct.sort();
        distinct.dedup();
        let mut weight = Weight::default();
        for prefix in distinct {
            for entry in self.routes.get(prefix).into_iter().chain(self.entries_below(prefix)) {
                weight.routes += 1;
                weight.bytes += entry.bytes;
            }
        }
        weight
    }

    /// The route of exactly this prefix.
    #[must_use]
    pub fn get(&self, spec: &RouteSpec) -> Option<&Arc<Route>> {
        self.routes.get(spec).map(|entry| &entry.route)
    }

    /// The route that serves a decoded path: the one with the longest prefix, by whole segments.
    #[must_use]
    pub fn lookup(&self, path: &RouteSpec) -> Option<&Arc<Route>> {
        std::iter::successors(Some(path.clone()), RouteSpec::parent).find_map(|prefix| self.get(&prefix))
    }

    /// The nearest route strictly above `spec`.
    #[must_use]
    pub fn above(&self, spec: &RouteSpec) -> Option<&Arc<Route>> {
        spec.parent().and_then(|parent| self.lookup(&parent))
    }

    /// The routes strictly below `spec`.
    pub fn below<'a>(&'a self, spec: &'a RouteSpec) -> impl Iterator<Item = &'a Arc<Route>> {
        self.entries_below(spec).map(|entry| &entry.route)
    }

    fn entries_below<'a>(&'a self, spec: &'a RouteSpec) -> impl Iterator<Item = &'a Entry> {
        self.routes
            .range::<RouteSpec, _>((Excluded(spec), Unbounded))
            .skip_while(|(other, _)| other.as_str().starts_with(spec.as_str()) && !spec.covers(other.as_str()))
            .take_while(|(other, _)| spec.covers(other.as_str()))
            .map(|(_, entry)| entry)
    }

    /// All routes, ordered by prefix.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values().map(|entry| &entry.route)
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

impl FromIterator<Route> for RouteTable {
    fn from_iter<I: IntoIterator<Item = Route>>(routes: I) -> Self {
        let mut table = Self::default();
        for route in routes {
            table.insert(Arc::new(route));
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::route::{RouteData, Target};

    fn table(specs: &[&str]) -> RouteTable {
        specs
            .iter()
            .map(|spec| Route {
                spec: RouteSpec::from_decoded(spec).expect("valid"),
                target: Target::parse("http://127.0.0.1:1").expect("valid"),
                data: RouteData::new(),
                created: Timestamp::UNIX_EPOCH,
                n: 1,
            })
            .collect()
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        let table = table(&["/", "/user/ja", "/user/jane", "/user/jane/gpu"]);
        let at = |path: &str| table.lookup(&RouteSpec::from_decoded(path).expect("valid")).map(|r| r.spec.as_str());
        assert_eq!(at("/user/jane/gpu/lab"), Some("/user/jane/gpu"));
        assert_eq!(at("/user/jane/x"), Some("/user/jane"));
        assert_eq!(at("/user/ja/x"), Some("/user/ja"));
        assert_eq!(at("/user/janet"), Some("/"));
    }

    #[test]
    fn below_means_whole_segments() {
        let table = table(&["/", "/user/ja", "/user/ja-n", "/user/ja/a", "/user/ja/b/c", "/user/jane"]);
        let below = |path: &str| -> Vec<_> {
            let spec = RouteSpec::from_decoded(path).expect("valid");
            table.below(&spec).map(|r| r.spec.as_str().to_owned()).collect()
        };
        assert_eq!(below("/user/ja"), ["/user/ja/a", "/user/ja/b/c"]);
        assert_eq!(below("/user/jane"), Vec::<String>::new());
        assert_eq!(below("/").len(), 5);
    }

    #[test]
    fn a_table_knows_its_weight() {
        let mut table = table(&["/", "/a", "/a/b", "/a/b/c", "/ab"]);
        let specs = |paths: &[&str]| -> Vec<_> {
            paths.iter().map(|path| RouteSpec::from_decoded(path).expect("valid")).collect()
        };
        let bytes = |table: &RouteTable| table.iter().map(|route| record::encode(route).len()).sum::<usize>();
        assert_eq!(table.weight(), Weight { routes: 5, bytes: bytes(&table) });
        assert_eq!(table.weight_below(&specs(&["/"])), table.weight());
        assert_eq!(table.weight_below(&specs(&["/a"])).routes, 3);
        assert_eq!(table.weight_below(&specs(&["/a/b", "/a", "/a", "/ab"])).routes, 4, "each counts once");
        assert_eq!(table.weight_below(&[]), Weight::default());
        let bigger = Route {
            data: RouteData::from_iter([("x".to_owned(), "y".repeat(1000).into())]),
            ..Route::clone(table.get(&specs(&["/a"])[0]).expect("there"))
        };
        table.insert(Arc::new(bigger));
        assert_eq!(table.weight(), Weight { routes: 5, bytes: bytes(&table) });
        table.remove(&specs(&["/a"])[0]);
        assert_eq!(table.weight(), Weight { routes: 4, bytes: bytes(&table) });
    }

    #[test]
    fn without_a_root_nothing_is_found() {
        let table = table(&["/user/jane"]);
        assert!(table.lookup(&RouteSpec::from_decoded("/user").expect("valid")).is_none());
        assert!(table.above(&RouteSpec::from_decoded("/user/jane").expect("valid")).is_none());
    }
}
