//! After a restore or a wipe: the store's revision is moved on, so that nobody waits for one that it had before.
//!
//! A Traefik resumes its watch after the last revision that it has heard of. A store that went back hands that one out
//! again only after as many changes as it has lost; until then the Traefik hears nothing, and can't be told so. Changes of
//! a key that nobody reads count as well.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::Moment;
use crate::route::RouteTable;
use crate::store::{Commit, Op, Revision, SharedStore, StoreError, Txn};
use crate::traefik::fleet::{Seen, Status};

/// The furthest that a store is moved on by writing.
pub(super) const PUSHES_MAX: Revision = 100_000;

/// So many writes are under way at a time.
const PUSHERS: usize = 32;

/// How long a Traefik may answer and stay behind the tree before it is taken for deaf.
const DEAF_AFTER: Duration = Duration::from_secs(3);

/// How often a deaf one is tried, and how far the store is moved on each time: more and more, for it isn't known how far it
/// went back.
const ROUNDS: [(Duration, Revision); 8] = [
    (Duration::ZERO, 1),
    (Duration::from_secs(1), 8),
    (Duration::from_secs(1), 64),
    (Duration::from_secs(2), 512),
    (Duration::from_secs(2), 1_024),
    (Duration::from_secs(4), 2_048),
    (Duration::from_secs(4), 4_096),
    (Duration::from_secs(8), 8_192),
];

/// How two tables differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Difference {
    came_back: usize,
    went_away: usize,
    changed: usize,
}

impl Difference {
    pub(super) fn between(before: &RouteTable, now: &RouteTable) -> Self {
        let mut difference = Self::default();
        for route in now.iter() {
            match before.get(&route.spec) {
                None => difference.came_back += 1,
                Some(old) if old.target != route.target || old.data != route.data => difference.changed += 1,
                Some(_) => {}
            }
        }
        difference.went_away = before.iter().filter(|route| now.get(&route.spec).is_none()).count();
        difference
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { came_back, went_away, changed } = self;
        write!(f, "{came_back} routes came back, {went_away} went away, {changed} changed")
    }
}

/// Writes `key` until the store's revision, now at `from`, has reached `to`, or it is time. Returns how far it has come.
pub(super) async fn push(
    store: &SharedStore,
    key: &str,
    from: Revision,
    to: Revision,
    deadline: Instant,
) -> Result<Revision, StoreError> {
    let reached = Arc::new(AtomicI64::new(from));
    let mut pushers = JoinSet::new();
    let count = usize::try_from(to - from).unwrap_or(0).min(PUSHERS);
    for _ in 0..count {
        let (store, key, reached) = (store.clone(), key.to_owned(), reached.clone());
        pushers.spawn(async move {
            while reached.load(Ordering::SeqCst) < to && Instant::now() < deadline {
                let put = Op::Put { key: key.clone(), value: to.to_string().into_bytes() };
                let (Commit::Done(at) | Commit::Conflict(at)) =
                    store.commit(Txn { guards: Vec::new(), ops: vec![put] }).await?;
                reached.fetch_max(at, Ordering::SeqCst);
            }
            Ok(())
        });
    }
    while let Some(pushed) = pushers.join_next().await {
        pushed.map_err(|error| StoreError::Unavailable(error.to_string()))??;
    }
    Ok(reached.load(Ordering::SeqCst))
}

/// Traefiks that answer and show something else than the tree's marker, and don't move.
#[derive(Debug)]
pub(super) struct Deaf {
    waiting: BTreeMap<String, Waiting>,
    rounds: &'static [(Duration, Revision)],
}

#[derive(Debug)]
struct Waiting {
    /// What it shows, since when it was found to be behind.
    shows: String,
    since: Moment,
    rounds: usize,
    tried: Moment,
}

/// What is to be done about those that are deaf.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cure {
    /// Move the store on by so much, for this one.
    Push(Revision, String),
    /// Nothing more helps this one.
    GiveUp(String),
}

impl Deaf {
    /// None yet. Unless the store may be moved on for them, they are given up without a try.
    pub(super) fn new(may_push: bool) -> Self {
        Self { waiting: BTreeMap::new(), rounds: if may_push { &ROUNDS } else { &[] } }
    }

