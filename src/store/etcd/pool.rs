//! All members, and which one is asked.
//!
//! Reads are repeated elsewhere when an answer fails or is late. A commit is sent once: when its answer is lost nobody
//! knows whether it happened, and a second try would meet its own traces and call them a conflict. So a commit goes to a
//! member that has answered lately, and if none has, a read finds one first.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Error, GetOptions, KvClient, Txn, TxnResponse};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::endpoint::Endpoint;
use super::fault::{Fault, is_no_permission};
use super::settings::EtcdSettings;
use crate::store::StoreError;

/// A key that nobody writes, to see whether a member answers. A user who may not read it gets an answer too.
pub(super) const PROBE_KEY: &str = "pointsman-probe";

/// A commit trusts a member that has answered within this time. An open watch hears from its member every 2 s.
const TRUST: Duration = Duration::from_secs(3);

/// The future of one call.
pub(super) type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// A call that can be made on any member, as often as needed.
pub(super) trait Call<T>: Fn(KvClient) -> Answer<T> + Clone + Send + Sync + 'static {}

impl<T, F> Call<T> for F where F: Fn(KvClient) -> Answer<T> + Clone + Send + Sync + 'static {}

/// Puts a future on the heap, with its type forgotten.
pub(super) trait Boxed<T> {
    /// The same future as an [`Answer`].
    fn boxed(self) -> Answer<T>;
}

impl<T, F: Future<Output = Result<T, Error>> + Send + 'static> Boxed<T> for F {
    fn boxed(self) -> Answer<T> {
        Box::pin(self)
    }
}

/// All members, and which one is asked.
#[derive(Debug)]
pub(super) struct Pool {
    endpoints: Vec<Arc<Endpoint>>,
    /// Who is asked first: the last one that answered.
    preferred: AtomicUsize,
    patience: Duration,
}

impl Pool {
    pub(super) fn new(settings: &EtcdSettings) -> Result<Self, StoreError> {
        if settings.endpoints.is_empty() {
            return Err(StoreError::Refused("--etcd-endpoints is empty".to_owned()));
        }
        let options = settings.connect_options()?;
        let endpoints = settings.endpoints.iter().map(|url| Arc::new(Endpoint::new(url.clone(), options.clone())));
        Ok(Self { endpoints: endpoints.collect(), preferred: AtomicUsize::new(0), patience: settings.op_timeout })
    }

    pub(super) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Reads from whoever answers first, beginning with the preferred member.
    pub(super) async fn read<T: Send + 'static>(&self, call: impl Call<T>) -> Result<T, StoreError> {
        self.race(call, Instant::now() + self.patience).await.map_err(|fault| fault.error)
    }

    /// Commits once, on a member that has answered lately.
    pub(super) async fn write(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        let deadline = Instant::now() + self.patience;
        let call = move |mut kv: KvClient| {
            let txn = txn.clone();
            async move { kv.txn(txn).await }.boxed()
        };
        // Twice: a member may turn out to be gone in a way that leaves no doubt that nothing happened.
        let mut last = None;
        for _ in 0..2 {
            let endpoint = self.trusted(deadline).await.map_err(|fault| fault.error)?;
            let number = endpoint.number();
            match timeout_at(deadline, endpoint.call(&call)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(fault)) if fault.nothing_happened && matches!(fault.error, StoreError::Unavailable(_)) => {
                    self.distrust(&endpoint, number);
                    last = Some(fault);
                }
                Ok(Err(fault)) => return Err(fault.error),
                Err(_) => {
                    self.distrust(&endpoint, number);
                    return Err(Fault::silence(endpoint.url(), self.patience).error);
                }
            }
        }
        Err(last.unwrap_or_else(|| Fault::silence("etcd", self.patience)).error)
    }

    /// The preferred member, or the one that proves to be alive.
    pub(super) async fn trusted(&self, deadline: Instant) -> Result<Arc<Endpoint>, Fault> {
        if !self.preferred().answered_within(TRUST) {
            self.race(probe(), deadline).await?;
        }
        Ok(self.preferred().clone())
    }

    /// Some member answers, and takes our login.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        self.read(probe()).await
    }

    /// Uses this connection no more, and begins with another member the next time.
    pub(super) fn distrust(&self, endpoint: &Arc<Endpoint>, number: u64) {
        endpoint.discard(number);
        if Arc::ptr_eq(self.preferred(), endpoint) {
            self.preferred.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn discard(&self, connections: &[(usize, u64)]) {
        for (at, number) in connections {
            self.endpoints[*at].discard(*number);
        }
    }

    fn preferred(&self) -> &Arc<Endpoint> {
        &self.endpoints[self.preferred.load(Ordering::Relaxed) % self.endpoints.len()]
    }

    /// Asks the preferred member; when it fails the next one, and when it is late the next one too, without giving up
    /// the first. Each may be asked twice, the second time on a new connection: the first may be half open.
    async fn race<T: Send + 'static>(&self, call: impl Call<T>, deadline: Instant) -> Result<T, Fault> {
        let count = self.endpoints.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut order: VecDeque<usize> = (first..first + 2 * count).map(|at| at % count).collect();
        // A third of the time for the first two: then also the second one's silence leaves time for a third.
        let hedge = self.patience / 3;
        let mut asked = JoinSet::new();
        let mut silent = Vec::new();
        let mut failure = None;
        let mut next_at = Instant::now();
        loop {
            let may_ask = !order.is_empty();
            tokio::select! {
                biased;
                Some(answered) = asked.join_next() => {
                    let Ok((at, number, answer)) = answered else { continue };
                    silent.retain(|who| *who != (at, number));
                    match answer {
                        Ok(value) => {
                            self.preferred.store(at, Ordering::Relaxed);
                            // Whoever was slower may be half open, and would be so again when it is needed.
                            self.discard(&silent);
                            return Ok(value);
                        }
                        // Another member would say the same.
                        Err(fault @ Fault { error: StoreError::Refused(_) | StoreError::Compacted(_), .. }) => {
                            return Err(fault);
                        }
                        Err(fault) => failure = Some(fault),
                    }
                    if asked.is_empty() && order.is_empty() {
                        break;
                    }
                    next_at = Instant::now();
                }
                () = sleep_until(deadline) => break,
                () = sleep_until(next_at), if may_ask => {
                    let Some(at) = order.pop_front() else { continue };
                    let endpoint = self.endpoints[at].clone();
                    if silent.iter().any(|(who, _)| *who == at) {
                        endpoint.discard(endpoint.number());
                    }
                    let number = endpoint.number();
                    silent.push((at, number));
                    let call = call.clone();
                    asked.spawn(async move { (at, number, endpoint.call(&call).await) });
                    next_at = Instant::now() + hedge;
                }
            }
        }
        // Whoever is still silent now is not asked on this connection again.
        self.discard(&silent);
        let silence = silent.first().map(|(at, _)| Fault::silence(self.endpoints[*at].url(), self.patience));
        Err(failure.or(silence).unwrap_or_else(|| Fault::silence("etcd", self.patience)))
    }
}

/// Any answer to this takes a quorum.
pub(super) fn probe() -> impl Call<()> {
    |mut kv: KvClient| {
        async move {
            match kv.get(PROBE_KEY, Some(GetOptions::new().with_count_only())).await {
                Ok(_) => Ok(()),
                Err(error) if is_no_permission(&error) => Ok(()),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }
}
