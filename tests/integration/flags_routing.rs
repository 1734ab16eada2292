//! Flags about routes and about what users get where there is none.

use crate::support::http::{Server, echo, response};
use crate::support::one_machine::{OneMachine, UPGRADE, refusal};
use crate::support::process::free_port;

/// A server that answers with a word.
async fn saying(word: &'static str) -> (Server, String) {
    let server = Server::start(move |_| Some(response(200, "", word))).await;
    let url = format!("http://{}", server.address);
    (server, url)
}

#[tokio::test]
async fn with_host_routing_the_first_segment_is_the_host() {
    let ((_a, jane), (_b, hub)) = (saying("jane").await, saying("hub").await);
    let machine = OneMachine::start(&["--host-routing"]).await;
    machine.add("/jane.example.org/user/jane", &jane).await;
    machine.add("/example.org", &hub).await;
    for (host, path, status, body) in [
        ("jane.example.org", "/user/jane/lab", 200, "jane"),
        ("JANE.example.org:8000", "/user/jane", 200, "jane"),
        ("example.org", "/user/jane/lab", 200, "hub"),
        ("jane.example.org", "/user/janet", 404, "404"),
        ("elsewhere.org", "/user/jane", 404, "404"),
    ] {
        let reply = machine.ask(&format!("GET {path}"), &format!("Host: {host}\r\n")).await;
        assert_eq!((reply.status, reply.body.contains(body)), (status, true), "{host}{path}: {reply:?}");
    }
    machine.stop().await;
}

