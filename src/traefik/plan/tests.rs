use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::route::{RouteData, RouteSpec, Target};
use crate::traefik::fixed::Servers;
use crate::traefik::rule::tests::{as_traefik_sees, matches};

/// Small enough that random tables of some dozens of routes split and merge all the time.
const SMALL: Sizes = Sizes { split_above: 6, split_down_to: 3, merge_below: 3, group_min: 2 };

fn settings(space: Space) -> Settings {
    Settings {
        root_key: "traefik".to_owned(),
        entry_points: vec!["web".to_owned()],
        space,
        pages_url: None,
        middlewares: Vec::new(),
        servers: Servers::default(),
    }
}

fn limits(edits_max: usize) -> Limits {
    Limits { edits_max, bytes_max: 1_000_000, reserved_edits: 0, reserved_bytes: 0 }
}

/// What Traefik would do with the keys: its rules for routers with parents, as its documentation and our measurements say.
struct Model<'a> {
    routers: BTreeMap<&'a str, Router<'a>>,
    children: BTreeMap<&'a str, Vec<&'a str>>,
    keys: &'a BTreeMap<String, String>,
}

#[derive(Default)]
struct Router<'a> {
    rule: &'a str,
    priority: Option<usize>,
    service: Option<&'a str>,
    parents: Vec<&'a str>,
    is_root: bool,
}

impl<'a> Model<'a> {
    fn new(keys: &'a BTreeMap<String, String>) -> Self {
        let mut routers: BTreeMap<&str, Router<'_>> = BTreeMap::new();
        for (key, value) in keys {
            let Some((name, field)) = key.strip_prefix("http/routers/").and_then(|k| k.split_once('/')) else {
                continue;
            };
            let router = routers.entry(name).or_default();
            match field {
                "rule" => router.rule = value,
                "priority" => router.priority = Some(value.parse().expect("a number")),
                "service" => router.service = Some(value),
                "parentRefs" => router.parents = value.split(',').collect(),
                "entryPoints" => router.is_root = true,
                _ => {}
            }
        }
        let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, router) in &routers {
            // A router that names one missing parent is switched off everywhere.
            if router.parents.iter().all(|p| routers.contains_key(p)) {
                router.parents.iter().for_each(|p| children.entry(p).or_default().push(name));
            }
        }
        Self { routers, children, keys }
    }

    /// The URL of the server that answers; `None` is 404.
    fn serve(&self, host: &str, path: &str) -> Result<Option<&str>, String> {
        let roots = self.routers.iter().filter(|(_, router)| router.is_root).map(|(name, _)| *name);
        self.descend(&roots.collect::<Vec<_>>(), host, path)
    }

    fn descend(&self, candidates: &[&str], host: &str, path: &str) -> Result<Option<&str>, String> {
        let mut matching = Vec::new();
        for name in candidates {
            let router = &self.routers[name];
            // A bucket without children is switched off too.
            let usable = router.service.is_some() || self.children.contains_key(name);
            if usable && matches(router.rule, host, path) {
                matching.push((router.priority.unwrap_or(router.rule.len()), *name));
            }
        }
        matching.sort_unstable();
        let Some((priority, winner)) = matching.pop() else { return Ok(None) };
        if matching.last().is_some_and(|(second, _)| *second == priority) {
            return Err(format!("a tie of {winner} and {:?} at {path}", matching.last()));
        }
        match self.routers[winner].service {
            Some(service) => {
                Ok(self.keys.get(&format!("http/services/{service}/loadbalancer/servers/0/url")).map(String::as_str))
            }
            None => self.descend(&self.children[winner], host, path),
        }
    }
}

