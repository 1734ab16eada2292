//! The control plane: the four verbs on routes. When one returns, what it says is true on every live Traefik.
//!
//! Any number of replicas work on one store. Each mirrors it ([`mirror`]); each commits its callers' changes in groups and
//! brings Traefik's tree up to date ([`writer`], [`projection`]); and each waits for the fleet before it answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::lifecycle::{Lifecycle, Readiness};
use crate::random;
use crate::route::installation::Installation;
use crate::route::record::{Head, RecordKeys};
use crate::route::{Route, RouteData, RouteSpec, RouteTable, Target, Weight, chain};
use crate::snapshot::{self, Snapshot};
use crate::store::SharedStore;
use crate::traefik::bucket::Sizes;
use crate::traefik::fixed;
use crate::traefik::fleet::Fleet;
use crate::traefik::marker::{Marker, TAGGED_LAYOUT};

use counts::Counting;
pub use counts::Counts;
use delivery::Delivery;
pub use fallback::{Fallback, Offer};
pub use keeper::Kept;
use keeper::{Keeper, Log};
use known::Known;
pub use known::{History, LastKnown};
use mirror::{Mirror, View};
use past::{Past, Verdict};
use pulse::Pulse;
pub use room::Room;
use writer::{Change, Command, Writer};

pub mod bulk;

mod behind;
mod commit;
mod counts;
mod delivery;
mod fallback;
mod flapping;
mod hands;
mod keeper;
mod known;
mod mirror;
mod past;
mod projection;
mod pulse;
mod restore;
mod room;
mod stillness;
mod view;
mod writer;

/// How long a verb may take in all. Hubs of version 4 and 5 hang up after 10 s.
pub const CALL_TIMEOUT: Duration = Duration::from_millis(7500);

/// How long a store that can't be reached is tried before the caller hears of it.
const STORE_PATIENCE: Duration = Duration::from_millis(1800);

/// What callers are told while it isn't known what the store holds.
const DOUBTED: &str = "the store went back in time or was replaced, and is read anew";

/// Commands that may wait for the writer; more are refused at once.
const QUEUE_MAX: usize = 4096;

/// Why a verb did not do what it was asked. None of it is the caller's fault: asking again later is right.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// The store can't be read or written now: try again.
    #[error("{0}")]
    Unavailable(String),
    /// Recorded, but not every live Traefik serves it yet: try again, it does no harm.
    #[error("recorded, but not routed yet: {0}")]
    NotRouted(String),
    /// The table is full.
    #[error("the table holds {max} routes, the limit set by --max-routes")]
    TooManyRoutes {
        /// The limit.
        max: usize,
    },
    /// The table is full.
    #[error("the records of all routes would have more than {max} bytes together, the limit set by --max-table-bytes")]
    TooManyBytes {
        /// The limit.
        max: usize,
    },
    /// The caller's part of the table is full.
    #[error(
        "the routes that this token is good for would be more than {} or have more than {} bytes together, the share of the \
         table that --jwt-table-percent allows", max.routes, max.bytes
    )]
    ShareIsFull {
        /// The limits.
        max: Weight,
    },
    /// It could not be read again once it is written, which is a fault of ours: nothing has changed.
    #[error("the record can't be kept: {0}")]
    Unwritable(String),
}

/// The four verbs on routes, as the API calls them. A caller may go away: dropping a call's future at any point is fine.
#[async_trait]
pub trait Routes: Send + Sync + 'static {
    /// Records a route, and returns when every live Traefik serves it. A caller who may only change routes `below` some
    /// prefixes may fill a share of the table with them.
    async fn add(
        &self,
        spec: RouteSpec,
        target: Target,
        data: RouteData,
        below: Option<&[RouteSpec]>,
    ) -> Result<(), ControlError>;

    /// Removes a route, and returns when no live Traefik serves it any more. `false`: there was none.
    async fn remove(&self, spec: RouteSpec) -> Result<bool, ControlError>;

    /// One route, as of now.
    async fn get(&self, spec: &RouteSpec) -> Result<Option<Arc<Route>>, ControlError>;

    /// All routes, as of now; never a part of them, and never an empty table because it could not be read.
    async fn list(&self) -> Result<Vec<Arc<Route>>, ControlError>;

    /// The routes as they were last known, for who rather has old ones than none; `None` if none are known.
    fn last_known(&self) -> Option<LastKnown> {
        None
    }
}

