//! The lease: who has it, what a holder that has lost it can still do (nothing), and how soon another one has it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pointsman::clock::Moment;
use pointsman::store::follow::Follower;
use pointsman::store::lease::{Contender, Held, Lease, Step, Tenure, Times};
use pointsman::store::memory::MemoryStore;
use pointsman::store::{Commit, Op, Revision, SharedStore, Store, StoreError, Txn};
use proptest::prelude::*;
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use crate::store_contract::{Kind, Subject};
use crate::support::flaky_store::FlakyStore;

const KEY: &str = "p/lease";
const TIMES: Times = Times { ttl: Duration::from_secs(10), beat: Duration::from_secs(3) };

/// A write under the lease.
fn fenced(held: &Held, text: &str) -> Txn {
    let put = Op::Put { key: "p/work".into(), value: text.into() };
    Txn { guards: held.guard().into_iter().collect(), ops: vec![put] }
}

/// One who can be paused between any two steps: what he hears, asks, and learns comes when the model says so.
struct Actor {
    contender: Contender,
    follower: Follower,
    /// A transaction that he has decided on, and when.
    asking: Option<(Txn, Moment)>,
    /// What came of it, which he has not yet heard.
    answer: Option<(Result<Commit, StoreError>, Moment)>,
    /// A write under the lease that he has decided on.
    writing: Option<Txn>,
}

/// What may happen next, to whom.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// He hears the next news from the store, if there is any.
    Hear,
    /// He decides what to do, by his clock.
    Decide,
    /// His transaction reaches the store, and its answer is or isn't lost.
    Arrive { answered: bool },
    /// He learns what came of it.
    Learn,
    /// He decides on a write under the lease, if he thinks that he has it.
    Begin,
    /// That write reaches the store.
    Write,
    /// He stops, and gives the lease back; then he begins anew, knowing nothing.
    Stop,
    /// He is killed, and another one begins.
    Kill,
}

/// Everybody, one store, and a clock.
struct World {
    store: MemoryStore,
    actors: Vec<Actor>,
    now: Moment,
    /// The terms of all writes that were accepted, in their order.
    accepted: Vec<Revision>,
}

impl World {
    fn new(actors: usize) -> Self {
        let store = MemoryStore::new();
        let actors = (0..actors).map(|_| Actor::new(&store)).collect();
        Self { store, actors, now: Moment::now(), accepted: Vec::new() }
    }

    async fn commit(&self, txn: Txn) -> Commit {
        self.store.commit(txn).await.expect("memory")
    }

    /// Whether there was something to hear.
    async fn hears(&mut self, who: usize) -> bool {
        let actor = &mut self.actors[who];
        tokio::select! {
            biased;
            update = actor.follower.next() => actor.contender.see(update, self.now),
            () = std::future::ready(()) => return false,
        }
        true
    }

    /// One more second, in which everybody does what he should.
    async fn goes_well(&mut self) {
        self.now += Duration::from_secs(1);
        for who in 0..self.actors.len() {
            while self.hears(who).await {}
            for event in [Event::Arrive { answered: true }, Event::Learn, Event::Decide] {
                self.happens(who, event).await;
            }
            for event in [Event::Arrive { answered: true }, Event::Learn] {
                self.happens(who, event).await;
            }
        }
        for who in 0..self.actors.len() {
            while self.hears(who).await {}
        }
    }

    fn holders(&self) -> Vec<bool> {
        self.actors.iter().map(|actor| actor.contender.held().is_some()).collect()
    }

    async fn happens(&mut self, who: usize, event: Event) {
        let now = self.now;
        let actor = &mut self.actors[who];
        match event {
            Event::Hear => drop(self.hears(who).await),
            Event::Decide if actor.asking.is_none() && actor.answer.is_none() => {
                if let Step::Ask(txn) = actor.contender.step(now) {
                    actor.asking = Some((txn, now));
                }
            }
            Event::Arrive { answered } => {
                if let Some((txn, sent)) = actor.asking.take() {
                    let done = self.commit(txn).await;
                    let lost = || Err(StoreError::Unavailable("lost".into()));
                    self.actors[who].answer = Some((if answered { Ok(done) } else { lost() }, sent));
                }
            }
            Event::Learn => {
                if let Some((answer, sent)) = actor.answer.take() {
                    actor.contender.answered(answer, sent, now);
                }
            }
            Event::Begin => actor.writing = actor.contender.held().map(|held| fenced(&held, "x")),
            Event::Write => {
                if let Some(txn) = actor.writing.take() {
                    let term = txn.guards[0].mod_revision;
                    let is_now = self.store.get(KEY).await.expect("memory").entry.map(|entry| entry.mod_revision);
                    if let Commit::Done(_) = self.commit(txn).await {
                        assert_eq!(is_now, Some(term), "a write of another term than the store's");
                        self.accepted.push(term);
                    }
                }
            }
            Event::Stop => {
                if let Some(txn) = actor.contender.release() {
                    self.commit(txn).await;
                }
                self.actors[who] = Actor::new(&self.store);
            }
            Event::Kill => self.actors[who] = Actor::new(&self.store),
            Event::Decide => {}
        }
    }
}

