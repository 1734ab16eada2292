//! A hub that adds and removes routes without end, and users who ask every ready Traefik without end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::http::{self, Answer};
use crate::users::Door;
use crate::wait::eventually;

/// Within which changes go on, whoever goes.
pub(crate) const GO_ON: Duration = Duration::from_secs(5);

/// The route that users ask for all the time. It leads to `a`.
const STEADY: &str = "/user/steady";
/// How many of the hub's routes live at a time.
const LIVING: u64 = 4;
const BETWEEN_REQUESTS: Duration = Duration::from_millis(20);
const BETWEEN_CHANGES: Duration = Duration::from_millis(50);
/// The hub repeats a call for as long.
const HUB_PATIENCE: Duration = Duration::from_secs(30);

/// What happened. A failure is a sentence.
#[derive(Debug, Default)]
pub(crate) struct Report {
    requests: u64,
    changes: u64,
    slowest_change: Duration,
    failures: Vec<String>,
}

struct Shared {
    doors: Vec<Arc<Door>>,
    replicas: Vec<Arc<Door>>,
    /// Where the paths lead that the hub has changed, as it was answered.
    acknowledged: Mutex<BTreeMap<String, String>>,
    targets: BTreeMap<&'static str, String>,
    report: Mutex<Report>,
    changes: AtomicU64,
    is_over: AtomicBool,
}

/// The traffic, until it is stopped.
pub(crate) struct Traffic {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    probes: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Begins, and waits until every Traefik and every Pointsman takes part.
    pub(crate) async fn begin(cluster: &Cluster) -> Self {
        cluster.add(STEADY, "a").await;
        let second = Duration::from_secs(1);
        let doors: Vec<_> = cluster
            .pods
            .iter()
            .map(|pod| Door::open(pod.traefik.name(), pod.relay.place(), (8000, "/_chp_healthz"), second))
            .collect();
        let replicas: Vec<_> = cluster
            .replicas
            .iter()
            .map(|part| Door::open(part.name(), part.place(), (8001, "/readyz"), second / 2))
            .collect();
        let targets = ["root", "a", "b"].map(|server| (server, cluster.target(server))).into();
        let probes = doors.iter().chain(&replicas).map(|door| tokio::spawn(Arc::clone(door).watch())).collect();
        let shared = Arc::new(Shared {
            doors,
            replicas,
            acknowledged: Mutex::default(),
            targets,
            report: Mutex::default(),
            changes: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        for door in shared.doors.iter().chain(&shared.replicas) {
            wait_until_in(door).await;
        }
        let mut workers: Vec<_> =
            shared.doors.iter().map(|door| tokio::spawn(users(Arc::clone(&shared), Arc::clone(door)))).collect();
        workers.push(tokio::spawn(hub(Arc::clone(&shared))));
        let traffic = Self { shared, workers, probes };
        traffic.wait_for_changes(5, Duration::from_secs(10)).await;
        traffic
    }

    /// Nobody counts on this Traefik from now on.
    pub(crate) fn harm_traefik(&self, number: usize) {
        self.shared.doors[number].harm();
    }

    /// Waits until users are sent to this Traefik again, and counts on it.
    pub(crate) async fn heal_traefik(&self, number: usize) {
        self.shared.doors[number].heal();
        wait_until_in(&self.shared.doors[number]).await;
    }

    /// Waits until calls are sent to this Pointsman again.
    pub(crate) async fn heal_replica(&self, number: usize) {
        self.shared.replicas[number].heal();
        wait_until_in(&self.shared.replicas[number]).await;
    }

    /// Waits for so many more changes of routes.
    pub(crate) async fn wait_for_changes(&self, more: u64, patience: Duration) {
        let before = self.shared.changes.load(Ordering::SeqCst);
        eventually(&format!("{more} more changes of routes"), patience, async || {
            let seen = self.shared.changes.load(Ordering::SeqCst) - before;
            if seen >= more { Ok(()) } else { Err(format!("{seen} changes, {:?}", self.shared.report.lock())) }
        })
        .await;
    }

    /// Waits until changes have gone on for so long.
    pub(crate) async fn goes_on_for(&self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            self.wait_for_changes(1, Duration::from_secs(10)).await;
        }
    }

    /// Where changed paths lead now, as the hub was told.
    pub(crate) fn acknowledged(&self) -> BTreeMap<String, String> {
        self.shared.acknowledged.lock().expect("nobody panics with it").clone()
    }

    /// Ends, asks all Traefiks once more for all routes, and judges: nothing failed, and no change took longer than this.
    pub(crate) async fn end_well(mut self, slowest_change: Duration) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.await.expect("it ends by itself");
        }
        for (path, server) in self.acknowledged() {
            for door in &self.shared.doors {
                check(&self.shared, door, &path, &server).await;
            }
        }
        let report = self.shared.report.lock().expect("nobody panics with it");
        println!(
            "{} requests, {} changes, the slowest took {:?}",
            report.requests, report.changes, report.slowest_change
        );
        assert!(report.failures.is_empty(), "{} failures:\n{}", report.failures.len(), report.failures.join("\n"));
        assert!(report.slowest_change <= slowest_change, "a change took {:?}", report.slowest_change);
        assert!(report.requests > 100 && report.changes > 20, "too little was tried to mean anything");
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for task in self.workers.iter().chain(&self.probes) {
            task.abort();
        }
    }
}

