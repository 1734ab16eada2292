//! The way from the tree that is there to the tree that should be, in steps that are each right for every live route.
//!
//! Traefik reads its tree at one revision, and may stay on any of them for minutes. So the condition is: after every
//! single step each route that was live before is served. The order that holds it:
//!
//! 1. routes that are gone; 2. new buckets and domains, shorter first, each with the lists of its catch-alls; 3. every
//!    bucket below its nearest one; 4. changed targets; 5. new routes. Here every record change is in: the step that ends
//!    it is *complete*. Then, changing nothing that a request could tell: 6. routes move to their buckets, those that go
//!    up longer first, those that go down shorter first; 7. buckets leave the buckets that will go; 8. empty buckets go.
//!
//! It works because routes rank above buckets and buckets above catch-alls, so a new bucket is harmless and each route can
//! move into it on its own; and because along a chain of nested routes the shorter one never hangs higher.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::bucket::{self, Bucket, Buckets, Layout, Sizes, is_below};
use super::fixed::Settings;
use super::name::{self, Kind};
use super::rule::{self, Space};
use super::tree::{Fields, Tree, field};
use crate::route::{Route, RouteTable};

pub use pack::{Edit, Limits, Step};

mod pack;

/// Computes the steps from `tree` to the tree of `table`. There is always at least one step, be it empty: it carries the
/// marker.
///
/// Routers and services whose names are `frozen` stay as they are: their records can't be read.
#[must_use]
pub fn plan(
    table: &RouteTable,
    tree: &Tree,
    settings: &Settings,
    sizes: Sizes,
    limits: Limits,
    frozen: &BTreeSet<String>,
) -> Vec<Step> {
    let mut planner = Planner::new(table, tree, settings, sizes, frozen);
    planner.fixed();
    planner.remove_gone();
    planner.add_buckets_and_domains();
    planner.nest_buckets();
    planner.retarget();
    planner.add_routes();
    let complete_at = planner.units.len();
    planner.move_routes();
    planner.lift_buckets();
    planner.remove_buckets();
    pack::pack(planner.units, complete_at, limits)
}

/// The tree while the plan goes on.
struct Work {
    buckets: Buckets,
    /// The parent that each bucket's router names.
    parents: HashMap<Bucket, String>,
    /// The places of the domains whose catch-all is there.
    domains: BTreeSet<String>,
    /// The buckets that each catch-all names.
    lists: BTreeMap<String, BTreeSet<String>>,
    /// The bucket that each route's router hangs in.
    routes: BTreeMap<String, Bucket>,
}

struct Planner<'a> {
    table: &'a RouteTable,
    tree: &'a Tree,
    settings: &'a Settings,
    frozen: &'a BTreeSet<String>,
    space: Space,
    layout: Layout,
    /// Every route, with its place and its name.
    routes: BTreeMap<String, (&'a Arc<Route>, &'a str)>,
    work: Work,
    /// Routers that look like ours and can't be read.
    broken: Vec<String>,
    units: Vec<Vec<Edit>>,
}

impl<'a> Planner<'a> {
    fn new(
        table: &'a RouteTable,
        tree: &'a Tree,
        settings: &'a Settings,
        sizes: Sizes,
        frozen: &'a BTreeSet<String>,
    ) -> Self {
        let space = settings.space;
        let routes: BTreeMap<_, _> = table
            .iter()
            .map(|route| {
                let place = space.place(&route.spec);
                (name::route(place), (route, place))
            })
            .collect();
        let (work, broken) = read_work(space, tree, &routes);
        let layout = bucket::layout(space, sizes, routes.values().map(|(_, place)| *place), &work.buckets);
        Self { table, tree, settings, frozen, space, layout, routes, work, broken, units: Vec::new() }
    }

    fn unit(&mut self, edits: Vec<Edit>) {
        if !edits.is_empty() {
            self.units.push(edits);
        }
    }

    fn fixed(&mut self) {
        if self.table.is_empty() && !self.tree.has_root() {
            return;
        }
        let wanted = self.settings.keys();
        let (puts, deletes) = self.tree.fixed_difference(&wanted);
        let puts = puts.into_iter().map(|(key, value)| Edit::Put { key, value });
        self.unit(puts.chain(deletes.into_iter().map(|key| Edit::Delete { key })).collect());
    }

