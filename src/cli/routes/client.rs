//! Somebody's API of routes, Pointsman's or configurable-http-proxy's, called as a hub calls it.

mod visit;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use reqwest::{Certificate, Identity, Method};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep};
use url::Url;

use super::pinned;
use super::table::{Table, shorten};
use crate::causes::innermost;
use crate::files;
use crate::route::RouteSpec;
use crate::traefik::rule::Space;
pub(in crate::cli) use visit::Visitor;

/// How long one answer may take. Pointsman's own take 8 s at most; a long table takes its time on the way.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a call that finds the other side unavailable is repeated, as a hub does it, and how often.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);

/// A table of 50,000 routes has some 20 MB.
const ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;

/// No bundle of certificates is longer.
const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What stands in a path as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Where an API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Address {
    /// At a URL, without a path at the end.
    Url(String),
    /// At a Unix socket.
    Unix(PathBuf),
}

/// What https needs beyond the system's authorities.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Tls {
    /// What the other side's certificate must lead to.
    pub(in crate::cli) ca: Option<PathBuf>,
    /// Our certificate and its key, where one is asked for.
    pub(in crate::cli) pair: Option<(PathBuf, PathBuf)>,
    /// The other side's own certificate, of which we have the file: then no authority is asked.
    pub(in crate::cli) pinned: Option<PathBuf>,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Told {
    /// Done.
    Done,
    /// Refused for good, with the reason.
    Refused(String),
    /// Not answered in time. It may happen yet; the call may be repeated.
    Unavailable(String),
}

/// Calls it.
#[derive(Debug, Clone)]
pub(in crate::cli) struct ApiClient {
    http: reqwest::Client,
    base: String,
    shown: String,
    tokens: Vec<SecretString>,
    /// The first token that was not refused.
    token: Arc<AtomicUsize>,
}

