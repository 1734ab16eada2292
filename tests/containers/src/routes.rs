//! What an answer of the API means to whoever asks a Traefik.

use std::time::Duration;

use crate::cluster::{Cluster, DEFAULT, SMALL, Size, wait_until_ready};
use crate::wait::{eventually, within};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_means_that_every_traefik_routes_it() {
    within(Duration::from_secs(180), async {
        let mut cluster = Cluster::start(&DEFAULT).await;
        each_answer_holds_at_once(&cluster, 5).await;
        // A third one is found by its name, and waited for like the others.
        cluster.add_pod().await;
        cluster.pods[2].wait_until_ready().await;
        assert_eq!(cluster.pods[2].leads_to("/").await, "root", "it has the routes that were there before it");
        each_answer_holds_at_once(&cluster, 5).await;
        // One that goes for good is waited for no more.
        let gone = cluster.pods.pop().expect("the third");
        drop(gone);
        each_answer_holds_at_once(&cluster, 5).await;
    })
    .await;
}

/// Adds, moves and removes a route, and asks all Traefiks right after each answer.
async fn each_answer_holds_at_once(cluster: &Cluster, rounds: usize) {
    for round in 0..rounds {
        let (path, within_it) = (format!("/user/u{round}"), format!("/user/u{round}/lab?x=1"));
        for server in ["a", "b"] {
            cluster.add(&path, server).await;
            all_lead_to(cluster, &within_it, server).await;
        }
        cluster.remove(&path).await;
        all_lead_to(cluster, &within_it, "root").await;
    }
}

async fn all_lead_to(cluster: &Cluster, path: &str, server: &str) {
    for pod in &cluster.pods {
        assert_eq!(pod.leads_to(path).await, server, "{path} through {}", pod.traefik.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_user_may_run_the_image_and_a_stop_is_graceful() {
    within(Duration::from_secs(120), async {
        // OpenShift gives each project a range of user numbers of its own, and the group 0.
        let cluster = Cluster::start(&Size { user: "1000680000:0", ..SMALL }).await;
        each_answer_holds_at_once(&cluster, 2).await;
        let (code, took) = cluster.replicas[0].stop(Duration::from_secs(30)).await;
        assert_eq!(code, 0, "it ended well");
        // Open calls may take 8 s, and there were none.
        assert!(took < Duration::from_secs(8), "the stop took {took:?}");
        eventually("users go on without it", Duration::from_secs(5), async || {
            match cluster.pods[0].leads_to("/").await {
                server if server == "root" => Ok(()),
                other => Err(other),
            }
        })
        .await;
        cluster.replicas[0].revive().await;
        wait_until_ready(&cluster.replicas[0]).await;
        each_answer_holds_at_once(&cluster, 2).await;
        let (code, _) = cluster.pods[0].relay.stop(Duration::from_secs(30)).await;
        assert_eq!(code, 0, "the relay ended well");
        let log = cluster.replicas[0].log().await;
        assert!(!log.contains("Permission denied"), "it may write where it has to:\n{log}");
    })
    .await;
}