async fn wait_until_in(door: &Door) {
    eventually(&format!("{} is in rotation", door.name), Duration::from_secs(30), async || {
        door.way_in().map(|_| ()).ok_or_else(|| "it isn't".to_owned())
    })
    .await;
}

/// Users who ask one Traefik for the steady route, as long as a balancer sends them there.
async fn users(shared: Arc<Shared>, door: Arc<Door>) {
    while !shared.is_over.load(Ordering::SeqCst) {
        check(&shared, &door, STEADY, "a").await;
        tokio::time::sleep(BETWEEN_REQUESTS).await;
    }
}

/// One request through one Traefik, if it is counted on before and after.
async fn check(shared: &Shared, door: &Door, path: &str, server: &str) {
    let Some(address) = door.way_in().filter(|_| !door.is_victim()) else { return };
    let answer = http::get(address, 8000, path, Duration::from_secs(5)).await;
    if door.is_victim() {
        return;
    }
    let mut report = shared.report.lock().expect("nobody panics with it");
    report.requests += 1;
    match answer {
        Ok(Answer { status: 200, server: Some(seen), .. }) if seen == server => {}
        other => report.failures.push(format!("{path} through {} should lead to {server}: {other:?}", door.name)),
    }
}

/// The hub: adds routes, removes them, and looks after each answer whether users see the same.
async fn hub(shared: Arc<Shared>) {
    let mut number = 0;
    while !shared.is_over.load(Ordering::SeqCst) {
        number += 1;
        let server = if number % 2 == 0 { "a" } else { "b" };
        change(&shared, Method::POST, &format!("/user/n{number}"), server).await;
        if number > LIVING {
            change(&shared, Method::DELETE, &format!("/user/n{}", number - LIVING), "root").await;
        }
        tokio::time::sleep(BETWEEN_CHANGES).await;
    }
}

/// One change, repeated as the hub does it, and what every Traefik makes of it.
async fn change(shared: &Shared, method: Method, path: &str, server: &str) {
    let body = (method == Method::POST).then(|| json!({ "target": shared.targets[server] }));
    let began = Instant::now();
    let mut turn = 0;
    let refused = loop {
        match one_call(shared, turn, method.clone(), path, body.clone()).await {
            Ok(Answer { status: 200..=299, .. }) => break None,
            Ok(Answer { status: 404, .. }) if method == Method::DELETE && turn > 0 => break None,
            Ok(answer) if answer.status < 500 => break Some(format!("{answer:?}")),
            other if began.elapsed() > HUB_PATIENCE => break Some(format!("{other:?}")),
            _ => {}
        }
        turn += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    {
        let mut report = shared.report.lock().expect("nobody panics with it");
        report.changes += 1;
        report.slowest_change = report.slowest_change.max(began.elapsed());
        if let Some(answer) = refused {
            report.failures.push(format!("{method} {path} failed: {answer}"));
            return;
        }
    }
    shared.acknowledged.lock().expect("nobody panics with it").insert(path.to_owned(), server.to_owned());
    for door in &shared.doors {
        check(shared, door, path, server).await;
    }
    shared.changes.fetch_add(1, Ordering::SeqCst);
}

/// One call through a replica that is in rotation. A balancer cuts it when the replica leaves.
async fn one_call(
    shared: &Shared,
    turn: usize,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<Answer, String> {
    let ready: Vec<_> = shared.replicas.iter().filter_map(|door| Some((door, door.way_in()?))).collect();
    if ready.is_empty() {
        return Err("no Pointsman is ready".to_owned());
    }
    let (door, address) = ready[turn % ready.len()];
    let path = format!("/api/routes{path}");
    let left = async {
        while door.way_in() == Some(address) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        answer = http::call(address, method, &path, body) => answer,
        () = left => Err(format!("{} left the rotation", door.name)),
    }
}
