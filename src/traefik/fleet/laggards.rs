//! Laggards: who is behind the others, since when, whose probe fails, and without whom changes go on.
//!
//! What is decided here about a Traefik rests on looks at it and at others that are a moment old: after a pause of our own
//! nothing is decided until everybody has been asked again.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{error, info, warn};

use super::barrier::LOADING_GRACE;
use super::{Seen, Status, Traefiks};
use crate::clock::Moment;
use crate::traefik::lag::{Behind, History, PATIENCE};
use crate::traefik::marker::Marker;

/// A question to a silent Traefik that has been open for so long has no answer now.
const UNANSWERED: Duration = Duration::from_millis(100);

/// A Traefik that is behind the others or does not answer, while others serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laggard {
    /// For how long.
    pub lag: Duration,
    /// Changes go on without it.
    pub excused: bool,
    /// It does not answer; otherwise it serves an older state.
    pub silent: bool,
}

/// From the moment that a Traefik was found to lag until it serves what all others do.
#[derive(Debug)]
struct Episode {
    since: Moment,
    silent: bool,
    /// How many changes went on without it.
    without: u64,
}

/// The memory behind the decisions.
#[derive(Debug)]
pub(super) struct Watchlist {
    history: History,
    episodes: BTreeMap<String, Episode>,
    /// The newest change that was answered without somebody: nobody is let in again who does not serve it.
    floor: Option<(String, u64)>,
    /// Since when we have looked without a pause.
    awake_since: Moment,
    /// How many changes went on without a laggard.
    pub(super) went_on: u64,
}

impl Watchlist {
    pub(super) fn new(now: Moment) -> Self {
        let history = History::default();
        Self { history, episodes: BTreeMap::new(), floor: None, awake_since: now, went_on: 0 }
    }

    /// We have not looked for a while, until now.
    pub(super) fn woke(&mut self, now: Moment) {
        self.awake_since = now;
    }

    pub(super) fn store_has(&mut self, epoch: &str) {
        self.history.store_has(epoch);
    }

    pub(super) fn forget(&mut self, url: &str) {
        self.history.forget(url);
        self.episodes.remove(url);
    }

    /// The Traefik at `url` showed `marker` to a look, and was last looked at before `earlier`.
    pub(super) fn see(&mut self, url: &str, marker: &Marker, earlier: Option<Moment>, now: Moment) {
        // Between two looks that follow each other it is taken for new now. After a pause, or at our start, it may have
        // been there for long.
        let from = match earlier {
            Some(earlier) if now.duration_since(earlier) > PATIENCE => earlier,
            None if now.duration_since(self.awake_since) < PATIENCE => now.checked_sub(PATIENCE).unwrap_or(now),
            _ => now,
        };
        self.history.see(url, marker, from, now);
    }

    /// Since when this state is behind what another Traefik serves now.
    pub(super) fn behind(&self, all: &Traefiks, marker: &Marker, now: Moment) -> Option<Behind> {
        let ahead = |seen: &Seen| self.serves_ahead(seen, marker.state(), now);
        if all.values().any(ahead) { self.history.behind_since(marker, now) } else { None }
    }

    /// Whether it is known to serve, now and from the store, something newer than this.
    fn serves_ahead(&self, seen: &Seen, state: (&str, u64), now: Moment) -> bool {
        matches!(&seen.status, Status::Serving(marker)
            if seen.is_evidence(now) && self.history.is_ahead(marker.state(), state, now))
    }

    /// Those who serve and are no laggards, as far as that is known now, and when they were asked.
    fn healthy<'a>(&'a self, all: &'a Traefiks, now: Moment) -> impl Iterator<Item = (&'a Seen, &'a Marker)> + 'a {
        all.iter().filter_map(move |(url, seen)| match &seen.status {
            Status::Serving(marker) if seen.is_evidence(now) && !self.episodes.contains_key(url) => {
                Some((seen, marker))
            }
            _ => None,
        })
    }

    /// Whether the answer to a probe needs a look that is newer than the question.
    pub(super) fn is_wary(&self, all: &Traefiks) -> bool {
        !self.episodes.is_empty() || all.values().any(|seen| seen.status == Status::Unknown)
    }

    /// Why the Traefik that serves this is to be taken out of service; `None` if it isn't.
    pub(super) fn withdrawn(&self, all: &Traefiks, marker: &Marker, now: Moment) -> Option<String> {
        let behind = self.behind(all, marker, now);
        let lag = behind.map_or(Duration::ZERO, |behind| now.duration_since(behind.from));
        if lag > PATIENCE {
            return Some(format!("the routes here are {:.1} s behind those of another Traefik", lag.as_secs_f64()));
        }
        let newer = |epoch: &str, n: u64| self.history.is_ahead((epoch, n), marker.state(), now);
        if let Some((epoch, n)) = &self.floor
            && newer(epoch, *n)
            && all.values().any(|seen| serves(seen, epoch, *n, now))
        {
            return Some(format!("a change was answered that is not here yet ({:.1} s behind)", lag.as_secs_f64()));
        }
        // While somebody lags, whoever is not up to date may be he, and what all others serve may have been answered.
        let mut healthy = self.healthy(all, now).peekable();
        if !self.episodes.is_empty()
            && healthy.peek().is_some()
            && healthy.all(|(_, other)| newer(&other.epoch, other.n))
        {
            return Some(format!("the routes here are not up to date yet ({:.1} s behind)", lag.as_secs_f64()));
        }
        None
    }

