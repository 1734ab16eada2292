//! Our own Traefik as a child: what may happen to its process, its program and its files.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::certificates::{Authority, Signed};
use crate::support::http::{Server, echo};
use crate::support::one_machine::{OneMachine, kill};
use crate::support::pointsman::pointsman;
use crate::support::process::{free_port, program};
use crate::support::tls::TlsClient;
use crate::support::wait::eventually;

const SOON: Duration = Duration::from_secs(15);

/// A script in the place of Traefik, whose last line is this.
fn script(folder: &Path, last: &str) -> PathBuf {
    let path = folder.join("wrapper");
    let traefik = program("traefik").display().to_string();
    std::fs::write(&path, format!("#!/bin/sh\n{}\n", last.replace("TRAEFIK", &traefik))).expect("a script");
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("rights");
    path
}

/// A process that is killed at the end of a test that failed, too.
struct Survivor(u32);

impl Survivor {
    fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        stat.contains(" (traefik) ") && !stat.contains(" (traefik) Z")
    }
}

impl Drop for Survivor {
    fn drop(&mut self) {
        if self.is_alive() {
            kill(self.0);
        }
    }
}

/// As with capabilities in Traefik's file: the kernel's signal at the parent's death is gone.
#[tokio::test]
async fn a_traefik_that_outlives_a_killed_pointsman_is_ended_by_the_next_one() {
    let server = Server::start(|head| Some(echo(head))).await;
    let folder = tempfile::tempdir().unwrap();
    let wrapper = script(folder.path(), "exec setpriv --pdeathsig clear -- TRAEFIK \"$@\"");
    let wrapper = wrapper.to_str().unwrap();
    let machine = OneMachine::start_in(folder, &["--traefik-binary", wrapper], &[]).await;
    machine.add("/", &format!("http://{}", server.address)).await;
    let survivor = Survivor(machine.traefik().expect("it runs"));
    let OneMachine { mut process, public, folder, .. } = machine;
    process.kill();
    // It has our port, and goes on.
    let users = std::net::SocketAddr::from(([127, 0, 0, 1], public));
    assert_eq!(crate::support::http::ask(users, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n").await.status, 200);
    assert!(survivor.is_alive());

    let api = free_port();
    let [port, api_port] = [public, api].map(|port| port.to_string());
    let flags = ["--ip", "127.0.0.1", "--port", &port, "--api-ip", "127.0.0.1", "--api-port", &api_port];
    let flags = [&flags[..], &["--data-dir", "pointsman-data", "--traefik-binary", wrapper]].concat();
    let machine = OneMachine::begin_at((public, api), folder, &flags, &[]).await;
    machine.ready().await;
    assert!(!survivor.is_alive(), "{}", machine.process.log());
    assert!(
        machine.process.log().contains(&format!("ending it (process {})", survivor.0)),
        "{}",
        machine.process.log()
    );
    assert_eq!(machine.get("/x").await.status, 200);
    // One that ends by itself leaves nothing to end.
    let folder = machine.stop().await;
    let machine = OneMachine::start_in(folder, &[], &[]).await;
    assert!(!machine.process.log().contains("outlived"), "{}", machine.process.log());
    machine.stop().await;
}

#[tokio::test]
async fn removed_files_are_written_again_as_they_were() {
    let server = Server::start(|head| Some(echo(head))).await;
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority", folder.path());
    let mut pair = authority.sign("server");
    let flags = ["--ssl-key", "server-key.pem", "--ssl-cert", "server-cert.pem"];
    let machine = OneMachine::start_in(folder, &flags, &[]).await;
    machine.add("/", &format!("http://{}", server.address)).await;
    let (client, address) = (TlsClient::of(&authority.file), machine.public_address());
    let (client, log) = (&client, || machine.process.log());
    let log = &log;
    let shows = |pair: &Signed| {
        let expected = certificate(&pair.cert);
        async move {
            let shown = client.shown(address).await;
            match (shown.is_some_and(|shown| *shown == *expected), client.status(address, "/x").await) {
                (true, Some(200)) => Ok(()),
                other => Err(format!("{other:?}\n{}", log())),
            }
        }
    };
    let files = machine.file("pointsman-data/traefik");
    // Also a Traefik that dies meanwhile finds them.
    for dies in [false, true] {
        let written = || machine.process.log().matches("they are written again as they were").count();
        let before = written();
        // It may come back while it is being removed.
        assert!((0..10).any(|_| std::fs::remove_dir_all(&files).is_ok()), "{}", machine.process.log());
        if dies {
            machine.kill_traefik();
        }
        eventually("a word about the files", SOON, || async {
            if written() > before { Ok(()) } else { Err(machine.process.log()) }
        })
        .await;
        for name in ["traefik.yaml", "dynamic/pointsman.yaml", "certificates/ssl-cert.pem", "certificates/ssl-key.pem"]
        {
            assert!(files.join(name).is_file(), "{name}: {}", machine.process.log());
        }
        eventually("the same certificate, and the route", SOON, || shows(&pair)).await;
        // What comes later is seen too, although the folder that Traefik watched is gone.
        pair = authority.sign("server");
        eventually("the next certificate", SOON, || shows(&pair)).await;
    }
    machine.stop().await;
}

fn certificate(file: &Path) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_file(file).expect("a certificate").to_vec()
}

#[test]
fn a_script_that_does_not_become_traefik_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let wrapper = script(folder.path(), "TRAEFIK \"$@\"");
    let [port, api] = [free_port(), free_port()].map(|port| port.to_string());
    let data = folder.path().join("data");
    let flags = ["--ip", "127.0.0.1", "--port", &port, "--api-ip", "127.0.0.1", "--api-port", &api];
    let names = ["--traefik-binary", wrapper.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    let finished = pointsman(&[flags.as_slice(), &names].concat(), &[("PATH", "/usr/bin:/bin")]);
    let cause = format!("{} is a script: its last line must be `exec traefik \"$@\"`", wrapper.display());
    assert!(finished.code == 1 && finished.stderr.contains(&cause), "{finished:?}");
}
