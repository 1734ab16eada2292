//! Listeners: the forms of an address, busy ports, and the end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use pointsman::api::listen::{Limits, Listener};
use pointsman::lifecycle::Lifecycle;
use rstest::rstest;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use crate::support::api::{Api, Fault, TOKEN, request};
use crate::support::http::{BURST, Connection, PATIENCE, connect_within_a_second};

const FLAGS: &str = "--api-ip, --api-port";

async fn has_ipv6() -> bool {
    tokio::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_ok()
}

async fn connects(ip: IpAddr, port: u16) -> bool {
    TcpStream::connect(SocketAddr::new(ip, port)).await.is_ok()
}

#[rstest]
#[case("localhost", true, true)]
#[case("127.0.0.1", true, false)]
#[case("::1", false, true)]
#[case("[::1]", false, true)]
#[case("", true, true)]
#[case("*", true, true)]
#[case("0.0.0.0", true, false)]
#[tokio::test]
async fn forms_of_an_address(#[case] ip: &str, #[case] v4: bool, #[case] v6: bool) {
    let v6_here = has_ipv6().await;
    if ip.contains("::1") && !v6_here {
        let error = Listener::bind(FLAGS, ip, 0, Limits::default()).await.expect_err("no IPv6 on this machine");
        assert!(error.to_string().contains("[::1]:0 (--api-ip, --api-port)"), "{error}");
        return;
    }
    let listener = Listener::bind(FLAGS, ip, 0, Limits::default()).await.expect("listens");
    let addresses = listener.addresses();
    let port = addresses[0].port();
    assert!(port != 0 && addresses.iter().all(|address| address.port() == port), "{addresses:?}");
    for (ip, wanted) in [(IpAddr::V4(Ipv4Addr::LOCALHOST), v4), (IpAddr::V6(Ipv6Addr::LOCALHOST), v6 && v6_here)] {
        // That nothing of ours is there can be seen by the addresses only: another program may use the same port.
        let ours = |address: &SocketAddr| {
            address.ip() == ip
                || address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                || address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && ip.is_ipv4()
        };
        assert_eq!(addresses.iter().any(ours), wanted, "{ip}: {addresses:?}");
        assert!(!wanted || connects(ip, port).await, "{ip}: {addresses:?}");
    }
}

#[rstest]
#[case("127.0.0.1")]
#[case("localhost")]
#[case("")]
#[tokio::test]
async fn a_busy_port_is_an_error_that_names_it(#[case] ip: &str) {
    let first = Listener::bind(FLAGS, ip, 0, Limits::default()).await.expect("listens");
    let port = first.addresses()[0].port();
    let error = Listener::bind(FLAGS, ip, port, Limits::default()).await.expect_err("busy").to_string();
    for part in [&format!(":{port} (--api-ip, --api-port)"), "another program listens there", "ss -ltnp"] {
        assert!(error.contains(part), "{error:?} doesn't say {part:?}");
    }
}

#[rstest]
#[case("192.0.2.1", "does not have that address")]
#[case("no.such.host.invalid", "no.such.host.invalid:1")]
#[tokio::test]
async fn an_address_that_is_not_ours_is_an_error(#[case] ip: &str, #[case] says: &str) {
    let error = Listener::bind(FLAGS, ip, 1, Limits::default()).await.expect_err("not ours").to_string();
    assert!(error.contains(says) && error.contains(FLAGS), "{error}");
}

async fn until_refused(address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while connects(address.ip(), address.port()).await {
        assert!(Instant::now() < deadline, "{address} still takes connections");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_stop_finishes_requests_and_closes_idle_connections() {
    let api = Api::start().await;
    let mut fresh = Connection::open(api.address).await;
    let mut idle = Connection::open(api.address).await;
    idle.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(idle.reply().await.status, 200);
    let mut busy = Connection::open(api.address).await;
    let body = r#"{"target":"http://x"}"#;
    let whole =
        request("POST /api/routes/a", &format!("Authorization: token {TOKEN}\r\nExpect: 100-continue\r\n"), body);
    let (head, rest) = whole.split_at(whole.len() - body.len());
    busy.send(head).await;
    assert_eq!(busy.reply().await.status, 100, "the call is under way");

    api.lifecycle.stop();
    until_refused(api.address).await;
    assert!(idle.is_closed().await && fresh.is_closed().await);
    busy.send(rest).await;
    assert_eq!(busy.reply().await.status, 201);
    assert!(busy.is_closed().await);
    drop((idle, fresh, busy));
    tokio::time::timeout(PATIENCE, api.lifecycle.finished()).await.expect("ends").expect("nothing crashed");
}

#[tokio::test]
async fn a_stop_waits_only_so_long() {
    let api = Api::start().await;
    api.routes.break_with(Fault::Hang);
    let mut stuck = Connection::open(api.address).await;
    stuck.send(request("GET /api/routes", &format!("Authorization: token {TOKEN}\r\n"), "")).await;
    let deadline = Instant::now() + PATIENCE;
    while api.routes.take_calls().is_empty() {
        assert!(Instant::now() < deadline, "the call never arrived");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let start = Instant::now();
    api.lifecycle.stop();
    tokio::time::timeout(PATIENCE, api.lifecycle.finished()).await.expect("ends").expect("nothing crashed");
    assert!(start.elapsed() >= Duration::from_secs(2), "the call was given its time");
    assert!(stuck.is_closed().await);
}

#[tokio::test]
async fn listening_ends_with_the_lifecycle_only() {
    let lifecycle = Lifecycle::new();
    let listener = Listener::bind(FLAGS, "127.0.0.1", 0, Limits::default()).await.expect("listens");
    let address = listener.addresses()[0];
    let pages = pointsman::api::pages::router(&pointsman::api::pages::PagesSettings::default()).expect("usable");
    lifecycle.spawn_front("pages", listener.serve("pages", pages, lifecycle.draining()));
    // Connections that go away without a word are no reason to end.
    for _ in 0..50 {
        drop(Connection::open(address).await);
    }
    let mut connection = Connection::open(address).await;
    connection.send(request("GET /_chp_healthz", "", "")).await;
    assert_eq!(connection.reply().await.status, 200);
    drop(connection);
    lifecycle.stop();
    tokio::time::timeout(PATIENCE, lifecycle.finished()).await.expect("ends").expect("nothing crashed");
}

#[tokio::test]
async fn a_burst_of_connections_waits_in_the_queue() {
    let listener = Listener::bind(FLAGS, "127.0.0.1", 0, Limits::default()).await.expect("listens");
    let address = listener.addresses()[0];
    let mut burst = JoinSet::new();
    for _ in 0..BURST {
        burst.spawn(async move { connect_within_a_second(TcpStream::connect(address)).await });
    }
    assert_eq!(burst.join_all().await.len(), BURST);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("api.sock");
    let _listener = Listener::bind_unix("--api-socket", &path, Limits::default()).await.expect("listens");
    let mut open = Vec::new();
    for _ in 0..BURST {
        open.push(connect_within_a_second(UnixStream::connect(&path)).await);
    }
}
