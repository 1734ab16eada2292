//! `--adopt-layout`: a tree that was written with other settings changes hands once, and not for ever.

use std::time::Duration;

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
