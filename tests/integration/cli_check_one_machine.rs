//! `pointsman check` without etcd: a healthy machine is told to be, and each fault is named, with what to do.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::support::pointsman::{Finished, Server, pointsman};
use crate::support::process::{free_port, program};
use crate::support::wait::{eventually, http_get};

const TOKEN: (&str, &str) = ("CONFIGPROXY_AUTH_TOKEN", "sesame");

/// The flags of one installation.
struct Machine {
    home: tempfile::TempDir,
    public: u16,
    api: u16,
}

impl Machine {
    fn new() -> Self {
        Self { home: tempfile::tempdir().expect("a folder"), public: free_port(), api: free_port() }
    }

    fn data(&self) -> std::path::PathBuf {
        self.home.path().join("data")
    }

    fn flags(&self) -> Vec<String> {
        let traefik = program("traefik");
        ["--ip", "127.0.0.1", "--port", &self.public.to_string(), "--api-ip", "127.0.0.1"]
            .into_iter()
            .chain(["--data-dir", text(&self.data()), "--traefik-binary", text(&traefik)])
            .map(str::to_owned)
            .collect()
    }

    fn check(&self, more: &[&str], environment: &[(&str, &str)]) -> Finished {
        let (flags, api) = (self.flags(), self.api.to_string());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        pointsman(&[&["check", "--api-port", &api], &flags[..], more].concat(), environment)
    }

    /// Starts it, and waits until its users are served.
    async fn start(&mut self, more: &[&str]) -> Server {
        let flags = self.flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let server = Server::start(&flags, &[TOKEN], self.home.path()).await;
        self.api = server.api.rsplit_once(':').expect("a port").1.parse().expect("a number");
        let readyz = format!("{}/readyz", server.api);
        eventually("readiness", Duration::from_secs(20), || async {
            match http_get(&readyz).await? {
                (200, _) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let call = client.post(format!("{}/api/routes/", server.api)).header("Authorization", "token sesame");
        let answer = call.body(r#"{"target":"http://127.0.0.1:9"}"#).send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        server
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Asserts on a check's exit code and words.
#[track_caller]
fn says(finished: &Finished, code: i32, sentences: &[&str]) {
    assert_eq!(finished.code, code, "{}{}", finished.stdout, finished.stderr);
    for sentence in sentences {
        assert!(finished.stdout.contains(sentence), "it does not say {sentence:?}:\n{}", finished.stdout);
    }
    assert!(!finished.stdout.contains("sesame"), "the token is told: {}", finished.stdout);
}

#[tokio::test]
async fn a_healthy_machine_is_told_to_be_and_faults_around_it_are_named() {
    let mut machine = Machine::new();
    let server = machine.start(&[]).await;
    let healthy = machine.check(&[], &[TOKEN]);
    let good = [
        "is held by a running pointsman (process ",
        "MB are free",
        "is release 3.",
        "ready",
        "the token is accepted",
        "Traefik answers with our health page",
        "routers work",
        "All is well.",
    ];
    says(&healthy, 0, &good);

    says(&machine.check(&[], &[("CONFIGPROXY_AUTH_TOKEN", "other")]), 1, &["PROBLEM  api", "the token is refused"]);
    let other = tempfile::tempdir().unwrap();
    let elsewhere = ["--data-dir", text(other.path())];
    says(&machine.check(&elsewhere, &[TOKEN]), 1, &["PROBLEM  folder", "holds another folder; correct --data-dir"]);
    let wrong = free_port().to_string();
    let lost = machine.check(&["--api-port", &wrong], &[TOKEN]);
    says(
        &lost,
        1,
        &["does not answer where the settings say; correct --api-ip and --api-port", "another program has it"],
    );
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = busy.local_addr().unwrap().port().to_string();
    drop(busy);
    says(&machine.check(&["--port", &silent], &[TOKEN]), 1, &["PROBLEM  users", "look at pointsman's log"]);
    std::fs::set_permissions(machine.data(), std::fs::Permissions::from_mode(0o755)).unwrap();
    says(&machine.check(&[], &[TOKEN]), 0, &["warning  folder", "others may look into it (mode 755)"]);
    drop(server);
}

#[tokio::test]
async fn what_a_start_would_meet_is_said_before_it() {
    let mut machine = Machine::new();
    let fresh = machine.check(&[], &[TOKEN]);
    says(
        &fresh,
        0,
        &["is not there yet; pointsman makes it at its first start", "is free for --port", "is free for --api-port"],
    );
    assert!(!machine.data().exists(), "the check has made the folder");

    let taken = TcpListener::bind(("127.0.0.1", machine.public)).unwrap();
    says(&machine.check(&[], &[TOKEN]), 1, &["another program has it ('ss -ltnp' names it)", "choose another --port"]);
    drop(taken);
    says(&machine.check(&["--traefik-binary", "/nowhere/traefik"], &[TOKEN]), 1, &["PROBLEM  traefik"]);
    says(&machine.check(&["--traefik-binary", "/bin/false"], &[TOKEN]), 1, &["does not say which release it is"]);
    let file = machine.home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let no_folder = machine.check(&["--data-dir", text(&file)], &[TOKEN]);
    says(&no_folder, 1, &["PROBLEM  folder", "it is not a folder", "correct --data-dir"]);

    let mut server = machine.start(&[]).await;
    server.process.kill();
    let stopped = machine.check(&[], &[TOKEN]);
    says(&stopped, 0, &["can be read, and holds 1 routes", "pointsman does not run there"]);
    let allow = |mode| std::fs::set_permissions(machine.data(), std::fs::Permissions::from_mode(mode)).unwrap();
    allow(0o770);
    says(&machine.check(&[], &[TOKEN]), 1, &["PROBLEM  folder", "other users may write", "chmod go-w"]);
    allow(0o700);
    std::fs::write(machine.data().join("routes.redb"), "rubbish").unwrap();
    says(&machine.check(&[], &[TOKEN]), 1, &["PROBLEM  folder", "is damaged"]);
}

/// A certificate that names itself, with its key, good in these years.
fn certificate(folder: &Path, name: &str, years: (i32, i32)) -> [String; 2] {
    let mut params = CertificateParams::new(["hub.example.org".to_owned()]).expect("parameters");
    (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    let pair = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&pair).expect("a certificate").pem();
    [("cert", pem), ("key", pair.serialize_pem())].map(|(kind, pem)| {
        let path = folder.join(format!("{name}.{kind}"));
        std::fs::write(&path, pem).expect("a file");
        path.display().to_string()
    })
}

#[tokio::test]
async fn certificates_are_looked_at_and_https_is_spoken() {
    let mut machine = Machine::new();
    let folder = machine.home.path().to_owned();
    let [cert, key] = certificate(&folder, "good", (2020, 2090));
    let [old, old_key] = certificate(&folder, "old", (2001, 2002));
    let [early, early_key] = certificate(&folder, "early", (2080, 2090));
    for (cert, key, sentence) in [
        (&old, &old_key, "it expired on 2002-01-01; renew it"),
        (&early, &early_key, "it is not good before 2080-01-01"),
        (&cert, &old_key, "does not belong to the key"),
    ] {
        says(&machine.check(&["--ssl-cert", cert, "--ssl-key", key], &[TOKEN]), 1, &["PROBLEM  certificate", sentence]);
    }
    let tls = ["--ssl-cert", &cert, "--ssl-key", &key];
    let server = machine.start(&tls).await;
    let healthy = machine.check(&tls, &[TOKEN]);
    says(
        &healthy,
        0,
        &["fits its key and is good until 2090-01-01", "users https://", "our health page", "All is well."],
    );
    drop(server);
}
