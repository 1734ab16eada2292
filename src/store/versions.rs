//! Keys with their revisions and the recent changes, in memory: what the stores of one process answer from.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Changes, Commit, Event, Guard, KeyValue, Listing, Op, Read, Revision, StoreError, Txn, Watch};

/// The revision of a store that nobody has written to, as a fresh etcd's.
pub(super) const FIRST_REVISION: Revision = 1;

/// What an event weighs beside its key and value.
const EVENT_OVERHEAD_BYTES: usize = 64;

/// How much of the past is kept for watches. The newest change is kept whatever it weighs.
#[derive(Debug, Clone, Copy)]
pub(super) struct HistoryLimits {
    /// Revisions.
    pub(super) revisions_max: usize,
    /// Bytes of keys and values, and a little for each.
    pub(super) bytes_max: usize,
}

impl HistoryLimits {
    /// Everything, for ever.
    pub(super) const NONE: Self = Self { revisions_max: usize::MAX, bytes_max: usize::MAX };
}

/// All keys by name, each with its value and the revision of its last change.
pub(super) type Keys = BTreeMap<String, (Vec<u8>, Revision)>;

/// The keys, shared. Clones are the same keys.
#[derive(Debug, Clone)]
pub(super) struct Versions {
    state: Arc<Mutex<State>>,
    /// The newest revision, so that watches wake up. Compaction is announced here too, by the same number again.
    moved: watch::Sender<Revision>,
}

/// What a transaction comes to.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Nothing happens, and this is the answer.
    Answer(Commit),
    /// These changes.
    Change(Change),
}

/// The changes of one revision, each key at most once.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) revision: Revision,
    pub(super) events: Vec<Event>,
}

#[derive(Debug)]
struct State {
    revision: Revision,
    /// History up to this revision is gone.
    compacted: Revision,
    keys: Keys,
    history: VecDeque<Change>,
    history_bytes: usize,
    limits: HistoryLimits,
}

impl Versions {
    /// These keys as of a revision, without a past.
    pub(super) fn new(revision: Revision, keys: Keys, limits: HistoryLimits) -> Self {
        // Nothing has happened up to the first revision, so there is nothing to miss.
        let compacted = if revision == FIRST_REVISION { 0 } else { revision };
        let state = State { revision, compacted, keys, history: VecDeque::new(), history_bytes: 0, limits };
        Self { state: Arc::new(Mutex::new(state)), moved: watch::Sender::new(revision) }
    }

    pub(super) fn revision(&self) -> Revision {
        self.lock().revision
    }

    pub(super) fn get(&self, key: &str) -> Read {
        let state = self.lock();
        let entry = state.keys.get(key).map(|(value, at)| key_value(key, value, *at));
        Read { revision: state.revision, entry }
    }

    pub(super) fn list(&self, prefix: &str) -> Listing {
        let state = self.lock();
        let entries = state.below(prefix).map(|(key, (value, at))| key_value(key, value, *at)).collect();
        Listing { revision: state.revision, entries }
    }

    /// Looks at the keys, under the lock that everybody else waits for.
    pub(super) fn inspect<T>(&self, look: impl FnOnce(Revision, &Keys) -> T) -> T {
        let state = self.lock();
        look(state.revision, &state.keys)
    }

    /// What a transaction would come to now.
    pub(super) fn prepare(&self, txn: Txn) -> Prepared {
        self.lock().prepare(txn)
    }

    /// Makes a prepared change so, and tells the watches. Nothing else may have been applied since it was prepared.
    pub(super) fn apply(&self, change: Change) -> Commit {
        let mut state = self.lock();
        let revision = state.apply(change);
        self.moved.send_replace(revision);
        Commit::Done(revision)
    }

    /// Does a transaction at once.
    pub(super) fn commit(&self, txn: Txn) -> Commit {
        let mut state = self.lock();
        match state.prepare(txn) {
            Prepared::Answer(commit) => commit,
            Prepared::Change(change) => {
                let revision = state.apply(change);
                self.moved.send_replace(revision);
                Commit::Done(revision)
            }
        }
    }

