//! A store in memory, with all of its history: for tests, and the measure that the other stores are held against.

use async_trait::async_trait;

use super::rules::{DEFAULT_LIMITS, check_key, check_txn};
use super::versions::{FIRST_REVISION, HistoryLimits, Keys, Versions};
use super::{Commit, Listing, Read, Revision, Store, StoreError, Txn, TxnLimits, Watch};

/// A store that lives and dies with the process. Clones are the same store.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    versions: Versions,
    limits: TxnLimits,
}

impl MemoryStore {
    /// An empty store, at the revision of a fresh etcd.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(DEFAULT_LIMITS)
    }

    /// An empty store with other limits, to see what follows from them.
    #[must_use]
    pub fn with_limits(limits: TxnLimits) -> Self {
        Self { versions: Versions::new(FIRST_REVISION, Keys::new(), HistoryLimits::NONE), limits }
    }

    /// Forgets the history before `revision`: a watch that still needs it, also a running one that is behind, fails
    /// with [`StoreError::Compacted`]. A revision beyond the newest one stands for the newest one.
    pub fn compact(&self, revision: Revision) {
        self.versions.compact(revision);
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.versions.revision()
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
        Ok(self.versions.get(key))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        Ok(self.versions.list(prefix))
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        check_txn(&txn, self.limits)?;
        Ok(self.versions.commit(txn))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.versions.watch(prefix, after)
    }

    fn limits(&self) -> TxnLimits {
        self.limits
    }
}
