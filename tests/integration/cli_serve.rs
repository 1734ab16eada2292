//! `pointsman` as a process: how it starts, reloads and ends. Here etcd and Traefik are away.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use crate::support::pointsman::{Server, pointsman};
use crate::support::process::free_port;
use crate::support::wait::{eventually, http_get, http_get_as};

/// Nobody listens on these.
const AWAY: [&str; 4] = ["--etcd-endpoints", "http://127.0.0.1:1", "--traefik-api", "http://127.0.0.1:3"];

const SOON: Duration = Duration::from_secs(10);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

async fn start(args: &[&str], environment: &[(&str, &str)], folder: &Path) -> Server {
    Server::start(&[&AWAY[..], args].concat(), environment, folder).await
}

/// The status of a call with a token.
async fn status(server: &Server, token: &str) -> u16 {
    http_get_as(&format!("{}/api/routes/x", server.api), Some(token)).await.expect("an answer").0
}

#[tokio::test]
async fn without_etcd_it_lives_and_says_why_it_is_not_ready() {
    let folder = folder();
    let server = start(&[], &[("CONFIGPROXY_AUTH_TOKEN", "secret")], folder.path()).await;
    assert_eq!(http_get(&format!("{}/healthz", server.api)).await.unwrap().0, 200);
    let readyz = format!("{}/readyz", server.api);
    eventually("all that is missing", SOON, || async {
        let (code, body) = http_get(&readyz).await.unwrap();
        let all = ["records", "tree", "no Traefik has been reached"].iter().all(|reason| body.contains(reason));
        if code == 503 && all { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await;
    assert_eq!((status(&server, "secret").await, status(&server, "wrong").await), (503, 403));
    assert!(!server.process.log().contains("secret"), "{}", server.process.log());
}

/// A call whose body is still to come.
fn open_call(server: &Server) -> TcpStream {
    let mut call = TcpStream::connect(server.api.trim_start_matches("http://")).expect("a connection");
    call.set_read_timeout(Some(SOON)).expect("a time limit");
    call.write_all(b"POST /api/routes/x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n").expect("a request");
    call
}

async fn door_is_shut(server: &Server) {
    let readyz = format!("{}/readyz", server.api);
    eventually("the door shut", SOON, || async {
        match http_get(&readyz).await {
            Err(_) => Ok(()),
            Ok(answer) => Err(format!("{answer:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_signal_ends_it_well_and_an_open_call_is_answered_first() {
    for signal in ["TERM", "INT"] {
        let folder = folder();
        let mut server = start(&[], &[], folder.path()).await;
        let mut call = open_call(&server);
        http_get(&format!("{}/healthz", server.api)).await.unwrap();
        server.process.signal(signal);
        door_is_shut(&server).await;
        assert!(server.process.ended().is_none(), "it should wait for the call:\n{}", server.process.log());
        call.write_all(b"null").unwrap();
        let mut answer = String::new();
        call.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert_eq!(server.process.end(SOON).await, 0, "{}", server.process.log());
        let log = server.process.log();
        assert!(log.contains(&format!("Got SIG{signal}")) && log.contains("Pointsman has stopped"), "{log}");
    }
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_open_calls() {
    let folder = folder();
    let mut server = start(&[], &[], folder.path()).await;
    let _call = open_call(&server);
    http_get(&format!("{}/healthz", server.api)).await.unwrap();
    server.process.signal("TERM");
    door_is_shut(&server).await;
    assert!(server.process.ended().is_none(), "it should wait for the call:\n{}", server.process.log());
    server.process.signal("TERM");
    assert_eq!(server.process.end(Duration::from_secs(2)).await, 1);
    assert!(server.process.log().contains("open calls are cut"), "{}", server.process.log());
}

#[tokio::test]
async fn sighup_reads_the_tokens_again() {
    let folder = folder();
    let file = folder.path().join("tokens");
    std::fs::write(&file, "old\n").unwrap();
    let server = start(&["--token-file", file.to_str().unwrap()], &[], folder.path()).await;
    assert_eq!((status(&server, "old").await, status(&server, "new").await), (503, 403));

    std::fs::write(&file, "old\nnew\n").unwrap();
    server.process.signal("HUP");
    eventually("the new token", SOON, || async {
        match status(&server, "new").await {
            503 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    assert_eq!(status(&server, "old").await, 503);

    // An emptied file must not open the API, nor shut everybody out.
    std::fs::write(&file, "").unwrap();
    server.process.signal("HUP");
    eventually("the complaint", SOON, || async {
        let log = server.process.log();
        if log.contains("stay in force") && log.contains("holds no token") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!((status(&server, "new").await, status(&server, "wrong").await), (503, 403));
}

#[tokio::test]
async fn a_busy_port_is_named_with_its_flag() {
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    let finished = pointsman(&[&AWAY[..], &["--api-ip", "127.0.0.1", "--api-port", &port]].concat(), &[]);
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.stderr.contains("--api-port") && finished.stderr.contains(&port), "{finished:?}");

    let (api, url) = (free_port().to_string(), format!("http://127.0.0.1:{port}"));
    let pages = ["--api-ip", "127.0.0.1", "--api-port", &api, "--pages-port", &port, "--pages-url", &url];
    let finished = pointsman(&[&AWAY[..], &pages].concat(), &[]);
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.stderr.contains("--pages-port"), "{finished:?}");
}

#[test]
fn keys_that_cannot_be_used_are_a_wrong_configuration() {
    let folder = folder();
    let key = folder.path().join("key.pem");
    std::fs::write(&key, "-----BEGIN PUBLIC KEY-----\nrubbish\n-----END PUBLIC KEY-----\n").unwrap();
    let jwt = ["--jwt-key-file", key.to_str().unwrap(), "--jwt-issuer", "me", "--jwt-audience", "us"];
    let finished = pointsman(&[&AWAY[..], &jwt].concat(), &[]);
    assert_eq!(finished.code, 64, "{finished:?}");
    assert!(finished.stderr.contains("key.pem"), "{finished:?}");
}

#[tokio::test]
async fn logs_are_text_or_json() {
    for (format, begins) in [("text", "20"), ("json", "{\"timestamp\":")] {
        let folder = folder();
        let server = start(&["--log-format", format, "--log-level", "DEBUG"], &[], folder.path()).await;
        let log = server.process.log();
        assert!(log.lines().all(|line| line.starts_with(begins)), "{log}");
    }
}
