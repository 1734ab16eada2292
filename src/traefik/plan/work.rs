//! What a plan works on: buckets, domains and routes as they hang in the tree, while one unit after the other changes it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::fields::put_router;
use super::pack::Edit;
use crate::route::Route;
use crate::traefik::bucket::{Bucket, Buckets, is_below};
use crate::traefik::name::{self, Kind};
use crate::traefik::rule::{self, Space};
use crate::traefik::tree::{Tree, field};

/// The tree while the plan goes on.
pub(super) struct Work {
    pub(super) buckets: Buckets,
    /// The parent that each bucket's router names.
    pub(super) parents: HashMap<Bucket, String>,
    /// The places of the domains whose catch-all is there.
    pub(super) domains: BTreeSet<String>,
    /// The buckets that each catch-all names.
    pub(super) lists: BTreeMap<String, BTreeSet<String>>,
    /// The bucket that each route's router hangs in.
    pub(super) routes: BTreeMap<String, Bucket>,
}

/// Reads what the plan works on out of the tree, and names the routers that can't be read.
///
/// `nowhere`: the root's catch-all is wanted without a route too.
pub(super) fn read_work(
    space: Space,
    tree: &Tree,
    routes: &BTreeMap<String, (&Arc<Route>, &str)>,
    nowhere: bool,
) -> (Work, Vec<String>) {
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
                } else if nowhere && **name == *name::catch_all("") {
                    work.domains.insert(String::new());
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

/// Gives every bucket to the catch-all of the nearest domain above it, and returns the lists that changed. What a
/// catch-all holds whose route is gone stays with it until it goes too: two at one place would tie.
pub(super) fn reassign(work: &mut Work) -> Vec<Edit> {
    let mut lists: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let catch_alls: HashMap<&str, String> = work
        .domains
        .iter()
        .map(|place| (place.as_str(), name::catch_all(place)))
        .filter(|(_, catch_all)| work.lists.contains_key(catch_all))
        .collect();
    let live: BTreeSet<&String> = catch_alls.values().collect();
    let going = work.lists.iter().filter(|(catch_all, _)| !live.contains(catch_all));
    let held: BTreeSet<&String> = going.flat_map(|(_, buckets)| buckets).collect();
    for bucket in work.buckets.iter().chain(std::iter::once(&Bucket::root())) {
        if !held.is_empty() && held.contains(&bucket.name()) {
            continue;
        }
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
