//! Many changes of records at once, straight into the store: how a table is moved from one place to another.
//!
//! They are written as the writer writes them, in as few transactions as the store takes, each of which compares and moves
//! the head. So replicas may be at work meanwhile. Traefik's tree is left to them: they see its marker behind the head.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::commit::{self, Changes, HEAD_OPS};
use super::next_head;
use crate::clock::Clock;
use crate::route::installation::Installation;
use crate::route::record::{self, Head, RecordKeys};
use crate::route::{Route, RouteData, RouteSpec, RouteTable, Target, Weight};
use crate::store::{Commit, Guard, Revision, Store, StoreError, Txn};

/// How long the store may give no answer, or others win every time, before we give up.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long one commit may take.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a store without an answer is left alone.
const PAUSE: Duration = Duration::from_millis(250);

/// How one route should be.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Its prefix.
    pub spec: RouteSpec,
    /// Where it should lead and what should be remembered; `None`: there should be none.
    pub state: Option<(Target, RouteData)>,
    /// When it was last used before it came here, if that is known. A route that is new here counts as made then, so that
    /// idle servers don't seem to be in use; a time to come counts as now.
    pub used: Option<Timestamp>,
}

/// All records at one moment.
#[derive(Debug, Default)]
pub struct Records {
    /// The routes.
    pub table: RouteTable,
    head: Option<Head>,
    head_revision: Revision,
    installation: Option<Vec<u8>>,
}

impl Records {
    /// Why `owner` must not change these records, if they are somebody else's.
    #[must_use]
    pub fn quarrel(&self, keys: &RecordKeys, owner: &Installation) -> Option<String> {
        owner.quarrel(keys.prefix(), &keys.installation(), self.installation.as_ref()?)
    }
}

/// Why records can't be read or written. Changes made before stay.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A record that isn't understood: a table without it would be a part of the truth.
    #[error("the record {key} can't be read: {why}; use the version of Pointsman that wrote it, or remove the record")]
    Unreadable {
        /// Its key in the store.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A record that could not be read again once it is written.
    #[error("the record of {0} can't be kept: {1}")]
    Unwritable(RouteSpec, record::RecordError),
    /// The table would be too long.
    #[error(
        "the table would have {routes} routes, and --max-routes allows {max}; raise it, here and for every replica"
    )]
    TooManyRoutes {
        /// So many there would be.
        routes: usize,
        /// So many there may be.
        max: usize,
    },
    /// The table would have too many bytes.
    #[error(
        "the records of all routes would have {bytes} bytes, and --max-table-bytes allows {max}; raise it, here and for every \
         replica"
    )]
    TooManyBytes {
        /// So many there would be.
        bytes: usize,
        /// So many there may be.
        max: usize,
    },
    /// Others write all the time.
    #[error("the routes are being changed by others all the time; try again in a quieter moment")]
    Contended,
}

/// Reads all records.
pub async fn read(store: &dyn Store, keys: &RecordKeys) -> Result<Records, BulkError> {
    let mut records = Records::default();
    for entry in store.list(keys.prefix()).await?.entries {
        let unreadable =
            |error: record::RecordError| BulkError::Unreadable { key: entry.key.clone(), why: error.to_string() };
        if entry.key == keys.head() {
            records.head = Some(Head::parse(&entry.value).map_err(unreadable)?);
            records.head_revision = entry.mod_revision;
        } else if entry.key == keys.installation() {
            records.installation = Some(entry.value);
        } else if keys.spec(&entry.key).is_some() {
            records.table.insert(record::decode(keys, &entry.key, &entry.value).map_err(unreadable)?.into());
        }
    }
    Ok(records)
}

