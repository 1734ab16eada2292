//! A process that stood still: stopped by a signal, or suspended with its whole machine. What it believed before may be long untrue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::counts::Counts;
use super::mirror::Mirror;
use crate::clock::Moment;
use crate::lifecycle::{Lifecycle, Readiness};

/// How often it is looked whether time has passed as it should.
const TICK: Duration = Duration::from_millis(500);

/// A tick that took longer than this was none.
const STANDSTILL: Duration = Duration::from_secs(2);

/// The latch that is held from there until the store was read.
pub(super) const LATCH: &str = "stood still";

/// Starts to look.
pub(super) fn start(lifecycle: &Lifecycle, readiness: &Readiness, counts: &Arc<Counts>, mirror: &Arc<Mirror>) {
    let mirror = mirror.clone();
    let wake = move || mirror.look.notify_one();
    lifecycle.spawn("stillness", watch(readiness.clone(), counts.clone(), wake, lifecycle.stopping()));
}

async fn watch(readiness: Readiness, counts: Arc<Counts>, wake: impl Fn(), stopping: CancellationToken) {
    let mut last = Moment::now();
    while stopping.run_until_cancelled(sleep(TICK)).await.is_some() {
        let stood = last.elapsed();
        last = Moment::now();
        if stood > STANDSTILL {
            let seconds = stood.as_secs();
            counts.stood_still.fetch_add(1, Ordering::SeqCst);
            warn!(seconds, "This process stood still for {seconds} s, or the machine has too much to do");
            readiness.hold(LATCH, "this process stood still, and the store is being read; if it lasts look at etcd");
            wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;
    use crate::clock::tests::suspend;

    #[tokio::test(start_paused = true)]
    async fn a_suspended_machine_stood_still() {
        let (readiness, counts, stopping) = (Readiness::new(), Arc::new(Counts::default()), CancellationToken::new());
        let mut looking = JoinSet::new();
        looking.spawn(watch(readiness.clone(), counts.clone(), || {}, stopping.clone()));
        sleep(TICK * 10).await;
        assert_eq!(counts.stood_still(), 0);
        // When it wakes no more than a tick seems to have passed.
        suspend(Duration::from_secs(3600));
        sleep(TICK * 2).await;
        assert_eq!(counts.stood_still(), 1);
        assert!(readiness.missing().contains_key(LATCH));
        sleep(TICK * 10).await;
        assert_eq!(counts.stood_still(), 1, "once");
        stopping.cancel();
        looking.join_next().await.expect("it ends").expect("without a panic");
    }
}
