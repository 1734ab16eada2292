//! Asking one Traefik again and again, and what is told of its answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::barrier::LOADING_GRACE;
use super::{CALM_INTERVAL, Fleet, Seen, Status};
use crate::clock::Moment;
use crate::traefik::client::{ClientError, Shown, TraefikClient};

/// While somebody waits, a Traefik is asked again after a twentieth of the time waited so far, within these limits: the
/// answer is then at most 5 % late, and a slow one isn't bothered.
const WAITING_INTERVAL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// How often each Traefik is asked for routers that don't work.
const ROUTERS_INTERVAL: Duration = Duration::from_secs(60);

impl Fleet {
    pub(super) async fn poll(self: Arc<Self>, url: String) {
        let client = match self.client(&url).await {
            Ok(client) => client,
            Err(reason) => return self.update(&url, Status::Silent(reason.to_string()), Moment::now()),
        };
        let mut wanted = self.wanted.subscribe();
        let mut routers_due = Instant::now();
        loop {
            // Whoever comes while the question is open wants a newer one.
            wanted.mark_unchanged();
            let asked = Moment::now();
            self.change(&url, |seen| seen.asking = Some(asked));
            let status = match client.shown().await {
                Ok(Shown::Own(marker)) => Status::Serving(marker),
                Ok(Shown::Fallback(marker)) => Status::Fallback(marker),
                Ok(Shown::Nothing) => Status::Empty,
                Err(ClientError::Refused) => Status::Down,
                Err(ClientError::Silent(reason)) => Status::Silent(reason),
            };
            let now_wanted = wanted.borrow().clone();
            let covers = status.marker().is_some_and(|marker| marker.covers(&now_wanted.epoch, now_wanted.n));
            let serves = status.marker().is_some();
            self.update(&url, status, asked);
            let waited = now_wanted.since.map_or(LOADING_GRACE * 2, |since| since.elapsed());
            let is_calm = covers || waited > LOADING_GRACE * 2;
            if serves && is_calm && routers_due <= Instant::now() {
                routers_due = Instant::now() + ROUTERS_INTERVAL;
                self.look_at_routers(&url, &client).await;
            }
            let pause =
                if is_calm { CALM_INTERVAL } else { (waited / 20).clamp(WAITING_INTERVAL.0, WAITING_INTERVAL.1) };
            tokio::select! {
                () = sleep(pause) => {}
                _ = wanted.changed() => {}
            }
        }
    }

    /// A router that doesn't work sends its user to the hub instead; one line tells of each change of their number.
    async fn look_at_routers(&self, url: &str, client: &TraefikClient) {
        let Ok(overview) = client.overview().await else { return };
        let (errors, total) = (overview.routers.errors, overview.routers.total);
        let mut before = None;
        self.change(url, |seen| before = seen.router_errors.replace(errors));
        match before.unwrap_or(0) {
            same if same == errors => {}
            0 => warn!(
                traefik = %url, errors,
                "{errors} of the {total} routers of the Traefik at {url} don't work, so their users reach the hub instead; \
                 {url}/api/http/routers names them"
            ),
            _ if errors == 0 => info!(traefik = %url, "All routers of the Traefik at {url} work again"),
            _ => debug!(traefik = %url, errors, "{errors} of the routers of the Traefik at {url} don't work"),
        }
    }

    /// Changes what is known of one Traefik, silently.
    fn change(&self, url: &str, change: impl FnOnce(&mut Seen)) {
        self.seen.send_if_modified(|all| {
            if let Some(seen) = all.get_mut(url) {
                change(seen);
            }
            false
        });
    }

    fn log_change(&self, url: &str, before: &Status, after: &Status) {
        match (before, after) {
            (Status::Serving(_), Status::Serving(_))
            | (Status::Fallback(_), Status::Fallback(_))
            // The reason may change from one question to the next.
            | (Status::Silent(_), Status::Silent(_))
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

    fn update(&self, url: &str, status: Status, asked: Moment) {
        let now = Moment::now();
        self.seen.send_if_modified(|all| {
            let mut watchlist = self.watchlist();
            let Some(seen) = all.get_mut(url) else { return false };
            if let Status::Serving(marker) = &status {
                watchlist.see(url, marker, seen.asked, now);
            }
            (seen.asked, seen.asking) = (Some(asked), None);
            let is_new = seen.status != status;
            if is_new {
                self.log_change(url, &seen.status, &status);
                // One that is silent for another reason has been silent all the time.
                if !matches!((&seen.status, &status), (Status::Silent(_), Status::Silent(_))) {
                    seen.since = now;
                }
                seen.status = status;
            }
            let serves = seen.status.marker().is_some();
            watchlist.review(all, now);
            // Those who wait for a fresh answer must hear of it too.
            is_new || !serves || watchlist.is_wary(all)
        });
        self.looked.notify_waiters();
    }
}
