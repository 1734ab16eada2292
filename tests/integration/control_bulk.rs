//! Many changes straight into a store: beside others, and when answers get lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pointsman::clock::SystemClock;
use pointsman::control::bulk::{BulkError, Wish, read, write};
use pointsman::route::record::{Head, RecordKeys};
use pointsman::route::{RouteSpec, Target, Weight};
use pointsman::store::memory::MemoryStore;
use pointsman::store::{Guard, Op, SharedStore, Store, Txn};

use crate::support::flaky_store::FlakyStore;

const ROOM: Weight = Weight { routes: 1000, bytes: 1 << 20 };

fn keys() -> RecordKeys {
    RecordKeys::new("pointsman")
}

fn wish(i: usize) -> Wish {
    let target = format!("http://10.0.0.1:{}", i + 1);
    let data = [("target".to_owned(), target.as_str().into())].into_iter().collect();
    let spec = RouteSpec::from_decoded(&format!("/user/u{i}")).expect("a route");
    Wish { spec, state: Some((Target::parse(&target).expect("a target"), data)), used: None }
}

async fn head(store: &dyn Store) -> Head {
    let read = store.get(&keys().head()).await.expect("memory");
    Head::parse(&read.entry.expect("a head").value).expect("a head")
}

#[tokio::test]
async fn each_transaction_moves_the_head_by_one_and_nothing_is_written_twice() {
    let memory: SharedStore = Arc::new(MemoryStore::new());
    let flaky = FlakyStore::over(memory.clone());
    let wishes: Vec<Wish> = (0..300).map(wish).collect();
    let mut told = Vec::new();
    write(&*flaky, &keys(), &SystemClock, ROOM, &wishes, |done| told.push(done)).await.unwrap();
    // The store takes 128 operations at a time, and one of them is the head.
    assert_eq!(told, [127, 254, 300]);
    assert_eq!((head(&*memory).await.n, flaky.commits.load(Ordering::SeqCst)), (3, 3));
    write(&*flaky, &keys(), &SystemClock, ROOM, &wishes, |_| {}).await.unwrap();
    assert_eq!(flaky.commits.load(Ordering::SeqCst), 3, "what is so already was written again");

    let created = read(&*memory, &keys()).await.unwrap().table.get(&wishes[0].spec).unwrap().created;
    let Wish { spec, state: Some((_, data)), .. } = wishes[0].clone() else { panic!("a route") };
    let other = Wish { spec: spec.clone(), state: Some((Target::parse("http://other").unwrap(), data)), used: None };
    let removed = Wish { state: None, ..wishes[1].clone() };
    write(&*flaky, &keys(), &SystemClock, ROOM, &[other, removed], |_| {}).await.unwrap();
    let table = read(&*memory, &keys()).await.unwrap().table;
    let route = table.get(&spec).unwrap();
    assert_eq!((route.target.as_str(), route.created, route.n, table.len()), ("http://other", created, 4, 299));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_no_harm() {
    let memory: SharedStore = Arc::new(MemoryStore::new());
    let flaky = FlakyStore::over(memory.clone());
    flaky.answers_to_lose.store(2, Ordering::SeqCst);
    let wishes: Vec<Wish> = (0..200).map(wish).collect();
    write(&*flaky, &keys(), &SystemClock, ROOM, &wishes, |_| {}).await.unwrap();
    assert_eq!(read(&*memory, &keys()).await.unwrap().table.len(), 200);
    assert_eq!(head(&*memory).await.n, 2);
    flaky.away.store(true, Ordering::SeqCst);
    let error = write(&*flaky, &keys(), &SystemClock, ROOM, &wishes, |_| {}).await.unwrap_err();
    assert!(matches!(error, BulkError::Store(_)), "{error}");
}

#[tokio::test]
async fn others_may_write_meanwhile() {
    let store: SharedStore = Arc::new(MemoryStore::new());
    let [ours, theirs]: [Vec<Wish>; 2] = [(0..400).map(wish).collect(), (400..800).map(wish).collect()];
    let (keys, clock) = (keys(), SystemClock);
    let (one, other) = tokio::join!(
        write(&*store, &keys, &clock, ROOM, &ours, |_| {}),
        write(&*store, &keys, &clock, ROOM, &theirs, |_| {}),
    );
    one.unwrap();
    other.unwrap();
    assert_eq!(read(&*store, &keys).await.unwrap().table.len(), 800);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_stops_everything() {
    let store = MemoryStore::new();
    let key = format!("{}routes/a", keys().prefix());
    let put = Op::Put { key: key.clone(), value: b"{\"v\":9}".to_vec() };
    store.commit(Txn { guards: vec![Guard::at(key.clone(), 0)], ops: vec![put] }).await.unwrap();
    let error = write(&store, &keys(), &SystemClock, ROOM, &[wish(1)], |_| {}).await.unwrap_err().to_string();
    assert!(error.contains(&key) && error.contains("format 9"), "{error}");
}

#[tokio::test]
async fn a_table_that_would_be_too_large_is_refused_whole() {
    let store: SharedStore = Arc::new(MemoryStore::new());
    let wishes: Vec<Wish> = (0..10).map(wish).collect();
    for (max, says) in [
        (Weight { routes: 9, ..ROOM }, "10 routes, and --max-routes allows 9"),
        (Weight { bytes: 1000, ..ROOM }, "bytes, and --max-table-bytes allows 1000"),
    ] {
        let error = write(&*store, &keys(), &SystemClock, max, &wishes, |_| {}).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(store.list("").await.unwrap().entries.is_empty());
    // What is there already may stay, and shrink.
    write(&*store, &keys(), &SystemClock, ROOM, &wishes, |_| {}).await.unwrap();
    let removed = Wish { state: None, ..wishes[0].clone() };
    write(&*store, &keys(), &SystemClock, Weight { routes: 1, bytes: 1 }, &[removed], |_| {}).await.unwrap();
    assert_eq!(read(&*store, &keys()).await.unwrap().table.len(), 9);
}
