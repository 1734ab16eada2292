//! The projection: brings Traefik's tree up to date with the records, step by step, whoever changed them.
//!
//! Any replica may take the next step: each one compares the marker, so there is no leader, and what a dead one left over
//! another one finishes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::commit::{self, Changes, HEAD_OPS, MARKER_OPS, Seen};
use super::mirror::{Mirror, View};
use super::{STORE_PATIENCE, Settings, hands, next_head, random_id};
use crate::lifecycle::{Readiness, compute};
use crate::random;
use crate::route::record::Head;
use crate::route::{RouteTable, chain};
use crate::store::{Commit, Guard, Op, Revision, SharedStore, Txn};
use crate::traefik::marker::Marker;
use crate::traefik::plan::{self, Edit, Limits, Step};

/// How long another replica is given to bring the tree up to date after its own commit.
const OTHERS_GRACE: Duration = Duration::from_millis(250);

/// How long a tree of others is behind before it is taken over once more: longer than its own replicas take to bring it up.
const ADOPTION_GRACE: Duration = Duration::from_secs(3);

/// How much of a random text makes a tag.
const TAG_DIGITS: usize = 8;

/// Plans in a row before the tree is looked at afresh.
const PLANS_MAX: usize = 64;

/// Follows the records with Traefik's tree.
pub(super) struct Projection {
    store: SharedStore,
    mirror: Arc<Mirror>,
    settings: Arc<Settings>,
    readiness: Readiness,
    digest: String,
    adoption: Mutex<Adoption>,
}

/// What `--adopt-layout` has done, and may do again.
///
/// A tree of others is taken over once, at first sight, and after that only when it has been behind the records for a while,
/// for nobody of its own writes it any more. Two replicas would take it from each other for ever otherwise.
#[derive(Debug, Default)]
struct Adoption {
    /// The tree was ours once.
    is_done: bool,
    /// Somebody else's tree has been behind the records since then.
    behind_since: Option<Instant>,
}

impl Adoption {
    fn look(&mut self, is_ours: bool, is_behind: bool, now: Instant) {
        self.is_done |= is_ours;
        self.behind_since = if is_behind && !is_ours { self.behind_since.or(Some(now)) } else { None };
    }

    /// From when on it is allowed; `None` if it isn't.
    fn from(&self, now: Instant) -> Option<Instant> {
        if self.is_done { self.behind_since.map(|since| since + ADOPTION_GRACE) } else { Some(now) }
    }
}

impl Projection {
    pub(super) fn new(store: SharedStore, mirror: Arc<Mirror>, settings: Arc<Settings>, readiness: Readiness) -> Self {
        let digest = settings.digest();
        readiness.expect("layout", "who wrote Traefik's keys, with which settings, has not been seen yet");
        Self { store, mirror, settings, readiness, digest, adoption: Mutex::default() }
    }

