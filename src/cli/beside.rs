//! Commands that run beside a Traefik until they are stopped: how they begin, and how they end.

use tracing::{error, info};

use super::signals::Signals;
use super::{Exit, complain};
use crate::config::Config;
use crate::lifecycle::Lifecycle;
use crate::telemetry;

/// Why one of them ended badly.
pub(super) type Failed = (Exit, String);

/// Runs one, and says in the log why it ended if it was not told to.
pub(super) async fn run(config: &Config, serve: impl Future<Output = Result<(), Failed>>) -> Exit {
    if let Err(reason) = telemetry::init(config.log.level, config.log.format) {
        complain(&format!("pointsman: logging can't be started: {reason}"));
        return Exit::Failure;
    }
    match serve.await {
        Ok(()) => Exit::Success,
        Err((exit, reason)) => {
            error!("Pointsman ends: {reason}");
            exit
        }
    }
}

/// Waits for the signal to stop, or for a task that ends by itself, and ends everything in order.
pub(super) async fn until_stopped(lifecycle: &Lifecycle, mut signals: Signals) -> Result<(), Failed> {
    lifecycle.spawn("log", telemetry::throttle::write_sums(lifecycle.stopping()));
    let draining = lifecycle.draining();
    tokio::select! {
        () = draining.cancelled() => {}
        name = signals.stop() => info!(signal = name, "Got {name}; stopping"),
    }
    lifecycle.stop();
    lifecycle.finished().await.map_err(|task| (Exit::Failure, format!("the task '{task}' ended by itself")))
}
