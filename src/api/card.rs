//! What a member of etcd shows the others while it waits to start. It holds no secret, so nobody needs a token.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::Value;

use super::answer::Answer;

/// What is shown now; `None`: nothing yet.
pub type ReadCard = Arc<dyn Fn() -> Option<Value> + Send + Sync>;

/// Shows the card at `path`, and nothing anywhere else.
pub fn router(path: &'static str, read: ReadCard) -> Router {
    Router::new().route(path, get(card)).fallback(|| async { Answer::not_found() }).with_state(read)
}

async fn card(State(read): State<ReadCard>) -> Answer {
    match read() {
        Some(card) => Answer::json(StatusCode::OK, &card),
        None => Answer::unavailable("there is nothing to show yet"),
    }
}
