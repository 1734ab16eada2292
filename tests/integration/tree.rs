//! The tree of routers on a real Traefik that reads it from a real etcd: right after every single transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use pointsman::route::{Route, RouteData, RouteSpec, RouteTable, Target};
use pointsman::store::etcd::EtcdStore;
use pointsman::store::{Op, Store, Txn};
use pointsman::traefik::bucket::Sizes;
use pointsman::traefik::fixed::Servers;
use pointsman::traefik::fixed::{MARKER_HEADER, MARKER_KEY, SENTINEL_PATH, Settings};
use pointsman::traefik::marker::{LAYOUT, Marker};
use pointsman::traefik::plan::{self, Edit, Limits, Step};
use pointsman::traefik::rule::Space;
use pointsman::traefik::tree::Tree;
use tokio::sync::watch;

use crate::support::etcd::Etcd;
use crate::support::pointsman::pointsman;
use crate::support::process::free_port;
use crate::support::raw_http::{Backends, RawClient};
use crate::support::traefik::Traefik;
use crate::support::wait::eventually;

/// Small enough that dozens of routes split and merge all the time.
const SMALL: Sizes = Sizes { split_above: 12, split_down_to: 6, merge_below: 5, group_min: 2 };

/// Which server each route leads to.
type Routes = BTreeMap<String, u16>;

/// etcd, Traefik and servers, and the keys as we have written them.
struct World {
    _etcd: Etcd,
    traefik: Traefik,
    _folder: tempfile::TempDir,
    backends: Backends,
    public: u16,
    store: EtcdStore,
    settings: Settings,
    tree: Tree,
    keys: BTreeMap<String, String>,
    steps: u64,
}

impl World {
    async fn start(space: Space) -> Self {
        let etcd = Etcd::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let [public, private] = [free_port(), free_port()];
        let written = pointsman(
            &[
                "traefik-config",
                "--dir",
                &folder.path().display().to_string(),
                "--etcd-endpoints",
                etcd.endpoint(),
                "--port",
                &public.to_string(),
                "--traefik-api",
                &format!("http://127.0.0.1:{private}"),
            ],
            &[],
        );
        assert_eq!(written.code, 0, "{}", written.stderr);
        let store = etcd.store().await;
        let settings = Settings {
            root_key: "traefik".into(),
            entry_points: vec!["web".into()],
            space,
            pages_url: None,
            pages_get_address: false,
            middlewares: Vec::new(),
            servers: Servers::default(),
        };
        // Something must be there, or Traefik asks again at ever longer intervals.
        let marker = Op::Put { key: format!("traefik/{MARKER_KEY}"), value: b"1.d.e.0".to_vec() };
        store.commit(Txn { guards: vec![], ops: vec![marker] }).await.expect("written");
        let traefik = Traefik::start(&folder.path().join("traefik.yaml"), private, folder.path()).await;
        let backends = Backends::start().await;
        let (tree, keys) = (Tree::default(), BTreeMap::new());
        Self { _etcd: etcd, traefik, _folder: folder, backends, public, store, settings, tree, keys, steps: 0 }
    }

    fn table(&self, routes: &Routes) -> RouteTable {
        let route = |(spec, server): (&String, &u16)| Route {
            spec: RouteSpec::from_decoded(spec).expect("valid"),
            target: Target::parse(&self.backends.url(*server)).expect("valid"),
            data: RouteData::new(),
            created: "2026-01-01T00:00:00Z".parse().expect("a time"),
            n: 1,
        };
        routes.iter().map(route).collect()
    }

    fn plan(&self, table: &RouteTable, edits_max: usize) -> Vec<Step> {
        let limits = Limits { edits_max, bytes_max: 1 << 20, reserved_edits: 0, reserved_bytes: 0 };
        plan::plan(table, &self.tree, &self.settings, SMALL, limits, &BTreeSet::new())
    }

    /// Commits a step, and returns when Traefik serves it.
    async fn take(&mut self, step: &Step) {
        self.steps += 1;
        let marker =
            Marker { layout: LAYOUT, digest: "d".into(), tag: String::new(), epoch: "e".into(), n: self.steps };
        let mut ops = vec![Op::Put { key: format!("traefik/{MARKER_KEY}"), value: marker.to_string().into_bytes() }];
        for edit in &step.edits {
            match edit.clone() {
                Edit::Put { key, value } => {
                    ops.push(Op::Put { key: format!("traefik/{key}"), value: value.clone().into_bytes() });
                    self.tree.put(&key, &value, 1);
                    self.keys.insert(key, value);
                }
                Edit::Delete { key } => {
                    ops.push(Op::Delete { key: format!("traefik/{key}") });
                    self.tree.delete(&key);
                    self.keys.remove(&key);
                }
                Edit::DeletePrefix { prefix } => {
                    ops.push(Op::DeletePrefix { prefix: format!("traefik/{prefix}") });
                    let gone: Vec<_> = self.keys.keys().filter(|k| k.starts_with(&prefix)).cloned().collect();
                    for key in gone {
                        self.tree.delete(&key);
                        self.keys.remove(&key);
                    }
                }
            }
        }
        self.store.commit(Txn { guards: vec![], ops }).await.expect("committed");
        let (public, wanted) = (self.public, marker.to_string());
        eventually("the marker", Duration::from_secs(20), || async {
            let answer = RawClient::connect(public).await.get("x", SENTINEL_PATH).await;
            let line = format!("{MARKER_HEADER}: {wanted}");
            if answer.head.contains(&line) { Ok(()) } else { Err(format!("{wanted} is not in {}", answer.head)) }
        })
        .await;
    }
}

