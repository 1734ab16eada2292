//! Flags about the way from Traefik to the servers of users.

use std::time::{Duration, Instant};

use crate::support::certificates::Authority;
use crate::support::http::{Server, echo};
use crate::support::one_machine::{OneMachine, UPGRADE, refusal};
use crate::support::tls;

/// The first line of the request that a server got.
fn line(body: &str) -> &str {
    body.lines().next().unwrap_or_default()
}

async fn echoing() -> (Server, String) {
    let server = Server::start(|head| Some(echo(head))).await;
    let url = format!("http://{}", server.address);
    (server, url)
}

#[tokio::test]
async fn https_servers_are_shown_our_certificate_and_must_have_one_of_the_given_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new("servers", folder.path()), Authority::new("strangers", folder.path()));
    ours.sign("proxy");
    let (mutual, _a) = tls::echo(&ours.sign("server"), Some(&ours.file)).await;
    let (stranger, _b) = tls::echo(&theirs.sign("stranger"), None).await;
    let (_plain, plain) = echoing().await;
    let flags = [
        "--client-ssl-key",
        "proxy-key.pem",
        "--client-ssl-cert",
        "proxy-cert.pem",
        "--client-ssl-ca",
        "servers.pem",
        "--client-ssl-request-cert",
        "--client-ssl-reject-unauthorized",
    ];
    let machine = OneMachine::start_in(folder, &flags, &[]).await;
    machine.add("/user/a", &format!("https://{mutual}")).await;
    machine.add("/user/b", &format!("https://{stranger}")).await;
    machine.add("/user/c", &plain).await;
    let reply = machine.get("/user/a/x").await;
    assert_eq!((reply.status, line(&reply.body)), (200, "GET /user/a/x HTTP/1.1"));
    // HTTP/1.1 all the way, so that websockets work.
    assert_eq!(machine.ask("GET /user/a/x", UPGRADE).await.status, 101);
    // Traefik tells a certificate that it doesn't trust from a server that is away.
    assert_eq!(machine.get("/user/b/x").await.status, 500);
    assert_eq!(machine.get("/user/c/x").await.status, 200);
    machine.stop().await;

    let said = refusal(&["--client-ssl-key", "/dev/null"], &[]).stderr;
    assert!(said.contains("--client-ssl-key: needs --client-ssl-cert beside it"), "{said}");
}

#[tokio::test]
async fn the_certificates_of_https_servers_are_checked_unless_insecure() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _a) = tls::echo(&Authority::new("unknown", folder.path()).sign("server"), None).await;
    for (flags, status) in [(&[][..], 500), (&["--insecure"], 200)] {
        let machine = OneMachine::start(flags).await;
        machine.add("/user/a", &format!("https://{server}")).await;
        assert_eq!(machine.get("/user/a").await.status, status, "{flags:?}");
        machine.stop().await;
    }
    let said = refusal(&["--insecure", "--client-ssl-ca", "/dev/null"], &[]).stderr;
    assert!(said.contains("--insecure: and --client-ssl-ca exclude each other"), "{said}");
}

#[tokio::test]
async fn nodes_variable_names_more_authorities_for_https_servers() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("company", folder.path());
    let (server, _a) = tls::echo(&authority.sign("server"), None).await;
    let machine = OneMachine::start_in(folder, &[], &[("NODE_EXTRA_CA_CERTS", "company.pem")]).await;
    machine.add("/user/a", &format!("https://{server}")).await;
    assert_eq!(machine.get("/user/a").await.status, 200, "{}", machine.process.log());
    machine.stop().await;
}

#[tokio::test]
async fn the_one_version_of_tls_is_spoken_to_https_servers_too() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("servers", folder.path());
    let pair = authority.sign("server");
    let (newer, _a) = tls::echo_with(&pair, None, &[&rustls::version::TLS13]).await;
    let (older, _b) = tls::echo_with(&pair, None, &[&rustls::version::TLS12]).await;
    let flags = ["--client-ssl-ca", "servers.pem", "--ssl-protocol", "TLSv1_2"];
    let machine = OneMachine::start_in(folder, &flags, &[]).await;
    machine.add("/user/a", &format!("https://{newer}")).await;
    machine.add("/user/b", &format!("https://{older}")).await;
    assert_eq!((machine.get("/user/a").await.status, machine.get("/user/b").await.status), (503, 200));
    machine.stop().await;
}

#[tokio::test]
async fn a_variable_of_nodes_that_has_no_effect_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let machine = OneMachine::start_in(folder, &[], &[("NODE_TLS_REJECT_UNAUTHORIZED", "0")]).await;
    let log = machine.process.log();
    assert!(
        log.contains("the variable NODE_TLS_REJECT_UNAUTHORIZED has no effect") && log.contains("--insecure"),
        "{log}"
    );
    let folder = machine.stop().await;
    let machine =
        OneMachine::start_in(folder, &[], &[("NODE_TLS_REJECT_UNAUTHORIZED", "1"), ("NODE_OPTIONS", "x")]).await;
    assert!(!machine.process.log().contains("NODE_"), "{}", machine.process.log());
    machine.stop().await;
}

