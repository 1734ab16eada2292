//! Flags about the public port without TLS: whom to believe, what is logged, how long to wait, what else to pass.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::http::{Connection, Reply, Server, echo};
use crate::support::one_machine::{OneMachine, UPGRADE, refusal};
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
    let reply = connection.reply().await;
    assert_eq!(reply.status, 200, "{}\n{}", reply.body, machine.process.log());
    assert!(connection.is_silent(Duration::from_millis(100)).await, "it is closed too early");
    assert!(connection.is_closed().await);
    machine.stop().await;
}

/// Each request must have arrived in time, and what goes on after that is not cut: answers and websockets.
#[tokio::test]
async fn a_request_has_so_long_to_arrive_and_no_limit_after_that() {
    let (machine, _server) = started(&["--request-timeout", "1500"]).await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    machine.add("/ws", &format!("http://{}", listener.local_addr().unwrap())).await;
    let _open = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream.write_all(&echo("Upgrade: websocket\r\n\r\n")).await.unwrap();
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await
    });
    let mut websocket = machine.connect().await;
    websocket.send(format!("GET /ws HTTP/1.1\r\nHost: h\r\n{UPGRADE}\r\n")).await;
    assert_eq!(websocket.reply().await.status, 101);
    assert!(websocket.head().await.is_some(), "the echo begins with the head");

    let began = std::time::Instant::now();
    let silent = Server::start(|_| None).await;
    machine.add("/silent", &format!("http://{}", silent.address)).await;
    let unfinished =
        ["", "GET / HTTP/1.1\r\nX-Half: ", "POST /silent HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf"];
    for bytes in unfinished {
        let mut connection = machine.connect().await;
        connection.send(bytes).await;
        if bytes.starts_with("POST") {
            // Traefik has sent the request on already. Its transport sees a failed read (503), its server sees the end
            // of the client (499), and the first of them decides.
            let status = connection.reply().await.status;
            assert!([499, 503].contains(&status), "half a body: {status}");
        }
        assert!(connection.is_closed().await, "it is kept after {bytes:?}");
    }
    assert!(began.elapsed() > Duration::from_millis(1500), "cut too early: {:?}", began.elapsed());
    // The websocket is older than all of them.
    websocket.send("still there\r\n\r\n").await;
    assert_eq!(websocket.head().await.as_deref(), Some("still there\r\n\r\n"));
    machine.stop().await;
}

#[tokio::test]
async fn a_head_of_60_kb_passes_and_one_of_80_kb_is_431() {
    let (machine, _server) = started(&[]).await;
    for (kilobytes, status) in [(60, 200), (80, 431)] {
        let reply = machine.ask("GET /", &format!("X-Large: {}\r\n", "y".repeat(kilobytes * 1024))).await;
        assert_eq!(reply.status, status, "{kilobytes} KB");
    }
    machine.stop().await;
}

/// CGI and WSGI read both spellings as `HTTP_X_GIVEN`.
#[tokio::test]
async fn a_header_that_we_give_has_no_second_spelling() {
    let (machine, _server) = started(&["--custom-header", "X-Given: ours"]).await;
    let reply = machine.ask("GET /", "X_Given: 1\r\nx.given: 2\r\nX-GIVEN: 3\r\nX~Given: 4\r\n").await;
    let alike = |name: &str| name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_") == "x_given";
    let lines: Vec<&str> =
        reply.body.lines().filter(|line| line.split_once(':').is_some_and(|(name, _)| alike(name))).collect();
    assert_eq!(lines, ["X-Given: ours"], "{}", reply.body);
    machine.stop().await;

    // Where nothing is promised, other names pass as with configurable-http-proxy.
    let (machine, _server) = started(&[]).await;
    assert_eq!(got(&machine.ask("GET /", "X_Under: 1\r\n").await, "x_under"), ["1"]);
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
