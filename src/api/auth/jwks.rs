//! Keys behind a URL: fetched when a token needs them, seldom enough that nobody can make us flood the issuer.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use url::Url;

use super::jwt::Head;
use super::keys::{Key, from_jwks};
use crate::causes;
use crate::telemetry::throttle::{self, Peer};

/// A token that names an unknown key makes us look again, but not more often than this.
const UNKNOWN_KEY_EVERY: Duration = Duration::from_secs(30);

/// After a failure we try again sooner, for until then nobody with a new key is served.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Keys that the issuer has withdrawn must not serve for ever.
const REFRESH_EVERY: Duration = Duration::from_secs(600);

/// One fetch, from name look-up to the last byte. Calls wait for it, within their own deadline.
const FETCH_MAX: Duration = Duration::from_secs(3);

/// A call whose key is known waits no longer than this for newer ones.
const REFRESH_WAIT: Duration = Duration::from_secs(1);

/// Calls that wait for a fetch at once; more are answered 503. Anybody can make up a token that names an unknown key.
const WAITING_MAX: usize = 16;

/// A longer key set is not read.
const BYTES_MAX: usize = 1024 * 1024;

/// The key set of an issuer.
pub(super) struct RemoteKeys {
    url: Url,
    client: reqwest::Client,
    cache: RwLock<Cache>,
    /// Held by the one call that fetches.
    fetching: Mutex<()>,
    /// The places of the calls that wait for it.
    waiting: Semaphore,
}

#[derive(Default)]
struct Cache {
    keys: Vec<Arc<Key>>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
    failure: Option<String>,
}

impl RemoteKeys {
    /// Nothing is fetched yet.
    pub(super) fn new(url: Url) -> Result<Self, String> {
        let mut client = reqwest::Client::builder()
            .timeout(FETCH_MAX)
            // Tokens are checked with what comes back: it must come from where the administrator said.
            .redirect(reqwest::redirect::Policy::none());
        if url.scheme() == "http" {
            // A small machine has no certificates of authorities, and then not even this client could be built.
            client = client.tls_certs_only(None);
        }
        let client = client.build().map_err(|error| format!("--jwt-jwks-url can't be used: {}", whole(&error)))?;
        let waiting = Semaphore::new(WAITING_MAX);
        Ok(Self { url, client, cache: RwLock::default(), fetching: Mutex::default(), waiting })
    }

    /// The keys that fit the head of a token, fetched anew if need be and not too soon; `Err`: out of reach.
    pub(super) async fn keys_for(&self, head: &Head) -> Result<Vec<Arc<Key>>, String> {
        let known = self.read().fitting(head);
        let is_due = self.read().should_fetch(!known.is_empty(), Instant::now());
        // What a fetch that is under way brings is worth waiting for, if there is nothing else.
        let is_worth_waiting = known.is_empty() && self.fetching.try_lock().is_err();
        if !is_due && !is_worth_waiting {
            return self.answer(head);
        }
        if !known.is_empty() {
            // A known key is good enough while another call fetches, and when the issuer takes its time.
            let Ok(_fetching) = self.fetching.try_lock() else { return Ok(known) };
            if self.read().should_fetch(true, Instant::now()) {
                let _ = timeout(REFRESH_WAIT, self.refresh()).await;
            }
            return self.answer(head);
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Err(format!("{WAITING_MAX} calls wait for the keys of JWTs already; try again"));
        };
        let _fetching = self.fetching.lock().await;
        // A call that waited finds what the other call brought.
        let is_known = !self.read().fitting(head).is_empty();
        if self.read().should_fetch(is_known, Instant::now()) {
            self.refresh().await;
        }
        self.answer(head)
    }

    async fn refresh(&self) {
        let now = Instant::now();
        // The caller may go away during the fetch, and then nobody would write down that it brought nothing.
        (self.write().tried, self.write().failure) = (Some(now), Some("the last attempt was interrupted".to_owned()));
        match self.fetch().await {
            Ok(keys) => {
                info!(keys = keys.len(), "Fetched {} key(s) from --jwt-jwks-url", keys.len());
                let keys = keys.into_iter().map(Arc::new).collect();
                *self.write() = Cache { keys, fetched: Some(now), tried: Some(now), failure: None };
            }
            Err(reason) => {
                if throttle::is_first("fetches of --jwt-jwks-url that failed", Peer::Unknown, &reason) {
                    warn!(reason, "No keys from --jwt-jwks-url: {reason}");
                }
                // Those who wait need not each try for as long.
                (self.write().tried, self.write().failure) = (Some(Instant::now()), Some(reason));
            }
        }
    }

    fn answer(&self, head: &Head) -> Result<Vec<Arc<Key>>, String> {
        let cache = self.read();
        let known = cache.fitting(head);
        match &cache.failure {
            Some(reason) if known.is_empty() => Err(format!("the keys of JWTs are out of reach: {reason}")),
            _ => Ok(known),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Cache> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let text = |error: reqwest::Error| whole(&error.without_url());
        let mut response = self.client.get(self.url.clone()).send().await.map_err(text)?;
        if !response.status().is_success() {
            return Err(format!("the server answered {}", response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(text)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > BYTES_MAX {
                return Err(format!("the key set is longer than {BYTES_MAX} bytes"));
            }
        }
        from_jwks(&bytes, false)
    }
}

impl Cache {
    fn fitting(&self, head: &Head) -> Vec<Arc<Key>> {
        self.keys.iter().filter(|key| key.may_have_signed(head)).cloned().collect()
    }

    fn should_fetch(&self, known: bool, now: Instant) -> bool {
        let due = |since: Option<Instant>, every| since.is_none_or(|since| now.duration_since(since) >= every);
        match (known, self.failure.is_some()) {
            (true, false) => due(self.fetched, REFRESH_EVERY),
            (false, true) => due(self.tried, AFTER_FAILURE),
            _ => due(self.tried, UNKNOWN_KEY_EVERY),
        }
    }
}

/// An error with its causes.
fn whole(error: &reqwest::Error) -> String {
    causes::chain(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