#[tokio::test]
async fn a_server_that_is_silent_for_too_long_is_503() {
    let silent = Server::start(|_| None).await;
    let (_quick, quick) = echoing().await;
    let machine = OneMachine::start(&["--proxy-timeout", "400"]).await;
    machine.add("/user/a", &format!("http://{}", silent.address)).await;
    machine.add("/user/b", &quick).await;
    let began = Instant::now();
    let reply = machine.get("/user/a").await;
    assert_eq!((reply.status, reply.header("content-type")), (503, Some("text/html; charset=utf-8")));
    assert!(began.elapsed() >= Duration::from_millis(400), "after {:?}", began.elapsed());
    assert_eq!(machine.get("/user/b").await.status, 200);
    machine.stop().await;
}

#[tokio::test]
async fn a_custom_header_replaces_the_users_own_on_websockets_too() {
    let (mut server, url) = echoing().await;
    let flags =
        ["--custom-header", "X-Given: one, two", "--custom-header=X-User: proxy:1", "--custom-header", "priority: 3"];
    let machine = OneMachine::start(&flags).await;
    machine.add("/user/a", &url).await;
    for upgrade in ["", UPGRADE] {
        let reply = machine.ask("GET /user/a", &format!("X-User: me\r\n{upgrade}")).await;
        assert_eq!(reply.status, if upgrade.is_empty() { 200 } else { 101 });
        let head = server.heads.recv().await.expect("it was asked").to_lowercase();
        let values = |name: &str| head.lines().filter(|l| l.starts_with(name)).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(values("x-given:"), ["x-given: one, two"]);
        assert_eq!(values("x-user:"), ["x-user: proxy:1"]);
        assert_eq!(values("priority:"), ["priority: 3"]);
    }
    machine.stop().await;
    assert!(refusal(&["--custom-header", "X-Only"], &[]).stderr.contains("--custom-header: 'X-Only' has no colon"));
}

#[tokio::test]
async fn with_change_origin_a_server_sees_the_host_of_its_target() {
    let (server, url) = echoing().await;
    for (flags, host) in [(&[][..], "hub.example.org".to_owned()), (&["--change-origin"], server.address.to_string())] {
        let machine = OneMachine::start(flags).await;
        machine.add("/user/a", &url).await;
        let body = machine.get("/user/a").await.body;
        assert!(body.contains(&format!("\r\nHost: {host}\r\n")), "{flags:?}: {body}");
        machine.stop().await;
    }
}

#[tokio::test]
async fn the_path_of_a_target_comes_first_unless_no_prepend_path() {
    let (_server, url) = echoing().await;
    for (flags, path) in [(&[][..], "/base/user/a/x%2Fy?z"), (&["--no-prepend-path"], "/user/a/x%2Fy?z")] {
        let machine = OneMachine::start(flags).await;
        machine.add("/user/a", &format!("{url}/base")).await;
        assert_eq!(line(&machine.get("/user/a/x%2Fy?z").await.body), format!("GET {path} HTTP/1.1"), "{flags:?}");
        machine.stop().await;
    }
}

#[tokio::test]
async fn with_no_include_prefix_the_path_of_the_route_is_cut_off() {
    let (_server, url) = echoing().await;
    let machine = OneMachine::start(&["--no-include-prefix"]).await;
    machine.add("/", &url).await;
    machine.add("/user/a%40b", &url).await;
    machine.add("/user/a%40b/named", &format!("{url}/base")).await;
    machine.add("/user/%C3%A9%20%25.x", &url).await;
    for (asked, got) in [
        ("/elsewhere/x", "/elsewhere/x"),
        ("/user/a@b", "/"),
        ("/user/a@b/", "/"),
        ("/user/a@b?q=1", "/?q=1"),
        ("/user/a%40b/x%2Fy/z?q=/user/a%40b", "/x%2Fy/z?q=/user/a%40b"),
        ("/user/%61%40b/x", "/x"),
        ("/user/a@b/user/a@b/x", "/user/a@b/x"),
        ("/user/a@bc/x", "/user/a@bc/x"),
        ("/user/a@b/named/x%2Fy", "/base/x%2Fy"),
        ("/user/%c3%a9%20%25%2ex/x%20y", "/x%20y"),
    ] {
        assert_eq!(line(&machine.get(asked).await.body), format!("GET {got} HTTP/1.1"), "{asked}");
    }
    // Traefik cuts nothing off a path that it would have to resolve first.
    for path in ["/user/a@b/x//y", "/user/a@b/../x"] {
        assert_eq!(machine.get(path).await.status, 400, "{path}");
    }
    machine.remove("/user/a%40b").await;
    assert_eq!(line(&machine.get("/user/a@b/x").await.body), "GET /user/a@b/x HTTP/1.1");
    assert_eq!(machine.ask("GET /user/a@b/named/ws", UPGRADE).await.status, 101);
    let folder = machine.stop().await;
    // Without the flag everything is whole again, also what was added before.
    let machine = OneMachine::start_in(folder, &[], &[]).await;
    assert_eq!(line(&machine.get("/user/a@b/named/x").await.body), "GET /base/user/a@b/named/x HTTP/1.1");
    machine.stop().await;
}
