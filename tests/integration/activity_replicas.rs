//! When routes were last used, with several replicas: one looks, and all say the same, whatever happens to that one.
//!
//! Each replica has a thread and a runtime of its own, so that it can be paused or killed in the midst of anything.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use pointsman::activity::{Activity, LastActivity, Settings};
use pointsman::clock::{Clock, SystemClock};
use pointsman::control::{self, ControlPlane, Routes};
use pointsman::lifecycle::{Lifecycle, Readiness};
use pointsman::route::record::RecordKeys;
use pointsman::route::{Route, RouteData, RouteSpec, Target};
use pointsman::store::lease::Times;
use pointsman::store::memory::MemoryStore;
use pointsman::store::{
    Changes, Commit, Listing, Op, Read, Revision, SharedStore, Store, StoreError, Txn, TxnLimits, Watch,
};
use pointsman::traefik::bucket::Sizes;
use pointsman::traefik::client::Access;
use pointsman::traefik::fleet::{Fleet, Source};
use pointsman::traefik::rule::Space;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use url::Url;

use crate::support::fake_traefik::FakeTraefik;
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(30);

/// What is promised for looks that come every ten seconds; here they come much more often.
const PROMISE: Duration = Duration::from_secs(15);

const QUICK: Times = Times { ttl: Duration::from_secs(2), beat: Duration::from_millis(500) };

/// Nobody waits for it to end.
const LONG: Times = Times { ttl: Duration::from_secs(3600), beat: Duration::from_secs(1) };

/// One replica's way to the store: its commits can be held up, and go on even if nobody waits for them any more; and so
/// can what it hears.
struct Way {
    store: MemoryStore,
    is_open: watch::Sender<bool>,
    /// Of which watches it hears, by their prefixes.
    hears: watch::Sender<fn(&str) -> bool>,
    /// What became of each commit that wrote times under the lease.
    written: Arc<Mutex<Vec<Commit>>>,
    /// How many of them told of a whole look.
    looks: Arc<AtomicUsize>,
}

impl Way {
    fn written(&self) -> Vec<Commit> {
        self.written.lock().expect("not poisoned").clone()
    }
}

fn is_put(op: &Op, is_it: impl Fn(&str) -> bool) -> bool {
    matches!(op, Op::Put { key, .. } if key.strip_prefix("pointsman/activity/").is_some_and(is_it))
}

#[async_trait]
impl Store for Way {
    async fn get(&self, key: &str) -> Result<Read, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.store.list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let (store, mut is_open) = (self.store.clone(), self.is_open.subscribe());
        let (written, looks) = (self.written.clone(), self.looks.clone());
        let sent = Handle::current().spawn(async move {
            let _ = is_open.wait_for(|is_open| *is_open).await;
            let is_checkpoint = txn.ops.iter().any(|op| is_put(op, |key| key == "looked" || key.parse::<u8>().is_ok()));
            let is_look = txn.ops.iter().any(|op| is_put(op, |key| key == "looked"));
            let done = store.commit(txn).await;
            if let (Ok(commit), true) = (&done, is_checkpoint) {
                written.lock().expect("not poisoned").push(*commit);
                looks.fetch_add(usize::from(is_look && matches!(commit, Commit::Done(_))), Ordering::SeqCst);
            }
            done
        });
        sent.await.expect("it doesn't panic")
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let (watch, hears) = (self.store.watch(prefix, after).await?, self.hears.subscribe());
        Ok(Box::new(Hearing { watch, prefix: prefix.to_owned(), hears, heard: None }))
    }

    fn limits(&self) -> TxnLimits {
        self.store.limits()
    }
}

struct Hearing {
    watch: Box<dyn Watch>,
    prefix: String,
    hears: watch::Receiver<fn(&str) -> bool>,
    heard: Option<Result<Changes, StoreError>>,
}

#[async_trait]
impl Watch for Hearing {
    async fn next(&mut self) -> Result<Changes, StoreError> {
        if self.heard.is_none() {
            self.heard = Some(self.watch.next().await);
        }
        let _ = self.hears.wait_for(|hears| hears(&self.prefix)).await;
        self.heard.take().expect("it was put there")
    }
}

