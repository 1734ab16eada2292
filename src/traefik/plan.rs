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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bucket::{self, Bucket, Layout, Sizes};
use super::fixed::{NOWHERE, Settings};
use super::name::{self, Kind};
use super::rule::{self, Space};
use super::tree::{Tree, field};
use crate::route::{Route, RouteTable};

use fields::{difference, put_router, remove_middleware, remove_router, remove_service};
pub use pack::{Edit, Limits, Step};
use work::{Work, read_work, reassign};

mod fields;
mod pack;
mod work;

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
    planner.mend_buckets();
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

struct Planner<'a> {
    table: &'a RouteTable,
    tree: &'a Tree,
    settings: &'a Settings,
    frozen: &'a BTreeSet<String>,
    space: Space,
    /// What no route takes gets a page: the root's catch-all is there without a route.
    nowhere: bool,
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
        let root = name::route("");
        let nowhere = settings.has_pages()
            && (!table.is_empty() || tree.has_root())
            && !routes.contains_key(&root)
            && !frozen.contains(&root);
        let (work, broken) = read_work(space, tree, &routes, nowhere);
        let mut layout = bucket::layout(space, sizes, routes.values().map(|(_, place)| *place), &work.buckets);
        if nowhere {
            layout.domains.insert(String::new());
        }
        Self { table, tree, settings, frozen, space, nowhere, layout, routes, work, broken, units: Vec::new() }
    }

    fn unit(&mut self, edits: Vec<Edit>) {
        if !edits.is_empty() {
            self.units.push(edits);
        }
    }

    fn fixed(&mut self) {
        // Before the first route nothing is wanted; what another hand has put there may stop Traefik all the same.
        let is_wanted = !self.table.is_empty() || self.tree.has_root();
        let wanted = if is_wanted { self.settings.keys() } else { BTreeMap::new() };
        let (puts, deletes) = self.tree.fixed_difference(&wanted);
        let puts = puts.into_iter().map(|(key, value)| Edit::Put { key, value });
        self.unit(puts.chain(deletes.into_iter().map(|key| Edit::Delete { key })).collect());
    }

    fn remove_gone(&mut self) {
        let gone = |name: &str| !self.routes.contains_key(name) && !self.frozen.contains(name);
        let mut units = Vec::new();
        for name in self.tree.routers.keys().filter(|n| name::kind(n) == Kind::Route && gone(n)) {
            units.push(vec![remove_router(name), remove_service(name)]);
            units.extend(self.tree.middlewares.get(name).map(|_| vec![remove_middleware(name)]));
        }
        for name in self.tree.services.keys().filter(|n| gone(n) && !self.tree.routers.contains_key(*n)) {
            if !self.tree.routers.values().any(|router| field(router, "service") == Some(name)) {
                units.push(vec![remove_service(name)]);
            }
        }
        for name in self.tree.routers.keys().filter(|n| name::kind(n) == Kind::CatchAll) {
            let service = name::route_of(name);
            if self.nowhere && **name == *name::catch_all("") {
                let mut edits = self.put_catch_all("");
                edits.extend(self.tree.services.get(&*service).map(|_| remove_service(&service)));
                units.push(edits);
            } else if gone(&service) {
                // Its buckets fall to the next domain above in the same step.
                self.work.lists.remove(&**name);
                let mut edits = reassign(&mut self.work);
                edits.extend([remove_router(name), remove_service(&service)]);
                edits.extend(self.tree.middlewares.get(&*service).map(|_| remove_middleware(&service)));
                units.push(edits);
            } else if self.is_orphan(&service) {
                // Its bucket was taken away by another hand, and is not worth making anew: the route is a leaf again.
                if let Some((_, place)) = self.routes.get(&service) {
                    self.work.domains.remove(*place);
                }
                self.work.lists.remove(&**name);
                let mut edits = reassign(&mut self.work);
                edits.push(remove_router(name));
                units.push(edits);
            }
        }
        let is_left = |name: &str| gone(name) && !self.tree.routers.contains_key(name);
        let left = self.tree.middlewares.keys().filter(|n| is_left(n));
        let left = left.filter(|n| !self.tree.routers.values().any(|r| field(r, "middlewares") == Some(&***n)));
        units.extend(left.map(|name| vec![remove_middleware(name)]));
        for name in
            self.routes.iter().filter(|(_, (_, place))| self.work.domains.contains(*place)).map(|(name, _)| name)
        {
            self.work.routes.remove(name);
            if self.tree.routers.contains_key(name.as_str()) {
                units.push(vec![remove_router(name)]);
            }
        }
        self.units.append(&mut units);
        // Lists that were damaged or left behind by another hand.
        let mended = reassign(&mut self.work);
        self.unit(mended);
    }

    /// Whether the catch-all of this route has no bucket to be the catch-all of, and should have none.
    fn is_orphan(&self, service: &str) -> bool {
        self.routes.get(service).is_some_and(|(_, place)| {
            !place.is_empty()
                && !self.layout.domains.contains(*place)
                && !self.work.buckets.contains(&Bucket::new(place, true))
        })
    }

    /// Buckets that another hand has changed, apart from where they hang.
    fn mend_buckets(&mut self) {
        let mut mended: Vec<Vec<Edit>> = Vec::new();
        for bucket in self.work.buckets.iter().filter(|bucket| !bucket.prefix.is_empty()) {
            let name = bucket.name();
            let Some(present) = self.tree.routers.get(name.as_str()) else { continue };
            let parent = field(present, "parentRefs").map(str::to_owned);
            let wanted = self.bucket_router(bucket, parent);
            let edits = difference(&format!("http/routers/{name}/"), Some(present), &wanted);
            if !edits.is_empty() {
                mended.push(edits);
            }
        }
        mended.sort_by(|a, b| a[0].key().cmp(b[0].key()));
        self.units.append(&mut mended);
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
        self.work.buckets.insert(bucket.clone());
        self.work.parents.insert(bucket.clone(), parent.clone());
        // A router of this name may be there that could not be read.
        self.broken.retain(|broken| *broken != name);
        let present = self.tree.routers.get(name.as_str());
        difference(&format!("http/routers/{name}/"), present, &self.bucket_router(bucket, Some(parent)))
    }

    /// The fields of a bucket's router.
    fn bucket_router(&self, bucket: &Bucket, parent: Option<String>) -> Vec<(&'static str, String)> {
        let rule = rule::bucket(self.space, &bucket.prefix, bucket.whole).unwrap_or_default();
        let mut fields = vec![("rule", rule), ("priority", bucket.priority().to_string())];
        fields.extend(parent.map(|parent| ("parentRefs", parent)));
        fields
    }

    /// Makes a route the catch-all of the buckets below it. Its list follows by [`reassign`], in the same unit.
    fn put_domain(&mut self, place: &str) -> Vec<Edit> {
        let (own, catch_all) = (name::route(place), name::catch_all(place));
        self.work.domains.insert(place.to_owned());
        self.work.lists.insert(catch_all, BTreeSet::new());
        let mut edits = self.put_catch_all(place);
        if self.tree.routers.contains_key(own.as_str()) {
            self.work.routes.remove(&own);
            edits.push(remove_router(&own));
        }
        if let Some((route, _)) = self.routes.get(&own) {
            edits.append(&mut self.put_service(&own, route, place));
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
            // A router and its middleware change together: one that isn't there switches the router off.
            let mut unit = Vec::new();
            let is_domain = self.tree.routers.contains_key(name::catch_all(place).as_str());
            if is_domain
                || self.tree.services.contains_key(name.as_str())
                || self.tree.routers.contains_key(name.as_str())
            {
                unit.append(&mut self.put_service(name, route, place));
            }
            if is_domain && self.work.domains.contains(*place) {
                unit.append(&mut self.put_catch_all(place));
            }
            if let (Some(present), true) = (self.tree.routers.get(name.as_str()), self.work.routes.contains_key(name)) {
                let parent = field(present, "parentRefs").unwrap_or_default();
                let router = self.router(name, place, parent);
                unit.append(&mut difference(&format!("http/routers/{name}/"), Some(present), &router));
            }
            units.push(unit);
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
                edits.append(&mut self.put_service(&name, route, place));
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

    /// What makes a route's service as it should be, and the middleware that cuts its path.
    fn put_service(&self, name: &str, route: &Route, place: &str) -> Vec<Edit> {
        let service = self.settings.service(&route.target);
        let mut edits = difference(&format!("http/services/{name}/"), self.tree.services.get(name), &service);
        let cut = self.settings.cut(place).unwrap_or_default();
        edits.extend(difference(&format!("http/middlewares/{name}/"), self.tree.middlewares.get(name), &cut));
        edits
    }

    /// The fields of a route's router.
    fn router(&self, name: &str, place: &str, parent: &str) -> Vec<(&'static str, String)> {
        let rule = rule::route(self.space, place);
        let mut fields = vec![("rule", rule.text), ("service", name.to_owned()), ("parentRefs", parent.to_owned())];
        if let Some(priority) = rule.priority {
            fields.push(("priority", priority.to_string()));
        }
        fields.extend(self.settings.cut(place).map(|_| ("middlewares", name.to_owned())));
        fields
    }

    /// What makes the catch-all of a domain as it should be, but for its list of buckets. Without a route it answers with
    /// a page.
    fn put_catch_all(&self, place: &str) -> Vec<Edit> {
        let (own, catch_all) = (name::route(place), name::catch_all(place));
        let present = self.tree.routers.get(catch_all.as_str());
        let mut fields = vec![("rule", "PathPrefix(`/`)".to_owned()), ("priority", "1".to_owned())];
        if self.routes.contains_key(&own) {
            fields.extend(self.settings.cut(place).map(|_| ("middlewares", own.clone())));
            fields.push(("service", own));
        } else {
            let (service, middleware) = NOWHERE;
            fields.extend([("service", service.to_owned()), ("middlewares", middleware.to_owned())]);
        }
        let list = present.and_then(|present| field(present, "parentRefs"));
        fields.extend(list.map(|list| ("parentRefs", list.to_owned())));
        difference(&format!("http/routers/{catch_all}/"), present, &fields)
    }
}

#[cfg(test)]
mod tests;
