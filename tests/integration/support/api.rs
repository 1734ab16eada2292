//! The API over a table in memory whose faults a test can choose.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use pointsman::activity::LastActivity;
use pointsman::api::auth::{AuthSettings, Authenticator};
use pointsman::api::listen::tls::Tls;
use pointsman::api::listen::{Limits, Listener};
use pointsman::api::{self, ApiSettings, ApiState};
use pointsman::clock::{Clock, SharedClock};
use pointsman::control::{ControlError, LastKnown, Routes};
use pointsman::lifecycle::{Lifecycle, Readiness};
use pointsman::route::{Route, RouteData, RouteSpec, RouteTable, Target};
use serde_json::{Value, json};

use super::http::{Reply, ask};

/// The token that opens the API of these tests.
pub(crate) const TOKEN: &str = "s3cret-token-of-the-tests";

/// What goes wrong with the next calls.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// They fail.
    Fail(ControlError),
    /// They never end.
    Hang,
    /// They panic.
    Panic,
}

/// Routes in memory.
#[derive(Debug, Default)]
pub(crate) struct FakeRoutes {
    table: Mutex<RouteTable>,
    fault: Mutex<Option<Fault>>,
    /// For how long nobody has confirmed the table, if it is told when a call fails.
    pub(crate) known: Mutex<Option<Duration>>,
    calls: Mutex<Vec<String>>,
    /// The prefixes that the caller of the last addition was limited to.
    pub(crate) below: Mutex<Option<Vec<RouteSpec>>>,
}

impl FakeRoutes {
    /// From now on, this goes wrong.
    pub(crate) fn break_with(&self, fault: impl Into<Option<Fault>>) {
        *self.fault.lock().expect("nobody panics with it") = fault.into();
    }

    /// What was asked of it, since the last time this was asked.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().expect("nobody panics with it"))
    }

    async fn enter(&self, call: String) -> Result<(), ControlError> {
        self.calls.lock().expect("nobody panics with it").push(call);
        let fault = self.fault.lock().expect("nobody panics with it").clone();
        match fault {
            None => Ok(()),
            Some(Fault::Fail(error)) => Err(error),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Panic) => panic!("as the test asked for"),
        }
    }
}

#[async_trait]
impl Routes for FakeRoutes {
    async fn add(
        &self,
        spec: RouteSpec,
        target: Target,
        data: RouteData,
        below: Option<&[RouteSpec]>,
    ) -> Result<(), ControlError> {
        *self.below.lock().expect("nobody panics with it") = below.map(ToOwned::to_owned);
        self.enter(format!("add {spec} {target}")).await?;
        let route = Route { spec, target, data, created: Timestamp::UNIX_EPOCH, n: 1 };
        self.table.lock().expect("nobody panics with it").insert(Arc::new(route));
        Ok(())
    }

    async fn remove(&self, spec: RouteSpec) -> Result<bool, ControlError> {
        self.enter(format!("remove {spec}")).await?;
        Ok(self.table.lock().expect("nobody panics with it").remove(&spec).is_some())
    }

    async fn get(&self, spec: &RouteSpec) -> Result<Option<Arc<Route>>, ControlError> {
        self.enter(format!("get {spec}")).await?;
        Ok(self.table.lock().expect("nobody panics with it").get(spec).cloned())
    }

    async fn list(&self) -> Result<Vec<Arc<Route>>, ControlError> {
        self.enter("list".to_owned()).await?;
        Ok(self.table.lock().expect("nobody panics with it").iter().cloned().collect())
    }

    fn last_known(&self) -> Option<LastKnown> {
        let age = (*self.known.lock().expect("nobody panics with it"))?;
        Some(LastKnown { table: Arc::new(self.table.lock().expect("nobody panics with it").clone()), age })
    }
}

/// Says when routes were last used, as a test has set it.
#[derive(Debug, Default)]
pub(crate) struct FakeActivity {
    /// When routes that are not in `last` were used; `None`: nothing is known.
    pub(crate) otherwise: Mutex<Option<Timestamp>>,
    pub(crate) last: Mutex<BTreeMap<String, Timestamp>>,
    pub(crate) posted: Mutex<Vec<String>>,
}

impl LastActivity for FakeActivity {
    fn of(&self, routes: &[Arc<Route>]) -> Option<Vec<Timestamp>> {
        let otherwise = (*self.otherwise.lock().expect("nobody panics with it"))?;
        let last = self.last.lock().expect("nobody panics with it");
        Some(routes.iter().map(|route| last.get(route.spec.as_str()).copied().unwrap_or(otherwise)).collect())
    }

