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

    /// Whether nobody has written for an interval, so that it is our turn: the caller calls `write` then.
    pub(super) fn is_due(&self) -> bool {
        let mut kept = self.lock();
        let due = kept.loaded && kept.written.is_none_or(|written| written.elapsed() >= self.interval);
        if due {
            kept.written = Some(Instant::now());
        }
        due
    }

    /// Writes what has moved, now, for we stop.
    pub(super) async fn write_last(&self, latest: &Latest) {
        if self.is_loaded() && timeout(STOP_PATIENCE, self.write(latest)).await.is_err() {
            warn!("The last times of activity could not be written within {} s", STOP_PATIENCE.as_secs());
        }
    }

    /// Writes what has moved.
    pub(super) async fn write(&self, latest: &Latest) {
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
            txn.guards.push(Guard::at(key.clone(), kept.chunks[at].revision));
            txn.ops.push(Op::Put { key, value });
        }
        txn
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use super::*;
    use crate::clock::SystemClock;
    use crate::store::Store as _;
    use crate::store::memory::MemoryStore;
    use crate::traefik::name;
    use crate::traefik::rule::Space;

    fn keeper(store: &MemoryStore) -> Arc<Keeper> {
        let (known, clock) = (RwLock::default(), Arc::new(SystemClock));
        let activity = Arc::new(Activity { known, clock, space: Space::Paths });
        Arc::new(Keeper::new(Arc::new(store.clone()), &Settings::new("p", Space::Paths), activity))
    }

    /// So many routes, the first of them used at `at_ms` and the others at 1.
    fn latest(routes: usize, at_ms: i64) -> Latest {
        let names: Vec<Box<str>> = (0..routes).map(|i| name::route(&format!("/user/{i}")).into()).collect();
        let good = names.iter().map(|name| (name.clone(), 7)).collect();
        let mut routes: HashMap<Box<str>, i64> = names.iter().map(|name| (name.clone(), 1)).collect();
        routes.insert(names[0].clone(), at_ms);
        Latest { looked_ms: at_ms, routes, lives: BTreeMap::from([(("http://t".to_owned(), 5), good)]) }
    }

    async fn heard(keeper: &Keeper, revision: Revision) {
        while keeper.lock().chunks.iter().all(|kept| kept.revision < revision) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn all_that_moved_goes_in_one_transaction_and_only_that() {
        let (store, lifecycle) = (MemoryStore::new(), crate::lifecycle::Lifecycle::new());
        let (writer, reader, stopping) = (keeper(&store), keeper(&store), lifecycle.stopping());
        lifecycle.spawn("writer", writer.clone().follow(stopping.clone()));
        lifecycle.spawn("reader", reader.clone().follow(stopping));
        while !writer.is_loaded() || !reader.is_loaded() {
            tokio::task::yield_now().await;
        }
        let begun = store.revision();
        assert!(writer.is_due() && !writer.is_due(), "a turn is taken once");
        writer.write(&latest(5000, 1)).await;
        assert_eq!(store.revision(), begun + 1, "one transaction");
        let bytes: usize = store.list("p/activity/").await.expect("memory").entries.iter().map(|e| e.value.len()).sum();
        assert!(bytes < 200_000, "{bytes} bytes for 5,000 users");
        heard(&writer, begun + 1).await;
        heard(&reader, begun + 1).await;
        assert!(!reader.is_due(), "somebody has just written");
        writer.write(&latest(5000, 1)).await;
        assert_eq!(store.revision(), begun + 1, "nothing has moved");
        writer.write(&latest(5000, 2)).await;
        let changed = store.list("p/activity/").await.expect("memory").entries;
        assert_eq!(changed.iter().filter(|entry| entry.mod_revision == begun + 2).count(), 1, "one chunk");
        // Whoever has not heard of it loses, and what was written stays.
        keeper(&store).write(&latest(1, 9)).await;
        assert_eq!(store.revision(), begun + 2);
        heard(&reader, begun + 2).await;
        assert_eq!(reader.before(&("http://t".to_owned(), 5)).1.expect("it is kept").len(), 5000);
        let first = name::route("/user/0");
        assert_eq!(reader.activity.read().last[first.as_str()], 2);
        lifecycle.stop();
        assert_eq!(lifecycle.finished().await, Ok(()));
    }
}
