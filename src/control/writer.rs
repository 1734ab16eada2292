//! The writer: commits callers' changes in groups, and brings Traefik's tree up to date.
//!
//! One task a replica. While Traefik digests one change of its tree, callers gather; then all of them go in one transaction,
//! records and keys together, if they fit. If they don't, the records go first and the tree follows in steps. A replica that
//! dies in between is no harm: every other one sees the marker behind the head and takes the next step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::commit::{self, HEAD_OPS, MARKER_OPS};
use super::mirror::{Mirror, View};
use super::{ControlError, STORE_PATIENCE, Settings, next_head};
use crate::clock::SharedClock;
use crate::lifecycle::Readiness;
use crate::route::record::Head;
use crate::route::{Route, RouteData, RouteSpec, RouteTable, Target};
use crate::store::{Commit, Guard, Revision, SharedStore, StoreError, Txn};
use crate::traefik::fleet::Fleet;
use crate::traefik::marker::{LAYOUT, Marker};
use crate::traefik::name;
use crate::traefik::plan::{self, Limits, Step};

/// How long a change of the tree may be digested before the next one is made all the same.
const DIGESTION_MAX: Duration = Duration::from_secs(2);

/// How long another replica is given to bring the tree up to date after its own commit.
const OTHERS_GRACE: Duration = Duration::from_millis(250);

/// Commands in one group.
const GROUP_MAX: usize = 2048;

/// Plans in a row before the tree is looked at afresh.
const PLANS_MAX: usize = 64;

/// What a caller wants.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// This route.
    Put { spec: RouteSpec, target: Target, data: RouteData },
    /// No route there.
    Delete { spec: RouteSpec },
}

/// What became of a change: it is recorded, and true once the fleet serves `covered_by` (epoch and number).
#[derive(Debug, Clone)]
pub(super) struct Done {
    /// Whether there was a route.
    pub(super) existed: bool,
    /// What the fleet must serve.
    pub(super) covered_by: (String, u64),
}

/// A change, and where its outcome goes.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) change: Change,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<Done, ControlError>>,
}

pub(super) struct Writer {
    store: SharedStore,
    clock: SharedClock,
    mirror: Arc<Mirror>,
    fleet: Arc<Fleet>,
    settings: Arc<Settings>,
    readiness: Readiness,
    digest: String,
}

/// What a group of commands comes to, against one view.
struct Group {
    /// The number of commands that it takes; the others wait for the next transaction.
    taken: usize,
    outcomes: Vec<Result<Done, ControlError>>,
    /// The transaction, unless there is nothing to change.
    txn: Option<(Txn, Head)>,
    /// How much of Traefik's tree is part of it.
    tree: TreePart,
    /// What this was decided on.
    seen: Revisions,
}

/// How much of Traefik's tree goes along with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TreePart {
    /// Nothing: it follows.
    None,
    /// All that users can tell; the rest, which only rearranges buckets, follows.
    Enough,
    /// Everything.
    All,
}

/// The revisions of the two keys that every transaction compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Revisions {
    head: Revision,
    marker: Revision,
}

impl Revisions {
    fn of(view: &View) -> Self {
        Self { head: view.head_revision, marker: view.tree.marker_revision }
    }
}

impl Writer {
    pub(super) fn new(
        store: SharedStore,
        clock: SharedClock,
        mirror: Arc<Mirror>,
        fleet: Arc<Fleet>,
        settings: Arc<Settings>,
        readiness: Readiness,
    ) -> Self {
        let digest = settings.tree.digest();
        Self { store, clock, mirror, fleet, settings, readiness, digest }
    }

