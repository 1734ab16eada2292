//! The whole thing with real processes: what an operator would see.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::raw_http::RawClient;
use crate::support::system::System;
use crate::support::wait::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_means_that_every_traefik_routes_it() {
    let system = System::start(2).await;
    let pointsmen = [system.pointsman(&[]).await.ready().await, system.pointsman(&[]).await.ready().await];
    assert_eq!(pointsmen[0].add("/", &system.backends.url(1)).await.0, 201);
    // Changes through both replicas in turn; after each answer the very next request must be right, at both Traefiks.
    for i in 0..30u16 {
        let (replica, path) = (&pointsmen[usize::from(i) % 2], format!("/user/u{}", i % 4));
        if i % 5 == 4 {
            let status = replica.call("DELETE", &path, None).await.0;
            assert!(matches!(status, 204 | 404), "{status}");
            system.leads_to(&format!("{path}/lab"), 1).await.expect("gone everywhere");
        } else {
            assert_eq!(replica.add(&path, &system.backends.url(100 + i)).await.0, 201);
            system.leads_to(&format!("{path}/lab"), 100 + i).await.expect("routed everywhere");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_route_is_refused_and_nobody_else_notices() {
    let system = System::start(1).await;
    let pointsman = system.pointsman(&[]).await.ready().await;
    assert_eq!(pointsman.add("/", &system.backends.url(1)).await.0, 201);
    assert_eq!(pointsman.add("/user/jane", &system.backends.url(2)).await.0, 201);
    let long = format!("http://127.0.0.1/{}", "a".repeat(100_000));
    for (target, status, says) in [
        ("ftp://127.0.0.1:21", 400, "scheme 'ftp'"),
        ("http://", 400, "empty host"),
        ("http:///path", 400, "no host"),
        ("http://jane:secret@127.0.0.1:1", 400, "user name or password"),
        ("http://127.0.0.1:1\nX: y", 400, "character"),
        ("http://127.0.0.1:1/`)||Host(`x`)", 400, "character"),
        ("nonsense", 400, "not a URL"),
        (long.as_str(), 413, "bytes"),
    ] {
        let (got, body) = pointsman.add("/user/bad", target).await;
        assert!(got == status && body.contains(says), "{target:.40}: {got} {body}");
        assert!(!body.contains("secret"), "{body}");
    }
    // Names that would be syntax, if anything a user types could become syntax.
    for (i, name) in
        ["%60)||PathPrefix(%60", "%7B%7B.%7D%7D", "a%22b", "x%27%20OR", "___lock", "123"].iter().enumerate()
    {
        let server = 50 + u16::try_from(i).expect("few");
        assert_eq!(pointsman.add(&format!("/user/{name}"), &system.backends.url(server)).await.0, 201, "{name}");
        system.leads_to(&format!("/user/{name}/lab"), server).await.expect("routed");
    }
    assert_eq!(pointsman.add("/user/bob", &system.backends.url(3)).await.0, 201);
    for (path, server) in [("/", 1), ("/user/jane/lab", 2), ("/user/bob", 3), ("/user/bad", 1)] {
        system.leads_to(path, server).await.expect("goes on");
    }
    let log = system.edges[0].traefik.process.log();
    assert!(!log.contains("cannot decode") && !log.contains("invalid rule"), "Traefik complains:\n{log}");
}

/// A replica with other settings may write records only: so it dies, for sure, between the record and the keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_replica_began_another_one_finishes() {
    let system = System::start(1).await;
    let mut first = system.pointsman(&[]).await.ready().await;
    assert_eq!(first.add("/", &system.backends.url(1)).await.0, 201);
    first.server.process.kill();
    let mut half = system.pointsman(&["--entry-point", "web,other"]).await;
    let url = system.backends.url(2);
    let call = half.add("/user/jane", &url);
    let recorded = eventually("the record", Duration::from_secs(10), || async {
        let mut etcd = system.etcd.client().await;
        let record = etcd.get("pointsman/hub/routes/user/jane", None).await.map_err(|e| e.to_string())?;
        if record.kvs().is_empty() { Err("no record".to_owned()) } else { Ok(()) }
    });
    tokio::select! {
        (status, body) = call => panic!("answered {status} {body}, although no Traefik routes it"),
        () = recorded => {}
    }
    assert_eq!(system.visit(0, "/user/jane").await.body, "1", "not routed yet");
    half.server.process.kill();
    let begun = Instant::now();
    let _second = system.pointsman(&[]).await;
    eventually("the route", Duration::from_secs(10), || system.leads_to("/user/jane", 2)).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_survive_every_kind_of_restart() {
    let mut system = System::start(1).await;
    let mut pointsman = system.pointsman(&[]).await.ready().await;
    assert_eq!(pointsman.add("/", &system.backends.url(1)).await.0, 201);
    assert_eq!(pointsman.add("/user/jane", &system.backends.url(2)).await.0, 201);
    // Pointsman dies: users notice nothing, and its successor knows everything.
    pointsman.server.process.kill();
    system.leads_to("/user/jane/lab", 2).await.expect("served on");
    let pointsman = system.pointsman(&[]).await.ready().await;
    let table: Value = serde_json::from_str(&pointsman.call("GET", "", None).await.1).expect("JSON");
    assert_eq!(table["/user/jane"]["target"], system.backends.url(2));
    // Traefik dies, and comes back with the routes; an answer of ours waits for it.
    system.edges[0].restart().await;
    assert_eq!(pointsman.add("/user/bob", &system.backends.url(3)).await.0, 201);
    system.leads_to("/user/jane", 2).await.expect("back");
    system.leads_to("/user/bob", 3).await.expect("routed");
    // etcd dies: reads and writes are a passing fault, told soon; users notice nothing.
    system.etcd.members[0].kill();
    for (method, path) in [("GET", ""), ("GET", "/user/jane"), ("POST", "/user/eve"), ("DELETE", "/user/jane")] {
        let begun = Instant::now();
        let body = (method == "POST").then(|| r#"{"target":"http://127.0.0.1:1"}"#.to_owned());
        let (status, body) = pointsman.call(method, path, body).await;
        assert_eq!(status, 503, "{method} {path}: {body}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{method} {path} took {:?}", begun.elapsed());
    }
    system.leads_to("/user/jane", 2).await.expect("served on");
    system.etcd.members[0].start();
    eventually("writes", Duration::from_secs(20), || async {
        match pointsman.add("/user/eve", &system.backends.url(4)).await {
            (201, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    for (path, server) in [("/", 1), ("/user/jane", 2), ("/user/bob", 3), ("/user/eve", 4)] {
        system.leads_to(path, server).await.expect("nothing acknowledged is missing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_stands_for_all_its_traefiks() {
    let system = System::start(1).await;
    let port = system.edges[0].traefik.api.rsplit(':').next().expect("a port").to_owned();
    // Found by name only. `localhost` may also have an address where nobody listens: that one isn't waited for.
    let pointsman = system.pointsman_over(&[format!("dns://localhost:{port}")], &[]).await.ready().await;
    assert_eq!(pointsman.add("/user/jane", &system.backends.url(2)).await.0, 201);
    system.leads_to("/user/jane", 2).await.expect("routed");
}

/// A full table's worth of changes at once, through two replicas: all answered, all true, and one connection for users
/// beside that never sees a wrong answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_changes_at_once_disturb_nobody() {
    let system = System::start(1).await;
    let pointsmen = [system.pointsman(&[]).await.ready().await, system.pointsman(&[]).await.ready().await];
    assert_eq!(pointsmen[0].add("/", &system.backends.url(1)).await.0, 201);
    assert_eq!(pointsmen[0].add("/user/steady", &system.backends.url(2)).await.0, 201);
    let mut visitor = RawClient::connect(system.edges[0].public).await;
    let done = std::sync::atomic::AtomicBool::new(false);
    let visits = async {
        let mut visits = 0;
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            for (path, body) in [("/hub/login", "1"), ("/user/steady/lab", "2")] {
                let answer = visitor.get("hub.example.org", path).await;
                assert_eq!((answer.status, answer.body.as_str()), (200, body), "{path}");
            }
            visits += 2;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        visits
    };
    let changes = async {
        // Ten at a time through each, as two hubs would: enough for buckets to split.
        for round in 0..15u16 {
            let calls = (0..20u16).map(|i| {
                let (replica, number) = (&pointsmen[usize::from(i) % 2], round * 20 + i);
                let url = system.backends.url(1000 + number);
                async move { (number, replica.add(&format!("/user/student{number:03}"), &url).await) }
            });
            for (number, (status, body)) in futures_join(calls).await {
                assert_eq!(status, 201, "student{number}: {body}");
            }
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    let (visits, ()) = tokio::join!(visits, changes);
    assert!(visits > 100, "only {visits} visits");
    for number in (0..300u16).step_by(7) {
        system.leads_to(&format!("/user/student{number:03}"), 1000 + number).await.expect("routed");
    }
}

/// A Traefik that comes back while routes change may serve nothing yet, but never an old state after an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returning_traefik_serves_nothing_old() {
    let mut system = System::start(2).await;
    let pointsman = system.pointsman(&[]).await.ready().await;
    assert_eq!(pointsman.add("/", &system.backends.url(1)).await.0, 201);
    let mut returning = system.edges.pop().expect("the second Traefik");
    let public = returning.public;
    let done = std::sync::atomic::AtomicBool::new(false);
    let restarts = async {
        for _ in 0..5 {
            returning.restart().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    let changes = async {
        let (mut asked, mut number) = (0, 100);
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            number += 1;
            match pointsman.add("/user/jane", &system.backends.url(number)).await {
                (201, _) => {}
                (503, _) => continue,
                other => panic!("{other:?}"),
            }
            let Some(mut visitor) = RawClient::try_connect(public).await else { continue };
            let Some(answer) = visitor.try_get("hub.example.org", "/user/jane/lab").await else { continue };
            // Without any configuration it answers 404 to everything.
            assert!(answer.status == 404 || answer.body == number.to_string(), "{} {}", answer.status, answer.body);
            asked += usize::from(answer.status != 404);
        }
        asked
    };
    let ((), asked) = tokio::join!(restarts, changes);
    assert!(asked > 20, "only {asked} answers to judge by");
}

/// Replicas are killed again and again while callers change routes through whichever is there. What was answered is true
/// at once, and still true at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_lose_and_revive_nothing() {
    let system = System::start(2).await;
    let steady = system.pointsman(&[]).await.ready().await;
    assert_eq!(steady.add("/", &system.backends.url(1)).await.0, 201);
    let mut victim = system.pointsman(&[]).await.ready().await;
    // What each route was last known to be: `None` is gone. A call without an answer may or may not have happened.
    let mut known: Vec<Vec<Option<u16>>> = vec![vec![None]; 6];
    let mut answered = 0;
    for round in 0..40u16 {
        let calls = (0..6u16).map(|i| {
            let through = if (round + i) % 2 == 0 { &steady } else { &victim };
            let number = 100 + round * 6 + i;
            let wanted = (round + i) % 3 != 0;
            let url = system.backends.url(number);
            async move {
                let body = wanted.then(|| format!(r#"{{"target":"{url}"}}"#));
                let method = if wanted { "POST" } else { "DELETE" };
                let status = through.try_call(method, &format!("/user/u{i}"), body).await.map(|(status, _)| status);
                (usize::from(i), wanted.then_some(number), status)
            }
        });
        let killed = async {
            // Somewhere in the middle of the calls, a little later each time.
            tokio::time::sleep(Duration::from_millis(u64::from(round % 8) * 4)).await;
            if round % 4 == 3 {
                victim.server.process.signal("KILL");
            }
        };
        let (results, ()) = tokio::join!(futures_join(calls), killed);
        for (i, now, status) in results {
            match status {
                Some(201 | 204 | 404) => {
                    known[i] = vec![now];
                    answered += 1;
                }
                Some(503) | None => known[i].push(now),
                Some(other) => panic!("a passing fault was answered {other}"),
            }
        }
        if round % 4 == 3 {
            victim = system.pointsman(&[]).await.ready().await;
        }
        for (i, possible) in known.iter().enumerate() {
            let [certain] = possible[..] else { continue };
            system.leads_to(&format!("/user/u{i}/lab"), certain.unwrap_or(1)).await.unwrap_or_else(|seen| {
                panic!("round {round}: {seen}, acknowledged was {certain:?}");
            });
        }
    }
    assert!(answered > 150, "only {answered} calls were answered: this proves little");
}

async fn futures_join<F: Future>(calls: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut calls: Vec<_> = calls.map(Box::pin).map(Some).collect();
    let mut outputs: Vec<Option<F::Output>> = calls.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (call, output) in calls.iter_mut().zip(&mut outputs) {
            if let Some(running) = call
                && let std::task::Poll::Ready(value) = running.as_mut().poll(context)
            {
                (*call, *output) = (None, Some(value));
            }
        }
        if calls.iter().all(Option::is_none) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
