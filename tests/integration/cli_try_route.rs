//! `pointsman try-route`: a route goes in and out again before the eyes of every Traefik, and who doesn't follow is named.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use crate::support::certificates::Authority;
use crate::support::etcd::Etcd;
use crate::support::http::{Server, response};
use crate::support::pointsman::{Finished, pointsman};
use crate::support::process::{Running, free_port};
use crate::support::system::{Pointsman, System, TOKEN};
use crate::support::wait::eventually;

/// Every route of ours, left or not.
async fn ours(pointsman: &Pointsman) -> Vec<String> {
    let (status, body) = pointsman.call("GET", "", None).await;
    assert_eq!(status, 200, "{body}");
    let table: serde_json::Value = serde_json::from_str(&body).expect("a table");
    let paths = table.as_object().expect("a table").keys().filter(|path| path.contains("pointsman-try"));
    paths.cloned().collect()
}

/// A system in which changes go on without a Traefik that has been behind for 4 s.
async fn with_pages(traefiks: usize) -> (System, Pointsman) {
    let port = free_port().to_string();
    let url = format!("http://127.0.0.1:{port}");
    let system = System::start_with(traefiks, &["--pages-url", &url]).await;
    let pointsman = system.pointsman(&["--pages-port", &port, "--laggard-grace", "4"]).await.ready().await;
    assert_eq!(pointsman.add("/", &system.backends.url(1)).await.0, 201);
    (system, pointsman)
}

/// What the command is told of a system.
fn flags(system: &System, pointsman: &Pointsman, scheme: &str, more: &[&str]) -> Vec<String> {
    let mut flags = vec!["try-route".to_owned(), "--api".to_owned(), pointsman.server.api.clone()];
    for edge in &system.edges {
        flags.extend(["--users-at".to_owned(), format!("{scheme}://127.0.0.1:{}", edge.public)]);
    }
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    flags
}

/// Runs it; the servers of this process go on meanwhile.
async fn try_route(flags: &[String], token: &'static str) -> Finished {
    let flags = flags.to_vec();
    let run = move || {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        pointsman(&flags, &[("CONFIGPROXY_AUTH_TOKEN", token)])
    };
    tokio::task::spawn_blocking(run).await.expect("an end")
}

#[track_caller]
fn says(finished: &Finished, code: i32, sentences: &[&str]) {
    let all = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.code, code, "{all}");
    for sentence in sentences {
        assert!(all.contains(sentence), "it does not say {sentence:?}:\n{all}");
    }
}

#[tokio::test]
async fn every_traefik_carries_a_request_and_forgets_the_route() {
    let system = System::start(2).await;
    let pointsman = system.pointsman(&[]).await.ready().await;
    assert_eq!(pointsman.add("/", &system.backends.url(1)).await.0, 201);
    let flags = flags(&system, &pointsman, "http", &[]);
    let good = try_route(&flags, TOKEN).await;
    let doors: Vec<String> = system.edges.iter().map(|e| format!("traefik http://127.0.0.1:{}: ", e.public)).collect();
    for door in &doors {
        let lines = [format!("ok       {door}carries a request for it here"), format!("ok       {door}has it no more")];
        says(&good, 0, &[&lines[0], &lines[1]]);
    }
    says(&good, 0, &["ok       route: is removed", "All is well."]);
    assert_eq!(ours(&pointsman).await, Vec::<String>::new());

    let refused = try_route(&flags, "another").await;
    says(&refused, 1, &["PROBLEM  route: ", "refuses the token", "1 problem, 0 warnings"]);
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let nobody = try_route(&[&flags[..], &["--api".to_owned(), nowhere]].concat(), TOKEN).await;
    says(&nobody, 1, &["PROBLEM  route: nobody can be reached at", "1 problem, 0 warnings"]);
}

