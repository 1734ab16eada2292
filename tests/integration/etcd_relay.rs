//! `pointsman etcd-relay` between a real Traefik and real members of etcd that hang, die and come back.

use std::path::Path;
use std::time::{Duration, Instant};

use pointsman::forward::{Limits, Relay};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::support::etcd::{Etcd, Wanted};
use crate::support::pointsman::pointsman;
use crate::support::process::{Running, free_port};
use crate::support::system::{Pointsman, System};
use crate::support::wait::eventually;

/// A relay before all members.
struct Beside {
    process: Running,
    address: String,
    _folder: tempfile::TempDir,
}

impl Beside {
    async fn start(etcd: &Etcd) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = format!("127.0.0.1:{}", free_port());
        let members = endpoints(etcd);
        let arguments = ["etcd-relay", "--etcd-endpoints", &members, "--listen", &address];
        let process = Running::start(Path::new(env!("CARGO_BIN_EXE_pointsman")), &arguments, &[], folder.path());
        let relay = Self { process, address, _folder: folder };
        eventually("the relay", Duration::from_secs(10), || async { relay.ask().await.map(drop) }).await;
        relay
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect(&self.address).await
    }

    /// What a member says to a new connection.
    async fn ask(&self) -> Result<String, String> {
        let mut stream = self.connect().await.map_err(|error| error.to_string())?;
        health(&mut stream).await
    }

    async fn log_has(&self, text: &str) {
        eventually(text, Duration::from_secs(6), || async {
            if self.process.log().contains(text) { Ok(()) } else { Err(self.process.log()) }
        })
        .await;
    }
}

fn endpoints(etcd: &Etcd) -> String {
    etcd.members.iter().map(|member| member.url.as_str()).collect::<Vec<_>>().join(",")
}

/// Asks on a connection that stays open.
async fn health(stream: &mut TcpStream) -> Result<String, String> {
    let asked = stream.write_all(b"GET /version HTTP/1.1\r\nHost: etcd\r\n\r\n").await;
    asked.map_err(|error| error.to_string())?;
    let mut answer = vec![0; 1024];
    match stream.read(&mut answer).await {
        Ok(0) => Err("the end".to_owned()),
        Ok(count) => Ok(String::from_utf8_lossy(&answer[..count]).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn three_members() -> Etcd {
    Etcd::start_as(Wanted { members: 3, ..Wanted::default() }).await
}

/// Changes a route until that is answered well, and gives the time that it took.
async fn change(pointsman: &Pointsman, path: &str, target: &str) -> Duration {
    let began = Instant::now();
    loop {
        let (status, body) = pointsman.add(path, target).await;
        if status == 201 {
            return began.elapsed();
        }
        assert!(status == 503 && began.elapsed() < Duration::from_secs(30), "{status} {body}");
    }
}

#[tokio::test]
async fn traefik_leaves_a_member_that_hangs_or_dies() {
    let mut system = System::over(three_members().await).await;
    let relay = Beside::start(&system.etcd).await;
    system.add_edge(&format!("http://{}", relay.address)).await;
    let members = endpoints(&system.etcd);
    let pointsman = system.pointsman(&["--etcd-endpoints", &members]).await.ready().await;
    assert_eq!(pointsman.add("/", &system.backends.url(1)).await.0, 201);
    // One of the three carries Traefik's watch, and after each round another one may.
    for at in 0..3 {
        system.etcd.members[at].pause();
        let took = change(&pointsman, &format!("/hung-{at}"), &system.backends.url(2)).await;
        assert!(took < Duration::from_secs(6), "after {took:?} with member {at} hanging:\n{}", relay.process.log());
        system.leads_to(&format!("/hung-{at}/"), 2).await.expect("a route");
        relay.log_has("is sick").await;
        system.etcd.members[at].resume();
        system.etcd.wait_until_it_answers().await;
        let url = system.etcd.members[at].url.replace("http://", "");
        relay.log_has(&format!("{url} answers again")).await;
    }
    for at in 0..3 {
        system.etcd.members[at].kill();
        let took = change(&pointsman, &format!("/dead-{at}"), &system.backends.url(3)).await;
        assert!(took < Duration::from_secs(6), "after {took:?} with member {at} dead:\n{}", relay.process.log());
        system.etcd.members[at].start();
        system.etcd.wait_until_it_answers().await;
    }
}

#[tokio::test]
async fn while_no_member_answers_connections_stay() {
    let mut etcd = three_members().await;
    let relay = Beside::start(&etcd).await;
    let mut stream = relay.connect().await.expect("a connection");
    health(&mut stream).await.expect("an answer");
    for member in &etcd.members {
        member.pause();
    }
    relay.log_has("No member answers").await;
    for member in &etcd.members {
        member.resume();
    }
    etcd.wait_until_it_answers().await;
    health(&mut stream).await.expect("an answer on the same connection");
    // A relay that was paused itself takes that for nobody's fault.
    relay.process.pause();
    tokio::time::sleep(Duration::from_secs(3)).await;
    relay.process.signal("CONT");
    health(&mut stream).await.expect("an answer on the same connection");
    assert!(!relay.process.log().contains("is sick"), "{}", relay.process.log());
}

#[tokio::test]
async fn many_connections_go_through_and_a_stop_ends_them() {
    let etcd = three_members().await;
    let mut relay = Beside::start(&etcd).await;
    let mut streams = Vec::new();
    for _ in 0..300 {
        streams.push(relay.connect().await.expect("a connection"));
    }
    for stream in &mut streams {
        assert!(health(stream).await.expect("an answer").contains("etcdserver"));
    }
    relay.process.signal("TERM");
    assert_eq!(relay.process.end(Duration::from_secs(5)).await, 0);
    for stream in &mut streams {
        assert!(health(stream).await.is_err());
    }
}

#[tokio::test]
async fn one_direction_may_end_before_the_other() {
    let member = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = free_port();
    let address = member.local_addr().expect("an address").to_string();
    let relay = Relay::bind(&format!("127.0.0.1:{port}"), vec![address], Limits::default()).await.expect("a relay");
    let stop = CancellationToken::new();
    let running = tokio::spawn(relay.run(|_| async { Ok(()) }, stop.clone()));
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    let (mut server, _) = member.accept().await.expect("a connection");
    client.write_all(b"all I say").await.expect("written");
    client.shutdown().await.expect("half closed");
    let mut heard = String::new();
    server.read_to_string(&mut heard).await.expect("the end");
    server.write_all(b"an answer").await.expect("written");
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("the end");
    assert_eq!((heard.as_str(), answer.as_str()), ("all I say", "an answer"));
    stop.cancel();
    running.await.expect("a good end");
}

#[test]
fn what_it_needs_is_said() {
    let none = pointsman(&["etcd-relay"], &[]);
    assert_eq!((none.code, none.stderr.is_empty() && none.stdout.is_empty()), (64, false));
    assert!(format!("{}{}", none.stdout, none.stderr).contains("--etcd-endpoints"), "{none:?}");
    let itself = ["etcd-relay", "--etcd-endpoints", "http://127.0.0.1:2379"];
    let itself = pointsman(&itself, &[]);
    assert_eq!(itself.code, 64);
    assert!(format!("{}{}", itself.stdout, itself.stderr).contains("listen elsewhere"), "{itself:?}");
}
