//! Life and death of the process: named tasks, a graceful stop, readiness.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info, info_span, warn};

/// How long listeners may go on with the requests they have after a stop, before the rest of us stops too.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A latch whose reason changes again and again, as with several endpoints that fail in turn, is logged this often at most.
const TOLD_AGAIN: Duration = Duration::from_secs(30);

/// Starts named tasks and stops them all; a task that ends by itself ends the process.
///
/// It stops in two stages: first those who take requests, and, when they have answered the last one, those who do the work.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    draining: CancellationToken,
    stopping: CancellationToken,
    front: TaskTracker,
    tasks: TaskTracker,
    crashed: Arc<Mutex<Option<String>>>,
}

impl Lifecycle {
    /// A fresh one, nothing running.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that is cancelled when no more requests should be taken: at the beginning of a stop.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// The token that is cancelled when all work should stop: after the last request was answered.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Asks everything to stop.
    pub fn stop(&self) {
        self.draining.cancel();
    }

    /// Runs a task for the whole life of the process. It must end only after [`Lifecycle::stopping`] is cancelled; if it
    /// ends before, or panics, everything stops and [`Lifecycle::finished`] names it.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(&self.tasks, &self.stopping, name, task);
    }

    /// Runs a task that takes requests: it ends after [`Lifecycle::draining`] is cancelled, once it has answered them.
    pub fn spawn_front<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(&self.front, &self.draining, name, task);
    }

    fn start<F>(&self, tracker: &TaskTracker, may_end: &CancellationToken, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (may_end, draining, crashed) = (may_end.clone(), self.draining.clone(), self.crashed.clone());
        let inner = tracker.spawn(task.instrument(info_span!("task", task = name)));
        tracker.spawn(async move {
            let ended = inner.await;
            if ended.is_err() || !may_end.is_cancelled() {
                error!(task = name, "The task {name} ended by itself; stopping");
                crashed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| name.to_owned());
                draining.cancel();
            }
        });
    }

    /// Waits until every task has ended after a stop, and says which task ended by itself, if one did.
    pub async fn finished(&self) -> Result<(), String> {
        self.draining.cancelled().await;
        self.front.close();
        if timeout(DRAIN_MAX, self.front.wait()).await.is_err() {
            warn!("Some requests were still open after {} s; stopping all the same", DRAIN_MAX.as_secs());
        }
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        match self.crashed.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(name) => Err(name),
            None => Ok(()),
        }
    }
}

/// Runs work that keeps a thread busy where it keeps nothing else waiting, unless it is so short that the way there would be
/// longer. A panic goes on in the caller.
pub async fn compute<T: Send + 'static>(is_long: bool, work: impl FnOnce() -> T + Send + 'static) -> T {
    if !is_long {
        return work();
    }
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        // The runtime ends, and everything with it.
        Err(_) => std::future::pending().await,
    }
}

/// What must be true before we are ready: named latches, each with the sentence that says what is missing.
///
/// Logs when one falls and when all are open, so that whoever holds one again at each attempt need not.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeMap<&'static str, Held>>>,
    notes: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

/// A latch that holds us back.
#[derive(Debug)]
struct Held {
    reason: String,
    /// When the log last had it.
    told: Option<Instant>,
}

impl Readiness {
    /// Nothing to wait for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready because of `reason`, which is no fault, until [`Readiness::release`] is called for `name`.
    pub fn expect(&self, name: &'static str, reason: impl Into<String>) {
        self.lock().insert(name, Held { reason: reason.into(), told: None });
    }

    /// Not ready because of the fault `reason`, until [`Readiness::release`] is called for `name`.
    pub fn hold(&self, name: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        let mut waiting = self.lock();
        let held = waiting.entry(name).or_insert_with(|| Held { reason: String::new(), told: None });
        let is_news = held.told.is_none_or(|told| held.reason != reason && told.elapsed() >= TOLD_AGAIN);
        if is_news {
            warn!(latch = name, "Not ready: {reason}");
            held.told = Some(Instant::now());
        } else {
            debug!(latch = name, "Still not ready: {reason}");
        }
        held.reason = reason;
    }

