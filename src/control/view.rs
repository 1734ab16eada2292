//! The view: what the store holds, as far as this replica has heard, and how far it had come before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::commit::Changes;
use super::past::Past;
use crate::clock::Moment;
use crate::route::RouteTable;
use crate::route::record::Head;
use crate::store::Revision;
use crate::traefik::fleet::Status;
use crate::traefik::marker::Marker;
use crate::traefik::tree::Tree;

/// What the store holds, as far as this replica has heard. Whatever is large is shared: a copy costs little.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub(super) struct View {
    /// Whether the records have been read.
    pub(super) records_loaded: bool,
    /// All routes.
    pub(super) table: Arc<RouteTable>,
    /// The last record change.
    pub(super) head: Option<Head>,
    /// Whether there is a head that can't be read: then nothing may be written.
    pub(super) head_is_broken: bool,
    /// The revision of the head's last change; 0 without a head.
    pub(super) head_revision: Revision,
    /// The head as it is written.
    pub(super) head_value: Vec<u8>,
    /// Whose records these are, as it is written.
    pub(super) installation: Option<Vec<u8>>,
    /// Why they aren't ours, if they aren't.
    pub(super) quarrel: Option<String>,
    /// The records are those of this revision.
    pub(super) records_revision: Revision,
    /// The last heads, oldest first; never one that the store does not have in its past now.
    pub(super) heads: VecDeque<Arc<Head>>,
    /// Records that can't be read, by key.
    pub(super) unreadable: BTreeMap<String, String>,
    /// Whether Traefik's tree has been read.
    pub(super) tree_loaded: bool,
    /// Traefik's tree.
    pub(super) tree: Arc<Tree>,
    /// The tree is that of this revision.
    pub(super) tree_revision: Revision,
    /// The tree may differ from what its marker says, for somebody else has changed it, or it was read anew.
    pub(super) tree_doubtful: bool,
    /// Somebody else has changed a record, at this revision, and the head has not moved since.
    pub(super) record_touched: Option<Revision>,
    /// Keys among our records that are none of ours.
    pub(super) foreign_records: BTreeSet<String>,
    /// The last markers, oldest first; never one that the store does not have in its past now.
    pub(super) markers: VecDeque<Arc<Marker>>,
    /// How far the store had come.
    pub(super) past: Past,
    /// The routes as they were before the store was found to have another past.
    pub(super) before: Option<Arc<RouteTable>>,
    /// How often there was a doubt whether this is the present, and whether there is one now. Nothing is answered then.
    pub(super) doubts: u64,
    pub(super) doubted: bool,
    /// How often records and tree were listed.
    pub(super) listings: (u64, u64),
    /// When the store last told of the records, be it that nothing had changed.
    pub(super) heard: Option<Moment>,
    /// Since when the records can't be followed, if they can't.
    pub(super) lost: Option<Instant>,
}

impl View {
    /// Whether the records have been read, and are followed.
    pub(super) fn followed(&self) -> bool {
        self.records_loaded && self.lost.is_none()
    }

    /// Whether both trees have been read, and are believed.
    pub(super) fn is_usable(&self) -> bool {
        self.records_loaded && self.tree_loaded && !self.head_is_broken && !self.doubted
    }

    /// Whether a Traefik that shows this has it from the store as it is now, and not from one before a restore: the numbers
    /// may be the same.
    pub(super) fn has_told(&self, status: &Status) -> bool {
        match status {
            Status::Serving(marker) => self.markers.iter().rev().any(|told| **told == *marker),
            // Its mark is that of the head.
            Status::Fallback(marker) => {
                self.heads.iter().rev().any(|head| marker.state() == (&head.epoch, head.n) && marker.tag == head.nonce)
            }
            _ => false,
        }
    }

    /// Whether to plan or write all of it takes long enough to be kept off the threads that answer.
    pub(super) fn is_large(&self) -> bool {
        const LARGE: usize = 500;
        self.table.len() + self.tree.routers.len() > LARGE
    }

    /// Whether there is a record at this key that can't be read, and that these changes leave there.
    pub(super) fn cannot_read(&self, key: &str, changes: &Changes) -> bool {
        self.unreadable.contains_key(key) && !changes.contains(key)
    }

    /// It is doubted whether this is the present.
    pub(super) fn doubt(&mut self) {
        self.doubts += 1;
        self.doubted = true;
    }
}

impl View {
    /// The records were told up to this revision.
    pub(super) fn see_records(&mut self, revision: Revision) {
        self.records_revision = revision;
        self.past.see_revision(revision);
        (self.heard, self.lost) = (Some(Moment::now()), None);
    }

    /// So was the tree.
    pub(super) fn see_tree(&mut self, revision: Revision) {
        self.tree_revision = revision;
        self.past.see_revision(revision);
    }

    /// There is no head.
    pub(super) fn forget_head(&mut self) {
        (self.head, self.head_revision, self.head_is_broken) = (None, 0, false);
        self.head_value.clear();
    }
}

/// Keeps the newest ones.
pub(super) fn remember<T>(all: &mut VecDeque<T>, newest: T, max: usize) {
    if all.len() == max {
        all.pop_front();
    }
    all.push_back(newest);
}
