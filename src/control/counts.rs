//! What the control plane counts about itself, for whoever watches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::store::{Commit, Listing, Read, Revision, SharedStore, Store, StoreError, Txn, TxnLimits, Watch};
use crate::telemetry::durations::Durations;

/// Counts since the start of the process.
#[derive(Debug, Default)]
pub struct Counts {
    commits: AtomicU64,
    conflicts: AtomicU64,
    failures: AtomicU64,
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
