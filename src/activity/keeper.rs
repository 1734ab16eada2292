//! The checkpoint in the store: written by the one replica that looks, followed by all, and merged by maximum.
//!
//! Every write of the checkpoint carries the guard of the lease, so that a replica that has lost it without knowing changes
//! nothing, and guards on what it has read, so that nothing is moved back. With it goes the key `looked`, whose changes tell
//! the others that somebody looks. What a replica without the lease knows beyond the checkpoint (routes were posted there,
//! or it has lost the lease before it could write) it tells in a key of its own below `note/`, until the checkpoint has it.

mod notes;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::checkpoint::{self, CHUNKS, Chunk, LOOKED, Life, NOTES, chunk_number, chunk_of};
use super::{Activity, Settings};
use crate::store::follow::{Follower, Update};
use crate::store::lease::Held;
use crate::store::{Commit, Event, Guard, KeyValue, Op, Revision, SharedStore, StoreError, Txn};

/// How long the store may take for the last checkpoint, at a stop.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// So many notes are cleared away with one checkpoint.
const CLEARED_MAX: usize = 16;

/// What is heard so soon after the store could not be followed may have been said long ago.
const BACKLOG: Duration = Duration::from_secs(1);

/// Knows what the store holds.
pub(super) struct Keeper {
    store: SharedStore,
    prefix: String,
    note_key: String,
    interval: Duration,
    activity: Arc<Activity>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Whether the checkpoint has been read.
    loaded: bool,
    chunks: [KeptChunk; CHUNKS],
    /// What replicas without the lease have told, by key.
    notes: BTreeMap<String, BTreeMap<Box<str>, i64>>,
    /// When we last wrote, or tried to.
    written: Option<Instant>,
    /// Until then, what is heard may be old.
    backlog_until: Option<Instant>,
    lost: bool,
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
    /// The time to the next look, if this one was whole.
    pub(super) next_look: Option<Duration>,
    /// When each route of the table was last used, by name, if it was since its POST.
    pub(super) routes: HashMap<Box<str>, i64>,
    /// Good answers by Traefik and route.
    pub(super) lives: BTreeMap<Life, HashMap<Box<str>, u64>>,
}

impl Keeper {
    pub(super) fn new(store: SharedStore, settings: &Settings, activity: Arc<Activity>) -> Self {
        let (prefix, interval) = (settings.prefix.clone(), settings.checkpoint_interval);
        let mut name = [0; 8];
        // Two replicas of one name would only clear away each other's notes, and write them again.
        let _ = aws_lc_rs::rand::fill(&mut name);
        let note_key = format!("{prefix}{NOTES}{:016x}", u64::from_ne_bytes(name));
        Self { store, prefix, note_key, interval, activity, kept: Mutex::default() }
    }

    /// Follows what any replica writes, until the stop.
    pub(super) async fn follow(self: Arc<Self>, stopping: CancellationToken) {
        let mut follower = Follower::new(self.store.clone(), self.prefix.clone());
        while let Some(update) = stopping.run_until_cancelled(follower.next()).await {
            self.see(update);
        }
    }

    fn see(&self, update: Update) {
        let changes = match update {
            // What is seen at Traefik, if we look, is enough to go on with.
            Update::Lost(error) => {
                self.lock().lost = true;
                return debug!(%error, "The times of activity can't be followed: {error}");
            }
            Update::Reset(listing) => {
                {
                    let mut kept = self.lock();
                    (kept.chunks, kept.notes) = Default::default();
                }
                self.put_all(listing.entries);
                self.lock().loaded = true;
                Vec::new()
            }
            Update::Changes(changes) => changes.events,
        };
        {
            let mut kept = self.lock();
            if std::mem::take(&mut kept.lost) {
                kept.backlog_until = Some(Instant::now() + BACKLOG);
            }
        }
        for event in changes {
            match event {
                Event::Put(entry) if entry.key.strip_prefix(&self.prefix) == Some(LOOKED) => self.heard(&entry.value),
                Event::Put(entry) => self.put(entry),
                Event::Delete { key, .. } => {
                    let mut kept = self.lock();
                    kept.notes.remove(&key);
                    if let Some(number) = self.number(&key) {
                        kept.chunks[number] = KeptChunk::default();
                    }
                }
            }
        }
    }

    /// Whoever has the lease has looked at everything.
    fn heard(&self, value: &[u8]) {
        let is_old = self.lock().backlog_until.is_some_and(|until| Instant::now() < until);
        match str::from_utf8(value).ok().and_then(checkpoint::next_look) {
            Some(next_look) if !is_old => self.activity.looked(next_look),
            _ => {}
        }
    }

    fn put_all(&self, entries: Vec<KeyValue>) {
        for entry in entries {
            self.put(entry);
        }
    }

