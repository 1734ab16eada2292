use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::route::{RouteData, RouteSpec, Target};
use crate::traefik::fixed::Servers;
use crate::traefik::rule::tests::{as_traefik_sees, as_traefik_sends, expression_rest, matches};

mod damage;

/// Small enough that random tables of some dozens of routes split and merge all the time.
const SMALL: Sizes = Sizes { split_above: 6, split_down_to: 3, merge_below: 3, group_min: 2 };

/// What differs from one installation to the next, as far as a plan is concerned.
#[derive(Debug, Clone, Copy)]
struct Variant {
    space: Space,
    /// There are pages, so what no route takes gets one.
    pages: bool,
    /// The route's path is cut from that of a request.
    cut: bool,
}

const PATHS: Variant = Variant { space: Space::Paths, pages: false, cut: false };

fn settings(variant: Variant) -> Settings {
    Settings {
        root_key: "traefik".to_owned(),
        entry_points: vec!["web".to_owned()],
        space: variant.space,
        pages_url: variant.pages.then(|| "http://127.0.0.1:1".parse().expect("a URL")),
        pages_get_address: false,
        middlewares: Vec::new(),
        servers: Servers { include_prefix: !variant.cut, ..Servers::default() },
    }
}

/// Edits that belong together, apart from the fixed part: a bucket, its domain, and a route that becomes its catch-all.
const UNIT_MAX: usize = 12;

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
    middlewares: Vec<&'a str>,
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
                "middlewares" => router.middlewares = value.split(',').collect(),
                "entryPoints" => router.is_root = true,
                _ => {}
            }
        }
        // A router that names a middleware which isn't there is switched off.
        routers
            .retain(|_, router| router.middlewares.iter().all(|name| has(keys, &format!("http/middlewares/{name}/"))));
        let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, router) in &routers {
            // A router that names one missing parent is switched off everywhere.
            if router.parents.iter().all(|p| routers.contains_key(p)) {
                router.parents.iter().for_each(|p| children.entry(p).or_default().push(name));
            }
        }
        Self { routers, children, keys }
    }

    /// Who answers, when `sent` is passed on.
    fn serve(&self, host: &str, path: &str, sent: &str) -> Result<Answer, String> {
        let roots = self.routers.iter().filter(|(name, router)| router.is_root && **name != "sentinel");
        match self.descend(&roots.map(|(name, _)| *name).collect::<Vec<_>>(), host, path)? {
            None => Ok(Answer::Nobody),
            Some(router) if router.service == Some("noop@internal") && router.middlewares == ["nowhere"] => {
                Ok(Answer::Page)
            }
            Some(router) => {
                let service = router.service.unwrap_or_default();
                let url = self.keys.get(&format!("http/services/{service}/loadbalancer/servers/0/url"));
                let url = url.ok_or_else(|| format!("the service {service} isn't there"))?;
                let cut = router.middlewares.iter().find_map(|middleware| {
                    let expression = self.keys.get(&format!("http/middlewares/{middleware}/replacePathRegex/regex"))?;
                    expression_rest(expression, sent)
                });
                let sent =
                    cut.map_or_else(|| sent.to_owned(), |rest| format!("/{}", rest.strip_prefix('/').unwrap_or(rest)));
                Ok(Answer::Server(format!("{url}{sent}")))
            }
        }
    }

    fn descend(&self, candidates: &[&str], host: &str, path: &str) -> Result<Option<&Router<'a>>, String> {
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
            Some(_) => Ok(Some(&self.routers[winner])),
            None => self.descend(&self.children[winner], host, path),
        }
    }
}

/// What a request comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// This URL is asked.
    Server(String),
    /// The page for what no route takes.
    Page,
    /// Traefik's own 404.
    Nobody,
}

