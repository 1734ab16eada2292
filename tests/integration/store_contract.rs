//! What every store promises, asked of each in the same words.

use std::sync::Arc;
use std::time::Duration;

use pointsman::store::memory::MemoryStore;
use pointsman::store::{Changes, Commit, Event, Guard, KeyValue, Op, Revision, SharedStore, StoreError, Txn, Watch};
use rstest::rstest;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::embedded::Reopenable;
use crate::support::etcd::Etcd;
use crate::support::wait::eventually;

/// Which store is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Memory,
    Embedded,
    Etcd,
}

/// An empty store of some kind.
pub(crate) struct Subject {
    pub(crate) store: SharedStore,
    memory: Option<MemoryStore>,
    embedded: Option<Arc<Reopenable>>,
    etcd: Option<Etcd>,
}

impl Subject {
    pub(crate) async fn new(kind: Kind) -> Self {
        match kind {
            Kind::Memory => {
                let memory = MemoryStore::new();
                Self { store: Arc::new(memory.clone()), memory: Some(memory), embedded: None, etcd: None }
            }
            Kind::Embedded => {
                let embedded = Arc::new(Reopenable::new().await);
                Self { store: embedded.clone(), memory: None, embedded: Some(embedded), etcd: None }
            }
            Kind::Etcd => {
                let etcd = Etcd::start().await;
                Self { store: etcd.patient_store().await, memory: None, embedded: None, etcd: Some(etcd) }
            }
        }
    }

    /// Forgets the history before a revision.
    pub(crate) async fn compact(&self, revision: Revision) {
        if let Some(memory) = &self.memory {
            memory.compact(revision);
        }
        if let Some(embedded) = &self.embedded {
            embedded.compact(revision);
        }
        if let Some(etcd) = &self.etcd {
            etcd.client().await.compact(revision, None).await.expect("a compaction");
        }
    }

    /// Ends the store and begins it again, if it is one that lives in this process and outlives it. Says whether it is;
    /// then its history is gone.
    pub(crate) async fn reopen(&self) -> bool {
        if let Some(embedded) = &self.embedded {
            embedded.reopen().await;
        }
        self.embedded.is_some()
    }
}

pub(crate) fn put(key: &str, value: &str) -> Op {
    Op::Put { key: key.to_owned(), value: value.into() }
}

pub(crate) fn delete(key: &str) -> Op {
    Op::Delete { key: key.to_owned() }
}

fn delete_prefix(prefix: &str) -> Op {
    Op::DeletePrefix { prefix: prefix.to_owned() }
}

fn guard(key: &str, mod_revision: Revision) -> Guard {
    Guard::at(key, mod_revision)
}

/// Commits without a guard.
pub(crate) async fn commit(store: &SharedStore, ops: Vec<Op>) -> Revision {
    match store.commit(Txn { guards: Vec::new(), ops }).await.expect("a commit") {
        Commit::Done(revision) => revision,
        Commit::Conflict(_) => panic!("a conflict without a guard"),
    }
}

/// The next report that has something to report.
pub(crate) async fn next_events(watch: &mut Box<dyn Watch>) -> Changes {
    let wait = async {
        loop {
            let changes = watch.next().await.expect("changes");
            if !changes.events.is_empty() {
                return changes;
            }
        }
    };
    timeout(Duration::from_secs(10), wait).await.expect("changes within 10 s")
}

async fn keys(store: &SharedStore, prefix: &str) -> Vec<String> {
    store.list(prefix).await.expect("a listing").entries.into_iter().map(|entry| entry.key).collect()
}

