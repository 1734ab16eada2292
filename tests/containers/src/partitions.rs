//! Parts are taken off the network and come back.

use std::time::Duration;

use reqwest::Method;

use crate::cluster::{Cluster, DEFAULT};
use crate::http::{self, Answer};
use crate::members;
use crate::pods::Pod;
use crate::traffic::{GO_ON, Traffic};
use crate::wait::{eventually, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_etcd_that_was_cut_off_is_one_of_the_majority_again() {
    within(Duration::from_secs(240), async {
        let cluster = Cluster::start(&DEFAULT).await;
        let traffic = Traffic::begin(&cluster).await;
        let leader = members::leader(&cluster.members).await;
        let other = (leader + 1) % 3;
        cluster.members[leader].cut_off().await;
        traffic.wait_for_changes(20, Duration::from_secs(20)).await;
        cluster.members[leader].reconnect().await;
        members::wait_until_well(&cluster.members[leader]).await;
        // Now a majority needs it.
        cluster.members[other].kill().await;
        traffic.wait_for_changes(20, Duration::from_secs(20)).await;
        cluster.members[other].revive().await;
        members::wait_until_well(&cluster.members[other]).await;
        traffic.end_well(GO_ON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pointsman_that_was_cut_off_is_ready_only_with_what_it_missed() {
    within(Duration::from_secs(240), async {
        let cluster = Cluster::start(&DEFAULT).await;
        let traffic = Traffic::begin(&cluster).await;
        let replica = &cluster.replicas[1];
        replica.cut_off().await;
        traffic.wait_for_changes(20, Duration::from_secs(20)).await;
        cluster.add("/user/missed", "b").await;
        replica.reconnect().await;
        eventually("it is ready again", Duration::from_secs(30), async || {
            let address = replica.place().address().await.ok_or("it has no address")?;
            match http::get(address, 8001, "/readyz", Duration::from_secs(1)).await? {
                Answer { status: 200, .. } => {}
                other => return Err(format!("{other:?}")),
            }
            let seen = http::call(address, Method::GET, "/api/routes/user/missed", None).await?;
            assert_eq!(seen.status, 200, "it said that it was ready, and then {seen:?}");
            Ok(())
        })
        .await;
        traffic.heal_replica(1).await;
        traffic.wait_for_changes(10, Duration::from_secs(20)).await;
        traffic.end_well(GO_ON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traefik_that_was_cut_off_is_ready_only_with_what_it_missed() {
    within(Duration::from_secs(240), async {
        let cluster = Cluster::start(&DEFAULT).await;
        cluster.add("/user/moved", "a").await;
        let traffic = Traffic::begin(&cluster).await;
        let pod = &cluster.pods[0];
        traffic.harm_traefik(0);
        pod.relay.cut_off().await;
        // For its first two seconds of lag a Traefik stays in rotation.
        traffic.goes_on_for(Duration::from_secs(4)).await;
        cluster.add("/user/moved", "b").await;
        pod.relay.reconnect().await;
        is_ready_only_with(pod, "/user/moved", "b").await;
        traffic.heal_traefik(0).await;
        traffic.wait_for_changes(20, Duration::from_secs(20)).await;
        // A Traefik that is on no network is in no DNS either, so it isn't waited for until the grace is over.
        traffic.end_well(GO_ON).await;
    })
    .await;
}

/// Waits until a Traefik that was away says that it is ready. It must lead right then to where the last change said.
pub(crate) async fn is_ready_only_with(pod: &Pod, path: &str, server: &str) {
    eventually("it is ready again", Duration::from_secs(30), async || {
        match pod.get("/_chp_healthz").await? {
            Answer { status: 200, .. } => {}
            other => return Err(format!("{other:?}")),
        }
        let seen = pod.leads_to(path).await;
        assert_eq!(seen, server, "{} said that it was ready, and then {path} led there", pod.traefik.name());
        Ok(())
    })
    .await;
}
