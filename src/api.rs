//! The API: configurable-http-proxy's REST interface, over HTTP/1.1.
//!
//! A call passes [`guard`] (request id, log line, deadline, panics), then [`auth`], and only then is its path parsed and
//! its body read. `docs/api.md` says what clients may rely on.

pub mod auth;
pub mod card;
pub mod connections;
pub mod listen;
pub mod metrics;
pub mod pages;

mod answer;
mod caller;
mod guard;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::routing::any;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::activity::{LastActivity, Unknown};
use crate::control::Routes;
use crate::files;
use crate::lifecycle::Readiness;
use answer::Answer;
use auth::Authenticator;
use metrics::CallCounts;
pub use routes::{listed, would_record};

/// What shapes the API's answers.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// The first segment of a route is a host name.
    pub host_routing: bool,
    /// Targets may be Unix sockets: whoever serves the routes can reach them.
    pub unix_targets: bool,
    /// Every call is answered within this time: hubs of version 4 and 5 hang up after 10 s.
    pub deadline: Duration,
    /// The longest body that is read, in bytes. The hub's are below 1 KiB.
    pub body_bytes_max: usize,
    /// How many calls are worked on at once. The hub sends 10.
    pub calls_max: usize,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            host_routing: false,
            unix_targets: false,
            // A little more than the control plane takes at most, whose answer says better what is missing.
            deadline: Duration::from_millis(7800),
            body_bytes_max: 64 * 1024,
            calls_max: 256,
        }
    }
}

/// What the handlers share.
#[derive(Clone)]
pub struct ApiState {
    routes: Arc<dyn Routes>,
    activity: Arc<dyn LastActivity>,
    auth: Arc<Authenticator>,
    readiness: Readiness,
    settings: Arc<ApiSettings>,
    calls: Arc<Semaphore>,
    counts: Arc<CallCounts>,
}

impl ApiState {
    /// The API over `routes`. Nothing is known about when they were last used.
    #[must_use]
    pub fn new(routes: Arc<dyn Routes>, auth: Arc<Authenticator>, readiness: Readiness, settings: ApiSettings) -> Self {
        let calls = Arc::new(Semaphore::new(settings.calls_max));
        Self {
            routes,
            activity: Arc::new(Unknown),
            auth,
            readiness,
            settings: Arc::new(settings),
            calls,
            counts: Arc::default(),
        }
    }

    /// The same, and `activity` knows when routes were last used.
    #[must_use]
    pub fn with_last_activity(self, activity: Arc<dyn LastActivity>) -> Self {
        Self { activity, ..self }
    }

    /// What is counted about the calls of this API.
    #[must_use]
    pub fn counts(&self) -> Arc<CallCounts> {
        self.counts.clone()
    }
}

/// Every address of the API.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/api/routes", any(routes::handle))
        .route("/api/routes/", any(routes::handle))
        .route("/api/routes/{*path}", any(routes::handle))
        .route("/api", any(about))
        .route("/api/", any(about))
        .route("/healthz", any(healthz))
        .route("/readyz", any(readyz))
        .fallback(|| async { Answer::not_found() })
        .layer(axum::middleware::from_fn_with_state(state.clone(), guard::guard))
        .with_state(state)
}

/// Says what answers here; nothing in it is secret.
async fn about(request: Request) -> Answer {
    read_only(&request, || {
        let about = json!({
            "name": env!("CARGO_PKG_NAME"),
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The REST API of configurable-http-proxy, by Pointsman",
            "links": {"routes": "/api/routes", "health": "/healthz", "ready": "/readyz"},
        });
        Answer::json(StatusCode::OK, &about)
    })
}

/// Answers as long as the process serves.
async fn healthz(request: Request) -> Answer {
    read_only(&request, || Answer::sentence(StatusCode::OK, "ok"))
}

/// Whether this replica may be asked to change routes, and if not, why not.
async fn readyz(State(state): State<ApiState>, request: Request) -> Answer {
    read_only(&request, || {
        let missing = state.readiness.missing();
        let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut body = json!({"ready": missing.is_empty(), "missing": missing});
        // What does not keep us from being ready, such as one Traefik of several that lags.
        let notes = state.readiness.notes();
        if !notes.is_empty() {
            body["warnings"] = json!(notes);
        }
        Answer::json(status, &body)
    })
}

fn read_only(request: &Request, answer: impl FnOnce() -> Answer) -> Answer {
    match *request.method() {
        Method::GET | Method::HEAD => answer(),
        _ => Answer::method_not_supported(),
    }
}
