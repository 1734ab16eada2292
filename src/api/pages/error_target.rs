//! The error target: a server, as a rule the hub, that has error pages in the look of the site.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::Semaphore;
use tracing::{debug, warn};
use url::Url;

use super::super::files::{self, Stamp};
use super::super::listen::tls::Pair;
use super::{PAGE_BYTES_MAX, Page, PagesError, PagesTls};
use crate::causes;
use crate::lifecycle::compute;
use crate::telemetry::seldom::Seldom;

/// Bundles of authorities may be long; nothing else is.
const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A user is waiting for the page; our own comes after this.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// When many servers die at once, the hub has other work than error pages.
const ASKING_MAX: usize = 64;

/// How often we say that it has no pages.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

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
    client: Arc<Mutex<Fresh>>,
    asking: Semaphore,
    complaint: Seldom,
}

/// A client, the files that it was made from, and how they looked.
struct Fresh {
    client: reqwest::Client,
    tls: PagesTls,
    files: Stamp,
}

impl Fresh {
    /// The client, made anew if its files have changed.
    fn client(&mut self) -> reqwest::Client {
        let files = self.tls.stamp();
        if files != self.files {
            match self.tls.client("https") {
                Ok(client) => self.client = client,
                Err((setting, reason)) => {
                    warn!(
                        setting,
                        reason, "Changed files can't be used, the old ones stay in force: {setting}: {reason}"
                    );
                }
            }
            self.files = files;
        }
        self.client.clone()
    }
}

impl ErrorTarget {
    /// The server at `url`; the status is added to its path.
    pub(super) fn new(url: &Url, tls: PagesTls) -> Result<Self, PagesError> {
        // Files that are of no use for this target need not even be there.
        let tls = if url.scheme() == "https" { tls } else { PagesTls::default() };
        let files = tls.stamp();
        let client = tls.client(url.scheme()).map_err(|(setting, reason)| PagesError { setting, reason })?;
        let mut base = url.clone();
        base.set_query(None);
        base.set_fragment(None);
        let base = base.as_str().trim_end_matches('/').to_owned();
        Ok(Self {
            base,
            client: Arc::new(Mutex::new(Fresh { client, tls, files })),
            asking: Semaphore::new(ASKING_MAX),
            complaint: Seldom::every(COMPLAINT_INTERVAL),
        })
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
                // Anybody may ask for as many pages as he likes.
                if self.complaint.is_due() {
                    warn!(reason, "No page from --error-target, using the plain one: {reason}");
                } else {
                    debug!(reason, "No page from --error-target");
                }
                None
            }
        }
    }

    /// The client of now. Files may lie on a disk that takes its time.
    async fn client(&self) -> reqwest::Client {
        let client = self.client.clone();
        compute(true, move || client.lock().unwrap_or_else(PoisonError::into_inner).client()).await
    }

    fn address(&self, status: StatusCode, visited: Option<&str>) -> String {
        let visited = utf8_percent_encode(visited.unwrap_or_default(), PLAIN);
        format!("{}/{}?url={visited}", self.base, status.as_u16())
    }

    async fn fetch(&self, address: &str) -> Result<Page, String> {
        // The address holds what the user visited, perhaps with a secret in its query: keep it out of the log.
        let text = |error: reqwest::Error| causes::innermost(&error.without_url());
        let mut response = self.client().await.get(address).send().await.map_err(text)?;
        let headers = response.headers();
        let [content_type, content_encoding] =
            [header::CONTENT_TYPE, header::CONTENT_ENCODING].map(|name| headers.get(name).cloned());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(text)? {
            body.extend_from_slice(&chunk);
            if body.len() > PAGE_BYTES_MAX {
                return Err(format!("its page is longer than {PAGE_BYTES_MAX} bytes"));
            }
        }
        Ok(Page { body: body.into(), content_type, content_encoding })
    }
}

impl PagesTls {
    fn stamp(&self) -> Stamp {
        Stamp::of([&self.ca, &self.cert, &self.key].into_iter().flatten().map(PathBuf::as_path))
    }

    /// A client that is who these files say. The error names the setting.
    fn client(&self, scheme: &str) -> Result<reqwest::Client, (&'static str, String)> {
        let mut client = reqwest::Client::builder()
            .timeout(ANSWER_MAX)
            // As in configurable-http-proxy, which doesn't look for a proxy in the environment either.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::limited(3));
        if scheme == "http" {
            // A small machine has no certificates of authorities, and then not even this client could be built.
            client = client.tls_certs_only(None);
        }
        if let Some(ca) = &self.ca {
            let refused = |error: &dyn std::fmt::Display| ("--client-ssl-ca", format!("{}: {error}", ca.display()));
            let authorities = reqwest::Certificate::from_pem_bundle(&read(ca).map_err(|error| refused(&error))?);
            let authorities = authorities.map_err(|error| refused(&error))?;
            if authorities.is_empty() {
                return Err(refused(&"it holds no certificate in PEM ('-----BEGIN CERTIFICATE-----')"));
            }
            client = client.tls_certs_only(authorities);
        }
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let both = "--client-ssl-cert and -key";
                Pair::read("--client-ssl", cert, key).map_err(|error| (both, error.to_string()))?;
                let mut pem = read(cert).map_err(|error| (both, error.to_string()))?;
                pem.push(b'\n');
                pem.extend(read(key).map_err(|error| (both, error.to_string()))?);
                client = client.identity(reqwest::Identity::from_pem(&pem).map_err(|e| (both, e.to_string()))?);
            }
            (None, None) => {}
            (Some(_), None) => return Err(("--client-ssl-cert", "it needs --client-ssl-key".to_owned())),
            (None, Some(_)) => return Err(("--client-ssl-key", "it needs --client-ssl-cert".to_owned())),
        }
        client.build().map_err(|error| ("--error-target", error.to_string()))
    }
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    files::read(file, PEM_BYTES_MAX)
}
