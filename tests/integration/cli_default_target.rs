//! `--default-target`: it gives `/` a route at the start, and never takes one away.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::etcd::Etcd;
use crate::support::pointsman::{Server, pointsman};
use crate::support::process::free_port;
use crate::support::traefik::Traefik;
use crate::support::wait::{eventually, http_get};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_default_target_is_set_unless_there_is_a_route() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start().await;
    let (private, public) = (free_port(), free_port().to_string());
    let api = format!("http://127.0.0.1:{private}");
    let essential = ["--etcd-endpoints", etcd.endpoint(), "--traefik-api", &api];
    let printed =
        pointsman(&[&["traefik-config", "--ip", "127.0.0.1", "--port", &public], &essential[..]].concat(), &[]);
    let file = folder.path().join("traefik.yaml");
    std::fs::write(&file, printed.stdout).unwrap();
    let _traefik = Traefik::start(&file, private, folder.path()).await;
    let with = |target: &'static str| [&essential[..], &["--default-target", target]].concat();

    // Its record is that of configurable-http-proxy: a target, and nothing that the hub would take for its own.
    let mut first = Server::start(&with("http://127.0.0.1:9/first"), &[], folder.path()).await;
    // When it was last used is told as soon as it is known.
    let bare = |body: &str| {
        let mut table: Value = serde_json::from_str(body).expect("JSON");
        table.as_object_mut().expect("a table").values_mut().for_each(|route| {
            route.as_object_mut().expect("a record").remove("last_activity");
        });
        table
    };
    let wanted = json!({"/": {"target": "http://127.0.0.1:9/first"}});
    let routes = format!("{}/api/routes", first.api);
    eventually("the default target", SOON, || async {
        match http_get(&routes).await? {
            (200, body) if bare(&body) == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    first.process.signal("TERM");
    assert_eq!(first.process.end(SOON).await, 0, "{}", first.process.log());

    let second = Server::start(&with("http://127.0.0.1:9/second"), &[], folder.path()).await;
    eventually("the second one's word on it", SOON, || async {
        let log = second.process.log();
        if log.contains("'/' has a route already") { Ok(()) } else { Err(log) }
    })
    .await;
    let (status, body) = http_get(&format!("{}/api/routes", second.api)).await.unwrap();
    assert_eq!((status, bare(&body)), (200, wanted));
}

#[tokio::test]
async fn without_a_store_the_default_target_waits() {
    let folder = tempfile::tempdir().unwrap();
    let away = ["--etcd-endpoints", "http://127.0.0.1:1", "--traefik-api", "http://127.0.0.1:3"];
    let target = ["--default-target", "http://127.0.0.1:9"];
    let mut server = Server::start(&[&away[..], &target].concat(), &[], folder.path()).await;
    eventually("a complaint", SOON, || async {
        let log = server.process.log();
        if log.contains("The default target can't be set yet") { Ok(()) } else { Err(log) }
    })
    .await;
    server.process.signal("TERM");
    assert_eq!(server.process.end(SOON).await, 0, "{}", server.process.log());
}