#[tokio::test]
async fn a_traefik_that_hangs_or_reads_elsewhere_is_named() {
    let (mut system, pointsman) = with_pages(2).await;
    let elsewhere = Etcd::start().await;
    system.add_edge(elsewhere.endpoint()).await;
    system.edges[1].traefik.process.pause();
    let bad = try_route(&flags(&system, &pointsman, "http", &[]), TOKEN).await;
    let line = |edge: usize, text: &str| format!("traefik http://127.0.0.1:{}: {text}", system.edges[edge].public);
    let lines = [
        line(0, "carries a request for it here"),
        format!("PROBLEM  {}", line(1, "does not answer (no answer in time)")),
        format!("PROBLEM  {}", line(2, "does not have the route: it answers 404 as before")),
        line(0, "has it no more"),
    ];
    says(&bad, 1, &[&lines[0], &lines[1], &lines[2], &lines[3], "ok       route: is removed", "2 problems"]);
    assert_eq!(ours(&pointsman).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_stop_removes_the_route_first() {
    let (system, pointsman) = with_pages(2).await;
    // It waits for this one, and so is there to be stopped.
    system.edges[1].traefik.process.pause();
    let folder = tempfile::tempdir().unwrap();
    let (flags, token) = (flags(&system, &pointsman, "http", &[]), [("CONFIGPROXY_AUTH_TOKEN", TOKEN)]);
    let program = Path::new(env!("CARGO_BIN_EXE_pointsman"));
    let mut command = Running::start(program, &flags, &token, folder.path());
    eventually("the route", Duration::from_secs(20), || async {
        if ours(&pointsman).await.len() == 1 { Ok(()) } else { Err(command.log()) }
    })
    .await;
    command.signal("TERM");
    assert_eq!(command.end(Duration::from_secs(20)).await, 1, "{}", command.log());
    assert!(command.log().contains("got SIGTERM; the route is removed, then this ends"), "{}", command.log());
    assert!(command.log().contains("it was stopped before its end"), "{}", command.log());
    assert_eq!(ours(&pointsman).await, Vec::<String>::new());
}

#[tokio::test]
async fn with_tls_and_host_routing_it_asks_as_a_user_does() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Authority::new("authority", folder.path()).sign("public");
    let (cert, key) = (pair.cert.to_str().unwrap(), pair.key.to_str().unwrap());
    let system = System::start_with(1, &["--host-routing", "--ssl-cert", cert, "--ssl-key", key]).await;
    let pointsman = system.pointsman(&[]).await.ready().await;
    let plain = try_route(&flags(&system, &pointsman, "https", &["--host-routing"]), TOKEN).await;
    says(&plain, 0, &[".invalid/pointsman-try-", "carries a request for it here", "has it no more"]);
    let named = ["--host-routing", "--host", "jane.example.org"];
    let named = try_route(&flags(&system, &pointsman, "https", &named), TOKEN).await;
    says(&named, 0, &["route: /jane.example.org/pointsman-try-", "carries a request for it here", "has it no more"]);
    // Without host routing here, the path stands where a host should.
    let wrong = try_route(&flags(&system, &pointsman, "https", &[]), TOKEN).await;
    says(&wrong, 1, &["PROBLEM  traefik https://127.0.0.1:", "does not have the route"]);
    assert_eq!(ours(&pointsman).await, Vec::<String>::new());
}

/// One that serves on what it should have forgotten, and an API that says all is done.
#[tokio::test]
async fn a_traefik_that_goes_on_with_the_removed_route_is_named() {
    let listen = format!("127.0.0.1:{}", free_port());
    let there = listen.clone();
    let stale = Server::start(move |head| {
        let answer = match head.split(' ').next() {
            Some("POST") => response(201, "", ""),
            Some("DELETE") => response(204, "", ""),
            _ => asked(&there).unwrap_or_else(|error| response(502, "", error.to_string())),
        };
        Some(answer)
    })
    .await;
    let url = format!("http://{}", stale.address);
    let flags = ["try-route", "--api", &url, "--users-at", &url, "--listen", &listen].map(str::to_owned);
    let stale = try_route(&flags, TOKEN).await;
    says(&stale, 1, &["carries a request for it here", "still serves the removed route", "1 problem, 0 warnings"]);
}

/// What the command itself answers.
fn asked(address: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

#[test]
fn what_it_needs_is_said() {
    let none = pointsman(&["try-route"], &[]);
    assert!(none.code == 2 && none.stderr.contains("--users-at"), "{none:?}");
    let wrong = pointsman(&["try-route", "--users-at", "traefik:8000"], &[]);
    assert!(wrong.code == 2 && wrong.stderr.contains("http://HOST:PORT"), "{wrong:?}");
    let unknown = pointsman(&["try-route", "--users-at", "http://no-such-name.invalid:8000"], &[]);
    says(&unknown, 1, &["PROBLEM  try-route: --users-at: http://no-such-name.invalid:8000 can't be resolved"]);
    let all = ["try-route", "--users-at", "http://127.0.0.1:1", "--listen", "0.0.0.0:8005"];
    says(&pointsman(&all, &[]), 1, &["--listen: 0.0.0.0 is no address that Traefik can reach"]);
}