    fn put(&self, entry: KeyValue) {
        let decoded = || String::from_utf8(entry.value.clone()).ok().and_then(|text| Chunk::decode(&text));
        let below = entry.key.strip_prefix(&self.prefix).unwrap_or_default();
        if below.starts_with(NOTES) {
            let routes = decoded().unwrap_or_default().routes;
            self.merge(&routes);
            self.lock().notes.insert(entry.key, routes);
            return;
        }
        let Some(number) = chunk_number(below) else { return };
        let chunk = decoded().unwrap_or_else(|| {
            warn!(key = %entry.key, "The times of activity in {} can't be read; they are written anew", entry.key);
            Chunk::default()
        });
        self.merge(&chunk.routes);
        let kept = &mut self.lock().chunks[number];
        // What we have read or written ourselves may be newer than what the watch tells.
        if kept.revision <= entry.mod_revision {
            *kept = KeptChunk { revision: entry.mod_revision, chunk };
        }
    }

    fn merge(&self, routes: &BTreeMap<Box<str>, i64>) {
        self.activity.merge(routes.iter().map(|(name, at_ms)| (&**name, *at_ms)));
    }

    fn number(&self, key: &str) -> Option<usize> {
        key.strip_prefix(&self.prefix).and_then(chunk_number)
    }

    /// Whether the checkpoint has been read.
    pub(super) fn is_loaded(&self) -> bool {
        self.lock().loaded
    }

    /// Reads the checkpoint as it is now: whoever has taken the lease sees all that those before him have written, for
    /// they can't write any more.
    pub(super) async fn load(&self) -> Result<(), StoreError> {
        let listing = self.store.list(&self.prefix).await?;
        self.put_all(listing.entries);
        Ok(())
    }

    /// Merges once more what is kept: routes that were not in our table then may be there now.
    pub(super) fn remember(&self) {
        let kept = self.lock();
        kept.chunks.iter().for_each(|kept| self.merge(&kept.chunk.routes));
        kept.notes.values().for_each(|routes| self.merge(routes));
    }

    /// Up to when somebody has looked at every Traefik, in milliseconds since 1970; and what was kept of this life.
    pub(super) fn before(&self, life: &Life) -> (i64, Option<HashMap<Box<str>, u64>>) {
        let kept = self.lock();
        let chunks = || kept.chunks.iter().map(|kept| &kept.chunk);
        // Not what `looked` says: a Traefik that has begun between this and that stands in no chunk, and all that it has
        // counted came after the last chunk.
        let looked_ms = chunks().map(|chunk| chunk.looked_ms).filter(|at| *at > 0).max().unwrap_or(i64::MAX);
        let known = chunks().any(|chunk| chunk.lives.contains_key(life));
        let good = known.then(|| {
            let all = chunks().filter_map(|chunk| chunk.lives.get(life));
            all.flatten().map(|(name, good)| (name.clone(), *good)).collect()
        });
        (looked_ms, good)
    }

    /// Whether we have not written for an interval: the caller calls `write` then.
    pub(super) fn is_due(&self) -> bool {
        let mut kept = self.lock();
        let due = kept.loaded && kept.written.is_none_or(|written| written.elapsed() >= self.interval);
        if due {
            kept.written = Some(Instant::now());
        }
        due
    }

    /// Writes what has moved, now, for we stop.
    pub(super) async fn write_last(&self, held: &Held, latest: &Latest) {
        if self.is_loaded() && timeout(STOP_PATIENCE, self.write(held, latest)).await.is_err() {
            warn!("The last times of activity could not be written within {} s", STOP_PATIENCE.as_secs());
        }
    }

    /// Writes what has moved, if we have the lease still.
    pub(super) async fn write(&self, held: &Held, latest: &Latest) {
        let (txn, chunks) = self.transaction(held, latest);
        if txn.ops.is_empty() {
            return;
        }
        match self.store.commit(txn).await {
            Ok(Commit::Done(revision)) => {
                let mut kept = self.lock();
                for (at, chunk) in chunks {
                    if kept.chunks[at].revision < revision {
                        kept.chunks[at] = KeptChunk { revision, chunk };
                    }
                }
            }
            Ok(Commit::Conflict(_)) => debug!("Another replica has written the times of activity"),
            Err(error) => warn!(%error, "The times of activity can't be written: {error}; trying again"),
        }
    }