/// An answer.
#[derive(Debug)]
pub(in crate::cli) struct Answer {
    /// Its status.
    pub(in crate::cli) status: u16,
    /// Its body.
    pub(in crate::cli) body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub(in crate::cli) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl FromStr for Address {
    type Err = String;

    /// `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`. The path of the API at the end does no harm.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err("unix: needs a path".to_owned()) } else { Ok(Self::Unix(path.into())) };
        }
        let says = "write it as http://HOST:PORT, https://HOST:PORT or unix:PATH";
        let url = Url::parse(text).map_err(|error| format!("{error}; {says}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(says.to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the token does not belong there; give it in CONFIGPROXY_AUTH_TOKEN".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(says.to_owned());
        }
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix("/api/routes").or_else(|| path.strip_suffix("/api")).unwrap_or(path).to_owned();
        let origin = url.origin().ascii_serialization();
        Ok(Self::Url(format!("{origin}{path}")))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl ApiClient {
    /// A client for the API at `address`. The tokens are tried in their order.
    pub(in crate::cli) fn new(address: &Address, tls: &Tls, tokens: Vec<SecretString>) -> Result<Self, String> {
        let mut http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let base = match address {
            Address::Url(url) => url.clone(),
            Address::Unix(path) => {
                http = http.unix_socket(path.as_path());
                "http://localhost".to_owned()
            }
        };
        if base.starts_with("http://") {
            // A small machine has no certificates of authorities, and then not even this client could be built.
            http = http.tls_certs_only(None);
        } else {
            http = with_tls(http, tls)?;
        }
        let http = http.build().map_err(|error| format!("no HTTP client can be made: {}", innermost(&error)))?;
        Ok(Self { http, base, shown: address.to_string(), tokens, token: Arc::default() })
    }

    /// Where it is, for people.
    pub(in crate::cli) fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether a Pointsman answers there; otherwise who does, or why nobody.
    pub(in crate::cli) async fn is_pointsman(&self) -> Result<bool, String> {
        let answer = self.page("/api/").await?;
        let about: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok(answer.status == 200 && about["name"] == "pointsman")
    }

    /// All routes.
    pub(in crate::cli) async fn list(&self) -> Result<Table, String> {
        let shown = &self.shown;
        let answer = self.persistent(Method::GET, "/api/routes", None).await?;
        let text = String::from_utf8_lossy(&answer.body);
        match answer.status {
            200 => Table::parse(&answer.body).map_err(|error| {
                format!("what {shown} answers {error}; is it the API's address? The proxy's --api-port has it, by default 8001")
            }),
            403 => Err(self.token_advice()),
            404 | 405 => Err(format!(
                "{shown} answers, but has no /api/routes (status {}): name the API's address, not that of the users; the \
                 proxy's --api-port has it, by default 8001",
                answer.status
            )),
            300..400 => Err(format!(
                "{shown} leads elsewhere (status {}): name the API's address, not that of the users; the proxy's --api-port has \
                 it, by default 8001",
                answer.status
            )),
            503 => Err(format!("{shown} can't read its routes now ({}); try again when it is ready", shorten(text.trim()))),
            other => Err(format!("{shown} answers {other}: {}", shorten(text.trim()))),
        }
    }

    /// Posts a record.
    pub(in crate::cli) async fn post(&self, spec: &RouteSpec, record: String) -> Result<Told, String> {
        let answer = self.persistent(Method::POST, &path(spec), Some(record)).await?;
        self.told(&answer, spec, &[201])
    }

    /// Posts a record, and doesn't repeat the call.
    pub(in crate::cli) async fn post_once(&self, spec: &RouteSpec, record: String) -> Result<Told, String> {
        let answer = self.call(Method::POST, &path(spec), Some(record)).await?;
        self.told(&answer, spec, &[201])
    }

    /// Deletes a route; that there is none is good as well.
    pub(in crate::cli) async fn delete(&self, spec: &RouteSpec) -> Result<Told, String> {
        let answer = self.persistent(Method::DELETE, &path(spec), None).await?;
        self.told(&answer, spec, &[204, 404])
    }

    fn told(&self, answer: &Answer, spec: &RouteSpec, good: &[u16]) -> Result<Told, String> {
        let text = String::from_utf8_lossy(&answer.body);
        match answer.status {
            status if good.contains(&status) => Ok(Told::Done),
            400 | 413 | 431 => Ok(Told::Refused(shorten(text.trim()))),
            403 => Err(self.token_advice()),
            status => {
                let reason = format!("{} answers {status} for {spec}: {}", self.shown, shorten(text.trim()));
                if status == 503 { Ok(Told::Unavailable(reason)) } else { Err(reason) }
            }
        }
    }

    fn token_advice(&self) -> String {
        let fix =
            "set CONFIGPROXY_AUTH_TOKEN to the token that it was started with, or name a file with it by --token-file";
        match self.tokens.len() {
            0 => format!("{} wants a token, and there is none here; {fix}", self.shown),
            1 => format!("{} refuses the token; {fix}", self.shown),
            _ => format!("{} refuses every token there is here; {fix}", self.shown),
        }
    }

    /// Calls until the other side is available. Each call of the API may be repeated.
    async fn persistent(&self, method: Method, path: &str, body: Option<String>) -> Result<Answer, String> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let answer = self.call(method.clone(), path, body.clone()).await;
            match answer {
                Ok(Answer { status: 503, .. }) if Instant::now() + PAUSE < give_up => sleep(PAUSE).await,
                answer => return answer,
            }
        }
    }

    /// A page, as it is now.
    pub(in crate::cli) async fn page(&self, path: &str) -> Result<Answer, String> {
        self.call(Method::GET, path, None).await
    }

