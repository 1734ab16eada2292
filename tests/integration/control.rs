//! The control plane over a store in memory and Traefiks that only show markers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pointsman::clock::SystemClock;
use pointsman::control::{ControlError, ControlPlane, Room, Routes, Settings};
use pointsman::lifecycle::{Lifecycle, Readiness};
use pointsman::route::record::{self, Head, RecordKeys};
use pointsman::route::{Route, RouteData, RouteSpec, Target, Weight};
use pointsman::store::memory::MemoryStore;
use pointsman::store::{Guard, Op, SharedStore, Store, Txn, TxnLimits};
use pointsman::traefik::bucket::Sizes;
use pointsman::traefik::client::Access;
use pointsman::traefik::fixed;
use pointsman::traefik::fleet::{Fleet, Source};
use pointsman::traefik::marker::{LAYOUT, Marker};
use pointsman::traefik::rule::Space;
use tokio::time::{Instant, timeout};

use crate::support::fake_traefik::FakeTraefik;
use crate::support::flaky_store::FlakyStore;
use crate::support::wait::eventually;

/// One replica, with what it takes to stop it.
pub(crate) struct Replica {
    pub(crate) control: Arc<ControlPlane>,
    pub(crate) readiness: Readiness,
    lifecycle: Lifecycle,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.lifecycle.stop();
        self.lifecycle.stopping().cancel();
    }
}

pub(crate) fn settings(entry_point: &str) -> Settings {
    Settings {
        records: RecordKeys::new("p"),
        tree: fixed::Settings {
            root_key: "traefik".into(),
            entry_points: vec![entry_point.into()],
            space: Space::Paths,
            pages_url: None,
            pages_get_address: false,
            middlewares: Vec::new(),
            servers: fixed::Servers::default(),
        },
        sizes: Sizes { split_above: 10, split_down_to: 5, merge_below: 4, group_min: 2 },
        room: Room { max: Weight { routes: 100, bytes: 1 << 20 }, share_percent: 10 },
        adopt_layout: false,
        own_root_key: false,
        allow_revision_bump: true,
        deliver: false,
        snapshots: None,
        installation: None,
        layout: LAYOUT,
    }
}

pub(crate) fn replica_with(store: SharedStore, traefiks: &[&FakeTraefik], settings: Settings) -> Replica {
    let (lifecycle, readiness, fleet) = (Lifecycle::new(), Readiness::new(), Arc::new(Fleet::new(Access::etcd())));
    let sources = traefiks.iter().map(|t| Source::Url(t.url.clone())).collect();
    let stopping = lifecycle.stopping();
    let run = fleet.clone().run(sources);
    lifecycle.spawn("fleet", async move {
        let _ = stopping.run_until_cancelled(run).await;
    });
    let control = ControlPlane::start(&lifecycle, &readiness, Arc::new(SystemClock), store, fleet, settings);
    Replica { control, readiness, lifecycle }
}

pub(crate) fn replica(store: SharedStore, traefiks: &[&FakeTraefik]) -> Replica {
    replica_with(store, traefiks, settings("web"))
}

pub(crate) fn spec(path: &str) -> RouteSpec {
    RouteSpec::from_decoded(path).expect("valid")
}

pub(crate) fn target(port: u16) -> Target {
    Target::parse(&format!("http://127.0.0.1:{port}")).expect("valid")
}

pub(crate) async fn add(replica: &Replica, path: &str, port: u16) -> Result<(), ControlError> {
    replica.control.add(spec(path), target(port), RouteData::new(), None).await
}

pub(crate) async fn table(replica: &Replica) -> BTreeMap<String, String> {
    let routes = replica.control.list().await.expect("readable");
    routes.iter().map(|r| (r.spec.as_str().to_owned(), r.target.as_str().to_owned())).collect()
}

async fn revision(store: &MemoryStore) -> i64 {
    store.get("x").await.expect("readable").revision
}

pub(crate) async fn keys(store: &MemoryStore, prefix: &str) -> BTreeMap<String, String> {
    let listing = store.list(prefix).await.expect("readable");
    listing.entries.into_iter().map(|e| (e.key, String::from_utf8(e.value).expect("text"))).collect()
}

