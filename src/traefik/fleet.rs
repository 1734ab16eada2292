//! The fleet: every Traefik there is, what each of them serves, and the wait until all of them serve a change.
//!
//! A change is answered when every *live* Traefik serves it. Live is what may serve users:
//!
//! - One that answers is live and is waited for until it shows the change, by the tree of the store or by the fallback.
//! - One that doesn't answer is live, too: it may still serve users what it had.
//! - One whose address refuses connections is not: it serves nobody. Nor is one that has been up for [`LOADING_GRACE`]
//!   without any routes of ours: that is longer than it takes to load them.
//! - One that a name no longer stands for is forgotten. If a name can't be resolved, or has no address, those are kept that
//!   it had. If none is live nothing is served, and no change is answered.
//!
//! A live one that is behind what another one serves is a *laggard* after [`lag::PATIENCE`]: its readiness probe, which
//! comes through it to us, fails, and so does that of one that doesn't answer. When that has lasted for the grace of
//! [`Laggards::Proceed`], changes that another Traefik serves go on without it. When it serves what all others do its
//! probe succeeds, and it is waited for again. `docs/traefiks.md` is the administrator's side of this.

mod barrier;
mod discovery;
mod laggards;
mod poll;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::info;

use super::client::{Access, ClientError, TraefikClient};
use super::lag;
use super::marker::Marker;
use crate::clock::Moment;
use crate::lifecycle::{Readiness, compute};
use barrier::{Change, LOADING_GRACE};
use discovery::Discovery;
pub use discovery::{LookedUp, Resolver, Source};
pub use laggards::Laggard;
use laggards::Watchlist;

/// How often a Traefik is asked when nobody waits, and a name is resolved again.
const CALM_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked who lags, and whether we were paused.
const REVIEW_INTERVAL: Duration = Duration::from_millis(500);

/// How long a probe may wait for a fresh look: Traefik waits 300 ms for its answer.
const PROBE_LOOK: Duration = Duration::from_millis(150);

/// The latch that is held while no Traefik can be reached.
const LATCH: &str = "traefik";

/// The note about Traefiks that lag.
const NOTE: &str = "laggards";

/// What becomes of changes that a laggard does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Laggards {
    /// They go on without it when it has lagged for so long. Only where its probe is answered by us: else nobody takes it
    /// out of service.
    Proceed(Duration),
    /// They wait for it.
    Wait,
}

/// Whether what a Traefik shows comes from the store as it is now: after a restore from a backup the numbers may be the same.
pub type Believe = Box<dyn Fn(&Status) -> bool + Send + Sync>;

/// Who judges that; everything is believed until somebody does.
#[derive(Default)]
struct Belief(OnceLock<Believe>);

impl Belief {
    fn holds(&self, status: &Status) -> bool {
        self.0.get().is_none_or(|believe| believe(status))
    }
}

impl fmt::Debug for Belief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Belief")
    }
}

/// All Traefiks by the addresses of their APIs.
type Traefiks = BTreeMap<String, Seen>;

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
    pub since: Moment,
    /// When the last question was asked that has been answered, or given up.
    pub asked: Option<Moment>,
    /// Since when a question is open.
    pub asking: Option<Moment>,
    /// How many of its routers don't work, when that was last asked.
    pub router_errors: Option<u64>,
}

impl Seen {
    fn unknown(now: Moment) -> Self {
        Self { status: Status::Unknown, since: now, asked: None, asking: None, router_errors: None }
    }
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
    belief: Belief,
    laggards: Laggards,
    seen: watch::Sender<Traefiks>,
    wanted: watch::Sender<Wanted>,
    /// Taken after `seen`, where both are needed.
    watchlist: Mutex<Watchlist>,
    looked: Notify,
}

