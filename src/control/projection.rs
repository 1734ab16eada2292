//! The projection: brings Traefik's tree up to date with the records, step by step, whoever changed them.
//!
//! Any replica may take the next step: each one compares the marker, so there is no leader, and what a dead one left over
//! another one finishes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::commit::{self, MARKER_OPS};
use super::mirror::{Mirror, View};
use super::{STORE_PATIENCE, Settings, next_head, random};
use crate::lifecycle::Readiness;
use crate::route::RouteTable;
use crate::route::record::Head;
use crate::store::{Commit, Guard, Revision, SharedStore, Txn};
use crate::traefik::marker::{LAYOUT, Marker};
use crate::traefik::plan::{self, Edit, Limits, Step};

/// How long another replica is given to bring the tree up to date after its own commit.
const OTHERS_GRACE: Duration = Duration::from_millis(250);

/// Plans in a row before the tree is looked at afresh.
const PLANS_MAX: usize = 64;

/// The revisions of the two keys that every transaction compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Revisions {
    pub(super) head: Revision,
    pub(super) marker: Revision,
}

impl Revisions {
    pub(super) fn of(view: &View) -> Self {
        Self { head: view.head_revision, marker: view.tree.marker_revision }
    }
}

/// Follows the records with Traefik's tree.
pub(super) struct Projection {
    store: SharedStore,
    mirror: Arc<Mirror>,
    settings: Arc<Settings>,
    readiness: Readiness,
    digest: String,
}

impl Projection {
    pub(super) fn new(store: SharedStore, mirror: Arc<Mirror>, settings: Arc<Settings>, readiness: Readiness) -> Self {
        let digest = settings.tree.digest();
        readiness.expect("layout", "who wrote Traefik's keys, with which settings, has not been seen yet");
        Self { store, mirror, settings, readiness, digest }
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
            commit::add_records(&mut txn, &self.settings.records, std::iter::empty(), &head, 0);
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
    pub(super) async fn project(&self) {
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
                    let revision = view.tree_revision;
                    drop(view);
                    self.mirror.trust_tree(revision);
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
                let jitter = Duration::from_millis(u64::from(random::<1>()[0]));
                sleep(OTHERS_GRACE + jitter).await;
                if self.lag() == behind {
                    return;
                }
            } else if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The revision of the tree, if it should be another one and we may change it.
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
        let differs = view.tree_doubtful || view.record_touched.is_some() || self.must_clear(&view);
        (may_project && !ahead && (now != Some(&wanted) || differs)).then_some(view.tree_revision)
    }

    /// Whether there are keys of others, and they are ours to remove.
    fn must_clear(&self, view: &View) -> bool {
        self.settings.own_root_key && !view.tree.foreign.is_empty()
    }

    /// Whether the tree is ours to change: written by this layout with these settings, or by an older layout.
    pub(super) fn may_project(&self, view: &View) -> bool {
        view.tree
            .marker
            .as_ref()
            .is_none_or(|marker| marker.layout < LAYOUT || self.wrote(marker) || self.settings.adopt_layout)
    }

    /// Whether a tree with this marker was written with our settings.
    pub(super) fn wrote(&self, marker: &Marker) -> bool {
        marker.layout == LAYOUT && marker.digest == self.digest
    }

    pub(super) fn marker(&self, epoch: &str, n: u64) -> Marker {
        Marker { layout: LAYOUT, digest: self.digest.clone(), epoch: epoch.to_owned(), n }
    }

    pub(super) fn plan(&self, view: &View, table: &RouteTable, reserved: (usize, usize)) -> Vec<Step> {
        let limits = self.store.limits();
        let limits = Limits {
            edits_max: limits.ops_max - MARKER_OPS,
            bytes_max: limits.bytes_max,
            reserved_edits: reserved.0,
            reserved_bytes: reserved.1,
        };
        let frozen = self.mirror.frozen(view);
        let mut steps = plan::plan(table, &view.tree, &self.settings.tree, self.settings.sizes, limits, &frozen);
        // With records in the same transaction there may be no room; it is done right after.
        if reserved == (0, 0) && self.must_clear(view) {
            warn!(keys = view.tree.foreign.len(), "Removing keys under --traefik-root-key that are none of ours");
            let strangers: Vec<&String> = view.tree.foreign.keys().collect();
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
    pub(super) async fn hear_of_change(&self, seen: Revisions) {
        let changed = |view: &View| Revisions::of(view) != seen;
        let _ = self.mirror.wait(Instant::now() + Duration::from_millis(100), changed).await;
    }
}

/// Whether the store has been read, and nobody has ever written to it.
fn is_empty(view: &View) -> bool {
    let nothing = view.head_revision == 0 && view.tree.marker_revision == 0;
    view.records_loaded && view.tree_loaded && nothing
}
