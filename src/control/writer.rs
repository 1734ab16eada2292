//! The writer: commits callers' changes in groups, and brings Traefik's tree up to date.
//!
//! One task a replica. While Traefik digests one change of its tree, callers gather; then all of them go in one transaction,
//! records and keys together, if they fit. If they don't, the records go first and the tree follows in steps. A replica that
//! dies in between is no harm: every other one sees the marker behind the head and takes the next step.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::commit::{self, Changes, HEAD_OPS, MARKER_OPS, Seen};
use super::mirror::{Mirror, View};
use super::projection::Projection;
use super::{ControlError, DOUBTED, STORE_PATIENCE, Settings, next_head};
use crate::clock::SharedClock;
use crate::lifecycle::{Readiness, compute};
use crate::route::record::{self, Head};
use crate::route::{Route, RouteData, RouteSpec, RouteTable, Target};
use crate::store::{Commit, SharedStore, StoreError, Txn};
use crate::traefik::fleet::Fleet;
use crate::traefik::name;

/// How long a change of the tree may be digested before the next one is made all the same.
const DIGESTION_MAX: Duration = Duration::from_secs(2);

/// How long the rest of a round of callers is waited for: in all, and since the last one came.
const ROUND_WAIT_MAX: Duration = Duration::from_millis(25);
const ROUND_SILENCE_MAX: Duration = Duration::from_millis(6);

/// Commands in one group.
const GROUP_MAX: usize = 2048;

/// What a caller wants.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// This route; or, unless it may `replace`, whichever is there already. Its caller may only change routes `below` some
    /// prefixes, if there are any.
    Put { spec: RouteSpec, target: Target, data: RouteData, replace: bool, below: Option<Vec<RouteSpec>> },
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
    projection: Arc<Projection>,
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
    seen: Seen,
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

impl Writer {
    pub(super) fn new(
        store: SharedStore,
        clock: SharedClock,
        mirror: Arc<Mirror>,
        fleet: Arc<Fleet>,
        settings: Arc<Settings>,
        readiness: Readiness,
    ) -> Self {
        let projection = Arc::new(Projection::new(store.clone(), mirror.clone(), settings.clone(), readiness));
        Self { store, clock, mirror, fleet, settings, projection }
    }

