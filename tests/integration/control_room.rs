//! The control plane at the limits of its table: by routes, by bytes, and by the share of a caller.

use std::sync::Arc;

use pointsman::control::{ControlError, Room, Routes};
use pointsman::route::{RouteData, Weight};
use pointsman::store::memory::MemoryStore;

use crate::control::{add, keys, replica_with, settings, spec, target};
use crate::support::fake_traefik::FakeTraefik;

#[tokio::test]
async fn a_full_table_is_told() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let mut settings = settings("web");
    settings.room.max.routes = 2;
    let replica = replica_with(Arc::new(store.clone()), &[&traefik], settings);
    add(&replica, "/a", 1).await.expect("routed");
    add(&replica, "/b", 1).await.expect("routed");
    assert!(matches!(add(&replica, "/c", 1).await, Err(ControlError::TooManyRoutes { max: 2 })));
    add(&replica, "/b", 2).await.expect("a change is no new route");
}

#[tokio::test]
async fn a_table_with_too_many_bytes_is_told() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let mut settings = settings("web");
    settings.room.max.bytes = 10_000;
    let replica = replica_with(Arc::new(store.clone()), &[&traefik], settings);
    let sized = |bytes: usize| RouteData::from_iter([("x".to_owned(), "y".repeat(bytes).into())]);
    let add = |path: &str, bytes| replica.control.add(spec(path), target(1), sized(bytes), None);
    add("/a", 4_000).await.expect("routed");
    add("/b", 4_000).await.expect("routed");
    for path in ["/c", "/b"] {
        let refused = add(path, 6_000).await.expect_err("no room");
        assert!(matches!(refused, ControlError::TooManyBytes { max: 10_000 }), "{path}: {refused}");
        assert!(refused.to_string().contains("10000 bytes") && refused.to_string().contains("--max-table-bytes"));
    }
    add("/b", 100).await.expect("smaller");
    add("/c", 4_000).await.expect("room again");
    let bytes: usize = keys(&store, "p/hub/routes/").await.values().map(String::len).sum();
    assert!(bytes <= 10_000, "{bytes}");
}

#[tokio::test]
async fn a_caller_of_some_prefixes_fills_its_share_only() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    let mut settings = settings("web");
    settings.room = Room { max: Weight { routes: 30, bytes: 100_000 }, share_percent: 10 };
    let replica = replica_with(Arc::new(store.clone()), &[&traefik], settings);
    let below = [spec("/user/jane"), spec("/user/jane/x")];
    let sized = |bytes: usize| RouteData::from_iter([("x".to_owned(), "y".repeat(bytes).into())]);
    let add = |path: &str, bytes| replica.control.add(spec(path), target(1), sized(bytes), Some(&below));
    // Routes that another caller has added there count as well.
    replica.control.add(spec("/user/jane"), target(1), sized(1), None).await.expect("routed");
    add("/user/jane/x/1", 1).await.expect("routed");
    let heavy = add("/user/jane/x/2", 10_000).await.expect_err("its bytes are used up");
    assert!(matches!(heavy, ControlError::ShareIsFull { max: Weight { routes: 3, bytes: 10_000 } }), "{heavy}");
    add("/user/jane/x/2", 1).await.expect("routed");
    let more = add("/user/jane/x/3", 1).await.expect_err("its routes are used up");
    assert!(more.to_string().contains("more than 3") && more.to_string().contains("--jwt-table-percent"), "{more}");
    add("/user/jane/x/2", 2).await.expect("a change is no new route");
    // Others have room, and so has who may change everything.
    replica.control.add(spec("/user/bob"), target(1), sized(1), Some(&[spec("/user/bob")])).await.expect("routed");
    replica.control.add(spec("/user/jane/x/3"), target(1), sized(1), Some(&[spec("/")])).await.expect("routed");
}
