//! Members of etcd, as the chart's `StatefulSet` has them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use testcontainers::core::{ImageExt as _, Mount};

use crate::http;
use crate::part::Part;
use crate::settings::{USER, etcd_image, generic, restricted};
use crate::stage::Stage;
use crate::wait::eventually;

const CLIENT_PORT: u16 = 2379;

fn host(stage: &Stage, number: usize) -> String {
    stage.host(&format!("etcd-{number}"))
}

/// What `--etcd-endpoints` says of so many members.
pub(crate) fn endpoints(stage: &Stage, members: usize) -> String {
    let urls: Vec<String> =
        (0..members).map(|number| format!("http://{}:{CLIENT_PORT}", host(stage, number))).collect();
    urls.join(",")
}

/// Starts so many members, and waits until all are well.
pub(crate) async fn start(stage: &Arc<Stage>, members: usize) -> Vec<Part> {
    let peers: Vec<String> = (0..members).map(|n| format!("etcd-{n}=http://{}:2380", host(stage, n))).collect();
    let mut parts = Vec::new();
    for number in 0..members {
        let host = host(stage, number);
        let command = [
            "/usr/local/bin/etcd".to_owned(),
            format!("--name=etcd-{number}"),
            "--data-dir=/data/etcd".to_owned(),
            format!("--listen-client-urls=http://0.0.0.0:{CLIENT_PORT}"),
            format!("--advertise-client-urls=http://{host}:{CLIENT_PORT}"),
            "--listen-peer-urls=http://0.0.0.0:2380".to_owned(),
            format!("--initial-advertise-peer-urls=http://{host}:2380"),
            format!("--initial-cluster={}", peers.join(",")),
            "--initial-cluster-state=new".to_owned(),
            "--max-txn-ops=1024".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        let request = restricted(generic(&etcd_image()), USER)
            .with_cmd(command)
            .with_mount(Mount::volume_mount(stage.volume().await, "/data"));
        parts.push(Part::start(stage, &format!("etcd-{number}"), &[], request).await);
    }
    for part in &parts {
        wait_until_well(part).await;
    }
    parts
}

/// Waits until a member takes part in the majority.
pub(crate) async fn wait_until_well(part: &Part) {
    eventually(&format!("{} is well", part.name()), Duration::from_secs(30), async || {
        let address = part.place().address().await.ok_or("it has no address")?;
        let answer = http::get(address, CLIENT_PORT, "/health", Duration::from_secs(2)).await?;
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    })
    .await;
}

/// The number of the member that leads.
pub(crate) async fn leader(parts: &[Part]) -> usize {
    for (number, part) in parts.iter().enumerate() {
        let url = format!("http://{}:{CLIENT_PORT}/v3/maintenance/status", part.address().await);
        let answer = http::client(Duration::from_secs(2)).post(url).body("{}").send().await.expect("an answer");
        let status: Value = answer.json().await.expect("JSON");
        if status["leader"] == status["header"]["member_id"] {
            return number;
        }
    }
    panic!("none of {} members of etcd says that it leads", parts.len());
}
