//! When routes were last used: real Traefiks, real requests and websockets, and replicas that look at them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use pointsman::activity::kernel;
use pointsman::activity::streams::Connection;
use pointsman::activity::{Activity, LastActivity, Settings};
use pointsman::api;
use pointsman::api::auth::{AuthSettings, Authenticator};
use pointsman::api::listen::{Limits, Listener};
use pointsman::clock::{Clock, SystemClock};
use pointsman::control::{self, ControlPlane, Routes};
use pointsman::lifecycle::{Lifecycle, Readiness};
use pointsman::route::record::RecordKeys;
use pointsman::route::{RouteData, RouteSpec, Target};
use pointsman::store::SharedStore;
use pointsman::traefik::bucket::Sizes;
use pointsman::traefik::client::Access;
use pointsman::traefik::fleet::{Fleet, Source};
use pointsman::traefik::rule::Space;

use crate::support::flaky_store::FlakyStore;
use crate::support::raw_http::RawClient;
use crate::support::servers::{OpenWebsocket, PathServer, Upload};
use crate::support::system::System;
use crate::support::wait::{eventually, http_get_as};

const PATIENCE: Duration = Duration::from_secs(120);

/// A replica that looks often.
struct Replica {
    control: Arc<ControlPlane>,
    activity: Arc<Activity>,
    lifecycle: Lifecycle,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.lifecycle.stop();
        self.lifecycle.stopping().cancel();
    }
}

impl Replica {
    async fn start(system: &System) -> Self {
        Self::start_on(system, system.etcd.patient_store().await, often().checkpoint_interval)
    }

    fn start_on(system: &System, store: SharedStore, checkpoint_interval: Duration) -> Self {
        let apis: Vec<_> = system.edges.iter().map(|edge| edge.traefik.api.clone()).collect();
        Self::start_as(&apis, store, Settings { checkpoint_interval, ..often() })
    }

    fn start_as(apis: &[String], store: SharedStore, looks: Settings) -> Self {
        let (lifecycle, readiness, fleet) = (Lifecycle::new(), Readiness::new(), Arc::new(Fleet::new(Access::etcd())));
        let sources = apis.iter().map(|api| Source::Url(api.parse().expect("a URL"))).collect();
        let (stopping, run) = (lifecycle.stopping(), fleet.clone().run(sources));
        lifecycle.spawn("fleet", async move {
            let _ = stopping.run_until_cancelled(run).await;
        });
        let settings = control::Settings {
            records: RecordKeys::new("pointsman"),
            sizes: Sizes::default(),
            ..crate::control::settings("web")
        };
        let clock = Arc::new(SystemClock);
        let control =
            ControlPlane::start(&lifecycle, &readiness, clock.clone(), store.clone(), fleet.clone(), settings);
        let table = control.clone();
        let activity = Activity::start(&lifecycle, clock, store, fleet, Arc::new(move || table.table()), looks);
        Self { control, activity, lifecycle }
    }

    async fn add(&self, path: &str, target: &str) {
        let target = Target::parse(target).expect("valid");
        eventually("an added route", PATIENCE, || async {
            let added = self.control.add(spec(path), target.clone(), RouteData::new(), None).await;
            added.map_err(|e| e.to_string())
        })
        .await;
        self.activity.posted(&spec(path));
    }

    /// When a route was last used, if anybody knows.
    async fn try_last(&self, path: &str) -> Option<Timestamp> {
        let route = self.control.get(&spec(path)).await.expect("the store answers").expect("the route is there");
        self.activity.of(&[route]).map(|last| last[0])
    }

    /// When a route was last used. Waits until it is known.
    async fn last(&self, path: &str) -> Timestamp {
        eventually("it is known", PATIENCE, || async { self.try_last(path).await.ok_or_else(|| "unknown".to_owned()) })
            .await
    }