    /// What `name` stood for is true now.
    pub fn release(&self, name: &'static str) {
        let mut waiting = self.lock();
        if waiting.remove(name).is_some() && waiting.is_empty() {
            info!("Ready");
        }
    }

    /// The latches that hold us back, with their reasons; empty when ready.
    #[must_use]
    pub fn missing(&self) -> BTreeMap<&'static str, String> {
        self.lock().iter().map(|(name, held)| (*name, held.reason.clone())).collect()
    }

    /// Something an administrator should know that does not keep us from being ready, until [`Readiness::forget`].
    pub fn note(&self, name: &'static str, sentence: impl Into<String>) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).insert(name, sentence.into());
    }

    /// What `name` was noted for is over.
    pub fn forget(&self, name: &'static str) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// What an administrator should know besides.
    #[must_use]
    pub fn notes(&self) -> BTreeMap<&'static str, String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Held>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_take_requests_end_first() {
        let lifecycle = Lifecycle::new();
        let (order, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let (worker, front) = (order.clone(), order);
        let (stopping, draining) = (lifecycle.stopping(), lifecycle.draining());
        lifecycle.spawn("worker", async move {
            stopping.cancelled().await;
            let _ = worker.send("worker");
        });
        lifecycle.spawn_front("front", async move {
            draining.cancelled().await;
            let _ = front.send("front");
        });
        lifecycle.stop();
        assert_eq!(lifecycle.finished().await, Ok(()));
        assert_eq!((ended.recv().await, ended.recv().await), (Some("front"), Some("worker")));
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_ends_everything() {
        let lifecycle = Lifecycle::new();
        let stopping = lifecycle.stopping();
        lifecycle.spawn("steady", async move { stopping.cancelled().await });
        lifecycle.spawn("short", async {});
        assert_eq!(lifecycle.finished().await, Err("short".to_owned()));
    }

    #[tokio::test]
    async fn a_panic_is_named() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn("wild", async { panic!("on purpose") });
        assert_eq!(lifecycle.finished().await, Err("wild".to_owned()));
    }

    /// On the one thread of this test's runtime the work would wait for ever for what comes after it.
    #[tokio::test]
    async fn long_work_keeps_nothing_else_waiting() {
        let (go, wait) = std::sync::mpsc::channel();
        let work = compute(true, move || wait.recv().expect("it is told"));
        let told = async { go.send(7).expect("somebody waits") };
        assert_eq!(tokio::join!(work, told).0, 7);
        assert_eq!(compute(false, || std::thread::current().id()).await, std::thread::current().id());
    }

    #[test]
    fn ready_is_earned() {
        let readiness = Readiness::new();
        readiness.hold("routes", "not read yet");
        assert_eq!(readiness.missing(), BTreeMap::from([("routes", "not read yet".to_owned())]));
        readiness.release("routes");
        assert!(readiness.missing().is_empty());
    }

    #[test]
    fn a_fault_that_lasts_is_logged_once_and_so_is_its_end() {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).without_time().finish();
        tracing::subscriber::with_default(subscriber, || {
            let readiness = Readiness::new();
            readiness.expect("routes", "not read yet");
            for endpoint in ["a", "b", "a", "b"] {
                readiness.hold("routes", format!("{endpoint} is down"));
            }
            assert_eq!(readiness.missing(), BTreeMap::from([("routes", "b is down".to_owned())]));
            readiness.release("routes");
            readiness.release("routes");
            readiness.hold("routes", "a is down");
        });
        let log = log.text();
        assert_eq!(log.matches("Not ready: a is down").count(), 2, "{log}");
        assert_eq!(log.matches(": Ready").count(), 1, "{log}");
        assert_eq!(log.lines().count(), 3, "{log}");
    }

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }
}