/// Head and marker agree: every record change is in Traefik's tree.
async fn is_projected(store: &MemoryStore) -> Result<(), String> {
    let head = store.get("p/hub/head").await.expect("readable").entry.map(|e| Head::parse(&e.value).expect("a head"));
    let marker = store.get(&format!("traefik/{}", fixed::MARKER_KEY)).await.expect("readable").entry;
    let marker = marker.and_then(|e| Marker::parse(std::str::from_utf8(&e.value).expect("text")));
    match (&head, &marker) {
        (Some(head), Some(marker)) if marker.covers(&head.epoch, head.n) => Ok(()),
        _ => Err(format!("head {head:?}, marker {marker:?}")),
    }
}

#[tokio::test]
async fn what_is_added_is_listed_and_routed() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let replica = replica(Arc::new(store.clone()), &[&traefik]);
    add(&replica, "/", 1).await.expect("routed");
    add(&replica, "/user/jane", 2).await.expect("routed");
    assert_eq!(traefik.target("PathPrefix(`/user/jane/`)||Path(`/user/jane`)").as_deref(), Some("http://127.0.0.1:2"));
    add(&replica, "/user/jane", 3).await.expect("routed");
    assert_eq!(traefik.target("PathPrefix(`/user/jane/`)||Path(`/user/jane`)").as_deref(), Some("http://127.0.0.1:3"));
    assert!(replica.control.remove(spec("/user/jane")).await.expect("routed"));
    assert_eq!(traefik.target("PathPrefix(`/user/jane/`)||Path(`/user/jane`)"), None);
    assert_eq!(table(&replica).await, BTreeMap::from([("/".into(), "http://127.0.0.1:1".into())]));
}

#[tokio::test]
async fn the_keys_of_a_small_table() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let mut settings = settings("web");
    settings.tree.pages_url = Some("http://pointsman:8002".parse().expect("a URL"));
    settings.sizes = Sizes { split_above: 3, split_down_to: 2, merge_below: 2, group_min: 2 };
    let replica = replica_with(Arc::new(store.clone()), &[&traefik], settings);
    for (path, port) in [("/", 1), ("/user/jane", 2), ("/user/jack", 3), ("/user/jane/gpu", 4), ("/user/x@y", 5)] {
        add(&replica, path, port).await.expect("routed");
    }
    let shown: Vec<_> = keys(&store, "traefik/")
        .await
        .into_iter()
        .map(|(k, v)| match Marker::parse(&v) {
            Some(marker) => format!("{k} = {}", Marker { tag: "TAG".into(), epoch: "EPOCH".into(), ..marker }),
            None => format!("{k} = {v}"),
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[tokio::test]
async fn an_answer_waits_for_every_traefik() {
    let store = MemoryStore::new();
    let quick = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let slow = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let replica = replica(Arc::new(store.clone()), &[&quick, &slow]);
    add(&replica, "/", 1).await.expect("routed");
    slow.hold(true);
    let mut adding = tokio::task::spawn({
        let control = replica.control.clone();
        async move { control.add(spec("/user/jane"), target(2), RouteData::new(), None).await }
    });
    eventually("the state", Duration::from_secs(5), || async { is_projected(&store).await }).await;
    assert!(timeout(Duration::from_millis(300), &mut adding).await.is_err(), "answered although one Traefik is behind");
    slow.hold(false);
    adding.await.expect("no panic").expect("routed");
}

#[tokio::test]
async fn a_delete_and_an_identical_add_wait_as_well() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let replica = replica(Arc::new(store.clone()), &[&traefik]);
    add(&replica, "/user/jane", 2).await.expect("routed");
    traefik.hold(true);
    let remove = |path: &'static str| {
        let control = replica.control.clone();
        tokio::task::spawn(async move { control.remove(spec(path)).await })
    };
    let first = remove("/user/jane");
    eventually("the state", Duration::from_secs(5), || async {
        if table(&replica).await.is_empty() { Ok(()) } else { Err("still recorded".to_owned()) }
    })
    .await;
    // The retry finds nothing, and must not say so before the first one is true.
    let mut second = remove("/user/jane");
    assert!(timeout(Duration::from_millis(300), &mut second).await.is_err(), "404 before the delete is served");
    traefik.hold(false);
    assert!(first.await.expect("no panic").expect("routed"));
    assert!(!second.await.expect("no panic").expect("routed"));
}