    /// Begins the history of an empty store. A Traefik that finds nothing at all under its root key asks again at ever longer
    /// intervals, and would be late for the first route.
    pub(super) async fn begin(&self) {
        let txn = {
            let view = self.mirror.read();
            if !is_empty(&view) {
                return;
            }
            let head = Head { n: 0, ..next_head(None) };
            let mut txn = Txn::default();
            let Seen { head: head_guard, marker } = Seen::of(&view, &self.settings);
            commit::add_records(&mut txn, &self.settings.records, Changes::default(), &head, head_guard);
            commit::add_edits(&mut txn, &self.settings, Vec::new(), &self.marker(&head.epoch, 0, ""), marker);
            if let Some(owner) = self.settings.owner().filter(|_| view.installation.is_none()) {
                let key = self.settings.records.installation();
                txn.guards.push(Guard::at(&key, 0));
                txn.ops.push(Op::Put { key, value: owner.encode() });
            }
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

    /// Makes sure that the records are ours before anything is made of them.
    pub(super) async fn claim(&self, deadline: Instant) -> Result<(), String> {
        commit::claim(&self.store, &self.mirror, &self.settings, deadline).await
    }

    /// Brings Traefik's tree to the records as they are now, step by step, until nothing is left to do.
    pub(super) async fn project(self: &Arc<Self>) {
        for _ in 0..PLANS_MAX {
            let (steps, head, covered, tag, seen) = {
                let view = self.mirror.read();
                let is_claimed = self.settings.owner().is_none() || view.installation.is_some();
                let may_project = self.may_project(&view) && is_claimed && !view.doubted;
                let Some(head) = view.head.clone().filter(|_| may_project) else { return };
                let now = view.tree.marker.as_ref().filter(|marker| marker.epoch == head.epoch);
                if now.is_some_and(|marker| marker.n > head.n) {
                    return; // The tree is ahead of what we have heard of the records.
                }
                let covered = now.map_or(0, |marker| marker.n);
                let (planner, of) = (self.clone(), view.clone());
                let steps = compute(view.is_large(), move || planner.plan(&of, &of.table, None)).await;
                let wanted = self.marker(&head.epoch, head.n, "");
                let is_ours = view.tree.marker.as_ref().is_some_and(|marker| marker.says_the_same(&wanted));
                if is_ours && view.tree.is_marker_whole() && steps.iter().all(|step| step.edits.is_empty()) {
                    self.mirror.trust_tree(view.tree_revision);
                    return;
                }
                let tag = view.tree.marker.as_ref().map(|marker| marker.tag.clone()).unwrap_or_default();
                (steps, head, covered, tag, Seen::of(&view, &self.settings))
            };
            // What is laid over the tree must be the present, and not a table from before a restore or a wipe; only the
            // store's own head says so.
            let mut head_guard = Some(seen.head.clone());
            let (mut revision, mut marker_guard, mut tag) = (seen.marker.mod_revision, seen.marker.clone(), tag);
            for step in steps {
                let marker = self.marker(&head.epoch, if step.complete { head.n } else { covered }, &tag);
                let mut txn = Txn { guards: head_guard.take().into_iter().collect(), ops: Vec::new() };
                commit::add_edits(&mut txn, &self.settings, step.edits, &marker, marker_guard);
                match self.store.commit(txn).await {
                    Ok(Commit::Done(at)) => {
                        revision = at;
                        marker_guard = commit::marker_guard(&self.settings, at, &marker.to_string());
                        tag = marker.tag;
                    }
                    Ok(Commit::Conflict(_)) => {
                        self.hear_of_change(seen).await;
                        break;
                    }
                    Err(error) => {
                        warn!(%error, "Traefik's keys can't be written: {error}");
                        sleep(OTHERS_GRACE).await;
                        return;
                    }
                }
            }
            let heard = |view: &View| view.tree_revision >= revision;
            let _ = self.mirror.wait(Instant::now() + STORE_PATIENCE, heard).await;
        }
    }

    /// Returns when the tree has been behind the records for so long that the replica that should have mended it is gone.
    pub(super) async fn tree_lags(&self) {
        let mut changed = self.mirror.subscribe();
        loop {
            changed.borrow_and_update();
            if is_empty(&self.mirror.read()) {
                return;
            }
            let behind = self.lag();
            if behind.is_some() {
                // On one machine there is no other replica, and Traefik waits for the tree.
                if self.settings.deliver {
                    return;
                }
                // Not all replicas at once.
                let jitter = Duration::from_millis(u64::from(random::bytes::<1>()[0]));
                sleep(OTHERS_GRACE + jitter).await;
                if self.lag() == behind {
                    return;
                }
            } else {
                // A tree of others may become ours to change by the mere passing of time.
                let wait = self.adoption_in().filter(|wait| !wait.is_zero()).unwrap_or(Duration::MAX);
                if let Ok(Err(_)) = timeout(wait, changed.changed()).await {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// The revision of the tree, if it should be another one and we may change it.
    fn lag(&self) -> Option<Revision> {
        let view = self.mirror.read();
        let (Some(head), true) = (&view.head, view.records_loaded && view.tree_loaded && !view.head_is_broken) else {
            return None;
        };
        let covers = |marker: &Marker| marker.covers(&head.epoch, head.n);
        let is_behind = !view.tree.marker.as_ref().is_some_and(covers);
        let is_ours = view.tree.marker.as_ref().is_some_and(|marker| self.wrote(marker));
        self.adoption().look(is_ours, is_behind, Instant::now());
        let may_project = self.may_project(&view);
        if self.settings.adopt_layout || self.may_adopt(&view) {
            self.readiness.release("layout");
        } else {
            let theirs = view.tree.marker.as_ref().map(ToString::to_string).unwrap_or_default();
            self.readiness.hold(
                "layout",
                format!(
                    "Traefik's keys were written with other settings (marker {theirs}; ours begins {}.{}): give every replica \
                     the same --entry-point, --host-routing and --pages-url, or start one with --adopt-layout to take them over",
                    self.settings.layout, self.digest
                ),
            );
        }
        let wanted = self.marker(&head.epoch, head.n, "");
        let now = view.tree.marker.as_ref();
        let ahead = now.is_some_and(|marker| marker.epoch == head.epoch && marker.n > head.n);
        let is_said = now.is_some_and(|marker| marker.says_the_same(&wanted));
        let differs = view.tree_doubtful || view.record_touched.is_some() || self.must_clear(&view);
        (may_project && !ahead && (!is_said || differs) && !view.doubted).then_some(view.tree_revision)
    }

    /// Whether there are keys of others, and they are ours to remove.
    fn must_clear(&self, view: &View) -> bool {
        self.settings.own_root_key && view.tree.foreign.keys().any(|key| hands::can_be_removed(key))
    }

    /// Whether the tree is ours to change: written by this layout with these settings, or by an older layout.
    pub(super) fn may_project(&self, view: &View) -> bool {
        view.quarrel.is_none() && self.may_adopt(view)
    }

    fn may_adopt(&self, view: &View) -> bool {
        view.tree.marker.as_ref().is_none_or(|marker| {
            marker.layout < self.settings.layout || self.wrote(marker) || self.adoption_in() == Some(Duration::ZERO)
        })
    }

    /// In what time a tree of others may be taken over, if it stays as it is.
    fn adoption_in(&self) -> Option<Duration> {
        let now = Instant::now();
        let from = self.adoption().from(now).filter(|_| self.settings.adopt_layout);
        from.map(|from| from.saturating_duration_since(now))
    }

    fn adoption(&self) -> std::sync::MutexGuard<'_, Adoption> {
        self.adoption.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a tree with this marker was written with our settings.
    pub(super) fn wrote(&self, marker: &Marker) -> bool {
        marker.layout == self.settings.layout && marker.digest == self.digest
    }

    /// A marker of ours for a change of the tree, after one with the tag `before`.
    pub(super) fn marker(&self, epoch: &str, n: u64, before: &str) -> Marker {
        self.settings.marker(epoch, n, chain::link(&random_id()[..TAG_DIGITS], before))
    }

    /// The steps to `table`. The first one leaves room for the changes of records that go along with it, if any do.
    pub(super) fn plan(&self, view: &View, table: &RouteTable, changes: Option<&Changes>) -> Vec<Step> {
        let limits = self.store.limits();
        let limits = Limits {
            edits_max: limits.ops_max - MARKER_OPS,
            bytes_max: limits.bytes_max,
            reserved_edits: changes.map_or(0, |changes| changes.len() + HEAD_OPS),
            reserved_bytes: changes.map_or(0, Changes::bytes),
        };
        let frozen = self.mirror.frozen(view, changes);
        let mut steps = plan::plan(table, &view.tree, &self.settings.tree, self.settings.sizes, limits, &frozen);
        // With records in the same transaction there may be no room; it is done right after.
        if changes.is_none() && self.must_clear(view) {
            let strangers: Vec<&String> = view.tree.foreign.keys().filter(|key| hands::can_be_removed(key)).collect();
            let named = hands::named(strangers.iter().map(|key| key.as_str()));
            warn!("Removing keys under --traefik-root-key that are none of ours: {named}");
            steps.extend(strangers.chunks(limits.edits_max.max(1)).map(|keys| Step {
                edits: keys.iter().map(|key| Edit::Delete { key: (*key).clone() }).collect(),
                complete: true,
            }));
        }
        if steps.len() > 1 {
            info!(steps = steps.len(), "Traefik's keys need {} transactions", steps.len());
        }
        steps
    }

    /// Waits until the mirror shows what made a comparison fail. It may never do so, if what we compared was stale already.
    pub(super) async fn hear_of_change(&self, seen: Seen) {
        let changed = |view: &View| Seen::of(view, &self.settings) != seen;
        let _ = self.mirror.wait(Instant::now() + Duration::from_millis(100), changed).await;
    }
}

/// Whether the store has been read, and nobody has ever written to it.
fn is_empty(view: &View) -> bool {
    let nothing = view.head_revision == 0 && view.tree.marker_revision == 0;
    view.records_loaded && view.tree_loaded && nothing && !view.doubted && view.quarrel.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_adopted_once_and_then_only_when_it_is_left_behind() {
        let (mut adoption, t) = (Adoption::default(), Instant::now());
        let at = |seconds| t + Duration::from_secs(seconds);
        adoption.look(false, false, t);
        assert_eq!(adoption.from(t), Some(t), "at first sight");
        adoption.look(true, false, at(1));
        adoption.look(false, false, at(2));
        assert_eq!(adoption.from(at(2)), None, "somebody else has it, and keeps it up");
        adoption.look(false, true, at(3));
        adoption.look(false, true, at(4));
        assert_eq!(adoption.from(at(4)), Some(at(3) + ADOPTION_GRACE));
        adoption.look(false, false, at(5));
        assert_eq!(adoption.from(at(5)), None, "it was brought up");
    }
}
