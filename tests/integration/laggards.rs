//! Traefiks that hang or no longer hear from etcd: whose probe fails, and what becomes of changes. With real ones.

use std::time::{Duration, Instant};

use crate::support::chaos_proxy::ChaosProxy;
use crate::support::process::free_port;
use crate::support::system::{Pointsman, System};
use crate::support::wait::{eventually, http_get};

/// Some Traefiks, each with a breakable way to etcd, and what Pointsman must be told so that their probes reach it.
struct World {
    system: System,
    ways: Vec<ChaosProxy>,
    pages: [String; 2],
}

impl World {
    async fn start(traefiks: usize) -> Self {
        let port = free_port().to_string();
        let mut system = System::start(0).await;
        let mut ways = Vec::new();
        for _ in 0..traefiks {
            let way = ChaosProxy::before(system.etcd.members[0].port).await;
            system.add_edge(&way.url()).await;
            ways.push(way);
        }
        Self { system, ways, pages: [port.clone(), format!("http://127.0.0.1:{port}")] }
    }

    /// A Pointsman that answers the probes. The shortest grace that there is, unless more flags say otherwise.
    async fn pointsman(&self, more: &[&str]) -> Pointsman {
        let [port, url] = &self.pages;
        let flags = ["--pages-ip", "127.0.0.1", "--pages-port", port, "--pages-url", url];
        let pointsman = self.system.pointsman(&[&flags, more].concat()).await.ready().await;
        assert_eq!(pointsman.add("/", &self.system.backends.url(1)).await.0, 201);
        pointsman
    }

    /// One more replica, which no probe reaches.
    async fn another(&self, more: &[&str]) -> Pointsman {
        let port = free_port().to_string();
        let flags = ["--pages-ip", "127.0.0.1", "--pages-port", &port, "--pages-url", &self.pages[1]];
        self.system.pointsman(&[&flags, more].concat()).await.ready().await
    }

    /// What a prober gets at one Traefik.
    async fn probe(&self, edge: usize) -> Result<(), String> {
        let answer = self.system.visit(edge, "/_chp_healthz").await;
        match answer.status {
            200 if answer.body == r#"{"status":"OK"}"# => Ok(()),
            status => Err(format!("{status} {}", answer.body)),
        }
    }

    fn url(&self, edge: usize) -> &str {
        &self.system.edges[edge].traefik.api
    }
}

async fn warnings(pointsman: &Pointsman) -> String {
    let (status, body) = http_get(&format!("{}/readyz", pointsman.server.api)).await.expect("an answer");
    assert_eq!(status, 200, "a laggard is no fault of ours: {body}");
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    body["warnings"]["laggards"].as_str().unwrap_or_default().to_owned()
}

fn count(pointsman: &Pointsman, text: &str) -> usize {
    pointsman.server.process.log().matches(text).count()
}

