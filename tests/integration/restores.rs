//! A store that went back in time, was wiped, fell silent or belongs to somebody else: what replicas make of it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pointsman::control::{ControlError, Routes as _, Settings};
use pointsman::route::RouteData;
use pointsman::route::record::Head;
use pointsman::store::memory::MemoryStore;
use pointsman::store::{Op, SharedStore, Store as _, Txn};
use pointsman::traefik::fixed::MARKER_KEY;
use pointsman::traefik::marker::Marker;
use tokio::time::Instant;

use crate::control::{Replica, add, replica, replica_with, settings, spec, table, target};
use crate::support::fake_traefik::FakeTraefik;
use crate::support::flaky_store::FlakyStore;
use crate::support::time_machine::TimeMachine;
use crate::support::wait::eventually;

/// What is noticed is noticed within this time.
const SOON: Duration = Duration::from_secs(5);

/// What is mended is mended within this time, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

async fn head(store: &MemoryStore) -> Option<Head> {
    let entry = store.get("p/hub/head").await.expect("readable").entry;
    entry.map(|entry| Head::parse(&entry.value).expect("a head"))
}

async fn marker(store: &MemoryStore) -> Option<Marker> {
    let entry = store.get(&format!("traefik/{MARKER_KEY}")).await.expect("readable").entry;
    entry.and_then(|entry| Marker::parse(std::str::from_utf8(&entry.value).expect("text")))
}

fn revision(machine: &TimeMachine) -> i64 {
    machine.now().revision()
}

/// Waits until Traefik has heard of everything.
async fn until_heard(traefik: &FakeTraefik, machine: &TimeMachine) {
    eventually("that Traefik hears it", PATIENCE, || async {
        let (heard, now) = (traefik.revision(), revision(machine));
        if heard == now { Ok(()) } else { Err(format!("{heard} of {now}")) }
    })
    .await;
}

/// A change of something else in the store.
async fn scribble(machine: &TimeMachine) {
    let put = Op::Put { key: "somebody/else".into(), value: Vec::new() };
    machine.store().commit(Txn { guards: Vec::new(), ops: vec![put] }).await.expect("written");
}

/// A caller that asks again until it is told that it is done.
async fn until_added(replica: &Replica, path: &str, port: u16) {
    eventually(path, PATIENCE, || async { add(replica, path, port).await.map_err(|error| error.to_string()) }).await;
}

