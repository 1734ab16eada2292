//! `Answer`: what a call is answered, and what only the log learns about it.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::control::ControlError;

/// How long a client should wait before it repeats a call that found us unavailable, in seconds.
pub(super) const RETRY_AFTER_S: &str = "1";

/// Says for how many seconds nobody has confirmed what an answer holds.
const STALE_HEADER: HeaderName = HeaderName::from_static("x-pointsman-stale");

/// What the caller gets: a status and at most a sentence or a JSON value.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    content: Option<&'static str>,
    body: Body,
    reason: Option<String>,
    stale: Option<Duration>,
}

/// Why a call was refused, for the one log line about it. Travels beside the answer, never to the caller.
#[derive(Debug, Clone)]
pub(super) struct Reason(pub(super) String);

impl Answer {
    /// A bare status.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, content: None, body: Body::empty(), reason: None, stale: None }
    }

    /// A JSON value.
    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => Self { content: Some("application/json"), body: bytes.into(), ..Self::empty(status) },
            Err(error) => Self::empty(StatusCode::INTERNAL_SERVER_ERROR).because(format!("no JSON: {error}")),
        }
    }

    /// A sentence of our own, as plain text; the log gets it too if it is a refusal.
    pub(super) fn sentence(status: StatusCode, text: impl Into<String>) -> Self {
        let text = text.into();
        let reason = (!status.is_success()).then(|| text.clone());
        Self { content: Some("text/plain; charset=utf-8"), body: text.into(), reason, ..Self::empty(status) }
    }

    /// A refusal in configurable-http-proxy's own words: as there, it has no content type.
    pub(super) fn as_chp(status: StatusCode, text: impl Into<String>) -> Self {
        Self { content: None, ..Self::sentence(status, text) }
    }

    /// No such address.
    pub(super) fn not_found() -> Self {
        Self { reason: None, ..Self::as_chp(StatusCode::NOT_FOUND, "Not Found") }
    }

    /// The address is there, but not for this method.
    pub(super) fn method_not_supported() -> Self {
        Self { reason: None, ..Self::as_chp(StatusCode::METHOD_NOT_ALLOWED, "Method not supported") }
    }

    /// The caller may not do this; why is for the log alone.
    pub(super) fn forbidden(reason: impl Into<String>) -> Self {
        Self::empty(StatusCode::FORBIDDEN).because(reason)
    }

    /// A passing fault: the hub repeats the call for 30 s, while any 4xx would end a spawn at once.
    pub(super) fn unavailable(text: impl Into<String>) -> Self {
        Self::sentence(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    /// The same, from routes that nobody has confirmed for so long.
    pub(super) fn stale(self, age: Option<Duration>) -> Self {
        Self { stale: age, ..self }
    }

    fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }
}

impl From<ControlError> for Answer {
    fn from(error: ControlError) -> Self {
        match &error {
            // To ask again does not help.
            ControlError::Unwritable(_) => Self::sentence(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            // A full table too is 503: a 4xx would stop the server that the hub has just started, and room may come back.
            _ => Self::unavailable(error.to_string()),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content) = self.content {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        if let Some(age) = self.stale {
            headers.insert(STALE_HEADER, HeaderValue::from(age.as_secs()));
        }
        if let Some(reason) = self.reason {
            response.extensions_mut().insert(Reason(reason));
        }
        response
    }
}
