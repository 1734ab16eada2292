//! `/metrics`, in the text format of Prometheus: our own names, and those of configurable-http-proxy.
//!
//! Nothing here is kept: each room counts for itself, and a scrape reads. `docs/metrics.md` says what the names mean.

mod calls;
mod encode;
mod process;

pub use calls::CallCounts;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text};
use prometheus_client::registry::Registry;
use tracing::error;

use super::answer::Answer;
use super::read_only;
use crate::activity::traffic::Traffic;
use crate::control::{Counts, Kept, Others};
use crate::lifecycle::{Readiness, compute};
use crate::telemetry;
use encode::Writer;

/// A number that is asked for at each scrape.
pub type Ask<T> = Box<dyn Fn() -> T + Send + Sync>;

/// What is told of all Traefiks. Single ones go by the addresses of their APIs.
#[derive(Debug, Clone, Default)]
pub struct Traefiks {
    /// How many there are in each status.
    pub by_status: BTreeMap<&'static str, usize>,
    /// How long each has lagged; zero where it doesn't.
    pub lags: BTreeMap<String, Duration>,
    /// Routers of each that don't work, where that is known.
    pub router_errors: BTreeMap<String, u64>,
    /// Changes that were answered although a laggard did not serve them.
    pub went_on: u64,
}

/// Connections through Unix sockets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sockets {
    /// Connections that are open.
    pub open: usize,
    /// How many there may be.
    pub max: usize,
    /// How often there was no place for another one.
    pub limit_reached: u64,
}

/// Where the numbers come from.
pub struct Sources {
    /// The API's calls: [`super::ApiState::counts`].
    pub calls: Arc<CallCounts>,
    /// The control plane's counts.
    pub control: Arc<Counts>,
    /// The latches.
    pub readiness: Readiness,
    /// The kind of the store: `etcd`, `embedded`.
    pub store: &'static str,
    /// The number of routes in the table.
    pub routes: Ask<usize>,
    /// What others did to our keys.
    pub others: Ask<Others>,
    /// How the Traefiks are.
    pub traefiks: Ask<Traefiks>,
    /// How long ago users' activity was last collected; `None`: not yet, or nobody does.
    pub activity_age: Option<Ask<Option<Duration>>>,
    /// Whether it is this replica that collects it.
    pub activity_holder: Option<Ask<bool>>,
    /// How often the Traefik that we run was started again.
    pub child_restarts: Option<Ask<u64>>,
    /// The connections through Unix sockets, by whose sockets they are: `users`, `servers`.
    pub sockets: Vec<(&'static str, Ask<Sockets>)>,
    /// How the routes are kept for times without a store, if they are.
    pub kept: Option<Ask<Option<Kept>>>,
    /// Whether Traefiks are given the fallback, if there is one.
    pub fallback: Option<Ask<bool>>,
    /// What users' requests came to, if anybody knows.
    pub traffic: Option<Ask<Option<Traffic>>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("store", &self.store).finish_non_exhaustive()
    }
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Metrics {
    /// Metrics that are read from `sources` at each scrape.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sources));
        Self(registry)
    }

    /// The metrics as text.
    fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// `/metrics`, without a token; everything else is 404.
pub fn router(metrics: Arc<Metrics>) -> Router {
    Router::new().route("/metrics", any(answer)).fallback(|| async { Answer::not_found() }).with_state(metrics)
}

async fn answer(State(metrics): State<Arc<Metrics>>, request: Request) -> Response {
    // What the system tells of us stands in files.
    match compute(true, move || metrics.render()).await {
        Ok(text) => {
            let mut response = read_only(&request, || Answer::sentence(StatusCode::OK, "")).into_response();
            if response.status() == StatusCode::OK {
                let content = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, content);
                *response.body_mut() = Body::from(text);
            }
            response
        }
        Err(error) => {
            error!(%error, "The metrics can't be written: {error}");
            Answer::empty(StatusCode::INTERNAL_SERVER_ERROR).into_response()
        }
    }
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut writer = Writer(encoder);
        self.about(&mut writer)?;
        self.last_known(&mut writer)?;
        self.calls(&mut writer)?;
        self.control(&mut writer)?;
        self.as_chp(&mut writer)?;
        process::encode(&mut writer)
    }
}

