//! The fleet: every Traefik there is, what each of them serves, and the wait until all of them serve a change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};
use url::Url;

use super::client::{Access, ClientError, Shown, TraefikClient};
use super::marker::Marker;
use crate::lifecycle::Readiness;

/// How often a Traefik is asked when nobody waits, and a name is resolved again.
const CALM_INTERVAL: Duration = Duration::from_secs(1);

/// While somebody waits, a Traefik is asked again after a twentieth of the time waited so far, within these limits: the
/// answer is then at most 5 % late, and a slow one isn't bothered.
const WAITING_INTERVAL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A Traefik that is up without our configuration may be about to load it: it is waited for this long.
const LOADING_GRACE: Duration = Duration::from_secs(5);

/// The latch that is held while no Traefik can be reached.
const LATCH: &str = "traefik";

/// Where Traefik's API is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// One Traefik.
    Url(Url),
    /// Every address that a name stands for, such as a headless Service's.
    Dns {
        /// The name.
        name: String,
        /// The API's port.
        port: u16,
    },
}

/// How one Traefik is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Not asked yet.
    Unknown,
    /// Serves a tree of ours.
    Serving(Marker),
    /// Serves a tree of ours that we handed to it ourselves, as it could not read the store.
    Fallback(Marker),
    /// Up, with no configuration of ours.
    Empty,
    /// Nobody listens: it serves nobody.
    Down,
    /// It does not answer, and may still serve users.
    Silent(String),
}

impl Status {
    /// One word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Serving(_) => "serving",
            Self::Fallback(_) => "fallback",
            Self::Empty => "empty",
            Self::Down => "down",
            Self::Silent(_) => "silent",
        }
    }

    /// The marker of the tree that users get, wherever it came from.
    #[must_use]
    pub fn marker(&self) -> Option<&Marker> {
        match self {
            Self::Serving(marker) | Self::Fallback(marker) => Some(marker),
            Self::Unknown | Self::Empty | Self::Down | Self::Silent(_) => None,
        }
    }
}

/// What is known of one Traefik.
#[derive(Debug, Clone)]
pub struct Seen {
    /// How it was when last asked.
    pub status: Status,
    /// When this status began.
    pub since: Instant,
    /// When the last question was asked that has been answered.
    pub asked: Option<Instant>,
}

/// Somebody waits for a record change to be served; each wait has a number of its own.
#[derive(Debug, Clone, Default)]
struct Wanted {
    number: u64,
    epoch: String,
    n: u64,
    since: Option<Instant>,
}

/// All Traefiks, by the address of their API.
#[derive(Debug)]
pub struct Fleet {
    access: Access,
    seen: watch::Sender<BTreeMap<String, Seen>>,
    wanted: watch::Sender<Wanted>,
}

