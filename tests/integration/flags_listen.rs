//! Flags about addresses, the process and its log, each as a user of the public port or a parent process sees it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::support::http::{Connection, Reply, Server, echo};
use crate::support::one_machine::{OneMachine, ask_over, refusal};
use crate::support::process::{Running, free_port, program};
use crate::support::wait::{eventually, http_get};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A Pointsman that was told nothing of addresses but these flags, on this port.
async fn at(port: u16, flags: &[&str]) -> OneMachine {
    let machine = OneMachine::begin_at((port, port + 1), tempfile::tempdir().expect("a folder"), flags, &[]).await;
    machine.ready().await;
    machine
}

/// A port whose next one is free too, and as a text. Below those that the system takes for outgoing connections, for it
/// likes even ones, and the next one is even.
fn port() -> (u16, String) {
    let is_free = |port: u16| std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok();
    let candidates = std::iter::repeat_with(|| 20_000 + free_port() % 12_000);
    let port = candidates.take(100).find(|port| is_free(*port) && is_free(port + 1)).expect("two free ports");
    (port, port.to_string())
}

async fn asked(ip: IpAddr, port: u16) -> Option<Reply> {
    tokio::net::TcpStream::connect((ip, port)).await.ok()?;
    Some(ask_over(Connection::open(SocketAddr::from((ip, port))).await, "GET /x", "").await)
}

async fn is_asked(ip: IpAddr, port: u16) -> bool {
    asked(ip, port).await.is_some_and(|reply| reply.status == 200)
}

#[tokio::test]
async fn an_empty_ip_means_every_address_and_the_api_is_at_the_next_port() {
    let server = Server::start(|head| Some(echo(head))).await;
    // As the hub passes it, in both forms; the last one counts.
    let (number, text) = port();
    let machine = at(number, &["--ip", "127.0.0.1", "--ip", "", "--port=1", "--port", &text]).await;
    machine.add("/", &format!("http://{}", server.address)).await;
    assert!(is_asked(V4, number).await && is_asked(V6, number).await, "{}", machine.process.log());
    // The API is for this machine only.
    let (status, _) = http_get(&format!("http://127.0.0.1:{}/api/routes", number + 1)).await.unwrap();
    assert_eq!(status, 200);
    machine.stop().await;

    let (number, text) = port();
    let machine = at(number, &["--ip=*", "--port", &text, "--api-ip", ""]).await;
    machine.add("/", &format!("http://{}", server.address)).await;
    assert!(is_asked(V4, number).await && is_asked(V6, number).await, "{}", machine.process.log());
    assert_eq!(http_get(&format!("http://[::1]:{}/api/routes", number + 1)).await.unwrap().0, 200);
    machine.stop().await;
}

#[tokio::test]
async fn an_ip_is_the_only_one_that_is_listened_on() {
    let server = Server::start(|head| Some(echo(head))).await;
    for (ip, this, other) in [("127.0.0.1", V4, V6), ("::1", V6, V4)] {
        let (number, text) = port();
        let machine = at(number, &["--ip", ip, "--port", &text]).await;
        machine.add("/", &format!("http://{}", server.address)).await;
        assert!(is_asked(this, number).await, "{ip}: {}", machine.process.log());
        assert!(asked(other, number).await.is_none(), "{ip} is listened on, and {other} too");
        machine.stop().await;
    }
}

#[tokio::test]
async fn the_api_has_an_address_of_its_own() {
    let [public, api] = [free_port(), free_port()];
    let [port, api_port] = [public, api].map(|port| port.to_string());
    let flags = ["--ip", "127.0.0.1", "--port", &port, "--api-ip", "127.0.0.1", "--api-port", &api_port];
    let machine = OneMachine::begin_at((public, api), tempfile::tempdir().unwrap(), &flags, &[]).await;
    machine.ready().await;
    assert_eq!(http_get(&format!("{}/api/routes", machine.api)).await.unwrap(), (200, "{}".to_owned()));
    // Users don't see it.
    assert_ne!(machine.get("/api/routes").await.status, 200);
    machine.stop().await;
}

#[test]
fn a_busy_port_ends_the_start_and_names_the_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let traefik = program("traefik").display().to_string();
    let flags = ["--traefik-binary", &traefik, "--ip", "127.0.0.1", "--port", &port, "--api-port", "0"];
    assert!(refusal(&flags, &[]).stderr.contains("--api-port: 0 is not a port"));
    let free = free_port().to_string();
    let said = refusal(&[&flags[..6], &["--api-port", &free]].concat(), &[]).stderr;
    assert!(said.contains("--ip and --port") && said.contains(&port), "{said}");
}

#[tokio::test]
async fn the_pid_file_is_there_while_we_are() {
    let machine = OneMachine::start(&["--pid-file", "proxy.pid"]).await;
    let file = machine.file("proxy.pid");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), machine.process.pid().to_string());
    let folder = machine.stop().await;
    assert!(!file.exists(), "the pid file is left behind in {}", folder.path().display());

    let said = refusal(&["--pid-file", "/nowhere/proxy.pid"], &[]).stderr;
    assert!(said.contains("--pid-file: /nowhere/proxy.pid can't be written"), "{said}");
    // A start that fails leaves no file behind, and writes none through a link.
    let (folder, taken) = (tempfile::tempdir().unwrap(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [file, victim] = ["pid", "victim"].map(|name| folder.path().join(name));
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &file).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refusal(&["--pid-file", file.to_str().unwrap(), "--api-ip", "127.0.0.1", "--api-port", &port], &[]);
    assert!(std::fs::read_to_string(&victim).unwrap() == "precious" && file.is_symlink());
}

