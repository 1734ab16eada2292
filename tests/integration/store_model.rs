//! Random commands: a store, a plain map, and a follower that is cut off again and again must agree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pointsman::store::{
    Changes, Commit, Guard, Listing, Op, Read, Revision, SharedStore, Store, StoreError, Txn, TxnLimits, Watch,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rstest::rstest;
use tokio::sync::watch;

use crate::store_contract::{Kind, Subject};
use crate::store_follower::Mirror;

#[derive(Debug, Clone)]
enum Command {
    Commit(Vec<(u8, Claim)>, Vec<RandomOp>),
    /// Forget the history up to so many revisions ago.
    Compact(u8),
    /// Every open watch breaks.
    Cut,
    /// The follower takes in what there is.
    Follow,
    Read(u8),
    List(u8),
    /// The store ends, and begins again with what it has kept.
    Reopen,
}

/// What a guard claims of a key.
#[derive(Debug, Clone, Copy)]
enum Claim {
    Right,
    Absent,
    Older,
    /// The right revision, and a value that is right or not.
    Value(u8),
}

#[derive(Debug, Clone)]
enum RandomOp {
    Put(u8, u8),
    Delete(u8),
    DeletePrefix(u8),
}

const KEYS: [&str; 7] = ["a", "a/", "a/1", "a/2", "a/2/x", "ab", "b/1"];
const PREFIXES: [&str; 4] = ["a/", "a/2", "b", "c"];
/// The follower sees this part.
const FOLLOWED: &str = "a/";

fn command() -> impl Strategy<Value = Command> {
    let claim = prop_oneof![4 => Just(Claim::Right), 1 => Just(Claim::Absent), 1 => Just(Claim::Older),
        2 => (0..3_u8).prop_map(Claim::Value)];
    let op = prop_oneof![
        5 => (any::<u8>(), 0..4_u8).prop_map(|(key, value)| RandomOp::Put(key, value)),
        2 => any::<u8>().prop_map(RandomOp::Delete),
        1 => any::<u8>().prop_map(RandomOp::DeletePrefix),
    ];
    let guards = prop::collection::vec((any::<u8>(), claim), 0..3);
    prop_oneof![
        8 => (guards, prop::collection::vec(op, 0..4)).prop_map(|(guards, ops)| Command::Commit(guards, ops)),
        1 => (0..6_u8).prop_map(Command::Compact),
        1 => Just(Command::Cut),
        2 => Just(Command::Follow),
        1 => any::<u8>().prop_map(Command::Read),
        1 => any::<u8>().prop_map(Command::List),
        1 => Just(Command::Reopen),
    ]
}

fn key(n: u8) -> String {
    KEYS[usize::from(n) % KEYS.len()].to_owned()
}

fn prefix(n: u8) -> &'static str {
    PREFIXES[usize::from(n) % PREFIXES.len()]
}

/// The plain map, which knows nothing of how a store is made.
#[derive(Debug, Default)]
struct Model {
    keys: BTreeMap<String, (Vec<u8>, Revision)>,
    revision: Revision,
    compacted: Revision,
}

impl Model {
    fn at(&self, key: &str) -> Revision {
        self.keys.get(key).map_or(0, |(_, at)| *at)
    }

    fn txn(&self, guards: &[(u8, Claim)], ops: &[RandomOp]) -> Txn {
        let guards = guards.iter().map(|(n, claim)| {
            let key = key(*n);
            let at = self.at(&key);
            match claim {
                Claim::Right => Guard::at(key, at),
                Claim::Absent => Guard::at(key, 0),
                Claim::Older => Guard::at(key, (at - 1).max(0)),
                Claim::Value(value) => Guard::holds(key, at, &[*value]),
            }
        });
        let ops = ops.iter().map(|op| match op {
            RandomOp::Put(n, value) => Op::Put { key: key(*n), value: vec![*value] },
            RandomOp::Delete(n) => Op::Delete { key: key(*n) },
            RandomOp::DeletePrefix(n) => Op::DeletePrefix { prefix: prefix(*n).to_owned() },
        });
        Txn { guards: guards.collect(), ops: ops.collect() }
    }

    /// What must come of a transaction; `None`: a refusal.
    fn commit(&mut self, txn: &Txn) -> Option<Commit> {
        for (at, op) in txn.ops.iter().enumerate() {
            let Op::Put { key, .. } = op else { continue };
            let clashes = txn.ops.iter().enumerate().any(|(other, op)| match op {
                Op::Put { key: same, .. } => other != at && same == key,
                Op::Delete { key: gone } => gone == key,
                Op::DeletePrefix { prefix } => key.starts_with(prefix),
            });
            if clashes {
                return None;
            }
        }
        let has = |guard: &Guard| {
            let value = self.keys.get(&guard.key).map(|(value, _)| value);
            self.at(&guard.key) == guard.mod_revision && (guard.value.is_none() || guard.value.as_ref() == value)
        };
        if !txn.guards.iter().all(has) {
            return Some(Commit::Conflict(self.revision));
        }
        let size = self.keys.len();
        let mut changes = false;
        for op in &txn.ops {
            match op {
                Op::Put { key, value } => {
                    changes = true;
                    self.keys.insert(key.clone(), (value.clone(), self.revision + 1));
                }
                Op::Delete { key } => changes |= self.keys.remove(key).is_some(),
                Op::DeletePrefix { prefix } => self.keys.retain(|key, _| !key.starts_with(prefix)),
            }
            changes |= self.keys.len() < size;
        }
        self.revision += i64::from(changes);
        Some(Commit::Done(self.revision))
    }

