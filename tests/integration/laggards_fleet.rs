//! The fleet over Traefiks that only show markers: names whose addresses change, and the fallback.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pointsman::store::memory::MemoryStore;
use pointsman::store::{Op, SharedStore, Store, Txn};
use pointsman::traefik::client::Access;
use pointsman::traefik::fixed::MARKER_KEY;
use pointsman::traefik::fleet::{Fleet, Resolver, Source, Status};
use pointsman::traefik::marker::Marker;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::fake_traefik::FakeTraefik;
use crate::support::wait::eventually;

async fn show(store: &MemoryStore, n: u64) {
    let marker = Marker { layout: 1, digest: "d".into(), tag: String::new(), epoch: "e".into(), n };
    let put = Op::Put { key: format!("traefik/{MARKER_KEY}"), value: marker.to_string().into_bytes() };
    store.commit(Txn { guards: Vec::new(), ops: vec![put] }).await.expect("committed");
}

fn address(traefik: &FakeTraefik) -> SocketAddr {
    traefik.url.authority().parse().expect("an address")
}

#[tokio::test]
async fn whoever_a_name_stands_for_is_waited_for_and_nobody_else() {
    let store = MemoryStore::new();
    show(&store, 1).await;
    let shared: SharedStore = Arc::new(store.clone());
    let [first, second, third] = [
        FakeTraefik::start(shared.clone(), "traefik").await,
        FakeTraefik::start(shared.clone(), "traefik").await,
        FakeTraefik::start(shared, "traefik").await,
    ];
    let answer: Arc<Mutex<Result<Vec<SocketAddr>, String>>> = Arc::new(Mutex::new(Ok(vec![address(&first)])));
    let now = answer.clone();
    let resolver = Resolver::new(move |_, _| {
        let answer = now.lock().expect("not poisoned").clone();
        Box::pin(async move { answer })
    });
    let fleet = Arc::new(Fleet::new(Access::etcd()));
    let mut tasks = JoinSet::new();
    let sources = vec![Source::Dns { name: "traefik".into(), port: 1 }];
    tasks.spawn(fleet.clone().run_with(sources, resolver));
    let known = async |expected: &[&FakeTraefik]| {
        eventually("the fleet", Duration::from_secs(5), || async {
            let seen = fleet.watch().borrow().clone();
            let serves = |t: &&FakeTraefik| {
                let url = t.url.as_str().trim_end_matches('/');
                matches!(seen.get(url).map(|seen| &seen.status), Some(Status::Serving(_)))
            };
            if seen.len() == expected.len() && expected.iter().all(serves) { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    };
    let set = |addresses| *answer.lock().expect("not poisoned") = addresses;
    let covered = async |n| fleet.covered("e", n, Instant::now() + Duration::from_millis(800)).await;
    known(&[&first]).await;

    // A new one is waited for.
    set(Ok(vec![address(&first), address(&second)]));
    known(&[&first, &second]).await;
    second.hold(true);
    show(&store, 2).await;
    let behind = covered(2).await.expect_err("the second one is held");
    assert!(behind.contains(second.url.as_str().trim_end_matches('/')), "{behind}");
    // One that is gone is not; neither a failing nor an empty answer takes anybody away.
    for nothing in [Err("no answer".to_owned()), Ok(Vec::new())] {
        set(nothing);
        covered(2).await.expect_err("it is still there");
    }
    set(Ok(vec![address(&first), address(&third)]));
    known(&[&first, &third]).await;
    covered(2).await.expect("both serve it");
    // All addresses may change at once.
    second.hold(false);
    set(Ok(vec![address(&second)]));
    known(&[&second]).await;
    covered(2).await.expect("it serves it");
}

#[tokio::test]
async fn a_traefik_on_the_fallback_is_live_and_has_a_word_of_its_own() {
    let store = MemoryStore::new();
    let shared: SharedStore = Arc::new(store.clone());
    let traefik = FakeTraefik::start_as(shared, "traefik", "http").await;
    let fleet = Arc::new(Fleet::new(Access::etcd()));
    let mut tasks = JoinSet::new();
    tasks.spawn(fleet.clone().run(vec![Source::Url(traefik.url.clone())]));
    let word = async |expected: &str| {
        eventually(expected, Duration::from_secs(5), || async {
            let words: Vec<_> = fleet.watch().borrow().values().map(|seen| seen.status.word()).collect();
            if words == [expected] { Ok(()) } else { Err(format!("{words:?}")) }
        })
        .await;
    };
    word("empty").await;
    show(&store, 5).await;
    word("fallback").await;
    fleet.covered("e", 5, Instant::now() + Duration::from_secs(5)).await.expect("it serves it");
    fleet.covered("e", 6, Instant::now() + Duration::from_millis(300)).await.expect_err("it is waited for");
}
