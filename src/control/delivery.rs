//! Delivery: brings Traefik's tree to Traefiks that don't read it from the store themselves.
//!
//! A follower of the tree: whenever a Traefik serves another marker than the tree has, it is sent the whole tree as one
//! document. So it doesn't matter why it is behind: the tree moved on, or the Traefik began a new life with nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Settings;
use super::mirror::Mirror;
use crate::clock::Moment;
use crate::lifecycle::{Readiness, compute};
use crate::traefik::client::TraefikClient;
use crate::traefik::document::document;
use crate::traefik::fleet::{Fleet, Seen, Status};
use crate::traefik::name;
use crate::traefik::tree::Tree;

/// A document that Traefik took and doesn't show is sent again after this time. At 50,000 routes it needs 2 s.
const AGAIN_AFTER: Duration = Duration::from_secs(6);

/// How often the root router is looked at, and Traefiks that are behind, without news of them.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// How long a Traefik that does not take the document is left alone: one that has just begun needs a moment until it
/// does, and is told of only if that lasts.
const FAILURE_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// How long Traefik may take for a document of no length, at the first attempt. One that has just begun takes a document
/// before it has anywhere to put it, and never answers: the next attempt must come soon. Each has twice the time.
const PATIENCE: Duration = Duration::from_millis(250);

/// What a document adds to that: Traefik's answer repeats it, at 20 MB/s or more where it isn't busy.
const PATIENCE_BYTES_PER_MILLISECOND: u64 = 5_000;

/// The most time that an attempt has.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// So many failures in a row are no news of a Traefik that has just begun.
const QUIET_FAILURES: u32 = 10;

/// To write the document of more routers than this takes long enough to be kept off the threads that answer.
const LARGE: usize = 500;

/// The latch that is held until Traefik serves what it was sent.
const DELIVERY: &str = "delivery";

/// The latch that is held while Traefik has switched off the router that everything hangs below.
const LATCH: &str = "root router";

/// Sends Traefik's tree to a fleet that takes documents.
pub(super) struct Delivery {
    mirror: Arc<Mirror>,
    fleet: Arc<Fleet>,
    readiness: Readiness,
    /// That of our settings: a tree of a former life, with other settings, is not for Traefik.
    digest: String,
    settings: Arc<Settings>,
    peers: BTreeMap<String, Peer>,
}

/// One Traefik, as far as delivery is concerned.
#[derive(Default)]
struct Peer {
    client: Option<TraefikClient>,
    /// The marker of the document that was sent last, and when.
    sent: Option<(String, Moment)>,
    /// When its root router was found to work.
    checked: Option<Moment>,
    /// How often in a row it did not take the document.
    failures: u32,
    /// How many of these attempts ran out of time.
    late: u32,
}

impl Delivery {
    pub(super) fn new(mirror: Arc<Mirror>, fleet: Arc<Fleet>, readiness: Readiness, settings: Arc<Settings>) -> Self {
        readiness.expect(DELIVERY, "Traefik has not been sent our routes yet");
        Self { mirror, fleet, readiness, digest: settings.digest(), settings, peers: BTreeMap::new() }
    }

