//! The fallback: what Traefiks are given that ask us because etcd may have nothing for them.
//!
//! A Traefik keeps what it has if we answer with an error. So there are three answers: the routes, while some Traefik is
//! up without etcd's tree; nothing, while all serve etcd's; and an error while we can't tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::Settings;
use super::known::{Known, Newest};
use crate::route::RouteTable;
use crate::route::record::Head;
use crate::traefik::fallback;
use crate::traefik::fleet::{Fleet, Seen, Status};

/// How long a Traefik without our routes may take to load them from etcd: while we can follow etcd, and while we can't.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(500));

/// What a Traefik that asks is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// All routes, as a document for its HTTP provider.
    Routes(Bytes),
    /// A document without routes: etcd has them.
    Nothing(Bytes),
    /// It should keep what it has; the text says why.
    Keep(String),
}

/// Answers Traefiks that ask.
pub struct Fallback {
    known: Arc<Known>,
    fleet: Arc<Fleet>,
    settings: Arc<Settings>,
    judge: SyncMutex<Judge>,
    rendered: Mutex<Option<(Head, Bytes)>>,
    offered: AtomicBool,
    /// The log has it that a Traefik needs the routes, and that we can't give them.
    withheld: AtomicBool,
}

impl std::fmt::Debug for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fallback").field("offered", &self.offered).finish_non_exhaustive()
    }
}

impl Fallback {
    pub(super) fn new(known: Arc<Known>, fleet: Arc<Fleet>, settings: Arc<Settings>) -> Self {
        let (judge, rendered) = (SyncMutex::default(), Mutex::default());
        let (offered, withheld) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { known, fleet, settings, judge, rendered, offered, withheld }
    }

    /// Whether the routes were offered to whoever asked last.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        self.offered.load(Ordering::Relaxed)
    }

    /// What a Traefik that asks now is given.
    pub async fn ask(&self) -> Offer {
        let followed = self.known.followed();
        let (verdict, outdone) = {
            let seen = self.fleet.watch();
            let all = seen.borrow();
            let verdict = self.judge.lock().unwrap_or_else(PoisonError::into_inner).judge(&all, followed);
            let outdone = self.known.newest().is_some_and(|newest| outdone(&all, &newest));
            (verdict, outdone)
        };
        match verdict {
            Verdict::Unsure(why) => Offer::Keep(why),
            Verdict::Nothing => {
                self.withheld.store(false, Ordering::Relaxed);
                if self.offered.swap(false, Ordering::Relaxed) {
                    info!("Every Traefik serves etcd's routes again; they get no others from us");
                }
                Offer::Nothing(fallback::nothing().to_string().into())
            }
            Verdict::Routes(traefik) if outdone => {
                self.withhold(&traefik, "what we know is older than what another Traefik serves")
            }
            Verdict::Routes(traefik) => {
                let Some((head, table)) = self.known.table() else {
                    return self.withhold(&traefik, "they have never been read, and there is no snapshot of them");
                };
                self.withheld.store(false, Ordering::Relaxed);
                if !self.offered.swap(true, Ordering::Relaxed) {
                    let (routes, n) = (table.len(), head.n);
                    warn!(%traefik, routes, n, "The Traefik at {traefik} has no routes from etcd: it gets the last known {routes} from us");
                }
                match self.render(head, table).await {
                    Ok(document) => Offer::Routes(document),
                    Err(reason) => Offer::Keep(reason),
                }
            }
        }
    }

    /// A Traefik needs the routes, and must not have those that we have.
    fn withhold(&self, traefik: &str, why: &str) -> Offer {
        if !self.withheld.swap(true, Ordering::Relaxed) {
            warn!(%traefik, why, "The Traefik at {traefik} has no routes from etcd and can't have them from us: {why}; it waits for etcd");
        }
        Offer::Keep(why.to_owned())
    }

    /// The document of this table, made once.
    async fn render(&self, head: Head, table: Arc<RouteTable>) -> Result<Bytes, String> {
        let mut rendered = self.rendered.lock().await;
        if let Some((of, document)) = &*rendered
            && *of == head
        {
            return Ok(document.clone());
        }
        let (settings, now) = (self.settings.clone(), head.clone());
        let made = tokio::task::spawn_blocking(move || {
            let marker = settings.marker(&now.epoch, now.n, now.nonce);
            fallback::routes(&table, &settings.tree, settings.sizes, marker).to_string()
        });
        let document = Bytes::from(made.await.map_err(|error| error.to_string())?);
        *rendered = Some((head, document.clone()));
        Ok(document)
    }
}

/// What the state of the fleet asks for.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// This Traefik needs the routes.
    Routes(String),
    Nothing,
    Unsure(String),
}

/// Judges the state of the fleet. It remembers who was on the fallback: silence is no news.
#[derive(Debug, Default)]
struct Judge {
    on_fallback: BTreeSet<String>,
}

