//! The fallback for Traefik's HTTP provider: it lists every route, so whoever asks must show a key.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use tracing::{debug, warn};

use crate::api::answer::Answer;
use crate::api::auth::Authenticator;
use crate::control::{Fallback, Offer};
use crate::telemetry::seldom::Seldom;

/// Its path on the pages listener.
pub const PATH: &str = "/fallback";

/// The header with the key, of [`crate::api::auth::fallback_key`].
pub const KEY_HEADER: &str = "X-Pointsman-Fallback-Key";

/// A Traefik with a wrong key asks every other second.
static WRONG_KEY: Seldom = Seldom::every(Duration::from_secs(60));

/// The address of the fallback, for the pages listener.
pub fn router(fallback: Arc<Fallback>, auth: Arc<Authenticator>) -> Router {
    Router::new().route(PATH, any(answer)).with_state((fallback, auth))
}

async fn answer(State((fallback, auth)): State<(Arc<Fallback>, Arc<Authenticator>)>, request: Request) -> Response {
    let key = request.headers().get(KEY_HEADER).and_then(|key| key.to_str().ok());
    if !key.is_some_and(|key| auth.knows_fallback_key(key)) {
        if WRONG_KEY.is_due() {
            let given = if key.is_some() { "a wrong key" } else { "no key" };
            warn!(
                "Somebody asked for the fallback with {given}; is it a Traefik whose configuration was written for another \
                 token? Write it again with traefik-config"
            );
        }
        return Answer::empty(StatusCode::FORBIDDEN).into_response();
    }
    if *request.method() != Method::GET {
        return Answer::method_not_supported().into_response();
    }
    match fallback.ask().await {
        Offer::Routes(document) | Offer::Nothing(document) => {
            let mut response = Response::new(Body::from(document));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Offer::Keep(reason) => {
            debug!(reason, "Traefik was told to keep what it has: {reason}");
            Answer::unavailable(reason).into_response()
        }
    }
}
