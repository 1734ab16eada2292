//! Flags about TLS at the public port.

use std::time::Duration;

use rustls::ProtocolVersion;
use tempfile::TempDir;

use crate::support::certificates::Authority;
use crate::support::http::{Connection, Server, echo};
use crate::support::one_machine::{OneMachine, UPGRADE, ask_over, refusal};
use crate::support::pointsman::pointsman;
use crate::support::process::free_port;
use crate::support::tls::TlsClient;
use crate::support::wait::eventually;

const PAIR: [&str; 4] = ["--ssl-key", "server-key.pem", "--ssl-cert", "server-cert.pem"];

const NEWER: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
const OLDER: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// A folder with a server's certificate, and its authority.
fn world() -> (TempDir, Authority) {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new("authority", folder.path());
    authority.sign("server");
    (folder, authority)
}

async fn started(folder: TempDir, flags: &[&str]) -> (OneMachine, Server) {
    let server = Server::start(|head| Some(echo(head))).await;
    let machine = OneMachine::start_in(folder, &[&PAIR, flags].concat(), &[]).await;
    machine.add("/", &format!("http://{}", server.address)).await;
    (machine, server)
}

#[tokio::test]
async fn with_a_certificate_the_public_port_speaks_https() {
    let (folder, authority) = world();
    let (machine, _server) = started(folder, &[]).await;
    let client = TlsClient::of(&authority.file);
    let connection = || async { Connection::over(client.connect(machine.public_address()).await.expect("TLS")) };
    let reply = ask_over(connection().await, "GET /x", "").await;
    assert!(reply.status == 200 && reply.body.contains("X-Forwarded-Proto: https"), "{reply:?}");
    assert_eq!(ask_over(connection().await, "GET /x", UPGRADE).await.status, 101);
    // What isn't routed gets its page over https too.
    machine.remove("/").await;
    assert_eq!(ask_over(connection().await, "GET /x", "").await.status, 404);
    machine.stop().await;

    let said = refusal(&["--ssl-key", "/dev/null"], &[]).stderr;
    assert!(said.contains("--ssl-key: needs --ssl-cert beside it"), "{said}");
}

#[tokio::test]
async fn a_changed_certificate_is_served_without_a_signal_and_half_a_pair_is_not() {
    let (folder, authority) = world();
    let (machine, _server) = started(folder, &[]).await;
    let client = TlsClient::of(&authority.file);
    let first = client.shown(machine.public_address()).await.expect("a certificate");
    // As an ACME client does it: new files beside the old, renamed over them one by one.
    let fresh = authority.sign("renewed");
    std::fs::rename(&fresh.cert, machine.file("server-cert.pem")).unwrap();
    eventually("a word about the half pair", Duration::from_secs(15), || async {
        let log = machine.process.log();
        if log.contains("The old certificates and keys stay in force for Traefik") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(client.shown(machine.public_address()).await.as_ref(), Some(&first));
    std::fs::rename(&fresh.key, machine.file("server-key.pem")).unwrap();
    eventually("the new certificate", Duration::from_secs(15), || async {
        match client.shown(machine.public_address()).await {
            Some(shown) if shown != first => Ok(()),
            other => Err(format!("still the first: {}\n{}", other.is_some(), machine.process.log())),
        }
    })
    .await;
    machine.stop().await;
}

#[tokio::test]
async fn users_must_have_a_certificate_where_one_is_requested() {
    let (folder, authority) = world();
    let (users, strangers) = (Authority::new("users", folder.path()), Authority::new("strangers", folder.path()));
    let (user, stranger) = (users.sign("user"), strangers.sign("stranger"));
    let flags = ["--ssl-ca", "users.pem", "--ssl-request-cert", "--ssl-reject-unauthorized"];
    let (machine, _server) = started(folder, &flags).await;
    let (client, address) = (TlsClient::of(&authority.file), machine.public_address());
    assert_eq!(client.with(&user).status(address, "/x").await, Some(200));
    assert_eq!(client.with(&stranger).status(address, "/x").await, None);
    assert_eq!(client.status(address, "/x").await, None);
    machine.stop().await;

    // As with Node, an authority alone asks nobody.
    let (folder, authority) = world();
    Authority::new("users", folder.path());
    let (machine, _server) = started(folder, &["--ssl-ca", "users.pem"]).await;
    assert_eq!(TlsClient::of(&authority.file).status(machine.public_address(), "/x").await, Some(200));
    machine.stop().await;

    let said = refusal(&["--ssl-request-cert"], &[]).stderr;
    assert!(said.contains("--ssl-request-cert: needs --ssl-key and --ssl-cert beside it"), "{said}");
}

#[tokio::test]
async fn one_version_of_tls_or_some_of_its_ciphers_may_be_chosen() {
    let negotiated = |stream: &tokio_rustls::client::TlsStream<tokio::net::TcpStream>| {
        let (_, session) = stream.get_ref();
        (session.protocol_version(), session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite())))
    };
    let (folder, authority) = world();
    let ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";
    let (machine, _server) = started(folder, &["--ssl-protocol", "TLSv1_2", "--ssl-ciphers", ciphers]).await;
    let client = TlsClient::of(&authority.file);
    let stream = client.connect(machine.public_address()).await.expect("TLS");
    let wanted = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384".to_owned();
    assert_eq!(negotiated(&stream), (Some(ProtocolVersion::TLSv1_2), Some(wanted)));
    let newer = TlsClient { versions: NEWER, ..client };
    assert!(newer.connect(machine.public_address()).await.is_err(), "TLS 1.3 was spoken");
    machine.stop().await;

    let (folder, authority) = world();
    let (machine, _server) = started(folder, &["--ssl-protocol", "TLSv1_3"]).await;
    let older = TlsClient { versions: OLDER, ..TlsClient::of(&authority.file) };
    assert!(older.connect(machine.public_address()).await.is_err(), "TLS 1.2 was spoken");
    assert_eq!(TlsClient::of(&authority.file).status(machine.public_address(), "/x").await, Some(200));
    machine.stop().await;

    let said = refusal(&["--ssl-protocol", "SSLv3"], &[]).stderr;
    assert!(said.contains("--ssl-protocol: 'SSLv3' is too old to be safe"), "{said}");
}

