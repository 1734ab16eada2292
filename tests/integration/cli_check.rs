//! `pointsman check`: a healthy system is told to be, and each fault is named, with what to do.

use std::path::Path;
use std::time::Duration;

use crate::support::etcd::Etcd;
use crate::support::pointsman::{Finished, Server, pointsman};
use crate::support::process::free_port;
use crate::support::traefik::Traefik;
use crate::support::wait::eventually;

const TOKEN: (&str, &str) = ("CONFIGPROXY_AUTH_TOKEN", "sesame");

/// etcd, Traefik and Pointsman, with one route.
struct System {
    _folder: tempfile::TempDir,
    etcd: Etcd,
    traefik: Traefik,
    pointsman: Server,
    public: u16,
    pages: u16,
}

impl System {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let etcd = Etcd::start().await;
        let (public, pages) = (free_port(), free_port());
        let traefik = traefik_for(&etcd, public, &[], folder.path()).await;
        let pages_url = format!("http://127.0.0.1:{pages}");
        let pages_port = pages.to_string();
        let arguments = ["--etcd-endpoints", etcd.endpoint(), "--traefik-api", &traefik.api];
        let arguments = [&arguments[..], &["--pages-url", &pages_url, "--pages-port", &pages_port]].concat();
        let pointsman = Server::start(&arguments, &[TOKEN], folder.path()).await;
        let system = Self { _folder: folder, etcd, traefik, pointsman, public, pages };
        system.add_route("/").await;
        system
    }

    async fn add_route(&self, path: &str) {
        let url = format!("{}/api/routes{path}", self.pointsman.api);
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        eventually("a route", Duration::from_secs(20), || async {
            let call = client.post(&url).header("Authorization", "token sesame");
            let answer = call.body(r#"{"target":"http://127.0.0.1:9"}"#).send().await.map_err(|e| e.to_string())?;
            let status = answer.status().as_u16();
            let body = answer.text().await.unwrap_or_default();
            if status == 201 { Ok(()) } else { Err(format!("{status} {body}")) }
        })
        .await;
    }

    /// Checks the system as it is configured, but for what `changes` say.
    fn check(&self, changes: &[(&str, &str)], environment: &[(&str, &str)]) -> Finished {
        let (_, api_port) = self.pointsman.api.rsplit_once(':').expect("a port");
        let pages = self.pages.to_string();
        let pages_url = format!("http://127.0.0.1:{pages}");
        let mut settings = vec![
            ("--etcd-endpoints", self.etcd.endpoint()),
            ("--traefik-api", &self.traefik.api),
            ("--api-ip", "127.0.0.1"),
            ("--api-port", api_port),
            ("--pages-url", &pages_url),
            ("--pages-port", &pages),
        ];
        settings.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        settings.extend(changes);
        let arguments: Vec<&str> = settings.iter().flat_map(|(name, value)| [*name, *value]).collect();
        pointsman(&[&["check"], &arguments[..]].concat(), environment)
    }
}

