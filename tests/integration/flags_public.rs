//! Flags about the public port without TLS: whom to believe, what is logged, how long to wait, what else to pass.

use std::time::Duration;

use crate::support::http::{Connection, Reply, Server, echo};
use crate::support::one_machine::{OneMachine, refusal};
use crate::support::wait::{eventually, http_get};

async fn started(flags: &[&str]) -> (OneMachine, Server) {
    let server = Server::start(|head| Some(echo(head))).await;
    let machine = OneMachine::start(flags).await;
    machine.add("/", &format!("http://{}", server.address)).await;
    (machine, server)
}

/// What the server got of a header, from a reply that echoes it.
fn got<'a>(reply: &'a Reply, header: &str) -> Vec<&'a str> {
    let lines = reply.body.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(name, _)| name.eq_ignore_ascii_case(header)).map(|(_, value)| value).collect()
}

#[tokio::test]
async fn everybody_is_believed_about_forwarded_headers_or_only_the_ranges_that_are_named() {
    let claim = "X-Forwarded-Proto: https\r\nX-Forwarded-For: 10.20.30.40\r\n";
    let (open, _server) = started(&[]).await;
    let reply = open.ask("GET /", claim).await;
    assert_eq!(got(&reply, "x-forwarded-proto"), ["https"]);
    assert_eq!(got(&reply, "x-forwarded-for"), ["10.20.30.40, 127.0.0.1"]);
    open.stop().await;

    for (ranges, proto) in [("10.0.0.0/8,127.0.0.1", "https"), ("10.0.0.0/8", "http")] {
        let (closed, _server) = started(&["--trusted-ips", ranges]).await;
        assert_eq!(got(&closed.ask("GET /", claim).await, "x-forwarded-proto"), [proto], "{ranges}");
        closed.stop().await;
    }
}

#[tokio::test]
async fn a_balancer_that_speaks_the_proxy_protocol_says_who_the_user_is() {
    let (machine, _server) = started(&["--proxy-protocol-ips", "127.0.0.0/8", "--trusted-ips", "192.0.2.1"]).await;
    let mut connection = machine.connect().await;
    connection.send("PROXY TCP4 198.51.100.7 127.0.0.1 4711 80\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(got(&connection.reply().await, "x-forwarded-for"), ["198.51.100.7"]);
    // Who doesn't speak it is served too.
    assert_eq!(got(&machine.get("/").await, "x-forwarded-for"), ["127.0.0.1"]);
    machine.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_keep_alive_timeout() {
    let (machine, _server) = started(&["--keep-alive-timeout", "300"]).await;
    let mut connection: Connection = machine.connect().await;
    connection.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(connection.reply().await.status, 200);
    assert!(connection.is_silent(Duration::from_millis(100)).await, "it is closed too early");
    assert!(connection.is_closed().await);
    machine.stop().await;
}

#[tokio::test]
async fn each_request_is_logged_in_a_file_or_in_our_log() {
    let (machine, _server) = started(&["--access-log", "access.log"]).await;
    machine.get("/in-the-file").await;
    let file = machine.file("access.log");
    eventually("the access log", Duration::from_secs(10), || async {
        let log = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        if log.contains("GET /in-the-file HTTP/1.1") { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(!machine.process.log().contains("in-the-file"));
    machine.stop().await;

    let (machine, _server) = started(&["--access-log=-"]).await;
    machine.get("/in-the-log").await;
    eventually("the access log", Duration::from_secs(10), || async {
        let log = machine.process.log();
        if log.contains("GET /in-the-log HTTP/1.1") { Ok(()) } else { Err(log) }
    })
    .await;
    machine.stop().await;
}

#[tokio::test]
async fn a_middleware_of_the_administrators_is_passed_by_every_request() {
    let folder = tempfile::tempdir().unwrap();
    let dynamic = folder.path().join("pointsman-data/traefik/dynamic");
    std::fs::create_dir_all(&dynamic).unwrap();
    let own =
        "http:\n  middlewares:\n    mark:\n      headers:\n        customResponseHeaders:\n          X-Mark: \"yes\"\n";
    std::fs::write(dynamic.join("own.yaml"), own).unwrap();
    let server = Server::start(|head| Some(echo(head))).await;
    let machine = OneMachine::start_in(folder, &["--middlewares", "mark@file"], &[]).await;
    machine.add("/user/a", &format!("http://{}", server.address)).await;
    let reply = machine.get("/user/a/lab").await;
    assert_eq!((reply.status, reply.header("x-mark")), (200, Some("yes")));
    machine.stop().await;
}

#[tokio::test]
async fn a_middleware_that_is_not_there_is_said_by_readiness_until_it_comes() {
    let server = Server::start(|head| Some(echo(head))).await;
    let machine = OneMachine::begin(tempfile::tempdir().unwrap(), &["--middlewares", "mark@file"], &[]).await;
    let url = format!("{}/readyz", machine.api);
    machine.add("/", &format!("http://{}", server.address)).await;
    eventually("a word about the middleware", Duration::from_secs(10), || async {
        let (status, body) = http_get(&url).await?;
        let said = body.contains("mark@file") && body.contains("look at --middlewares");
        if status == 503 && said { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;
    let own =
        "http:\n  middlewares:\n    mark:\n      headers:\n        customResponseHeaders:\n          X-Mark: \"yes\"\n";
    std::fs::write(machine.file("pointsman-data/traefik/dynamic/own.yaml"), own).unwrap();
    machine.ready().await;
    assert_eq!(machine.get("/").await.header("x-mark"), Some("yes"));
    machine.stop().await;

    assert!(refusal(&["--middlewares", "mark"], &[]).stderr.contains("--middlewares: 'mark' is not NAME@PROVIDER"));
}
