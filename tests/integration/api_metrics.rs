//! The metrics: what is counted, how it is written, and that it is all in the documents.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use pointsman::activity::traffic::Traffic;
use pointsman::api::auth::{AuthSettings, Authenticator};
use pointsman::api::listen::{Limits, Listener};
use pointsman::api::metrics::{Metrics, Sockets, Sources, Traefiks, router};
use pointsman::api::{self, ApiSettings, ApiState};
use pointsman::clock::SystemClock;
use pointsman::control::{ControlPlane, Counts, Kept, Room, Routes, Settings};
use pointsman::lifecycle::{Lifecycle, Readiness};
use pointsman::route::record::RecordKeys;
use pointsman::route::{RouteSpec, Target, Weight};
use pointsman::store::memory::MemoryStore;
use pointsman::traefik::bucket::Sizes;
use pointsman::traefik::client::Access;
use pointsman::traefik::fleet::Fleet;

use crate::support::api::{FakeRoutes, TOKEN, request};
use crate::support::http::{Reply, ask};

/// An API and its metrics.
struct World {
    api: SocketAddr,
    metrics: SocketAddr,
    routes: Arc<FakeRoutes>,
    readiness: Readiness,
    restarts: Arc<AtomicU64>,
    lifecycle: Lifecycle,
}

impl Drop for World {
    fn drop(&mut self) {
        self.lifecycle.stop();
    }
}

fn traffic() -> Traffic {
    Traffic { web: 7, websockets: 2, answers: BTreeMap::from([(200, 6), (503, 1)]) }
}

impl World {
    async fn start(traffic: Option<Traffic>) -> Self {
        let (lifecycle, readiness) = (Lifecycle::new(), Readiness::new());
        let routes = Arc::new(FakeRoutes::default());
        let auth = AuthSettings { tokens: vec![TOKEN.into()], jwt: None };
        let auth = Arc::new(Authenticator::new(&auth, Arc::new(SystemClock)).expect("usable settings"));
        let state = ApiState::new(routes.clone(), auth, readiness.clone(), ApiSettings::default());
        let restarts = Arc::new(AtomicU64::new(0));
        let control = Counts::default();
        control.read_now();
        let sources = Sources {
            calls: state.counts(),
            control: Arc::new(control),
            readiness: readiness.clone(),
            store: "embedded",
            others: Box::new(pointsman::control::Others::default),
            routes: Box::new(|| 41),
            traefiks: Box::new(|| Traefiks {
                by_status: BTreeMap::from([("serving", 2), ("down", 1)]),
                lags: BTreeMap::from([("http://t:1".to_owned(), Duration::from_millis(2500))]),
                router_errors: BTreeMap::from([("http://t:1".to_owned(), 4)]),
                went_on: 5,
            }),
            activity_age: Some(Box::new(|| Some(Duration::from_millis(1500)))),
            activity_holder: Some(Box::new(|| true)),
            child_restarts: Some({
                let restarts = restarts.clone();
                Box::new(move || restarts.load(Ordering::Relaxed))
            }),
            sockets: vec![("users", Box::new(|| Sockets { open: 12, max: 2048, limit_reached: 3 }))],
            kept: Some(Box::new(|| Some(Kept { newest: Some((Duration::from_secs(7), 4321)), failures: 3 }))),
            fallback: Some(Box::new(|| true)),
            traffic: Some(Box::new(move || traffic.clone())),
        };
        let api = serve(&lifecycle, api::router(state)).await;
        let metrics = serve(&lifecycle, router(Arc::new(Metrics::new(sources)))).await;
        Self { api, metrics, routes, readiness, restarts, lifecycle }
    }

    async fn call(&self, line: &str, token: &str, body: &str) -> u16 {
        ask(self.api, request(line, &format!("Authorization: token {token}\r\n"), body)).await.status
    }

    async fn scrape(&self) -> BTreeMap<String, f64> {
        let reply = ask(self.metrics, request("GET /metrics", "", "")).await;
        assert_eq!(reply.status, 200);
        parse(&reply)
    }
}

async fn serve(lifecycle: &Lifecycle, router: axum::Router) -> SocketAddr {
    let listener = Listener::bind("--metrics-ip", "127.0.0.1", 0, Limits::default()).await.expect("listens");
    let address = listener.addresses()[0];
    lifecycle.spawn_front("listener", listener.serve("listener", router, lifecycle.draining()));
    address
}