/// What a control plane needs to know.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches of the command line, and independent")]
pub struct Settings {
    /// Where the records lie in the store.
    pub records: RecordKeys,
    /// What shapes Traefik's tree.
    pub tree: fixed::Settings,
    /// How large buckets may get.
    pub sizes: Sizes,
    /// How much the table takes.
    pub room: Room,
    /// Take over a tree that was written with other settings.
    pub adopt_layout: bool,
    /// Remove keys in Traefik's tree that are none of ours.
    pub own_root_key: bool,
    /// Move the store's revision on by writing, after it went back, so that Traefiks hear its changes again.
    pub allow_revision_bump: bool,
    /// The Traefiks don't read the store: they are sent what it holds.
    pub deliver: bool,
    /// Where the routes are kept for times without a store.
    pub snapshots: Option<snapshot::Folder>,
    /// The name of this installation, if it has one.
    pub installation: Option<String>,
    /// The version of the layout of Traefik's tree that is written: [`LAYOUT`](crate::traefik::marker::LAYOUT), but for who tries what an older release does.
    pub layout: u32,
}

impl Settings {
    /// A digest of everything that must be the same for all who write Traefik's tree, eight characters.
    ///
    /// # Panics
    ///
    /// Never: a SHA-256 hash has 32 bytes.
    #[must_use]
    pub fn digest(&self) -> String {
        let shape = self.tree.digest();
        if self.layout < TAGGED_LAYOUT {
            return shape;
        }
        let text = format!("{:?}", (shape, self.records.prefix(), &self.installation));
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        format!("{:08x}", u32::from_be_bytes(hash.as_ref()[..4].try_into().expect("a SHA-256 hash has 32 bytes")))
    }

    /// A marker of ours; up to layout 1 the tag is left out.
    fn marker(&self, epoch: &str, n: u64, tag: String) -> Marker {
        let tag = if self.layout < TAGGED_LAYOUT { String::new() } else { tag };
        Marker { layout: self.layout, digest: self.digest(), tag, epoch: epoch.to_owned(), n }
    }

    /// Whose records we use; nobody asks up to layout 1.
    fn owner(&self) -> Option<Installation> {
        let root_key = self.tree.root_key.clone();
        (self.layout >= TAGGED_LAYOUT).then(|| Installation { name: self.installation.clone(), root_key })
    }
}

/// Adds, removes, reads and lists routes. Any replica may be asked; repeating a call does no harm.
pub struct ControlPlane {
    store: SharedStore,
    settings: Arc<Settings>,
    mirror: Arc<Mirror>,
    fleet: Arc<Fleet>,
    commands: mpsc::Sender<Command>,
    counts: Arc<Counts>,
    known: Arc<Known>,
    fallback: Arc<Fallback>,
    snapshots: Option<Arc<Log>>,
    clock: SharedClock,
}

impl ControlPlane {
    /// Starts the tasks that mirror the store and write to it. Ready once both trees have been read: until then the latches
    /// `records` and `tree` are held.
    pub fn start(
        lifecycle: &Lifecycle,
        readiness: &Readiness,
        clock: SharedClock,
        store: SharedStore,
        fleet: Arc<Fleet>,
        settings: Settings,
    ) -> Arc<Self> {
        let settings = Arc::new(settings);
        let counts = Arc::new(Counts::default());
        let store: SharedStore = Arc::new(Counting::new(store, counts.clone()));
        let (found, past) = find_snapshot(&settings);
        let before = found.as_ref().map(|found| found.table.clone());
        let mirror = Arc::new(Mirror::new(settings.clone(), readiness.clone(), past, before));
        let told = mirror.clone();
        fleet.believe(Box::new(move |status| told.read().has_told(status)));
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        if settings.deliver {
            let delivery = Delivery::new(mirror.clone(), fleet.clone(), readiness.clone(), settings.clone());
            let stopping = lifecycle.stopping();
            lifecycle.spawn("delivery", async move { delivery.run(stopping).await });
        }
        let (known, snapshots) = start_snapshots(lifecycle, &settings, found, &mirror, &clock);
        mirror::start(&mirror, lifecycle, &store);
        let pulse = Pulse::new(
            store.clone(),
            mirror.clone(),
            fleet.clone(),
            settings.clone(),
            readiness.clone(),
            counts.clone(),
        );
        stillness::start(lifecycle, readiness, &counts, &mirror);
        let stopping = lifecycle.stopping();
        lifecycle.spawn("pulse", async move { pulse.run(stopping).await });
        lifecycle.spawn("epoch", tell_epoch(mirror.clone(), fleet.clone(), lifecycle.stopping()));
        let fallback = Arc::new(Fallback::new(known.clone(), fleet.clone(), settings.clone()));
        let writer = Arc::new(Writer::new(
            store.clone(),
            clock.clone(),
            mirror.clone(),
            fleet.clone(),
            settings.clone(),
            readiness.clone(),
        ));
        let stopping = lifecycle.stopping();
        lifecycle.spawn("writer", async move {
            // Also in the middle of something: that is as if this replica had been killed, which harms nothing.
            stopping.clone().run_until_cancelled(writer.run(queue, stopping)).await;
        });
        Arc::new(Self { store, settings, mirror, fleet, commands, counts, known, fallback, snapshots, clock })
    }

