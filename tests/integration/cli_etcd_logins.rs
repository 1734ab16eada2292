//! Pointsman and a Traefik with what `traefik-config` writes, over an etcd that asks for a password or a certificate.

use std::time::Duration;

use crate::support::etcd::{Etcd, Wanted};
use crate::support::pointsman::{Server, pointsman};
use crate::support::process::free_port;
use crate::support::traefik::Traefik;
use crate::support::wait::eventually;

/// A route is added, which is answered with 201 only once Traefik serves it: so both of them got in.
async fn both_get_in(etcd: &Etcd, pointsman_login: &[&str], traefik_login: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let (private, public) = (free_port(), free_port().to_string());
    let api = format!("http://127.0.0.1:{private}");
    let essential = ["--etcd-endpoints", etcd.endpoint(), "--traefik-api", &api];
    let dir = folder.path().join("traefik").display().to_string();
    let place = ["--ip", "127.0.0.1", "--port", &public, "--dir", &dir];
    let written = pointsman(&[&["traefik-config"], &essential[..], &place, traefik_login].concat(), &[]);
    assert_eq!(written.code, 0, "{written:?}");
    let traefik = Traefik::start(&folder.path().join("traefik/traefik.yaml"), private, folder.path()).await;
    let server = Server::start(&[&essential[..], pointsman_login].concat(), &[], folder.path()).await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    eventually("a route", Duration::from_secs(30), || async {
        let call = client.post(format!("{}/api/routes/", server.api)).body(r#"{"target":"http://127.0.0.1:9"}"#);
        let answer = call.send().await.map_err(|e| e.to_string())?;
        let (status, body) = (answer.status().as_u16(), answer.text().await.unwrap_or_default());
        let logs = || format!("{status} {body}\n{}\n{}", server.process.log(), traefik.process.log());
        if status == 201 { Ok(()) } else { Err(logs()) }
    })
    .await;
}

#[tokio::test]
async fn with_a_password_each() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start().await;
    // Traefik itself needs nothing but what begins with its root key.
    etcd.switch_logins_on("traefik", "secret", "traefik").await;
    let password = folder.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    let password = password.to_str().unwrap();
    let ours = ["--etcd-user", "root", "--etcd-password-file", password];
    let theirs = ["--traefik-etcd-user", "traefik", "--traefik-etcd-password-file", password];
    both_get_in(&etcd, &ours, &[&ours[..], &theirs].concat()).await;
}

#[tokio::test]
async fn with_certificates() {
    let etcd = Etcd::start_as(Wanted { tls: true, client_certificates: true, ..Wanted::default() }).await;
    let tls = etcd.tls.as_ref().expect("certificates");
    let [ca, cert, key] = [&tls.authority.file, &tls.client.cert, &tls.client.key].map(|path| path.to_str().unwrap());
    let login = ["--etcd-ca", ca, "--etcd-cert", cert, "--etcd-key", key];
    both_get_in(&etcd, &login, &login).await;
}