    pub(super) async fn run(self: Arc<Self>, mut queue: mpsc::Receiver<Command>, stopping: CancellationToken) {
        let (mut digested, mut digest_until) = (None, Instant::now());
        let mut last_round = (0, Instant::now());
        loop {
            let first = tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                Some(command) = queue.recv() => command,
                () = self.projection.tree_lags() => {
                    self.projection.begin().await;
                    if let Err(why) = self.projection.claim(Instant::now() + STORE_PATIENCE).await {
                        debug!("Traefik's tree is left alone: {why}");
                    }
                    self.count_in().await;
                    self.projection.project().await;
                    continue;
                }
            };
            // Traefik reads its whole tree at every change and never merges changes: let it finish the last one first.
            // A tree that was written with other settings, as before a restart, may never reach it.
            let marker = self.mirror.read().tree.marker.clone().filter(|marker| self.projection.wrote(marker));
            if marker != digested {
                (digested, digest_until) = (marker, Instant::now() + DIGESTION_MAX);
            }
            if let Some(marker) = &digested {
                let _ = self.fleet.digested(&marker.epoch, marker.n, digest_until).await;
            }
            let group = gather(first, &mut queue, last_round).await;
            let size = group.len();
            let handled = self.handle(group).await;
            last_round = (size, Instant::now());
            if let Err(error) = handled {
                // Who came while the store was tried in vain has waited as long as anybody should.
                let late = std::iter::from_fn(|| queue.try_recv().ok()).collect();
                fail(late, &error);
            }
        }
    }

    /// Commits what callers want, however many transactions it takes. An error means that the store can't be used.
    async fn handle(self: &Arc<Self>, mut waiting: Vec<Command>) -> Result<(), String> {
        let mut to_project = false;
        let mut trouble = Ok(());
        loop {
            waiting.retain(|command| !command.answer.is_closed() && command.deadline > Instant::now());
            if waiting.is_empty() {
                break;
            }
            let patience = Instant::now() + STORE_PATIENCE;
            if let Err(why) = self.may_write(patience).await {
                fail(waiting, &why);
                trouble = Err(why);
                break;
            }
            let (writer, view) = (self.clone(), self.mirror.read());
            let group;
            (group, waiting) = compute(view.is_large(), move || (writer.decide(&view, &waiting), waiting)).await;
            let conflict = match &group.txn {
                None => self.head_is_still(&group.seen).await,
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
                    self.projection.hear_of_change(group.seen).await;
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
            self.projection.project().await;
        }
        trouble
    }

    /// A record that somebody else has changed becomes a change like any other: the head moves, and the tree follows it.
    async fn count_in(&self) {
        let (txn, head, seen) = {
            let view = self.mirror.read();
            if view.record_touched.is_none() || !view.is_usable() {
                return;
            }
            let head = next_head(view.head.as_ref());
            let mut txn = Txn::default();
            let seen = Seen::of(&view, &self.settings);
            commit::add_records(&mut txn, &self.settings.records, Changes::default(), &head, seen.head.clone());
            (txn, head, seen)
        };
        let head_key = self.settings.records.head();
        match commit::commit_records(&self.store, &self.mirror, &head_key, txn, &head).await {
            Ok(Commit::Done(revision)) => {
                let heard = |view: &View| view.records_revision >= revision;
                let _ = self.mirror.wait(Instant::now() + STORE_PATIENCE, heard).await;
            }
            Ok(Commit::Conflict(_)) => self.projection.hear_of_change(seen).await,
            Err(error) => warn!(%error, "What somebody else has changed can't be counted in: {error}"),
        }
    }

    /// Nothing to change is an answer only if what we saw is still so.
    async fn head_is_still(&self, seen: &Seen) -> Result<Commit, StoreError> {
        let known = self.mirror.read().past.revision();
        let read = self.store.get(&seen.head.key).await?;
        if read.revision < known {
            self.mirror.doubt();
            return Err(StoreError::Unavailable("the store went back in time; its routes are read anew".to_owned()));
        }
        let is_still = commit::holds(&seen.head, read.entry.as_ref());
        // Of the store's own revision, which other keys move as well, the mirror may never hear.
        Ok(if is_still { Commit::Done(seen.head.mod_revision) } else { Commit::Conflict(read.revision) })
    }

    /// Waits until the store is known as it is now, and makes sure that the records are ours.
    async fn may_write(&self, deadline: Instant) -> Result<(), String> {
        if self.mirror.wait(deadline, View::is_usable).await.is_err() {
            let why = if self.mirror.read().doubted { DOUBTED } else { "the routes can't be read from the store" };
            return Err(why.to_owned());
        }
        self.projection.claim(deadline).await
    }

    /// Decides what each command comes to, one after the other, and what transaction makes it so.
    fn decide(&self, view: &View, waiting: &[Command]) -> Group {
        let limits = self.store.limits();
        let head = next_head(view.head.as_ref());
        let mut table = RouteTable::clone(&view.table);
        let keys = &self.settings.records;
        let mut changes = Changes::default();
        let mut outcomes = Vec::new();
        let mut fence = false;
        for command in waiting {
            if changes.len() + HEAD_OPS + MARKER_OPS >= limits.ops_max || changes.bytes() > limits.bytes_max / 2 {
                break;
            }
            let ours = (head.epoch.clone(), head.n);
            let (Change::Put { spec, .. } | Change::Delete { spec }) = &command.change;
            let is_unreadable = view.cannot_read(&keys.route(spec), &changes);
            let outcome = match &command.change {
                Change::Put { spec, target, data, replace, below } => match table.get(spec).cloned() {
                    Some(old) if !replace || (old.target == *target && old.data == *data && !is_unreadable) => {
                        Ok(Done { existed: true, covered_by: (head.epoch.clone(), old.n) })
                    }
                    old => {
                        let created = old.as_ref().map_or_else(|| self.clock.now(), |old| old.created);
                        let (spec, target, data) = (spec.clone(), target.clone(), data.clone());
                        let route = Route { spec, target, data, created, n: head.n };
                        let admitted = self.admit(view, &table, &route, below.as_deref());
                        let admitted = admitted.and_then(|()| {
                            let put = changes.put(keys, &route);
                            put.map_err(|error| ControlError::Unwritable(error.to_string()))
                        });
                        admitted.map(|()| {
                            table.insert(Arc::new(route));
                            Done { existed: old.is_some(), covered_by: ours }
                        })
                    }
                },
                Change::Delete { spec } if table.remove(spec).is_some() || is_unreadable => {
                    changes.delete(keys, spec);
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
        let (txn, tree) = if fence || !changes.is_empty() {
            let (txn, tree) = self.transaction(view, &table, changes, &head);
            (Some((txn, head)), tree)
        } else {
            (None, TreePart::None)
        };
        let seen = Seen::of(view, &self.settings);
        Group { taken: outcomes.len(), outcomes, txn, tree, seen }
    }

    /// Why a route can't be added now, in the place of the one of its prefix if there is one.
    fn admit(
        &self,
        view: &View,
        table: &RouteTable,
        route: &Route,
        below: Option<&[RouteSpec]>,
    ) -> Result<(), ControlError> {
        let is_new = table.get(&route.spec).is_none();
        let room = &self.settings.room;
        if is_new && table.len() >= room.max.routes {
            return Err(ControlError::TooManyRoutes { max: room.max.routes });
        }
        // What makes a full table smaller is no harm.
        let (old, new) = (table.record_bytes(&route.spec), record::size(route));
        if new > old && table.weight().bytes - old + new > room.max.bytes {
            return Err(ControlError::TooManyBytes { max: room.max.bytes });
        }
        if let Some((below, max)) = below.and_then(|below| Some((below, room.share(below)?))) {
            let now = table.weight_below(below);
            if (is_new && now.routes >= max.routes) || (new > old && now.bytes - old + new > max.bytes) {
                return Err(ControlError::ShareIsFull { max });
            }
        }
        let place = |spec: &RouteSpec| name::route(self.settings.tree.space.place(spec));
        let name = place(&route.spec);
        let clashes = |other: &Arc<Route>| place(&other.spec) == name;
        if is_new && view.tree.services.contains_key(name.as_str()) && table.iter().any(clashes) {
            let why = "two routes share one name in Traefik; rename one of the two servers";
            return Err(ControlError::Unavailable(why.to_owned()));
        }
        Ok(())
    }

    /// Records and keys in one transaction if they fit, else the records alone.
    fn transaction(&self, view: &View, table: &RouteTable, changes: Changes, head: &Head) -> (Txn, TreePart) {
        let mut txn = Txn::default();
        let seen = Seen::of(view, &self.settings);
        let may_project = self.projection.may_project(view);
        let steps = if may_project { self.projection.plan(view, table, Some(&changes)) } else { Vec::new() };
        commit::add_records(&mut txn, &self.settings.records, changes, head, seen.head);
        let mut tree = TreePart::None;
        if may_project {
            let mut steps = steps.into_iter();
            if let Some(first) = steps.next().filter(|first| first.complete) {
                tree = if steps.next().is_none() { TreePart::All } else { TreePart::Enough };
                let tag = view.tree.marker.as_ref().map_or("", |marker| &marker.tag);
                let marker = self.projection.marker(&head.epoch, head.n, tag);
                commit::add_edits(&mut txn, &self.settings, first.edits, &marker, seen.marker);
            }
        }
        (txn, tree)
    }
}

/// Takes what waits. A hub sends ten calls at a time, and when a group of them is answered the next ones come one after the
/// other: without a short wait for as many as last time, each round would cost Traefik two changes instead of one.
async fn gather(
    first: Command,
    queue: &mut mpsc::Receiver<Command>,
    (last_size, last_end): (usize, Instant),
) -> Vec<Command> {
    let mut group = vec![first];
    let give_up = Instant::now() + ROUND_WAIT_MAX;
    let is_round = last_end.elapsed() < DIGESTION_MAX;
    while group.len() < GROUP_MAX {
        let command = match queue.try_recv() {
            Ok(command) => Some(command),
            Err(_) if is_round && group.len() < last_size => {
                timeout_at(give_up.min(Instant::now() + ROUND_SILENCE_MAX), queue.recv()).await.ok().flatten()
            }
            Err(_) => None,
        };
        let Some(command) = command else { break };
        group.push(command);
    }
    group
}

fn fail(waiting: Vec<Command>, reason: &str) {
    for command in waiting {
        let _ = command.answer.send(Err(ControlError::Unavailable(reason.to_owned())));
    }
}