#[tokio::test]
async fn repeating_a_call_writes_nothing() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let replica = replica(Arc::new(store.clone()), &[&traefik]);
    add(&replica, "/user/jane", 2).await.expect("routed");
    let before = revision(&store).await;
    add(&replica, "/user/jane", 2).await.expect("routed");
    assert_eq!(revision(&store).await, before);
}

/// Activity, leases and other programs write to the same store: of its revision alone the records tell nothing.
#[tokio::test]
async fn repeated_calls_do_not_wait_for_what_somebody_else_has_written() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let replica = replica(Arc::new(store.clone()), &[&traefik]);
    add(&replica, "/user/jane", 2).await.expect("routed");
    let other = Op::Put { key: "elsewhere".into(), value: vec![] };
    store.commit(Txn { guards: vec![], ops: vec![other] }).await.expect("committed");
    let begun = Instant::now();
    for _ in 0..5 {
        add(&replica, "/user/jane", 2).await.expect("routed");
    }
    // Each would hold the next one up until the patience with the store is over.
    assert!(begun.elapsed() < Duration::from_millis(1800), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_delete_of_nothing_fences_an_add_that_is_still_on_its_way() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let replica = replica(Arc::new(store.clone()), &[&traefik]);
    add(&replica, "/user/jane", 2).await.expect("routed");
    let head = store.get("p/hub/head").await.expect("readable").entry.expect("a head");
    assert!(!replica.control.remove(spec("/user/bob")).await.expect("routed"));
    let late = Op::Put { key: "p/hub/routes/user/bob".into(), value: vec![] };
    let guard = Guard::at(head.key, head.mod_revision);
    let late = store.commit(Txn { guards: vec![guard], ops: vec![late] }).await.expect("answered");
    assert!(matches!(late, pointsman::store::Commit::Conflict(_)));
}

#[tokio::test]
async fn an_empty_table_makes_no_traefik_ready() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let replica = replica(Arc::new(store.clone()), &[&traefik]);
    assert!(!replica.control.remove(spec("/user/bob")).await.expect("routed"));
    assert!(keys(&store, "traefik/http/routers/").await.is_empty());
}

#[tokio::test]
async fn a_default_never_replaces_what_is_there() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let replica = replica(Arc::new(store.clone()), &[&traefik]);
    let by_default = |port| replica.control.add_if_absent(spec("/"), target(port), RouteData::new());
    assert!(!by_default(1).await.expect("routed"));
    assert!(by_default(2).await.expect("routed"), "there is one");
    assert_eq!(table(&replica).await["/"], "http://127.0.0.1:1");
    add(&replica, "/", 3).await.expect("routed");
    assert!(by_default(4).await.expect("routed"));
    assert_eq!(table(&replica).await["/"], "http://127.0.0.1:3");
}

#[tokio::test]
async fn replicas_agree() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let replicas: Vec<_> = (0..3).map(|_| replica(Arc::new(store.clone()), &[&traefik])).collect();
    let mut calls = tokio::task::JoinSet::new();
    for i in 0..60u16 {
        let control = replicas[usize::from(i) % 3].control.clone();
        calls.spawn(async move {
            let path = spec(&format!("/user/u{}", i % 40));
            if i % 5 == 4 {
                control.remove(path).await.map(drop)
            } else {
                control.add(path, target(i + 1), RouteData::new(), None).await
            }
        });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("no panic").expect("done");
    }
    let tables = [table(&replicas[0]).await, table(&replicas[1]).await, table(&replicas[2]).await];
    assert_eq!(tables[0], tables[1]);
    assert_eq!(tables[1], tables[2]);
    is_projected(&store).await.expect("projected");
    for (path, url) in &tables[0] {
        let rule = format!("PathPrefix(`{path}/`)||Path(`{path}`)");
        assert_eq!(traefik.target(&rule).as_ref(), Some(url));
    }
}

#[tokio::test]
async fn another_replica_finishes_what_a_dead_one_began() {
    let store = MemoryStore::new();
    // A replica committed a record, and died before it came to Traefik's keys.
    let keys = RecordKeys::new("p");
    let route = Route {
        spec: spec("/user/jane"),
        target: target(2),
        data: RouteData::new(),
        created: "2026-01-01T00:00:00Z".parse().expect("a time"),
        n: 1,
    };
    let head = Head { epoch: "e".into(), n: 1, nonce: "x".into() };
    let ops = vec![
        Op::Put { key: keys.head(), value: head.to_string().into_bytes() },
        Op::Put { key: keys.route(&route.spec), value: record::encode(&route) },
    ];
    store.commit(Txn { guards: vec![Guard::at(keys.head(), 0)], ops }).await.expect("committed");
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let _replica = replica(Arc::new(store.clone()), &[&traefik]);
    eventually("the state", Duration::from_secs(5), || async { is_projected(&store).await }).await;
    assert_eq!(keys_of_targets(&store).await, ["http://127.0.0.1:2"]);
}

