//! `docker kill` of one of each, under load.

use std::time::Duration;

use crate::cluster::{Cluster, DEFAULT};
use crate::members;
use crate::traffic::{GO_ON, Traffic};
use crate::wait::within;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_one_of_each_is_killed() {
    within(Duration::from_secs(240), async {
        let cluster = Cluster::start(&DEFAULT).await;
        let traffic = Traffic::begin(&cluster).await;

        let leader = members::leader(&cluster.members).await;
        cluster.members[leader].kill().await;
        traffic.wait_for_changes(20, Duration::from_secs(20)).await;
        cluster.members[leader].revive().await;
        members::wait_until_well(&cluster.members[leader]).await;

        for number in 0..2 {
            cluster.replicas[number].kill().await;
            traffic.wait_for_changes(20, Duration::from_secs(20)).await;
            cluster.replicas[number].revive().await;
            traffic.heal_replica(number).await;
        }

        // What a Traefik carries is lost with it, and the balancer needs a moment to see that it is gone.
        traffic.harm_traefik(1);
        cluster.pods[1].traefik.kill().await;
        traffic.wait_for_changes(20, Duration::from_secs(20)).await;
        cluster.pods[1].traefik.revive().await;
        traffic.heal_traefik(1).await;
        traffic.wait_for_changes(20, Duration::from_secs(20)).await;

        traffic.end_well(GO_ON).await;
    })
    .await;
}
