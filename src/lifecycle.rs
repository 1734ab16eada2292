//! Life and death of the process: named tasks, a graceful stop, readiness.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info_span};

/// Starts named tasks and stops them all; a task that ends by itself ends the process.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    stop: CancellationToken,
    tasks: TaskTracker,
    crashed: Arc<Mutex<Option<String>>>,
}

impl Lifecycle {
    /// A fresh one, nothing running.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that is cancelled when everything should stop.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks everything to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Runs a task for the whole life of the process. It must end only after [`Lifecycle::stopping`] is cancelled; if it
    /// ends before, or panics, everything stops and [`Lifecycle::finished`] names it.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, crashed) = (self.stop.clone(), self.crashed.clone());
        let inner = self.tasks.spawn(task.instrument(info_span!("task", name)));
        self.tasks.spawn(async move {
            let ended = inner.await;
            if ended.is_err() || !stop.is_cancelled() {
                error!(task = name, "The task {name} ended by itself; stopping");
                crashed
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .get_or_insert_with(|| name.to_owned());
                stop.cancel();
            }
        });
    }

    /// Waits until every task has ended after a stop, and says which task ended by itself, if one did.
    pub async fn finished(&self) -> Result<(), String> {
        self.stop.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
        match self.crashed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone() {
            Some(name) => Err(name),
            None => Ok(()),
        }
    }
}

/// What must be true before we are ready: named latches, each with the sentence that says what is missing.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// Nothing to wait for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready because of `reason`, until [`Readiness::release`] is called for `name`.
    pub fn hold(&self, name: &'static str, reason: impl Into<String>) {
        self.lock().insert(name, reason.into());
    }

    /// What `name` stood for is true now.
    pub fn release(&self, name: &'static str) {
        self.lock().remove(name);
    }

    /// The latches that hold us back, with their reasons; empty when ready.
    #[must_use]
    pub fn missing(&self) -> BTreeMap<&'static str, String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