#[tokio::test]
async fn the_default_target_takes_the_root_unless_it_has_a_route() {
    let ((_a, fallback), (_b, hub)) = (saying("fallback").await, saying("hub").await);
    let machine = OneMachine::start(&["--default-target", &fallback]).await;
    crate::support::wait::eventually("the default target", std::time::Duration::from_secs(10), || async {
        let reply = machine.get("/x").await;
        if reply.body == "fallback" { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
    machine.add("/", &hub).await;
    assert_eq!(machine.get("/x").await.body, "hub");
    let folder = machine.stop().await;
    // What is stored wins, over a restart too.
    let machine = OneMachine::start_in(folder, &["--default-target", &fallback], &[]).await;
    crate::support::wait::eventually("a word about it", std::time::Duration::from_secs(10), || async {
        let log = machine.process.log();
        if log.contains("--default-target is not used") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(machine.get("/x").await.body, "hub");
    machine.stop().await;
}

#[tokio::test]
async fn without_a_route_there_is_a_page_and_the_root_comes_and_goes() {
    let ((_a, jane), (_b, hub)) = (saying("jane").await, saying("hub").await);
    let machine = OneMachine::start(&[]).await;
    machine.add("/user/jane", &jane).await;
    for _ in 0..2 {
        let reply = machine.get("/elsewhere?token=secret").await;
        assert_eq!((reply.status, reply.header("content-type")), (404, Some("text/html; charset=utf-8")));
        assert!(reply.body.contains("<html") && !reply.body.contains("secret"), "{reply:?}");
        assert_eq!(machine.ask("POST /elsewhere", "Content-Length: 0\r\n").await.status, 404);
        assert_eq!(machine.ask("GET /elsewhere", UPGRADE).await.status, 404);
        assert_eq!(machine.get("/user/jane/x").await.body, "jane");
        machine.add("/", &hub).await;
        assert_eq!(machine.get("/elsewhere").await.body, "hub");
        assert_eq!(machine.get("/user/jane/x").await.body, "jane");
        machine.remove("/").await;
    }
    // Also when the last route has gone.
    machine.remove("/user/jane").await;
    assert_eq!(machine.get("/user/jane").await.header("content-type"), Some("text/html; charset=utf-8"));
    machine.stop().await;
}

#[tokio::test]
async fn a_servers_own_418_and_404_pass() {
    let server =
        Server::start(|head| Some(response(if head.contains("/teapot") { 418 } else { 404 }, "", "mine"))).await;
    let machine = OneMachine::start(&[]).await;
    machine.add("/user/a", &format!("http://{}", server.address)).await;
    for (path, status) in [("/user/a/teapot", 418), ("/user/a/x", 404)] {
        let reply = machine.get(path).await;
        assert_eq!((reply.status, reply.body.as_str()), (status, "mine"), "{path}");
    }
    machine.stop().await;
}

#[tokio::test]
async fn the_error_target_is_asked_for_404_and_503() {
    let mut hub = Server::start(|head| {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        Some(response(200, "Content-Type: text/x-page\r\nX-Secret: 1\r\n", path))
    })
    .await;
    let target = format!("http://{}/hub/error", hub.address);
    let machine = OneMachine::start(&["--error-target", &target]).await;
    machine.add("/user/dead", &format!("http://127.0.0.1:{}", free_port())).await;
    for (path, status) in [("/user/dead/x?y=1", 503), ("/nothing/here?y=1", 404)] {
        let reply = machine.ask(&format!("GET {path}"), "Cookie: a=b\r\n").await;
        let asked =
            format!("/hub/error/{status}?url={}", path.replace('/', "%2F").replace('?', "%3F").replace('=', "%3D"));
        assert_eq!((reply.status, &reply.body), (status, &asked), "{reply:?}");
        assert_eq!((reply.header("content-type"), reply.header("x-secret")), (Some("text/x-page"), None));
        let head = hub.heads.recv().await.expect("it was asked");
        assert!(!head.to_lowercase().contains("cookie"), "{head}");
    }
    machine.stop().await;

    let both = refusal(&["--error-target", &target, "--error-path", "/tmp"], &[]);
    assert!(both.stderr.contains("--error-path: and --error-target exclude each other"), "{both:?}");
}

/// An address is escaped in the request for the page, and so gets longer.
#[tokio::test]
async fn every_address_that_is_let_in_gets_its_page() {
    let hub = Server::start(|_| Some(response(200, "Content-Type: text/x-page\r\n", "the hub's"))).await;
    let target = format!("http://{}/hub/error", hub.address);
    for (flags, body) in [(&[][..], "<!DOCTYPE html>"), (&["--error-target", &target], "the hub's")] {
        let machine = OneMachine::start(flags).await;
        machine.add("/user/dead", &format!("http://127.0.0.1:{}", free_port())).await;
        for (prefix, status) in [("/user/dead", 503), ("/nothing", 404)] {
            let mut rests = vec!["x".repeat(16 * 1024), "%2F".repeat(3300), "/".repeat(20_000)];
            if flags.is_empty() {
                rests.push("/".repeat(64_000));
            }
            for rest in rests {
                let reply = machine.get(&format!("{prefix}/{rest}")).await;
                let length = rest.len();
                assert_eq!(reply.status, status, "{flags:?} {prefix} and {length} bytes");
                assert!(reply.body.starts_with(body), "{flags:?} {prefix} and {length} bytes: {:?}", reply.body);
            }
        }
        machine.stop().await;
    }
}

#[tokio::test]
async fn error_pages_may_lie_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("pages");
    std::fs::create_dir(&pages).unwrap();
    std::fs::write(pages.join("404.html"), "<p>not here</p>").unwrap();
    std::fs::write(pages.join("error.html"), "<p>any error</p>").unwrap();
    let machine = OneMachine::start_in(folder, &["--error-path", "pages"], &[]).await;
    machine.add("/user/dead", &format!("http://127.0.0.1:{}", free_port())).await;
    for (path, status, body) in [("/user/dead", 503, "<p>any error</p>"), ("/x", 404, "<p>not here</p>")] {
        let reply = machine.get(path).await;
        assert_eq!((reply.status, reply.body.as_str()), (status, body), "{path}");
        assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{reply:?}");
    }
    machine.stop().await;
    let said = refusal(&["--error-path", "/nowhere"], &[]).stderr;
    assert!(said.contains("--error-path: /nowhere is not a folder"), "{said}");
}

#[tokio::test]
async fn a_route_covers_whole_segments_and_the_longest_one_wins() {
    let server = Server::start(|head| Some(echo(head))).await;
    let (_hub, hub) = saying("hub").await;
    let machine = OneMachine::start(&[]).await;
    machine.add("/", &hub).await;
    machine.add("/user/a%40b", &format!("http://{}", server.address)).await;
    for path in ["/user/a@b", "/user/a%40b/x//y%2Fz?a;b"] {
        let reply = machine.get(path).await;
        let sent = path.replace(';', "%3B");
        assert!(reply.body.starts_with(&format!("GET {sent} HTTP/1.1\r\n")), "{path}: {reply:?}");
    }
    assert_eq!(machine.get("/user/a@bc").await.body, "hub");
    machine.stop().await;
}
