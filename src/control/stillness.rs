//! A process that stood still: stopped by a signal, or with its whole machine. What it believed before may be long untrue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::counts::Counts;
use super::mirror::Mirror;
use crate::lifecycle::{Lifecycle, Readiness};

/// How often it is looked whether time has passed as it should.
const TICK: Duration = Duration::from_millis(500);

/// A tick that took longer than this was none.
const STANDSTILL: Duration = Duration::from_secs(2);

/// The latch that is held from there until the store was read.
pub(super) const LATCH: &str = "stood still";

/// Starts to look.
pub(super) fn start(lifecycle: &Lifecycle, readiness: &Readiness, counts: &Arc<Counts>, mirror: &Arc<Mirror>) {
    let (readiness, counts, mirror, stopping) =
        (readiness.clone(), counts.clone(), mirror.clone(), lifecycle.stopping());
    lifecycle.spawn("stillness", async move {
        let mut last = Instant::now();
        while stopping.run_until_cancelled(sleep(TICK)).await.is_some() {
            let stood = last.elapsed();
            last = Instant::now();
            if stood > STANDSTILL {
                let seconds = stood.as_secs();
                counts.stood_still.fetch_add(1, Ordering::SeqCst);
                warn!(seconds, "This process stood still for {seconds} s, or the machine has too much to do");
                readiness
                    .hold(LATCH, "this process stood still, and the store is being read; if it lasts look at etcd");
                mirror.look.notify_one();
            }
        }
    });
}