/// A Traefik with what `traefik-config` prints for it.
async fn traefik_for(etcd: &Etcd, public: u16, more: &[&str], folder: &Path) -> Traefik {
    let private = free_port();
    let (api, port) = (format!("http://127.0.0.1:{private}"), public.to_string());
    let arguments = ["traefik-config", "--etcd-endpoints", etcd.endpoint(), "--traefik-api", &api];
    let arguments = [&arguments[..], &["--ip", "127.0.0.1", "--port", &port], more].concat();
    let printed = pointsman(&arguments, &[]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let file = folder.join(format!("traefik-{private}.yaml"));
    std::fs::write(&file, printed.stdout).expect("a file");
    Traefik::start(&file, private, folder).await
}

/// Asserts on a check's exit code and words.
#[track_caller]
fn says(finished: &Finished, code: i32, sentences: &[&str]) {
    assert_eq!(finished.code, code, "{}{}", finished.stdout, finished.stderr);
    for sentence in sentences {
        assert!(finished.stdout.contains(sentence), "it does not say {sentence:?}:\n{}", finished.stdout);
    }
}

#[tokio::test]
async fn a_healthy_system_is_told_to_be_and_each_fault_in_it_is_named() {
    let system = System::start().await;
    let healthy = system.check(&[], &[TOKEN]);
    let good = [
        "serves our routes, up to change",
        "entry point 'web' is set as it should be",
        "ready",
        "the token is accepted",
        "nothing but our keys lies below 'traefik'",
        "answer (seen from here",
    ];
    says(&healthy, 0, &good);
    assert!(!healthy.stdout.contains("PROBLEM"), "{}", healthy.stdout);
    // Traefik's configuration was written without the token and the pages.
    says(&healthy, 0, &["warning  traefik", "its http provider is off"]);

    // An etcd of an old distribution is a warning, unless that is not good enough.
    let old = healthy.stdout.contains("is older than");
    let strict = system.check(&[], &[TOKEN, ("POINTSMAN_STRICT_VERSIONS", "yes")]);
    says(&strict, i32::from(old), &[]);
    assert_eq!(strict.stdout.contains("PROBLEM  etcd"), old, "{}", strict.stdout);

    // The API and its token.
    says(&system.check(&[], &[("CONFIGPROXY_AUTH_TOKEN", "other")]), 1, &["PROBLEM  api", "the token is refused"]);
    says(&system.check(&[], &[]), 1, &["it wants a token, and there is none here"]);
    let nobody = free_port().to_string();
    says(&system.check(&[("--api-port", &nobody)], &[TOKEN]), 0, &["warning  api", "pointsman does not run there"]);
    let public = system.public.to_string();
    let other = system.check(&[("--api-port", &public)], &[TOKEN]);
    says(&other, 1, &["something else answers there (status 503 for /api/)"]);

    // Traefik.
    let (away, users) = (format!("http://127.0.0.1:{nobody}"), format!("http://127.0.0.1:{public}"));
    says(&system.check(&[("--traefik-api", &away)], &[TOKEN]), 1, &["PROBLEM  traefik", "nobody listens there"]);
    says(&system.check(&[("--traefik-api", &users)], &[TOKEN]), 1, &["no answer from Traefik's API"]);
    let doors = system.check(&[("--entry-point", "web,side")], &[TOKEN]);
    says(&doors, 1, &["has no entry point 'side' (it has: traefik, web)", "were written with other settings"]);

    // The root key: ours is wrong, and then Traefik's.
    let wrong = system.check(&[("--traefik-root-key", "other")], &[TOKEN]);
    says(&wrong, 1, &["which is not in our etcd below 'other': it reads another root key"]);
    let folder = tempfile::tempdir().unwrap();
    let strange = traefik_for(&system.etcd, free_port(), &["--traefik-root-key", "other"], folder.path()).await;
    let wrong = system.check(&[("--traefik-api", &strange.api)], &[TOKEN]);
    says(&wrong, 1, &["does not show the routes that are in etcd below 'traefik'"]);

    // Keys that are none of ours, also where only the raw text is the same.
    let mut etcd = system.etcd.client().await;
    for key in ["traefik/http/routers/mine/rule", "traefik2/x"] {
        etcd.put(key, "Path(`/`)", None).await.unwrap();
    }
    let foreign = system.check(&[], &[TOKEN]);
    says(&foreign, 0, &["warning  etcd", "traefik2/x, traefik/http/routers/mine/rule"]);
    // Also as the running Pointsman tells it.
    says(&foreign, 0, &["warning  api", "foreign keys: keys under --traefik-root-key that are none of ours"]);

    // Among the records.
    for key in ["pointsman/hub/notes", "pointsman/hub/routes/user/jane"] {
        etcd.put(key, "{}", None).await.unwrap();
    }
    let records = system.check(&[], &[TOKEN]);
    says(&records, 1, &["PROBLEM  etcd", "pointsman/hub/routes/user/jane (", "add each route again, or delete it"]);
    says(&records, 1, &["keys that are none of ours lie below 'pointsman/hub/': pointsman/hub/notes; remove them"]);
    let other = system.check(&[("--installation", "physics")], &[TOKEN]);
    says(&other, 1, &["PROBLEM  etcd", "without a name", "'physics'", "--installation"]);
}

#[tokio::test]
async fn a_dead_endpoint_and_a_dead_etcd_are_named() {
    let mut system = System::start().await;
    let dead = format!("http://127.0.0.1:{}", free_port());
    let both = format!("{dead},{}", system.etcd.endpoint());
    let one_dead = system.check(&[("--etcd-endpoints", &both)], &[TOKEN]);
    says(&one_dead, 1, &[&format!("PROBLEM  etcd {dead}"), "holds our routes"]);
    system.etcd.members[0].kill();
    let gone = system.check(&[], &[TOKEN]);
    says(&gone, 1, &[&format!("PROBLEM  etcd {}", system.etcd.endpoint()), "serves routes, up to change", "not ready"]);
}

#[tokio::test]
async fn a_wrong_login_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start().await;
    etcd.switch_logins_on("limited", "secret", "traefik").await;
    let file = folder.path().join("password");
    let essential = ["check", "--etcd-endpoints", etcd.endpoint(), "--traefik-api", "http://127.0.0.1:1"];
    let check = |user: &str, password: &str| {
        std::fs::write(&file, password).unwrap();
        let login = ["--etcd-user", user, "--etcd-password-file", file.to_str().unwrap()];
        pointsman(&[&essential[..], &login].concat(), &[])
    };
    says(&check("root", "secret"), 1, &["we may write pointsman/hub/head", "nobody listens there"]);
    says(&check("root", "wrong"), 1, &["PROBLEM  etcd", "--etcd-password-file"]);
    let limited = check("limited", "secret");
    says(
        &limited,
        1,
        &["we may not write pointsman/hub/head", "correct --etcd-user and its role", "we may write traefik/"],
    );
    says(&pointsman(&essential, &[]), 1, &["PROBLEM  etcd", "--etcd-user"]);
}
