//! `MemoryStore`: a store in this process's memory, with etcd's rules. For tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Changes, Commit, Event, KeyValue, Listing, Op, Read, Revision, Store, StoreError, Txn, TxnLimits, Watch};

/// A store in memory. Cloning it gives another handle on the same keys.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
    revision: watch::Sender<Revision>,
    limits: TxnLimits,
}

#[derive(Debug, Default)]
struct Inner {
    keys: BTreeMap<String, KeyValue>,
    revision: Revision,
    history: Vec<(Revision, Vec<Event>)>,
    compacted: Revision,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store with etcd's default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(TxnLimits { ops_max: 128, bytes_max: 1 << 20 })
    }

    /// An empty store with other limits.
    #[must_use]
    pub fn with_limits(limits: TxnLimits) -> Self {
        // Like etcd's, the history of an empty store begins at revision 1.
        let inner = Inner { revision: 1, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)), revision: watch::Sender::new(1), limits }
    }

    /// Forgets the history up to a revision; the keys stay.
    pub fn compact(&self, revision: Revision) {
        let mut inner = self.lock();
        inner.compacted = inner.compacted.max(revision);
        inner.history.retain(|(at, _)| *at > revision);
        drop(inner);
        self.revision.send_modify(|_| {});
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, txn: &Txn) -> Result<(), StoreError> {
        let refused = |why: &str| Err(StoreError::Refused(why.to_owned()));
        if txn.ops.len() > self.limits.ops_max || txn.guards.len() > self.limits.ops_max {
            return refused("too many operations in txn request");
        }
        let mut puts = std::collections::BTreeSet::new();
        for op in &txn.ops {
            if let Op::Put { key, .. } = op
                && !puts.insert(key.as_str())
            {
                return refused("duplicate key given in txn request");
            }
        }
        let overlaps = txn.ops.iter().any(|op| match op {
            Op::Put { .. } => false,
            Op::Delete { key } => puts.contains(key.as_str()),
            Op::DeletePrefix { prefix } => puts.iter().any(|key| key.starts_with(prefix.as_str())),
        });
        if overlaps { refused("duplicate key given in txn request") } else { Ok(()) }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Read, StoreError> {
        let inner = self.lock();
        Ok(Read { revision: inner.revision, entry: inner.keys.get(key).cloned() })
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let inner = self.lock();
        let entries = inner.keys.range(prefix.to_owned()..).map(|(_, entry)| entry);
        let entries = entries.take_while(|entry| entry.key.starts_with(prefix)).cloned().collect();
        Ok(Listing { revision: inner.revision, entries })
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.check(&txn)?;
        let mut inner = self.lock();
        let holds = |guard: &super::Guard| {
            inner.keys.get(&guard.key).map_or(0, |entry| entry.mod_revision) == guard.mod_revision
        };
        if !txn.guards.iter().all(holds) {
            return Ok(Commit::Conflict(inner.revision));
        }
        let revision = inner.revision + 1;
        let mut events = Vec::new();
        for op in txn.ops {
            match op {
                Op::Put { key, value } => {
                    let entry = KeyValue { key: key.clone(), value, mod_revision: revision };
                    inner.keys.insert(key, entry.clone());
                    events.push(Event::Put(entry));
                }
                Op::Delete { key } => {
                    if inner.keys.remove(&key).is_some() {
                        events.push(Event::Delete { key });
                    }
                }
                Op::DeletePrefix { prefix } => {
                    let keys = inner.keys.range(prefix.clone()..).map(|(key, _)| key);
                    let keys: Vec<_> = keys.take_while(|key| key.starts_with(&prefix)).cloned().collect();
                    for key in keys {
                        inner.keys.remove(&key);
                        events.push(Event::Delete { key });
                    }
                }
            }
        }
        // A transaction that changes nothing makes no revision.
        if !events.is_empty() {
            inner.revision = revision;
            inner.history.push((revision, events));
        }
        let now = inner.revision;
        drop(inner);
        self.revision.send_replace(now);
        Ok(Commit::Done(now))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let watch =
            MemoryWatch { store: self.clone(), prefix: prefix.to_owned(), after, changed: self.revision.subscribe() };
        Ok(Box::new(watch))
    }

    fn limits(&self) -> TxnLimits {
        self.limits
    }
}

struct MemoryWatch {
    store: MemoryStore,
    prefix: String,
    after: Revision,
    changed: watch::Receiver<Revision>,
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Changes, StoreError> {
        loop {
            self.changed.borrow_and_update();
            {
                let inner = self.store.lock();
                if self.after < inner.compacted {
                    return Err(StoreError::Compacted(inner.compacted));
                }
                if inner.revision > self.after {
                    let of_ours = |event: &Event| match event {
                        Event::Put(entry) => entry.key.starts_with(&self.prefix),
                        Event::Delete { key } => key.starts_with(&self.prefix),
                    };
                    let news = inner.history.iter().filter(|(at, _)| *at > self.after).flat_map(|(_, events)| events);
                    let events: Vec<_> = news.filter(|event| of_ours(event)).cloned().collect();
                    self.after = inner.revision;
                    return Ok(Changes { revision: inner.revision, events });
                }
            }
            if self.changed.changed().await.is_err() {
                return Err(StoreError::Unavailable("the store is gone".to_owned()));
            }
        }
    }
}