/// The answer comes in this time, as seconds.
async fn add_within(pointsman: &Pointsman, path: &str, target: String, from: u64, to: u64) -> u16 {
    let begun = Instant::now();
    let (status, body) = pointsman.add(path, &target).await;
    let took = begun.elapsed();
    let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
    assert!((from..to).contains(&took), "{path} took {took:?}: {status} {body}");
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_go_on_without_a_traefik_that_hangs_unless_they_are_to_wait() {
    let world = World::start(2).await;
    let going = world.pointsman(&["--laggard-grace", "8"]).await;
    let waiting = world.another(&["--laggard", "wait"]).await;
    let backend = |i| world.system.backends.url(i);
    let hung = &world.system.edges[1].traefik.process;
    hung.pause();

    let (first, waited) = tokio::join!(
        add_within(&going, "/user/a", backend(2), 6, 9),
        add_within(&waiting, "/user/b", backend(3), 6, 9)
    );
    assert_eq!((first, waited), (503, 503), "the grace is not over");
    assert_eq!(add_within(&going, "/user/a", backend(2), 0, 5).await, 201);
    for i in 10..15 {
        assert_eq!(add_within(&going, "/user/a", backend(i), 0, 2).await, 201);
    }
    assert_eq!(world.system.visit(0, "/user/a").await.body, "14");
    let warning = warnings(&going).await;
    assert!(warning.contains(world.url(1)) && warning.contains("go on without it"), "{warning}");
    assert_eq!(add_within(&waiting, "/user/b", backend(4), 6, 9).await, 503, "it is told to wait");
    assert_eq!(count(&waiting, "Changes go on without"), 0);

    hung.signal("CONT");
    eventually("no laggard", Duration::from_secs(20), || async {
        let warning = warnings(&going).await;
        if warning.is_empty() { Ok(()) } else { Err(warning) }
    })
    .await;
    world.system.leads_to("/user/a", 14).await.expect("it serves what it missed");
    assert_eq!(going.add("/user/a", &backend(20)).await.0, 201);
    world.system.leads_to("/user/a", 20).await.expect("it is waited for again");
    assert_eq!(count(&going, "Changes go on without the Traefik"), 1, "once per episode");
    assert_eq!(count(&going, "is up to date again"), 1, "{}", going.server.process.log());
    hung.pause();
    assert_eq!(add_within(&going, "/user/a", backend(21), 6, 9).await, 503, "a new episode has a grace of its own");
    hung.signal("CONT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traefik_cut_off_from_etcd_fails_its_probe_until_it_is_up_to_date() {
    let world = World::start(2).await;
    let metrics = free_port().to_string();
    let flags = ["--laggard-grace", "4", "--metrics-ip", "127.0.0.1", "--metrics-port", &metrics];
    let pointsman = world.pointsman(&flags).await;
    world.probe(1).await.expect("well");
    world.ways[1].stall();

    let begun = Instant::now();
    let target = world.system.backends.url(2);
    let change = pointsman.add("/user/a", &target);
    let withdrawn = async {
        eventually("a failing probe", Duration::from_secs(10), || async {
            world.probe(0).await.expect("the other one is well");
            match world.probe(1).await {
                Err(answer) if answer.starts_with("503 not ready: ") && answer.contains(" s behind") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        begun.elapsed()
    };
    let (change, withdrawn) = tokio::join!(change, withdrawn);
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&withdrawn), "after {withdrawn:?}");
    assert_eq!(change.0, 201, "{}", change.1);
    for i in 10..20 {
        assert_eq!(add_within(&pointsman, "/user/a", world.system.backends.url(i), 0, 2).await, 201);
        world.probe(1).await.expect_err("it is not up to date");
    }
    let page = http_get(&format!("http://127.0.0.1:{metrics}/metrics")).await.expect("metrics").1;
    let lag = format!("pointsman_traefik_lag_seconds{{traefik=\"{}\"}} ", world.url(1));
    let lag: f64 = page.lines().find_map(|line| line.strip_prefix(&lag)?.parse().ok()).expect("its lag");
    assert!(lag > 4.0, "{lag}");
    assert!(page.contains("pointsman_changes_without_laggard_total 11"), "{page}");

    // Its connections break, and it opens new ones. As soon as a probe succeeds it must have all that was answered.
    world.ways[1].cut().await;
    world.ways[1].mend().await;
    eventually("a probe that succeeds", Duration::from_secs(60), || world.probe(1)).await;
    assert_eq!(world.system.visit(1, "/user/a").await.body, "19");
    assert_eq!(pointsman.add("/user/a", &world.system.backends.url(30)).await.0, 201);
    world.system.leads_to("/user/a", 30).await.expect("everywhere");
    assert_eq!(count(&pointsman, "Changes go on without the Traefik"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_all_are_behind_or_there_is_only_one_nobody_is_a_laggard() {
    let case = async |traefiks: usize| {
        let world = World::start(traefiks).await;
        let pointsman = world.pointsman(&["--laggard-grace", "4"]).await;
        for way in &world.ways {
            way.stall();
        }
        // Longer than the grace, twice.
        for _ in 0..2 {
            let url = world.system.backends.url(2);
            assert_eq!(add_within(&pointsman, "/user/a", url, 6, 9).await, 503, "{traefiks} Traefiks");
            for edge in 0..traefiks {
                world.probe(edge).await.expect("nobody is ahead of it");
            }
        }
        assert_eq!((warnings(&pointsman).await.as_str(), count(&pointsman, "Changes go on without")), ("", 0));
    };
    tokio::join!(case(1), case(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pointsman_that_was_paused_withdraws_nobody_by_what_it_knew() {
    let world = World::start(2).await;
    let pointsman = world.pointsman(&["--laggard-grace", "4"]).await;
    // Somebody else who changes routes meanwhile.
    let other = world.another(&[]).await;
    pointsman.server.process.pause();
    for i in 2..40 {
        assert_eq!(other.add("/user/a", &world.system.backends.url(i)).await.0, 201);
        // Nobody answers for the one that is paused, and the probe succeeds all the same.
        if i % 10 == 0 {
            let answer = world.system.visit(0, "/_chp_healthz").await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }
    // The pause has to be longer than any evidence counts.
    tokio::time::sleep(Duration::from_secs(4)).await;
    pointsman.server.process.signal("CONT");
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        for edge in 0..2 {
            let answer = world.system.visit(edge, "/_chp_healthz").await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(pointsman.add("/user/a", &world.system.backends.url(50)).await.0, 201);
    world.system.leads_to("/user/a", 50).await.expect("everywhere");
    assert_eq!(count(&pointsman, "is behind the others"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routers_that_do_not_work_are_told_of() {
    let world = World::start(1).await;
    let mut etcd = world.system.etcd.client().await;
    for (field, value) in [("rule", "PathPrefix(`/user/x`)"), ("service", "nobody"), ("entryPoints", "web")] {
        etcd.put(format!("traefik/http/routers/broken/{field}"), value, None).await.expect("a key");
    }
    let metrics = free_port().to_string();
    let pointsman = world.pointsman(&["--metrics-ip", "127.0.0.1", "--metrics-port", &metrics]).await;
    let url = world.url(0);
    let series = format!("pointsman_traefik_router_errors{{traefik=\"{url}\"}} 1.0");
    eventually("the number of broken routers", Duration::from_secs(10), || async {
        let page = http_get(&format!("http://127.0.0.1:{metrics}/metrics")).await?.1;
        if page.contains(&series) { Ok(()) } else { Err(page) }
    })
    .await;
    assert_eq!(count(&pointsman, &format!("{url}/api/http/routers names them")), 1);
}