    fn posted(&self, spec: &RouteSpec) {
        self.posted.lock().expect("nobody panics with it").push(spec.as_str().to_owned());
    }
}

/// A clock that a test sets.
#[derive(Debug)]
pub(crate) struct SetClock(pub(crate) Mutex<Timestamp>);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("nobody panics with it")
    }
}

/// The time at which tests begin.
pub(crate) const NOW_S: i64 = 1_800_000_000;

/// How a test wants its API.
pub(crate) struct Setup {
    /// Tokens.
    pub(crate) auth: AuthSettings,
    /// The API.
    pub(crate) settings: ApiSettings,
    /// The listener.
    pub(crate) limits: Limits,
    /// The TLS of the listener.
    pub(crate) tls: Option<Tls>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            auth: AuthSettings { tokens: vec![TOKEN.into()], jwt: None },
            settings: ApiSettings::default(),
            limits: Limits { stop_timeout: Duration::from_secs(2), ..Limits::default() },
            tls: None,
        }
    }
}

/// A running API.
pub(crate) struct Api {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What it works on.
    pub(crate) routes: Arc<FakeRoutes>,
    /// When they were used; unknown until a test says so.
    pub(crate) activity: Arc<FakeActivity>,
    /// Who may call.
    pub(crate) auth: Arc<Authenticator>,
    /// Whether it is ready.
    pub(crate) readiness: Readiness,
    /// The time.
    pub(crate) clock: Arc<SetClock>,
    /// Stops it.
    pub(crate) lifecycle: Lifecycle,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.lifecycle.stop();
    }
}

impl Api {
    /// One with the usual token, without routes.
    pub(crate) async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    /// One with host routing.
    pub(crate) async fn start_host_routed() -> Self {
        let settings = ApiSettings { host_routing: true, ..ApiSettings::default() };
        Self::start_with(Setup { settings, ..Setup::default() }).await
    }

    /// One as the test wants it.
    pub(crate) async fn start_with(setup: Setup) -> Self {
        let routes = Arc::new(FakeRoutes::default());
        let clock = Arc::new(SetClock(Mutex::new(Timestamp::from_second(NOW_S).expect("in range"))));
        let shared: SharedClock = clock.clone();
        let auth = Arc::new(Authenticator::new(&setup.auth, shared).expect("usable settings"));
        let readiness = Readiness::new();
        let lifecycle = Lifecycle::new();
        let listener = Listener::bind("--api-ip, --api-port", "127.0.0.1", 0, setup.limits).await.expect("a free port");
        let address = listener.addresses()[0];
        let activity = Arc::new(FakeActivity::default());
        let listener = match setup.tls {
            Some(tls) => listener.with_tls(tls),
            None => listener,
        };
        let state = ApiState::new(routes.clone(), auth.clone(), readiness.clone(), setup.settings);
        let state = state.with_last_activity(activity.clone());
        lifecycle.spawn_front("api", listener.serve("api", api::router(state), lifecycle.draining()));
        Self { address, routes, activity, auth, readiness, clock, lifecycle }
    }

    /// Sends `METHOD PATH` with the right token.
    pub(crate) async fn call(&self, line: &str, body: &str) -> Reply {
        self.call_as(line, &format!("Authorization: token {TOKEN}\r\n"), body).await
    }

    /// Sends `METHOD PATH` with other headers, each ended by CR LF.
    pub(crate) async fn call_as(&self, line: &str, headers: &str, body: &str) -> Reply {
        ask(self.address, request(line, headers, body)).await
    }

    /// Adds a route, which must succeed.
    pub(crate) async fn add(&self, path: &str, target: &str) {
        let body = json!({"target": target}).to_string();
        let reply = self.call(&format!("POST /api/routes{path}"), &body).await;
        assert_eq!((reply.status, reply.body.as_str()), (201, ""), "POST {path}");
    }

    /// All routes.
    pub(crate) async fn table(&self) -> Value {
        let reply = self.call("GET /api/routes", "").await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
        reply.json()
    }

    /// The paths of all routes.
    pub(crate) async fn keys(&self) -> Vec<String> {
        self.table().await.as_object().expect("an object").keys().cloned().collect()
    }
}

/// A request with a body, and `Connection: close`.
pub(crate) fn request(line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("{line} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}
