//! `RouteTable`: all routes at one moment.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use super::{Route, RouteSpec};

/// All routes at one moment, ordered by prefix.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteTable {
    routes: BTreeMap<RouteSpec, Arc<Route>>,
}

impl RouteTable {
    /// Adds a route, or replaces the one of the same prefix.
    pub fn insert(&mut self, route: Arc<Route>) {
        self.routes.insert(route.spec.clone(), route);
    }

    /// Removes a route.
    pub fn remove(&mut self, spec: &RouteSpec) -> Option<Arc<Route>> {
        self.routes.remove(spec)
    }

    /// The route of exactly this prefix.
    #[must_use]
    pub fn get(&self, spec: &RouteSpec) -> Option<&Arc<Route>> {
        self.routes.get(spec)
    }

    /// The route that serves a decoded path: the one with the longest prefix, by whole segments.
    #[must_use]
    pub fn lookup(&self, path: &RouteSpec) -> Option<&Arc<Route>> {
        std::iter::successors(Some(path.clone()), RouteSpec::parent).find_map(|prefix| self.routes.get(&prefix))
    }

    /// The nearest route strictly above `spec`.
    #[must_use]
    pub fn above(&self, spec: &RouteSpec) -> Option<&Arc<Route>> {
        spec.parent().and_then(|parent| self.lookup(&parent))
    }

    /// The routes strictly below `spec`.
    pub fn below<'a>(&'a self, spec: &'a RouteSpec) -> impl Iterator<Item = &'a Arc<Route>> {
        self.routes
            .range::<RouteSpec, _>((Excluded(spec), Unbounded))
            .map(|(_, route)| route)
            .skip_while(|route| route.spec.as_str().starts_with(spec.as_str()) && !spec.covers(route.spec.as_str()))
            .take_while(|route| spec.covers(route.spec.as_str()))
    }

    /// All routes, ordered by prefix.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values()
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
    fn without_a_root_nothing_is_found() {
        let table = table(&["/user/jane"]);
        assert!(table.lookup(&RouteSpec::from_decoded("/user").expect("valid")).is_none());
        assert!(table.above(&RouteSpec::from_decoded("/user/jane").expect("valid")).is_none());
    }
}