    fn remove_gone(&mut self) {
        let gone = |name: &str| !self.routes.contains_key(name) && !self.frozen.contains(name);
        let mut units = Vec::new();
        for name in self.tree.routers.keys().filter(|n| name::kind(n) == Kind::Route && gone(n)) {
            units.push(vec![remove_router(name), remove_service(name)]);
        }
        for name in self.tree.services.keys().filter(|n| gone(n) && !self.tree.routers.contains_key(*n)) {
            if !self.tree.routers.values().any(|router| field(router, "service") == Some(name)) {
                units.push(vec![remove_service(name)]);
            }
        }
        for name in self.tree.routers.keys().filter(|n| name::kind(n) == Kind::CatchAll) {
            let service = name::route_of(name);
            if gone(&service) {
                // Its buckets fall to the next domain above in the same step.
                self.work.lists.remove(&**name);
                let mut edits = reassign(&mut self.work);
                edits.extend([remove_router(name), remove_service(&service)]);
                units.push(edits);
            }
        }
        for name in
            self.routes.iter().filter(|(_, (_, place))| self.work.domains.contains(*place)).map(|(name, _)| name)
        {
            if self.work.routes.remove(name).is_some() {
                units.push(vec![remove_router(name)]);
            }
        }
        self.units.append(&mut units);
        // Lists that were damaged or left behind by another hand.
        let mended = reassign(&mut self.work);
        self.unit(mended);
    }

    fn add_buckets_and_domains(&mut self) {
        let mut new: Vec<(usize, Bucket, Option<String>)> = Vec::new();
        for bucket in self.layout.buckets.iter().filter(|b| !self.work.buckets.contains(b)) {
            let domain = (bucket.whole && !self.work.domains.contains(&bucket.prefix)).then(|| bucket.prefix.clone());
            new.push((bucket.reach(), bucket.clone(), domain));
        }
        for place in self.layout.domains.iter().filter(|d| !self.work.domains.contains(*d)) {
            let bucket = if place.is_empty() { Bucket::root() } else { Bucket::new(place, true) };
            if place.is_empty() || self.work.buckets.contains(&bucket) {
                new.push((bucket.reach(), bucket, Some(place.clone())));
            }
        }
        new.sort_by(|a, b| (a.0, &a.1.prefix).cmp(&(b.0, &b.1.prefix)));
        for (_, bucket, domain) in new {
            let mut edits = Vec::new();
            if !bucket.prefix.is_empty() && !self.work.buckets.contains(&bucket) {
                edits.append(&mut self.put_bucket(&bucket));
            }
            if let Some(place) = &domain {
                edits.append(&mut self.put_domain(place));
            }
            edits.append(&mut reassign(&mut self.work));
            self.unit(edits);
        }
    }

    fn put_bucket(&mut self, bucket: &Bucket) -> Vec<Edit> {
        let name = bucket.name();
        let parent = self.work.buckets.parent(bucket).name();
        let rule = rule::bucket(self.space, &bucket.prefix, bucket.whole).unwrap_or_default();
        self.work.buckets.insert(bucket.clone());
        self.work.parents.insert(bucket.clone(), parent.clone());
        vec![
            put_router(&name, "rule", &rule),
            put_router(&name, "priority", &bucket.priority().to_string()),
            put_router(&name, "parentRefs", &parent),
        ]
    }

    /// Makes a route the catch-all of the buckets below it. Its list follows by [`reassign`], in the same unit.
    fn put_domain(&mut self, place: &str) -> Vec<Edit> {
        let (own, catch_all) = (name::route(place), name::catch_all(place));
        self.work.domains.insert(place.to_owned());
        self.work.lists.insert(catch_all.clone(), BTreeSet::new());
        let mut edits = vec![
            put_router(&catch_all, "rule", "PathPrefix(`/`)"),
            put_router(&catch_all, "priority", "1"),
            put_router(&catch_all, "service", &own),
        ];
        if self.tree.routers.contains_key(own.as_str()) {
            self.work.routes.remove(&own);
            edits.push(remove_router(&own));
        }
        if let Some((route, _)) = self.routes.get(&own) {
            edits.append(&mut self.put_service(&own, route));
        }
        edits
    }

    fn nest_buckets(&mut self) {
        let mut moved = Vec::new();
        for bucket in self.work.buckets.iter() {
            let parent = self.work.buckets.parent(bucket).name();
            if self.work.parents.get(bucket) != Some(&parent) {
                moved.push((bucket.clone(), parent));
            }
        }
        moved.sort_by_key(|(bucket, _)| (bucket.reach(), bucket.prefix.clone()));
        for (bucket, parent) in moved {
            self.units.push(vec![put_router(&bucket.name(), "parentRefs", &parent)]);
            self.work.parents.insert(bucket, parent);
        }
    }

    fn retarget(&mut self) {
        let mut units = Vec::new();
        for (name, (route, place)) in &self.routes {
            if self.tree.services.contains_key(name.as_str()) || self.tree.routers.contains_key(name.as_str()) {
                units.push(self.put_service(name, route));
            }
            if let (Some(present), true) = (self.tree.routers.get(name.as_str()), self.work.routes.contains_key(name)) {
                units.push(difference(
                    &format!("http/routers/{name}/"),
                    Some(present),
                    &self.router(name, place, field(present, "parentRefs").unwrap_or_default()),
                ));
            }
        }
        self.units.extend(units.into_iter().filter(|u| !u.is_empty()));
    }

