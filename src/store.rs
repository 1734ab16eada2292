//! The store: keys, revisions, guarded transactions and a watch. Knows nothing about routes or Traefik.

pub mod embedded;
pub mod etcd;
pub mod follow;
pub mod lease;
pub mod memory;
pub mod rules;
mod versions;

use std::sync::Arc;

use async_trait::async_trait;

/// A point in the store's history. Revisions of one store are totally ordered; 0 is before everything.
pub type Revision = i64;

/// A key with its value, as of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key. A key that isn't UTF-8 is shown with replacement characters: ours all are.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The revision of the last change of this key.
    pub mod_revision: Revision,
}

/// The answer to [`Store::get`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The store's revision at the read.
    pub revision: Revision,
    /// The key, if it is there.
    pub entry: Option<KeyValue>,
}

/// The answer to [`Store::list`]: everything below a prefix, at one revision, ordered by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The revision of the whole listing.
    pub revision: Revision,
    /// The keys.
    pub entries: Vec<KeyValue>,
}

/// What must hold for a transaction to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The key that is looked at.
    pub key: String,
    /// Its last change must be exactly this revision; 0 means that the key must be absent.
    pub mod_revision: Revision,
    /// It must hold this value, too. A store that was restored from a backup counts the same revisions once more: then only
    /// the value tells what was there before from what is there now.
    pub value: Option<Vec<u8>>,
}

impl Guard {
    /// The key was last changed at this revision; 0: it is absent.
    #[must_use]
    pub fn at(key: impl Into<String>, mod_revision: Revision) -> Self {
        Self { key: key.into(), mod_revision, value: None }
    }

    /// The key was last changed at this revision, to this value; 0: it is absent.
    #[must_use]
    pub fn holds(key: impl Into<String>, mod_revision: Revision, value: &[u8]) -> Self {
        Self { value: (mod_revision != 0).then(|| value.to_vec()), ..Self::at(key, mod_revision) }
    }
}

/// One change in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The key.
        key: String,
    },
    /// Removes every key that begins with a text.
    DeletePrefix {
        /// The text.
        prefix: String,
    },
}

/// Changes that happen together if all guards hold, and not at all otherwise.
///
/// No key may be put twice, nor be put and deleted in one transaction (etcd refuses both).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold.
    pub guards: Vec<Guard>,
    /// What then happens.
    pub ops: Vec<Op>,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// It happened, at this revision: the `mod_revision` of every key it put.
    Done(Revision),
    /// A guard did not hold; nothing happened. The revision is the store's at that moment.
    Conflict(Revision),
}

/// One change that a watch reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A key was written.
    Put(KeyValue),
    /// A key was removed.
    Delete {
        /// The key.
        key: String,
        /// The revision of the removal.
        revision: Revision,
    },
}

impl Event {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put(KeyValue { key, .. }) | Self::Delete { key, .. } => key,
        }
    }
}

/// What a watch has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Everything up to this revision has been reported once these events are applied.
    pub revision: Revision,
    /// The changes, in order; empty when the store only says how far it has come. The changes of one revision are
    /// never split over two reports.
    pub events: Vec<Event>,
}

/// How large one transaction may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxnLimits {
    /// Operations in one transaction.
    pub ops_max: usize,
    /// Bytes of keys and values in one transaction.
    pub bytes_max: usize,
}

/// Why the store did not do what it was asked. The variants are named by what the caller can do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Out of reach, without a quorum or too slow: try again later. A commit that ends so may have happened.
    #[error("the store can't be reached: {0}")]
    Unavailable(String),
    /// The history since the asked revision is gone, or the store has not come so far (it was restored from a backup,
    /// or replaced): list again.
    #[error("the store does not have the history since revision {0} any more")]
    Compacted(Revision),
    /// The store refused us or our request: an operator has to look. Nothing happened.
    #[error("the store refused: {0}")]
    Refused(String),
}

/// A running watch.
#[async_trait]
pub trait Watch: Send {
    /// The next report. Safe to cancel. After an error the watch is over.
    async fn next(&mut self) -> Result<Changes, StoreError>;
}

/// Linearizable reads, atomic guarded commits, and a watch that loses no event or says `Compacted`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one key as of now.
    async fn get(&self, key: &str) -> Result<Read, StoreError>;

    /// Reads everything that begins with `prefix`, at one revision that is not older than now.
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError>;

    /// Does a transaction, or learns that a guard did not hold.
    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError>;

    /// Reports every change after revision `after` below `prefix`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// How large a transaction may be.
    fn limits(&self) -> TxnLimits;
}

/// A store, shared.
pub type SharedStore = Arc<dyn Store>;
