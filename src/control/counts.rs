//! What the control plane counts about itself, for whoever watches it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::store::{Commit, Listing, Read, Revision, SharedStore, Store, StoreError, Txn, TxnLimits, Watch};
use crate::telemetry::durations::Durations;

/// Counts since the start of the process.
#[derive(Debug, Default)]
pub struct Counts {
    commits: AtomicU64,
    conflicts: AtomicU64,
    failures: AtomicU64,
    pub(super) went_back: AtomicU64,
    pub(super) relists: AtomicU64,
    pub(super) pushes: AtomicU64,
    pub(super) stood_still: AtomicU64,
    read_at: Mutex<Option<Instant>>,
    /// How long callers waited until every live Traefik served their change.
    pub traefik_waits: Durations,
}

impl Counts {
    /// Transactions that happened.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Transactions that did not happen, because another replica had been faster.
    #[must_use]
    pub fn conflicts(&self) -> u64 {
        self.conflicts.load(Ordering::Relaxed)
    }

    /// How often the store was found to have been restored from a backup, replaced, or wiped.
    #[must_use]
    pub fn went_back(&self) -> u64 {
        self.went_back.load(Ordering::Relaxed)
    }

    /// How often the mirror was read anew because its watch had gone silent.
    #[must_use]
    pub fn relists(&self) -> u64 {
        self.relists.load(Ordering::Relaxed)
    }

    /// By how many revisions the store was moved on for Traefiks that wait for one that it had before.
    #[must_use]
    pub fn pushes(&self) -> u64 {
        self.pushes.load(Ordering::Relaxed)
    }

    /// How often this process stood still.
    #[must_use]
    pub fn stood_still(&self) -> u64 {
        self.stood_still.load(Ordering::Relaxed)
    }

    /// How long ago the store was last read with success; `None`: never.
    #[must_use]
    pub fn read_age(&self) -> Option<Duration> {
        self.read_at.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    /// The store has just been read.
    pub fn read_now(&self) {
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Transactions that the store refused, or did not answer.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// A store whose commits are counted.
pub(super) struct Counting {
    store: SharedStore,
    counts: Arc<Counts>,
}

impl Counting {
    pub(super) fn new(store: SharedStore, counts: Arc<Counts>) -> Self {
        Self { store, counts }
    }
}

#[async_trait]
impl Store for Counting {
    async fn get(&self, key: &str) -> Result<Read, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.store.list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let outcome = self.store.commit(txn).await;
        let count = match &outcome {
            Ok(Commit::Done(_)) => &self.counts.commits,
            Ok(Commit::Conflict(_)) => &self.counts.conflicts,
            Err(_) => &self.counts.failures,
        };
        count.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.store.watch(prefix, after).await
    }

    fn limits(&self) -> TxnLimits {
        self.store.limits()
    }
}