    /// The chunks in which something has moved, as many as fit in one transaction; and where they go.
    fn transaction(&self, held: &Held, latest: &Latest) -> (Txn, Vec<(usize, Chunk)>) {
        let limits = self.store.limits();
        let mut chunks = chunks_of(latest);
        let kept = self.lock();
        let mut txn = Txn::default();
        if let Some(guard) = held.guard() {
            txn.guards.push(guard);
            txn.ops.extend(latest.next_look.map(|next_look| Op::Put {
                key: format!("{}{LOOKED}", self.prefix),
                value: checkpoint::looked(latest.looked_ms, next_look).into_bytes(),
            }));
            // What they tell was merged when they came. One that is written anew meanwhile is cleared away unread: whoever
            // wrote it sees that, and tells it again.
            let notes = kept.notes.keys().take(CLEARED_MAX);
            txn.ops.extend(notes.map(|key| Op::Delete { key: key.clone() }));
        }
        let mut order: Vec<usize> =
            (0..CHUNKS).filter(|at| chunks[*at].routes != kept.chunks[*at].chunk.routes).collect();
        order.sort_by_key(|at| kept.chunks[*at].revision);
        let (mut put, mut bytes) = (Vec::new(), txn.ops.len() * (self.note_key.len() + 64));
        for at in order {
            let (key, value) = (format!("{}{at}", self.prefix), chunks[at].encode().into_bytes());
            bytes += 2 * key.len() + value.len();
            // Those that are left have their turn next time, for they are the oldest then.
            if !put.is_empty() && (bytes > limits.bytes_max || txn.ops.len() == limits.ops_max) {
                break;
            }
            txn.guards.push(Guard::at(key.clone(), kept.chunks[at].revision));
            txn.ops.push(Op::Put { key, value });
            put.push((at, std::mem::take(&mut chunks[at])));
        }
        (txn, put)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be kept, as it is spread over the keys.
fn chunks_of(latest: &Latest) -> [Chunk; CHUNKS] {
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
    chunks
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use jiff::Timestamp;

    use super::*;
    use crate::clock::{Moment, SystemClock};
    use crate::lifecycle::Lifecycle;
    use crate::route::{Route, RouteData, RouteSpec, RouteTable, Target};
    use crate::store::Store as _;
    use crate::store::lease::{Contender, Step, Tenure, Times};
    use crate::store::memory::MemoryStore;
    use crate::traefik::name;
    use crate::traefik::rule::Space;

    fn keeper(store: &MemoryStore) -> Arc<Keeper> {
        let (known, clock) = (RwLock::default(), Arc::new(SystemClock));
        let activity = Arc::new(Activity { known, clock, space: Space::Paths });
        let settings = Settings::new("p", Space::Paths).alone();
        Arc::new(Keeper::new(Arc::new(store.clone()), &settings, activity))
    }

    /// What somebody has who is alone.
    fn alone() -> Held {
        Tenure::alone().held().expect("always")
    }

    /// So many routes, the first of them used at `at_ms` and the others at 1.
    fn latest(routes: usize, at_ms: i64) -> Latest {
        let names: Vec<Box<str>> = (0..routes).map(|i| name::route(&format!("/user/{i}")).into()).collect();
        let good = names.iter().map(|name| (name.clone(), 7)).collect();
        let mut routes: HashMap<Box<str>, i64> = names.iter().map(|name| (name.clone(), 1)).collect();
        routes.insert(names[0].clone(), at_ms);
        let lives = BTreeMap::from([(("http://t".to_owned(), 5), good)]);
        Latest { looked_ms: at_ms, next_look: Some(Duration::from_secs(10)), routes, lives }
    }

    async fn heard(keeper: &Keeper, revision: Revision) {
        while keeper.lock().chunks.iter().all(|kept| kept.revision < revision) {
            tokio::task::yield_now().await;
        }
    }

    /// Keepers that follow, as long as the lifecycle goes on.
    async fn followed<const N: usize>(store: &MemoryStore) -> (Lifecycle, [Arc<Keeper>; N]) {
        let (lifecycle, keepers) = (Lifecycle::new(), std::array::from_fn(|_| keeper(store)));
        for keeper in &keepers {
            lifecycle.spawn("follow", keeper.clone().follow(lifecycle.stopping()));
            while !keeper.is_loaded() {
                tokio::task::yield_now().await;
            }
        }
        (lifecycle, keepers)
    }

    async fn size(store: &MemoryStore, below: &str) -> usize {
        store.list(below).await.expect("memory").entries.len()
    }

    #[tokio::test]
    async fn all_that_moved_goes_in_one_transaction_and_only_that() {
        let store = MemoryStore::new();
        let (lifecycle, [writer, reader]) = followed(&store).await;
        let begun = store.revision();
        assert!(writer.is_due() && !writer.is_due(), "a turn is taken once");
        writer.write(&alone(), &latest(5000, 1)).await;
        assert_eq!(store.revision(), begun + 1, "one transaction");
        let bytes: usize = store.list("p/activity/").await.expect("memory").entries.iter().map(|e| e.value.len()).sum();
        assert!(bytes < 200_000, "{bytes} bytes for 5,000 users");
        heard(&reader, begun + 1).await;
        writer.write(&alone(), &latest(5000, 1)).await;
        assert_eq!(store.revision(), begun + 1, "nothing has moved");
        writer.write(&alone(), &latest(5000, 2)).await;
        let changed = store.list("p/activity/").await.expect("memory").entries;
        assert_eq!(changed.iter().filter(|entry| entry.mod_revision == begun + 2).count(), 1, "one chunk");
        // Whoever has not heard of it loses, and what was written stays.
        keeper(&store).write(&alone(), &latest(1, 9)).await;
        assert_eq!(store.revision(), begun + 2);
        heard(&reader, begun + 2).await;
        assert_eq!(reader.before(&("http://t".to_owned(), 5)).1.expect("it is kept").len(), 5000);
        let first = name::route("/user/0");
        assert_eq!(reader.activity.read().last[first.as_str()], 2);
        assert_eq!(size(&store, "p/activity/looked").await, 0, "nobody is told who is not there");
        lifecycle.stop();
        assert_eq!(lifecycle.finished().await, Ok(()));
    }

    /// Somebody takes the lease, whoever had it.
    async fn take(store: &MemoryStore) -> Held {
        let mut contender = Contender::new("p/activity/lease", Times { ttl: Duration::ZERO, ..Times::default() });
        let now = Moment::now();
        contender.see(Update::Reset(store.list("p/activity/lease").await.expect("memory")), now);
        let Step::Ask(txn) = contender.step(now) else { panic!("nothing to wait for") };
        contender.answered(store.commit(txn).await, now, now);
        contender.held().expect("it is taken")
    }

    #[tokio::test]
    async fn who_has_lost_the_lease_writes_nothing_and_who_has_it_is_heard() {
        let store = MemoryStore::new();
        let (lifecycle, [old, new]) = followed(&store).await;
        let first = take(&store).await;
        old.write(&first, &latest(3, 5)).await;
        while new.activity.age().is_none() {
            tokio::task::yield_now().await;
        }
        let second = take(&store).await;
        new.load().await.expect("memory");
        assert_eq!(new.activity.read().last[name::route("/user/0").as_str()], 5, "all that was written is known");
        let before = store.revision();
        old.write(&first, &latest(3, 6)).await;
        assert_eq!(store.revision(), before, "not even by one who knows all chunks");
        new.write(&second, &latest(3, 7)).await;
        assert_eq!(store.revision(), before + 1);
        // A look that was not whole is no news of a look.
        let looked = store.get("p/activity/looked").await.expect("memory").entry;
        new.write(&second, &Latest { next_look: None, ..latest(3, 8) }).await;
        assert_eq!(
            (store.revision(), store.get("p/activity/looked").await.expect("memory").entry),
            (before + 2, looked)
        );
        lifecycle.stop();
        assert_eq!(lifecycle.finished().await, Ok(()));
    }

    #[tokio::test]
    async fn what_another_replica_knows_is_told_once_and_cleared_away() {
        let store = MemoryStore::new();
        let (lifecycle, [holder, other, third]) = followed(&store).await;
        let created = Timestamp::from_millisecond(100).expect("in range");
        let target = Target::parse("http://x").expect("valid");
        let spec = RouteSpec::from_decoded("/user/0").expect("valid");
        let route = Route { spec: spec.clone(), target, data: RouteData::new(), created, n: 1 };
        let table: RouteTable = [route].into_iter().collect();
        let name: Box<str> = name::route("/user/0").into();
        let names = HashMap::from([(spec, name.clone())]);
        let held = take(&store).await;
        let note = async |keeper: &Keeper, at_ms: i64| {
            keeper.activity.merge([(&*name, at_ms)]);
            keeper.note(&table, &names).await;
        };
        note(&other, 100).await;
        assert_eq!(size(&store, "p/activity/note/").await, 0, "its POST is in its record");
        note(&other, 200).await;
        let told = store.revision();
        note(&other, 200).await;
        assert_eq!(store.revision(), told, "told already");
        while third.lock().notes.is_empty() || holder.lock().notes.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(third.activity.read().last[&name], 200);
        note(&third, 150).await;
        assert_eq!(store.revision(), told, "others' words are not passed on");
        let routes = holder.activity.read().last.clone();
        holder.write(&held, &Latest { routes, ..latest(1, 1) }).await;
        assert_eq!(size(&store, "p/activity/note/").await, 0);
        while !other.lock().notes.is_empty() {
            tokio::task::yield_now().await;
        }
        let cleared = store.revision();
        note(&other, 200).await;
        assert_eq!(store.revision(), cleared, "the checkpoint has it");
        note(&other, 300).await;
        assert_eq!(store.revision(), cleared + 1);
        lifecycle.stop();
        assert_eq!(lifecycle.finished().await, Ok(()));
    }
}