fn apply(keys: &mut BTreeMap<String, String>, tree: &mut Tree, step: &Step) {
    let mut written = Vec::new();
    for edit in &step.edits {
        match edit {
            Edit::Put { key, value } => {
                written.push(key.clone());
                keys.insert(key.clone(), value.clone());
                tree.put(key, value, 1);
            }
            Edit::Delete { key } => {
                keys.remove(key);
                tree.delete(key);
            }
            Edit::DeletePrefix { prefix } => {
                let gone: Vec<_> = keys.keys().filter(|k| k.starts_with(prefix.as_str())).cloned().collect();
                for key in gone {
                    keys.remove(&key);
                    tree.delete(&key);
                }
            }
        }
    }
    for edit in &step.edits {
        if let Edit::DeletePrefix { prefix } = edit {
            assert!(
                written.iter().all(|k| !k.starts_with(prefix.as_str())),
                "etcd refuses to write what it deletes: {prefix}"
            );
        }
    }
}

fn table(routes: &BTreeMap<String, u16>) -> RouteTable {
    routes
        .iter()
        .map(|(spec, port)| Route {
            spec: RouteSpec::from_decoded(spec).expect("valid"),
            target: Target::parse(&format!("http://127.0.0.1:{port}")).expect("valid"),
            data: RouteData::new(),
            created: Timestamp::UNIX_EPOCH,
            n: 1,
        })
        .collect()
}

fn target(table: &RouteTable, spec: &RouteSpec) -> Option<String> {
    table.lookup(spec).map(|r| r.target.dial_url().to_owned())
}

/// What a path may get while each route that changes has either changed or not.
fn possible(old: &RouteTable, new: &RouteTable, probe: &RouteSpec) -> Vec<Option<String>> {
    let mut possible = Vec::new();
    for prefix in std::iter::successors(Some(probe.clone()), RouteSpec::parent) {
        let both = [old.get(&prefix), new.get(&prefix)];
        possible.extend(both.iter().flatten().map(|r| Some(r.target.dial_url().to_owned())));
        if both.iter().all(Option::is_some) {
            return possible;
        }
    }
    possible.push(None);
    possible
}

/// Asks for every path once.
fn check(
    space: Space,
    keys: &BTreeMap<String, String>,
    (old, new): (&RouteTable, &RouteTable),
    probes: &[RouteSpec],
    complete: bool,
) -> Result<(), TestCaseError> {
    let model = Model::new(keys);
    for (i, probe) in probes.iter().enumerate() {
        let seen = as_traefik_sees(probe.as_str(), |c| (c + i) % 2 == 0);
        let (host, path) = match space {
            Space::Paths => (String::new(), seen),
            Space::Hosts if probe.is_root() => ("elsewhere".to_owned(), "/".to_owned()),
            Space::Hosts => {
                let (host, path) = seen[1..].split_once('/').map_or((&seen[1..], ""), |(h, p)| (h, p));
                (host.to_owned(), format!("/{path}"))
            }
        };
        if space == Space::Hosts && probe.clone().with_host().as_ref() != Ok(probe) {
            continue;
        }
        let answer = model.serve(&host, &path).map_err(TestCaseError::fail)?.map(str::to_owned);
        let right = target(new, probe);
        if answer != right {
            prop_assert!(!complete, "complete, and {probe} gets {answer:?} instead of {right:?}");
            let possible = possible(old, new, probe);
            prop_assert!(possible.contains(&answer), "{probe} gets {answer:?}, not one of {possible:?}");
        }
    }
    Ok(())
}

