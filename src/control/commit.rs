//! Transactions: how changes of records and of Traefik's tree become one, and what became of one whose answer got lost.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use super::mirror::{Mirror, View};
use super::{STORE_PATIENCE, Settings};
use crate::route::record::{self, Head, RecordError, RecordKeys};
use crate::route::{Route, RouteSpec};
use crate::store::{Commit, Guard, KeyValue, Op, Revision, SharedStore, StoreError, Txn};
use crate::traefik::fixed::{MARKER_KEY, MARKER_REQUEST_KEY};
use crate::traefik::marker::Marker;
use crate::traefik::plan::Edit;

/// The operations that write the head, and those that write the marker.
pub(super) const HEAD_OPS: usize = 1;
pub(super) const MARKER_OPS: usize = 2;

/// What a record weighs beside its key and value.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// What one transaction changes of the records, by their keys: what is then written there, or `None` for nothing.
#[derive(Debug, Default)]
pub(super) struct Changes {
    by_key: BTreeMap<String, Option<Vec<u8>>>,
    bytes: usize,
}

impl Changes {
    /// A route is written. An error says that it could not be read again; then nothing has changed.
    pub(super) fn put(&mut self, keys: &RecordKeys, route: &Route) -> Result<(), RecordError> {
        let value = record::encode_checked(route)?;
        self.set(keys.route(&route.spec), Some(value));
        Ok(())
    }

    /// A route's record is removed.
    pub(super) fn delete(&mut self, keys: &RecordKeys, spec: &RouteSpec) {
        self.set(keys.route(spec), None);
    }