impl Actor {
    fn new(store: &MemoryStore) -> Self {
        Self {
            contender: Contender::new(KEY, TIMES),
            follower: Follower::new(Arc::new(store.clone()), KEY.into()),
            asking: None,
            answer: None,
            writing: None,
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Hear),
        6 => Just(Event::Decide),
        6 => prop::bool::weighted(0.8).prop_map(|answered| Event::Arrive { answered }),
        6 => Just(Event::Learn),
        4 => Just(Event::Begin),
        3 => Just(Event::Write),
        1 => Just(Event::Stop),
        1 => Just(Event::Kill),
    ]
}

/// Runs one story in a world of its own, with a clock that stands still but for it.
fn tell(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(story);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whoever is paused, wherever, for as long as may be: once somebody else has taken the lease nothing of his is written.
    #[test]
    fn writes_of_two_terms_never_interleave(
        steps in proptest::collection::vec((0usize..3, event(), 0u64..4), 50..400)
    ) {
        tell(async {
            let mut world = World::new(3);
            for (who, event, seconds) in steps {
                world.now += Duration::from_secs(seconds);
                world.happens(who, event).await;
            }
            assert!(world.accepted.is_sorted(), "{:?}", world.accepted);
        });
    }

    /// When everybody runs as he should, after whatever has happened, the lease is soon held by exactly one, and stays his.
    #[test]
    fn somebody_has_it_soon(steps in proptest::collection::vec((0usize..3, event(), 0u64..4), 0..100)) {
        tell(async {
            let mut world = World::new(3);
            for (who, event, seconds) in steps {
                world.now += Duration::from_secs(seconds);
                world.happens(who, event).await;
            }
            let mut holders = Vec::new();
            for second in 0..60 {
                world.goes_well().await;
                if Duration::from_secs(second) > TIMES.ttl + TIMES.beat {
                    holders.push(world.holders());
                }
            }
            assert_eq!(holders[0].iter().filter(|held| **held).count(), 1, "{holders:?}");
            assert!(holders.iter().all(|held| *held == holders[0]), "{holders:?}");
        });
    }
}

