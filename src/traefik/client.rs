//! One Traefik's API over HTTP: which marker it serves, which version it is, how many of its routers are broken.

use std::io::{BufRead, BufReader, Read as _};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::GzDecoder;
use reqwest::header::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::dynamic_file::KEY_HEADER;
use super::fallback;
use super::fixed::{MARKER_HEADER, MARKER_MIDDLEWARE};
use super::marker::Marker;
use crate::causes;

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long a page of metrics may take: of 10,000 routes it takes 0.3 s.
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest page of metrics that is read, as it comes and unpacked, in bytes. Of 10,000 routes it has 14 MB.
const METRICS_BYTES_MAX: (usize, u64) = (32 << 20, 256 << 20);

/// How the Traefiks of a fleet are asked.
#[derive(Debug, Clone)]
pub struct Access {
    /// The provider that our routes come by, which Traefik puts behind each name: `etcd` or `rest`.
    pub provider: &'static str,
    /// The provider that they get our routes by when the first has none, if there is such a one.
    pub fallback: Option<&'static str>,
    /// What opens the private entry point, if it is keyed.
    pub key: Option<SecretString>,
}

impl Access {
    /// Traefiks that read from etcd, and whose private entry point is open to us.
    #[must_use]
    pub fn etcd() -> Self {
        Self { provider: "etcd", fallback: Some(fallback::PROVIDER), key: None }
    }

    /// Traefiks that get their routes pushed, through a private entry point with this key.
    #[must_use]
    pub fn push(key: SecretString) -> Self {
        Self { provider: "rest", fallback: None, key: Some(key) }
    }
}

/// Asks one Traefik.
#[derive(Debug, Clone)]
pub struct TraefikClient {
    http: reqwest::Client,
    base: Url,
    provider: &'static str,
    fallback: Option<&'static str>,
}

/// What a Traefik shows of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// The tree by the provider that our routes come by.
    Own(Marker),
    /// Only the tree that it asked us for, as it has none from the store.
    Fallback(Marker),
    /// It is up and has no marker of ours.
    Nothing,
}

/// Why a Traefik gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on its address: it serves no user either.
    #[error("nobody listens there")]
    Refused,
    /// It can't be reached, is too slow, or answers nonsense.
    #[error("{0}")]
    Silent(String),
}

/// A page of metrics, as it came over the network.
#[derive(Debug)]
pub struct Metrics {
    body: Vec<u8>,
    gzip: bool,
}

impl Metrics {
    /// The page as text, unpacked while it is read.
    #[must_use]
    pub fn reader(&self) -> Box<dyn BufRead + '_> {
        if self.gzip {
            Box::new(BufReader::new(GzDecoder::new(&*self.body).take(METRICS_BYTES_MAX.1)))
        } else {
            Box::new(&*self.body)
        }
    }
}

/// What `/api/overview` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// All of a kind.
    pub total: u64,
    /// Those that don't work.
    pub errors: u64,
}

/// What `/api/overview` says, as far as we look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// HTTP routers.
    pub routers: Counts,
    /// The names of the active providers.
    pub providers: Vec<String>,
}

