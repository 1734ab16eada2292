//! The control plane and records that can't be read: those that lie in the store, and those that would.

use std::sync::Arc;

use pointsman::control::{ControlError, Routes};
use pointsman::route::{RouteData, record};
use pointsman::store::memory::MemoryStore;
use pointsman::store::{Op, Store, Txn};

use crate::control::{add, keys, keys_of_targets, replica, spec, table, target};
use crate::support::fake_traefik::FakeTraefik;

#[tokio::test]
async fn a_record_that_cannot_be_read_freezes_its_route() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let first = replica(Arc::new(store.clone()), &[&traefik]);
    add(&first, "/user/jane", 2).await.expect("routed");
    let put = Op::Put { key: "p/hub/routes/user/jane".into(), value: b"{\"v\":99}".to_vec() };
    store.commit(Txn { guards: vec![], ops: vec![put] }).await.expect("committed");
    add(&first, "/user/bob", 3).await.expect("routed");
    // The very route that was last good mends the record.
    add(&first, "/user/jane", 2).await.expect("routed");
    let mended = &keys(&store, "p/hub/routes/user/jane").await["p/hub/routes/user/jane"];
    assert_eq!(record::parse(mended.as_bytes()).expect("a record").target, target(2));
    let put = Op::Put { key: "p/hub/routes/user/jane".into(), value: b"{\"v\":99}".to_vec() };
    store.commit(Txn { guards: vec![], ops: vec![put] }).await.expect("committed");
    drop(first);
    // One that has never seen the good version leaves the keys alone too.
    let second = replica(Arc::new(store.clone()), &[&traefik]);
    add(&second, "/user/eve", 4).await.expect("routed");
    let mut targets = keys_of_targets(&store).await;
    targets.sort();
    assert_eq!(targets, ["http://127.0.0.1:2", "http://127.0.0.1:3", "http://127.0.0.1:4"]);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_deleted_with_its_route() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let first = replica(Arc::new(store.clone()), &[&traefik]);
    add(&first, "/", 1).await.expect("routed");
    add(&first, "/user/jane", 2).await.expect("routed");
    drop(first);
    // As a version wrote it that took data of any depth: inside of a record it is too deep to be read.
    let deep = format!("{}{}", "[".repeat(126), "]".repeat(126));
    let record = format!(
        r#"{{"v":1,"spec":"/user/jane","target":"http://127.0.0.1:2","data":{{"x":{deep}}},"n":2,"created":"2026-01-01T00:00:00Z"}}"#
    );
    let put = |key: &str, value: &str| Op::Put { key: key.into(), value: value.into() };
    let planted = vec![
        put("p/hub/routes/user/jane", &record),
        // The same route in a spelling that is not ours: no record of any route.
        put("p/hub/routes/user/%6aane", &record),
    ];
    store.commit(Txn { guards: vec![], ops: planted }).await.expect("committed");
    let second = replica(Arc::new(store.clone()), &[&traefik]);
    assert_eq!(table(&second).await.len(), 1);
    assert_eq!(keys_of_targets(&store).await.len(), 2, "it is still routed");
    assert!(second.control.remove(spec("/user/jane")).await.expect("deleted"), "it was there");
    assert_eq!(keys_of_targets(&store).await, ["http://127.0.0.1:1"]);
    assert!(!keys(&store, "p/hub/routes/").await.contains_key("p/hub/routes/user/jane"));
    assert!(!second.control.remove(spec("/user/jane")).await.expect("answered"), "and is gone");
    // A stranger that goes takes no route along.
    add(&second, "/user/jane", 3).await.expect("routed");
    let delete = Op::Delete { key: "p/hub/routes/user/%6aane".into() };
    store.commit(Txn { guards: vec![], ops: vec![delete] }).await.expect("committed");
    add(&second, "/user/bob", 4).await.expect("routed");
    assert_eq!(table(&second).await.len(), 3);
    assert_eq!(keys_of_targets(&store).await.len(), 3);
}

#[tokio::test]
async fn what_could_not_be_read_again_is_not_written() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let replica = replica(Arc::new(store.clone()), &[&traefik]);
    add(&replica, "/", 1).await.expect("routed");
    let nested = |levels| (2..levels).fold(serde_json::json!([]), |inner, _| serde_json::json!([inner]));
    for levels in [65, 127, 300] {
        let data = RouteData::from_iter([("x".to_owned(), nested(levels))]);
        let added = replica.control.add(spec("/user/jane"), target(2), data, None).await;
        assert!(matches!(added, Err(ControlError::Unwritable(_))), "{levels}: {added:?}");
    }
    assert_eq!(table(&replica).await.len(), 1);
    assert_eq!(keys_of_targets(&store).await, ["http://127.0.0.1:1"]);
}
