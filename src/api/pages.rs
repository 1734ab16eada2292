//! The pages that Traefik fetches from us: the sentinel's health answer, and error pages for users.
//!
//! Its listener is its own, for users' requests end here through Traefik; nothing on it needs or takes a token.

mod error_target;
mod plain;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use tracing::debug;
use url::Url;

use super::answer::Answer;
use error_target::{ErrorTarget, Page};

/// What Traefik says about itself when it asks for the health answer.
const REVISION_HEADER: &str = "x-pointsman-revision";

/// Every address of the pages listener. With an `error_target` that server is asked for error pages first.
pub fn router(error_target: Option<&Url>) -> Result<Router, PagesError> {
    let error_target = error_target.map(ErrorTarget::new).transpose()?.map(Arc::new);
    Ok(Router::new()
        .route("/_chp_healthz", any(chp_healthz))
        .route("/error/{status}", any(error_page))
        .fallback(|| async { Answer::not_found() })
        .with_state(error_target))
}

/// The error target can't be asked.
#[derive(Debug, thiserror::Error)]
#[error("--error-target can't be used: {0}")]
pub struct PagesError(String);

/// The body of configurable-http-proxy's own health check, whatever the method.
async fn chp_healthz(request: Request) -> Response {
    let revision = request.headers().get(REVISION_HEADER).and_then(|value| value.to_str().ok());
    debug!(revision, "Traefik asked whether we are well");
    let mut response = Response::new(Body::from(r#"{"status":"OK"}"#));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn error_page(
    State(target): State<Option<Arc<ErrorTarget>>>,
    Path(status): Path<String>,
    request: Request,
) -> Response {
    let Some(status) = error_status(&status) else { return Answer::not_found().into_response() };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Answer::method_not_supported().into_response();
    }
    let asked = match &target {
        Some(target) => target.page(status, visited(request.uri().query().unwrap_or_default()).as_deref()).await,
        None => None,
    };
    let Page { body, content_type, content_encoding } = asked.unwrap_or_else(|| Page {
        body: plain::page(status).into(),
        content_type: Some(HeaderValue::from_static("text/html; charset=utf-8")),
        content_encoding: None,
    });
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.extend(content_type.map(|value| (header::CONTENT_TYPE, value)));
    headers.extend(content_encoding.map(|value| (header::CONTENT_ENCODING, value)));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn error_status(text: &str) -> Option<StatusCode> {
    let status = StatusCode::from_bytes(text.as_bytes()).ok()?;
    (status.is_client_error() || status.is_server_error()).then_some(status)
}

/// Path and query of the page that the user wanted. Traefik gives the whole URL; the error target gets no host, as from
/// configurable-http-proxy.
fn visited(query: &str) -> Option<String> {
    let (_, url) = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "url")?;
    if url.starts_with('/') {
        return Some(url.into_owned());
    }
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "http" | "https" | "ws" | "wss") {
        return None;
    }
    let rest = rest.find(['/', '?']).map_or("", |at| &rest[at..]);
    Some(if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("url=http%3A%2F%2Fhub%3A80%2Fuser%2Fj%2540x%2F%3Fa%3D1%26b", Some("/user/j%40x/?a=1&b"))]
    #[case("url=https%3A%2F%2Fhub", Some("/"))]
    #[case("url=https%3A%2F%2Fhub%3Fq", Some("/?q"))]
    #[case("url=%2Fx%3Fy", Some("/x?y"))]
    #[case("x=1&url=/a&url=/b", Some("/a"))]
    #[case("url=javascript%3Aalert(1)", None)]
    #[case("url=", None)]
    #[case("", None)]
    fn path_and_query_of_a_visit(#[case] query: &str, #[case] expected: Option<&str>) {
        assert_eq!(visited(query).as_deref(), expected);
    }

    #[test]
    fn only_errors_have_pages() {
        for (text, good) in
            [("503", true), ("404", true), ("599", true), ("200", false), ("302", false), ("600", false)]
        {
            assert_eq!(error_status(text).is_some(), good, "{text}");
        }
        assert!(error_status("5030").is_none() && error_status("-1").is_none() && error_status("x").is_none());
    }
}