impl TraefikClient {
    /// A client for the API at `base`, such as `http://10.0.0.5:8099`.
    pub fn new(base: Url, access: &Access) -> Result<Self, ClientError> {
        let mut headers = HeaderMap::new();
        if let Some(key) = &access.key {
            let mut key = HeaderValue::from_str(key.expose_secret())
                .map_err(|_| ClientError::Silent("its key can't stand in a header".into()))?;
            key.set_sensitive(true);
            headers.insert(KEY_HEADER, key);
        }
        let mut http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            .no_proxy()
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true);
        if base.scheme() == "http" {
            // A small machine has no certificates of authorities, and then not even this client could be built.
            http = http.tls_certs_only(None);
        }
        let http = http.build().map_err(|e| ClientError::Silent(e.to_string()))?;
        Ok(Self { http, base, provider: access.provider, fallback: access.fallback })
    }

    /// What it serves: the tree of the store shadows that of the fallback, so it is asked for first.
    pub async fn shown(&self) -> Result<Shown, ClientError> {
        if let Some(marker) = self.marker().await? {
            return Ok(Shown::Own(marker));
        }
        let Some(fallback) = self.fallback else { return Ok(Shown::Nothing) };
        Ok(self.marker_of(fallback).await?.map_or(Shown::Nothing, Shown::Fallback))
    }

    /// The marker that came by the provider of our routes; `None` if it is up and has no marker of ours.
    pub async fn marker(&self) -> Result<Option<Marker>, ClientError> {
        self.marker_of(self.provider).await
    }

    async fn marker_of(&self, provider: &str) -> Result<Option<Marker>, ClientError> {
        #[derive(Deserialize)]
        struct Middleware {
            headers: Option<Headers>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Headers {
            custom_response_headers: Option<std::collections::BTreeMap<String, String>>,
        }
        let path = format!("/api/http/middlewares/{MARKER_MIDDLEWARE}@{provider}");
        let Some(middleware) = self.get::<Middleware>(&path).await? else { return Ok(None) };
        let headers = middleware.headers.and_then(|h| h.custom_response_headers).unwrap_or_default();
        let text = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(MARKER_HEADER)).map(|(_, value)| value);
        Ok(text.and_then(|text| Marker::parse(text)))
    }

    /// Its version, such as `3.7.15`.
    pub async fn version(&self) -> Result<String, ClientError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Version {
            version: String,
        }
        let version = self.get::<Version>("/api/version").await?;
        version
            .map(|v| v.version)
            .ok_or_else(|| ClientError::Silent("it has no /api/version: not Traefik's API".into()))
    }

    /// How its routers are, and where its configuration comes from.
    pub async fn overview(&self) -> Result<Overview, ClientError> {
        #[derive(Deserialize)]
        struct Raw {
            http: Http,
            #[serde(default)]
            providers: Vec<String>,
        }
        #[derive(Deserialize)]
        struct Http {
            routers: Counts,
        }
        let raw = self.get::<Raw>("/api/overview").await?;
        let raw = raw.ok_or_else(|| ClientError::Silent("it has no /api/overview: not Traefik's API".into()))?;
        Ok(Overview { routers: raw.http.routers, providers: raw.providers })
    }

    /// Its counters, in Prometheus' text format.
    pub async fn metrics(&self) -> Result<Metrics, ClientError> {
        let request = self.http.get(self.url("/metrics")).timeout(METRICS_TIMEOUT).header("Accept-Encoding", "gzip");
        let mut response = request.send().await.map_err(|e| classify(&e))?;
        match response.status().as_u16() {
            200 => {}
            404 => return Err(ClientError::Silent("it has no /metrics: switch Traefik's metrics on".into())),
            other => return Err(ClientError::Silent(format!("its metrics answered {other}"))),
        }
        let gzip = response.headers().get("Content-Encoding").is_some_and(|coding| coding == "gzip");
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(|e| classify(&e))? {
            body.extend_from_slice(&bytes);
            if body.len() > METRICS_BYTES_MAX.0 {
                return Err(ClientError::Silent(format!("its metrics have more than {} bytes", METRICS_BYTES_MAX.0)));
            }
        }
        Ok(Metrics { body, gzip })
    }

    /// Hands over all routes, as one document. They are served a little later: the marker tells when.
    ///
    /// A Traefik that has just begun may take the document and never answer.
    pub async fn push(&self, document: Bytes, patience: Duration) -> Result<(), ClientError> {
        let request = self.http.put(self.url("/api/providers/rest")).timeout(patience).body(document);
        let response = request.send().await.map_err(|e| classify(&e))?;
        let status = response.status();
        // Read to its end, so that the connection can be used again.
        let answer = response.bytes().await.map_err(|e| classify(&e))?;
        if status.is_success() {
            return Ok(());
        }
        if status.as_u16() == 404 {
            return Err(ClientError::Silent("it does not take routes yet".into()));
        }
        let reason = String::from_utf8_lossy(&answer[..answer.len().min(200)]).trim().to_owned();
        Err(ClientError::Silent(format!("it does not take our routes: {status} {reason}")))
    }

    /// What is wrong with a router of ours, if Traefik has switched it off: nothing is an empty text, and `None` a router
    /// that isn't there.
    pub async fn router_errors(&self, name: &str) -> Result<Option<String>, ClientError> {
        #[derive(Deserialize)]
        struct Router {
            status: String,
            #[serde(default)]
            error: Vec<String>,
        }
        let path = format!("/api/http/routers/{name}@{}", self.provider);
        let router = self.get::<Router>(&path).await?;
        Ok(router.map(|router| if router.status == "enabled" { String::new() } else { router.error.join("; ") }))
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }

    /// The JSON at a path of the API; `None` for 404.
    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ClientError> {
        let response = self.http.get(self.url(path)).send().await.map_err(|e| classify(&e))?;
        match response.status().as_u16() {
            200 => response.json().await.map(Some).map_err(|e| classify(&e)),
            404 => Ok(None),
            401 | 403 => Err(ClientError::Silent(
                "its API asks for a password; use the address of its private entry point".into(),
            )),
            other => Err(ClientError::Silent(format!("its API answered {other}"))),
        }
    }
}

fn classify(error: &reqwest::Error) -> ClientError {
    let causes = || causes::chain(error).skip(1);
    let refuses = |io: &std::io::Error| io.kind() == std::io::ErrorKind::ConnectionRefused;
    if causes().any(|cause| cause.downcast_ref().is_some_and(refuses)) {
        return ClientError::Refused;
    }
    if error.is_timeout() {
        return ClientError::Silent(format!("no answer within {} s", TIMEOUT.as_secs()));
    }
    // The URL may hold a password, so only the innermost cause is told.
    ClientError::Silent(causes().last().map_or_else(|| "its API can't be read".to_owned(), ToString::to_string))
}
