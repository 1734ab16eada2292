//! `EtcdStore`: the store that all replicas share. This room alone names `etcd_client`.
//!
//! The pieces: `settings` reads files, `endpoint` is one member and our connection to it, `pool` chooses among them,
//! `watch` follows, `fault` tells what an error means for the caller, `status` looks at a cluster from outside, `looks` at
//! its members one by one, and `membership` changes their list.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, GetResponse, KvClient, ResponseHeader, TxnOp};

use super::rules::{DEFAULT_LIMITS, check_key, check_txn};
use super::{Commit, Guard, KeyValue, Listing, Op, Read, Revision, Store, StoreError, Txn, TxnLimits, Watch};

mod endpoint;
mod fault;
mod looks;
mod membership;
mod pool;
mod settings;
mod status;
mod watch;

pub use looks::Looks;
pub use membership::{Cluster, ClusterMember, Membership};
pub use settings::EtcdSettings;
pub use status::{Alarm, ClusterStatus, EndpointStatus, MemberStatus};

use pool::{Boxed, Call, Pool};

/// Keys in one page of a listing.
const PAGE_KEYS: i64 = 2_000;
/// Listings that are begun again because the history of their revision went away between two pages.
const LISTINGS_MAX: usize = 5;
/// What `--max-txn-ops` may be; the first that etcd takes counts.
const OPS_PROBED: [usize; 7] = [1024, 512, 256, 128, 64, 32, 16];

/// etcd, version 3.4 or newer, as a store.
#[derive(Debug)]
pub struct EtcdStore {
    settings: EtcdSettings,
    pool: RwLock<Arc<Pool>>,
    ops_max: AtomicUsize,
    /// etcd itself has told us `ops_max`.
    ops_known: AtomicBool,
}

impl EtcdStore {
    /// Reads the files that the settings name and prepares the connections. An etcd that can't be reached is no error
    /// here: every call tries again. It takes one time limit at most.
    pub async fn connect(settings: EtcdSettings) -> Result<Self, StoreError> {
        let pool = Pool::new(&settings)?;
        let store = Self {
            settings,
            pool: RwLock::new(Arc::new(pool)),
            ops_max: AtomicUsize::new(DEFAULT_LIMITS.ops_max),
            ops_known: AtomicBool::new(false),
        };
        store.learn_limits().await;
        Ok(store)
    }

    /// Reads the password and the certificates again and connects anew. If etcd refuses us with them, or answers with
    /// the old ones only, the old ones stay in force. Running watches go on.
    pub async fn reload(&self) -> Result<(), StoreError> {
        let fresh = Pool::new(&self.settings)?;
        if let Err(error) = fresh.check().await
            && (matches!(error, StoreError::Refused(_)) || self.pool().check().await.is_ok())
        {
            return Err(error);
        }
        *self.pool.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(())
    }

    /// Asks every endpoint for its state, each within one time limit.
    pub async fn status(&self) -> ClusterStatus {
        status::ask(&self.settings, &self.pool()).await
    }

    fn pool(&self) -> Arc<Pool> {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds out how many operations etcd takes, with transactions that only read. etcd counts before it looks at
    /// permissions, so a refusal for lack of permission means that the number is right.
    async fn learn_limits(&self) {
        for ops in OPS_PROBED {
            let reads = vec![TxnOp::get(pool::PROBE_KEY, Some(GetOptions::new().with_count_only())); ops];
            let txn = etcd_client::Txn::new().and_then(reads);
            let pool = self.pool();
            let taken = pool.read(move |mut kv: KvClient| {
                let txn = txn.clone();
                async move {
                    match kv.txn(txn).await {
                        Ok(_) => Ok(true),
                        Err(error) if fault::is_too_many_ops(&error) => Ok(false),
                        Err(error) if fault::is_no_permission(&error) => Ok(true),
                        Err(error) => Err(error),
                    }
                }
                .boxed()
            });
            match taken.await {
                Ok(false) => {}
                Ok(true) => {
                    self.ops_max.store(ops, Ordering::Relaxed);
                    self.ops_known.store(true, Ordering::Relaxed);
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "etcd did not say how large a transaction may be: {error}");
                    return;
                }
            }
        }
    }