/// What may answer a path while each route that changes has either changed or not; 0 is nobody.
fn possible(old: &Routes, new: &Routes, path: &str) -> Vec<u16> {
    let mut possible = Vec::new();
    let spec = RouteSpec::from_decoded(path).expect("valid");
    for prefix in std::iter::successors(Some(spec), RouteSpec::parent) {
        let both = [old.get(prefix.as_str()), new.get(prefix.as_str())];
        possible.extend(both.iter().flatten().copied());
        if both.iter().all(Option::is_some) {
            return possible;
        }
    }
    possible.push(0);
    possible
}

/// Asks for each path once; counts questions and wrong answers.
async fn ask(client: &mut RawClient, old: &Routes, new: &Routes) -> (u64, Vec<String>) {
    let (mut asked, mut wrong) = (0, Vec::new());
    for (i, spec) in old.keys().chain(new.keys()).enumerate() {
        let path = format!("{}{}", spec.trim_end_matches('/'), ["", "/", "/lab/tree"][i % 3]);
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let answer = client.get("hub.example.org", &spell(&path, i % 2 == 0)).await;
        let server = if answer.status == 404 { 0 } else { answer.body.parse().unwrap_or(u16::MAX) };
        let right = possible(old, new, &path);
        asked += 1;
        if !right.contains(&server) {
            wrong.push(format!("{path}: {server} instead of {right:?}"));
        }
    }
    (asked, wrong)
}

