//! Pointsman and a Traefik with what `traefik-config` writes, over an etcd that asks for a password or a certificate.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pointsman::route::record::RecordKeys;
use pointsman::store::etcd::{EtcdSettings, EtcdStore};
use pointsman::store::{Op, Store as _, StoreError, Txn};

use crate::support::certificates::Signed;
use crate::support::etcd::{Etcd, Wanted};
use crate::support::pointsman::{Server, pointsman};
use crate::support::process::{free_port, program};
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

/// The commands of `etcd-users`, run by a shell with the real etcdctl in `folder`, and then logins are switched on.
fn run_etcd_users(etcd: &Etcd, folder: &Path, more: &[&str], environment: &[(&str, &str)]) {
    let said = pointsman(&[&["etcd-users", "--etcd-endpoints", etcd.endpoint()], more].concat(), &[]);
    assert_eq!(said.code, 0, "{said:?}");
    // What is written there as a hint is done, too, with a password that nobody needs to type.
    let hint = said.stdout.replace("#   etcdctl", "etcdctl").replace("user add root", "user add root:secret");
    let script = folder.join("etcd-users.sh");
    std::fs::write(&script, format!("set -e\n{hint}")).expect("the folder takes a file");
    let tools = program("etcdctl").parent().expect("a folder").display().to_string();
    let path = format!("{tools}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.arg(&script).current_dir(folder).env_clear().env("PATH", path).envs(environment.iter().copied());
    let done = shell.output().expect("a shell");
    assert!(done.status.success(), "{}\n{hint}", String::from_utf8_lossy(&done.stderr));
}

/// What Traefik's user may: read its own tree, and nothing else. Pointsman's may do both.
async fn is_separate(ours: EtcdSettings, theirs: EtcdSettings) {
    let put = |key: &str| Txn { guards: Vec::new(), ops: vec![Op::Put { key: key.to_owned(), value: b"x".to_vec() }] };
    let refused = |answer: Result<(), StoreError>| match answer {
        Err(StoreError::Refused(text)) => assert!(text.contains("permission"), "{text}"),
        other => panic!("not refused: {other:?}"),
    };
    let traefik = EtcdStore::connect(theirs).await.expect("a store");
    assert!(!traefik.list("edge/").await.expect("its own tree").entries.is_empty());
    refused(traefik.commit(put("edge/http/x")).await.map(drop));
    for prefix in ["records/hub/", "records/activity/", "records/", "other/"] {
        refused(traefik.list(prefix).await.map(drop));
        refused(traefik.commit(put(&format!("{prefix}x"))).await.map(drop));
    }
    let pointsman = EtcdStore::connect(ours).await.expect("a store");
    assert!(!pointsman.list("records/hub/").await.expect("its records").entries.is_empty());
    refused(pointsman.list("other/").await.map(drop));
    refused(pointsman.commit(put("other/x")).await.map(drop));
}

const PLACES: [&str; 4] = ["--etcd-prefix", "records", "--traefik-root-key", "edge"];

/// With everything that Pointsman writes: records, its installation, activity under its lease, Traefik's tree, foreign keys
/// that it removes, and the push after a restored history.
#[tokio::test]
async fn with_the_users_of_etcd_users() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start_as(Wanted { arguments: &["--bcrypt-cost=4"], ..Wanted::default() }).await;
    run_etcd_users(&etcd, folder.path(), &[&PLACES[..], &["--user", "team"]].concat(), &[]);
    let file = |user: &str| folder.path().join(format!("{user}.password")).display().to_string();
    let (our_file, their_file) = (file("team"), file("team-traefik"));
    let more = ["--etcd-user", "team", "--etcd-password-file", &our_file, "--installation", "maths", "--own-root-key"];
    let ours = [&more[..], &PLACES].concat();
    let theirs = ["--traefik-etcd-user", "team-traefik", "--traefik-etcd-password-file", &their_file];
    both_get_in(&etcd, &ours, &[&theirs[..], &PLACES].concat()).await;
    let login = |user: &str, file: &str| EtcdSettings {
        user: Some(user.to_owned()),
        password_file: Some(file.into()),
        ..etcd.settings()
    };
    is_separate(login("team", &our_file), login("team-traefik", &their_file)).await;
    let store = EtcdStore::connect(login("team", &our_file)).await.expect("a store");
    for key in ["records/hub/head", "records/hub/installation", "records/activity/lease"] {
        assert!(store.get(key).await.expect("an answer").entry.is_some(), "{key} was not written");
    }
    // A key beside all others, which a restored history needs.
    let push = RecordKeys::new("records").push();
    let write = Txn { guards: Vec::new(), ops: vec![Op::Put { key: push, value: b"x".to_vec() }] };
    store.commit(write).await.expect("a push");
}

#[tokio::test]
async fn with_the_certificates_of_etcd_users() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start_as(Wanted { tls: true, client_certificates: true, ..Wanted::default() }).await;
    let tls = etcd.tls.as_ref().expect("certificates");
    let [root, team, edge] = ["root", "team", "team-traefik"].map(|name| tls.authority.sign(name));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (ca, cert, key) = (text(&tls.authority.file), text(&root.cert), text(&root.key));
    let environment = [("ETCDCTL_CACERT", &*ca), ("ETCDCTL_CERT", &*cert), ("ETCDCTL_KEY", &*key)];
    let wanted = [&PLACES[..], &["--user", "team", "--certificates", "--etcd-ca", &ca]].concat();
    run_etcd_users(&etcd, folder.path(), &wanted, &environment);
    let [(our_cert, our_key), (their_cert, their_key)] =
        [&team, &edge].map(|signed| (text(&signed.cert), text(&signed.key)));
    let trust = [&PLACES[..], &["--etcd-ca", &ca]].concat();
    let ours = [&trust[..], &["--etcd-cert", &our_cert, "--etcd-key", &our_key]].concat();
    let theirs = [&trust[..], &["--etcd-cert", &their_cert, "--etcd-key", &their_key]].concat();
    both_get_in(&etcd, &ours, &theirs).await;
    let login = |signed: &Signed| EtcdSettings {
        cert: Some(signed.cert.clone()),
        key: Some(signed.key.clone()),
        ..etcd.settings()
    };
    is_separate(login(&team), login(&edge)).await;
}

#[test]
fn the_page_of_etcd_has_the_commands() {
    let said = pointsman(&["etcd-users", "--etcd-endpoints", "https://etcd-0:2379"], &[]);
    let page = include_str!("../../docs/etcd.md");
    let commands = said.stdout.lines().filter(|line| line.starts_with("etcdctl") || line.starts_with('('));
    let commands: Vec<&str> = commands.collect();
    assert_eq!(commands.len(), 11, "{said:?}");
    let at: Vec<Option<usize>> = commands.iter().map(|line| page.find(&format!("\n{line}\n"))).collect();
    assert!(at.iter().all(Option::is_some) && at.is_sorted(), "docs/etcd.md has not, in this order: {commands:#?}");
}

#[tokio::test]
async fn with_certificates() {
    let etcd = Etcd::start_as(Wanted { tls: true, client_certificates: true, ..Wanted::default() }).await;
    let tls = etcd.tls.as_ref().expect("certificates");
    let [ca, cert, key] = [&tls.authority.file, &tls.client.cert, &tls.client.key].map(|path| path.to_str().unwrap());
    let login = ["--etcd-ca", ca, "--etcd-cert", cert, "--etcd-key", key];
    both_get_in(&etcd, &login, &login).await;
}