    /// Reports every change after a revision below a prefix.
    pub(super) fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let state = self.lock();
        if after < state.compacted || after > state.revision {
            return Err(StoreError::Compacted(after));
        }
        let moved = self.moved.subscribe();
        Ok(Box::new(VersionsWatch { state: self.state.clone(), moved, prefix: prefix.to_owned(), after }))
    }

    /// Forgets the history before a revision, the newest one at most.
    pub(super) fn compact(&self, revision: Revision) {
        let mut state = self.lock();
        let revision = revision.min(state.revision);
        while state.history.front().is_some_and(|oldest| oldest.revision <= revision) {
            state.forget_oldest();
        }
        state.compacted = state.compacted.max(revision);
        self.moved.send_replace(state.revision);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn below<'a, 'p>(
        &'a self,
        prefix: &'p str,
    ) -> impl Iterator<Item = (&'a String, &'a (Vec<u8>, Revision))> + use<'a, 'p> {
        self.keys
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    fn holds(&self, guard: &Guard) -> bool {
        match self.keys.get(&guard.key) {
            Some((value, at)) => *at == guard.mod_revision && guard.value.as_ref().is_none_or(|wanted| wanted == value),
            None => guard.mod_revision == 0 && guard.value.is_none(),
        }
    }

    fn prepare(&self, txn: Txn) -> Prepared {
        if !txn.guards.iter().all(|guard| self.holds(guard)) {
            return Prepared::Answer(Commit::Conflict(self.revision));
        }
        let revision = self.revision + 1;
        let mut events = Vec::with_capacity(txn.ops.len());
        // A key may be deleted twice, by itself and with its prefix; it goes once.
        let mut gone = HashSet::new();
        for op in txn.ops {
            match op {
                Op::Put { key, value } => events.push(Event::Put(KeyValue { key, value, mod_revision: revision })),
                Op::Delete { key } => {
                    if let Some((known, _)) = self.keys.get_key_value(&key)
                        && gone.insert(known)
                    {
                        events.push(Event::Delete { key, revision });
                    }
                }
                Op::DeletePrefix { prefix } => {
                    let doomed = self.below(&prefix).map(|(key, _)| key).filter(|key| gone.insert(key));
                    events.extend(doomed.map(|key| Event::Delete { key: key.clone(), revision }));
                }
            }
        }
        if events.is_empty() {
            return Prepared::Answer(Commit::Done(self.revision));
        }
        Prepared::Change(Change { revision, events })
    }

    fn apply(&mut self, change: Change) -> Revision {
        for event in &change.events {
            match event {
                Event::Put(entry) => {
                    self.keys.insert(entry.key.clone(), (entry.value.clone(), entry.mod_revision));
                }
                Event::Delete { key, .. } => {
                    self.keys.remove(key);
                }
            }
        }
        self.revision = change.revision;
        self.history_bytes += change.bytes();
        self.history.push_back(change);
        while self.history.len() > 1
            && (self.history.len() > self.limits.revisions_max || self.history_bytes > self.limits.bytes_max)
        {
            self.forget_oldest();
        }
        self.revision
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.history.pop_front() {
            self.history_bytes -= oldest.bytes();
            self.compacted = oldest.revision;
        }
    }

    /// The oldest changes below `prefix` that are newer than `after`.
    fn changes_after(&self, prefix: &str, after: Revision) -> Result<Option<Changes>, StoreError> {
        if after < self.compacted {
            return Err(StoreError::Compacted(after));
        }
        let newer = self.history.range(self.history.partition_point(|change| change.revision <= after)..);
        let mut relevant = newer.filter_map(|change| {
            let ours = change.events.iter().filter(|event| event.key().starts_with(prefix));
            let events: Vec<Event> = ours.cloned().collect();
            (!events.is_empty()).then_some(Changes { revision: change.revision, events })
        });
        Ok(relevant.next())
    }
}

impl Change {
    fn bytes(&self) -> usize {
        let bytes = self.events.iter().map(|event| match event {
            Event::Put(entry) => entry.key.len() + entry.value.len() + EVENT_OVERHEAD_BYTES,
            Event::Delete { key, .. } => key.len() + EVENT_OVERHEAD_BYTES,
        });
        bytes.sum()
    }
}

struct VersionsWatch {
    state: Arc<Mutex<State>>,
    moved: watch::Receiver<Revision>,
    prefix: String,
    after: Revision,
}

#[async_trait]
impl Watch for VersionsWatch {
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
                return Err(StoreError::Unavailable("the store was closed".to_owned()));
            }
        }
    }
}

fn key_value(key: &str, value: &[u8], mod_revision: Revision) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value.to_vec(), mod_revision }
}

#[cfg(test)]
mod tests;