async fn until_ready(replica: &Replica) {
    eventually("readiness", PATIENCE, || async {
        let missing: BTreeMap<_, _> = replica.readiness.missing();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
}

async fn until_held(replica: &Replica, latch: &str) -> String {
    eventually(latch, SOON, || async {
        replica.readiness.missing().get(latch).cloned().ok_or_else(|| format!("{:?}", replica.readiness.missing()))
    })
    .await
}

fn rule(path: &str) -> String {
    format!("PathPrefix(`{path}/`)||Path(`{path}`)")
}

#[tokio::test]
async fn a_restore_under_running_replicas_begins_one_new_history() {
    let machine = TimeMachine::new();
    let traefik = FakeTraefik::start(machine.for_traefik(), "traefik").await;
    let replicas = [replica(machine.store(), &[&traefik]), replica(machine.store(), &[&traefik])];
    add(&replicas[0], "/user/kept", 1).await.expect("routed");
    add(&replicas[0], "/user/deleted", 2).await.expect("routed");
    let (backup, old) = (revision(&machine), head(&machine.now()).await.expect("a head"));
    assert!(replicas[1].control.remove(spec("/user/deleted")).await.expect("routed"));
    add(&replicas[1], "/user/lost", 3).await.expect("routed");
    let lost = revision(&machine);
    machine.go_back_to(backup).await;
    for replica in &replicas {
        eventually("that it is noticed", SOON, || async {
            let noticed = replica.control.counts().went_back();
            if noticed == 1 { Ok(()) } else { Err(format!("{noticed} times")) }
        })
        .await;
        until_ready(replica).await;
        let now = table(replica).await;
        assert_eq!(now.keys().collect::<Vec<_>>(), ["/user/deleted", "/user/kept"], "what the backup had");
    }
    let now = head(&machine.now()).await.expect("a head");
    assert_ne!(now.epoch, old.epoch);
    assert_eq!(now.n, old.n + 1, "one new history, and it goes on counting");
    assert!(revision(&machine) >= lost, "nobody waits in the future");
    // Traefik hears of it, and an identical call, which writes nothing, is true.
    until_added(&replicas[0], "/user/kept", 1).await;
    assert_eq!(traefik.target(&rule("/user/lost")), None);
    assert_eq!(traefik.target(&rule("/user/deleted")).as_deref(), Some("http://127.0.0.1:2"));
    until_added(&replicas[1], "/user/lost", 4).await;
    assert_eq!(traefik.target(&rule("/user/lost")).as_deref(), Some("http://127.0.0.1:4"));
    assert!(replicas[0].control.remove(spec("/user/deleted")).await.expect("routed"));
    for replica in &replicas {
        assert_eq!(replica.control.counts().went_back(), 1, "told once");
    }
}

/// Replicas that were restarted along with etcd know nothing; what Traefiks serve is proof enough.
#[tokio::test]
async fn a_traefik_that_knows_more_is_proof() {
    let machine = TimeMachine::new();
    let traefik = FakeTraefik::start(machine.for_traefik(), "traefik").await;
    let first = replica(machine.store(), &[&traefik]);
    add(&first, "/user/kept", 1).await.expect("routed");
    let backup = revision(&machine);
    for port in 2..6 {
        add(&first, "/user/lost", port).await.expect("routed");
    }
    let old = head(&machine.now()).await.expect("a head");
    drop(first);
    until_heard(&traefik, &machine).await;
    machine.go_back_to(backup).await;
    let second = replica(machine.store(), &[&traefik]);
    until_added(&second, "/user/new", 9).await;
    assert_eq!(traefik.target(&rule("/user/new")).as_deref(), Some("http://127.0.0.1:9"), "answered, so it is served");
    assert_eq!(traefik.target(&rule("/user/lost")), None);
    assert_ne!(head(&machine.now()).await.expect("a head").epoch, old.epoch);
}

/// Nothing of ours was lost, so nobody has proof; but Traefik waits for a revision that the store had.
#[tokio::test]
async fn a_deaf_traefik_is_helped_even_if_nobody_knows_why_it_is_deaf() {
    let machine = TimeMachine::new();
    let traefik = FakeTraefik::start(machine.for_traefik(), "traefik").await;
    let first = replica(machine.store(), &[&traefik]);
    add(&first, "/user/jane", 1).await.expect("routed");
    let backup = revision(&machine);
    drop(first);
    for _ in 0..30 {
        scribble(&machine).await;
    }
    // Traefik hears of something that says nothing new, and so its watch has come as far as the store.
    let key = format!("traefik/{MARKER_KEY}");
    let value = machine.now().get(&key).await.expect("readable").entry.expect("a marker").value;
    let again = Txn { guards: Vec::new(), ops: vec![Op::Put { key, value }] };
    machine.store().commit(again).await.expect("written");
    until_heard(&traefik, &machine).await;
    machine.go_back_to(backup).await;
    let second = replica(machine.store(), &[&traefik]);
    until_added(&second, "/user/new", 9).await;
    assert_eq!(traefik.target(&rule("/user/new")).as_deref(), Some("http://127.0.0.1:9"));
    assert_eq!(second.control.counts().went_back(), 0, "nobody could know");
    assert!(second.control.counts().pushes() > 0);
}

/// An etcd that others use as well is not written on for Traefik's sake, unless that was allowed.
#[tokio::test]
async fn without_leave_the_revision_stays_and_the_remedy_is_named() {
    let machine = TimeMachine::new();
    let traefik = FakeTraefik::start(machine.for_traefik(), "traefik").await;
    let settings = Settings { allow_revision_bump: false, ..settings("web") };
    let replica = replica_with(machine.store(), &[&traefik], settings);
    add(&replica, "/user/kept", 1).await.expect("routed");
    let backup = revision(&machine);
    for port in 1..40 {
        add(&replica, "/user/lost", port).await.expect("routed");
    }
    let lost = revision(&machine);
    until_heard(&traefik, &machine).await;
    machine.go_back_to(backup).await;
    let said = until_held(&replica, "revisions").await;
    for words in ["--allow-revision-bump", "restart every Traefik", "--bump-revision", "--mark-compacted"] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(replica.control.counts().pushes(), 0);
    assert!(revision(&machine) < lost, "{} of {lost}", revision(&machine));
}

#[tokio::test]
async fn a_wipe_is_told_and_the_hub_fills_the_table_again() {
    let machine = TimeMachine::new();
    let traefik = FakeTraefik::start(machine.for_traefik(), "traefik").await;
    let replicas = [replica(machine.store(), &[&traefik]), replica(machine.store(), &[&traefik])];
    for port in 1..20 {
        add(&replicas[0], "/user/jane", port).await.expect("routed");
    }
    let lost = revision(&machine);
    machine.go_back_to(1).await;
    for replica in &replicas {
        eventually("that it is noticed", SOON, || async {
            let noticed = replica.control.counts().went_back();
            if noticed == 1 { Ok(()) } else { Err(format!("{noticed} times")) }
        })
        .await;
    }
    until_added(&replicas[1], "/user/jane", 19).await;
    until_ready(&replicas[0]).await;
    assert_eq!(traefik.target(&rule("/user/jane")).as_deref(), Some("http://127.0.0.1:19"));
    assert!(revision(&machine) >= lost);
    assert_eq!(table(&replicas[0]).await.len(), 1);
}

#[tokio::test]
async fn a_watch_that_died_in_silence_is_noticed_and_replaced() {
    let machine = TimeMachine::new();
    let traefik = FakeTraefik::start(machine.for_traefik(), "traefik").await;
    let replica = replica(machine.store(), &[&traefik]);
    add(&replica, "/user/jane", 1).await.expect("routed");
    until_ready(&replica).await;
    machine.silence(true);
    // Another replica changes something, and this one does not hear of it.
    let now = head(&machine.now()).await.expect("a head");
    let next = Head { n: now.n + 1, nonce: "x".into(), ..now };
    let put = Op::Put { key: "p/hub/head".into(), value: next.to_string().into_bytes() };
    machine.store().commit(Txn { guards: Vec::new(), ops: vec![put] }).await.expect("written");
    let begun = Instant::now();
    let said = until_held(&replica, "mirror").await;
    assert!(begun.elapsed() < SOON && said.contains("restart this replica"), "{said}");
    eventually("a new listing", SOON, || async { replica.control.list().await.map_err(|e| e.to_string()) }).await;
    assert!(replica.control.counts().relists() >= 1);
    machine.silence(false);
    until_ready(&replica).await;
}

#[tokio::test]
async fn a_store_that_is_away_is_said_within_five_seconds() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(std::sync::Arc::new(store.clone()), "traefik").await;
    let flaky = FlakyStore::over(std::sync::Arc::new(store));
    let replica = replica(flaky.clone(), &[&traefik]);
    add(&replica, "/user/jane", 1).await.expect("routed");
    until_ready(&replica).await;
    flaky.away.store(true, Ordering::SeqCst);
    let said = until_held(&replica, "store").await;
    assert!(said.contains("quorum"), "{said}");
    flaky.away.store(false, Ordering::SeqCst);
    until_ready(&replica).await;
    add(&replica, "/user/jane", 2).await.expect("routed");
}

#[tokio::test]
async fn a_store_that_takes_no_changes_is_said_until_it_does() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(std::sync::Arc::new(store.clone()), "traefik").await;
    let flaky = FlakyStore::over(std::sync::Arc::new(store));
    let replica = replica(flaky.clone(), &[&traefik]);
    add(&replica, "/user/jane", 1).await.expect("routed");
    until_ready(&replica).await;
    flaky.full.store(true, Ordering::SeqCst);
    add(&replica, "/user/bob", 2).await.expect_err("no space");
    let said = until_held(&replica, "writes").await;
    assert!(said.contains("no space") && said.contains("served as before"), "{said}");
    assert_eq!(table(&replica).await.len(), 1, "it is read as before");
    flaky.full.store(false, Ordering::SeqCst);
    until_ready(&replica).await;
    add(&replica, "/user/bob", 2).await.expect("routed");
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_named() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(std::sync::Arc::new(store.clone()), "traefik").await;
    let replica = replica(std::sync::Arc::new(store.clone()), &[&traefik]);
    add(&replica, "/user/jane", 1).await.expect("routed");
    let put = Op::Put { key: "p/hub/head".into(), value: b"9 from the future".to_vec() };
    store.commit(Txn { guards: Vec::new(), ops: vec![put] }).await.expect("written");
    let said = until_held(&replica, "head").await;
    assert!(said.contains("p/hub/head"), "{said}");
}

