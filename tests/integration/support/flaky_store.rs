//! A store that a test can make unreliable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use pointsman::store::{Commit, Listing, Read, Revision, SharedStore, Store, StoreError, Txn, TxnLimits, Watch};

/// Passes everything on to another store, apart from the faults that a test has asked for.
pub(crate) struct FlakyStore {
    inner: SharedStore,
    /// Nothing goes through.
    pub(crate) away: AtomicBool,
    /// Everything is read, and nothing written.
    pub(crate) full: AtomicBool,
    /// The answers of so many commits get lost, although they happen.
    pub(crate) answers_to_lose: AtomicUsize,
    /// The commits that were asked for.
    pub(crate) commits: AtomicUsize,
}

impl FlakyStore {
    pub(crate) fn over(inner: SharedStore) -> Arc<Self> {
        Arc::new(Self {
            inner,
            away: AtomicBool::new(false),
            full: AtomicBool::new(false),
            answers_to_lose: 0.into(),
            commits: 0.into(),
        })
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.away.load(Ordering::SeqCst) { Err(StoreError::Unavailable("away".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for FlakyStore {
    async fn get(&self, key: &str) -> Result<Read, StoreError> {
        self.check()?;
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.check()?;
        self.inner.list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.check()?;
        self.commits.fetch_add(1, Ordering::SeqCst);
        if self.full.load(Ordering::SeqCst) {
            return Err(StoreError::Refused("no space".into()));
        }
        let done = self.inner.commit(txn).await;
        let lose = |n: usize| n.checked_sub(1);
        if self.answers_to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
            return Err(StoreError::Unavailable("the answer got lost".into()));
        }
        done
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.check()?;
        self.inner.watch(prefix, after).await
    }

    fn limits(&self) -> TxnLimits {
        self.inner.limits()
    }
}
