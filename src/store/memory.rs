//! A store in memory, with all of its history: for tests, and the measure that the other stores are held against.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::rules::{DEFAULT_LIMITS, check_key, check_txn};
use super::{
    Changes, Commit, Event, Guard, KeyValue, Listing, Op, Read, Revision, Store, StoreError, Txn, TxnLimits, Watch,
};

/// A store that lives and dies with the process. Clones are the same store.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    /// The newest revision, so that watches wake up. Compaction is announced here too, by the same number again.
    moved: watch::Sender<Revision>,
    limits: TxnLimits,
}

#[derive(Debug)]
struct State {
    revision: Revision,
    /// History before this revision is gone.
    compacted: Revision,
    keys: BTreeMap<String, (Vec<u8>, Revision)>,
    history: VecDeque<(Revision, Vec<Event>)>,
}

impl MemoryStore {
    /// An empty store, at revision 1 as a fresh etcd.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(DEFAULT_LIMITS)
    }

    /// An empty store with other limits, to see what follows from them.
    #[must_use]
    pub fn with_limits(limits: TxnLimits) -> Self {
        let state = State { revision: 1, compacted: 0, keys: BTreeMap::new(), history: VecDeque::new() };
        Self { state: Arc::new(Mutex::new(state)), moved: watch::Sender::new(1), limits }
    }

    /// Forgets the history before `revision`: a watch that still needs it, also a running one that is behind, fails
    /// with [`StoreError::Compacted`]. A revision beyond the newest one stands for the newest one.
    pub fn compact(&self, revision: Revision) {
        let mut state = self.lock();
        state.compacted = state.compacted.max(revision.min(state.revision));
        let compacted = state.compacted;
        state.history.retain(|(at, _)| *at > compacted);
        self.moved.send_replace(state.revision);
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.lock().revision
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Read, StoreError> {
        check_key(key)?;
        let state = self.lock();
        let entry = state.keys.get(key).map(|(value, at)| key_value(key, value, *at));
        Ok(Read { revision: state.revision, entry })
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let state = self.lock();
        let below = state.keys.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let entries = below.map(|(key, (value, at))| key_value(key, value, *at)).collect();
        Ok(Listing { revision: state.revision, entries })
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        check_txn(&txn, self.limits)?;
        let mut state = self.lock();
        if !txn.guards.iter().all(|guard| state.holds(guard)) {
            return Ok(Commit::Conflict(state.revision));
        }
        let next = state.revision + 1;
        let events: Vec<Event> = txn.ops.into_iter().flat_map(|op| state.apply(op, next)).collect();
        if !events.is_empty() {
            state.revision = next;
            state.history.push_back((next, events));
            self.moved.send_replace(next);
        }
        Ok(Commit::Done(state.revision))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let state = self.lock();
        if after < state.compacted || after > state.revision {
            return Err(StoreError::Compacted(after));
        }
        let moved = self.moved.subscribe();
        Ok(Box::new(MemoryWatch { state: self.state.clone(), moved, prefix: prefix.to_owned(), after }))
    }

    fn limits(&self) -> TxnLimits {
        self.limits
    }
}

impl State {
    fn holds(&self, guard: &Guard) -> bool {
        self.keys.get(&guard.key).map_or(0, |(_, at)| *at) == guard.mod_revision
    }

    fn apply(&mut self, op: Op, at: Revision) -> Vec<Event> {
        match op {
            Op::Put { key, value } => {
                self.keys.insert(key.clone(), (value.clone(), at));
                vec![Event::Put(KeyValue { key, value, mod_revision: at })]
            }
            Op::Delete { key } => self.keys.remove(&key).map(|_| Event::Delete { key }).into_iter().collect(),
            Op::DeletePrefix { prefix } => {
                let below = self.keys.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
                let doomed: Vec<String> = below.map(|(key, _)| key.clone()).collect();
                for key in &doomed {
                    self.keys.remove(key);
                }
                doomed.into_iter().map(|key| Event::Delete { key }).collect()
            }
        }
    }

    /// The oldest changes below `prefix` that are newer than `after`.
    fn changes_after(&self, prefix: &str, after: Revision) -> Result<Option<Changes>, StoreError> {
        if after < self.compacted {
            return Err(StoreError::Compacted(after));
        }
        let newer = self.history.iter().skip_while(|(at, _)| *at <= after);
        let mut relevant = newer.filter_map(|(at, events)| {
            let events: Vec<Event> = events.iter().filter(|event| event.key().starts_with(prefix)).cloned().collect();
            (!events.is_empty()).then_some(Changes { revision: *at, events })
        });
        Ok(relevant.next())
    }
}

struct MemoryWatch {
    state: Arc<Mutex<State>>,
    moved: watch::Receiver<Revision>,
    prefix: String,
    after: Revision,
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Changes, StoreError> {
        loop {
            // Mark first, look second: a change in between wakes us once for nothing, and is never slept through.
            let newest = *self.moved.borrow_and_update();
            let found =
                self.state.lock().unwrap_or_else(PoisonError::into_inner).changes_after(&self.prefix, self.after)?;
            if let Some(changes) = found {
                self.after = changes.revision;
                return Ok(changes);
            }
            // Nothing of ours up to here, so a later compaction up to here takes nothing from us.
            self.after = self.after.max(newest);
            if self.moved.changed().await.is_err() {
                return Err(StoreError::Unavailable("the store in memory was dropped".to_owned()));
            }
        }
    }
}

fn key_value(key: &str, value: &[u8], mod_revision: Revision) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value.to_vec(), mod_revision }
}
