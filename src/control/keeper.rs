//! The keeper of the snapshot: writes what the mirror holds to the local disk, soon after each change and at the end.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::known::since;
use super::mirror::{Mirror, View};
use crate::clock::{Moment, SharedClock};
use crate::route::record::Head;
use crate::snapshot::{Folder, Snapshot, Stored};
use crate::store::Revision;

/// Two snapshots are at least this far apart: a table of 10,000 routes has some megabytes.
const INTERVAL: Duration = Duration::from_secs(2);

/// Without a change there is a new one after this time, for its age and the store's revision to be of use.
const UNCHANGED_INTERVAL: Duration = Duration::from_secs(60);

/// A folder that can't be written is tried again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What is to be told of the snapshot at `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The age of the newest one and its size in bytes; `None` if this process has written none.
    pub newest: Option<(Duration, u64)>,
    /// How often none could be written.
    pub failures: u64,
}

/// What the keeper tells of its work.
#[derive(Debug, Default)]
pub(super) struct Log {
    failures: AtomicU64,
    newest: Mutex<Option<(Timestamp, u64)>>,
}

impl Log {
    pub(super) fn kept(&self, now: Timestamp) -> Kept {
        let newest = *self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = newest.map(|(taken, bytes)| (since(taken, now), bytes));
        Kept { newest, failures: self.failures.load(Ordering::Relaxed) }
    }
}

/// Writes snapshots.
pub(super) struct Keeper {
    folder: Arc<Folder>,
    mirror: Arc<Mirror>,
    clock: SharedClock,
    log: Arc<Log>,
    /// The last change in the newest one.
    written: Option<Head>,
    written_at: Option<Instant>,
    highest_revision: Revision,
    /// Whether the newest file is good, so that it may become the previous one.
    is_good: bool,
    /// The last attempt failed, and the log has it.
    failing: bool,
}

impl Keeper {
    /// A keeper of `folder`, in which `found` was found.
    pub(super) fn new(
        folder: Folder,
        found: Option<&Snapshot>,
        mirror: Arc<Mirror>,
        clock: SharedClock,
        log: Arc<Log>,
    ) -> Self {
        Self {
            is_good: folder.newest_is_good(),
            folder: Arc::new(folder),
            mirror,
            clock,
            log,
            written: found.map(|found| found.head.clone()),
            written_at: None,
            highest_revision: found.map_or(0, |found| found.highest_revision.max(found.revision)),
            failing: false,
        }
    }

    /// Keeps until it is told to stop, and then once more.
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        let mut changed = self.mirror.subscribe();
        loop {
            changed.borrow_and_update();
            let is_old = self.written_at.is_none_or(|at| at.elapsed() >= UNCHANGED_INTERVAL);
            if let Some(snapshot) = self.due(is_old) {
                self.write(snapshot).await;
                let pause = if self.failing { AGAIN_AFTER } else { INTERVAL };
                if stopping.run_until_cancelled(sleep(pause)).await.is_none() {
                    break;
                }
            }
            tokio::select! {
                () = stopping.cancelled() => break,
                Ok(()) = changed.changed() => {}
                () = sleep(UNCHANGED_INTERVAL) => {}
            }
        }
        if let Some(snapshot) = self.due(false) {
            self.write(snapshot).await;
        }
    }

    /// What should be written, if anything: `is_old` says that there should be another one even without a change.
    fn due(&self, is_old: bool) -> Option<Snapshot> {
        let view = self.mirror.read();
        if !view.records_loaded || view.head_is_broken {
            return None;
        }
        let head = view.head.as_ref()?;
        let is_new = match &self.written {
            None => true,
            // A store that went back in time: what we know of the time after is worth more, until a new history begins.
            Some(written) if written.epoch == head.epoch && written.n > head.n => return None,
            Some(written) => written != head,
        };
        (is_new || (is_old && view.followed())).then(|| self.snapshot(&view, head))
    }

    fn snapshot(&self, view: &View, head: &Head) -> Snapshot {
        let age = view.heard.map_or(Duration::ZERO, Moment::elapsed);
        let now = self.clock.now();
        Snapshot {
            head: head.clone(),
            revision: view.records_revision,
            highest_revision: self.highest_revision.max(view.records_revision),
            taken: SignedDuration::try_from(age).ok().and_then(|age| now.checked_sub(age).ok()).unwrap_or(now),
            table: view.table.clone(),
        }
    }

    async fn write(&mut self, snapshot: Snapshot) {
        let (head, highest, taken) = (snapshot.head.clone(), snapshot.highest_revision, snapshot.taken);
        let (folder, keep) = (self.folder.clone(), self.is_good);
        let written = tokio::task::spawn_blocking(move || folder.store(&snapshot, keep)).await;
        match written.map_err(io::Error::other).flatten() {
            Ok(Stored { bytes }) => {
                if self.failing {
                    info!("Snapshots are written to {} again", self.folder.path().display());
                }
                *self.log.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some((taken, bytes));
                (self.written, self.written_at) = (Some(head), Some(Instant::now()));
                (self.highest_revision, self.is_good, self.failing) = (highest, true, false);
            }
            Err(error) => {
                self.log.failures.fetch_add(1, Ordering::Relaxed);
                if !self.failing {
                    warn!(
                        %error,
                        "No snapshot can be written to {}: {error}; look at --snapshot-dir. Without it a restart of this \
                         replica while etcd is away knows no routes",
                        self.folder.path().display()
                    );
                }
                self.failing = true;
            }
        }
    }
}