impl Sources {
    fn about(&self, to: &mut Writer<'_>) -> fmt::Result {
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("store", self.store)];
        to.gauges("pointsman_build_info", "Always 1; what runs here.", [(labels, 1.0)])?;
        let missing = self.readiness.missing();
        let ready = if missing.is_empty() { 1.0 } else { 0.0 };
        to.gauge("pointsman_ready", "Whether this replica is ready.", ready)?;
        let latches = missing.keys().map(|latch| ([("latch", *latch)], 1.0));
        to.gauges("pointsman_not_ready", "What keeps this replica from being ready.", latches)?;
        to.gauge("pointsman_routes", "Routes in the table.", count((self.routes)()))?;
        others(to, (self.others)())?;
        traefiks(to, &(self.traefiks)())?;
        let help = "Log lines that were dropped because stderr was not read.";
        to.counter("pointsman_log_lines_dropped_total", help, telemetry::lines_dropped())?;
        if let Some(restarts) = &self.child_restarts {
            let help = "How often the Traefik that is run here was started again.";
            to.counter("pointsman_traefik_restarts_total", help, restarts())?;
        }
        self.sockets(to)?;
        if let Some(age) = self.activity_age.as_ref().and_then(|age| age()) {
            let help = "Time since users' activity was last collected.";
            to.gauge("pointsman_activity_age_seconds", help, age.as_secs_f64())?;
        }
        if let Some(holder) = &self.activity_holder {
            let help = "Whether it is this replica that collects users' activity.";
            to.gauge("pointsman_activity_holder", help, if holder() { 1.0 } else { 0.0 })?;
        }
        Ok(())
    }

    fn sockets(&self, to: &mut Writer<'_>) -> fmt::Result {
        if self.sockets.is_empty() {
            return Ok(());
        }
        let all: Vec<_> = self.sockets.iter().map(|(whose, ask)| ([("of", *whose)], ask())).collect();
        let help = "Open connections through Unix sockets.";
        to.gauges("pointsman_socket_connections", help, all.iter().map(|(of, now)| (*of, count(now.open))))?;
        let help = "How many connections through Unix sockets there may be.";
        to.gauges("pointsman_socket_connections_max", help, all.iter().map(|(of, now)| (*of, count(now.max))))?;
        let help = "How often a connection through a Unix socket had to wait for a place.";
        let reached = all.iter().map(|(of, now)| (*of, now.limit_reached));
        to.counters("pointsman_socket_connections_limit_reached_total", help, reached)
    }

    fn last_known(&self, to: &mut Writer<'_>) -> fmt::Result {
        if let Some(Kept { newest, failures }) = self.kept.as_ref().and_then(|kept| kept()) {
            to.counter("pointsman_snapshot_failures_total", "How often no snapshot could be written.", failures)?;
            if let Some((age, bytes)) = newest {
                let help = "Time since the routes in the newest snapshot were known to be true.";
                to.gauge("pointsman_snapshot_age_seconds", help, age.as_secs_f64())?;
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                to.gauge("pointsman_snapshot_bytes", "Size of the newest snapshot.", count(bytes))?;
            }
        }
        let Some(offered) = &self.fallback else { return Ok(()) };
        let help = "Whether Traefiks that ask are given the last known routes.";
        to.gauge("pointsman_fallback_offered", help, if offered() { 1.0 } else { 0.0 })
    }

    fn calls(&self, to: &mut Writer<'_>) -> fmt::Result {
        let calls = self.calls.by_method_and_status();
        let calls = calls
            .into_iter()
            .map(|((method, status), n)| ([("method", method), ("status", &*status.to_string())].map(owned), n));
        to.counters("pointsman_api_calls_total", "Calls of the API, without probes.", calls)?;
        to.histogram("pointsman_api_call_seconds", "How long calls of the API took.", &self.calls.durations().read())
    }

    fn control(&self, to: &mut Writer<'_>) -> fmt::Result {
        let outcomes = [
            ([("outcome", "done")], self.control.commits()),
            ([("outcome", "conflict")], self.control.conflicts()),
            ([("outcome", "failed")], self.control.failures()),
        ];
        to.counters("pointsman_store_commits_total", "Transactions, by what became of them.", outcomes)?;
        let help = "How often the store was found restored from a backup, replaced or wiped.";
        to.counter("pointsman_store_went_back_total", help, self.control.went_back())?;
        let help = "How often the store was read anew because a watch had gone silent.";
        to.counter("pointsman_store_relists_total", help, self.control.relists())?;
        let help = "Revisions that the store was moved on by, for Traefiks that wait for one from before a restore.";
        to.counter("pointsman_store_pushes_total", help, self.control.pushes())?;
        to.counter("pointsman_stood_still_total", "How often this process stood still.", self.control.stood_still())?;
        if let Some(age) = self.control.read_age() {
            to.gauge("pointsman_store_read_age_seconds", "Time since the store was last read.", age.as_secs_f64())?;
        }
        let help = "How long changes waited until every live Traefik served them.";
        to.histogram("pointsman_traefik_wait_seconds", help, &self.control.traefik_waits.read())
    }

    /// The names of configurable-http-proxy, as far as we know the values.
    fn as_chp(&self, to: &mut Writer<'_>) -> fmt::Result {
        let [get, add, delete] = self.calls.verbs();
        to.counter("api_route_get", "Count of API route get requests", get)?;
        to.counter("api_route_add", "Count of API route add requests", add)?;
        to.counter("api_route_delete", "Count of API route delete requests", delete)?;
        let mut by_status = BTreeMap::<u16, u64>::new();
        for ((_, status), n) in self.calls.by_method_and_status() {
            *by_status.entry(status).or_default() += n;
        }
        let labelled = |counts: BTreeMap<u16, u64>| {
            counts.into_iter().map(|(status, n)| ([owned(("status", &*status.to_string()))], n))
        };
        to.counters("requests_api", "Count of API requests", labelled(by_status))?;
        let Some(Traffic { web, websockets, answers }) = self.traffic.as_ref().and_then(|traffic| traffic()) else {
            return Ok(());
        };
        to.counter("requests_web", "Count of web requests", web)?;
        to.counter("requests_ws", "Count of websocket requests", websockets)?;
        to.counters("requests_proxy", "Count of proxy requests", labelled(answers))
    }
}