    /// One call, with each token until one is not refused.
    pub(in crate::cli) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Answer, String> {
        loop {
            let at = self.token.load(Ordering::Relaxed);
            let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
            if let Some(token) = self.tokens.get(at) {
                request = request.header("Authorization", format!("token {}", token.expose_secret()));
            }
            if let Some(body) = &body {
                request = request.header("Content-Type", "application/json").body(body.clone());
            }
            let answer = self.answer(request).await?;
            if answer.status != 403 || at + 1 >= self.tokens.len() {
                return Ok(answer);
            }
            let _ = self.token.compare_exchange(at, at + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Answer, String> {
        let mut answer = request.send().await.map_err(|error| self.silence(&error))?;
        let (status, mut body) = (answer.status().as_u16(), Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.silence(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(format!("the answer of {} does not end; it is no proxy's API", self.shown));
            }
        }
        Ok(Answer { status, body })
    }

    fn silence(&self, error: &reqwest::Error) -> String {
        let (shown, why) = (&self.shown, innermost(error));
        if error.is_timeout() {
            return format!(
                "{shown} takes connections but does not answer in time; look at that proxy's log, or restart it"
            );
        }
        if why.contains("corrupt message") {
            return format!("{shown} does not speak TLS ({why}); write http:// in place of https://");
        }
        if why.contains("certificate") {
            return format!(
                "{shown} can't be trusted ({why}); name the certificates that its own must lead to by --ca"
            );
        }
        if error.is_connect() {
            return format!("nobody can be reached at {shown} ({why}); start that proxy, or correct the address");
        }
        format!("{shown} does not answer as a proxy's API does ({why}); correct the address")
    }
}

fn path(spec: &RouteSpec) -> String {
    format!("/api/routes{}", percent_encode(spec.as_str().as_bytes(), PATH))
}

/// Host, with host routing, and encoded path at which users find the pages of a route.
pub(in crate::cli) fn path_of_users(spec: &RouteSpec, space: Space) -> (Option<String>, String) {
    let (host, path) = match (space, spec.as_str().strip_prefix('/')) {
        (Space::Hosts, Some(place)) if !place.is_empty() => {
            let (host, path) = place.split_once('/').unwrap_or((place, ""));
            (Some(host.to_owned()), format!("/{path}"))
        }
        _ => (None, spec.as_str().to_owned()),
    };
    let slash = if path.ends_with('/') { "" } else { "/" };
    (host, format!("{}{slash}", percent_encode(path.as_bytes(), PATH)))
}

fn with_tls(mut http: reqwest::ClientBuilder, tls: &Tls) -> Result<reqwest::ClientBuilder, String> {
    let read = |flag: &str, path: &Path| {
        files::read_any(path, PEM_BYTES_MAX)
            .map_err(|error| format!("{flag}: {} can't be read: {error}", path.display()))
    };
    let wrong = |flag: &str, path: &Path, error: &reqwest::Error| {
        format!("{flag}: {} is not PEM that can be used ({})", path.display(), innermost(error))
    };
    if let Some(cert) = &tls.pinned {
        return Ok(http.tls_backend_preconfigured(pinned::config(cert, tls.pair.as_ref())?));
    }
    if let Some(ca) = &tls.ca {
        let certificates =
            Certificate::from_pem_bundle(&read("--ca", ca)?).map_err(|error| wrong("--ca", ca, &error))?;
        http = http.tls_certs_only(certificates);
    }
    if let Some((cert, key)) = &tls.pair {
        let mut pem = read("--cert", cert)?;
        pem.push(b'\n');
        pem.extend(read("--key", key)?);
        http = http.identity(Identity::from_pem(&pem).map_err(|error| wrong("--cert and --key", cert, &error))?);
    }
    Ok(http)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://127.0.0.1:8001", "http://127.0.0.1:8001")]
    #[case("http://127.0.0.1:8001/", "http://127.0.0.1:8001")]
    #[case("http://127.0.0.1:8001/api/routes", "http://127.0.0.1:8001")]
    #[case("https://hub.example.org/proxy/api/", "https://hub.example.org/proxy")]
    #[case("http://[::1]:8001/api", "http://[::1]:8001")]
    #[case("unix:/run/chp.sock", "unix:/run/chp.sock")]
    #[case("unix:///run/chp.sock", "unix:/run/chp.sock")]
    fn an_address_has_several_spellings(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
    }

    #[rstest]
    #[case("127.0.0.1:8001")]
    #[case("localhost:8001")]
    #[case("ftp://x")]
    #[case("unix:")]
    #[case("http://x/?y")]
    #[case("http://token@x")]
    #[case("")]
    fn what_is_no_address_is_refused(#[case] text: &str) {
        text.parse::<Address>().unwrap_err();
    }

    #[rstest]
    #[case("/", Space::Paths, None, "/")]
    #[case("/user/j@x", Space::Paths, None, "/user/j%40x/")]
    #[case("/", Space::Hosts, None, "/")]
    #[case("/jane.example.org/user/jane", Space::Hosts, Some("jane.example.org"), "/user/jane/")]
    #[case("/jane.example.org", Space::Hosts, Some("jane.example.org"), "/")]
    fn users_find_a_route_at_its_path(
        #[case] spec: &str,
        #[case] space: Space,
        #[case] host: Option<&str>,
        #[case] path: &str,
    ) {
        let spec = RouteSpec::from_decoded(spec).unwrap();
        assert_eq!(path_of_users(&spec, space), (host.map(str::to_owned), path.to_owned()));
    }

    #[test]
    fn a_path_is_sent_encoded() {
        let sent = |text: &str| path(&RouteSpec::from_decoded(text).unwrap());
        assert_eq!(sent("/"), "/api/routes/");
        assert_eq!(sent("/user/ä?b#c%d//e"), "/api/routes/user/%C3%A4%3Fb%23c%25d//e");
    }
}