    /// The number of routes in this replica's mirror.
    #[must_use]
    pub fn routes(&self) -> usize {
        self.mirror.read().table.len()
    }

    /// What this replica has counted since its start.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// The routes in this replica's mirror; `None` until they have been read.
    #[must_use]
    pub fn table(&self) -> Option<Arc<RouteTable>> {
        let view = self.mirror.read();
        view.records_loaded.then(|| view.table.clone())
    }

    /// How far the store's history had come, as a snapshot knew that was there at the start. A store that is behind it went
    /// back in time.
    #[must_use]
    pub fn history(&self) -> Option<History> {
        self.known.history()
    }

    /// What is to be told of the snapshot; `None` if none is kept.
    #[must_use]
    pub fn kept(&self) -> Option<Kept> {
        self.snapshots.as_ref().map(|log| log.kept(self.clock.now()))
    }

    /// What Traefiks are given that ask us because etcd may have nothing for them.
    #[must_use]
    pub fn fallback(&self) -> Arc<Fallback> {
        self.fallback.clone()
    }

    /// Records a route unless there is one of this prefix, and returns when every live Traefik serves what there is. `true`:
    /// there was one.
    pub async fn add_if_absent(&self, spec: RouteSpec, target: Target, data: RouteData) -> Result<bool, ControlError> {
        self.change(Change::Put { spec, target, data, replace: false, below: None }).await
    }

    async fn change(&self, change: Change) -> Result<bool, ControlError> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let (answer, answered) = oneshot::channel();
        let command = Command { change, deadline, answer };
        self.commands
            .try_send(command)
            .map_err(|_| ControlError::Unavailable("too many changes are waiting".to_owned()))?;
        let late = || ControlError::Unavailable("the store took too long".to_owned());
        let done = timeout_at(deadline, answered).await.map_err(|_| late())?.map_err(|_| late())??;
        let (epoch, n) = &done.covered_by;
        let begun = Instant::now();
        let covered = self.served(epoch, *n, deadline).await;
        self.counts.traefik_waits.observe(begun.elapsed());
        covered.map_err(|who| ControlError::NotRouted(self.with_suspects(who)))?;
        Ok(done.existed)
    }

    /// Who is behind, and what may be the cause.
    fn with_suspects(&self, who: String) -> String {
        match self.mirror.foreign() {
            Some(named) => format!("{who}; there are {}", self.mirror.foreign_sentence(&named)),
            None => who,
        }
    }

    /// What there is, or was done, in our two trees that is none of ours.
    #[must_use]
    pub fn others(&self) -> Others {
        let (view, others) = (self.mirror.read(), self.mirror.others());
        Others {
            foreign_keys: view.tree.foreign.len() + view.foreign_records.len(),
            unreadable_records: view.unreadable.len(),
            touched: others.touched.load(Ordering::Relaxed),
            flaps: others.flaps.load(Ordering::Relaxed),
        }
    }

    /// Waits until every live Traefik serves the record change `n` of `epoch`, and Traefik's tree in the store holds it: a
    /// Traefik may have it from a tree that the store has lost since, and will lose it, too.
    async fn served(&self, epoch: &str, n: u64, deadline: Instant) -> Result<(), String> {
        let is_over = |view: &View| view.head.as_ref().is_some_and(|head| head.epoch != epoch);
        let is_held = |view: &View| view.tree.marker.as_ref().is_some_and(|marker| marker.covers(epoch, n));
        let held = self.mirror.wait(deadline, |view| is_held(view) || is_over(view)).await;
        held.map_err(|()| "Traefik's keys in the store don't have it yet".to_owned())?;
        let over = async {
            if self.mirror.wait(deadline, is_over).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = over => Err(DOUBTED.to_owned()),
            covered = self.fleet.covered(epoch, n, deadline) => covered,
        }
    }

    /// Waits until the mirror holds what the store holds now.
    async fn catch_up(&self) -> Result<(), ControlError> {
        let deadline = Instant::now() + STORE_PATIENCE;
        let unavailable = |e: &dyn std::fmt::Display| ControlError::Unavailable(e.to_string());
        // What is known before the read began: a store that says less now went back, and our mirror is no answer.
        let past = self.mirror.read().past.clone();
        let read = timeout_at(deadline, self.store.get(&self.settings.records.head()))
            .await
            .map_err(|e| unavailable(&e))?
            .map_err(|e| unavailable(&e))?;
        let now = read.entry.map(|entry| Head::parse(&entry.value)).transpose().map_err(|e| unavailable(&e))?;
        if past.judge(now.as_ref(), read.revision, &[]) != Verdict::Onward {
            self.mirror.doubt();
        }
        let has_heard = |view: &View| match (&now, &view.head) {
            (None, head) => head.is_none(),
            (Some(now), Some(head)) => head.epoch == now.epoch && head.n >= now.n,
            (Some(_), None) => false,
        };
        self.mirror
            .wait(deadline, |view| view.records_loaded && !view.doubted && has_heard(view))
            .await
            .map_err(|()| ControlError::Unavailable("this replica has not caught up with the store".to_owned()))
    }
}

