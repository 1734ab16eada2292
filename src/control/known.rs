//! What is known of the routes without asking the store: from the mirror, or else from the snapshot that was found at the
//! start.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::mirror::Mirror;
use crate::clock::{Moment, SharedClock};
use crate::route::RouteTable;
use crate::route::record::Head;
use crate::snapshot::Snapshot;
use crate::store::Revision;

/// The routes as they were when they were last known.
#[derive(Debug, Clone)]
pub struct LastKnown {
    /// The routes.
    pub table: Arc<RouteTable>,
    /// For how long nobody has confirmed them.
    pub age: Duration,
}

/// How far the store's history had come when the snapshot was taken that was found at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The last record change.
    pub head: Head,
    /// The highest revision of the store that was ever seen.
    pub revision: Revision,
}

/// Knows the routes as long as there is anything to know.
pub(super) struct Known {
    mirror: Arc<Mirror>,
    found: Option<Arc<Snapshot>>,
    clock: SharedClock,
}

/// The last record change that is known, and whether it comes from a store that is followed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) head: Head,
    pub(super) followed: bool,
}

impl Known {
    pub(super) fn new(mirror: Arc<Mirror>, found: Option<Snapshot>, clock: SharedClock) -> Self {
        Self { mirror, found: found.map(Arc::new), clock }
    }

    /// What the snapshot knew that was found at the start.
    pub(super) fn history(&self) -> Option<History> {
        let found = self.found.as_ref()?;
        Some(History { head: found.head.clone(), revision: found.highest_revision.max(found.revision) })
    }

    /// Whether the store's records are followed now.
    pub(super) fn followed(&self) -> bool {
        self.mirror.read().followed()
    }

    /// The last record change that is known.
    pub(super) fn newest(&self) -> Option<Newest> {
        let view = self.mirror.read();
        if view.records_loaded {
            return view.head.clone().map(|head| Newest { head, followed: view.followed() });
        }
        self.found.as_ref().map(|found| Newest { head: found.head.clone(), followed: false })
    }

    /// The routes with the last change of them; `None` if nothing is known, or there is no history yet.
    pub(super) fn table(&self) -> Option<(Head, Arc<RouteTable>)> {
        let view = self.mirror.read();
        if view.records_loaded {
            return view.head.clone().map(|head| (head, view.table.clone()));
        }
        self.found.as_ref().map(|found| (found.head.clone(), found.table.clone()))
    }

    /// The routes, and for how long nobody has confirmed them.
    pub(super) fn last(&self) -> Option<LastKnown> {
        let view = self.mirror.read();
        if view.records_loaded {
            let age = view.heard.map_or(Duration::ZERO, Moment::elapsed);
            return Some(LastKnown { table: view.table.clone(), age });
        }
        let found = self.found.as_ref()?;
        Some(LastKnown { table: found.table.clone(), age: since(found.taken, self.clock.now()) })
    }
}

/// The time between two moments by the clock, which may have been set back in between.
pub(super) fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}