    /// Looks at all Traefiks, with the tree's `marker` as it was in the store after they had been asked.
    pub(super) fn look(&mut self, all: &BTreeMap<String, Seen>, marker: &str, now: Moment) -> Option<Cure> {
        let behind = |seen: &Seen| match &seen.status {
            Status::Serving(shown) => Some(shown.to_string()).filter(|shown| shown != marker),
            _ => None,
        };
        self.waiting.retain(|url, waiting| all.get(url).and_then(behind).as_ref() == Some(&waiting.shows));
        let mut cure = None;
        for (url, seen) in all {
            let Some(shows) = behind(seen) else { continue };
            let waiting =
                self.waiting.entry(url.clone()).or_insert(Waiting { shows, since: now, rounds: 0, tried: now });
            if now.duration_since(waiting.since) < DEAF_AFTER || waiting.rounds > self.rounds.len() {
                continue;
            }
            let Some((pause, further)) = self.rounds.get(waiting.rounds) else {
                if now.duration_since(waiting.tried) >= DEAF_AFTER {
                    waiting.rounds += 1;
                    cure.get_or_insert(Cure::GiveUp(url.clone()));
                }
                continue;
            };
            if now.duration_since(waiting.tried) >= *pause {
                (waiting.rounds, waiting.tried) = (waiting.rounds + 1, now);
                cure = Some(Cure::Push(*further, url.clone()));
            }
        }
        cure
    }

    /// Whether everybody follows.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Route, RouteData, RouteSpec, Target};
    use crate::store::memory::MemoryStore;
    use crate::traefik::marker::Marker;

    fn table(routes: &[(&str, u16)]) -> RouteTable {
        let route = |(path, port): &(&str, u16)| Route {
            spec: RouteSpec::from_decoded(path).expect("valid"),
            target: Target::parse(&format!("http://127.0.0.1:{port}")).expect("valid"),
            data: RouteData::new(),
            created: "2026-01-01T00:00:00Z".parse().expect("a time"),
            n: u64::from(*port),
        };
        routes.iter().map(route).collect()
    }

    fn seen(n: u64, now: Moment) -> Seen {
        let marker = Marker { layout: 2, digest: "d".into(), tag: "t".into(), epoch: "e".into(), n };
        Seen { status: Status::Serving(marker), since: now, asked: Some(now), asking: None, router_errors: None }
    }

    #[test]
    fn a_difference_counts_each_kind() {
        let before = table(&[("/a", 1), ("/b", 2), ("/c", 3)]);
        let now = table(&[("/a", 1), ("/b", 9), ("/d", 4), ("/e", 5)]);
        let text = Difference::between(&before, &now).to_string();
        assert_eq!(text, "2 routes came back, 1 went away, 1 changed");
    }

    #[tokio::test]
    async fn a_store_is_moved_on_and_not_much_further() {
        let memory = MemoryStore::new();
        let store: SharedStore = Arc::new(memory.clone());
        let soon = Instant::now() + Duration::from_secs(20);
        let reached = push(&store, "p/hub-push", 1, 500, soon).await.expect("pushed");
        assert!((500..532).contains(&reached) && memory.revision() == reached, "{reached}");
        assert_eq!(push(&store, "p/hub-push", reached, 7, soon).await.expect("nothing to do"), reached);
        assert_eq!(store.list("").await.expect("readable").entries.len(), 1);
        let late = push(&store, "p/hub-push", reached, reached + 1_000_000, Instant::now()).await.expect("pushed");
        assert_eq!(late, reached, "it was time");
    }

    #[test]
    fn who_stays_behind_is_tried_with_more_each_time_and_then_given_up() {
        let (mut deaf, mut now) = (Deaf::new(true), Moment::now());
        let serving = |n| seen(n, Moment::now());
        let all = BTreeMap::from([("t0".to_owned(), serving(7)), ("t1".to_owned(), serving(6))]);
        let mut tried = Vec::new();
        for _ in 0..60 {
            match deaf.look(&all, "2.d-t.e.7", now) {
                Some(Cure::Push(further, url)) => {
                    assert_eq!(url, "t1");
                    tried.push(further);
                }
                Some(Cure::GiveUp(_)) => tried.push(-1),
                None => {}
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(tried, [1, 8, 64, 512, 1_024, 2_048, 4_096, 8_192, -1]);
        assert!(!deaf.is_empty());
        let moved = BTreeMap::from([("t0".to_owned(), serving(7)), ("t1".to_owned(), serving(7))]);
        assert_eq!(deaf.look(&moved, "2.d-t.e.7", now), None);
        assert!(deaf.is_empty());
    }

    #[test]
    fn who_may_not_be_helped_by_writing_is_given_up_once() {
        let (mut deaf, begun) = (Deaf::new(false), Moment::now());
        let all = BTreeMap::from([("t".to_owned(), seen(6, begun))]);
        let tried = (0..30).filter_map(|s| Some((s, deaf.look(&all, "2.d-t.e.7", begun + Duration::from_secs(s))?)));
        assert_eq!(tried.collect::<Vec<_>>(), [(3, Cure::GiveUp("t".to_owned()))]);
    }

    #[test]
    fn who_moves_is_not_deaf() {
        let (mut deaf, mut now) = (Deaf::new(true), Moment::now());
        for n in 0..30 {
            let all = BTreeMap::from([("t".to_owned(), seen(n, now))]);
            assert_eq!(deaf.look(&all, &format!("2.d-t.e.{}", n + 1), now), None, "always one behind");
            now += Duration::from_secs(1);
        }
    }
}