#[tokio::test]
async fn a_log_level_is_known_in_any_case() {
    let info = OneMachine::start(&["--log-level", "INFO"]).await;
    assert!(info.process.log().contains("Traefik runs as process"), "{}", info.process.log());
    info.stop().await;
    let error = OneMachine::start(&["--log-level=info", "--log-level=Error"]).await;
    assert!(!error.process.log().contains("Traefik runs as process"), "{}", error.process.log());
    error.stop().await;
    let debug = OneMachine::start(&["--log-level", "debug"]).await;
    eventually("a word of Traefik's", Duration::from_secs(5), || async {
        let log = debug.process.log();
        if log.contains("DEBUG") && log.contains("Traefik: ") { Ok(()) } else { Err(log) }
    })
    .await;
    debug.stop().await;
}

#[tokio::test]
async fn a_token_in_the_environment_is_demanded() {
    let folder = tempfile::tempdir().unwrap();
    let machine = OneMachine::start_in(folder, &[], &[("CONFIGPROXY_AUTH_TOKEN", "secret")]).await;
    let url = format!("{}/api/routes", machine.api);
    assert_eq!(http_get(&url).await.unwrap().0, 403);
    assert_eq!(crate::support::wait::http_get_as(&url, Some("secret")).await.unwrap().0, 200);
    assert!(!machine.process.log().contains("secret"));
    machine.stop().await;
    // An empty one is none.
    let folder = tempfile::tempdir().unwrap();
    let machine = OneMachine::start_in(folder, &[], &[("CONFIGPROXY_AUTH_TOKEN", "")]).await;
    assert_eq!(http_get(&format!("{}/api/routes", machine.api)).await.unwrap().0, 200);
    machine.stop().await;
}

#[tokio::test]
async fn everything_may_be_at_unix_sockets() {
    let server = Server::start(|head| Some(echo(head))).await;
    let folder = tempfile::tempdir().unwrap();
    let traefik = program("traefik").display().to_string();
    let flags = ["--traefik-binary", &traefik, "--socket", "public.sock", "--api-socket", "api.sock"];
    let flags = [&flags[..], &["--metrics-socket", "metrics.sock", "--max-socket-connections", "2"]].concat();
    let mut process = Running::start(Path::new(env!("CARGO_BIN_EXE_pointsman")), &flags, &[], folder.path());
    let ask = |socket: &'static str, line: String, rest: String| {
        let path = folder.path().join(socket);
        async move {
            let stream = tokio::net::UnixStream::connect(path).await.map_err(|error| error.to_string())?;
            let mut connection = Connection::over(stream);
            connection
                .send(format!("{line} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{rest}", rest.len()))
                .await;
            connection.reply_to(false).await.ok_or_else(|| "no answer".to_owned())
        }
    };
    eventually("readiness", Duration::from_secs(20), || async {
        match ask("api.sock", "GET /readyz".into(), String::new()).await {
            Ok(reply) if reply.status == 200 => Ok(()),
            other => Err(format!("{other:?}\n{}", process.log())),
        }
    })
    .await;
    let body = format!(r#"{{"target": "http://{}"}}"#, server.address);
    let added = ask("api.sock", "POST /api/routes/user/a".into(), body).await.unwrap();
    assert_eq!(added.status, 201, "{added:?}");
    let reply = ask("public.sock", "GET /user/a/x".into(), String::new()).await.unwrap();
    assert!(reply.body.starts_with("GET /user/a/x HTTP/1.1\r\n"), "{reply:?}");
    let metrics = ask("metrics.sock", "GET /metrics".into(), String::new()).await.unwrap();
    assert!(metrics.status == 200 && metrics.body.contains("api_route_add"), "{metrics:?}");

    // All places for users are taken: the metrics and the log say it.
    let public = folder.path().join("public.sock");
    let _users = [(); 2].map(|()| std::os::unix::net::UnixStream::connect(&public).unwrap());
    eventually("the limit in the metrics", Duration::from_secs(10), || async {
        let metrics = ask("metrics.sock", "GET /metrics".into(), String::new()).await?.body;
        let shows = |line: &str| metrics.lines().any(|shown| shown == line);
        let open = shows(r#"pointsman_socket_connections{of="users"} 2.0"#);
        let max = shows(r#"pointsman_socket_connections_max{of="users"} 2.0"#);
        // The user before may have been there for a moment longer, and then it was reached twice.
        let reached = r#"pointsman_socket_connections_limit_reached_total{of="users"} "#;
        let reached = metrics.lines().any(|shown| shown.strip_prefix(reached).is_some_and(|n| n != "0"));
        if open && max && reached { Ok(()) } else { Err(metrics) }
    })
    .await;
    let log = process.log();
    assert!(log.contains("The limit of connections through public.sock is reached (2"), "{log}");
    process.signal("TERM");
    assert_eq!(process.end(Duration::from_secs(10)).await, 0, "{}", process.log());
    for socket in ["public.sock", "api.sock", "metrics.sock"] {
        assert!(!folder.path().join(socket).exists(), "{socket} is left behind");
    }
    let said = refusal(&["--socket", "x", "--port", "1"], &[]).stderr;
    assert!(said.contains("--socket: and --port exclude each other"), "{said}");
}
