//! The pages that Traefik fetches from us: the sentinel's health answer, and error pages for users.
//!
//! Its listener is its own, for users' requests end here through Traefik; nothing on it needs or takes a token.

pub mod fallback;

mod error_target;
mod folder;
mod plain;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use tracing::debug;
use url::Url;

use super::answer::{Answer, RETRY_AFTER_S};
use super::listen::Limits;
use error_target::ErrorTarget;
use folder::Folder;

/// What Traefik says about itself when it asks for the health answer.
const REVISION_HEADER: &str = "x-pointsman-revision";

/// The longest page that is passed on, in bytes.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// The limits of the pages listener. Traefik asks for an error page with the address that the user asked for, in which
/// each byte may become three: of the 68 KB that Traefik lets in at most.
#[must_use]
pub fn limits() -> Limits {
    Limits { head_bytes_max: 256 * 1024, ..Limits::default() }
}

/// Where error pages come from. The first that has one is asked; our own page is always there.
#[derive(Debug, Clone, Default)]
pub struct PagesSettings {
    /// A server that is asked as configurable-http-proxy does: `URL/CODE?url=PATH`.
    pub error_target: Option<Url>,
    /// A folder with `CODE.html` and `error.html`.
    pub error_path: Option<PathBuf>,
    /// Who we are to an `error_target` with https, and whom we believe.
    pub tls: PagesTls,
}

/// The side of a TLS client, all in PEM: the files of `--client-ssl-…`. They are read again when they change.
#[derive(Debug, Clone, Default)]
pub struct PagesTls {
    /// The only authorities that are believed; without it, those of the system.
    pub ca: Option<PathBuf>,
    /// Our certificate; needs `key`.
    pub cert: Option<PathBuf>,
    /// Its key; needs `cert`.
    pub key: Option<PathBuf>,
}

/// Says whether a Traefik that asks for the health answer may serve new users.
#[async_trait]
pub trait Sentinel: Send + Sync + 'static {
    /// Why the Traefik that serves this revision may not; `None` if it may.
    async fn withdrawn(&self, revision: &str) -> Option<String>;
}

/// Finds everybody well.
#[derive(Debug)]
struct Trusting;

#[async_trait]
impl Sentinel for Trusting {
    async fn withdrawn(&self, _: &str) -> Option<String> {
        None
    }
}

/// What the handlers share.
struct Sources {
    sentinel: Arc<dyn Sentinel>,
    error_target: Option<ErrorTarget>,
    folder: Option<Folder>,
}

/// An error page. Of the headers that came with it these two are passed on, and no others.
struct Page {
    body: Bytes,
    content_type: Option<HeaderValue>,
    content_encoding: Option<HeaderValue>,
}

/// Every address of the pages listener.
///
/// `/error/CODE?url=URL` is an error page with that status, `/starting` the page of a proxy without routes, and
/// `/_chp_healthz` the health answer.
pub fn router(settings: &PagesSettings) -> Result<Router, PagesError> {
    router_with(settings, Arc::new(Trusting))
}

/// The same, where `sentinel` decides on the health answer.
pub fn router_with(settings: &PagesSettings, sentinel: Arc<dyn Sentinel>) -> Result<Router, PagesError> {
    let error_target = settings.error_target.as_ref().map(|url| ErrorTarget::new(url, settings.tls.clone()));
    let sources = Sources {
        sentinel,
        error_target: error_target.transpose()?,
        folder: settings.error_path.as_deref().map(Folder::new).transpose()?,
    };
    Ok(Router::new()
        .route("/_chp_healthz", any(chp_healthz))
        .route("/error/{status}", any(error_page))
        .route("/starting", any(starting))
        .fallback(|| async { Answer::not_found() })
        .with_state(Arc::new(sources)))
}

/// A source of error pages can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting} can't be used: {reason}")]
pub struct PagesError {
    setting: &'static str,
    reason: String,
}

/// The body of configurable-http-proxy's own health check, whatever the method; 503 to a Traefik that is to be taken out
/// of service.
async fn chp_healthz(State(sources): State<Arc<Sources>>, request: Request) -> Response {
    let revision = request.headers().get(REVISION_HEADER).and_then(|value| value.to_str().ok());
    debug!(revision, "Traefik asked whether we are well");
    if let Some(revision) = revision
        && let Some(reason) = sources.sentinel.withdrawn(revision).await
    {
        debug!(revision, reason, "Traefik was told that it is behind");
        return Answer::sentence(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}")).into_response();
    }
    let mut response = Response::new(Body::from(r#"{"status":"OK"}"#));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn error_page(State(sources): State<Arc<Sources>>, Path(status): Path<String>, request: Request) -> Response {
    let Some(status) = error_status(&status) else { return Answer::not_found().into_response() };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Answer::method_not_supported().into_response();
    }
    let visited = visited(request.uri().query().unwrap_or_default());
    let page = sources.page(status, visited.as_deref()).await;
    respond(status, page.unwrap_or_else(|| Page::ours(plain::page(status))))
}

/// The same page as a whole answer in HTTP/1.1, for a connection that ends with it.
#[must_use]
pub fn starting_answer() -> Vec<u8> {
    let page = plain::starting();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Retry-After: {RETRY_AFTER_S}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Connection: close\r\n\r\n{page}",
        page.len()
    )
    .into_bytes()
}

/// What a proxy answers that has just started and has no routes yet.
async fn starting() -> Response {
    let mut response = respond(StatusCode::SERVICE_UNAVAILABLE, Page::ours(plain::starting()));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
    response
}

impl Sources {
    async fn page(&self, status: StatusCode, visited: Option<&str>) -> Option<Page> {
        if let Some(target) = &self.error_target
            && let Some(page) = target.page(status, visited).await
        {
            return Some(page);
        }
        match &self.folder {
            Some(folder) => folder.page(status).await,
            None => None,
        }
    }
}

impl Page {
    fn ours(html: String) -> Self {
        let content_type = Some(HeaderValue::from_static("text/html; charset=utf-8"));
        Self { body: html.into(), content_type, content_encoding: None }
    }
}

fn respond(status: StatusCode, page: Page) -> Response {
    let mut response = Response::new(Body::from(page.body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.extend(page.content_type.map(|value| (header::CONTENT_TYPE, value)));
    headers.extend(page.content_encoding.map(|value| (header::CONTENT_ENCODING, value)));
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
