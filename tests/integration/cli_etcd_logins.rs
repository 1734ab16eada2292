//! Pointsman and a Traefik with what `traefik-config` writes, over an etcd that asks for a password or a certificate.

use std::time::Duration;

use crate::support::one_etcd::{Certificates, OneEtcd, password_file};
use crate::support::pointsman::{Server, pointsman};
use crate::support::process::free_port;
use crate::support::traefik::Traefik;
use crate::support::wait::eventually;

/// A route is added, which is answered with 201 only once Traefik serves it: so both of them got in.
async fn both_get_in(etcd: &OneEtcd, pointsman_login: &[&str], traefik_login: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let (private, public) = (free_port(), free_port().to_string());
    let api = format!("http://127.0.0.1:{private}");
    let essential = ["--etcd-endpoints", etcd.endpoint.as_str(), "--traefik-api", &api];
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
    let etcd = OneEtcd::start().await;
    etcd.require_passwords().await;
    let (root, reader) = (password_file(folder.path(), "root"), password_file(folder.path(), "reader"));
    let ours = ["--etcd-user", "root", "--etcd-password-file", &root];
    // Traefik itself needs to read, and nothing else.
    let theirs = ["--traefik-etcd-user", "reader", "--traefik-etcd-password-file", &reader];
    both_get_in(&etcd, &ours, &[&ours[..], &theirs].concat()).await;
}

#[tokio::test]
async fn with_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let files = Certificates::new(folder.path());
    let etcd = OneEtcd::begin_with_certificates(&files);
    let login = ["--etcd-ca", &files.authority, "--etcd-cert", &files.client.0, "--etcd-key", &files.client.1];
    both_get_in(&etcd, &login, &login).await;
}