/// One replica on its own thread. Without it the replica is killed.
struct Replica {
    way: Arc<Way>,
    control: Arc<ControlPlane>,
    activity: Arc<Activity>,
    lifecycle: Lifecycle,
    runtime: Handle,
    life: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Replica {
    fn start(store: MemoryStore, traefik: Url, times: Times) -> Self {
        let way = Way {
            store,
            is_open: watch::Sender::new(true),
            hears: watch::Sender::new(|_| true),
            written: Arc::default(),
            looks: Arc::default(),
        };
        let (way, (give, take), (life, ended)) = (Arc::new(way), mpsc::channel(), oneshot::channel::<()>());
        let shared: SharedStore = way.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let (control, activity, lifecycle) = begin(shared, traefik, times);
                give.send((control, activity, lifecycle, Handle::current())).expect("the test waits");
                let _ = ended.await;
            });
        });
        let (control, activity, lifecycle, runtime) = take.recv().expect("it starts");
        Self { way, control, activity, lifecycle, runtime, life: Some(life), thread: Some(thread) }
    }

    /// Stands still until what this gives is dropped.
    fn pause(&self) -> mpsc::Sender<()> {
        let ((resume, wait), (begun, begins)) = (mpsc::channel::<()>(), mpsc::channel());
        self.runtime.spawn(async move {
            begun.send(()).expect("the test waits");
            // All else on this thread waits, too.
            let _ = wait.recv();
        });
        begins.recv().expect("it stands still");
        resume
    }

    async fn stop(self) {
        self.lifecycle.stop();
        self.lifecycle.finished().await.expect("a good end");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        drop(self.life.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn begin(store: SharedStore, traefik: Url, times: Times) -> (Arc<ControlPlane>, Arc<Activity>, Lifecycle) {
    let (lifecycle, readiness, fleet) = (Lifecycle::new(), Readiness::new(), Arc::new(Fleet::new(Access::etcd())));
    let (stopping, run) = (lifecycle.stopping(), fleet.clone().run(vec![Source::Url(traefik)]));
    lifecycle.spawn("fleet", async move {
        let _ = stopping.run_until_cancelled(run).await;
    });
    let settings = control::Settings {
        records: RecordKeys::new("pointsman"),
        sizes: Sizes::default(),
        ..crate::control::settings("web")
    };
    let clock = Arc::new(SystemClock);
    let control = ControlPlane::start(&lifecycle, &readiness, clock.clone(), store.clone(), fleet.clone(), settings);
    let looks = Settings {
        interval: Duration::from_millis(250),
        connections: false,
        lease: Some(times),
        ..Settings::new("pointsman", Space::Paths)
    };
    let table = control.clone();
    let activity = Activity::start(&lifecycle, clock, store, fleet, Arc::new(move || table.table()), looks);
    (control, activity, lifecycle)
}

fn spec(path: &str) -> RouteSpec {
    RouteSpec::from_decoded(path).expect("valid")
}

/// The time, in whole milliseconds.
fn now() -> Timestamp {
    Timestamp::from_millisecond(SystemClock.now().as_millisecond()).expect("in range")
}

/// A Traefik, replicas that know two routes, and one of them looks.
struct World {
    traefik: FakeTraefik,
    replicas: Vec<Replica>,
    routes: Vec<Arc<Route>>,
}

const PATHS: [&str; 2] = ["/user/jane", "/user/joe"];

impl World {
    async fn start(replicas: usize, times: Times) -> Self {
        let store = MemoryStore::new();
        let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
        let replicas = (0..replicas).map(|_| Replica::start(store.clone(), traefik.url.clone(), times)).collect();
        let mut world = Self { traefik, replicas, routes: Vec::new() };
        let control = world.replicas[0].control.clone();
        for path in PATHS {
            let target = Target::parse("http://127.0.0.1:9").expect("valid");
            eventually("an added route", PATIENCE, || async {
                control.add(spec(path), target.clone(), RouteData::new(), None).await.map_err(|e| e.to_string())
            })
            .await;
            world.routes.push(control.get(&spec(path)).await.expect("readable").expect("it is there"));
        }
        world.holder().await;
        // So that the Traefik stands in the checkpoint.
        for path in PATHS {
            world.is_used(path).await;
        }
        world
    }

    /// The one that looks: all agree on that.
    async fn holder(&self) -> usize {
        eventually("one replica looks", PATIENCE, || async {
            let holds: Vec<usize> =
                (0..self.replicas.len()).filter(|i| self.replicas[*i].activity.is_holder()).collect();
            if holds.len() == 1 { Ok(holds[0]) } else { Err(format!("{holds:?}")) }
        })
        .await
    }

    /// What everybody says of a route.
    fn said(&self, path: &str) -> Vec<Option<Timestamp>> {
        let route = self.routes.iter().find(|route| route.spec == spec(path)).expect("it is there");
        self.replicas
            .iter()
            .map(|replica| replica.activity.of(std::slice::from_ref(route)).map(|last| last[0]))
            .collect()
    }

    /// Waits until all say the same of a route, and that is `before` or later, in whole milliseconds.
    async fn agree(&self, path: &str, before: Timestamp) -> Timestamp {
        eventually(&format!("all say the same of {path}"), PROMISE, || async {
            let said = self.said(path);
            match said[0] {
                Some(at) if at >= before && said.iter().all(|other| *other == said[0]) => Ok(at),
                _ => Err(format!("{said:?}, after {before}")),
            }
        })
        .await
    }

    /// Somebody uses a route, and all hear of it.
    async fn is_used(&self, path: &str) -> Timestamp {
        let before = now();
        eventually("a use is news", PATIENCE, || async {
            // What came before the very first look of all is none.
            self.traefik.answered(path);
            let said = self.said(path);
            if said.iter().all(|last| last.is_some_and(|last| last >= before)) {
                Ok(())
            } else {
                Err(format!("{said:?}"))
            }
        })
        .await;
        self.looks(2).await;
        self.agree(path, before).await
    }

    /// Waits for so many more whole looks, of whichever replica.
    async fn looks(&self, count: usize) {
        let begun = self.looked();
        eventually("looks", PATIENCE, || async {
            let now = self.looked();
            if now >= begun + count { Ok(()) } else { Err(format!("{now} after {begun}")) }
        })
        .await;
    }

    fn looked(&self) -> usize {
        self.replicas.iter().map(|replica| replica.way.looks.load(Ordering::SeqCst)).sum()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_looks_and_all_say_the_same() {
    let world = World::start(3, QUICK).await;
    let holder = world.holder().await;
    let (reads, looked) = (world.traefik.reads(), world.looked());
    for path in [PATHS[0], PATHS[1], PATHS[0]] {
        world.is_used(path).await;
    }
    world.looks(10).await;
    let (reads, looked) = (world.traefik.reads() - reads, world.looked() - looked);
    assert!(reads <= looked + 2, "{reads} reads of Traefik's counters for {looked} looks");
    assert_eq!(world.holder().await, holder, "it keeps the lease");
    // A route that is posted again is in use, whoever was asked.
    for replica in &world.replicas {
        let before = now();
        replica.activity.posted(&spec(PATHS[1]));
        world.agree(PATHS[1], before).await;
    }
    for (i, replica) in world.replicas.iter().enumerate() {
        assert_eq!(replica.activity.traffic().is_some(), i == holder, "{i}");
        assert!(replica.activity.age().is_some_and(|age| age < PROMISE));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_holder_is_followed_within_the_ttl() {
    let mut world = World::start(3, QUICK).await;
    let jane = world.agree(PATHS[0], Timestamp::UNIX_EPOCH).await;
    let (holder, begun, before) = (world.holder().await, Instant::now(), now());
    drop(world.replicas.remove(holder));
    // While nobody looks.
    world.traefik.answered(PATHS[1]);
    world.holder().await;
    // These two seconds are for a busy machine.
    let most = QUICK.ttl + QUICK.beat + Duration::from_secs(2);
    assert!(begun.elapsed() < most, "{:?}", begun.elapsed());
    world.agree(PATHS[1], before).await;
    world.looks(3).await;
    assert_eq!(world.agree(PATHS[0], Timestamp::UNIX_EPOCH).await, jane, "neither lost nor used");
    world.is_used(PATHS[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_holder_has_read_what_the_last_one_wrote() {
    let mut world = World::start(2, QUICK).await;
    let holder = world.holder().await;
    // It hears of the lease, but is late to hear of all else.
    let late = world.replicas[1 - holder].way.clone();
    late.hears.send_replace(|prefix| prefix != "pointsman/activity/");
    let before = now();
    world.traefik.answered(PATHS[0]);
    let said = eventually("it is seen", PROMISE, || async {
        let said = world.said(PATHS[0])[holder];
        said.filter(|at| *at >= before).ok_or_else(|| format!("{said:?}"))
    })
    .await;
    world.looks(2).await;
    drop(world.replicas.remove(holder));
    world.holder().await;
    world.looks(3).await;
    assert_eq!(world.agree(PATHS[0], Timestamp::UNIX_EPOCH).await, said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_stops_is_followed_at_once() {
    let mut world = World::start(3, LONG).await;
    let holder = world.holder().await;
    let (stopped, before) = (world.replicas.remove(holder), now());
    // Only its end can tell the others of that, unless it is just about to look.
    stopped.activity.posted(&spec(PATHS[0]));
    stopped.stop().await;
    world.holder().await;
    world.agree(PATHS[0], before).await;
    world.is_used(PATHS[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_paused_says_what_the_others_say() {
    let world = World::start(2, QUICK).await;
    // Each has its turn to be paused, and to look again after it was; and finds the store at once when it wakes, or not.
    for (used, is_cut_off) in [(PATHS[0], false), (PATHS[1], true), (PATHS[0], true), (PATHS[1], false)] {
        let unused = PATHS[usize::from(used == PATHS[0])];
        let last = world.agree(unused, Timestamp::UNIX_EPOCH).await;
        let holder = world.holder().await;
        let (one, other) = (&world.replicas[holder], &world.replicas[1 - holder]);
        let (paused, written) = (one.pause(), one.way.written().len());
        eventually("the other one looks", PATIENCE, || async {
            if other.activity.is_holder() { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        let before = now();
        world.traefik.answered(used);
        let said = eventually("it sees that", PROMISE, || async {
            let said = world.said(used)[1 - holder];
            said.filter(|at| *at >= before).ok_or_else(|| format!("{said:?}"))
        })
        .await;
        world.looks(3).await;
        assert_eq!(one.way.written().len(), written, "it stands still");
        if is_cut_off {
            one.way.is_open.send_replace(false);
            one.way.hears.send_replace(|_| false);
        }
        drop(paused);
        // It looks at once, if it thinks that it should.
        world.looks(5).await;
        one.way.is_open.send_replace(true);
        one.way.hears.send_replace(|_| true);
        assert_ne!(world.holder().await, holder);
        world.looks(5).await;
        // What it finds at Traefik when it wakes is news to it, and happened long ago.
        assert_eq!(world.agree(used, before).await, said);
        assert_eq!(world.agree(unused, Timestamp::UNIX_EPOCH).await, last, "it was not used");
        let late = &one.way.written()[written..];
        assert!(late.iter().all(|commit| matches!(commit, Commit::Conflict(_))), "{late:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_under_way_is_refused_after_a_takeover() {
    let world = World::start(3, QUICK).await;
    let holder = world.holder().await;
    let way = &world.replicas[holder].way;
    way.is_open.send_replace(false);
    let written = way.written().len();
    eventually("another one looks", PATIENCE, || async {
        let now = world.holder().await;
        if now == holder { Err("the same".to_owned()) } else { Ok(()) }
    })
    .await;
    let before = now();
    world.traefik.answered(PATHS[0]);
    world.looks(5).await;
    assert_eq!(way.written().len(), written, "nothing came through");
    way.is_open.send_replace(true);
    let late = eventually("the late write arrives", PATIENCE, || async {
        let late = way.written()[written..].to_vec();
        if late.is_empty() { Err("not yet".to_owned()) } else { Ok(late) }
    })
    .await;
    assert!(late.iter().all(|commit| matches!(commit, Commit::Conflict(_))), "{late:?}");
    assert_ne!(world.holder().await, holder);
    world.agree(PATHS[0], before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nobody_looks_nothing_is_told() {
    let mut world = World::start(3, LONG).await;
    let holder = world.holder().await;
    drop(world.replicas.remove(holder));
    eventually("it is unknown", PATIENCE, || async {
        let said = world.said(PATHS[0]);
        if said == [None, None] { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    let gone = world.replicas.iter().filter(|replica| replica.activity.is_holder()).count();
    assert_eq!(gone, 0, "the lease is kept for its TTL");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_can_not_see_every_traefik_leaves_it_to_another_one() {
    let store = MemoryStore::new();
    let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
    // It takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("an address")).parse().expect("a URL");
    let blind = Replica::start(store.clone(), url, LONG);
    eventually("it has the lease", PATIENCE, || async {
        if blind.activity.is_holder() { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let other = Replica::start(store.clone(), traefik.url.clone(), LONG);
    eventually("the other one sees everything", PATIENCE, || async {
        let looks = other.way.looks.load(Ordering::SeqCst);
        if looks > 3 && other.activity.is_holder() && !blind.activity.is_holder() {
            Ok(())
        } else {
            Err(looks.to_string())
        }
    })
    .await;
    assert_eq!(blind.way.looks.load(Ordering::SeqCst), 0);
    assert!(blind.activity.age().is_some(), "it follows");
}
