//! When routes were last used, with everything on one machine: the program as a hub starts it, its own Traefik, and looks
//! that come every ten seconds. Several things are watched at once, for each look has to be waited for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::http::Connection;
use crate::support::one_machine::{OneMachine, ask_over};
use crate::support::servers::{OpenWebsocket, PathServer, SocketServer};
use crate::support::wait::{eventually, http_get};

/// Two looks and more, also where a look takes long and the next one is put off.
const PATIENCE: Duration = Duration::from_secs(30);

/// A checkpoint is due 30 s after the last one, and written at the next look.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(60);

/// The file of the store, in Pointsman's folder.
const STORE: &str = "pointsman-data/routes.redb";

/// When routes were last used, by path.
type Times = BTreeMap<String, Timestamp>;

/// The records that the API lists.
async fn records(machine: &OneMachine, query: &str) -> BTreeMap<String, Value> {
    let (status, body) = http_get(&format!("{}/api/routes{query}", machine.api)).await.expect("an answer");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("a table")
}

/// When every route was last used, if it is known.
async fn try_times(machine: &OneMachine) -> Result<Times, String> {
    let time = |(path, record): (String, Value)| {
        let text = record["last_activity"].as_str().ok_or_else(|| format!("{path}: unknown\n{record}"))?;
        Ok((path, text.parse().expect("a time")))
    };
    records(machine, "").await.into_iter().map(time).collect()
}

/// The same. Waits until it is known.
async fn times(machine: &OneMachine) -> Times {
    let known = || async { try_times(machine).await.map_err(|e| format!("{e}\n{}", machine.process.log())) };
    eventually("it is known when routes were used", PATIENCE, known).await
}

