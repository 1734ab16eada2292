//! The embedded store in a folder of its own, and a way to end it and begin it again.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use pointsman::store::embedded::{EmbeddedSettings, EmbeddedStore, OpenError};
use pointsman::store::{Commit, Listing, Read, Revision, Store, StoreError, Txn, TxnLimits, Watch};
use tempfile::TempDir;

/// Opens the store of a folder, which nobody else may have.
pub(crate) async fn try_open(folder: &Path) -> Result<EmbeddedStore, OpenError> {
    let mut settings = EmbeddedSettings::new(folder);
    settings.predecessor_patience = Duration::ZERO;
    EmbeddedStore::open(settings).await
}

/// The same where it must succeed.
pub(crate) async fn open(folder: &Path) -> EmbeddedStore {
    try_open(folder).await.unwrap_or_else(|error| panic!("{error}"))
}

/// The file with all keys.
pub(crate) fn database(folder: &Path) -> PathBuf {
    folder.join("routes.redb")
}

/// An embedded store that can be reopened under its users.
pub(crate) struct Reopenable {
    folder: TempDir,
    store: RwLock<Option<EmbeddedStore>>,
}

impl Reopenable {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(folder.path()).await;
        Self { folder, store: RwLock::new(Some(store)) }
    }

    pub(crate) fn compact(&self, revision: Revision) {
        self.now().compact(revision);
    }

    pub(crate) async fn reopen(&self) {
        drop(self.store.write().unwrap_or_else(PoisonError::into_inner).take());
        let store = open(self.folder.path()).await;
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = Some(store);
    }

    fn now(&self) -> EmbeddedStore {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone().expect("not in the middle of a reopening")
    }
}

#[async_trait]
impl Store for Reopenable {
    async fn get(&self, key: &str) -> Result<Read, StoreError> {
        self.now().get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.now().list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.now().commit(txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.now().watch(prefix, after).await
    }

    fn limits(&self) -> TxnLimits {
        self.now().limits()
    }
}