fn named(name: Option<&str>) -> Settings {
    Settings { installation: name.map(Into::into), ..settings("web") }
}

/// Everything in the store, but what is written to bring it on.
async fn everything(store: &MemoryStore) -> Vec<(String, Vec<u8>)> {
    store.list("").await.expect("readable").entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

#[tokio::test]
async fn another_installation_is_refused_by_name_and_writes_nothing() {
    let store = MemoryStore::new();
    let shared: SharedStore = std::sync::Arc::new(store.clone());
    let traefik = FakeTraefik::start(shared.clone(), "traefik").await;
    let maths = replica_with(shared.clone(), &[&traefik], named(Some("maths")));
    add(&maths, "/user/jane", 1).await.expect("routed");
    let before = everything(&store).await;
    let mut elsewhere = named(Some("maths"));
    elsewhere.tree.root_key = "proxy".into();
    for (settings, words) in [
        (named(Some("physics")), ["'maths'", "'physics'", "--installation"]),
        (named(None), ["'maths'", "without a name", "--installation"]),
        (Settings { adopt_layout: true, ..named(Some("physics")) }, ["'maths'", "'physics'", "--installation"]),
        (elsewhere, ["'traefik'", "'proxy'", "--traefik-root-key"]),
    ] {
        let other = replica_with(shared.clone(), &[&traefik], settings);
        let said = until_held(&other, "installation").await;
        let Err(ControlError::Unavailable(answer)) = add(&other, "/user/bob", 2).await else { panic!("not refused") };
        let Err(ControlError::Unavailable(gone)) = other.control.remove(spec("/user/jane")).await else {
            panic!("not refused")
        };
        for sentence in [said, answer, gone] {
            assert!(words.iter().all(|word| sentence.contains(word)), "{sentence}");
        }
    }
    assert_eq!(everything(&store).await, before, "nothing was written");
    let twin = replica_with(shared, &[&traefik], named(Some("maths")));
    add(&twin, "/user/bob", 2).await.expect("one of ours");
}

/// Two on one root key of Traefik's, each with records of its own: the second keeps off the first one's tree.
#[tokio::test]
async fn two_installations_on_one_root_key_keep_apart() {
    let store = MemoryStore::new();
    let shared: SharedStore = std::sync::Arc::new(store.clone());
    let traefik = FakeTraefik::start(shared.clone(), "traefik").await;
    let first = replica(shared.clone(), &[&traefik]);
    add(&first, "/user/jane", 1).await.expect("routed");
    let other = Settings { records: pointsman::route::record::RecordKeys::new("q"), ..settings("web") };
    let other = replica_with(shared, &[&traefik], other);
    until_held(&other, "layout").await;
    let layout = marker(&store).await;
    add(&first, "/user/jane", 2).await.expect("routed");
    assert_eq!(marker(&store).await.map(|marker| marker.digest), layout.map(|marker| marker.digest));
}

fn of_layout(layout: u32, adopt: bool) -> Settings {
    Settings { layout, adopt_layout: adopt, ..settings("web") }
}

/// A rolling upgrade and the way back: both layouts work on one store, the newer one has the tree.
#[tokio::test]
async fn two_layouts_work_side_by_side_and_the_way_back_is_open() {
    let store = MemoryStore::new();
    let shared: SharedStore = std::sync::Arc::new(store.clone());
    let traefik = FakeTraefik::start(shared.clone(), "traefik").await;
    let start = |layout, adopt| replica_with(shared.clone(), &[&traefik], of_layout(layout, adopt));
    let layout = async || marker(&store).await.map(|marker| marker.layout);
    let old = start(1, false);
    add(&old, "/user/old", 1).await.expect("routed");
    assert_eq!(layout().await, Some(1));
    assert!(!everything(&store).await.iter().any(|(key, _)| key == "p/hub/installation"), "as the old release is");
    // Forward: the new one takes the tree, the old one says so and still takes changes.
    let new = start(2, false);
    add(&new, "/user/new", 2).await.expect("routed");
    assert_eq!(layout().await, Some(2));
    until_held(&old, "layout").await;
    add(&old, "/user/old", 3).await.expect("recorded by the old one, routed by the new one");
    assert_eq!(traefik.target(&rule("/user/old")).as_deref(), Some("http://127.0.0.1:3"));
    assert!(old.control.remove(spec("/user/new")).await.expect("routed"));
    assert_eq!(traefik.target(&rule("/user/new")), None);
    assert_eq!(layout().await, Some(2));
    until_ready(&new).await;
    // Back: the new ones stop, an old one is told to take over.
    drop((old, new));
    let old = start(1, true);
    until_added(&old, "/user/old", 4).await;
    assert_eq!(layout().await, Some(1));
    assert_eq!(traefik.target(&rule("/user/old")).as_deref(), Some("http://127.0.0.1:4"));
    drop(old);
    // And forward again.
    let new = start(2, false);
    until_added(&new, "/user/new", 5).await;
    assert_eq!(layout().await, Some(2));
    until_ready(&new).await;
    assert_eq!(new.control.counts().went_back(), 0);
    let adding = new.control.add(spec("/user/old"), target(4), RouteData::new(), None);
    adding.await.expect("what the old one wrote counts");
}