fn written(key: &str, value: &str, mod_revision: Revision) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value.into(), mod_revision }
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::embedded(Kind::Embedded)]
#[case::etcd(Kind::Etcd)]
#[tokio::test]
async fn what_is_written_is_read(#[case] kind: Kind) {
    let Subject { store, .. } = &Subject::new(kind).await;
    let empty = store.get("a/1").await.unwrap();
    assert_eq!(empty.entry, None);
    assert_eq!(store.list("a/").await.unwrap().entries, []);
    let first = commit(store, vec![put("a/2", "two"), put("a/1", "one")]).await;
    assert!(first > empty.revision);
    let second = commit(store, vec![put("a/1", "uno"), put("a/ü/…", ""), put("a", "x"), put("a0", "y")]).await;
    assert_eq!(second, first + 1, "a transaction moves the revision by one");
    let read = store.get("a/1").await.unwrap();
    assert_eq!((read.revision, read.entry), (second, Some(written("a/1", "uno", second))));
    let listing = store.list("a/").await.unwrap();
    assert_eq!(listing.revision, second);
    let expected = [written("a/1", "uno", second), written("a/2", "two", first), written("a/ü/…", "", second)];
    assert_eq!(listing.entries, expected, "ordered by key, and nothing but what begins with the prefix");
    assert_eq!(keys(store, "").await, ["a", "a/1", "a/2", "a/ü/…", "a0"]);
    assert_eq!(keys(store, "a/ü").await, ["a/ü/…"]);
    assert_eq!(keys(store, "b").await, [""; 0]);
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::embedded(Kind::Embedded)]
#[case::etcd(Kind::Etcd)]
#[tokio::test]
async fn a_guard_that_does_not_hold_stops_everything(#[case] kind: Kind) {
    let Subject { store, .. } = &Subject::new(kind).await;
    let try_it = async |guards, ops| store.commit(Txn { guards, ops }).await.unwrap();
    let Commit::Done(first) = try_it(vec![guard("a", 0)], vec![put("a", "1")]).await else { panic!("a was absent") };
    assert_eq!(try_it(vec![guard("a", 0)], vec![put("a", "2"), put("b", "2")]).await, Commit::Conflict(first));
    assert_eq!(try_it(vec![guard("a", first), guard("b", 7)], vec![delete("a")]).await, Commit::Conflict(first));
    assert_eq!(keys(store, "").await, ["a"], "nothing of a refused transaction happens");
    let swapped = try_it(vec![guard("a", first), guard("b", 0)], vec![put("a", "3")]).await;
    assert_eq!(swapped, Commit::Done(first + 1));
    assert_eq!(try_it(vec![guard("a", first)], vec![put("a", "4")]).await, Commit::Conflict(first + 1));
    assert_eq!(try_it(vec![guard("a", first + 1)], Vec::new()).await, Commit::Done(first + 1), "a question only");
    let Commit::Done(_) = try_it(vec![], vec![delete("a")]).await else { panic!("no guard") };
    let back = try_it(vec![guard("a", first + 1)], vec![put("a", "5")]).await;
    assert_eq!(back, Commit::Conflict(first + 2), "a deleted key is absent");
}

