//! The log of the whole thing, with a Traefik of its own: a reader that hangs stops nothing, lines for machines can be read
//! by strict ones, and what is secret stays so.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::support::http::{Server, ask, echo};
use crate::support::one_machine::OneMachine;
use crate::support::process::free_port;
use crate::support::wait::{eventually, http_get};

/// As a hub's calls and probes: well below what a hub waits for.
const IN_TIME: Duration = Duration::from_secs(2);

/// A pipe as the log of `pointsman` in this folder. Nothing is read until we do.
fn pipe_as_log(folder: &Path) -> File {
    let path = folder.join("pointsman.log");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).expect("a pipe")
}

/// Calls that each write a long line into the log: more than fits into the pipe and the queue.
async fn many_lines(machine: &OneMachine) {
    let address = machine.api.trim_start_matches("http://").parse().expect("an address");
    let mut connection = crate::support::http::Connection::open(address).await;
    let path = "x".repeat(1000);
    for i in 0..2000 {
        connection.send(format!("GET /api/routes/{i}/{path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let began = Instant::now();
        let reply = connection.reply_to(false).await.expect("an answer");
        assert!(
            reply.status == 404 && began.elapsed() < IN_TIME,
            "call {i}: {} after {:?}",
            reply.status,
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn a_log_that_is_not_read_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut pipe = pipe_as_log(folder.path());
    let metrics = free_port();
    let flags = ["--log-level", "debug", "--metrics-ip", "127.0.0.1", "--metrics-port", &metrics.to_string()];
    let mut machine = OneMachine::start_in(folder, &flags, &[]).await;
    let server = Server::start(|head| Some(echo(head))).await;
    let dropped = || async {
        let (_, text) = http_get(&format!("http://127.0.0.1:{metrics}/metrics")).await.expect("metrics");
        let line = text.lines().find_map(|line| line.strip_prefix("pointsman_log_lines_dropped_total "));
        line.expect("the counter").parse::<f64>().expect("a number")
    };
    assert!(dropped().await < 0.5, "the queue has room");
    many_lines(&machine).await;
    assert!(dropped().await > 100.0, "{}", dropped().await);
    // Everything goes on.
    let began = Instant::now();
    assert_eq!(http_get(&format!("{}/healthz", machine.api)).await.unwrap().0, 200);
    machine.add("/", &format!("http://{}", server.address)).await;
    assert_eq!(machine.get("/x").await.status, 200);
    assert!(began.elapsed() < IN_TIME, "took {:?}", began.elapsed());
    let first = machine.kill_traefik();
    machine.another_traefik(first).await;

    // It flows again, and what is missing is said.
    let mut text = Vec::new();
    eventually("a word about what was dropped", Duration::from_secs(10), || {
        let mut piece = [0; 4096];
        while let Ok(n) = pipe.read(&mut piece) {
            text.extend_from_slice(&piece[..n]);
        }
        let seen = String::from_utf8_lossy(&text).into_owned();
        async move {
            let said = seen.lines().find(|line| line.contains("log lines were dropped because stderr was not read"));
            if said.is_some() { Ok(()) } else { Err(format!("{} bytes", seen.len())) }
        }
    })
    .await;
    let text = String::from_utf8(text).expect("whole lines");
    let number = |line: &str| line.split_once("GET /api/routes/")?.1.split('/').next()?.parse::<u32>().ok();
    let of_calls: Vec<u32> = text.lines().filter_map(number).collect();
    assert!(of_calls.len() > 300 && of_calls.is_sorted(), "{} lines in order", of_calls.len());

    // And the end comes in time.
    many_lines(&machine).await;
    machine.process.signal("TERM");
    let began = Instant::now();
    assert_eq!(machine.process.end(Duration::from_secs(5)).await, 0);
    assert!(began.elapsed() < IN_TIME, "took {:?}", began.elapsed());
}

#[tokio::test]
async fn at_debug_lines_are_strict_json_and_hold_no_secret() {
    let server = Server::start(|head| Some(echo(head))).await;
    let flags = ["--log-level", "debug", "--log-format", "json", "--custom-header", "X-Given: headers-secret"];
    let token = [("CONFIGPROXY_AUTH_TOKEN", "calls-secret")];
    let mut machine = OneMachine::begin(tempfile::tempdir().unwrap(), &flags, &token).await;
    let api: std::net::SocketAddr = machine.api.trim_start_matches("http://").parse().unwrap();
    let call = |line: &str, body: &str| {
        let head = "Host: x\r\nAuthorization: token calls-secret\r\n";
        ask(api, format!("{line} HTTP/1.1\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len()))
    };
    let body = format!(r#"{{"target":"http://{}"}}"#, server.address);
    assert_eq!(call("POST /api/routes/user/jane", &body).await.status, 201);
    let reply = machine.get("/user/jane/x?token=users-secret").await;
    assert!(reply.status == 200 && reply.body.contains("headers-secret"), "{reply:?}");
    assert_eq!(call("DELETE /api/routes/user/nobody", "").await.status, 404);
    machine.process.signal("HUP");
    let first = machine.kill_traefik();
    machine.another_traefik(first).await;
    assert_eq!(machine.get("/user/jane/x?token=users-secret").await.status, 200);
    let file = std::fs::read_to_string(machine.file("pointsman-data/traefik/dynamic/pointsman.yaml")).unwrap();
    let key = file.split("Header(`X-Pointsman-Key`,`").nth(1).and_then(|rest| rest.split('`').next()).expect("a key");
    machine.process.signal("TERM");
    assert_eq!(machine.process.end(Duration::from_secs(10)).await, 0);

    let log = machine.process.log();
    for secret in [key, "headers-secret", "calls-secret", "users-secret"] {
        let leaked: Vec<_> = log.lines().filter(|line| line.contains(secret)).collect();
        assert!(secret.len() > 10 && leaked.is_empty(), "{secret}: {leaked:?}");
    }
    for line in log.lines() {
        let strict = serde_json::from_str::<Strict>(line);
        assert!(line.starts_with("{\"timestamp\":\"") && strict.is_ok(), "{strict:?}: {line}");
    }
    for said in ["Pointsman has stopped", "Traefik: ", "Tokens and keys were read again", "\"span\":"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    assert!(serde_json::from_str::<Strict>(r#"{"a":[{"b":1,"b":2}]}"#).is_err());
}

/// The last line of a Traefik that dies may be a user's request: `/readyz` has no token, and it is not why Traefik died.
#[tokio::test]
async fn a_dead_traefiks_access_log_is_not_quoted() {
    let server = Server::start(|head| Some(echo(head))).await;
    let machine = OneMachine::start(&["--access-log", "-"]).await;
    machine.add("/", &format!("http://{}", server.address)).await;
    let reasons = Mutex::new(HashSet::new());
    // From the second time on there is a pause before it is started again.
    for _ in 0..3 {
        assert_eq!(machine.get("/x?token=users-secret").await.status, 200);
        eventually("the access log", Duration::from_secs(5), || async {
            let log = machine.process.log();
            let last = log.lines().rfind(|line| line.contains("Traefik: ")).unwrap_or_default().to_owned();
            if last.contains("users-secret") { Ok(()) } else { Err(log) }
        })
        .await;
        let first = machine.kill_traefik();
        eventually("a Traefik that runs again", Duration::from_secs(10), || async {
            let (status, body) = http_get(&format!("{}/readyz", machine.api)).await?;
            if status == 503 {
                reasons.lock().unwrap().insert(body.clone());
            }
            if status == 200 && machine.traefik().is_some_and(|pid| pid != first) { Ok(()) } else { Err(body) }
        })
        .await;
        machine.another_traefik(first).await;
    }
    let reasons = reasons.into_inner().unwrap();
    assert!(reasons.iter().any(|body| body.contains("Traefik ended (signal: 9 (SIGKILL))")), "{reasons:?}");
    assert!(!reasons.iter().any(|body| body.contains("users-secret")), "{reasons:?}");
    let log = machine.process.log();
    let warned: Vec<_> = log.lines().filter(|line| line.contains("starting it again")).collect();
    assert!(warned.len() == 3 && !warned.iter().any(|line| line.contains("users-secret")), "{warned:?}");
    machine.stop().await;
}

/// JSON in which no key stands twice.
#[derive(Debug)]
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with unique keys")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self, M::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Self>()?;
            if let Some(twice) = keys.replace(key) {
                return Err(Error::custom(format!("{twice} stands twice")));
            }
        }
        Ok(self)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut all: S) -> Result<Self, S::Error> {
        while all.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}