#[tokio::test]
async fn a_second_port_sends_users_to_https() {
    let (folder, _authority) = world();
    let redirect = free_port();
    let text = redirect.to_string();
    let (machine, _server) = started(folder, &["--redirect-port", &text]).await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], redirect));
    let ask = |line: &'static str| async move {
        ask_over(Connection::open(address).await, line, "Host: hub.example.org:80\r\n").await
    };
    let location = format!("https://hub.example.org:{}/user/a%20b?x=1", machine.public);
    for (line, status) in [("GET /user/a%20b?x=1", 301), ("POST /user/a%20b?x=1", 308)] {
        let reply = ask(line).await;
        assert_eq!((reply.status, reply.header("location")), (status, Some(location.as_str())), "{line}");
    }
    // Paths are sent on as they came.
    for path in ["/user/a//b", "//a", "/a%2Fb%5C%3F%23%25%3B", "/a/../b"] {
        let reply =
            ask_over(Connection::open(address).await, &format!("GET {path}"), "Host: hub.example.org:80\r\n").await;
        let location = format!("https://hub.example.org:{}{path}", machine.public);
        assert_eq!((reply.status, reply.header("location")), (301, Some(location.as_str())), "{path}");
    }
    machine.stop().await;

    let (folder, _authority) = world();
    let (machine, _server) = started(folder, &["--redirect-port", &text, "--redirect-to", "443"]).await;
    assert_eq!(ask("GET /x").await.header("location"), Some("https://hub.example.org/x"));
    machine.stop().await;

    let said = refusal(&["--redirect-port", "80"], &[]).stderr;
    assert!(said.contains("--redirect-port: needs --ssl-key and --ssl-cert beside it"), "{said}");
    let said = refusal(&["--redirect-to", "443"], &[]).stderr;
    assert!(said.contains("--redirect-to: needs --redirect-port beside it"), "{said}");
}

#[tokio::test]
async fn an_encrypted_key_is_refused_and_its_passphrase_is_said_to_be_unused() {
    let (folder, _authority) = world();
    let variable = [("CONFIGPROXY_SSL_KEY_PASSPHRASE", "hunter2")];
    let warning = "the variable CONFIGPROXY_SSL_KEY_PASSPHRASE is not used";
    let machine = OneMachine::start_in(folder, &PAIR, &variable).await;
    assert!(machine.process.log().contains(warning), "{}", machine.process.log());
    let folder = machine.stop().await;

    let encrypted = folder.path().join("encrypted.pem");
    let key = std::fs::read_to_string(folder.path().join("server-key.pem")).unwrap();
    std::fs::write(&encrypted, key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")).unwrap();
    let (key, data) = (encrypted.display().to_string(), folder.path().join("data").display().to_string());
    let cert = folder.path().join("server-cert.pem").display().to_string();
    let traefik = crate::support::process::program("traefik").display().to_string();
    let [public, api] = [free_port(), free_port()].map(|port| port.to_string());
    let common = ["--traefik-binary", &traefik, "--port", &public, "--api-port", &api, "--data-dir", &data];
    for (flags, variable, name) in [
        (["--ssl-key", &key, "--ssl-cert", &cert], "CONFIGPROXY_SSL_KEY_PASSPHRASE", "--ssl-key"),
        (["--api-ssl-key", &key, "--api-ssl-cert", &cert], "CONFIGPROXY_API_SSL_KEY_PASSPHRASE", "--api-ssl-key"),
    ] {
        let refused = pointsman(&[&common[..], &flags].concat(), &[(variable, "hunter2")]);
        assert_ne!(refused.code, 0, "{refused:?}");
        for words in [name, "encrypted", "openssl pkey -in", &format!("the variable {variable} is not used")] {
            assert!(refused.stderr.contains(words), "{words} is not in: {}", refused.stderr);
        }
        assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
    }
}
