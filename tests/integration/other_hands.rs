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

/// A key that is no text can't be removed by us: it is named, and not tried again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_no_text_is_named_and_does_no_harm() {
    let system = System::start(1).await;
    let pointsman = system.pointsman(&["--own-root-key"]).await.ready().await;
    assert_eq!(pointsman.add("/", &system.backends.url(1)).await.0, 201);
    let mut etcd = system.etcd.client().await;
    etcd.put(&b"traefik/notes/\xff"[..], "x", None).await.expect("etcd answers");
    put(&system, "traefik/notes/text", "x").await;
    eventually("the one is gone, and the other named", PATIENCE, || async {
        let (_, body) = http_get(&format!("{}/readyz", pointsman.server.api)).await?;
        if !is_there(&system, "traefik/notes/text").await && body.contains("traefik/notes/") {
            Ok(())
        } else {
            Err(body)
        }
    })
    .await;
    assert_eq!(pointsman.add("/user/jane", &system.backends.url(2)).await.0, 201);
    let marker = "traefik/http/middlewares/marker/headers/customResponseHeaders/X-Pointsman-Revision";
    let version = async || system.etcd.client().await.get(marker, None).await.expect("etcd answers").kvs()[0].version();
    let before = version().await;
    assert_eq!(pointsman.add("/user/joe", &system.backends.url(3)).await.0, 201);
    let written = version().await - before;
    assert!(written <= 4, "one change of ours has written Traefik's keys {written} times");
}

/// Names of ours in an empty tree, and both keys of the marker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_look_like_ours_are_removed_and_the_marker_is_mended() {
    let system = System::start(1).await;
    let pointsman = system.pointsman(&[]).await.ready().await;
    let (sentinel, bucket) = ("traefik/http/routers/sentinel/priority", "traefik/http/routers/aaaaaaaaaab/priority");
    for key in [sentinel, bucket] {
        put(&system, key, "high").await;
        eventually("it is gone", Duration::from_secs(5), || async {
            if is_there(&system, key).await { Err(key.to_owned()) } else { Ok(()) }
        })
        .await;
    }
    eventually("the first route", PATIENCE, || async {
        let (status, body) = pointsman.add("/", &system.backends.url(1)).await;
        if status == 201 { Ok(()) } else { Err(body) }
    })
    .await;
    put(&system, bucket, "high").await;
    eventually("it is gone", Duration::from_secs(5), || async {
        if is_there(&system, bucket).await { Err(bucket.to_owned()) } else { Ok(()) }
    })
    .await;
    let headers = "traefik/http/middlewares/marker/headers";
    let [shown, passed_on] =
        ["customResponseHeaders", "customRequestHeaders"].map(|kind| format!("{headers}/{kind}/X-Pointsman-Revision"));
    for key in [&passed_on, &shown] {
        system.etcd.client().await.delete(key.as_str(), None).await.expect("etcd answers");
        eventually("both are there again", Duration::from_secs(5), || async {
            let mut etcd = system.etcd.client().await;
            let mut value = async |key: &str| {
                etcd.get(key, None).await.expect("etcd answers").kvs().first().map(|kv| kv.value().to_vec())
            };
            let (one, other) = (value(&shown).await, value(&passed_on).await);
            if one.is_some() && one == other { Ok(()) } else { Err(format!("{one:?} {other:?}")) }
        })
        .await;
    }
    eventually("changes go on", PATIENCE, || async {
        let (status, body) = pointsman.add("/user/jane", &system.backends.url(2)).await;
        if status == 201 { Ok(()) } else { Err(body) }
    })
    .await;
}

/// Nothing is written over a head that can't be read; whoever looks is told which key it is, and what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_head_is_named_and_its_removal_heals() {
    let system = System::start(1).await;
    let pointsman = system.pointsman(&[]).await.ready().await;
    assert_eq!(pointsman.add("/", &system.backends.url(1)).await.0, 201);
    let head = "pointsman/hub/head";
    assert!(is_there(&system, head).await);
    put(&system, head, "nonsense").await;
    eventually("it is named", Duration::from_secs(5), || async {
        let (status, body) = http_get(&format!("{}/readyz", pointsman.server.api)).await?;
        if status == 503 && body.contains(head) && body.contains("remove that key") { Ok(()) } else { Err(body) }
    })
    .await;
    assert_eq!(pointsman.add("/user/jane", &system.backends.url(2)).await.0, 503);
    system.leads_to("/", 1).await.expect("users go on");
    system.etcd.client().await.delete(head, None).await.expect("etcd answers");
    eventually("changes go on", PATIENCE, || async {
        let (status, body) = pointsman.add("/user/jane", &system.backends.url(2)).await;
        if status == 201 { Ok(()) } else { Err(body) }
    })
    .await;
    system.leads_to("/user/jane/lab", 2).await.expect("routed");
    system.leads_to("/", 1).await.expect("the old route is still there");
}

/// Two hubs, each through a replica of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hubs_on_one_prefix_are_told_of() {
    let system = System::start(1).await;
    let replicas = [system.pointsman(&[]).await.ready().await, system.pointsman(&[]).await.ready().await];
    for round in 0..6 {
        let hub = round % 2;
        eventually("the hub has its way", PATIENCE, || async {
            let target = system.backends.url(1 + u16::try_from(hub).expect("few"));
            let (status, body) = replicas[hub].add("/", &target).await;
            if status == 201 { Ok(()) } else { Err(body) }
        })
        .await;
    }
    for replica in &replicas {
        eventually("it is told", Duration::from_secs(5), || async {
            let log = replica.server.process.log();
            let names = log.contains("The route / goes back and forth between") && log.contains("two JupyterHubs");
            if names { Ok(()) } else { Err(log) }
        })
        .await;
        let told = replica.server.process.log().matches("goes back and forth").count();
        assert_eq!(told, 1, "once in a while is enough");
    }
}