/// Reads the text format as a scraper does: each sample belongs to the metric that was announced before it.
fn parse(reply: &Reply) -> BTreeMap<String, f64> {
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(reply.body.ends_with('\n'));
    let (mut samples, mut announced, mut seen) = (BTreeMap::new(), (String::new(), String::new()), BTreeSet::new());
    for line in reply.body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let name = help.split(' ').next().expect("a name").to_owned();
            assert!(help.len() > name.len() + 1, "no help: {line}");
            assert!(seen.insert(name.clone()), "announced twice: {line}");
            announced = (name, String::new());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a kind");
            assert_eq!(name, announced.0, "{line}");
            assert!(["counter", "gauge", "histogram", "untyped"].contains(&kind), "{line}");
            kind.clone_into(&mut announced.1);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            let name = series.split('{').next().expect("a name");
            let base = match announced.1.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)),
                _ => Some(name),
            };
            assert_eq!(base, Some(announced.0.as_str()), "{line}");
            let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    samples
}

#[tokio::test]
async fn calls_are_counted_by_method_and_status_under_both_names() {
    let world = World::start(None).await;
    let good = r#"{"target":"http://x"}"#;
    for (line, token, body, status) in [
        ("POST /api/routes/a", TOKEN, good, 201),
        ("POST /api/routes/b", TOKEN, good, 201),
        ("POST /api/routes/b", TOKEN, "junk", 400),
        ("POST /api/routes/b", "wrong", good, 403),
        ("GET /api/routes", TOKEN, "", 200),
        ("GET /api/routes/none", TOKEN, "", 404),
        ("GET /elsewhere", TOKEN, "", 404),
        ("DELETE /api/routes/a", TOKEN, "", 204),
        ("DELETE /api/routes/a", TOKEN, "", 404),
        ("BREW /api/routes/a", TOKEN, "", 405),
        ("GET /healthz", TOKEN, "", 200),
        ("GET /readyz", TOKEN, "", 200),
    ] {
        assert_eq!(world.call(line, token, body).await, status, "{line}");
    }
    let samples = world.scrape().await;
    for (series, value) in [
        (r#"pointsman_api_calls_total{method="POST",status="201"}"#, 2.0),
        (r#"pointsman_api_calls_total{method="POST",status="400"}"#, 1.0),
        (r#"pointsman_api_calls_total{method="POST",status="403"}"#, 1.0),
        (r#"pointsman_api_calls_total{method="GET",status="200"}"#, 1.0),
        (r#"pointsman_api_calls_total{method="GET",status="404"}"#, 2.0),
        (r#"pointsman_api_calls_total{method="other",status="405"}"#, 1.0),
        ("pointsman_api_call_seconds_count", 10.0),
        (r#"pointsman_api_call_seconds_bucket{le="+Inf"}"#, 10.0),
        ("api_route_get", 2.0),
        ("api_route_add", 2.0),
        ("api_route_delete", 2.0),
        (r#"requests_api{status="404"}"#, 3.0),
        (r#"requests_api{status="201"}"#, 2.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series} in {samples:#?}");
    }
    assert!(!samples.keys().any(|series| series.starts_with("requests_web")), "not known is not 0");
    assert_eq!(world.routes.take_calls().len(), 6);
}

#[tokio::test]
async fn what_other_rooms_know_is_asked_at_each_scrape() {
    let world = World::start(Some(traffic())).await;
    let before = world.scrape().await;
    world.readiness.hold("records", "the store is away");
    world.restarts.store(3, Ordering::Relaxed);
    let after = world.scrape().await;
    let version = env!("CARGO_PKG_VERSION");
    let build = format!(r#"pointsman_build_info{{version="{version}",store="embedded"}}"#);
    let late = r#"pointsman_not_ready{latch="records"}"#;
    for (series, then, now) in [
        (build.as_str(), Some(1.0), Some(1.0)),
        ("pointsman_ready", Some(1.0), Some(0.0)),
        (late, None, Some(1.0)),
        ("pointsman_routes", Some(41.0), Some(41.0)),
        (r#"pointsman_traefiks{status="serving"}"#, Some(2.0), Some(2.0)),
        (r#"pointsman_traefik_lag_seconds{traefik="http://t:1"}"#, Some(2.5), Some(2.5)),
        (r#"pointsman_traefik_router_errors{traefik="http://t:1"}"#, Some(4.0), Some(4.0)),
        ("pointsman_changes_without_laggard_total", Some(5.0), Some(5.0)),
        (r#"pointsman_socket_connections{of="users"}"#, Some(12.0), Some(12.0)),
        (r#"pointsman_socket_connections_max{of="users"}"#, Some(2048.0), Some(2048.0)),
        (r#"pointsman_socket_connections_limit_reached_total{of="users"}"#, Some(3.0), Some(3.0)),
        ("pointsman_traefik_restarts_total", Some(0.0), Some(3.0)),
        ("pointsman_activity_age_seconds", Some(1.5), Some(1.5)),
        ("pointsman_activity_holder", Some(1.0), Some(1.0)),
        ("requests_web", Some(7.0), Some(7.0)),
        ("requests_ws", Some(2.0), Some(2.0)),
        (r#"requests_proxy{status="503"}"#, Some(1.0), Some(1.0)),
    ] {
        assert_eq!((before.get(series).copied(), after.get(series).copied()), (then, now), "{series}");
    }
    // What the kernel says about this very process.
    let now = Timestamp::now().as_second();
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    let age = now as f64 - after["process_start_time_seconds"];
    assert!((-2.0..600.0).contains(&age), "started {age} s ago");
    assert!(after["process_resident_memory_bytes"] > 1e6 && after["process_open_fds"] >= 3.0, "{after:#?}");
    assert!(after["process_cpu_seconds_total"] >= 0.0 && after["process_max_fds"] >= after["process_open_fds"]);
}

#[tokio::test]
async fn there_is_nothing_else_and_no_token() {
    let world = World::start(None).await;
    for (line, status) in [
        ("HEAD /metrics", 200),
        ("POST /metrics", 405),
        ("GET /metrics/", 404),
        ("GET /", 404),
        ("GET /api/routes", 404),
        ("GET /healthz", 404),
    ] {
        let reply = ask(world.metrics, request(line, "", "")).await;
        assert_eq!(reply.status, status, "{line}");
        assert!(status == 405 || status == 404 || reply.body.is_empty(), "{reply:?}");
    }
}

#[tokio::test]
async fn every_metric_is_in_the_documents_and_the_other_way_round() {
    let world = World::start(Some(traffic())).await;
    world.readiness.hold("x", "y");
    world.call("GET /api/routes", TOKEN, "").await;
    let body = ask(world.metrics, request("GET /metrics", "", "")).await.body;
    let served: BTreeSet<_> =
        body.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect();
    let text = include_str!("../../docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with('|') && !line.contains("| Missing"));
    let documented: BTreeSet<_> = rows
        .flat_map(|row| {
            let names = row.split('|').nth(1).unwrap_or_default();
            names.split('`').skip(1).step_by(2).map(|name| name.split('{').next().unwrap_or_default().to_owned())
        })
        .collect();
    assert_eq!(served, documented);
}

#[tokio::test]
async fn the_control_plane_counts_its_commits_and_waits() {
    let (lifecycle, readiness) = (Lifecycle::new(), Readiness::new());
    let settings = Settings {
        records: RecordKeys::new("pointsman/hub"),
        sizes: Sizes::default(),
        room: Room { max: Weight { routes: 10, bytes: 1 << 20 }, share_percent: 100 },
        ..crate::control::settings("web")
    };
    let fleet = Arc::new(Fleet::new(Access::etcd()));
    let control = ControlPlane::start(
        &lifecycle,
        &readiness,
        Arc::new(SystemClock),
        Arc::new(MemoryStore::new()),
        fleet,
        settings,
    );
    let counts = control.counts();
    // No Traefik is there, so nobody waits with success; but the commit is made, and the wait is counted.
    let target = Target::parse("http://x").expect("valid");
    let spec = RouteSpec::from_decoded("/a").expect("valid");
    control.add(spec, target, serde_json::Map::new(), None).await.expect_err("no Traefik");
    assert!(counts.commits() >= 1);
    assert_eq!(counts.failures(), 0);
    assert_eq!(counts.traefik_waits.read().count, 1);
    assert!(counts.traefik_waits.read().sum_s > 1.0);
    lifecycle.stop();
}
