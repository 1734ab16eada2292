//! `pointsman traefik-config`: a real Traefik starts with everything that it prints.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::support::pointsman::{Finished, pointsman};
use crate::support::process::{free_port, program};
use crate::support::servers::{OpenWebsocket, PathServer};
use crate::support::traefik::Traefik;
use crate::support::wait::{eventually, http_get};

/// One Traefik's ports, and a folder for its files.
struct Place {
    folder: tempfile::TempDir,
    public: u16,
    private: u16,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), public: free_port(), private: free_port() }
    }

    /// Runs traefik-config for these ports; etcd need not be there for Traefik to start.
    fn traefik_config(&self, args: &[&str]) -> Finished {
        let api = format!("http://127.0.0.1:{}", self.private);
        let port = self.public.to_string();
        let mut all = vec!["traefik-config", "--traefik-api", &api, "--ip", "127.0.0.1", "--port", &port];
        if !args.contains(&"--etcd-endpoints") {
            all.extend(["--etcd-endpoints", "http://127.0.0.1:1"]);
        }
        all.extend(args);
        let traefik = program("traefik");
        let path = traefik.parent().expect("a folder").display().to_string();
        let finished = pointsman(&all, &[("PATH", &path)]);
        assert_eq!(finished.code, 0, "{args:?}: {finished:?}");
        finished
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a file in our folder");
        path
    }

    /// Traefik starts with the file, and its users' entry point answers.
    async fn starts(&self, file: &Path) -> Traefik {
        let traefik = Traefik::start(file, self.private, self.folder.path()).await;
        serves_nothing(self.public, "/").await;
        let log = traefik.process.log();
        assert!(!log.contains("aliasHeadersStrategy is not configured"), "an entry point lacks the option:\n{log}");
        traefik
    }
}