    fn set(&mut self, key: String, value: Option<Vec<u8>>) {
        self.bytes += RECORD_OVERHEAD_BYTES + key.len() + value.as_ref().map_or(0, Vec::len);
        self.by_key.insert(key, value);
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// About how many bytes they add to a transaction, at most.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The two keys that every transaction compares, as they were when it was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) head: Guard,
    pub(super) marker: Guard,
}

impl Seen {
    pub(super) fn of(view: &View, settings: &Settings) -> Self {
        let head = Guard::holds(settings.records.head(), view.head_revision, &view.head_value);
        Self { head, marker: marker_guard(settings, view.tree.marker_revision, &view.tree.marker_value) }
    }
}

/// The marker is as it was at this revision.
pub(super) fn marker_guard(settings: &Settings, revision: Revision, value: &str) -> Guard {
    Guard::holds(format!("{}{MARKER_KEY}", settings.tree.prefix()), revision, value.as_bytes())
}

/// Adds record changes and the head that counts them.
pub(super) fn add_records(txn: &mut Txn, keys: &RecordKeys, changes: Changes, head: &Head, seen: Guard) {
    txn.guards.push(seen);
    txn.ops.extend(changes.by_key.into_iter().map(|(key, value)| match value {
        Some(value) => Op::Put { key, value },
        None => Op::Delete { key },
    }));
    txn.ops.push(Op::Put { key: keys.head(), value: head.to_string().into_bytes() });
}

/// Adds changes of Traefik's tree and the marker that says what it then covers.
pub(super) fn add_edits(txn: &mut Txn, settings: &Settings, edits: Vec<Edit>, marker: &Marker, seen: Guard) {
    let prefix = settings.tree.prefix();
    let full = |key: &str| format!("{prefix}{key}");
    txn.guards.push(seen);
    txn.ops.extend(edits.into_iter().map(|edit| match edit {
        Edit::Put { key, value } => Op::Put { key: full(&key), value: value.into_bytes() },
        Edit::Delete { key } => Op::Delete { key: full(&key) },
        Edit::DeletePrefix { prefix } => Op::DeletePrefix { prefix: full(&prefix) },
    }));
    for key in [MARKER_KEY, MARKER_REQUEST_KEY] {
        txn.ops.push(Op::Put { key: full(key), value: marker.to_string().into_bytes() });
    }
}

/// Commits a transaction that moves the head from `head_revision` to `head`, and finds out what became of it if the answer
/// got lost: the head's nonce tells our commit from another's. An error means that it isn't known, or that it was refused.
pub(super) async fn commit_records(
    store: &SharedStore,
    mirror: &Mirror,
    head_key: &str,
    txn: Txn,
    head: &Head,
) -> Result<Commit, StoreError> {
    let give_up = Instant::now() + STORE_PATIENCE;
    let seen = txn.guards.iter().find(|guard| guard.key == head_key).cloned();
    let mut wait = Duration::from_millis(20);
    let mut lost = false;
    loop {
        // A commit that is given up on may still happen; its caller is told that it isn't known.
        let tried = timeout_at(give_up, store.commit(txn.clone())).await;
        let error = match tried.unwrap_or_else(|_| Err(StoreError::Unavailable("it took too long".to_owned()))) {
            Err(error @ StoreError::Unavailable(_)) => error,
            // A first try whose answer got lost may have happened, and then the second one meets its own head.
            Ok(Commit::Conflict(revision)) if lost => return settle(mirror, head, revision, give_up).await,
            other => return other,
        };
        lost = true;
        warn!(%error, "A commit was not answered: {error}; looking what became of it");
        loop {
            if Instant::now() + wait >= give_up {
                return Err(error);
            }
            sleep(wait).await;
            wait *= 2;
            match timeout_at(give_up, store.get(head_key)).await {
                Err(_) => return Err(error),
                Ok(Err(_)) => {}
                Ok(Ok(read)) => {
                    let found = read.entry.as_ref();
                    if seen.as_ref().is_some_and(|seen| holds(seen, found)) {
                        break; // Not happened, or not yet: only one of the two can win.
                    }
                    return match found {
                        Some(entry) if entry.value == head.to_string().as_bytes() => {
                            Ok(Commit::Done(entry.mod_revision))
                        }
                        _ => settle(mirror, head, read.revision, give_up).await,
                    };
                }
            }
        }
    }
}

/// Whether a key is as it was seen.
pub(super) fn holds(seen: &Guard, now: Option<&KeyValue>) -> bool {
    match now {
        Some(now) => now.mod_revision == seen.mod_revision && seen.value.as_ref() == Some(&now.value),
        None => seen.mod_revision == 0,
    }
}

/// The head has moved on. Was that us? The mirror has heard of every head since, apart from those that a relist swallowed:
/// then it can't be known, and the caller has to ask again.
async fn settle(mirror: &Mirror, head: &Head, revision: Revision, give_up: Instant) -> Result<Commit, StoreError> {
    let moved_on = |view: &View| view.head.as_ref().is_some_and(|now| now.epoch != head.epoch || now.n >= head.n);
    let _ = mirror.wait(give_up, moved_on).await;
    let view = mirror.read();
    match view.heads.iter().rev().find(|seen| seen.n == head.n && seen.epoch == head.epoch) {
        Some(seen) if **seen == *head => Ok(Commit::Done(view.records_revision)),
        Some(_) => Ok(Commit::Conflict(revision)),
        None => Err(StoreError::Unavailable("what became of a commit can't be known".to_owned())),
    }
}

/// Writes whose records these are, if nobody has. An error says why they must not be used, or that it isn't known.
pub(super) async fn claim(
    store: &SharedStore,
    mirror: &Mirror,
    settings: &Settings,
    deadline: Instant,
) -> Result<(), String> {
    let Some(owner) = settings.owner() else { return Ok(()) };
    let is_known = |view: &View| view.quarrel.is_some() || view.installation.is_some();
    if !is_known(&mirror.read()) {
        let key = settings.records.installation();
        let txn = Txn { guards: vec![Guard::at(&key, 0)], ops: vec![Op::Put { key, value: owner.encode() }] };
        let done = timeout_at(deadline, store.commit(txn)).await;
        done.map_err(|_| "the store took too long".to_owned())?.map_err(|error| error.to_string())?;
        let heard = mirror.wait(deadline, is_known).await;
        heard.map_err(|()| "this replica has not caught up with the store".to_owned())?;
    }
    mirror.read().quarrel.clone().map_or(Ok(()), Err)
}