impl Fleet {
    /// An empty fleet; [`Fleet::run`] fills it.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self { access, seen: watch::Sender::new(BTreeMap::new()), wanted: watch::Sender::new(Wanted::default()) }
    }

    /// A client for the Traefik at an address of this fleet.
    pub fn client(&self, url: &str) -> Result<TraefikClient, ClientError> {
        let url = url.parse().map_err(|e: url::ParseError| ClientError::Silent(e.to_string()))?;
        TraefikClient::new(url, &self.access)
    }

    /// Has every Traefik asked now, and again and again for a while: one of them is about to change.
    pub fn hurry(&self) {
        self.wanted.send_modify(|wanted| {
            wanted.number += 1;
            wanted.since = Some(Instant::now());
        });
    }

    /// What each Traefik serves, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BTreeMap<String, Seen>> {
        self.seen.subscribe()
    }

    /// Waits until every live Traefik serves the record change `n` of `epoch`, or says which ones don't at the deadline.
    ///
    /// Live is what may serve users: not one whose address refuses connections, nor one that has been up for longer than
    /// it takes to load our configuration and has none. One that doesn't answer is live. If none is live nothing is
    /// served, and the wait goes on.
    pub async fn covered(&self, epoch: &str, n: u64, deadline: Instant) -> Result<(), String> {
        let start = Instant::now();
        let mut seen = self.seen.subscribe();
        if behind(&seen.borrow_and_update(), epoch, n, start).is_ok() {
            return Ok(());
        }
        self.wanted.send_modify(|wanted| {
            let further =
                wanted.epoch != epoch || wanted.n < n || wanted.since.is_none_or(|s| s.elapsed() > LOADING_GRACE);
            wanted.number += 1;
            if further {
                *wanted = Wanted { number: wanted.number, epoch: epoch.to_owned(), n, since: Some(start) };
            }
        });
        loop {
            let verdict = behind(&seen.borrow_and_update(), epoch, n, start);
            match verdict {
                Ok(()) => return Ok(()),
                // The loading grace passes without anything changing, so look again now and then.
                Err(who) => {
                    match timeout_at(deadline.min(Instant::now() + Duration::from_millis(250)), seen.changed()).await {
                        _ if Instant::now() >= deadline => return Err(who),
                        Ok(Err(_)) => return Err("stopping".to_owned()),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Asks every Traefik again and again, for as long as the process lives.
    pub async fn run(self: Arc<Self>, sources: Vec<Source>) {
        let mut pollers: JoinSet<()> = JoinSet::new();
        let mut running: BTreeMap<String, AbortHandle> = BTreeMap::new();
        let mut resolved: BTreeMap<(String, u16), Resolved> = BTreeMap::new();
        loop {
            let mut urls: BTreeSet<String> = BTreeSet::new();
            for source in &sources {
                match source {
                    Source::Url(url) => drop(urls.insert(url.as_str().trim_end_matches('/').to_owned())),
                    Source::Dns { name, port } => {
                        let known = resolved.entry((name.clone(), *port)).or_default();
                        resolve(name, *port, known).await;
                        urls.extend(known.urls.iter().cloned());
                    }
                }
            }
            for url in &urls {
                if !running.contains_key(url) {
                    let now = Instant::now();
                    let unknown = Seen { status: Status::Unknown, since: now, asked: None };
                    self.seen.send_modify(|seen| drop(seen.insert(url.clone(), unknown)));
                    running.insert(url.clone(), pollers.spawn(self.clone().poll(url.clone())));
                }
            }
            running.retain(|url, poller| {
                let stays = urls.contains(url);
                if !stays {
                    poller.abort();
                    info!(traefik = %url, "The Traefik at {url} is no longer in DNS");
                    self.seen.send_modify(|seen| drop(seen.remove(url)));
                }
                stays
            });
            sleep(CALM_INTERVAL).await;
        }
    }

    /// Holds the latch `traefik` as long as no Traefik can be reached at all. One that is up without our routes counts: they
    /// may be about to come through us.
    pub fn report(self: Arc<Self>, readiness: Readiness) -> impl Future<Output = ()> + Send + 'static {
        // Only the address of somebody else's Traefik can be wrong.
        const OURS: &str = "our Traefik has not been reached; the log has more";
        const THEIRS: &str = "no Traefik has been reached; look at --traefik-api and the log";
        let none = if self.access.key.is_some() { OURS } else { THEIRS };
        // At once, not when the task first runs: nobody may find us ready before.
        readiness.expect(LATCH, none);
        async move {
            let mut seen = self.seen.subscribe();
            loop {
                let reached = |s: &Seen| s.status.marker().is_some() || s.status == Status::Empty;
                let asked = |s: &Seen| s.status != Status::Unknown;
                let (reached, asked) = {
                    let all = seen.borrow_and_update();
                    (all.values().any(reached), all.values().any(asked))
                };
                if reached {
                    readiness.release(LATCH);
                } else if asked {
                    readiness.hold(LATCH, none);
                } else {
                    readiness.expect(LATCH, none);
                }
                if seen.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    async fn poll(self: Arc<Self>, url: String) {
        let client = match self.client(&url) {
            Ok(client) => client,
            Err(reason) => return self.update(&url, Status::Silent(reason.to_string()), Instant::now()),
        };
        let mut wanted = self.wanted.subscribe();
        loop {
            let asked = Instant::now();
            let status = match client.shown().await {
                Ok(Shown::Own(marker)) => Status::Serving(marker),
                Ok(Shown::Fallback(marker)) => Status::Fallback(marker),
                Ok(Shown::Nothing) => Status::Empty,
                Err(ClientError::Refused) => Status::Down,
                Err(ClientError::Silent(reason)) => Status::Silent(reason),
            };
            let now_wanted = wanted.borrow_and_update().clone();
            let covers = status.marker().is_some_and(|marker| marker.covers(&now_wanted.epoch, now_wanted.n));
            self.update(&url, status, asked);
            let waited = now_wanted.since.map_or(LOADING_GRACE * 2, |since| since.elapsed());
            let pause = if covers || waited > LOADING_GRACE * 2 {
                CALM_INTERVAL
            } else {
                (waited / 20).clamp(WAITING_INTERVAL.0, WAITING_INTERVAL.1)
            };
            tokio::select! {
                () = sleep(pause) => {}
                _ = wanted.changed() => {}
            }
        }
    }

    fn log_change(&self, url: &str, before: &Status, after: &Status) {
        match (before, after) {
            (Status::Serving(_), Status::Serving(_))
            | (Status::Fallback(_), Status::Fallback(_))
            | (_, Status::Unknown) => {}
            (_, Status::Serving(marker)) => info!(traefik = %url, %marker, "The Traefik at {url} serves our routes"),
            (_, Status::Fallback(marker)) => warn!(
                traefik = %url, %marker,
                "The Traefik at {url} has no routes from etcd and serves those that we gave it; look whether it reaches etcd"
            ),
            // What we have just started has nothing until we have sent it.
            (_, Status::Empty) if self.access.key.is_some() => debug!(traefik = %url, "Our Traefik waits for routes"),
            (_, Status::Empty) => warn!(traefik = %url, "The Traefik at {url} is up and has none of our routes"),
            (_, Status::Down) => warn!(traefik = %url, "The Traefik at {url} is down: nobody listens there"),
            (_, Status::Silent(reason)) => {
                warn!(traefik = %url, reason, "The Traefik at {url} does not answer: {reason}");
            }
        }
    }

    fn update(&self, url: &str, status: Status, asked: Instant) {
        self.seen.send_if_modified(|all| {
            let Some(seen) = all.get_mut(url) else { return false };
            seen.asked = Some(asked);
            if seen.status != status {
                self.log_change(url, &seen.status, &status);
                // A silent one that was loading goes on loading.
                seen.since = Instant::now();
                seen.status = status;
                return true;
            }
            // Those who wait for a fresh answer must hear of it too.
            seen.status.marker().is_none()
        });
    }
}

/// `Ok` if all live Traefiks serve the change, else who doesn't.
fn behind(fleet: &BTreeMap<String, Seen>, epoch: &str, n: u64, start: Instant) -> Result<(), String> {
    let mut serving = 0;
    let mut waiting = Vec::new();
    for (url, seen) in fleet {
        let fresh = seen.asked.is_some_and(|asked| asked >= start);
        match &seen.status {
            Status::Serving(marker) | Status::Fallback(marker) if marker.covers(epoch, n) => serving += 1,
            Status::Serving(_) | Status::Fallback(_) => waiting.push(format!("{url} serves an older state")),
            Status::Down if fresh => {}
            Status::Empty if fresh && seen.since.elapsed() > LOADING_GRACE => {}
            Status::Empty => waiting.push(format!("{url} has not loaded our routes")),
            Status::Down | Status::Unknown => waiting.push(format!("{url} was not reached")),
            Status::Silent(reason) => waiting.push(format!("{url} does not answer ({reason})")),
        }
    }
    match (waiting.is_empty(), serving) {
        (true, 0) => Err("no Traefik is up that serves our routes; look at --traefik-api".to_owned()),
        (true, _) => Ok(()),
        (false, _) => Err(waiting.join("; ")),
    }
}

/// What a name stands for.
#[derive(Default)]
struct Resolved {
    /// The last good answer.
    urls: BTreeSet<String>,
    /// Since then there was none, and the log has it.
    failing: bool,
}

/// Resolves a name; a failed or empty answer keeps what was known.
async fn resolve(name: &str, port: u16, known: &mut Resolved) {
    let reason = match tokio::net::lookup_host((name, port)).await {
        Ok(addresses) => {
            let urls: BTreeSet<String> = addresses.map(|a: SocketAddr| format!("http://{a}")).collect();
            if !urls.is_empty() {
                *known = Resolved { urls, failing: false };
                return;
            }
            "it has no address".to_owned()
        }
        Err(error) => error.to_string(),
    };
    // We ask every second; one line tells of it.
    if !known.failing {
        known.failing = true;
        warn!(%name, "The name {name} of --traefik-api can't be resolved: {reason}; keeping the {} known addresses", known.urls.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_stops_resolving_stands_for_what_it_did() {
        let mut known = Resolved::default();
        resolve("127.0.0.1", 8099, &mut known).await;
        let before = BTreeSet::from(["http://127.0.0.1:8099".to_owned()]);
        assert_eq!((&known.urls, known.failing), (&before, false));
        for _ in 0..2 {
            resolve("no host name", 8099, &mut known).await;
            assert_eq!((&known.urls, known.failing), (&before, true));
        }
        resolve("127.0.0.2", 8099, &mut known).await;
        assert_eq!((known.urls.len(), known.failing), (1, false));
    }
}