    /// Everything below `prefix` in pages of one revision. `None`: that revision went away before the last page.
    async fn list_once(&self, prefix: &str) -> Result<Option<Listing>, StoreError> {
        let end = prefix_end(prefix.as_bytes());
        let mut from = if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() };
        let (mut revision, mut entries) = (0, Vec::new());
        loop {
            let page = match self.pool().read(page(from, end.clone(), revision)).await {
                Ok(page) => page,
                Err(StoreError::Compacted(_)) if revision > 0 => return Ok(None),
                Err(error) => return Err(error),
            };
            revision = if revision == 0 { revision_of(page.header())? } else { revision };
            entries.extend(page.kvs().iter().map(key_value));
            match page.kvs().last() {
                // The next page begins with the smallest key after the last one.
                Some(last) if page.more() => from = [last.key(), &[0]].concat(),
                _ => return Ok(Some(Listing { revision, entries })),
            }
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Read, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        let pool = self.pool();
        let answer = pool.read(move |mut kv: KvClient| {
            let key = key.clone();
            async move { kv.get(key, None).await }.boxed()
        });
        let answer = answer.await?;
        Ok(Read { revision: revision_of(answer.header())?, entry: answer.kvs().first().map(key_value) })
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        if !self.ops_known.load(Ordering::Relaxed) {
            self.learn_limits().await;
        }
        for _ in 0..LISTINGS_MAX {
            if let Some(listing) = self.list_once(prefix).await? {
                return Ok(listing);
            }
        }
        Err(StoreError::Unavailable(format!(
            "etcd compacts its history faster than the keys below {prefix} can be read"
        )))
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        check_txn(&txn, self.limits())?;
        let answer = self.pool().write(etcd_txn(txn)).await?;
        let revision = revision_of(answer.header())?;
        Ok(if answer.succeeded() { Commit::Done(revision) } else { Commit::Conflict(revision) })
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(watch::open(&self.pool(), prefix, after).await?))
    }

    fn limits(&self) -> TxnLimits {
        TxnLimits { ops_max: self.ops_max.load(Ordering::Relaxed), ..DEFAULT_LIMITS }
    }
}

/// Reads one page. An answer that is larger than we take is asked for again in smaller pieces.
fn page(from: Vec<u8>, end: Vec<u8>, revision: Revision) -> impl Call<GetResponse> {
    move |mut kv: KvClient| {
        let (from, end) = (from.clone(), end.clone());
        async move {
            let mut limit = PAGE_KEYS;
            loop {
                let options = GetOptions::new().with_range(end.clone()).with_limit(limit).with_revision(revision);
                match kv.get(from.clone(), Some(options)).await {
                    Err(error) if limit > 1 && fault::is_too_large(&error) => limit = (limit / 4).max(1),
                    answer => return answer,
                }
            }
        }
        .boxed()
    }
}

fn etcd_txn(txn: Txn) -> etcd_client::Txn {
    let guards = txn.guards.into_iter().flat_map(|Guard { key, mod_revision, value }| {
        let value = value.map(|value| Compare::value(key.as_str(), CompareOp::Equal, value));
        // etcd takes the last change of an absent key for 0, and its value for unlike any.
        [Some(Compare::mod_revision(key, CompareOp::Equal, mod_revision)), value].into_iter().flatten()
    });
    let ops = txn.ops.into_iter().map(|op| match op {
        Op::Put { key, value } => TxnOp::put(key, value, None),
        Op::Delete { key } => TxnOp::delete(key, None),
        Op::DeletePrefix { prefix } => TxnOp::delete(prefix, Some(DeleteOptions::new().with_prefix())),
    });
    etcd_client::Txn::new().when(guards.collect::<Vec<_>>()).and_then(ops.collect::<Vec<_>>())
}

/// The first key after all that begin with `prefix`. `[0]` is how etcd spells the end of everything.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let Some(at) = prefix.iter().rposition(|byte| *byte < u8::MAX) else { return vec![0] };
    let mut end = prefix[..=at].to_vec();
    end[at] += 1;
    end
}

/// The header of an answer. One without is no answer, and says nothing about the store: not that it is at the beginning.
fn header_of(header: Option<&ResponseHeader>) -> Result<&ResponseHeader, StoreError> {
    header.ok_or_else(|| StoreError::Unavailable("etcd answered without a header".to_owned()))
}

/// The store's revision at an answer.
fn revision_of(header: Option<&ResponseHeader>) -> Result<Revision, StoreError> {
    match header_of(header)?.revision() {
        revision @ 1.. => Ok(revision),
        other => Err(StoreError::Unavailable(format!("etcd answered with the revision {other}"))),
    }
}

fn key_value(entry: &etcd_client::KeyValue) -> KeyValue {
    KeyValue {
        key: String::from_utf8_lossy(entry.key()).into_owned(),
        value: entry.value().to_vec(),
        mod_revision: entry.mod_revision(),
    }
}
