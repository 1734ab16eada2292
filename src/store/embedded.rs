//! A store on disk for one process: everything is answered from memory, and every commit is on disk before it is
//! acknowledged.
//!
//! The folder holds `routes.redb`, all keys with their revisions, and `lock`, which names the process that has the
//! folder. Watches live in memory: after a restart everybody lists again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::spawn_blocking;
use tracing::{error, info};

use self::disk::Disk;
use self::folder::Folder;
pub use self::inspect::{Held, Seen, is_there, look, may_write, our_user};
use super::rules::{check_key, check_txn};
use super::versions::{HistoryLimits, Prepared, Versions};
use super::{Commit, Listing, Read, Store, StoreError, Txn, TxnLimits, Watch};

mod disk;
mod folder;
mod inspect;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;

/// Large enough for Traefik's whole tree of 10,000 routes in one transaction.
const LIMITS: TxnLimits = TxnLimits { ops_max: 100_000, bytes_max: 64 * 1024 * 1024 };

/// What is kept for watches that are behind. Whoever is further behind lists again, which costs a moment.
const HISTORY: HistoryLimits = HistoryLimits { revisions_max: 10_000, bytes_max: 16 * 1024 * 1024 };

/// How long a predecessor that is just ending is waited for, unless it is told otherwise.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(5);

/// Where the store is.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// The folder, which only this store uses. It is made if it isn't there, readable by nobody else.
    pub folder: PathBuf,
    /// How long to wait for another process to let go of the folder.
    pub predecessor_patience: Duration,
    /// Whether a folder without a store is refused instead of begun: for those who only want to read one.
    pub must_exist: bool,
}

impl EmbeddedSettings {
    /// This folder, begun if need be, and 5 s of patience with a predecessor.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), predecessor_patience: PREDECESSOR_PATIENCE, must_exist: false }
    }
}

/// Why the store can't be opened. Each says what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The folder or a file in it can't be made, read or written.
    #[error("{} can't be used as the folder of the routes: {why}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said of which file.
        why: String,
    },
    /// Another process has the folder.
    #[error(
        "the folder {} is in use by another process{}: stop that one, or give this one a folder of its own",
        folder.display(),
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Held {
        /// The folder.
        folder: PathBuf,
        /// The process that has it, if it left its number.
        pid: Option<u32>,
    },
    /// The file was written in a format that this version doesn't know.
    #[error(
        "{} has the format {found}, written by {written_by}, and this is pointsman {}, which reads format {ours}: \
         use that version, or move the folder away, and the hub fills the table again by itself at its next check",
        file.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Format {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: String,
        /// The format that is understood here.
        ours: &'static str,
        /// The program and version that made the file.
        written_by: String,
    },
    /// The file is not what was written.
    #[error(
        "{} is damaged ({why}): move its folder away and start again, and the hub fills the table again by itself at \
         its next check",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was found.
        why: String,
    },
}

/// A store on disk that one process has at a time. Clones are the same store; with the last one the folder is free.
#[derive(Debug, Clone)]
pub struct EmbeddedStore {
    folder: Arc<Path>,
    versions: Versions,
    /// Locked while a commit is checked, written and applied: commits come one after the other.
    disk: Arc<Mutex<Disk>>,
}

impl EmbeddedStore {
    /// Opens the store of a folder, a new and empty one if there is none. Reads and checks the whole file.
    ///
    /// To read what a stopped process has left, open its folder (which `must_exist`) and [`Store::list`] it.
    ///
    /// # Errors
    /// See [`OpenError`]. A damaged file is never taken for an empty one.
    pub async fn open(settings: EmbeddedSettings) -> Result<Self, OpenError> {
        let EmbeddedSettings { folder, predecessor_patience, must_exist } = settings;
        let ours = Folder::new(folder.clone());
        if must_exist && !ours.database().exists() {
            return Err(OpenError::Folder { folder, why: "there is no routes.redb in it".to_owned() });
        }
        let opened = spawn_blocking(move || Self::open_blocking(ours, predecessor_patience)).await;
        opened.unwrap_or_else(|error| Err(OpenError::Folder { folder, why: error.to_string() }))
    }

    fn open_blocking(folder: Folder, predecessor_patience: Duration) -> Result<Self, OpenError> {
        let lock = folder.take(predecessor_patience)?;
        let path: Arc<Path> = folder.path().into();
        let (disk, revision, keys) = Disk::open(folder, lock)?;
        info!(keys = keys.len(), revision, "Opened the store in {}", path.display());
        let versions = Versions::new(revision, keys, HISTORY);
        Ok(Self { folder: path, versions, disk: Arc::new(Mutex::new(disk)) })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Forgets the history before `revision`, so that a watch that still needs it fails with
    /// [`StoreError::Compacted`]. Happens by itself; this is for whoever wants to see what follows.
    pub fn compact(&self, revision: super::Revision) {
        self.versions.compact(revision);
    }

    fn commit_blocking(&self, txn: Txn) -> Result<Commit, StoreError> {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let change = match self.versions.prepare(txn) {
            Prepared::Answer(commit) => return Ok(commit),
            Prepared::Change(change) => change,
        };
        disk.write(&change, &self.versions).map_err(StoreError::Unavailable)?;
        Ok(self.versions.apply(change))
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Read, StoreError> {
        check_key(key)?;
        Ok(self.versions.get(key))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        Ok(self.versions.list(prefix))
    }

    /// A commit whose caller has gone away happens all the same.
    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        check_txn(&txn, LIMITS)?;
        let store = self.clone();
        spawn_blocking(move || store.commit_blocking(txn)).await.unwrap_or_else(|error| {
            error!(%error, "A commit broke off: {error}");
            Err(StoreError::Unavailable(format!("a commit broke off: {error}")))
        })
    }

    async fn watch(&self, prefix: &str, after: super::Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.versions.watch(prefix, after)
    }

    fn limits(&self) -> TxnLimits {
        LIMITS
    }
}
