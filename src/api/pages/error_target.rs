//! The error target: a server, as a rule the hub, that has error pages in the look of the site.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::Semaphore;
use tracing::{debug, warn};
use url::Url;

use super::PagesError;

/// A user is waiting for the page; our own comes after this.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The longest page that is passed on.
const BYTES_MAX: usize = 1024 * 1024;

/// When many servers die at once, the hub has other work than error pages.
const ASKING_MAX: usize = 64;

/// What JavaScript's `encodeURIComponent` leaves as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// A server that is asked for error pages.
pub(super) struct ErrorTarget {
    base: String,
    client: reqwest::Client,
    asking: Semaphore,
}

/// An error page. Of the headers that came with it these two are passed on, and no others.
pub(super) struct Page {
    /// Its content.
    pub(super) body: Bytes,
    /// What it is.
    pub(super) content_type: Option<HeaderValue>,
    /// How it is compressed.
    pub(super) content_encoding: Option<HeaderValue>,
}

impl ErrorTarget {
    /// The server at `url`; the status is added to its path.
    pub(super) fn new(url: &Url) -> Result<Self, PagesError> {
        let mut client = reqwest::Client::builder()
            .timeout(ANSWER_MAX)
            // As in configurable-http-proxy, which doesn't look for a proxy in the environment either.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::limited(3));
        if url.scheme() == "http" {
            // A small machine has no certificates of authorities, and then not even this client could be built.
            client = client.tls_certs_only(None);
        }
        let client = client.build().map_err(|error| PagesError(error.to_string()))?;
        let mut base = url.clone();
        base.set_query(None);
        base.set_fragment(None);
        let base = base.as_str().trim_end_matches('/').to_owned();
        Ok(Self { base, client, asking: Semaphore::new(ASKING_MAX) })
    }

    /// Its page for `status`, for a user who went to `visited`. Nothing else about the user is told.
    pub(super) async fn page(&self, status: StatusCode, visited: Option<&str>) -> Option<Page> {
        let Ok(_asking) = self.asking.try_acquire() else {
            debug!("{ASKING_MAX} error pages are being fetched already; using the plain one");
            return None;
        };
        match self.fetch(&self.address(status, visited)).await {
            Ok(page) => Some(page),
            Err(reason) => {
                warn!(reason, "No page from --error-target, using the plain one: {reason}");
                None
            }
        }
    }

    fn address(&self, status: StatusCode, visited: Option<&str>) -> String {
        let visited = utf8_percent_encode(visited.unwrap_or_default(), PLAIN);
        format!("{}/{}?url={visited}", self.base, status.as_u16())
    }

    async fn fetch(&self, address: &str) -> Result<Page, String> {
        // The address holds what the user visited, perhaps with a secret in its query: keep it out of the log.
        let text = |error: reqwest::Error| error.without_url().to_string();
        let mut response = self.client.get(address).send().await.map_err(text)?;
        let headers = response.headers();
        let [content_type, content_encoding] =
            [header::CONTENT_TYPE, header::CONTENT_ENCODING].map(|name| headers.get(name).cloned());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(text)? {
            body.extend_from_slice(&chunk);
            if body.len() > BYTES_MAX {
                return Err(format!("its page is longer than {BYTES_MAX} bytes"));
            }
        }
        Ok(Page { body: body.into(), content_type, content_encoding })
    }
}