#[async_trait]
impl Routes for ControlPlane {
    async fn add(
        &self,
        spec: RouteSpec,
        target: Target,
        data: RouteData,
        below: Option<&[RouteSpec]>,
    ) -> Result<(), ControlError> {
        let below = below.map(ToOwned::to_owned);
        self.change(Change::Put { spec, target, data, replace: true, below }).await.map(drop)
    }

    async fn remove(&self, spec: RouteSpec) -> Result<bool, ControlError> {
        self.change(Change::Delete { spec }).await
    }

    async fn get(&self, spec: &RouteSpec) -> Result<Option<Arc<Route>>, ControlError> {
        self.catch_up().await?;
        Ok(self.mirror.read().table.get(spec).cloned())
    }

    async fn list(&self) -> Result<Vec<Arc<Route>>, ControlError> {
        self.catch_up().await?;
        Ok(self.mirror.read().table.iter().cloned().collect())
    }

    fn last_known(&self) -> Option<LastKnown> {
        self.known.last()
    }
}

/// What others have to do with our two trees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Others {
    /// Keys below our prefixes that are none of ours.
    pub foreign_keys: usize,
    /// Records that can't be read.
    pub unreadable_records: usize,
    /// How often a key of ours was changed by somebody else, since the start.
    pub touched: u64,
    /// How often a route went back to what it had been before, again and again.
    pub flaps: u64,
}

/// The snapshot of a former life, and what it knew of the store.
fn find_snapshot(settings: &Settings) -> (Option<Snapshot>, Past) {
    let found = settings.snapshots.as_ref().and_then(snapshot::Folder::load);
    let past = |found: &Snapshot| Past::of(found.head.clone(), found.highest_revision.max(found.revision));
    let past = found.as_ref().map(past).unwrap_or_default();
    (found, past)
}

/// Goes on keeping a snapshot.
fn start_snapshots(
    lifecycle: &Lifecycle,
    settings: &Settings,
    found: Option<Snapshot>,
    mirror: &Arc<Mirror>,
    clock: &SharedClock,
) -> (Arc<Known>, Option<Arc<Log>>) {
    let Some(folder) = settings.snapshots.clone() else {
        return (Arc::new(Known::new(mirror.clone(), None, clock.clone())), None);
    };
    let log = Arc::new(Log::default());
    let keeper = Keeper::new(folder, found.as_ref(), mirror.clone(), clock.clone(), log.clone());
    let stopping = lifecycle.stopping();
    lifecycle.spawn("snapshot", async move { keeper.run(stopping).await });
    (Arc::new(Known::new(mirror.clone(), found, clock.clone())), Some(log))
}

/// Tells the fleet in which epoch the store is: markers of others are older.
async fn tell_epoch(mirror: Arc<Mirror>, fleet: Arc<Fleet>, stopping: CancellationToken) {
    let mut changed = mirror.subscribe();
    loop {
        changed.mark_unchanged();
        if let Some(head) = &mirror.read().head {
            fleet.store_has(&head.epoch);
        }
        if !matches!(stopping.run_until_cancelled(changed.changed()).await, Some(Ok(()))) {
            return;
        }
    }
}

/// The names of routes whose records can't be read: their keys in Traefik's tree are left alone.
type Frozen = BTreeSet<String>;

/// A fresh random text of 16 hexadecimal digits, for an epoch or a nonce.
fn random_id() -> String {
    random::digits::<8>()
}

/// The head that a transaction of ours makes.
fn next_head(head: Option<&Head>) -> Head {
    match head {
        Some(head) => Head { epoch: head.epoch.clone(), n: head.n + 1, nonce: chain::link(&random_id(), &head.nonce) },
        None => Head { epoch: random_id(), n: 1, nonce: chain::link(&random_id(), "") },
    }
}
