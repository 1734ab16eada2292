//! etcd goes away, and with it what Traefik and Pointsman need at their start: users notice as little as possible.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pointsman::api::auth::fallback_key;
use pointsman::api::pages::fallback::{KEY_HEADER, PATH};
use serde_json::Value;

use crate::support::process::free_port;
use crate::support::system::{Pointsman, System, TOKEN};
use crate::support::wait::{eventually, http_get};

/// Some Traefiks with pages, and where Pointsman keeps its snapshot.
struct World {
    system: System,
    pages: String,
    snapshot: PathBuf,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start(traefiks: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port().to_string();
        let pages = format!("http://127.0.0.1:{port}");
        let snapshot = folder.path().join("snapshot");
        let dir = snapshot.display().to_string();
        let flags = ["--pages-ip", "127.0.0.1", "--pages-port", &port, "--pages-url", &pages, "--snapshot-dir", &dir];
        Self { system: System::start_with(traefiks, &flags).await, pages, snapshot, _folder: folder }
    }

    async fn add(&self, pointsman: &Pointsman, path: &str, server: u16) {
        let (status, body) = pointsman.add(path, &self.system.backends.url(server)).await;
        assert_eq!(status, 201, "{path}: {body}");
    }

    /// Whether the Traefik serves what this provider gave it.
    async fn serves(&self, edge: usize, provider: &str) -> bool {
        let url = format!("{}/api/http/middlewares/marker@{provider}", self.system.edges[edge].traefik.api);
        matches!(http_get(&url).await, Ok((200, _)))
    }

    /// Waits until the Traefik has its routes from etcd and no others.
    async fn only_etcd(&self, edge: usize) {
        eventually("etcd's routes and no others", Duration::from_secs(60), || async {
            match (self.serves(edge, "etcd").await, self.serves(edge, "http").await) {
                (true, false) => Ok(()),
                other => Err(format!("etcd, http: {other:?}")),
            }
        })
        .await;
    }

