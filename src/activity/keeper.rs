//! The checkpoint in the store: followed, merged by maximum, and written when it is time and something has moved.
//!
//! No replica leads. Whoever finds that nobody has written for a while does it, under guards on what it has read; a
//! replica that loses merges what the other has written, and waits for its next turn.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::checkpoint::{CHUNKS, Chunk, Life, chunk_number, chunk_of};
use super::{Activity, Settings};
use crate::store::follow::{Follower, Update};
use crate::store::{Commit, Event, Guard, KeyValue, Op, Revision, SharedStore, Txn};

/// How long the store may take for the last checkpoint, at a stop.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Knows what the store holds.
pub(super) struct Keeper {
    store: SharedStore,
    prefix: String,
    interval: Duration,
    activity: Arc<Activity>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Whether the checkpoint has been read.
    loaded: bool,
    chunks: [KeptChunk; CHUNKS],
    /// When somebody last wrote, as far as we have heard, or tried to.
    written: Option<Instant>,
}

#[derive(Default)]
struct KeptChunk {
    revision: Revision,
    chunk: Chunk,
}

/// What is to be kept.
pub(super) struct Latest {
    /// Up to here every Traefik has been looked at, in milliseconds since 1970.
    pub(super) looked_ms: i64,
    /// When each route of the table was last used, by name, if it was since its POST.
    pub(super) routes: HashMap<Box<str>, i64>,
    /// Good answers by Traefik and route.
    pub(super) lives: BTreeMap<Life, HashMap<Box<str>, u64>>,
}

impl Keeper {
    pub(super) fn new(store: SharedStore, settings: &Settings, activity: Arc<Activity>) -> Self {
        let (prefix, interval) = (settings.prefix.clone(), settings.checkpoint_interval);
        Self { store, prefix, interval, activity, kept: Mutex::default() }
    }

    /// Follows what any replica writes, until the stop.
    pub(super) async fn follow(self: Arc<Self>, stopping: CancellationToken) {
        let mut follower = Follower::new(self.store.clone(), self.prefix.clone());
        while let Some(update) = stopping.run_until_cancelled(follower.next()).await {
            match update {
                Update::Reset(listing) => {
                    self.lock().chunks = Default::default();
                    listing.entries.into_iter().for_each(|entry| self.put(entry));
                    self.lock().loaded = true;
                }
                Update::Changes(changes) => {
                    if !changes.events.is_empty() {
                        self.lock().written = Some(Instant::now());
                    }
                    for event in changes.events {
                        match event {
                            Event::Put(entry) => self.put(entry),
                            Event::Delete { key } => {
                                if let Some(number) = self.number(&key) {
                                    self.lock().chunks[number] = KeptChunk::default();
                                }
                            }
                        }
                    }
                }
                // What is seen at Traefik is enough to go on with.
                Update::Lost(error) => debug!(%error, "The times of activity can't be followed: {error}"),
            }
        }
    }

    fn put(&self, entry: KeyValue) {
        let Some(number) = self.number(&entry.key) else { return };
        let chunk = String::from_utf8(entry.value).ok().and_then(|text| Chunk::decode(&text)).unwrap_or_else(|| {
            warn!(key = %entry.key, "The times of activity in {} can't be read; they are written anew", entry.key);
            Chunk::default()
        });
        self.activity.merge(chunk.routes.iter().map(|(name, at_ms)| (&**name, *at_ms)));
        self.lock().chunks[number] = KeptChunk { revision: entry.mod_revision, chunk };
    }

    fn number(&self, key: &str) -> Option<usize> {
        key.strip_prefix(&self.prefix).and_then(chunk_number)
    }

    /// Whether the checkpoint has been read.
    pub(super) fn is_loaded(&self) -> bool {
        self.lock().loaded
    }

    /// Up to when somebody has looked at every Traefik, in milliseconds since 1970; and what was kept of this life.
    pub(super) fn before(&self, life: &Life) -> (i64, Option<HashMap<Box<str>, u64>>) {
        let kept = self.lock();
        let chunks = || kept.chunks.iter().map(|kept| &kept.chunk);
        let looked_ms = chunks().map(|chunk| chunk.looked_ms).filter(|at| *at > 0).max().unwrap_or(i64::MAX);
        let known = chunks().any(|chunk| chunk.lives.contains_key(life));
        let good = known.then(|| {
            let all = chunks().filter_map(|chunk| chunk.lives.get(life));
            all.flatten().map(|(name, good)| (name.clone(), *good)).collect()
        });
        (looked_ms, good)
    }

    /// Writes what has moved, if nobody has written for an interval.
    pub(super) async fn write_if_due(&self, latest: &Latest) {
        let due = {
            let mut kept = self.lock();
            let due = kept.loaded && kept.written.is_none_or(|written| written.elapsed() >= self.interval);
            if due {
                kept.written = Some(Instant::now());
            }
            due
        };
        if due {
            self.write(latest).await;
        }
    }

    /// Writes what has moved, now, for we stop.
    pub(super) async fn write_last(&self, latest: &Latest) {
        if self.is_loaded() && timeout(STOP_PATIENCE, self.write(latest)).await.is_err() {
            warn!("The last times of activity could not be written within {} s", STOP_PATIENCE.as_secs());
        }
    }

    async fn write(&self, latest: &Latest) {
        let txn = self.transaction(latest);
        if txn.ops.is_empty() {
            return;
        }
        match self.store.commit(txn).await {
            Ok(Commit::Done(_)) => {}
            Ok(Commit::Conflict(_)) => debug!("Another replica wrote the times of activity"),
            Err(error) => warn!(%error, "The times of activity can't be written: {error}; trying again"),
        }
    }

    /// The chunks in which something has moved, as many as fit in one transaction.
    fn transaction(&self, latest: &Latest) -> Txn {
        let limits = self.store.limits();
        let mut chunks: [Chunk; CHUNKS] = std::array::from_fn(|_| Chunk {
            looked_ms: latest.looked_ms,
            lives: latest.lives.keys().map(|life| (life.clone(), HashMap::new())).collect(),
            ..Chunk::default()
        });
        for (name, at_ms) in &latest.routes {
            chunks[chunk_of(name)].routes.insert(name.clone(), *at_ms);
        }
        for (life, answers) in &latest.lives {
            for (name, good) in answers {
                if let Some(into) = chunks[chunk_of(name)].lives.get_mut(life) {
                    into.insert(name.clone(), *good);
                }
            }
        }
        let kept = self.lock();
        let mut order: Vec<usize> =
            (0..CHUNKS).filter(|at| chunks[*at].routes != kept.chunks[*at].chunk.routes).collect();
        order.sort_by_key(|at| kept.chunks[*at].revision);
        let (mut txn, mut bytes) = (Txn::default(), 0);
        for at in order {
            let (key, value) = (format!("{}{at}", self.prefix), chunks[at].encode().into_bytes());
            bytes += 2 * key.len() + value.len();
            // Those that are left have their turn next time, for they are the oldest then.
            if !txn.ops.is_empty() && (bytes > limits.bytes_max || txn.ops.len() == limits.ops_max) {
                break;
            }
            txn.guards.push(Guard { key: key.clone(), mod_revision: kept.chunks[at].revision });
            txn.ops.push(Op::Put { key, value });
        }
        txn
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