/// Goes from table to table, and asks after each step for many paths: each answer must be the new one; as
/// long as the plan isn't complete, a route that changes may be as it was. Returns the number of steps taken.
fn walk(space: Space, tables: &[BTreeMap<String, u16>], edits_max: usize) -> Result<usize, TestCaseError> {
    let settings = settings(space);
    let (mut keys, mut tree, mut old, mut taken) = (BTreeMap::new(), Tree::default(), RouteTable::default(), 0);
    for routes in tables {
        let new = table(routes);
        let mut probes: Vec<RouteSpec> = Vec::new();
        for spec in old.iter().chain(new.iter()).map(|r| r.spec.as_str().to_owned()) {
            let more = ["", "/x", "/x/y", "x", "/é"].iter().map(|tail| format!("{spec}{tail}"));
            probes.extend(more.filter_map(|p| RouteSpec::from_decoded(&p).ok()));
        }
        probes.sort();
        probes.dedup();
        let mut complete = false;
        // A domain whose buckets go ends with the next plan only, so a second or third one may have something to do.
        for round in 0.. {
            let steps = plan(&new, &tree, &settings, SMALL, limits(edits_max), &BTreeSet::new());
            if complete && steps.len() == 1 && steps[0].edits.is_empty() {
                break;
            }
            prop_assert!(round < 4, "the plans don't come to an end: {steps:?}");
            for step in &steps {
                // A unit is never torn: the largest, the fixed part, has ten edits.
                prop_assert!(step.edits.len() <= edits_max.max(10), "{} edits", step.edits.len());
                apply(&mut keys, &mut tree, step);
                complete |= step.complete;
                taken += 1;
                check(space, &keys, (&old, &new), &probes, complete)?;
            }
            prop_assert!(complete);
        }
        old = new;
    }
    Ok(taken)
}

fn any_table(names: &'static str) -> impl Strategy<Value = BTreeMap<String, u16>> {
    let route = prop_oneof![
        1 => Just("/".to_owned()),
        1 => Just("/u".to_owned()),
        20 => names.prop_map(|n| format!("/u/{n}")),
    ];
    proptest::collection::btree_map(
        route.prop_map(|r| RouteSpec::from_decoded(&r).map_or("/".to_owned(), |s| s.as_str().to_owned())),
        1u16..,
        0..40,
    )
}

/// Families: users with named servers, so that routes lie below routes and move from bucket to bucket together.
fn families() -> impl Strategy<Value = BTreeMap<String, u16>> {
    let user = ("[ab]{2,4}", proptest::collection::vec("/[ab]", 0..3));
    proptest::collection::vec(user, 0..14).prop_map(|users| {
        let mut routes = BTreeMap::from([("/".to_owned(), 1)]);
        for (name, servers) in users {
            for spec in servers.iter().map(|s| format!("/u/{name}{s}")).chain([format!("/u/{name}")]) {
                let port = u16::try_from(routes.len() + 1).expect("few");
                routes.insert(spec, port);
            }
        }
        routes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_step_is_right(tables in proptest::collection::vec(any_table("[ab@]{1,4}(/[ab]{1,2}){0,2}"), 1..4), edits in 1usize..30) {
        walk(Space::Paths, &tables, edits)?;
    }

    #[test]
    fn every_step_is_right_for_families(tables in proptest::collection::vec(families(), 2..7), edits in 1usize..6) {
        walk(Space::Paths, &tables, edits)?;
    }

    #[test]
    fn every_step_is_right_for_any_name(tables in proptest::collection::vec(any_table("(?s).{1,3}"), 1..4)) {
        walk(Space::Paths, &tables, 12)?;
    }

    #[test]
    fn every_step_is_right_with_hosts(tables in proptest::collection::vec(any_table("[ab-]{1,3}(/[ab]{1,2}){0,1}"), 1..4), edits in 1usize..14) {
        let hosts: Vec<_> = tables
            .iter()
            .map(|t| t.iter().map(|(k, v)| (k.replacen("/u/", "/h", 1).replace("/u", "/"), *v)).collect())
            .collect();
        walk(Space::Hosts, &hosts, edits)?;
    }
}

/// A growing, then shrinking site: many small steps.
#[test]
fn a_day_at_a_site() {
    let site = |n: u16| {
        (0..n)
            .map(|i| (format!("/user/{}{i}", ["s", "anna", "x@y"][usize::from(i) % 3]), i + 1))
            .chain([("/".to_owned(), 1)])
            .collect()
    };
    let steps = walk(Space::Paths, &[site(5), site(60), site(30), site(90), site(2)], 24).expect("right at each step");
    assert!(steps > 20, "only {steps} steps: the test has become too easy");
}