    pub(super) async fn run(self, mut queue: mpsc::Receiver<Command>, stopping: CancellationToken) {
        let (mut digested, mut digest_until) = (None, Instant::now());
        loop {
            let first = tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                Some(command) = queue.recv() => command,
                () = self.tree_lags() => {
                    self.begin().await;
                    self.project().await;
                    continue;
                }
            };
            // Traefik reads its whole tree at every change and never merges changes: let it finish the last one first.
            let marker = self.mirror.read().tree.marker.clone();
            if marker != digested {
                (digested, digest_until) = (marker, Instant::now() + DIGESTION_MAX);
            }
            if let Some(marker) = &digested {
                let _ = self.fleet.covered(&marker.epoch, marker.n, digest_until).await;
            }
            let mut group = vec![first];
            while group.len() < GROUP_MAX {
                let Ok(command) = queue.try_recv() else { break };
                group.push(command);
            }
            if let Err(error) = self.handle(group).await {
                // Who came while the store was tried in vain has waited as long as anybody should.
                let late = std::iter::from_fn(|| queue.try_recv().ok()).collect();
                fail(late, &error);
            }
        }
    }

    /// Commits what callers want, however many transactions it takes. An error means that the store can't be used.
    async fn handle(&self, mut waiting: Vec<Command>) -> Result<(), String> {
        let mut to_project = false;
        let mut trouble = Ok(());
        loop {
            waiting.retain(|command| !command.answer.is_closed() && command.deadline > Instant::now());
            if waiting.is_empty() {
                break;
            }
            let patience = Instant::now() + STORE_PATIENCE;
            let usable = |view: &View| view.records_loaded && view.tree_loaded && !view.head_is_broken;
            if self.mirror.wait(patience, usable).await.is_err() {
                let why = "the routes can't be read from the store";
                fail(waiting, why);
                trouble = Err(why.to_owned());
                break;
            }
            let group = self.decide(&waiting);
            let conflict = match &group.txn {
                None => self.head_is_still(group.seen.head).await,
                Some((txn, head)) => {
                    let head_key = self.settings.records.head();
                    commit::commit_records(&self.store, &self.mirror, &head_key, txn.clone(), head).await
                }
            };
            match conflict {
                Ok(Commit::Done(revision)) => {
                    let rest = waiting.split_off(group.taken);
                    for (command, outcome) in std::mem::replace(&mut waiting, rest).into_iter().zip(group.outcomes) {
                        let _ = command.answer.send(outcome);
                    }
                    to_project |= group.txn.is_some() && group.tree != TreePart::All;
                    let tree_too = group.tree != TreePart::None;
                    let heard = |view: &View| {
                        view.records_revision >= revision && (!tree_too || view.tree_revision >= revision)
                    };
                    let _ = self.mirror.wait(Instant::now() + STORE_PATIENCE, heard).await;
                }
                Ok(Commit::Conflict(revision)) => {
                    debug!(revision, "Another replica was faster; looking again");
                    self.hear_of_change(group.seen).await;
                }
                Err(error) => {
                    warn!(%error, "A change can't be committed: {error}");
                    fail(waiting, &error.to_string());
                    if matches!(error, StoreError::Unavailable(_)) {
                        trouble = Err(error.to_string());
                    }
                    break;
                }
            }
        }
        if to_project && trouble.is_ok() {
            self.project().await;
        }
        trouble
    }

    /// Nothing to change is an answer only if what we saw is still so.
    async fn head_is_still(&self, head_revision: Revision) -> Result<Commit, StoreError> {
        let read = self.store.get(&self.settings.records.head()).await?;
        let now = read.entry.map_or(0, |head| head.mod_revision);
        Ok(if now == head_revision { Commit::Done(now) } else { Commit::Conflict(now) })
    }

    /// Waits until the mirror shows what made a comparison fail. It may never do so, if what we compared was stale already.
    async fn hear_of_change(&self, seen: Revisions) {
        let changed = |view: &View| Revisions::of(view) != seen;
        let _ = self.mirror.wait(Instant::now() + Duration::from_millis(100), changed).await;
    }

    /// Decides what each command comes to, one after the other, and what transaction makes it so.
    fn decide(&self, waiting: &[Command]) -> Group {
        let view = self.mirror.read();
        let limits = self.store.limits();
        let head = next_head(view.head.as_ref());
        let mut table = view.table.clone();
        let mut changed: BTreeMap<RouteSpec, usize> = BTreeMap::new();
        let mut outcomes = Vec::new();
        let mut fence = false;
        for command in waiting {
            let bytes: usize = changed.values().sum();
            if changed.len() + HEAD_OPS + MARKER_OPS >= limits.ops_max || bytes > limits.bytes_max / 2 {
                break;
            }
            let ours = (head.epoch.clone(), head.n);
            let outcome = match &command.change {
                Change::Put { spec, target, data } => match table.get(spec).cloned() {
                    Some(old) if old.target == *target && old.data == *data => {
                        Ok(Done { existed: true, covered_by: (head.epoch.clone(), old.n) })
                    }
                    old => self.refusal(&view, &table, spec, old.is_none()).map_or(Ok(()), Err).map(|()| {
                        let created = old.as_ref().map_or_else(|| self.clock.now(), |old| old.created);
                        let route = Route {
                            spec: spec.clone(),
                            target: target.clone(),
                            data: data.clone(),
                            created,
                            n: head.n,
                        };
                        let route = Arc::new(route);
                        changed.insert(spec.clone(), commit::record_bytes(Some(&route)));
                        table.insert(route);
                        Done { existed: old.is_some(), covered_by: ours }
                    }),
                },
                Change::Delete { spec } if table.remove(spec).is_some() => {
                    changed.insert(spec.clone(), commit::record_bytes(None));
                    Ok(Done { existed: true, covered_by: ours })
                }
                // There was none, and the hub takes that as done. So it must be true of every Traefik, and stay true: an add
                // that is still on its way to the store must not come after it. Moving the head sees to both.
                Change::Delete { .. } => {
                    fence = true;
                    Ok(Done { existed: false, covered_by: ours })
                }
            };
            outcomes.push(outcome);
        }
        let (txn, tree) = if fence || !changed.is_empty() {
            let (txn, tree) = self.transaction(&view, &table, &changed, &head);
            (Some((txn, head)), tree)
        } else {
            (None, TreePart::None)
        };
        Group { taken: outcomes.len(), outcomes, txn, tree, seen: Revisions::of(&view) }
    }

    /// Why a route can't be added now.
    fn refusal(&self, view: &View, table: &RouteTable, spec: &RouteSpec, is_new: bool) -> Option<ControlError> {
        if !is_new {
            return None;
        }
        if table.len() >= self.settings.routes_max {
            return Some(ControlError::TooManyRoutes { max: self.settings.routes_max });
        }
        let place = |spec: &RouteSpec| name::route(self.settings.tree.space.place(spec));
        let name = place(spec);
        let taken =
            view.tree.services.contains_key(name.as_str()) && table.iter().any(|other| place(&other.spec) == name);
        taken.then(|| {
            ControlError::Unavailable("two routes share one name in Traefik; rename one of the two servers".to_owned())
        })
    }

    /// Records and keys in one transaction if they fit, else the records alone.
    fn transaction(
        &self,
        view: &View,
        table: &RouteTable,
        changed: &BTreeMap<RouteSpec, usize>,
        head: &Head,
    ) -> (Txn, TreePart) {
        let mut txn = Txn::default();
        let changes = changed.keys().map(|spec| (spec, table.get(spec)));
        commit::add_records(&mut txn, &self.settings, changes, head, view.head_revision);
        let mut tree = TreePart::None;
        if self.may_project(view) {
            let bytes = changed.values().sum();
            let mut steps = self.plan(view, table, (changed.len() + HEAD_OPS, bytes)).into_iter();
            if let Some(first) = steps.next().filter(|first| first.complete) {
                tree = if steps.next().is_none() { TreePart::All } else { TreePart::Enough };
                commit::add_edits(
                    &mut txn,
                    &self.settings,
                    first.edits,
                    &self.marker(&head.epoch, head.n),
                    view.tree.marker_revision,
                );
            }
        }
        (txn, tree)
    }

    /// Begins the history of an empty store. A Traefik that finds nothing at all under its root key asks again at ever longer
    /// intervals, and would be late for the first route.
    async fn begin(&self) {
        let txn = {
            let view = self.mirror.read();
            if !is_empty(&view) {
                return;
            }
            let head = Head { n: 0, ..next_head(None) };
            let mut txn = Txn::default();
            commit::add_records(&mut txn, &self.settings, std::iter::empty(), &head, 0);
            commit::add_edits(&mut txn, &self.settings, Vec::new(), &self.marker(&head.epoch, 0), 0);
            txn
        };
        match self.store.commit(txn).await {
            Ok(Commit::Done(revision) | Commit::Conflict(revision)) => {
                let heard = |view: &View| view.tree_revision >= revision && view.records_revision >= revision;
                let _ = self.mirror.wait(Instant::now() + STORE_PATIENCE, heard).await;
            }
            Err(error) => {
                warn!(%error, "The store can't be written yet: {error}");
                sleep(OTHERS_GRACE * 4).await;
            }
        }
    }

    /// Brings Traefik's tree to the records as they are now, step by step, until nothing is left to do.
    async fn project(&self) {
        for _ in 0..PLANS_MAX {
            let (steps, head, covered, mut head_guard, seen) = {
                let view = self.mirror.read();
                let Some(head) = view.head.clone().filter(|_| self.may_project(&view)) else { return };
                let now = view.tree.marker.as_ref().filter(|marker| marker.epoch == head.epoch);
                if now.is_some_and(|marker| marker.n > head.n) {
                    return; // The tree is ahead of what we have heard of the records.
                }
                let covered = now.map_or(0, |marker| marker.n);
                // A marker of another epoch doesn't tell which of the two is older: only the store's own head does.
                let head_guard = now
                    .is_none()
                    .then(|| Guard { key: self.settings.records.head(), mod_revision: view.head_revision });
                let steps = self.plan(&view, &view.table, (0, 0));
                let is_ours = view.tree.marker.as_ref() == Some(&self.marker(&head.epoch, head.n));
                if is_ours && steps.iter().all(|step| step.edits.is_empty()) {
                    return;
                }
                (steps, head, covered, head_guard, Revisions::of(&view))
            };
            let mut revision = seen.marker;
            for step in steps {
                let marker = self.marker(&head.epoch, if step.complete { head.n } else { covered });
                let mut txn = Txn { guards: head_guard.take().into_iter().collect(), ops: Vec::new() };
                commit::add_edits(&mut txn, &self.settings, step.edits, &marker, revision);
                match self.store.commit(txn).await {
                    Ok(Commit::Done(at)) => revision = at,
                    Ok(Commit::Conflict(_)) => {
                        self.hear_of_change(seen).await;
                        break;
                    }
                    Err(error) => {
                        warn!(%error, "Traefik's keys can't be written: {error}");
                        return;
                    }
                }
            }
            let heard = |view: &View| view.tree_revision >= revision;
            let _ = self.mirror.wait(Instant::now() + STORE_PATIENCE, heard).await;
        }
    }

    /// Returns when the tree has been behind the records for so long that the replica that should have mended it is gone.
    async fn tree_lags(&self) {
        let mut changed = self.mirror.subscribe();
        loop {
            changed.borrow_and_update();
            if is_empty(&self.mirror.read()) {
                return;
            }
            let behind = self.lag();
            if behind.is_some() {
                // Not all replicas at once.
                let jitter = Duration::from_millis(u64::from(rand_byte()));
                sleep(OTHERS_GRACE + jitter).await;
                if self.lag() == behind {
                    return;
                }
            } else if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The revision of the tree's marker, if the marker should say something else and we may change it.
    fn lag(&self) -> Option<Revision> {
        let view = self.mirror.read();
        let (Some(head), true) = (&view.head, view.records_loaded && view.tree_loaded && !view.head_is_broken) else {
            return None;
        };
        let may_project = self.may_project(&view);
        if may_project {
            self.readiness.release("layout");
        } else {
            let theirs = view.tree.marker.as_ref().map(ToString::to_string).unwrap_or_default();
            self.readiness.hold(
                "layout",
                format!(
                    "Traefik's keys were written with other settings (marker {theirs}; ours begins {LAYOUT}.{}): give every replica \
                     the same --entry-point, --host-routing and --pages-url, or start one with --adopt-layout to take them over",
                    self.digest
                ),
            );
        }
        let wanted = self.marker(&head.epoch, head.n);
        let now = view.tree.marker.as_ref();
        let ahead = now.is_some_and(|marker| marker.epoch == head.epoch && marker.n > head.n);
        (may_project && !ahead && now != Some(&wanted)).then_some(view.tree.marker_revision)
    }

    /// Whether the tree is ours to change: written by this layout with these settings, or by an older layout.
    fn may_project(&self, view: &View) -> bool {
        view.tree.marker.as_ref().is_none_or(|marker| {
            marker.layout < LAYOUT
                || (marker.layout == LAYOUT && marker.digest == self.digest)
                || self.settings.adopt_layout
        })
    }

    fn marker(&self, epoch: &str, n: u64) -> Marker {
        Marker { layout: LAYOUT, digest: self.digest.clone(), epoch: epoch.to_owned(), n }
    }

    fn plan(&self, view: &View, table: &RouteTable, reserved: (usize, usize)) -> Vec<Step> {
        let limits = self.store.limits();
        let limits = Limits {
            edits_max: limits.ops_max - MARKER_OPS,
            bytes_max: limits.bytes_max,
            reserved_edits: reserved.0,
            reserved_bytes: reserved.1,
        };
        let frozen = self.mirror.frozen(view);
        let steps = plan::plan(table, &view.tree, &self.settings.tree, self.settings.sizes, limits, &frozen);
        if steps.len() > 1 {
            info!(steps = steps.len(), "Traefik's keys need {} transactions", steps.len());
        }
        steps
    }
}

/// Whether the store has been read, and nobody has ever written to it.
fn is_empty(view: &View) -> bool {
    let nothing = view.head_revision == 0 && view.tree.marker_revision == 0;
    view.records_loaded && view.tree_loaded && nothing
}

fn fail(waiting: Vec<Command>, reason: &str) {
    for command in waiting {
        let _ = command.answer.send(Err(ControlError::Unavailable(reason.to_owned())));
    }
}

fn rand_byte() -> u8 {
    let mut byte = [0];
    aws_lc_rs::rand::fill(&mut byte).expect("the operating system gives random bytes");
    byte[0]
}