    /// Whether a change may go on without this one, which doesn't serve it while another one has since `shown_since`.
    pub(super) fn is_excused(&self, url: &str, seen: &Seen, grace: Duration, shown_since: Moment, now: Moment) -> bool {
        if !self.episodes.contains_key(url) {
            return false;
        }
        // It must be behind now, not only at a look from before the change: it may have come back in between.
        let asked_since = seen.asked.is_some_and(|asked| asked >= shown_since);
        let (since, is_so_now) = match &seen.status {
            Status::Serving(marker) | Status::Fallback(marker) => {
                let Some(behind) = self.history.behind_since(marker, now) else { return false };
                (behind.noticed, asked_since)
            }
            Status::Silent(_) => {
                let open = seen.asking.is_some_and(|asking| now.duration_since(asking) >= UNANSWERED);
                (seen.since, open || asked_since)
            }
            Status::Unknown | Status::Empty | Status::Down => return false,
        };
        is_so_now && now.duration_since(since.max(self.awake_since)) > grace
    }

    /// A change is answered that these don't serve.
    pub(super) fn go_on_without<'a>(&mut self, urls: impl Iterator<Item = &'a str>, epoch: &str, n: u64, now: Moment) {
        self.went_on += 1;
        let is_higher = self.floor.as_ref().is_none_or(|(e, m)| self.history.is_ahead((epoch, n), (e, *m), now));
        if is_higher {
            self.floor = Some((epoch.to_owned(), n));
        }
        for url in urls {
            let Some(episode) = self.episodes.get_mut(url) else { continue };
            episode.without += 1;
            if episode.without == 1 {
                let seconds = now.duration_since(episode.since).as_secs();
                error!(
                    traefik = %url, seconds,
                    "Changes go on without the Traefik at {url}: for {seconds} s it has not served what the others do; \
                     make sure that no user reaches it, look at its log and whether it reaches etcd, and restart it"
                );
            }
        }
    }

    /// Looks who began to lag and who is back.
    pub(super) fn review(&mut self, all: &Traefiks, now: Moment) {
        let others = all.values().any(|s| matches!(s.status, Status::Serving(_)) && s.is_evidence(now));
        for (url, seen) in all {
            let lagging = match &seen.status {
                Status::Serving(marker) | Status::Fallback(marker) if seen.is_evidence(now) => {
                    self.behind(all, marker, now).map(|behind| behind.from)
                }
                // Its own last word may have been long ago, but then nobody has heard of it since.
                Status::Silent(_) if others => Some(seen.since.max(self.awake_since)),
                _ => None,
            };
            let silent = matches!(seen.status, Status::Silent(_));
            if let Some(episode) = self.episodes.get_mut(url) {
                episode.silent = silent;
                if self.is_back(all, url, seen, now) {
                    self.end(url, seen, now);
                }
            } else if let Some(since) = lagging.filter(|since| now.duration_since(*since) > PATIENCE) {
                if !silent {
                    warn!(
                        traefik = %url,
                        "The Traefik at {url} is behind the others and no longer ready; if it stays so, look whether it \
                         reaches etcd, and restart it"
                    );
                }
                self.episodes.insert(url.clone(), Episode { since, silent, without: 0 });
            }
        }
        self.episodes.retain(|url, _| all.contains_key(url));
    }

    /// Whether a laggard serves what all others do, as they were asked after it; or serves nobody.
    fn is_back(&self, all: &Traefiks, url: &str, seen: &Seen, now: Moment) -> bool {
        match &seen.status {
            Status::Serving(marker) | Status::Fallback(marker) => {
                let mut healthy = self.healthy(all, now).peekable();
                // If nobody is ahead of it any more, it is no longer behind: all others are gone, or as old.
                if healthy.peek().is_none() {
                    let ahead =
                        |(other, seen): (&String, &Seen)| other != url && self.serves_ahead(seen, marker.state(), now);
                    return seen.is_evidence(now) && !all.iter().any(ahead);
                }
                healthy.any(|(other, theirs)| {
                    other.asked >= seen.asked && !self.history.is_ahead(theirs.state(), marker.state(), now)
                })
            }
            Status::Down => true,
            Status::Empty => now.duration_since(seen.since) > LOADING_GRACE,
            Status::Unknown | Status::Silent(_) => false,
        }
    }

    fn end(&mut self, url: &str, seen: &Seen, now: Moment) {
        let Some(episode) = self.episodes.remove(url) else { return };
        let (seconds, without) = (now.duration_since(episode.since).as_secs(), episode.without);
        if seen.status.marker().is_some() {
            info!(
                traefik = %url, seconds, without,
                "The Traefik at {url} is up to date again after {seconds} s; {without} changes went on without it, and now \
                 wait for it again"
            );
        } else {
            info!(traefik = %url, without, "The Traefik at {url} serves no routes; it is not waited for");
        }
    }

    /// All who lag now.
    pub(super) fn laggards(&self, now: Moment) -> BTreeMap<String, Laggard> {
        let laggard = |episode: &Episode| Laggard {
            lag: now.duration_since(episode.since),
            excused: episode.without > 0,
            silent: episode.silent,
        };
        self.episodes.iter().map(|(url, episode)| (url.clone(), laggard(episode))).collect()
    }
}

fn serves(seen: &Seen, epoch: &str, n: u64, now: Moment) -> bool {
    seen.is_evidence(now) && seen.status.marker().is_some_and(|marker| marker.covers(epoch, n))
}

#[cfg(test)]
mod tests;