impl Fleet {
    /// An empty fleet, which waits for laggards; [`Fleet::run`] fills it.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self {
            access,
            belief: Belief::default(),
            laggards: Laggards::Wait,
            seen: watch::Sender::new(BTreeMap::new()),
            wanted: watch::Sender::new(Wanted::default()),
            watchlist: Mutex::new(Watchlist::new(Moment::now())),
            looked: Notify::new(),
        }
    }

    /// The same with another policy for laggards.
    #[must_use]
    pub fn with_laggards(self, laggards: Laggards) -> Self {
        Self { laggards, ..self }
    }

    /// Counts only what this says comes from the store as it is now. The first one stays.
    pub fn believe(&self, believe: Believe) {
        let _ = self.belief.0.set(believe);
    }

    /// A client for the Traefik at an address of this fleet. It is made on another thread: one for https reads the system's
    /// certificates.
    pub async fn client(&self, url: &str) -> Result<TraefikClient, ClientError> {
        let url = url.parse().map_err(|e: url::ParseError| ClientError::Silent(e.to_string()))?;
        let access = self.access.clone();
        compute(true, move || TraefikClient::new(url, &access)).await
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

    /// The store is in this epoch, as far as this replica knows.
    pub fn store_has(&self, epoch: &str) {
        self.watchlist().store_has(epoch);
    }

    /// For how long another Traefik has served what this state doesn't cover; `None` if none does now.
    #[must_use]
    pub fn lag(&self, marker: &Marker) -> Option<Duration> {
        let seen = self.seen.borrow();
        let now = Moment::now();
        self.watchlist().behind(&seen, marker, now).map(|behind| now.duration_since(behind.from))
    }

    /// Those that are behind the others or don't answer, by the addresses of their APIs.
    #[must_use]
    pub fn laggards(&self) -> BTreeMap<String, Laggard> {
        self.watchlist().laggards(Moment::now())
    }

    /// How many changes were answered although a laggard did not serve them.
    #[must_use]
    pub fn went_on(&self) -> u64 {
        self.watchlist().went_on
    }

    /// Why the Traefik that shows this marker must not get new users; `None` if it may, or if we can't tell.
    pub async fn withdrawn(&self, marker: &str) -> Option<String> {
        let marker = Marker::parse(marker)?;
        let is_wary = {
            let seen = self.seen.borrow();
            self.watchlist().is_wary(&seen)
        };
        if is_wary {
            self.look(Instant::now() + PROBE_LOOK).await;
        }
        let seen = self.seen.borrow();
        self.watchlist().withdrawn(&seen, &marker, Moment::now())
    }

    /// Returns when everybody who answers has been asked anew.
    async fn look(&self, deadline: Instant) {
        let start = Moment::now();
        let is_old =
            |seen: &Seen| !matches!(seen.status, Status::Silent(_)) && seen.asked.is_none_or(|asked| asked < start);
        self.wanted.send_modify(|wanted| wanted.number += 1);
        loop {
            let looked = self.looked.notified();
            tokio::pin!(looked);
            looked.as_mut().enable();
            if !self.seen.borrow().values().any(is_old) || timeout_at(deadline, looked).await.is_err() {
                return;
            }
        }
    }

    fn watchlist(&self) -> MutexGuard<'_, Watchlist> {
        self.watchlist.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every live Traefik serves the record change `n` of `epoch`, or may be gone on without; or says which ones
    /// don't at the deadline. What is live stands at the head of this file.
    pub async fn covered(&self, epoch: &str, n: u64, deadline: Instant) -> Result<(), String> {
        self.wait(Change { epoch, n, answers: true }, deadline).await
    }

    /// The same wait, by somebody who does not answer a change by it.
    pub async fn digested(&self, epoch: &str, n: u64, deadline: Instant) -> Result<(), String> {
        self.wait(Change { epoch, n, answers: false }, deadline).await
    }

    async fn wait(&self, change: Change<'_>, deadline: Instant) -> Result<(), String> {
        let Change { epoch, n, .. } = change;
        let (start, begun) = (Moment::now(), Instant::now());
        let mut shown_since = None;
        self.store_has(epoch);
        let mut seen = self.seen.subscribe();
        seen.mark_unchanged();
        if self.judge(change, start, &mut shown_since).is_ok() {
            return Ok(());
        }
        self.wanted.send_modify(|wanted| {
            let further =
                wanted.epoch != epoch || wanted.n < n || wanted.since.is_none_or(|s| s.elapsed() > LOADING_GRACE);
            wanted.number += 1;
            if further {
                *wanted = Wanted { number: wanted.number, epoch: epoch.to_owned(), n, since: Some(begun) };
            }
        });
        loop {
            seen.mark_unchanged();
            match self.judge(change, start, &mut shown_since) {
                Ok(()) => return Ok(()),
                // Graces pass without anything changing, so look again now and then.
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
        self.run_with(sources, Resolver::system()).await;
    }

    /// The same with a resolver of one's own.
    pub async fn run_with(self: Arc<Self>, sources: Vec<Source>, resolver: Resolver) {
        tokio::join!(self.clone().review(), self.discover(Discovery::new(sources, resolver)));
    }

    async fn discover(self: Arc<Self>, mut discovery: Discovery) {
        let mut pollers: JoinSet<()> = JoinSet::new();
        let mut running: BTreeMap<String, AbortHandle> = BTreeMap::new();
        loop {
            let urls: BTreeSet<String> = discovery.urls().await;
            for url in &urls {
                if !running.contains_key(url) {
                    self.seen.send_modify(|seen| drop(seen.insert(url.clone(), Seen::unknown(Moment::now()))));
                    running.insert(url.clone(), pollers.spawn(self.clone().poll(url.clone())));
                }
            }
            running.retain(|url, poller| {
                let stays = urls.contains(url);
                if !stays {
                    poller.abort();
                    info!(traefik = %url, "The Traefik at {url} is no longer in DNS");
                    self.seen.send_modify(|seen| drop(seen.remove(url)));
                    self.watchlist().forget(url);
                }
                stays
            });
            pause_beside(&mut pollers, CALM_INTERVAL).await;
        }
    }

    /// Lags begin without anything changing. And who does this too late was paused, with everything else here.
    async fn review(self: Arc<Self>) {
        let mut last = Moment::now();
        loop {
            sleep(REVIEW_INTERVAL).await;
            let now = Moment::now();
            let seen = self.seen.borrow();
            let mut watchlist = self.watchlist();
            if now.duration_since(last) > lag::EVIDENCE_MAX {
                watchlist.woke(now);
            }
            watchlist.review(&seen, now);
            last = now;
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
                match self.sentence() {
                    Some(sentence) => readiness.note(NOTE, sentence),
                    None => readiness.forget(NOTE),
                }
                // A lag begins without anything changing.
                if let Ok(Err(_)) = timeout_at(Instant::now() + REVIEW_INTERVAL, seen.changed()).await {
                    return;
                }
            }
        }
    }

    /// What an administrator is to know of laggards, if there are any.
    fn sentence(&self) -> Option<String> {
        let sentence = |(url, laggard): (String, Laggard)| {
            let what = if laggard.silent { "does not answer" } else { "serves an older state than the others" };
            let then = match (laggard.excused, self.laggards) {
                (true, _) => "changes go on without it",
                (false, Laggards::Proceed(_)) => "changes wait for it until the grace is over",
                (false, Laggards::Wait) => "changes wait for it",
            };
            format!("{url} {what}; {then}")
        };
        let all: Vec<String> = self.laggards().into_iter().map(sentence).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Lets a while pass. A poller that panics meanwhile takes us along: nobody would see any more how its Traefik is.
async fn pause_beside(pollers: &mut JoinSet<()>, pause: Duration) {
    let end = Instant::now() + pause;
    while let Ok(ended) = timeout_at(end, pollers.join_next()).await {
        match ended {
            Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
            Some(_) => {}
            None => return sleep_until(end).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_poller_that_panics_takes_the_fleet_along() {
        let mut pollers = JoinSet::new();
        let begun = Instant::now();
        pause_beside(&mut pollers, CALM_INTERVAL).await;
        // One that is no longer needed is ended.
        pollers.spawn(std::future::pending()).abort();
        pollers.spawn(std::future::pending());
        pause_beside(&mut pollers, CALM_INTERVAL).await;
        assert_eq!(begun.elapsed(), CALM_INTERVAL * 2);
        pollers.spawn(async { panic!("on purpose") });
        let mut fleet = JoinSet::new();
        fleet.spawn(async move { pause_beside(&mut pollers, CALM_INTERVAL).await });
        assert!(fleet.join_next().await.expect("it ends").is_err_and(|error| error.is_panic()));
    }
}