pub(crate) async fn keys_of_targets(store: &MemoryStore) -> Vec<String> {
    keys(store, "traefik/http/services/")
        .await
        .into_iter()
        .filter(|(k, _)| k.ends_with("/url"))
        .map(|(_, v)| v)
        .collect()
}

#[tokio::test]
async fn a_lost_answer_is_settled_by_the_nonce() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let flaky = FlakyStore::over(Arc::new(store.clone()));
    let replica = replica(flaky.clone(), &[&traefik]);
    add(&replica, "/", 1).await.expect("routed");
    flaky.answers_to_lose.store(1, Ordering::SeqCst);
    let before = flaky.commits.load(Ordering::SeqCst);
    add(&replica, "/user/jane", 2).await.expect("routed");
    assert_eq!(flaky.commits.load(Ordering::SeqCst), before + 1, "the commit was known again, not repeated");
    let head = Head::parse(keys(&store, "p/hub/head").await["p/hub/head"].as_bytes()).expect("a head");
    assert_eq!(head.n, 2);
}

#[tokio::test]
async fn a_store_that_is_away_is_told_within_two_seconds() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let flaky = FlakyStore::over(Arc::new(store.clone()));
    let replica = replica(flaky.clone(), &[&traefik]);
    add(&replica, "/user/jane", 2).await.expect("routed");
    flaky.away.store(true, Ordering::SeqCst);
    let start = Instant::now();
    assert!(matches!(replica.control.list().await, Err(ControlError::Unavailable(_))));
    assert!(matches!(replica.control.get(&spec("/user/jane")).await, Err(ControlError::Unavailable(_))));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let start = Instant::now();
    assert!(matches!(add(&replica, "/user/bob", 3).await, Err(ControlError::Unavailable(_))));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    flaky.away.store(false, Ordering::SeqCst);
    add(&replica, "/user/bob", 3).await.expect("routed");
    assert_eq!(table(&replica).await.len(), 2);
}

#[tokio::test]
async fn more_than_one_transaction_holds() {
    let store = MemoryStore::with_limits(TxnLimits { ops_max: 24, bytes_max: 1 << 20 });
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let replica = replica(Arc::new(store.clone()), &[&traefik]);
    let mut calls = tokio::task::JoinSet::new();
    for i in 0..90u16 {
        let control = replica.control.clone();
        calls.spawn(
            async move { control.add(spec(&format!("/user/u{i}")), target(i + 1), RouteData::new(), None).await },
        );
    }
    while let Some(call) = calls.join_next().await {
        call.expect("no panic").expect("done");
    }
    is_projected(&store).await.expect("projected");
    assert_eq!(table(&replica).await.len(), 90);
    assert_eq!(keys_of_targets(&store).await.len(), 90);
}

#[tokio::test]
async fn other_settings_keep_off_each_others_keys() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let first = replica(Arc::new(store.clone()), &[&traefik]);
    add(&first, "/a", 1).await.expect("routed");
    let other = replica_with(Arc::new(store.clone()), &[&traefik], settings("websecure"));
    eventually("the state", Duration::from_secs(5), || async {
        other.readiness.missing().get("layout").map(drop).ok_or_else(|| format!("{:?}", other.readiness.missing()))
    })
    .await;
    // Its records count all the same: the first one brings them to Traefik.
    add(&other, "/b", 2).await.expect("routed");
    let entry_points =
        &keys(&store, "traefik/http/routers/root/entryPoints").await["traefik/http/routers/root/entryPoints"];
    assert_eq!(entry_points, "web");
    drop(first);
    let mut adopting = settings("websecure");
    adopting.adopt_layout = true;
    let _adopting = replica_with(Arc::new(store.clone()), &[&traefik], adopting);
    eventually("the state", Duration::from_secs(5), || async {
        let now = keys(&store, "traefik/http/routers/root/entryPoints").await;
        if now["traefik/http/routers/root/entryPoints"] == "websecure" { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}
