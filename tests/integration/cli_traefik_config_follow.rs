//! `pointsman traefik-config --certificates followed`: a real Traefik serves each renewed certificate of a mounted Secret,
//! and never one that can't be used.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::support::certificates::{Authority, Signed};
use crate::support::pointsman::pointsman;
use crate::support::process::{Running, free_port};
use crate::support::tls::TlsClient;
use crate::support::traefik::Traefik;
use crate::support::wait::{eventually, http_get};

/// A mounted Secret: as kubelet does it, a renewal is a new folder, to which one link is turned, and the old one goes.
struct Secret {
    folder: PathBuf,
    renewals: usize,
}

impl Secret {
    fn new(folder: PathBuf) -> Self {
        std::fs::create_dir(&folder).expect("a new folder");
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), folder.join(name)).expect("a link");
        }
        Self { folder, renewals: 0 }
    }

    fn renew(&mut self, cert: &Path, key: &Path) {
        self.renewals += 1;
        let name = format!("..2026_{}", self.renewals);
        let fresh = self.folder.join(&name);
        std::fs::create_dir(&fresh).expect("a new folder");
        std::fs::copy(cert, fresh.join("tls.crt")).expect("a copy");
        std::fs::copy(key, fresh.join("tls.key")).expect("a copy");
        let (link, turned) = (self.folder.join("..data"), self.folder.join("..data_tmp"));
        let before = std::fs::read_link(&link);
        symlink(&name, &turned).expect("a link");
        std::fs::rename(&turned, &link).expect("a turned link");
        if let Ok(before) = before {
            std::fs::remove_dir_all(self.folder.join(before)).expect("the old folder");
        }
    }
}

/// A Traefik with its folder, and the settings that it was written with.
struct World {
    folder: tempfile::TempDir,
    authority: Authority,
    secret: Secret,
    public: u16,
    private: u16,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("authority", folder.path());
        let secret = Secret::new(folder.path().join("tls"));
        std::fs::create_dir(folder.path().join("own")).expect("a folder");
        let limit = "http:\n  middlewares:\n    limit:\n      rateLimit:\n        average: 100\n";
        std::fs::write(folder.path().join("own/limit.yaml"), limit).expect("a file");
        std::fs::write(folder.path().join("own/notes.txt"), "not for Traefik").expect("a file");
        Self { folder, authority, secret, public: free_port(), private: free_port() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn flags(&self, certificates: &str) -> Vec<String> {
        let mut flags = vec!["traefik-config".to_owned(), "--ip=127.0.0.1".to_owned()];
        flags.extend([
            "--etcd-endpoints=http://127.0.0.1:1".to_owned(),
            format!("--traefik-api=http://127.0.0.1:{}", self.private),
            format!("--port={}", self.public),
            format!("--ssl-cert={}", self.path("tls/tls.crt")),
            format!("--ssl-key={}", self.path("tls/tls.key")),
            format!("--dir={}", self.path("traefik")),
            format!("--add-files={}", self.path("own")),
            format!("--certificates={certificates}"),
        ]);
        flags
    }

    /// Starts what follows; its log is a new one.
    fn follow(&self) -> Running {
        let folder = tempfile::tempdir_in(self.folder.path()).expect("a folder").keep();
        Running::start(Path::new(env!("CARGO_BIN_EXE_pointsman")), &self.flags("followed"), &[], &folder)
    }

    /// Waits until this one is served. Meanwhile everybody gets an old one or this one, and nobody gets none.
    async fn serves(&self, wanted: &Signed) {
        let wanted = der(wanted);
        let (address, trusts) = (([127, 0, 0, 1], self.public).into(), TlsClient::of(&self.authority.file));
        eventually("the certificate", Duration::from_secs(20), || async {
            let shown = trusts.shown(address).await.expect("a certificate of the authority at any time");
            if shown == wanted { Ok(()) } else { Err("another one is served".to_owned()) }
        })
        .await;
    }
}

fn der(pair: &Signed) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&pair.cert).expect("a certificate")
}