/// A path as a client may send it: reserved characters plain or escaped, everything unusual escaped.
fn spell(path: &str, plain: bool) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        let c = char::from(byte);
        let reserved = ":@!$&'()*+,;=[]".contains(c);
        if byte.is_ascii_alphanumeric() || "/-._~".contains(c) || (plain && reserved) {
            out.push(c);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Users with skewed names, some with a mail address, some with servers of their own.
fn site(users: u16, servers: u16) -> Routes {
    let mut routes = BTreeMap::from([("/".to_owned(), 1)]);
    for i in 0..users {
        let name = [format!("s{i}"), format!("anna{i}"), format!("bob@x{i}.org"), format!("zoë.{i}")]
            [usize::from(i) % 4]
            .clone();
        routes.insert(format!("/user/{name}"), 2 + i);
        for server in 0..(if i % 7 == 0 { servers } else { 0 }) {
            routes.insert(format!("/user/{name}/srv{server}"), 1000 + i * 40 + server);
        }
    }
    routes
}

/// The tables that a site goes through: it grows, shrinks, gets a base URL that becomes a domain, loses it.
fn tables() -> Vec<Routes> {
    let based: BTreeMap<_, _> =
        site(40, 2).into_iter().map(|(spec, i)| (format!("/jup{spec}").trim_end_matches('/').to_owned(), i)).collect();
    let both = site(30, 3).into_iter().chain(based.clone()).collect();
    vec![site(8, 2), site(70, 3), site(25, 1), both, based, site(90, 2), site(3, 0)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_transaction_is_right() {
    let mut world = World::start(Space::Paths).await;
    let (mut asked, mut wrong) = (0, Vec::new());
    let mut old = BTreeMap::new();
    let mut client = RawClient::connect(world.public).await;

    // A steady load beside: it asks for what is in both tables, without waiting for anything.
    let tables_now: watch::Sender<Option<(Routes, Routes)>> = watch::Sender::new(None);
    let load = tokio::task::spawn({
        let (mut now, public) = (tables_now.subscribe(), world.public);
        async move {
            let mut client = RawClient::connect(public).await;
            let (mut asked, mut wrong) = (0, Vec::new());
            while now.has_changed().is_ok() {
                let pair = now.borrow_and_update().clone();
                let Some((old, new)) = pair else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let (a, w) = ask(&mut client, &old, &new).await;
                asked += a;
                // What was asked while the tables changed under us proves nothing.
                if now.has_changed().is_ok_and(|changed| !changed) {
                    wrong.extend(w);
                }
                tokio::task::yield_now().await;
            }
            (asked, wrong)
        }
    });

    for new in tables() {
        tables_now.send_replace(Some((old.clone(), new.clone())));
        let table = world.table(&new);
        let mut complete = false;
        loop {
            let steps = world.plan(&table, 40);
            if complete && steps.iter().all(|step| step.edits.is_empty()) {
                break;
            }
            for step in steps {
                world.take(&step).await;
                complete |= step.complete;
                let (a, w) = ask(&mut client, if complete { &new } else { &old }, &new).await;
                asked += a;
                wrong.extend(w.into_iter().map(|w| format!("after step {}: {w}", world.steps)));
            }
        }
        old = new;
    }
    drop(tables_now);
    let (under_load, wrong_under_load) = load.await.expect("no panic");
    let proof = format!("{} transactions; asked {asked} times after one, {under_load} times meanwhile", world.steps);
    assert!(world.steps > 40 && asked > 4000 && under_load > 1000, "too little to prove anything: {proof}");
    assert!(wrong.is_empty(), "{} wrong: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(
        wrong_under_load.is_empty(),
        "{} wrong under load: {:?}",
        wrong_under_load.len(),
        &wrong_under_load[..wrong_under_load.len().min(5)]
    );
    let log = world.traefik.process.log();
    assert!(!log.contains(" ERR ") && !log.contains("level=error"), "Traefik complains:\n{log}");
}

/// The control: the same steps in the wrong order do give wrong answers, and this test would see them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_order_is_seen() {
    let mut world = World::start(Space::Paths).await;
    let (first, second) = (site(70, 3), site(25, 1));
    let mut client = RawClient::connect(world.public).await;
    for step in world.plan(&world.table(&first), 40) {
        world.take(&step).await;
    }
    let mut steps = world.plan(&world.table(&second), 40);
    steps.reverse();
    let mut wrong = 0;
    for step in steps {
        world.take(&step).await;
        wrong += ask(&mut client, &first, &second).await.1.len();
    }
    assert!(wrong > 0, "the steps backwards did no harm, so the other test proves nothing");
}

/// Every character that a user name may hold, alone and together, in every spelling that a client may send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_name_routes_in_every_spelling() {
    let mut world = World::start(Space::Paths).await;
    let mut names: Vec<String> = (1u8..127).map(char::from).filter(|c| *c != '/').map(|c| format!("a{c}b")).collect();
    names.extend(
        [
            "a@b.c+d",
            "x'y(z)%25~.",
            "Ünïcødé Name",
            "秀",
            "e\u{301}",
            "\u{feff}bom",
            "`)||Host(`x",
            "${jndi}",
            "{id:.*}",
            "a%2Fb",
            "AbC",
            "..a",
            "%",
            "@",
            "+",
            "'\"",
            "a\u{2028}b",
            "😀",
        ]
        .map(str::to_owned),
    );
    let mut routes = BTreeMap::from([("/".to_owned(), 1)]);
    for (i, name) in names.iter().enumerate() {
        routes.insert(format!("/user/{name}"), u16::try_from(i + 2).expect("few"));
    }
    let table = world.table(&routes);
    for step in world.plan(&table, 120) {
        world.take(&step).await;
    }
    let mut client = RawClient::connect(world.public).await;
    let mut wrong = Vec::new();
    for (spec, server) in &routes {
        for plain in [true, false] {
            for tail in ["", "/", "/lab?x=1;y", "/a/b%2Fc"] {
                let spec = spec.trim_end_matches('/');
                let path = format!("{}{tail}", spell(spec, plain));
                let path = if path.is_empty() { "/".to_owned() } else { path };
                let answer = client.get("hub.example.org", &path).await;
                if answer.body != server.to_string() {
                    wrong.push(format!("{path}: {} {} instead of {server}", answer.status, answer.body));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
    let overview =
        crate::support::wait::http_get(&format!("{}/api/overview", world.traefik.api)).await.expect("answers").1;
    let overview: serde_json::Value = serde_json::from_str(&overview).expect("JSON");
    assert_eq!(overview["http"]["routers"]["errors"], 0, "Traefik could not use some router");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_told_apart() {
    let mut world = World::start(Space::Hosts).await;
    let mut routes = BTreeMap::from([("/".to_owned(), 1), ("/hub.example.org".to_owned(), 2)]);
    for i in 0..30u16 {
        routes.insert(format!("/u{i}-x.example.org"), 10 + i);
        routes.insert(format!("/u{i}-x.example.org/user/u{i}/a b"), 100 + i);
    }
    for step in world.plan(&world.table(&routes), 60) {
        world.take(&step).await;
    }
    let mut client = RawClient::connect(world.public).await;
    for i in 0..30u16 {
        let host = format!("u{i}-X.example.org");
        assert_eq!(client.get(&host, "/x").await.body, (10 + i).to_string());
        assert_eq!(
            client.get(&format!("{host}:8000"), &format!("/user/u{i}/a%20b/lab")).await.body,
            (100 + i).to_string()
        );
    }
    assert_eq!(client.get("hub.example.org", "/hub").await.body, "2");
    assert_eq!(client.get("elsewhere.org", "/hub").await.body, "1");
}
