//! The same flags with etcd: they shape what traefik-config writes, and the keys.

use std::net::SocketAddr;

use crate::support::certificates::Authority;
use crate::support::http::{Connection, Reply, Server, echo, response};
use crate::support::one_machine::{UPGRADE, ask_over};
use crate::support::process::free_port;
use crate::support::system::System;
use crate::support::tls::{self, TlsClient};
use crate::support::wait::eventually;

/// What a user gets at the only Traefik, without TLS.
async fn get(system: &System, path: &str) -> Reply {
    let address = SocketAddr::from(([127, 0, 0, 1], system.edges[0].public));
    ask_over(Connection::open(address).await, &format!("GET {path}"), "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_of_the_public_port_and_of_servers_work_with_etcd_too() {
    let folder = tempfile::tempdir().unwrap();
    let (web, servers) = (Authority::new("web", folder.path()), Authority::new("servers", folder.path()));
    let (ours, proxy) = (web.sign("public"), servers.sign("proxy"));
    let (server, _task) = tls::echo(&servers.sign("server"), Some(&servers.file)).await;
    let silent = Server::start(|_| None).await;
    let [redirect, access] = [free_port().to_string(), folder.path().join("access.log").display().to_string()];
    let text = |path: &std::path::Path| path.display().to_string();
    let files = [&ours.key, &ours.cert, &proxy.key, &proxy.cert, &servers.file].map(|path| text(path));
    let mut flags = Vec::new();
    for (name, file) in
        ["--ssl-key", "--ssl-cert", "--client-ssl-key", "--client-ssl-cert", "--client-ssl-ca"].iter().zip(&files)
    {
        flags.extend([*name, file.as_str()]);
    }
    flags.extend(["--redirect-port", &redirect, "--redirect-to", "443", "--access-log", &access]);
    flags.extend(["--custom-header", "X-Given: yes, it is", "--change-origin", "--no-include-prefix"]);
    flags.extend(["--proxy-timeout", "500", "--keep-alive-timeout", "5000", "--ssl-protocol", "TLSv1_3"]);
    let system = System::start_with(1, &flags).await;
    let pointsman = system.pointsman(&[]).await.ready().await;
    assert_eq!(pointsman.add("/user/a%40b", &format!("https://{server}/base")).await.0, 201);
    assert_eq!(pointsman.add("/user/silent", &format!("http://{}", silent.address)).await.0, 201);

    let client = TlsClient::of(&web.file);
    let address = SocketAddr::from(([127, 0, 0, 1], system.edges[0].public));
    let ask = |line: &'static str, headers: &'static str| async move {
        ask_over(Connection::over(client.connect(address).await.expect("TLS")), line, headers).await
    };
    let reply = ask("GET /user/a%40b/x%2Fy", "X-Given: no\r\n").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    for words in ["GET /base/x%2Fy HTTP/1.1\r\n", &format!("Host: {server}\r\n"), "X-Given: yes, it is\r\n"] {
        assert!(reply.body.contains(words), "{words} is not in {}", reply.body);
    }
    assert_eq!(ask("GET /user/a@b/ws", UPGRADE).await.status, 101);
    assert_eq!(ask("GET /user/silent", "").await.status, 504, "without --pages-url it stays as Traefik says it");
    let plain = SocketAddr::from(([127, 0, 0, 1], redirect.parse().unwrap()));
    let sent = ask_over(Connection::open(plain).await, "GET /x", "").await;
    assert_eq!((sent.status, sent.header("location")), (301, Some("https://hub.example.org/x")));
    eventually("the access log", std::time::Duration::from_secs(10), || async {
        let log = std::fs::read_to_string(&access).map_err(|error| error.to_string())?;
        if log.contains("GET /user/a%40b/x%2Fy HTTP/1.1") { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_pages_what_no_route_takes_gets_one_below_a_base_url_too() {
    let mut hub = Server::start(|head| Some(response(200, "", head.split(' ').nth(1).unwrap_or_default()))).await;
    let server = Server::start(|head| Some(echo(head))).await;
    let pages = free_port().to_string();
    let (url, target) = (format!("http://127.0.0.1:{pages}"), format!("http://{}/jup/hub/error", hub.address));
    let system = System::start(1).await;
    let flags = ["--pages-ip", "127.0.0.1", "--pages-port", &pages, "--pages-url", &url, "--error-target", &target];
    let pointsman = system.pointsman(&flags).await.ready().await;
    let to = format!("http://{}", server.address);
    assert_eq!(pointsman.add("/jup/user/a", &to).await.0, 201);
    for _ in 0..2 {
        for path in ["/", "/elsewhere", "/jup/hub/home", "/jup/user/ab"] {
            let reply = get(&system, path).await;
            let asked = format!("/jup/hub/error/404?url={}", path.replace('/', "%2F"));
            assert_eq!((reply.status, &reply.body), (404, &asked), "{path}");
            hub.heads.recv().await.expect("it was asked");
        }
        assert_eq!(get(&system, "/jup/user/a/x").await.status, 200);
        // The hub's own route, which is not the root's.
        assert_eq!(pointsman.add("/jup", &to).await.0, 201);
        assert_eq!(get(&system, "/jup/hub/home").await.status, 200);
        assert_eq!(get(&system, "/elsewhere").await.status, 404);
        assert_eq!(pointsman.add("/", &to).await.0, 201);
        assert_eq!(get(&system, "/elsewhere").await.status, 200);
        assert_eq!(pointsman.call("DELETE", "/", None).await.0, 204);
        assert_eq!(pointsman.call("DELETE", "/jup", None).await.0, 204);
    }
}