    fn below(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let below = self.keys.iter().filter(|(key, _)| key.starts_with(prefix));
        below.map(|(key, (value, _))| (key.clone(), value.clone())).collect()
    }
}

/// A store whose watches all break when it is told so.
struct Cuttable {
    inner: SharedStore,
    cuts: watch::Sender<u32>,
}

struct CuttableWatch {
    inner: Box<dyn Watch>,
    cuts: watch::Receiver<u32>,
}

#[async_trait]
impl Store for Cuttable {
    async fn get(&self, key: &str) -> Result<Read, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.inner.list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.inner.commit(txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let inner = self.inner.watch(prefix, after).await?;
        Ok(Box::new(CuttableWatch { inner, cuts: self.cuts.subscribe() }))
    }

    fn limits(&self) -> TxnLimits {
        self.inner.limits()
    }
}

#[async_trait]
impl Watch for CuttableWatch {
    async fn next(&mut self) -> Result<Changes, StoreError> {
        tokio::select! {
            biased;
            _ = self.cuts.changed() => Err(StoreError::Unavailable("cut".to_owned())),
            changes = self.inner.next() => changes,
        }
    }
}

async fn run(subject: &Subject, commands: &[Command]) -> Result<(), TestCaseError> {
    let store = &subject.store;
    // A case begins with an empty store at whatever revision the last one has left.
    store
        .commit(Txn { guards: Vec::new(), ops: vec![Op::DeletePrefix { prefix: String::new() }] })
        .await
        .expect("a store that answers");
    let revision = store.get("a").await.expect("a store that answers").revision;
    let mut model = Model { revision, ..Model::default() };
    let cuttable = Arc::new(Cuttable { inner: store.clone(), cuts: watch::Sender::new(0) });
    let mut mirror = Mirror::of(cuttable.clone(), FOLLOWED);
    for command in commands {
        match command {
            Command::Commit(guards, ops) => {
                let txn = model.txn(guards, ops);
                let expected = model.commit(&txn);
                match (store.commit(txn.clone()).await, expected) {
                    (Ok(got), Some(expected)) => prop_assert_eq!(got, expected, "{:?}", txn),
                    (Err(StoreError::Refused(_)), None) => {}
                    (got, expected) => prop_assert!(false, "{txn:?}: {got:?} instead of {expected:?}"),
                }
            }
            Command::Compact(back) => {
                let at = model.revision - i64::from(*back);
                if at > model.compacted.max(revision) {
                    subject.compact(at).await;
                    model.compacted = at;
                }
            }
            Command::Cut => cuttable.cuts.send_modify(|cuts| *cuts += 1),
            Command::Follow => {
                // Only what is there: one step at most, so that a follower is behind most of the time.
                let _ = tokio::time::timeout(Duration::from_millis(5), mirror.step()).await;
            }
            Command::Read(n) => {
                let read = store.get(&key(*n)).await.expect("a store that answers");
                prop_assert_eq!(read.revision, model.revision);
                let entry = read.entry.map(|entry| (entry.value, entry.mod_revision));
                prop_assert_eq!(entry.as_ref(), model.keys.get(&key(*n)));
            }
            Command::Reopen => {
                if subject.reopen().await {
                    model.compacted = model.revision;
                }
            }
            Command::List(n) => {
                let listing = store.list(prefix(*n)).await.expect("a store that answers");
                prop_assert_eq!(listing.revision, model.revision);
                let entries: BTreeMap<_, _> = listing.entries.into_iter().map(|e| (e.key, e.value)).collect();
                prop_assert_eq!(entries, model.below(prefix(*n)));
            }
        }
    }
    // A last change of what is followed, so that there is an end to wait for.
    let last = Txn { guards: Vec::new(), ops: vec![Op::Put { key: "a/1".into(), value: b"the end".to_vec() }] };
    let Some(Commit::Done(end)) = model.commit(&last) else { panic!("no guard") };
    prop_assert_eq!(store.commit(last).await.expect("a store that answers"), Commit::Done(end));
    mirror.until("the end of the case", Duration::from_secs(20), |mirror| mirror.revision >= end).await;
    prop_assert_eq!(&mirror.entries, &model.below(FOLLOWED));
    Ok(())
}

#[rstest]
#[case::memory(Kind::Memory, 256)]
#[case::embedded(Kind::Embedded, 64)]
#[case::etcd(Kind::Etcd, 48)]
fn a_store_a_map_and_a_follower_agree(#[case] kind: Kind, #[case] cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let subject = runtime.block_on(Subject::new(kind));
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let commands = prop::collection::vec(command(), 1..40);
    runner.run(&commands, |commands| runtime.block_on(run(&subject, &commands))).unwrap();
    // Dropped inside of the runtime, where its connections live.
    runtime.block_on(async { drop(subject) });
}