/// A replica's lease, as a task.
struct Replica {
    tenure: Tenure,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Replica {
    #[expect(clippy::disallowed_methods, reason = "this one is killed, which is no end for a lifecycle")]
    fn start(store: SharedStore, times: Times) -> Self {
        let (lease, tenure) = Lease::new(store, KEY, times);
        let stop = CancellationToken::new();
        Self { tenure, stop: stop.clone(), task: tokio::spawn(lease.run(stop)) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_holder_is_followed_within_the_ttl_and_a_stopped_one_at_once() {
    let store: SharedStore = Arc::new(MemoryStore::new());
    let mut first = Replica::start(store.clone(), TIMES);
    let killed = first.tenure.taken().await;
    let mut second = Replica::start(store.clone(), TIMES);
    // It is kept for as long as its holder lives.
    assert!(tokio::time::timeout(Duration::from_secs(3600), second.tenure.taken()).await.is_err());
    assert_eq!(first.tenure.held().and_then(|held| held.guard()), killed.guard());

    let begun = Moment::now();
    first.task.abort();
    let taken = second.tenure.taken().await;
    let took = begun.elapsed();
    assert!(took + TIMES.beat + Duration::from_secs(1) > TIMES.ttl && took <= TIMES.ttl + TIMES.beat, "{took:?}");
    assert!(matches!(store.commit(fenced(&killed, "late")).await, Ok(Commit::Conflict(_))));
    assert!(matches!(store.commit(fenced(&taken, "right")).await, Ok(Commit::Done(_))));

    let mut third = Replica::start(store.clone(), TIMES);
    assert!(tokio::time::timeout(Duration::from_secs(60), third.tenure.taken()).await.is_err());
    let begun = Moment::now();
    second.stop.cancel();
    third.tenure.taken().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    second.task.await.expect("a good end");
    assert!(matches!(store.commit(fenced(&taken, "late")).await, Ok(Commit::Conflict(_))));
    third.stop.cancel();
    third.task.await.expect("a good end");
    assert_eq!(store.list(KEY).await.expect("memory").entries, [], "nobody has it");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_can_not_reach_the_store_goes_on_until_it_hears_of_another() {
    let memory: SharedStore = Arc::new(MemoryStore::new());
    let flaky = FlakyStore::over(memory.clone());
    let mut first = Replica::start(flaky.clone(), TIMES);
    let term = first.tenure.taken().await;
    flaky.away.store(true, Ordering::SeqCst);
    // The store is away for everybody.
    tokio::time::sleep(TIMES.ttl * 10).await;
    assert!(first.tenure.is_confirmed(&term).await);
    flaky.away.store(false, Ordering::SeqCst);
    tokio::time::sleep(TIMES.ttl * 10).await;
    assert!(first.tenure.is_confirmed(&term).await, "nobody else was there to take it");
    flaky.away.store(true, Ordering::SeqCst);
    // It is away for this one only, but its watch goes on, and tells it.
    let mut second = Replica::start(memory.clone(), TIMES);
    second.tenure.taken().await;
    first.tenure.lost(&term).await;
    assert!(!first.tenure.is_confirmed(&term).await);
    assert!(matches!(memory.commit(fenced(&term, "late")).await, Ok(Commit::Conflict(_))));
    first.stop.cancel();
    first.task.await.expect("a good end");
    assert!(second.tenure.held().is_some(), "who has lost it gives nothing back");
}

/// Whoever has not heard of a beat can't take the lease from its holder, however long he has waited.
#[tokio::test(start_paused = true)]
async fn who_hears_late_takes_nothing() {
    let mut world = World::new(2);
    world.goes_well().await;
    let holder = world.holders().iter().position(|held| *held).expect("somebody has it");
    let late = 1 - holder;
    while world.hears(late).await {}
    let term = world.actors[holder].contender.held().and_then(|held| held.guard());
    world.now += TIMES.beat;
    for event in [Event::Decide, Event::Arrive { answered: true }, Event::Learn] {
        world.happens(holder, event).await;
    }
    world.now += TIMES.ttl;
    world.happens(late, Event::Decide).await;
    assert!(world.actors[late].asking.is_some(), "he has seen the same beat for a whole TTL");
    for event in [Event::Arrive { answered: true }, Event::Learn] {
        world.happens(late, event).await;
    }
    assert!(world.actors[late].contender.held().is_none());
    while world.hears(holder).await {}
    assert_eq!(world.actors[holder].contender.held().and_then(|held| held.guard()), term);
}

/// Of a claim whose answer got lost it is found out that it succeeded, without another TTL.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_does_not_lose_the_lease() {
    let flaky = FlakyStore::over(Arc::new(MemoryStore::new()));
    flaky.answers_to_lose.store(1, Ordering::SeqCst);
    let begun = Moment::now();
    let mut replica = Replica::start(flaky.clone(), TIMES);
    let term = replica.tenure.taken().await;
    assert!(begun.elapsed() < TIMES.beat * 2, "{:?}", begun.elapsed());
    flaky.answers_to_lose.store(3, Ordering::SeqCst);
    tokio::time::sleep(TIMES.ttl * 3).await;
    assert!(replica.tenure.is_confirmed(&term).await);
    replica.stop.cancel();
    replica.task.await.expect("a good end");
}

/// Whoever shares the store with nobody has it, and asks nothing of the store.
#[tokio::test]
async fn alone_it_is_always_held() {
    let mut tenure = Tenure::alone();
    let held = tenure.taken().await;
    assert!(held.guard().is_none() && tenure.is_confirmed(&held).await);
    assert!(tokio::time::timeout(Duration::from_millis(50), tenure.lost(&held)).await.is_err());
}

/// The rules of every store suffice for it.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_store_keeps_it(#[values(Kind::Memory, Kind::Embedded, Kind::Etcd)] kind: Kind) {
    let subject = Subject::new(kind).await;
    let times = Times { ttl: Duration::from_millis(900), beat: Duration::from_millis(300) };
    let mut replicas = BTreeMap::new();
    for name in ["a", "b", "c"] {
        replicas.insert(name, Replica::start(subject.store.clone(), times));
    }
    let mut terms: Vec<Held> = Vec::new();
    for _ in 0..3 {
        let mut holder = None;
        while holder.is_none() {
            holder = replicas.iter().find(|(_, replica)| replica.tenure.held().is_some()).map(|(name, _)| *name);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let holder = replicas.remove(holder.expect("there is one")).expect("it is there");
        let term = holder.tenure.held().expect("it has it");
        let written = subject.store.commit(fenced(&term, "right")).await;
        assert!(matches!(written, Ok(Commit::Done(_))), "{written:?}");
        for old in &terms {
            let late = subject.store.commit(fenced(old, "late")).await;
            assert!(matches!(late, Ok(Commit::Conflict(_))), "{late:?}");
        }
        // Killed one time, stopped another.
        if terms.is_empty() {
            holder.task.abort();
        } else {
            holder.stop.cancel();
        }
        terms.push(term);
    }
}