fn has(keys: &BTreeMap<String, String>, prefix: &str) -> bool {
    keys.range(prefix.to_owned()..).next().is_some_and(|(key, _)| key.starts_with(prefix))
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

/// A request: what the rules see, what is sent on, and where in it each character of its route begins.
struct Request {
    spec: RouteSpec,
    host: String,
    seen: String,
    /// One text for each character of the path.
    sent: Vec<String>,
    /// The characters of the host, in the spec.
    before: usize,
}

impl Request {
    /// With host routing not every spec can be asked for.
    fn new(space: Space, spec: &RouteSpec, number: usize) -> Option<Self> {
        if space == Space::Hosts && spec.clone().with_host().as_ref() != Ok(spec) {
            return None;
        }
        let (host, path) = match space {
            Space::Paths => ("", spec.as_str()),
            Space::Hosts if spec.is_root() => ("elsewhere", "/"),
            Space::Hosts => spec.as_str()[1..]
                .split_once('/')
                .map_or((&spec.as_str()[1..], "/"), |(host, _)| (host, &spec.as_str()[1 + host.len()..])),
        };
        let before = if space == Space::Paths { 0 } else { 1 + host.chars().count() };
        let escape = |c: usize| (c + before + number).is_multiple_of(2);
        let (seen, sent) = (as_traefik_sees(path, escape), as_traefik_sends(path, escape));
        Some(Self { spec: spec.clone(), host: host.to_owned(), seen, sent, before })
    }

    /// What a route answers.
    fn by(&self, route: &Route, cut: bool) -> Answer {
        let own =
            if route.spec.is_root() { 0 } else { route.spec.as_str().chars().count().saturating_sub(self.before) };
        let rest = self.sent[if cut { own.min(self.sent.len()) } else { 0 }..].concat();
        let slash = if rest.starts_with('/') { "" } else { "/" };
        Answer::Server(format!("{}{slash}{rest}", route.target.dial_url()))
    }

    /// What it may get while each route that changes has either changed or not.
    fn possible(&self, old: &RouteTable, new: &RouteTable, cut: bool) -> Vec<Answer> {
        let mut possible = Vec::new();
        for prefix in std::iter::successors(Some(self.spec.clone()), RouteSpec::parent) {
            let both = [old.get(&prefix), new.get(&prefix)];
            possible.extend(both.iter().flatten().map(|route| self.by(route, cut)));
            if both.iter().all(Option::is_some) {
                return possible;
            }
        }
        possible.extend([Answer::Page, Answer::Nobody]);
        possible
    }
}

/// Asks for every path once. `paged`: whatever no route takes gets a page by now.
fn check(
    variant: Variant,
    keys: &BTreeMap<String, String>,
    (old, new): (&RouteTable, &RouteTable),
    probes: &[RouteSpec],
    (complete, paged): (bool, bool),
) -> Result<(), TestCaseError> {
    let model = Model::new(keys);
    for (i, probe) in probes.iter().enumerate() {
        let Some(request) = Request::new(variant.space, probe, i) else { continue };
        let answer = model.serve(&request.host, &request.seen, &request.sent.concat()).map_err(TestCaseError::fail)?;
        let nobody = if paged { Answer::Page } else { Answer::Nobody };
        let right = new.lookup(probe).map_or_else(|| nobody, |route| request.by(route, variant.cut));
        if answer != right {
            prop_assert!(!complete, "complete, and {probe} gets {answer:?} instead of {right:?}");
            let possible = request.possible(old, new, variant.cut);
            prop_assert!(possible.contains(&answer), "{probe} gets {answer:?}, not one of {possible:?}");
            prop_assert!(!paged || answer != Answer::Nobody, "{probe} gets no page");
        }
    }
    Ok(())
}

/// Goes from table to table, and asks after each step for many paths: each answer must be the new one; as
/// long as the plan isn't complete, a route that changes may be as it was. Returns the number of steps taken.
fn walk(variant: Variant, tables: &[BTreeMap<String, u16>], edits_max: usize) -> Result<usize, TestCaseError> {
    let settings = settings(variant);
    let (mut keys, mut tree, mut old, mut taken) = (BTreeMap::new(), Tree::default(), RouteTable::default(), 0);
    // From the first routes on there is a page, also when the last route has gone.
    let mut paged = false;
    for routes in tables {
        let new = table(routes);
        let probes = probes(&old, &new);
        let mut complete = false;
        // A domain whose buckets go ends with the next plan only, so a second or third one may have something to do.
        for round in 0.. {
            let steps = plan(&new, &tree, &settings, SMALL, limits(edits_max), &BTreeSet::new());
            if complete && steps.len() == 1 && steps[0].edits.is_empty() {
                break;
            }
            prop_assert!(round < 4, "the plans don't come to an end: {steps:?}");
            for step in &steps {
                // A unit is never torn.
                prop_assert!(
                    step.edits.len() <= edits_max.max(UNIT_MAX).max(settings.keys().len()),
                    "{} edits",
                    step.edits.len()
                );
                apply(&mut keys, &mut tree, step);
                complete |= step.complete;
                paged |= variant.pages && complete && tree.has_root();
                taken += 1;
                check(variant, &keys, (&old, &new), &probes, (complete, paged))?;
            }
            prop_assert!(complete);
        }
        prop_assert!(
            tree.middlewares.len() <= if variant.cut { routes.len() } else { 0 },
            "middlewares are left behind"
        );
        old = new;
    }
    Ok(taken)
}

fn probes(old: &RouteTable, new: &RouteTable) -> Vec<RouteSpec> {
    let mut probes = vec![RouteSpec::from_decoded("/nowhere").expect("valid")];
    for spec in old.iter().chain(new.iter()).map(|r| r.spec.as_str().to_owned()) {
        let more = ["", "/x", "/x/y", "x", "/é"].iter().map(|tail| format!("{spec}{tail}"));
        probes.extend(more.filter_map(|p| RouteSpec::from_decoded(&p).ok()));
    }
    probes.sort();
    probes.dedup();
    probes
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
        walk(PATHS, &tables, edits)?;
    }

    #[test]
    fn every_step_is_right_where_paths_are_cut(
        tables in proptest::collection::vec(any_table("[ab@%é]{1,4}(/[ab]{1,2}){0,2}"), 1..4), edits in 1usize..30, pages in any::<bool>(),
    ) {
        walk(Variant { pages, cut: true, ..PATHS }, &tables, edits)?;
    }

    #[test]
    fn what_no_route_takes_gets_a_page(
        tables in proptest::collection::vec(any_table("[ab@]{1,4}(/[ab]{1,2}){0,2}"), 1..5), edits in 1usize..30,
    ) {
        walk(Variant { pages: true, ..PATHS }, &tables, edits)?;
    }

    #[test]
    fn every_step_is_right_for_families(tables in proptest::collection::vec(families(), 2..7), edits in 1usize..6) {
        walk(PATHS, &tables, edits)?;
    }

    #[test]
    fn every_step_is_right_for_any_name(tables in proptest::collection::vec(any_table("(?s).{1,3}"), 1..4)) {
        walk(PATHS, &tables, 12)?;
    }

    #[test]
    fn every_step_is_right_with_hosts(
        tables in proptest::collection::vec(any_table("[ab-]{1,3}(/[ab]{1,2}){0,1}"), 1..4), edits in 1usize..14, pages in any::<bool>(), cut in any::<bool>(),
    ) {
        let hosts: Vec<_> = tables
            .iter()
            .map(|t| t.iter().map(|(k, v)| (k.replacen("/u/", "/h", 1).replace("/u", "/"), *v)).collect())
            .collect();
        walk(Variant { space: Space::Hosts, pages, cut }, &hosts, edits)?;
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
    let steps = walk(PATHS, &[site(5), site(60), site(30), site(90), site(2)], 24).expect("right at each step");
    assert!(steps > 20, "only {steps} steps: the test has become too easy");
}

/// The root's route comes and goes, beside others that stay: each change is one step, with one answer before and after.
#[test]
fn the_root_comes_and_goes_in_one_step() {
    let site = |root: bool| {
        let users = (0..30).map(|i| (format!("/user/s{i}"), i + 2));
        users.chain(root.then(|| ("/".to_owned(), 1))).collect::<BTreeMap<_, _>>()
    };
    let settings = settings(Variant { pages: true, ..PATHS });
    let (mut keys, mut tree) = (BTreeMap::new(), Tree::default());
    for root in [false, true, false, true] {
        let steps = plan(&table(&site(root)), &tree, &settings, SMALL, limits(1000), &BTreeSet::new());
        for step in &steps {
            apply(&mut keys, &mut tree, step);
        }
        let model = Model::new(&keys);
        let wanted = if root { Answer::Server("http://127.0.0.1:1/x".to_owned()) } else { Answer::Page };
        assert_eq!(model.serve("", "/x", "/x"), Ok(wanted));
        assert_eq!(
            model.serve("", "/user/s3/x", "/user/s3/x"),
            Ok(Answer::Server("http://127.0.0.1:5/user/s3/x".to_owned()))
        );
    }
}

/// Domains that lie in one another and go together: their buckets never hang in two catch-alls at once.
#[test]
fn nested_domains_go_together() {
    let site = |users: u16| -> BTreeMap<String, u16> {
        let own = [("/".to_owned(), 1), ("/u".to_owned(), 2), ("/u/a".to_owned(), 3)];
        let users = (0..users).flat_map(|i| [(format!("/u/x{i}y"), 10 + i), (format!("/u/a/x{i}y"), 100 + i)]);
        own.into_iter().chain(users).collect()
    };
    for pages in [false, true] {
        let last: &[BTreeMap<String, u16>] =
            if pages { &[BTreeMap::new()] } else { &[BTreeMap::from([("/".to_owned(), 1)])] };
        let tables = [&[site(20)], last].concat();
        walk(Variant { pages, ..PATHS }, &tables, 1).expect("right at each step");
    }
}