    fn add_routes(&mut self) {
        let mut new: Vec<(String, &Arc<Route>, &str)> = self
            .routes
            .iter()
            .filter(|(name, (_, place))| !self.work.routes.contains_key(*name) && !self.work.domains.contains(*place))
            .map(|(name, (route, place))| (name.clone(), *route, *place))
            .collect();
        new.sort_by_key(|(_, _, place)| (place.len(), *place));
        for (name, route, place) in new {
            let bucket = self.bucket_for_new(route, place);
            let parent = bucket.name();
            let router = self.router(&name, place, &parent);
            let mut edits = difference(&format!("http/routers/{name}/"), self.tree.routers.get(name.as_str()), &router);
            if !self.tree.routers.contains_key(name.as_str()) {
                edits.append(&mut self.put_service(&name, route));
            }
            self.work.routes.insert(name, bucket);
            self.unit(edits);
        }
    }

    /// A new route goes into its own bucket, but not deeper than the route above it hangs now, nor higher than a route
    /// below it: both may still be on their way.
    fn bucket_for_new(&self, route: &Route, place: &str) -> Bucket {
        let mut bucket = self.layout.bucket_of(place);
        let now = |route: &Route| self.work.routes.get(&name::route(self.space.place(&route.spec)));
        for below in self.table.below(&route.spec).filter_map(|r| now(r)) {
            if below.reach() > bucket.reach() && below.holds(place) {
                bucket = below.clone();
            }
        }
        if let Some(above) = self.table.above(&route.spec).and_then(|r| now(r)).filter(|a| a.reach() < bucket.reach()) {
            bucket = above.clone();
        }
        bucket
    }

    fn move_routes(&mut self) {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for (name, present) in &self.work.routes {
            let Some((_, place)) = self.routes.get(name) else { continue };
            let wanted = self.layout.bucket_of(place);
            if wanted.reach() < present.reach() {
                up.push((*place, name.clone(), wanted));
            } else if wanted != *present {
                down.push((*place, name.clone(), wanted));
            }
        }
        up.sort_by_key(|(place, ..)| (std::cmp::Reverse(place.len()), *place));
        down.sort_by_key(|(place, ..)| (place.len(), *place));
        for (_, name, wanted) in up.into_iter().chain(down) {
            self.units.push(vec![put_router(&name, "parentRefs", &wanted.name())]);
            self.work.routes.insert(name, wanted);
        }
    }

    fn lift_buckets(&mut self) {
        let mut lifted = Vec::new();
        for bucket in self.work.buckets.iter().filter(|b| self.layout.buckets.contains(b)) {
            let parent = self.layout.buckets.parent(bucket).name();
            if self.work.parents.get(bucket) != Some(&parent) {
                lifted.push(vec![put_router(&bucket.name(), "parentRefs", &parent)]);
            }
        }
        lifted.sort_by(|a, b| a[0].key().cmp(b[0].key()));
        self.units.append(&mut lifted);
    }

    fn remove_buckets(&mut self) {
        let mut going: Vec<Bucket> =
            self.work.buckets.iter().filter(|b| !self.layout.buckets.contains(b)).cloned().collect();
        going.sort_by_key(|b| (std::cmp::Reverse(b.reach()), b.prefix.clone()));
        for bucket in going {
            self.work.buckets.remove(&bucket);
            let mut edits = vec![remove_router(&bucket.name())];
            if bucket.whole && self.work.domains.remove(&bucket.prefix) {
                // The domain ends: its route is a leaf again.
                let (own, catch_all) = (name::route(&bucket.prefix), name::catch_all(&bucket.prefix));
                self.work.lists.remove(&catch_all);
                edits.push(remove_router(&catch_all));
                let parent = self.layout.bucket_of(&bucket.prefix);
                let router = self.router(&own, &bucket.prefix, &parent.name());
                edits.append(&mut difference(&format!("http/routers/{own}/"), None, &router));
            }
            edits.append(&mut reassign(&mut self.work));
            self.units.push(edits);
        }
        for name in std::mem::take(&mut self.broken) {
            self.units.push(vec![remove_router(&name)]);
        }
    }

    /// What makes a route's service as it should be.
    fn put_service(&self, name: &str, route: &Route) -> Vec<Edit> {
        difference(
            &format!("http/services/{name}/"),
            self.tree.services.get(name),
            &self.settings.service(&route.target),
        )
    }

    /// The fields of a route's router.
    fn router(&self, name: &str, place: &str, parent: &str) -> Vec<(&'static str, String)> {
        let rule = rule::route(self.space, place);
        let mut fields = vec![("rule", rule.text), ("service", name.to_owned()), ("parentRefs", parent.to_owned())];
        if let Some(priority) = rule.priority {
            fields.push(("priority", priority.to_string()));
        }
        fields
    }
}