/// A Traefik without routes answers 404 on that port.
async fn serves_nothing(port: u16, path: &str) {
    let url = format!("http://127.0.0.1:{port}{path}");
    eventually("the entry point for users", Duration::from_secs(10), || async {
        match http_get(&url).await? {
            (404, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o777
}

#[tokio::test]
async fn traefik_starts_with_what_is_printed() {
    let place = Place::new();
    let file = place.file("traefik.yaml", &place.traefik_config(&[]).stdout);
    let traefik = place.starts(&file).await;
    let (_, overview) = http_get(&format!("{}/api/overview", traefik.api)).await.unwrap();
    assert!(overview.contains(r#""providers":["Etcd"]"#), "{overview}");
    // Characters that Traefik can refuse reach the routes; here there are none, so 404 and not 400.
    for path in ["/%2F", "/%5C", "/%00", "/%3B", "/%25", "/%3F", "/%23", "/a//b"] {
        serves_nothing(place.public, path).await;
    }
    let (status, metrics) = http_get(&format!("{}/metrics", traefik.api)).await.unwrap();
    assert!(status == 200 && metrics.contains("traefik_config_reloads_total"), "{status} {metrics}");
    let (public_api, _) = http_get(&format!("http://127.0.0.1:{}/api/overview", place.public)).await.unwrap();
    assert_eq!(public_api, 404, "users must not reach Traefik's API");
}

#[tokio::test]
async fn traefik_starts_with_every_setting_at_once() {
    let place = Place::new();
    let second = free_port();
    let door = format!("web,other-door=127.0.0.1:{second}");
    let secret = place.file("password", "it's \"secret\": #\\ \u{e9}\n");
    let authority = place.file("ca.pem", &certificate());
    let arguments = [
        "--entry-point",
        &door,
        "--trusted-ips",
        "10.0.0.0/8,fd00::/8",
        "--etcd-endpoints",
        "https://127.0.0.1:1,https://[::1]:1",
        "--etcd-ca",
        authority.to_str().unwrap(),
        "--etcd-user",
        "somebody",
        "--etcd-password-file",
        secret.to_str().unwrap(),
        "--traefik-root-key",
        "a.b/c_d-e",
        "--log-level",
        "debug",
        "--log-format",
        "json",
        "--grace-seconds",
        "0",
        "--dir",
        place.folder.path().to_str().unwrap(),
    ];
    let said = place.traefik_config(&arguments).stdout;
    assert!(said.contains("traefik.yaml for Traefik 3."), "{said}");
    let file = place.folder.path().join("traefik.yaml");
    assert_eq!(mode(&file), 0o600, "it holds a password");
    let _traefik = place.starts(&file).await;
    serves_nothing(second, "/").await;
}

#[tokio::test]
async fn an_older_release_is_written_for_without_newer_options() {
    let place = Place::new();
    let older = place.traefik_config(&["--traefik-version", "3.7.11"]).stdout;
    assert!(older.contains("for Traefik 3.7.11") && !older.contains("aliasHeaders"), "{older}");
    // Without the option the newest one starts too; it only warns.
    let file = place.file("traefik.yaml", &older);
    Traefik::start(&file, place.private, place.folder.path()).await;
}

#[tokio::test]
async fn the_folder_holds_a_certificate_that_is_kept() {
    let place = Place::new();
    let folder = place.folder.path().join("new/traefik");
    let arguments = ["--dir", folder.to_str().unwrap()];
    let said = place.traefik_config(&arguments).stdout;
    assert!(said.contains("default.crt is new"), "{said}");
    let (certificate, key) = (folder.join("dynamic/default.crt"), folder.join("dynamic/default.key"));
    assert_eq!([&folder, &folder.join("dynamic"), &key].map(|path| mode(path)), [0o700, 0o700, 0o600]);
    let before = (std::fs::read(&certificate).unwrap(), std::fs::read(&key).unwrap());

    let traefik = place.starts(&folder.join("traefik.yaml")).await;
    let overview = format!("{}/api/overview", traefik.api);
    eventually("the default certificate in Traefik", Duration::from_secs(10), || async {
        let (_, body) = http_get(&overview).await?;
        if body.contains(r#""certificates":{"total":1,"#) { Ok(()) } else { Err(body) }
    })
    .await;

    let said = place.traefik_config(&arguments).stdout;
    assert!(said.contains("was there and is kept"), "{said}");
    assert_eq!((std::fs::read(&certificate).unwrap(), std::fs::read(&key).unwrap()), before);
    let leftovers = std::fs::read_dir(folder.join("dynamic")).unwrap().count();
    assert_eq!(leftovers, 3, "certificate, key and the file that names them");

    std::fs::remove_file(&certificate).unwrap();
    let api = format!("http://127.0.0.1:{}", place.private);
    let essential = ["--etcd-endpoints", "http://127.0.0.1:1", "--traefik-api", &api];
    let refused = pointsman(&[&["traefik-config"][..], &essential, &arguments].concat(), &[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("default.key is there but"), "{refused:?}");
    assert_eq!(std::fs::read(&key).unwrap(), before.1, "a key without its certificate is not touched");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let essential = ["traefik-config", "--etcd-endpoints", "http://127.0.0.1:1"];
    for (args, sentence) in [
        (&["--traefik-api", "https://traefik.example.org/x"][..], "as --private-address 127.0.0.1:8099"),
        (
            &["--traefik-api", "http://127.0.0.1:8099", "--entry-point", "a,b"],
            "'b' needs an address; write --entry-point b=HOST:PORT",
        ),
        (
            &["--traefik-api", "http://127.0.0.1:8000", "--ip", "127.0.0.1"],
            "two entry points have the address 127.0.0.1:8000",
        ),
        (
            &["--traefik-api", "http://127.0.0.1:8099", "--traefik-version", "3.6.1", "--strict-versions"],
            "older than 3.7.9",
        ),
        (&["--traefik-api", "http://127.0.0.1:8099", "--insecure"], "stand in a second file; write both with --dir"),
    ] {
        let refused = pointsman(&[&essential[..], args].concat(), &[]);
        assert_eq!(refused.code, 64, "{args:?}: {refused:?}");
        assert!(refused.stderr.contains(sentence) && refused.stdout.is_empty(), "{args:?}: {refused:?}");
    }
}

#[test]
fn a_password_is_not_printed() {
    let place = Place::new();
    let secret = place.file("password", "hunter2");
    let user = ["--etcd-user", "me", "--etcd-password-file", secret.to_str().unwrap()];
    let printed = place.traefik_config(&user).stdout;
    assert!(printed.contains("username: \"me\"") && printed.contains("# fill in"), "{printed}");
    assert!(!printed.contains("hunter2"));
}

#[tokio::test]
async fn the_fallback_is_named_for_whoever_has_a_token_and_pages() {
    let place = Place::new();
    let token = place.file("token", "hunter2\n");
    let (token, pages) = (["--token-file", token.to_str().unwrap()], ["--pages-url", "http://127.0.0.1:1/"]);
    for (args, minds) in [(&token[..], false), (&pages[..], true)] {
        let printed = place.traefik_config(args);
        assert!(!printed.stdout.contains("/fallback"), "{printed:?}");
        assert_eq!(printed.stderr.contains("starts while etcd is away"), minds, "{printed:?}");
    }
    let printed = place.traefik_config(&[token, pages].concat()).stdout;
    assert!(printed.contains("endpoint: \"http://127.0.0.1:1/fallback\""), "{printed}");
    assert!(!printed.contains("hunter2"), "the key tells nothing about the token");
    let dir = place.folder.path().join("traefik");
    place.traefik_config(&[&token[..], &pages, &["--dir", dir.to_str().unwrap()]].concat());
    assert_eq!(mode(&dir.join("traefik.yaml")), 0o600, "it holds a key");
    let traefik = place.starts(&dir.join("traefik.yaml")).await;
    let (_, overview) = http_get(&format!("{}/api/overview", traefik.api)).await.unwrap();
    assert!(overview.contains(r#""HTTP""#) && overview.contains(r#""Etcd""#), "{overview}");
}

fn certificate() -> String {
    rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate").cert.pem()
}

#[test]
fn a_relay_takes_the_place_of_all_members() {
    let place = Place::new();
    let members = ["--etcd-endpoints", "https://a.example.org:2379,https://b.example.org:2379"];
    let finished = place.traefik_config(&[&members[..], &["--etcd-relay", "127.0.0.1:2377"]].concat());
    assert!(finished.stdout.contains("127.0.0.1:2377"), "{}", finished.stdout);
    assert!(!finished.stdout.contains("example.org"), "{}", finished.stdout);
    // What it speaks is still what the members speak.
    assert!(finished.stdout.contains("tls:"), "{}", finished.stdout);
}

/// A stopping Traefik takes new requests until balancers have heard of it, and carries on with what is open for longer.
#[tokio::test]
async fn a_stop_lets_new_requests_in_for_a_while_and_open_websockets_for_longer() {
    const ACCEPT: Duration = Duration::from_secs(2);
    const GRACE: Duration = Duration::from_secs(3);
    let (place, server) = (Place::new(), PathServer::start().await);
    let own = place.folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    let route = serde_json::json!({"http": {
        "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "all", "entryPoints": ["web"]}},
        "services": {"all": {"loadBalancer": {"servers": [{"url": server.url()}]}}},
    }});
    std::fs::write(own.join("route.yaml"), route.to_string()).unwrap();
    let (dir, own) = (place.folder.path().join("traefik"), own.display().to_string());
    let [accept, grace] = [ACCEPT, GRACE].map(|time| time.as_secs().to_string());
    let flags = ["--dir", dir.to_str().unwrap(), "--add-files", &own, "--accept-seconds", &accept];
    place.traefik_config(&[&flags[..], &["--grace-seconds", &grace]].concat());
    let mut traefik = Traefik::start(&dir.join("traefik.yaml"), place.private, place.folder.path()).await;
    let url = format!("http://127.0.0.1:{}/200", place.public);
    let answers = async || match http_get(&url).await? {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually("the route", Duration::from_secs(10), answers).await;
    let mut websocket = OpenWebsocket::open(place.public, "/ws").await;

    traefik.process.signal("TERM");
    let stopped = Instant::now();
    while stopped.elapsed() < ACCEPT.mul_f32(0.8) {
        answers().await.expect("a new request is answered");
    }
    eventually("the end of new requests", ACCEPT, || async {
        TcpStream::connect(("127.0.0.1", place.public)).await.map_or(Ok(()), |_| Err("connected".to_owned()))
    })
    .await;
    assert!(stopped.elapsed() >= ACCEPT, "new requests end after {:?}", stopped.elapsed());
    websocket.pong().await;
    assert!(!websocket.ends_within(GRACE / 2).await, "an open websocket ends after {:?}", stopped.elapsed());
    assert!(websocket.ends_within(GRACE).await, "an open websocket goes on for {:?}", stopped.elapsed());
    assert_eq!(traefik.process.end(Duration::from_secs(5)).await, 0, "{}", traefik.process.log());
}
