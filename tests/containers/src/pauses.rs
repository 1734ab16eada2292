//! `docker pause`: whoever is held keeps its connections, and answers nobody.

use std::time::Duration;

use crate::cluster::{Cluster, DEFAULT};
use crate::members;
use crate::partitions::is_ready_only_with;
use crate::traffic::{GO_ON, Traffic};
use crate::wait::within;

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_etcd_that_hangs_stops_nothing() {
    within(Duration::from_secs(240), async {
        let cluster = Cluster::start(&DEFAULT).await;
        let traffic = Traffic::begin(&cluster).await;
        let leader = members::leader(&cluster.members).await;
        for number in [leader, (leader + 1) % 3] {
            cluster.members[number].pause().await;
            traffic.wait_for_changes(20, Duration::from_secs(20)).await;
            cluster.members[number].unpause().await;
            members::wait_until_well(&cluster.members[number]).await;
            traffic.wait_for_changes(10, Duration::from_secs(20)).await;
        }
        traffic.end_well(GO_ON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_go_on_without_a_traefik_that_hangs_and_it_comes_back_with_all_of_them() {
    within(Duration::from_secs(240), async {
        let cluster = Cluster::start(&DEFAULT).await;
        cluster.add("/user/moved", "a").await;
        let traffic = Traffic::begin(&cluster).await;
        let pod = &cluster.pods[1];
        traffic.harm_traefik(1);
        pod.traefik.pause().await;
        // The first change waits for the grace, the others for nothing.
        traffic.wait_for_changes(20, Duration::from_secs(20)).await;
        cluster.add("/user/moved", "b").await;
        pod.traefik.unpause().await;
        is_ready_only_with(pod, "/user/moved", "b").await;
        traffic.heal_traefik(1).await;
        traffic.wait_for_changes(20, Duration::from_secs(20)).await;
        // `--laggard-grace` is 6 s, and a call that ran into its limit was repeated.
        traffic.end_well(Duration::from_secs(10)).await;
    })
    .await;
}