    /// A write, as soon as one succeeds.
    async fn writes_again(&self, pointsman: &Pointsman, path: &str, server: u16) {
        eventually("a write", Duration::from_secs(40), || async {
            match pointsman.add(path, &self.system.backends.url(server)).await {
                (201, _) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// The document for Traefik, for who has this key.
    async fn ask(&self, key: Option<&str>) -> (u16, String) {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut request = client.get(format!("{}{PATH}", self.pages));
        if let Some(key) = key {
            request = request.header(KEY_HEADER, key);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }
}

fn key(token: &str) -> String {
    secrecy::ExposeSecret::expose_secret(&fallback_key(&token.into())).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traefik_that_restarts_without_etcd_gets_its_routes_from_us() {
    let mut world = World::start(2).await;
    let pointsman = world.system.pointsman(&[]).await.ready().await;
    world.add(&pointsman, "/user/jane", 2).await;
    world.add(&pointsman, "/user/jane/deep", 3).await;
    let dead = format!("http://127.0.0.1:{}", free_port());
    assert_eq!(pointsman.add("/user/dead", &dead).await.0, 201);
    eventually("nothing is offered", Duration::from_secs(10), || async {
        let (status, body) = world.ask(Some(&key(TOKEN))).await;
        if (status, body.as_str()) == (200, "{}") { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;

    world.system.etcd.members[0].kill();
    world.system.edges[0].restart().await;
    let begun = Instant::now();
    eventually("the routes", Duration::from_secs(20), || world.system.leads_to("/user/jane/lab", 2)).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "took {took:?}");
    world.system.leads_to("/user/jane/deep/x", 3).await.expect("the nested route");
    assert!(world.serves(0, "http").await && !world.serves(0, "etcd").await);
    for edge in [0, 1] {
        let gone = world.system.visit(edge, "/user/nobody").await;
        assert!(gone.status == 404 && gone.body.contains("<html"), "{edge}: {} {}", gone.status, gone.body);
        let dead = world.system.visit(edge, "/user/dead/lab").await;
        assert!(dead.status == 503 && dead.body.contains("Server not reachable"), "{edge}: {}", dead.status);
        assert_eq!(world.system.visit(edge, "/_chp_healthz").await.status, 200, "{edge}");
    }
    assert_eq!(pointsman.add("/user/eve", &world.system.backends.url(9)).await.0, 503);
    assert_eq!(pointsman.call("DELETE", "/user/jane", None).await.0, 503);
    let (status, stale, _) = pointsman.read("").await;
    assert_eq!((status, stale), (503, None), "old routes are only for who asks for them");
    let (status, stale, body) = pointsman.read("?stale=true").await;
    let routes: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, routes.as_object().expect("a table").len()), (200, 3));
    assert!(stale.expect("the header").parse::<u64>().expect("seconds") < 60);

    world.system.etcd.members[0].start();
    world.writes_again(&pointsman, "/user/jane", 4).await;
    world.system.leads_to("/user/jane/lab", 4).await.expect("acknowledged, so served everywhere");
    assert_eq!(pointsman.call("DELETE", "/user/jane/deep", None).await.0, 204);
    world.system.leads_to("/user/jane/deep/x", 4).await.expect("gone everywhere");
    world.only_etcd(0).await;
    world.system.leads_to("/user/jane/deep/x", 4).await.expect("still gone");
    world.add(&pointsman, "/user/bob", 5).await;
    world.system.leads_to("/user/bob", 5).await.expect("as ever");
    let log = world.system.edges[0].traefik.process.log();
    assert!(!log.contains("@http"), "Traefik complains of what we gave it:\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pointsman_that_starts_without_etcd_serves_from_its_snapshot() {
    let mut world = World::start(1).await;
    let mut pointsman = world.system.pointsman(&[]).await.ready().await;
    world.add(&pointsman, "/", 1).await;
    world.add(&pointsman, "/user/jane", 2).await;
    eventually("the snapshot", Duration::from_secs(10), || async {
        let text = std::fs::read_to_string(world.snapshot.join("routes.json")).map_err(|e| e.to_string())?;
        if text.contains("/user/jane") { Ok(()) } else { Err(text) }
    })
    .await;
    world.system.etcd.members[0].kill();
    pointsman.server.process.kill();
    world.system.edges[0].restart().await;
    let pointsman = world.system.pointsman(&[]).await;
    eventually("the routes", Duration::from_secs(20), || world.system.leads_to("/user/jane/lab", 2)).await;
    world.system.leads_to("/hub/login", 1).await.expect("the hub's route");
    assert_eq!(world.system.visit(0, "/_chp_healthz").await.status, 200);
    assert_eq!(http_get(&format!("{}/healthz", pointsman.server.api)).await.expect("an answer").0, 200);
    assert_eq!(http_get(&format!("{}/readyz", pointsman.server.api)).await.expect("an answer").0, 503);
    assert_eq!(pointsman.call("DELETE", "/user/jane", None).await.0, 503);
    let (status, stale, body) = pointsman.read("/user/jane?stale=true").await;
    assert!(status == 200 && stale.is_some() && body.contains(&world.system.backends.url(2)), "{status} {body}");
    // The list of all routes is not for everybody who reaches the pages.
    for wrong in [None, Some(TOKEN.to_owned()), Some(key("another"))] {
        assert_eq!(world.ask(wrong.as_deref()).await, (403, String::new()), "{wrong:?}");
    }
    assert_eq!(world.ask(Some(&key(TOKEN))).await.0, 200);

    // Restarted once more, it must not take away what it gave: Traefik keeps serving all the time.
    let mut first = pointsman;
    first.server.process.kill();
    let pointsman = world.system.pointsman(&[]).await;
    for _ in 0..40 {
        world.system.leads_to("/user/jane/lab", 2).await.expect("all the time");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    world.system.etcd.members[0].start();
    let pointsman = pointsman.ready().await;
    assert_eq!(pointsman.call("DELETE", "/user/jane", None).await.0, 204);
    world.system.leads_to("/user/jane/lab", 1).await.expect("gone");
    world.only_etcd(0).await;
    world.system.leads_to("/user/jane/lab", 1).await.expect("still gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_written_is_named_and_no_reason_to_stop() {
    let system = System::start(1).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let dir = file.join("snapshot").display().to_string();
    let pointsman = system.pointsman(&["--snapshot-dir", &dir]).await.ready().await;
    assert_eq!(pointsman.add("/user/jane", &system.backends.url(2)).await.0, 201);
    eventually("the warning", Duration::from_secs(10), || async {
        let log = pointsman.server.process.log();
        if log.contains("look at --snapshot-dir") && log.contains(&dir) { Ok(()) } else { Err(log) }
    })
    .await;
}