    /// Delivers until the stop.
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        let mut seen = self.fleet.watch();
        let mut changed = self.mirror.subscribe();
        loop {
            changed.borrow_and_update();
            let all = seen.borrow_and_update().clone();
            // A Traefik that ends with us may leave a question without an answer: its socket outlives it.
            if stopping.run_until_cancelled(self.look_after(&all)).await.is_none() {
                return;
            }
            self.tell(&all);
            tokio::select! {
                () = stopping.cancelled() => return,
                Ok(()) = changed.changed() => {}
                Ok(()) = seen.changed() => {}
                () = sleep(CHECK_INTERVAL) => {}
            }
        }
    }

    /// Sends what is to be sent, and asks what is to be asked.
    async fn look_after(&mut self, all: &BTreeMap<String, Seen>) {
        if let Some((marker, tree, urls)) = self.due(all) {
            let Some(document) = self.document(tree).await else { return };
            for url in urls {
                self.send(&url, &marker, &document).await;
            }
            self.fleet.hurry();
        }
        self.check_root(all).await;
    }

    /// Ready means that somebody serves what was sent.
    fn tell(&self, all: &BTreeMap<String, Seen>) {
        if all.values().any(|seen| matches!(seen.status, Status::Serving(_))) {
            self.readiness.release(DELIVERY);
        } else {
            self.readiness.expect(DELIVERY, "Traefik does not serve our routes yet");
        }
    }

    /// The marker and its tree, and who should get it now; `None` if nobody.
    fn due(&mut self, all: &BTreeMap<String, Seen>) -> Option<(String, Arc<Tree>, Vec<String>)> {
        let view = self.mirror.read();
        let marker = view.tree.marker.as_ref().filter(|marker| marker.digest == self.digest)?;
        let text = marker.to_string();
        let mut urls = Vec::new();
        for (url, seen) in all {
            let peer = self.peers.entry(url.clone()).or_default();
            match &seen.status {
                Status::Serving(served) if served == marker => continue,
                // There is none where we deliver; if there were, it would lack ours.
                Status::Serving(_) | Status::Fallback(_) => {}
                Status::Empty => {
                    peer.checked = None;
                    // It began a new life with nothing, and what it was sent is lost.
                    peer.sent.take_if(|(_, at)| *at < seen.since);
                }
                Status::Unknown | Status::Down | Status::Silent(_) => {
                    (peer.sent, peer.checked, peer.late) = (None, None, 0);
                    continue;
                }
            }
            if !peer.sent.as_ref().is_some_and(|(sent, at)| *sent == text && at.elapsed() < AGAIN_AFTER) {
                urls.push(url.clone());
            }
        }
        (!urls.is_empty()).then(|| (text, view.tree.clone(), urls))
    }

    /// The document of a tree. Without one nothing is sent: an empty one would take every route away.
    async fn document(&self, tree: Arc<Tree>) -> Option<Bytes> {
        let settings = self.settings.clone();
        let is_long = tree.routers.len() > LARGE;
        match compute(is_long, move || serde_json::to_vec(&document(&tree, &settings.tree))).await {
            Ok(document) => Some(document.into()),
            Err(error) => {
                self.readiness
                    .hold(DELIVERY, format!("the routes can't be written as a document for Traefik: {error}"));
                None
            }
        }
    }

    async fn send(&mut self, url: &str, marker: &str, document: &Bytes) {
        let Some(client) = self.client(url).await else { return };
        let began = Instant::now();
        let patience = patience(document.len(), self.peers.get(url).map_or(0, |peer| peer.late));
        match client.push(document.clone(), patience).await {
            Ok(()) => {
                let bytes = document.len();
                debug!(traefik = %url, marker, bytes, "Sent the routes to Traefik in {:?}", began.elapsed());
                let peer = self.peers.entry(url.to_owned()).or_default();
                (peer.sent, peer.failures, peer.late) = (Some((marker.to_owned(), Moment::now())), 0, 0);
            }
            Err(reason) => {
                let peer = self.peers.entry(url.to_owned()).or_default();
                peer.failures += 1;
                peer.late += u32::from(began.elapsed() >= patience);
                if peer.failures == QUIET_FAILURES {
                    warn!(traefik = %url, "The routes can't be sent to Traefik: {reason}; trying again");
                }
                sleep((FAILURE_PAUSES.0 * peer.failures).min(FAILURE_PAUSES.1)).await;
            }
        }
    }

    /// Looks from time to time whether the router that everything hangs below works: a middleware of the administrator's
    /// that isn't there switches it off, and with it every route.
    async fn check_root(&mut self, all: &BTreeMap<String, Seen>) {
        let serving = |seen: &Seen| matches!(seen.status, Status::Serving(_));
        for url in all.iter().filter(|(_, seen)| serving(seen)).map(|(url, _)| url) {
            let checked = self.peers.get(url).and_then(|peer| peer.checked);
            if checked.is_some_and(|at| at.elapsed() < CHECK_INTERVAL) {
                continue;
            }
            let Some(client) = self.client(url).await else { continue };
            match client.router_errors(name::ROOT).await {
                // It comes with the first route.
                Ok(None) => {}
                Ok(Some(reason)) if reason.is_empty() => {
                    self.readiness.release(LATCH);
                    self.peers.entry(url.clone()).or_default().checked = Some(Moment::now());
                }
                Ok(Some(reason)) => self.readiness.hold(
                    LATCH,
                    format!(
                        "Traefik serves no route at all: {reason}; look at --middlewares and the files that define them"
                    ),
                ),
                // Asked again when there is news of it.
                Err(reason) => debug!(traefik = %url, "The root router can't be looked at: {reason}"),
            }
        }
    }

    async fn client(&mut self, url: &str) -> Option<TraefikClient> {
        let peer = self.peers.entry(url.to_owned()).or_default();
        if peer.client.is_none() {
            peer.client = self.fleet.client(url).await.ok();
        }
        peer.client.clone()
    }
}

/// How long a Traefik may take for a document of so many bytes, after so many attempts that ran out of time.
fn patience(bytes: usize, late: u32) -> Duration {
    let first = PATIENCE + Duration::from_millis(bytes as u64 / PATIENCE_BYTES_PER_MILLISECOND);
    first.saturating_mul(2_u32.saturating_pow(late)).min(PATIENCE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traefik_that_never_answers_the_first_time_is_soon_asked_again() {
        assert_eq!(patience(10_000, 0), Duration::from_millis(252));
        let all_but_the_longest: Duration = (0..3).map(|late| patience(10_000, late)).sum();
        assert!(all_but_the_longest < Duration::from_secs(2), "{all_but_the_longest:?}");
    }

    #[test]
    fn a_busy_one_gets_time_for_a_long_document() {
        assert!(patience(50_000_000, 0) >= PATIENCE_MAX);
        assert_eq!(patience(10_000, 30), PATIENCE_MAX);
        assert_eq!(patience(10_000, u32::MAX), PATIENCE_MAX);
    }
}