/// A restored store counts the same revisions again: then the value tells the two lives apart.
#[rstest]
#[case::memory(Kind::Memory)]
#[case::embedded(Kind::Embedded)]
#[case::etcd(Kind::Etcd)]
#[tokio::test]
async fn a_guard_compares_the_value_if_asked(#[case] kind: Kind) {
    let Subject { store, .. } = &Subject::new(kind).await;
    let try_it = async |guards| store.commit(Txn { guards, ops: vec![put("b", "")] }).await.unwrap();
    let first = commit(store, vec![put("a", "1"), put("e", "")]).await;
    assert_eq!(try_it(vec![Guard::holds("a", first, b"2")]).await, Commit::Conflict(first), "another value");
    assert_eq!(try_it(vec![Guard::holds("a", first, b"")]).await, Commit::Conflict(first), "no value");
    assert_eq!(try_it(vec![Guard::holds("a", first - 1, b"1")]).await, Commit::Conflict(first), "another revision");
    assert_eq!(try_it(vec![Guard::holds("nothing", first, b"1")]).await, Commit::Conflict(first), "it isn't there");
    let both = vec![Guard::holds("a", first, b"1"), Guard::holds("e", first, b""), Guard::holds("nothing", 0, b"1")];
    assert_eq!(try_it(both).await, Commit::Done(first + 1));
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::embedded(Kind::Embedded)]
#[case::etcd(Kind::Etcd)]
#[tokio::test]
async fn deletes_take_what_they_name(#[case] kind: Kind) {
    let Subject { store, .. } = &Subject::new(kind).await;
    let first = commit(store, vec![put("r/a/1", ""), put("r/a/2", ""), put("r/ab", ""), put("r/b", "")]).await;
    assert_eq!(commit(store, vec![delete("r/a"), delete_prefix("nothing/")]).await, first, "nothing was there");
    let second = commit(store, vec![delete_prefix("r/a/"), delete("r/b"), delete("r/b"), put("r/c", "")]).await;
    assert_eq!(second, first + 1);
    assert_eq!(keys(store, "r/").await, ["r/ab", "r/c"]);
    commit(store, vec![delete_prefix("")]).await;
    assert_eq!(keys(store, "").await, [""; 0]);
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::embedded(Kind::Embedded)]
#[case::etcd(Kind::Etcd)]
#[tokio::test]
async fn what_etcd_refuses_is_refused(#[case] kind: Kind) {
    let Subject { store, .. } = &Subject::new(kind).await;
    let before = commit(store, vec![put("a/1", "kept")]).await;
    let (ops_max, bytes_max) = (store.limits().ops_max, store.limits().bytes_max);
    let (ops, bytes, why) = match kind {
        Kind::Embedded => (100_000, 64 * 1024 * 1024, "Traefik's tree of 10,000 routes"),
        Kind::Memory | Kind::Etcd => (128, 1024 * 1024, "etcd's default, and a little below its 1.5 MiB"),
    };
    assert_eq!((ops_max, bytes_max), (ops, bytes), "{why}");
    let puts = |count: usize| (0..count).map(|at| put(&format!("b/{at:04}"), "")).collect::<Vec<_>>();
    let guards = |count: usize| vec![guard("x", 0); count];
    for (what, guards, ops) in [
        ("a key put twice", vec![], vec![put("a/1", ""), put("a/1", "")]),
        ("a key put and deleted", vec![], vec![delete("a/1"), put("a/1", "")]),
        ("a put inside of what is deleted", vec![], vec![delete_prefix("a/"), put("a/2", "")]),
        ("the same in the other order", vec![], vec![put("a/2", ""), delete_prefix("a/")]),
        ("an empty key", vec![], vec![put("", "")]),
        ("no key to delete", vec![], vec![delete("")]),
        ("no key to compare", vec![guard("", 0)], vec![]),
        ("too many operations", vec![], puts(ops_max + 1)),
        ("too many guards", guards(ops_max + 1), vec![]),
        ("too many bytes", vec![], vec![put("b", &"x".repeat(bytes_max))]),
    ] {
        let answer = store.commit(Txn { guards, ops }).await;
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{what}: {answer:?}");
    }
    assert!(matches!(store.get("").await, Err(StoreError::Refused(_))));
    assert_eq!(store.get("a/1").await.unwrap().revision, before, "nothing has happened");
    let most = Txn { guards: guards(ops_max), ops: puts(ops_max) };
    assert_eq!(store.commit(most).await.unwrap(), Commit::Done(before + 1), "the limit itself is allowed");
    commit(store, vec![put("b", &"x".repeat(bytes_max - 1))]).await;
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::embedded(Kind::Embedded)]
#[case::etcd(Kind::Etcd)]
#[tokio::test]
async fn a_watch_reports_every_change_once_and_in_order(#[case] kind: Kind) {
    let Subject { store, .. } = &Subject::new(kind).await;
    let start = commit(store, vec![put("w/0", "before"), put("x", "elsewhere")]).await;
    let mut watch = store.watch("w/", start).await.unwrap();
    let first = commit(store, vec![put("w/1", "one"), put("x", "elsewhere"), put("w/2", "two")]).await;
    let event = |key: &str, value: &str, at| Event::Put(written(key, value, at));
    let changes = next_events(&mut watch).await;
    assert_eq!(changes.revision, first);
    assert_eq!(changes.events, [event("w/1", "one", first), event("w/2", "two", first)], "one transaction, one report");
    let second = commit(store, vec![delete_prefix("w/"), put("x", "again")]).await;
    let third = commit(store, vec![put("w/1", "back")]).await;
    let gone = |key: &str| Event::Delete { key: key.to_owned(), revision: second };
    let later = vec![gone("w/0"), gone("w/1"), gone("w/2"), event("w/1", "back", third)];
    for (after, expected) in [(first, later.clone()), (second, later[3..].to_vec())] {
        // A store may report several revisions together, never a part of one.
        let mut again = store.watch("w/", after).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            seen.extend(next_events(&mut again).await.events);
        }
        assert_eq!(seen, expected, "resumed after {after}");
    }
    let mut seen = next_events(&mut watch).await.events;
    if seen.len() < 4 {
        seen.extend(next_events(&mut watch).await.events);
    }
    assert_eq!(seen, later);
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::embedded(Kind::Embedded)]
#[case::etcd(Kind::Etcd)]
#[tokio::test]
async fn a_watch_that_would_miss_something_says_so(#[case] kind: Kind) {
    let subject = &Subject::new(kind).await;
    let store = &subject.store;
    commit(store, vec![put("w/1", "1"), put("w/2", "1")]).await;
    let second = commit(store, vec![put("w/1", "2")]).await;
    let third = commit(store, vec![delete("w/2")]).await;
    let fourth = commit(store, vec![put("w/3", "3")]).await;
    subject.compact(third).await;
    for after in [1, second] {
        let outcome = match store.watch("w/", after).await {
            Ok(mut watch) => watch.next().await.map(|changes| format!("{changes:?}")),
            Err(error) => Err(error),
        };
        assert!(matches!(outcome, Err(StoreError::Compacted(_))), "after {after}: {outcome:?}");
    }
    let mut watch = store.watch("w/", third).await.unwrap();
    assert_eq!(next_events(&mut watch).await.revision, fourth, "the compacted revision itself is a good start");
    let future = store.watch("w/", fourth + 10).await.err();
    assert!(matches!(future, Some(StoreError::Compacted(_))), "the store has not come so far: {future:?}");
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::embedded(Kind::Embedded)]
#[case::etcd(Kind::Etcd)]
#[tokio::test]
async fn a_watch_that_is_cancelled_again_and_again_loses_nothing(#[case] kind: Kind) {
    let Subject { store, .. } = &Subject::new(kind).await;
    let start = store.get("w").await.unwrap().revision;
    let mut watch = store.watch("w/", start).await.unwrap();
    let writer = store.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for at in 0..50 {
            commit(&writer, vec![put("w/n", &at.to_string())]).await;
            tokio::task::yield_now().await;
        }
    });
    let mut seen = Vec::new();
    let all = async {
        while seen.len() < 50 {
            if let Ok(changes) = timeout(Duration::from_micros(300), watch.next()).await {
                seen.extend(changes.expect("changes").events);
            }
        }
    };
    timeout(Duration::from_secs(20), all).await.expect("all changes within 20 s");
    let values = seen.into_iter().map(|event| match event {
        Event::Put(entry) => String::from_utf8(entry.value).expect("text"),
        Event::Delete { key, .. } => panic!("nobody deleted {key}"),
    });
    assert!(values.eq((0..50).map(|at| at.to_string())));
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::embedded(Kind::Embedded)]
#[case::etcd(Kind::Etcd)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_under_a_guard_lose_no_count(#[case] kind: Kind) {
    let Subject { store, .. } = &Subject::new(kind).await;
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut counted = 0;
            while counted < 10 {
                let entry = store.get("n").await.unwrap().entry;
                let (n, at) = entry.map_or((0, 0), |entry| {
                    (String::from_utf8(entry.value).unwrap().parse::<u32>().unwrap(), entry.mod_revision)
                });
                let txn = Txn { guards: vec![guard("n", at)], ops: vec![put("n", &(n + 1).to_string())] };
                if let Commit::Done(_) = store.commit(txn).await.unwrap() {
                    counted += 1;
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(store.get("n").await.unwrap().entry.unwrap().value, b"80");
}

/// More keys than a page of the etcd store holds, while others write.
#[rstest]
#[case::memory(Kind::Memory)]
#[case::embedded(Kind::Embedded)]
#[case::etcd(Kind::Etcd)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_listing_is_of_one_revision(#[case] kind: Kind) {
    let Subject { store, .. } = &Subject::new(kind).await;
    let padding = "x".repeat(200);
    for block in 0..40 {
        let ops = (0..125).map(|at| put(&format!("l/{block:02}/{at:03}"), &padding)).collect();
        commit(store, ops).await;
    }
    let writer = store.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for n in 0.. {
            // The first and the last key, so that they are in different pages.
            commit(&writer, vec![put("l/00/000", &n.to_string()), put("l/39/124", &n.to_string())]).await;
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..5 {
        // The writer has written (again), and goes on while we list.
        let before = store.get("l/00/000").await.unwrap().revision;
        eventually("another round of the writer", Duration::from_secs(10), async || {
            let entry = store.get("l/00/000").await.unwrap().entry.unwrap();
            if entry.mod_revision > before { Ok(()) } else { Err(format!("{entry:?}")) }
        })
        .await;
        let listing = store.list("l/").await.unwrap();
        let (first, last) = (listing.entries.first().unwrap(), listing.entries.last().unwrap());
        assert_eq!((listing.entries.len(), &*first.key, &*last.key), (5000, "l/00/000", "l/39/124"));
        assert_eq!(
            (&first.value, first.mod_revision),
            (&last.value, last.mod_revision),
            "torn at {}",
            listing.revision
        );
        assert!(listing.entries.is_sorted_by(|a, b| a.key < b.key));
        assert!(listing.entries.iter().all(|entry| entry.mod_revision <= listing.revision));
    }
}