/// Waits until a route was used after `before`, and gives all times.
async fn moves(machine: &OneMachine, path: &str, before: Timestamp) -> Times {
    eventually(&format!("{path} was used"), PATIENCE, || async {
        match try_times(machine).await {
            Ok(times) if times[path] >= before => Ok(times),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Asks for what is there, and waits until a look has seen it.
async fn is_seen(machine: &OneMachine, path: &str) -> Times {
    let before = now();
    assert_eq!(visit(machine, &format!("{path}/200")).await, 200);
    moves(machine, path, before).await
}

async fn visit(machine: &OneMachine, path: &str) -> u16 {
    machine.get(path).await.status
}

/// The time, in whole milliseconds.
fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).expect("in range")
}

/// Servers and users of theirs who do something every second, for as long as this lives.
struct Users {
    servers: Vec<PathServer>,
    sockets: Vec<SocketServer>,
    doing: JoinSet<()>,
    silent: Vec<OpenWebsocket>,
}

/// Which of them use a route, and which don't.
const USED: [&str; 4] = ["/user/asks", "/user/speaks", "/user/socket-asks", "/user/socket-speaks"];
const UNUSED: [&str; 4] = ["/user/is-lost", "/user/silent", "/user/socket-silent", "/user/stranger"];

/// Where the server of this route listens.
fn socket(machine: &OneMachine, path: &str) -> PathBuf {
    machine.file(&format!("{}.sock", path.replace('/', "-")))
}

impl Users {
    /// A route for each, to a server of its own; and what is open from the beginning.
    async fn arrive(machine: &OneMachine) -> Self {
        let mut users = Self { servers: Vec::new(), sockets: Vec::new(), doing: JoinSet::new(), silent: Vec::new() };
        for path in USED.iter().chain(&UNUSED) {
            if path.contains("socket") {
                let file = socket(machine, path);
                users.sockets.push(SocketServer::start(&file));
                machine.add(path, &format!("http+unix://{}", file.display().to_string().replace('/', "%2F"))).await;
            } else {
                users.servers.push(PathServer::start().await);
                machine.add(path, &users.servers[users.servers.len() - 1].url()).await;
            }
        }
        for path in ["/user/silent/ws", "/user/socket-silent/ws"] {
            users.silent.push(OpenWebsocket::open(machine.public, path).await);
        }
        users
    }

    /// They begin.
    async fn begin(&mut self, machine: &OneMachine) {
        for path in ["/user/speaks/ws", "/user/socket-speaks/ws"] {
            self.speak(machine.public, path).await;
        }
        // Someone on this machine has found the last server, and goes there without asking Traefik.
        let stranger = self.servers.last().expect("there is one").address.port();
        self.speak(stranger, "/ws").await;
        let public = machine.public_address();
        self.doing.spawn(async move {
            loop {
                let answer = ask_over(Connection::open(public).await, "GET /user/is-lost/404", "").await;
                assert_eq!(answer.status, 404);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    /// A websocket that says a pong every second.
    async fn speak(&mut self, port: u16, path: &str) {
        let mut websocket = OpenWebsocket::open(port, path).await;
        self.doing.spawn(async move {
            loop {
                websocket.pong().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    /// Nobody of them has fallen over.
    fn assert_busy(&mut self) {
        assert!(self.doing.try_join_next().is_none(), "somebody has stopped");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_uses_a_route_is_seen_and_a_kill_keeps_what_was_written() {
    let clock = PathServer::start().await;
    let machine = OneMachine::start(&[]).await;
    machine.add("/clock", &clock.url()).await;
    let mut users = Users::arrive(&machine).await;
    times(&machine).await;
    let (known, begun) = (Instant::now(), now());
    users.begin(&machine).await;
    for path in ["/user/asks/200", "/user/socket-asks/200"] {
        assert_eq!(visit(&machine, path).await, 200);
    }
    let asked = moves(&machine, "/user/asks", begun).await;
    assert!(known.elapsed() < PATIENCE && asked["/user/asks"] <= now(), "never too early");
    for path in USED {
        moves(&machine, path, begun).await;
    }
    let (used, first) = (SystemTime::now(), times(&machine).await);
    // A websocket goes on counting, and a move that was taken for a request's is judged one look later.
    for _ in 0..2 {
        let before = is_seen(&machine, "/clock").await["/clock"] - Duration::from_secs(5);
        for path in ["/user/speaks", "/user/socket-speaks"] {
            moves(&machine, path, before).await;
        }
    }
    users.assert_busy();
    let seen = times(&machine).await;
    for path in UNUSED {
        assert!(seen[path] <= begun, "{path} was used at {}, after {begun}", seen[path]);
    }
    assert_eq!((seen["/user/asks"], seen["/user/socket-asks"]), (asked["/user/asks"], asked["/user/socket-asks"]));
    let idle = records(&machine, &format!("?inactive_since={begun}")).await;
    assert_eq!(idle.keys().collect::<Vec<_>>(), UNUSED.iter().collect::<Vec<_>>());

    // What a killed Pointsman knew is in its folder, as of the last time that it wrote.
    eventually("a checkpoint", CHECKPOINT_PATIENCE, || async {
        // Nothing else is written meanwhile.
        let written = std::fs::metadata(machine.file(STORE)).and_then(|file| file.modified()).expect("a store");
        if written > used { Ok(()) } else { Err(format!("{written:?}, not after {used:?}")) }
    })
    .await;
    // That may have been its beginning. Commits come one after the other.
    machine.add("/clock", &clock.url()).await;
    let OneMachine { mut process, folder, .. } = machine;
    process.kill();
    let machine = OneMachine::start_in(folder, &[], &[]).await;
    let kept = times(&machine).await;
    for path in USED.iter().chain(&UNUSED) {
        assert!(kept[*path] >= first[*path], "{path}: {} after {}", kept[*path], first[*path]);
    }
    for path in ["/user/asks", "/user/is-lost", "/user/silent", "/user/stranger"] {
        assert_eq!(kept[path], seen[path], "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_keeps_it_and_a_killed_traefik_is_no_use() {
    let (clock, server) = (PathServer::start().await, PathServer::start().await);
    let machine = OneMachine::start(&[]).await;
    machine.add("/clock", &clock.url()).await;
    machine.add("/user/jane", &server.url()).await;
    machine.add("/user/joe", &server.url()).await;
    times(&machine).await;
    // The first look has written, and the next checkpoint is half a minute away: only the stop writes this.
    let seen = is_seen(&machine, "/user/jane").await;
    let folder = machine.stop().await;
    let machine = OneMachine::start_in(folder, &[], &[]).await;
    let last = times(&machine).await;
    assert_eq!(last, seen);

    let first = machine.kill_traefik();
    eventually("another Traefik has the routes", PATIENCE, || async {
        match (machine.traefik(), visit(&machine, "/_chp_healthz").await) {
            (Some(pid), 200) if pid != first => Ok(()),
            other => Err(format!("{other:?}\n{}", machine.process.log())),
        }
    })
    .await;
    let seen = is_seen(&machine, "/clock").await;
    for path in ["/user/jane", "/user/joe"] {
        assert_eq!(seen[path], last[path], "{path} was not used");
    }
    // The new one counts from nothing, and what it counts is more.
    let seen = is_seen(&machine, "/user/joe").await;
    assert_eq!(seen["/user/jane"], last["/user/jane"]);
}