/// Brings routes to what is wished, and says after each transaction how many of the wishes are true. What others change
/// meanwhile stays, unless it is wished otherwise.
pub async fn write(
    store: &dyn Store,
    keys: &RecordKeys,
    clock: &dyn Clock,
    max: Weight,
    wishes: &[Wish],
    mut progress: impl FnMut(usize),
) -> Result<(), BulkError> {
    let mut records = read(store, keys).await?;
    check_room(&records.table, wishes, max)?;
    let (mut done, mut give_up) = (0, Instant::now() + PATIENCE);
    while done < wishes.len() {
        let step = next_step(&records, keys, clock, &wishes[done..], store)?;
        if step.changes.is_empty() {
            done += step.wishes;
            progress(done);
            continue;
        }
        let committed = timeout(COMMIT_TIMEOUT, store.commit(step.txn)).await;
        let error = match committed.unwrap_or_else(|_| Err(StoreError::Unavailable("it took too long".to_owned()))) {
            Ok(Commit::Done(revision)) => {
                for (spec, route) in step.changes {
                    match route {
                        Some(route) => records.table.insert(route),
                        None => drop(records.table.remove(&spec)),
                    }
                }
                (records.head, records.head_revision) = (Some(step.head), revision);
                done += step.wishes;
                give_up = Instant::now() + PATIENCE;
                progress(done);
                continue;
            }
            Ok(Commit::Conflict(_)) => BulkError::Contended,
            Err(error @ StoreError::Unavailable(_)) => error.into(),
            Err(error) => return Err(error.into()),
        };
        // Somebody else was faster, or it isn't known what became of it. What there is now tells: a commit of ours that
        // happened made its wishes true, and one that still comes can't, once the head has moved.
        records = again(store, keys, error, give_up).await?;
    }
    Ok(())
}

/// Reads the records until that succeeds, or gives up with the last error.
async fn again(
    store: &dyn Store,
    keys: &RecordKeys,
    mut error: BulkError,
    give_up: Instant,
) -> Result<Records, BulkError> {
    loop {
        if Instant::now() >= give_up {
            return Err(error);
        }
        if !matches!(error, BulkError::Contended) {
            sleep(PAUSE).await;
        }
        match read(store, keys).await {
            Err(BulkError::Store(silent @ StoreError::Unavailable(_))) => error = silent.into(),
            read => return read,
        }
    }
}

fn check_room(table: &RouteTable, wishes: &[Wish], max: Weight) -> Result<(), BulkError> {
    let mut after = table.clone();
    for Wish { spec, state, .. } in wishes {
        match state.clone() {
            Some((target, data)) => {
                let (created, n) = (Timestamp::UNIX_EPOCH, 0);
                after.insert(Arc::new(Route { spec: spec.clone(), target, data, created, n }));
            }
            None => drop(after.remove(spec)),
        }
    }
    let (before, Weight { routes, bytes }) = (table.weight(), after.weight());
    if routes > max.routes.max(before.routes) {
        return Err(BulkError::TooManyRoutes { routes, max: max.routes });
    }
    if bytes > max.bytes.max(before.bytes) {
        return Err(BulkError::TooManyBytes { bytes, max: max.bytes });
    }
    Ok(())
}

/// One transaction.
struct Step {
    txn: Txn,
    head: Head,
    changes: Vec<(RouteSpec, Option<Arc<Route>>)>,
    /// So many of the wishes it makes true, with those that are so already.
    wishes: usize,
}

fn next_step(
    records: &Records,
    keys: &RecordKeys,
    clock: &dyn Clock,
    wishes: &[Wish],
    store: &dyn Store,
) -> Result<Step, BulkError> {
    let limits = store.limits();
    let (head, now) = (next_head(records.head.as_ref()), clock.now());
    let (mut changes, mut written, mut taken) = (Vec::new(), Changes::default(), 0);
    for Wish { spec, state, used } in wishes {
        let old = records.table.get(spec);
        let route = match state {
            Some((target, data)) if old.is_none_or(|old| old.target != *target || old.data != *data) => Some(Route {
                spec: spec.clone(),
                target: target.clone(),
                data: data.clone(),
                created: old.map_or_else(|| used.map_or(now, |used| used.min(now)), |old| old.created),
                n: head.n,
            }),
            None if old.is_some() => None,
            Some(_) | None => {
                taken += 1;
                continue;
            }
        };
        if changes.len() + HEAD_OPS >= limits.ops_max || written.bytes() > limits.bytes_max / 2 {
            break;
        }
        match &route {
            Some(route) => written.put(keys, route).map_err(|error| BulkError::Unwritable(spec.clone(), error))?,
            None => written.delete(keys, spec),
        }
        changes.push((spec.clone(), route.map(Arc::new)));
        taken += 1;
    }
    let mut txn = Txn::default();
    let old = records.head.as_ref().map(Head::to_string).unwrap_or_default();
    let seen = Guard::holds(keys.head(), records.head_revision, old.as_bytes());
    commit::add_records(&mut txn, keys, written, &head, seen);
    Ok(Step { txn, head, changes, wishes: taken })
}