/// Waits until the log has it so many times.
async fn says(process: &Running, text: &str, times: usize) {
    eventually(text, Duration::from_secs(20), || async {
        let log = process.log();
        if log.matches(text).count() == times { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test]
async fn every_renewal_is_served_and_what_cannot_be_used_never_is() {
    let mut world = World::new();
    let signed: Vec<Signed> = (0..7).map(|n| world.authority.sign(&format!("v{n}"))).collect();
    world.secret.renew(&signed[0].cert, &signed[0].key);
    let flags = world.flags("copied");
    let written = pointsman(&flags.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    assert_eq!(written.code, 0, "{written:?}");
    let file = world.folder.path().join("traefik/traefik.yaml");
    let traefik = Traefik::start(&file, world.private, world.folder.path()).await;
    eventually("the middleware", Duration::from_secs(10), || async {
        let (_, all) = http_get(&format!("{}/api/http/middlewares", traefik.api)).await?;
        if all.contains("limit@file") { Ok(()) } else { Err(all) }
    })
    .await;
    let copies: Vec<_> =
        std::fs::read_dir(world.path("traefik/dynamic")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(copies.len() == 2 && copies.contains(&"limit.yaml".into()), "{copies:?}");

    let mut follower = world.follow();
    world.serves(&signed[0]).await;
    for renewed in &signed[1..4] {
        world.secret.renew(&renewed.cert, &renewed.key);
        world.serves(renewed).await;
    }

    let stays = "The old certificates and keys stay in force";
    world.secret.renew(&signed[4].cert, &signed[3].key);
    says(&follower, stays, 1).await;
    world.serves(&signed[3]).await;
    let junk = world.folder.path().join("junk");
    std::fs::write(&junk, "no PEM").unwrap();
    world.secret.renew(&junk, &junk);
    says(&follower, stays, 2).await;
    world.serves(&signed[3]).await;
    world.secret.renew(&signed[4].cert, &signed[4].key);
    world.serves(&signed[4]).await;

    // It may be killed at any time, also while there is nothing good to copy.
    follower.kill();
    world.secret.renew(&junk, &signed[5].key);
    let mut follower = world.follow();
    says(&follower, stays, 2).await;
    world.serves(&signed[4]).await;
    world.secret.renew(&signed[5].cert, &signed[5].key);
    world.serves(&signed[5]).await;
    follower.signal("TERM");
    assert_eq!(follower.end(Duration::from_secs(5)).await, 0, "{}", follower.log());
}

#[test]
fn a_pair_that_does_not_fit_is_never_copied_and_names_are_kept_apart() {
    let mut world = World::new();
    let (one, other) = (world.authority.sign("one"), world.authority.sign("other"));
    world.secret.renew(&one.cert, &other.key);
    let run = |world: &World, certificates: &str| {
        let flags = world.flags(certificates);
        pointsman(&flags.iter().map(String::as_str).collect::<Vec<_>>(), &[])
    };
    for certificates in ["copied", "followed"] {
        let refused = run(&world, certificates);
        assert!(refused.code == 1 && refused.stderr.contains("it does not belong to the key"), "{refused:?}");
        assert!(!Path::new(&world.path("traefik/traefik.yaml")).exists());
    }
    world.secret.renew(&one.cert, &one.key);
    assert_eq!(run(&world, "copied").code, 0);
    std::fs::write(world.path("own/pointsman.yaml"), "").unwrap();
    let clash = run(&world, "copied");
    assert!(clash.code == 1 && clash.stderr.contains("has the name of our own file"), "{clash:?}");
    let loose = ["traefik-config", "--etcd-endpoints=http://a:1", "--traefik-api=http://b:1", "--certificates=copied"];
    let loose = pointsman(&loose, &[]);
    assert!(loose.code == 64 && loose.stderr.contains("--certificates: copies need a place"), "{loose:?}");
}
