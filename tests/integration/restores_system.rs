//! Restores, wipes and standstills with real processes: etcd, Traefik and Pointsman.

use std::time::{Duration, Instant};

use crate::support::system::{Pointsman, System};
use crate::support::wait::eventually;

/// What is mended is mended within this time, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

async fn until_added(pointsman: &Pointsman, path: &str, target: &str) {
    eventually(path, PATIENCE, || async {
        match pointsman.add(path, target).await {
            (201, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn until_logged(pointsman: &Pointsman, words: &[&str]) {
    eventually(words[0], PATIENCE, || async {
        let log = pointsman.server.process.log();
        let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        if found { Ok(()) } else { Err(log) }
    })
    .await;
}

async fn missing(pointsman: &Pointsman) -> String {
    let url = format!("{}/readyz", pointsman.server.api);
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    client.get(url).send().await.expect("an answer").text().await.expect("a body")
}

/// etcd gets an older state of its data below two Traefiks and a Pointsman that go on running.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_restored_brings_nothing_back_unnoticed() {
    let mut system = System::start(2).await;
    let pointsman = system.pointsman(&["--allow-revision-bump"]).await.ready().await;
    assert_eq!(pointsman.add("/", &system.backends.url(1)).await.0, 201);
    assert_eq!(pointsman.add("/user/deleted", &system.backends.url(2)).await.0, 201);
    let backup = tempfile::tempdir().expect("a folder");
    system.etcd.members[0].kill();
    system.etcd.members[0].back_up(backup.path());
    system.etcd.members[0].start();
    until_added(&pointsman, "/user/lost", &system.backends.url(3)).await;
    assert_eq!(pointsman.call("DELETE", "/user/deleted", None).await.0, 204);
    for round in 0..20 {
        assert_eq!(pointsman.add("/user/busy", &system.backends.url(100 + round)).await.0, 201);
    }
    system.leads_to("/user/deleted", 1).await.expect("gone");

    system.etcd.members[0].kill();
    system.etcd.members[0].restore(backup.path());
    system.etcd.members[0].start();
    let restored = Instant::now();
    until_logged(&pointsman, &["ETCD WENT BACK IN TIME", "1 routes came back, 2 went away, 0 changed"]).await;
    until_added(&pointsman, "/user/new", &system.backends.url(4)).await;
    assert!(restored.elapsed() < Duration::from_secs(20), "changes are routed again within seconds");
    system.leads_to("/user/new", 4).await.expect("routed");
    system.leads_to("/user/lost", 1).await.expect("what was lost is lost everywhere");
    system.leads_to("/user/deleted", 2).await.expect("and what came back was told");
    assert_eq!(pointsman.call("DELETE", "/user/deleted", None).await.0, 204);
    system.leads_to("/user/deleted", 1).await.expect("gone again");
    let pointsman = pointsman.ready().await;
    assert_eq!(pointsman.server.process.log().matches("WENT BACK").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_etcd_is_filled_again_and_every_traefik_hears_it() {
    let mut system = System::start(1).await;
    let pointsman = system.pointsman(&["--allow-revision-bump"]).await.ready().await;
    for round in 0..30 {
        assert_eq!(pointsman.add("/user/jane", &system.backends.url(100 + round)).await.0, 201);
    }
    system.etcd.members[0].kill();
    system.etcd.members[0].wipe();
    system.etcd.members[0].start();
    until_logged(&pointsman, &["ETCD WAS WIPED", "1 went away"]).await;
    until_added(&pointsman, "/user/jane", &system.backends.url(5)).await;
    system.leads_to("/user/jane", 5).await.expect("routed");
    pointsman.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pointsman_that_stood_still_looks_before_it_says_that_it_is_ready() {
    let system = System::start(1).await;
    let pointsman = system.pointsman(&[]).await.ready().await;
    pointsman.server.process.pause();
    tokio::time::sleep(Duration::from_secs(4)).await;
    pointsman.server.process.signal("CONT");
    until_logged(&pointsman, &["stood still for"]).await;
    eventually("readiness", PATIENCE, || async {
        let missing = missing(&pointsman).await;
        if missing.contains("stood still") { Err(missing) } else { Ok(()) }
    })
    .await;
    let pointsman = pointsman.ready().await;
    assert_eq!(pointsman.add("/user/jane", &system.backends.url(2)).await.0, 201);
}
