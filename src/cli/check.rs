//! `pointsman check`: the configuration is right; now look at everything around us, as somebody from outside.

mod api;
mod certificates;
mod etcd;
mod one_machine;
pub(super) mod probe;
pub(super) mod report;
mod traefik;
mod validity;

use super::{Exit, complain};
use crate::config::Config;
use probe::Probe;
use report::Report;

/// Looks, tells, and says whether all is well.
pub(super) async fn run(config: &Config) -> Exit {
    let probe = match Probe::new() {
        Ok(probe) => probe,
        Err(error) => {
            complain(&format!("pointsman: no HTTP client can be made: {error}"));
            return Exit::Failure;
        }
    };
    let mut report = Report::default();
    report.ok("configuration", "can be used");
    config.warnings.iter().for_each(|warning| report.warning("configuration", warning));
    if let Some(etcd) = config.etcd() {
        let in_store = etcd::check(config, etcd, &mut report).await;
        traefik::check(config, &in_store, &probe, &mut report).await;
    }
    certificates::check(config, &mut report);
    let one_machine = one_machine::before(config, &mut report);
    let runs = api::check(config, &probe, &mut report).await;
    if let Some(seen) = one_machine {
        one_machine::after(config, &seen, runs, &mut report).await;
    }
    if report.finish() { Exit::Success } else { Exit::Failure }
}
