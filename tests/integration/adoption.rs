//! `--adopt-layout`: a tree that was written with other settings changes hands once, and not for ever.

use std::sync::Arc;
use std::time::Duration;

use pointsman::control::Settings;
use pointsman::store::memory::MemoryStore;
use pointsman::store::{SharedStore, Store as _};
use pointsman::traefik::fixed::MARKER_KEY;
use pointsman::traefik::marker::{LAYOUT, Marker};

use crate::control::{Replica, add, replica_with, settings, table};
use crate::support::fake_traefik::FakeTraefik;
use crate::support::system::{Pointsman, System};
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(20);

/// The settings that the tree's marker stands for, and how often it was written.
async fn owner(system: &System) -> (String, i64) {
    let key = "traefik/http/middlewares/marker/headers/customResponseHeaders/X-Pointsman-Revision";
    let read = system.etcd.client().await.get(key, None).await.expect("etcd answers");
    let marker = &read.kvs()[0];
    let digest = marker.value_str().expect("text").split(['.', '-']).nth(1).expect("a digest");
    (digest.to_owned(), marker.version())
}

async fn added(system: &System, pointsman: &Pointsman, path: &str, server: u16) {
    eventually("a route is added", PATIENCE, || async {
        let (status, body) = pointsman.add(path, &system.backends.url(server)).await;
        if status == 201 { Ok(()) } else { Err(body) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_may_adopt_a_tree_do_not_take_it_from_each_other_for_ever() {
    let system = System::start(1).await;
    let old = system.pointsman(&["--adopt-layout"]).await.ready().await;
    added(&system, &old, "/", 1).await;
    let (olds, _) = owner(&system).await;
    let new = system.pointsman(&["--adopt-layout", "--custom-header", "X-Site: new"]).await.ready().await;
    eventually("the new one has adopted it", PATIENCE, || async {
        let (now, _) = owner(&system).await;
        if now == olds { Err(now) } else { Ok(()) }
    })
    .await;
    let (_, before) = owner(&system).await;
    for user in 0..5 {
        added(&system, &new, &format!("/user/u{user}"), 2 + user).await;
        let (now, _) = owner(&system).await;
        assert_ne!(now, olds, "it was taken back after change {user}");
    }
    // What the other one is asked is recorded, and the owner of the tree brings it there.
    added(&system, &old, "/user/jane", 9).await;
    system.leads_to("/user/jane/lab", 9).await.expect("routed");
    let (now, written) = owner(&system).await;
    assert_ne!(now, olds, "it was taken back");
    assert!(written - before <= 20, "six changes have written the tree {} times", written - before);

    // Nobody is left who writes it.
    drop(new);
    added(&system, &old, "/user/joe", 8).await;
    assert_eq!(owner(&system).await.0, olds);
    system.leads_to("/user/joe/lab", 8).await.expect("routed");
}

/// A store, a Traefik, and replicas of several kinds on them.
struct Mixed {
    store: MemoryStore,
    traefik: FakeTraefik,
}

impl Mixed {
    async fn new() -> Self {
        let store = MemoryStore::new();
        let traefik = FakeTraefik::start(Arc::new(store.clone()), "traefik").await;
        Self { store, traefik }
    }

    fn adopting(&self, settings: Settings) -> Replica {
        let shared: SharedStore = Arc::new(self.store.clone());
        replica_with(shared, &[&self.traefik], Settings { adopt_layout: true, ..settings })
    }

    async fn marker(&self) -> Option<Marker> {
        let entry = self.store.get(&format!("traefik/{MARKER_KEY}")).await.expect("readable").entry?;
        Marker::parse(std::str::from_utf8(&entry.value).expect("text"))
    }

    async fn until_of(&self, settings: &Settings) {
        let expected = (settings.layout, settings.digest());
        eventually("that the tree changes hands", PATIENCE, || async {
            let now = self.marker().await;
            let is_so = now.as_ref().is_some_and(|now| (now.layout, &now.digest) == (expected.0, &expected.1));
            if is_so { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    }

    /// Nobody writes, for longer than it takes until somebody else's tree may be taken over.
    async fn rests(&self) {
        let revision = async || self.store.get("x").await.expect("readable").revision;
        // What is under way is finished in a moment; a tree that changes hands for ever never rests so long.
        eventually("rest", PATIENCE, || async {
            let before = revision().await;
            tokio::time::sleep(Duration::from_secs(4)).await;
            let now = revision().await;
            if now == before { Ok(()) } else { Err(format!("{before} became {now} though nothing was changed")) }
        })
        .await;
    }

    fn serves(&self, path: &str) -> Option<String> {
        self.traefik.target(&format!("PathPrefix(`{path}/`)||Path(`{path}`)"))
    }
}

async fn until_added(replica: &Replica, path: &str, port: u16) {
    eventually(path, PATIENCE, || async { add(replica, path, port).await.map_err(|error| error.to_string()) }).await;
}

/// Each with the flag, started at once: who has the tree in the end is chance, that there is an end is not.
#[tokio::test]
async fn replicas_of_two_settings_that_may_both_adopt_come_to_rest() {
    let mixed = Mixed::new().await;
    let [one, other] = ["web", "websecure"].map(|entry_point| mixed.adopting(settings(entry_point)));
    for (n, replica) in [&one, &other, &one, &other].into_iter().enumerate() {
        until_added(replica, &format!("/user/u{n}"), 1 + u16::try_from(n).expect("few")).await;
    }
    mixed.rests().await;
    for n in 0..4 {
        assert_eq!(mixed.serves(&format!("/user/u{n}")), Some(format!("http://127.0.0.1:{}", n + 1)));
    }
    assert_eq!(table(&one).await, table(&other).await);
    // Whoever has the tree goes away; the other one takes it, and keeps it.
    let digest = mixed.marker().await.expect("a tree").digest;
    let (gone, left) = if settings("web").digest() == digest { (one, other) } else { (other, one) };
    drop(gone);
    until_added(&left, "/user/late", 9).await;
    assert_ne!(mixed.marker().await.expect("a tree").digest, digest);
    assert_eq!(mixed.serves("/user/late").as_deref(), Some("http://127.0.0.1:9"));
    mixed.rests().await;
}

/// A way back in the wrong order: the older release is told to take over while the newer one still runs.
#[tokio::test]
async fn an_older_release_gets_the_tree_for_good_once_the_newer_one_is_gone() {
    let mixed = Mixed::new().await;
    let older = Settings { layout: LAYOUT - 1, ..settings("web") };
    let newer = mixed.adopting(settings("web"));
    until_added(&newer, "/user/jane", 1).await;
    let old = mixed.adopting(older.clone());
    until_added(&old, "/user/joe", 2).await;
    mixed.rests().await;
    mixed.until_of(&settings("web")).await;
    drop(newer);
    until_added(&old, "/user/ann", 3).await;
    mixed.until_of(&older).await;
    for (path, port) in [("/user/jane", 1), ("/user/joe", 2), ("/user/ann", 3)] {
        assert_eq!(mixed.serves(path), Some(format!("http://127.0.0.1:{port}")));
    }
    // And forward once more.
    let newer = mixed.adopting(settings("web"));
    mixed.until_of(&settings("web")).await;
    until_added(&newer, "/user/jim", 4).await;
    mixed.rests().await;
    mixed.until_of(&settings("web")).await;
}