    /// Waits until a route was used at `before` or later: both are whole milliseconds.
    async fn moves(&self, path: &str, before: Timestamp) -> Timestamp {
        eventually(&format!("{path} was used"), PATIENCE, || async {
            match self.try_last(path).await {
                Some(last) if last >= before => Ok(last),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Waits until so much was looked at that all that has happened so far is known: a move is judged a look later.
    /// Asks again and again: what was answered before the very first look of a replica is no news to it.
    async fn looks(&self, system: &System) {
        for _ in 0..3 {
            let before = now();
            eventually("a look", PATIENCE, || async {
                assert_eq!(visit(system, 0, "/clock/200").await, 200);
                match self.try_last("/clock").await {
                    Some(last) if last >= before => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
    }

    async fn stop(self) {
        self.lifecycle.stop();
        self.lifecycle.finished().await.expect("a good end");
    }
}

/// Looks that come often, and writes too.
fn often() -> Settings {
    Settings { interval: Duration::from_millis(250), ..Settings::new("pointsman", Space::Paths) }
}

fn spec(path: &str) -> RouteSpec {
    RouteSpec::from_decoded(path).expect("valid")
}

/// The time, in whole milliseconds.
fn now() -> Timestamp {
    Timestamp::from_millisecond(SystemClock.now().as_millisecond()).expect("in range")
}

async fn visit(system: &System, edge: usize, path: &str) -> u16 {
    RawClient::connect(system.edges[edge].public).await.get("hub.example.org", path).await.status
}

/// So many Traefiks, and a server with a route of its own for what a test looks at.
async fn system(traefiks: usize) -> (System, PathServer) {
    (System::start(traefiks).await, PathServer::start().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_count_and_errors_do_not() {
    let (system, clock) = system(1).await;
    let replica = Replica::start(&system).await;
    let (jane, hub) = (PathServer::start().await, PathServer::start().await);
    replica.add("/", &hub.url()).await;
    replica.add("/clock", &clock.url()).await;
    replica.add("/user/jane", &jane.url()).await;
    replica.add("/user/jane/gpu", &jane.url()).await;
    replica.looks(&system).await;
    let still = [replica.last("/").await, replica.last("/user/jane").await, replica.last("/user/jane/gpu").await];
    for _ in 0..5 {
        for path in ["/user/jane/404", "/user/jane/302", "/user/jane/304", "/user/jane/500", "/nowhere/404"] {
            assert_eq!(visit(&system, 0, path).await.to_string(), path[path.len() - 3..]);
        }
        // What anybody sees who probes.
        assert_eq!(visit(&system, 0, "/_chp_healthz").await, 200);
        replica.looks(&system).await;
    }
    let after = [replica.last("/").await, replica.last("/user/jane").await, replica.last("/user/jane/gpu").await];
    assert_eq!(after, still, "errors, redirects and probes");

    let begun = now();
    assert_eq!(visit(&system, 0, "/user/jane/gpu/200").await, 200);
    assert!(replica.moves("/user/jane/gpu", begun).await <= now());
    assert_eq!(replica.last("/user/jane").await, still[1], "the longer route took it");
    assert_eq!(visit(&system, 0, "/anything/200").await, 200);
    replica.moves("/", begun).await;
    assert_eq!(replica.last("/user/jane").await, still[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_websocket_counts_while_its_client_speaks() {
    let (system, clock) = system(1).await;
    let replica = Replica::start(&system).await;
    let (jane, joe) = (PathServer::start().await, PathServer::start().await);
    replica.add("/clock", &clock.url()).await;
    replica.add("/user/jane", &jane.url()).await;
    replica.add("/user/joe", &joe.url()).await;
    let mut speaks = OpenWebsocket::open(system.edges[0].public, "/user/jane/ws").await;
    let _silent = OpenWebsocket::open(system.edges[0].public, "/user/joe/ws").await;
    replica.looks(&system).await;
    let silent = replica.last("/user/joe").await;
    for _ in 0..4 {
        let before = now();
        speaks.pong().await;
        let after = now();
        let last = replica.moves("/user/jane", before - Duration::from_millis(10)).await;
        // The kernel knows the moment itself, in ticks of up to 10 ms, however long ago the look was.
        assert!(last <= after + Duration::from_millis(20), "{last} is later than {after}");
        // A page of the same server that isn't found must neither hide the websocket nor count.
        assert_eq!(visit(&system, 0, "/user/jane/404").await, 404);
    }
    replica.looks(&system).await;
    let quiet = replica.last("/user/jane").await;
    for _ in 0..3 {
        assert_eq!(visit(&system, 0, "/user/jane/404").await, 404);
        replica.looks(&system).await;
    }
    assert_eq!(replica.last("/user/jane").await, quiet, "it is open, and its client says nothing");
    assert_eq!(replica.last("/user/joe").await, silent, "it never said anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_counts_while_it_goes_on() {
    let (system, clock) = system(1).await;
    let replica = Replica::start(&system).await;
    let jane = PathServer::start().await;
    replica.add("/clock", &clock.url()).await;
    replica.add("/user/jane", &jane.url()).await;
    replica.looks(&system).await;
    let mut upload = Upload::begin(system.edges[0].public, "/user/jane/404").await;
    let goes_on = async {
        loop {
            upload.piece().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let is_seen = async {
        for _ in 0..3 {
            replica.moves("/user/jane", now()).await;
        }
    };
    tokio::select! {
        () = goes_on => {}
        () = is_seen => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_it() {
    let (system, clock) = system(1).await;
    // So rarely that only its stop can have written what matters.
    let store = system.etcd.patient_store().await;
    let replica = Replica::start_on(&system, store, Duration::from_secs(3600));
    let server = PathServer::start().await;
    replica.add("/clock", &clock.url()).await;
    for path in ["/user/jane", "/user/joe", "/user/ann"] {
        replica.add(path, &server.url()).await;
        replica.looks(&system).await;
        let before = now();
        assert_eq!(visit(&system, 0, &format!("{path}/200")).await, 200);
        replica.moves(path, before).await;
    }
    let (jane, joe) = (replica.last("/user/jane").await, replica.last("/user/joe").await);
    replica.stop().await;
    // While nobody looks.
    let away = now();
    assert_eq!(visit(&system, 0, "/user/joe/200").await, 200);
    assert_eq!(visit(&system, 0, "/user/jane/404").await, 404);
    let replica = Replica::start(&system).await;
    assert_eq!(replica.last("/user/jane").await, jane);
    assert!(replica.last("/user/joe").await >= away, "{joe} it was used while we were away");
    replica.looks(&system).await;
    assert_eq!(replica.last("/user/jane").await, jane);

    // A route that is created again begins with its POST.
    assert!(replica.control.remove(spec("/user/ann")).await.expect("removed"));
    let begun = now();
    replica.add("/user/ann", &server.url()).await;
    assert!(replica.last("/user/ann").await >= begun);
    replica.control.remove(spec("/user/joe")).await.expect("removed");
    // Names of routes that are gone leave the checkpoint.
    let joe = pointsman::traefik::name::route("/user/joe");
    eventually("the checkpoint forgets it", PATIENCE, || async {
        let listing = system.etcd.patient_store().await.list("pointsman/activity/").await.expect("etcd answers");
        let texts: Vec<_> = listing.entries.iter().map(|e| String::from_utf8_lossy(&e.value).into_owned()).collect();
        assert!(!texts.is_empty(), "nothing is kept");
        if texts.iter().any(|text| text.contains(&joe)) { Err(texts.join("\n")) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_traefiks_and_two_replicas_agree() {
    let (mut system, clock) = system(2).await;
    let replicas = [Replica::start(&system).await, Replica::start(&system).await];
    let jane = PathServer::start().await;
    replicas[0].add("/clock", &clock.url()).await;
    replicas[0].add("/user/jane", &jane.url()).await;
    replicas[1].looks(&system).await;
    for edge in [0, 1, 0, 1] {
        let before = now();
        assert_eq!(visit(&system, edge, "/user/jane/200").await, 200);
        for replica in &replicas {
            replica.moves("/user/jane", before).await;
        }
        eventually("both say the same", PATIENCE, || async {
            let said = [replicas[0].last("/user/jane").await, replicas[1].last("/user/jane").await];
            if said[0] == said[1] { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
    }
    // A Traefik that starts again counts from nothing, and that is no use of anything.
    let last = replicas[0].last("/user/jane").await;
    system.edges[1].restart().await;
    replicas[0].looks(&system).await;
    assert_eq!(replicas[0].last("/user/jane").await, last);
    let before = now();
    assert_eq!(visit(&system, 1, "/user/jane/200").await, 200);
    replicas[1].moves("/user/jane", before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_whole_look_nothing_is_told() {
    let (system, clock) = system(2).await;
    let replica = Replica::start(&system).await;
    replica.add("/clock", &clock.url()).await;
    let last = replica.last("/clock").await;
    system.edges[1].traefik.process.pause();
    eventually("it is unknown", PATIENCE, || async {
        match replica.try_last("/clock").await {
            None => Ok(()),
            Some(last) => Err(format!("{last}")),
        }
    })
    .await;
    system.edges[1].traefik.process.signal("CONT");
    assert_eq!(replica.last("/clock").await, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_written_rarely() {
    let (system, clock) = system(1).await;
    let store = FlakyStore::over(system.etcd.patient_store().await);
    let looks = || Settings { interval: Duration::from_secs(1), ..often() };
    let apis = [system.edges[0].traefik.api.clone()];
    let replicas = [Replica::start_as(&apis, store.clone(), looks()), Replica::start_as(&apis, store.clone(), looks())];
    replicas[0].add("/clock", &clock.url()).await;
    let (begun, commits) = (std::time::Instant::now(), store.commits.load(Ordering::SeqCst));
    for _ in 0..5 {
        replicas[0].looks(&system).await;
        replicas[1].looks(&system).await;
    }
    let (seconds, commits) = (begun.elapsed().as_secs_f64(), store.commits.load(Ordering::SeqCst) - commits);
    // One write of what was seen for each look, a sign of life every three seconds, and at most one note of the other one.
    let most = (1.0 + 1.0 / 3.0) * seconds + 4.0;
    assert!(commits >= 1 && f64::from(u32::try_from(commits).expect("few")) <= most, "{commits} writes in {seconds} s");
    let keys = system.etcd.patient_store().await.list("traefik/").await.expect("etcd answers");
    assert!(keys.entries.iter().all(|entry| !entry.key.contains("activity")), "never in Traefik's tree");
}

/// An address that is not this machine's own by its looks: whoever has it stands for a Traefik elsewhere.
fn elsewhere(api: &str) -> String {
    api.replace("127.0.0.1", "[::ffff:127.0.0.1]")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traefik_elsewhere_is_seen_through_its_neighbour() {
    let (system, clock) = system(1).await;
    let lifecycle = Lifecycle::new();
    let auth = AuthSettings { tokens: vec!["right".into()], jwt: None };
    let auth = Arc::new(Authenticator::new(&auth, Arc::new(SystemClock)).expect("usable settings"));
    let listener = Listener::bind("--listen", "127.0.0.1", 0, Limits::default()).await.expect("a free port");
    let port = listener.addresses()[0].port();
    let router = api::connections::router(auth, Arc::new(kernel::outgoing));
    lifecycle.spawn_front("connections", listener.serve("connections", router, lifecycle.draining()));

    let url = format!("http://127.0.0.1:{port}/connections");
    for (token, query, status) in [(None, "", 403), (Some("wrong"), "?port=x", 403), (Some("right"), "?port=x", 400)] {
        let (got, body) = http_get_as(&format!("{url}{query}"), token).await.expect("an answer");
        assert_eq!(got, status, "{body}");
    }
    let etcd_port = system.etcd.members[0].port;
    let (status, body) = http_get_as(&format!("{url}?port={etcd_port}"), Some("right")).await.expect("an answer");
    assert!(status == 200 && body.contains(&format!("[\"127.0.0.1:{etcd_port}\",\"")), "{status} {body}");

    let looks =
        |token: &str| Settings { connections_port: Some(port), connections_token: Some(token.into()), ..often() };
    let apis = [elsewhere(&system.edges[0].traefik.api)];
    let replica = Replica::start_as(&apis, system.etcd.patient_store().await, looks("right"));
    let jane = PathServer::start().await;
    replica.add("/clock", &clock.url()).await;
    replica.add("/user/jane", &jane.url()).await;
    let mut websocket = OpenWebsocket::open(system.edges[0].public, "/user/jane/ws").await;
    replica.looks(&system).await;
    for _ in 0..3 {
        let before = now();
        websocket.pong().await;
        replica.moves("/user/jane", before - Duration::from_millis(10)).await;
    }
    replica.stop().await;
    // With a neighbour that refuses us, a user of an open notebook would look idle: nobody may be called so.
    let blind = Replica::start_as(&apis, system.etcd.patient_store().await, looks("wrong"));
    eventually("its table", PATIENCE, || async { blind.control.list().await.map(drop).map_err(|e| e.to_string()) })
        .await;
    eventually("it looks", PATIENCE, || async {
        if blind.activity.is_holder() { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    // What must not come can't be waited for.
    tokio::time::sleep(often().interval * 6).await;
    assert_eq!(blind.try_last("/user/jane").await, None);
    assert!(blind.activity.age().is_none(), "no look was whole");
    blind.stop().await;
    // Without any neighbour it is known that websockets can't be seen, and the rest is told.
    let plain = Replica::start_as(&apis, system.etcd.patient_store().await, often());
    plain.last("/user/jane").await;
    lifecycle.stop();
}

/// The kernel's own account: who is connected where, how much was sent, and when.
#[tokio::test]
async fn the_kernel_tells_of_connections() {
    use tokio::io::AsyncWriteExt;
    for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let listener = tokio::net::TcpListener::bind((ip, 0)).await.expect("a free port");
        let server = listener.local_addr().expect("an address");
        let seen = |found: Vec<Connection>| -> Vec<_> {
            let there = |c: &&Connection| c.server.port() == server.port();
            found.iter().filter(there).map(|c| (c.server.ip(), c.sent, c.id)).collect()
        };
        let mut client = tokio::net::TcpStream::connect(server).await.expect("a connection");
        let (accepted, peer) = listener.accept().await.expect("a connection");
        client.write_all(b"hello!").await.expect("it is open");
        let ours = Some(std::process::id());
        let first = seen(kernel::connections(&[server.port()], ours).expect("the kernel answers"));
        assert_eq!(first.len(), 1, "{ip}: {first:?}");
        assert_eq!((first[0].0, first[0].1), (server.ip().to_canonical(), 6));
        // All ports at once, and what may be told to others, have it too; the other end of it is not for others.
        assert_eq!(seen(kernel::connections(&[], None).expect("the kernel answers")), first);
        assert_eq!(seen(kernel::outgoing(&[]).expect("the kernel answers")), first);
        let other_end = |c: &Connection| c.server.port() == peer.port();
        assert!(kernel::connections(&[], None).expect("the kernel answers").iter().any(other_end));
        assert!(!kernel::outgoing(&[]).expect("the kernel answers").iter().any(other_end));
        assert_eq!(
            seen(kernel::connections(&[server.port()], Some(1)).expect("the kernel answers")),
            [],
            "not of init"
        );
        drop((client, accepted));
        eventually("it is gone", PATIENCE, || async {
            let found = seen(kernel::connections(&[server.port()], None).expect("the kernel answers"));
            if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
}

/// The kernel is asked every ten seconds, so that must cost next to nothing. It takes some milliseconds; if a look
/// takes a second, the next one comes only after fifty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_connections_are_read_in_no_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let server = listener.local_addr().expect("an address");
    let mut pairs = Vec::new();
    for _ in 0..1000 {
        let client = tokio::net::TcpStream::connect(server).await.expect("a connection");
        pairs.push((client, listener.accept().await.expect("a connection")));
    }
    let ask = || {
        let begun = std::time::Instant::now();
        let found = kernel::connections(&[server.port()], None).expect("the kernel answers");
        assert_eq!(found.len(), pairs.len());
        begun.elapsed()
    };
    // The best of some, for whatever else this machine does may come between.
    let took = (0..5).map(|_| ask()).min().expect("five times");
    assert!(took < Duration::from_secs(1), "{took:?}");
}