/// Reads what the plan works on out of the tree, and names the routers that can't be read.
fn read_work(space: Space, tree: &Tree, routes: &BTreeMap<String, (&Arc<Route>, &str)>) -> (Work, Vec<String>) {
    let mut work = Work {
        buckets: Buckets::default(),
        parents: HashMap::new(),
        domains: BTreeSet::new(),
        lists: BTreeMap::new(),
        routes: BTreeMap::new(),
    };
    let mut broken = Vec::new();
    let mut names: HashMap<String, Bucket> = HashMap::from([(name::ROOT.to_owned(), Bucket::root())]);
    for (name, fields) in &tree.routers {
        match name::kind(name) {
            Kind::Bucket => {
                let read = field(fields, "rule").and_then(|rule| rule::bucket_prefix(space, rule));
                match read.map(|(prefix, whole)| Bucket { prefix, whole }) {
                    Some(bucket) if bucket.name() == **name => {
                        work.parents.insert(bucket.clone(), field(fields, "parentRefs").unwrap_or_default().to_owned());
                        work.buckets.insert(bucket.clone());
                        names.insert(name.to_string(), bucket);
                    }
                    _ => broken.push(name.to_string()),
                }
            }
            Kind::CatchAll => {
                let list = field(fields, "parentRefs").unwrap_or_default();
                work.lists.insert(name.to_string(), list.split(',').map(str::to_owned).collect());
                if let Some((_, place)) = routes.get(&name::route_of(name)) {
                    work.domains.insert((*place).to_owned());
                }
            }
            Kind::Route | Kind::Other => {}
        }
    }
    for (name, fields) in tree.routers.iter().filter(|(name, _)| routes.contains_key(&***name)) {
        // A router of a route that hangs in nothing we know is put anew, like one that isn't there.
        if let Some(bucket) = field(fields, "parentRefs").and_then(|parent| names.get(parent)) {
            work.routes.insert(name.to_string(), bucket.clone());
        }
    }
    (work, broken)
}

/// Gives every bucket to the catch-all of the nearest domain above it, and returns the lists that changed.
fn reassign(work: &mut Work) -> Vec<Edit> {
    let mut lists: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let catch_alls: HashMap<&str, String> = work
        .domains
        .iter()
        .map(|place| (place.as_str(), name::catch_all(place)))
        .filter(|(_, catch_all)| work.lists.contains_key(catch_all))
        .collect();
    for bucket in work.buckets.iter().chain(std::iter::once(&Bucket::root())) {
        let own = if bucket.whole { catch_alls.get(bucket.prefix.as_str()) } else { None };
        let nearest = || {
            let cuts = bucket.prefix.rmatch_indices('/').map(|(cut, _)| cut);
            cuts.map(|cut| &bucket.prefix[..cut]).chain(std::iter::once("")).find_map(|place| {
                debug_assert!(place.is_empty() || is_below(&bucket.prefix, place));
                catch_alls.get(place)
            })
        };
        if let Some(catch_all) = own.or_else(nearest) {
            lists.entry(catch_all.clone()).or_default().insert(bucket.name());
        }
    }
    let mut edits = Vec::new();
    for (catch_all, list) in lists {
        if work.lists.get(&catch_all) != Some(&list) {
            let text = list.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            edits.push(put_router(&catch_all, "parentRefs", &text));
            work.lists.insert(catch_all, list);
        }
    }
    edits
}

/// What makes the fields of one router or service as they should be. `prefix` ends in a slash.
fn difference(prefix: &str, present: Option<&Fields>, wanted: &[(&'static str, String)]) -> Vec<Edit> {
    let none = Fields::new();
    let present = present.unwrap_or(&none);
    let puts = wanted
        .iter()
        .filter(|(name, value)| field(present, name) != Some(value))
        .map(|(name, value)| Edit::Put { key: format!("{prefix}{name}"), value: value.clone() });
    let deletes = present
        .iter()
        .filter(|(name, _)| wanted.iter().all(|(wanted, _)| *wanted != &**name))
        .map(|(name, _)| Edit::Delete { key: format!("{prefix}{name}") });
    puts.chain(deletes).collect()
}

fn put_router(name: &str, field: &str, value: &str) -> Edit {
    Edit::Put { key: format!("http/routers/{name}/{field}"), value: value.to_owned() }
}

fn remove_router(name: &str) -> Edit {
    Edit::DeletePrefix { prefix: format!("http/routers/{name}/") }
}

fn remove_service(name: &str) -> Edit {
    Edit::DeletePrefix { prefix: format!("http/services/{name}/") }
}

#[cfg(test)]
mod tests;
