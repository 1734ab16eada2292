//! What users get from a real Traefik when a server is dead, and whether a websocket is refused as it should be.

use std::net::{Ipv4Addr, SocketAddr};

use crate::support::http::{Connection, Reply};
use crate::support::process::free_port;
use crate::support::system::System;

async fn ask(port: u16, line: &str, headers: &str) -> Reply {
    let mut connection = Connection::open(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
    connection.send(format!("{line} HTTP/1.1\r\nHost: hub.example.org\r\n{headers}\r\n")).await;
    connection.reply_to(line.starts_with("HEAD")).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_is_503_with_our_page_and_a_websocket_is_refused() {
    let system = System::start(1).await;
    let (pages, dead) = (free_port().to_string(), free_port());
    let url = format!("http://127.0.0.1:{pages}");
    let flags = ["--pages-ip", "127.0.0.1", "--pages-port", &pages, "--pages-url", &url];
    let pointsman = system.pointsman(&flags).await.ready().await;
    assert_eq!(pointsman.add("/user/dead", &format!("http://127.0.0.1:{dead}")).await.0, 201);
    let public = system.edges[0].public;

    let page = ask(public, "GET /user/dead/lab?token=secret", "Cookie: a=b\r\n").await;
    assert_eq!((page.status, page.header("content-type")), (503, Some("text/html; charset=utf-8")));
    assert!(page.body.contains("Server not reachable") && !page.body.contains("secret"), "{page:?}");
    let posted = ask(public, "POST /user/dead/api", "Content-Length: 0\r\n").await;
    assert_eq!(posted.status, 503);
    let head = ask(public, "HEAD /user/dead/lab", "").await;
    assert_eq!((head.status, head.body.as_str()), (503, ""));

    let key = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
               Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let refused = ask(public, "GET /user/dead/api/kernels/1/channels", key).await;
    assert_eq!(refused.status, 503, "a websocket's client must see that the server is away: {refused:?}");
}