impl Judge {
    fn judge(&mut self, all: &BTreeMap<String, Seen>, followed: bool) -> Verdict {
        let patience = if followed { PATIENCE.0 } else { PATIENCE.1 };
        let mut unsure = None;
        let mut needs = None;
        self.on_fallback.retain(|url| all.contains_key(url));
        for (url, seen) in all {
            match &seen.status {
                Status::Serving(_) | Status::Down => drop(self.on_fallback.remove(url)),
                Status::Fallback(_) => {
                    self.on_fallback.insert(url.clone());
                    needs = Some(url);
                }
                Status::Empty if self.on_fallback.contains(url) || seen.since.elapsed() >= patience => {
                    self.on_fallback.insert(url.clone());
                    needs = Some(url);
                }
                Status::Empty => {}
                Status::Unknown | Status::Silent(_) if self.on_fallback.contains(url) => needs = Some(url),
                // As long as etcd is there for us, it is there for a Traefik that we can't reach; nobody would know.
                Status::Silent(_) if followed => {}
                Status::Unknown | Status::Silent(_) => unsure = Some(format!("{url} has not told what it serves")),
            }
        }
        if all.is_empty() {
            unsure = Some("no Traefik is known".to_owned());
        }
        match (needs, unsure) {
            (Some(url), _) => Verdict::Routes(url.clone()),
            (None, Some(why)) => Verdict::Unsure(why),
            (None, None) => Verdict::Nothing,
        }
    }
}

/// Whether some Traefik serves something newer than we know: then ours would bring back what is gone.
fn outdone(all: &BTreeMap<String, Seen>, newest: &Newest) -> bool {
    let Newest { head, followed } = newest;
    all.values().any(|seen| match &seen.status {
        Status::Serving(marker) | Status::Fallback(marker) if marker.epoch == head.epoch => marker.n > head.n,
        // Another history: only who follows the store knows which is the newer one.
        Status::Serving(_) | Status::Fallback(_) => !followed,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::clock::Moment;
    use crate::traefik::marker::{LAYOUT, Marker};

    fn marker(epoch: &str, n: u64) -> Marker {
        Marker { layout: LAYOUT, digest: "d".to_owned(), tag: String::new(), epoch: epoch.to_owned(), n }
    }

    fn fleet(statuses: &[Status]) -> BTreeMap<String, Seen> {
        let seen = |status: &Status| Seen {
            status: status.clone(),
            since: Moment::now(),
            asked: None,
            asking: None,
            router_errors: None,
        };
        statuses.iter().enumerate().map(|(i, status)| (format!("t{i}"), seen(status))).collect()
    }

    fn needs(i: usize) -> Verdict {
        Verdict::Routes(format!("t{i}"))
    }

    #[tokio::test(start_paused = true)]
    async fn routes_are_for_who_stays_without_any() {
        let serving = Status::Serving(marker("e", 7));
        for (followed, patience) in [(true, PATIENCE.0), (false, PATIENCE.1)] {
            let mut judge = Judge::default();
            let all = fleet(&[serving.clone(), Status::Down]);
            assert_eq!(judge.judge(&all, followed), Verdict::Nothing);
            let all = fleet(&[serving.clone(), Status::Empty]);
            assert_eq!(judge.judge(&all, followed), Verdict::Nothing, "it may be loading them");
            advance(patience).await;
            assert_eq!(judge.judge(&all, followed), needs(1));
            let all = fleet(&[serving.clone(), Status::Fallback(marker("e", 7))]);
            assert_eq!(judge.judge(&all, followed), needs(1), "as long as it lives on them");
            let all = fleet(&[serving.clone(), serving.clone()]);
            assert_eq!(judge.judge(&all, followed), Verdict::Nothing, "etcd is back for it");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_takes_nothing_away() {
        let (serving, silent) = (Status::Serving(marker("e", 7)), Status::Silent("slow".to_owned()));
        let mut judge = Judge::default();
        for unknown in [Status::Unknown, silent.clone()] {
            let verdict = judge.judge(&fleet(&[serving.clone(), unknown]), false);
            assert!(matches!(verdict, Verdict::Unsure(_)), "we have just started: {verdict:?}");
        }
        assert!(matches!(judge.judge(&fleet(&[serving.clone(), Status::Unknown]), true), Verdict::Unsure(_)));
        assert!(matches!(judge.judge(&fleet(&[]), true), Verdict::Unsure(_)));
        assert_eq!(judge.judge(&fleet(&[serving.clone(), silent.clone()]), true), Verdict::Nothing, "etcd is there");
        judge.judge(&fleet(&[serving.clone(), Status::Fallback(marker("e", 7))]), true);
        for silence in [silent, Status::Unknown] {
            assert_eq!(judge.judge(&fleet(&[serving.clone(), silence]), true), needs(1), "it lives on ours");
        }
        assert_eq!(judge.judge(&fleet(&[serving.clone(), Status::Empty]), true), needs(1), "and began anew");
        judge.judge(&fleet(&[serving.clone(), Status::Down]), true);
        assert_eq!(judge.judge(&fleet(&[serving, Status::Empty]), true), Verdict::Nothing, "patience begins anew");
    }

    #[tokio::test]
    async fn what_is_older_than_what_users_get_stays_here() {
        let newest = |epoch: &str, n, followed| Newest {
            head: Head { epoch: epoch.to_owned(), n, nonce: "x".to_owned() },
            followed,
        };
        for (status, ours, expected) in [
            (Status::Serving(marker("e", 7)), newest("e", 7, false), false),
            (Status::Serving(marker("e", 7)), newest("e", 6, false), true),
            (Status::Fallback(marker("e", 7)), newest("e", 6, true), true),
            (Status::Serving(marker("f", 1)), newest("e", 6, false), true),
            (Status::Serving(marker("f", 9)), newest("e", 6, true), false),
            (Status::Empty, newest("e", 6, false), false),
        ] {
            let all = fleet(&[Status::Down, status.clone()]);
            assert_eq!(outdone(&all, &ours), expected, "{status:?} {ours:?}");
        }
    }
}