fn others(to: &mut Writer<'_>, others: Others) -> fmt::Result {
    let Others { foreign_keys, unreadable_records, touched, flaps } = others;
    to.gauge("pointsman_foreign_keys", "Keys below our prefixes that are none of ours.", count(foreign_keys))?;
    to.gauge("pointsman_unreadable_records", "Records that can't be read.", count(unreadable_records))?;
    to.counter("pointsman_touched_keys_total", "How often somebody else has changed a key of ours.", touched)?;
    to.counter("pointsman_route_flaps_total", "How often a route went back and forth, as between two hubs.", flaps)
}

fn traefiks(to: &mut Writer<'_>, all: &Traefiks) -> fmt::Result {
    let by_status = all.by_status.iter().map(|(status, n)| ([("status", *status)], count(*n)));
    to.gauges("pointsman_traefiks", "Traefiks by how they were when last asked.", by_status)?;
    let lags = all.lags.iter().map(|(url, lag)| ([("traefik", url.as_str())], lag.as_secs_f64()));
    to.gauges("pointsman_traefik_lag_seconds", "How long each Traefik has been behind the others.", lags)?;
    let help = "Routers of each Traefik that don't work.";
    let errors = all.router_errors.iter();
    let errors = errors.map(|(url, n)| ([("traefik", url.as_str())], count(usize::try_from(*n).unwrap_or(usize::MAX))));
    to.gauges("pointsman_traefik_router_errors", help, errors)?;
    let help = "Changes that went on without a Traefik that lagged.";
    to.counter("pointsman_changes_without_laggard_total", help, all.went_on)
}

fn owned((name, value): (&'static str, &str)) -> (&'static str, String) {
    (name, value.to_owned())
}

/// Prometheus knows only floating point; what we count this way is far below where that matters.
#[expect(clippy::cast_precision_loss, reason = "counts of routes and Traefiks are small")]
fn count(n: usize) -> f64 {
    n as f64
}
