//! Somebody else writes among our keys: real etcd, real Traefik.

use std::time::Duration;

use crate::support::system::System;
use crate::support::wait::{eventually, http_get};

const PATIENCE: Duration = Duration::from_secs(20);

async fn put(system: &System, key: &str, value: &str) {
    system.etcd.client().await.put(key, value, None).await.expect("etcd answers");
}

async fn is_there(system: &System, key: &str) -> bool {
    !system.etcd.client().await.get(key, None).await.expect("etcd answers").kvs().is_empty()
}

/// The keys of the one router for `/user/jane`, without the last part.
async fn router_of_jane(system: &System) -> String {
    let options = etcd_client::GetOptions::new().with_prefix();
    let read = system.etcd.client().await.get("traefik/http/routers/", Some(options)).await.expect("etcd answers");
    let mut rules = read.kvs().iter().filter(|kv| kv.value_str().is_ok_and(|rule| rule.contains("/user/jane/")));
    let rule = rules.find(|kv| kv.key_str().is_ok_and(|key| key.ends_with("/rule"))).expect("a router for jane");
    rule.key_str().expect("text").trim_end_matches("/rule").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_key_is_named_and_left_alone() {
    let system = System::start(1).await;
    let pointsman = system.pointsman(&[]).await.ready().await;
    assert_eq!(pointsman.add("/", &system.backends.url(1)).await.0, 201);
    // Traefik can't read this, and takes no change of anybody any more.
    let poison = "traefik/http/routers/mine/priority";
    put(&system, poison, "high").await;
    eventually("it is named", PATIENCE, || async {
        let (status, body) = http_get(&format!("{}/readyz", pointsman.server.api)).await?;
        if status == 200 && body.contains(poison) && body.contains("--own-root-key") { Ok(()) } else { Err(body) }
    })
    .await;
    let (status, body) = pointsman.add("/user/jane", &system.backends.url(2)).await;
    assert!(status == 503 && body.contains(poison), "{status} {body}");
    assert!(is_there(&system, poison).await, "it isn't ours to remove");
    system.etcd.client().await.delete(poison, None).await.expect("etcd answers");
    eventually("changes go on", PATIENCE, || async {
        let (status, body) = pointsman.add("/user/jane", &system.backends.url(2)).await;
        if status == 201 { Ok(()) } else { Err(body) }
    })
    .await;
    system.leads_to("/user/jane/lab", 2).await.expect("routed");
    let (_, body) = http_get(&format!("{}/readyz", pointsman.server.api)).await.expect("an answer");
    assert!(!body.contains(poison), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_root_key_of_our_own_foreign_keys_go() {
    let system = System::start(1).await;
    put(&system, "traefik/http/routers/old/rule", "Path(`/old`)").await;
    let pointsman = system.pointsman(&["--own-root-key"]).await.ready().await;
    assert_eq!(pointsman.add("/", &system.backends.url(1)).await.0, 201);
    for key in ["traefik/http/routers/mine/priority", "traefik/nonsense", "traefik/http/services/x"] {
        put(&system, key, "high").await;
        eventually("it is gone", Duration::from_secs(5), || async {
            if is_there(&system, key).await { Err(key.to_owned()) } else { Ok(()) }
        })
        .await;
    }
    assert!(!is_there(&system, "traefik/http/routers/old/rule").await);
    eventually("changes go on", PATIENCE, || async {
        let (status, body) = pointsman.add("/user/jane", &system.backends.url(2)).await;
        if status == 201 { Ok(()) } else { Err(body) }
    })
    .await;
    system.leads_to("/user/jane/lab", 2).await.expect("routed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_keys_are_mended() {
    let system = System::start(1).await;
    let pointsman = system.pointsman(&[]).await.ready().await;
    assert_eq!(pointsman.add("/", &system.backends.url(1)).await.0, 201);
    assert_eq!(pointsman.add("/user/jane", &system.backends.url(2)).await.0, 201);
    let router = router_of_jane(&system).await;
    let service = router.replace("/routers/", "/services/");
    let mended = |what: &'static str| {
        let system = &system;
        async move {
            eventually(what, PATIENCE, || async { system.leads_to("/user/jane/lab", 2).await }).await;
        }
    };
    put(&system, &format!("{service}/loadbalancer/servers/0/url"), &system.backends.url(9)).await;
    eventually("it is noticed", Duration::from_secs(5), || async {
        let log = pointsman.server.process.log();
        if log.contains("Somebody other than Pointsman has changed") { Ok(()) } else { Err(log) }
    })
    .await;
    mended("the target").await;
    system.etcd.client().await.delete(format!("{router}/rule"), None).await.expect("etcd answers");
    mended("the rule").await;
    put(&system, &format!("{router}/priority"), "high").await;
    put(&system, "traefik/http/routers/root/priority", "high").await;
    eventually("changes go on", PATIENCE, || async {
        let (status, body) = pointsman.add("/user/joe", &system.backends.url(3)).await;
        if status == 201 { Ok(()) } else { Err(body) }
    })
    .await;
    mended("the priority").await;
    let marker = "traefik/http/middlewares/marker/headers/customResponseHeaders/X-Pointsman-Revision";
    put(&system, marker, "nonsense").await;
    eventually("the marker", PATIENCE, || async {
        let (status, body) = pointsman.add("/user/ann", &system.backends.url(4)).await;
        if status == 201 { Ok(()) } else { Err(body) }
    })
    .await;
    system.leads_to("/user/ann/lab", 4).await.expect("routed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_somebody_else_changes_is_followed() {
    let system = System::start(1).await;
    let pointsman = system.pointsman(&[]).await.ready().await;
    assert_eq!(pointsman.add("/", &system.backends.url(1)).await.0, 201);
    assert_eq!(pointsman.add("/user/jane", &system.backends.url(2)).await.0, 201);
    let key = "pointsman/hub/routes/user/jane";
    let read = system.etcd.client().await.get(key, None).await.expect("etcd answers");
    let record = read.kvs()[0].value_str().expect("text").replace(&system.backends.url(2), &system.backends.url(7));
    put(&system, key, &record).await;
    eventually("the new target", PATIENCE, || async { system.leads_to("/user/jane/lab", 7).await }).await;
    system.etcd.client().await.delete(key, None).await.expect("etcd answers");
    eventually("it is gone", PATIENCE, || async { system.leads_to("/user/jane/lab", 1).await }).await;
    put(&system, "pointsman/hub/notes", "buy milk").await;
    put(&system, key, "{}").await;
    eventually("both are named", PATIENCE, || async {
        let (status, body) = http_get(&format!("{}/readyz", pointsman.server.api)).await?;
        let names = body.contains("pointsman/hub/notes") && body.contains(key);
        if status == 200 && names { Ok(()) } else { Err(body) }
    })
    .await;
    assert_eq!(pointsman.add("/user/jane", &system.backends.url(2)).await.0, 201, "a new record replaces it");
}
