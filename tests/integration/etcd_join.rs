//! `pointsman etcd-join` before real members of etcd, as in a `StatefulSet`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions};
use rstest::rstest;

use crate::support::etcd_pods::{Pod, Pods};
use crate::support::process::Running;
use crate::support::wait::eventually;

const LONG: Duration = Duration::from_secs(60);

/// Waits until it says this.
async fn says(join: &Running, text: &str) {
    eventually(text, Duration::from_secs(20), || async {
        if join.log().contains(text) { Ok(()) } else { Err(join.log()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_empty_members_begin_one_cluster_and_two_wait_for_the_third() {
    let mut pods = Pods::prepare(3);
    let early = [pods.join(0, &[]), pods.join(1, &[])];
    says(&early[0], "not all have: etcd-2 does not answer").await;
    says(&early[1], "not all have: etcd-2 does not answer").await;
    assert!(!pods.pods[0].may_start() && !pods.pods[1].may_start());
    let mut joins = early.into_iter().chain([pods.join(2, &[])]);
    for at in 0..3 {
        let mut join = joins.next().expect("three");
        assert_eq!(join.end(LONG).await, 0, "{}", join.log());
        assert!(join.log().contains("begins a new cluster of 3 members"), "{}", join.log());
        pods.pods[at].start_etcd();
    }
    pods.wait_until_all_answer().await;
    pods.assert_one_cluster().await;

    // With its data each goes on, also when all begin again at once.
    pods.pods[0].put("kept", "yes").await;
    pods.pods.iter_mut().for_each(Pod::kill);
    pods.start_all().await;
    pods.assert_one_cluster().await;
    assert_eq!(pods.pods[2].get("kept").await, Ok(Some("yes".to_owned())));
}

/// Removes an entry as an administrator does, who asks again when the leader has just been killed.
async fn remove(pods: &Pods, id: u64) {
    eventually("the removal", LONG, || async {
        let client = pods.pods[0].client().await;
        let removed = client.cluster_client().member_remove(id).await;
        match removed {
            Err(error) if !error.to_string().contains("member not found") => Err(error.to_string()),
            _ => Ok(()),
        }
    })
    .await;
}

/// Writes through whichever member answers, as Pointsman does, until it is stopped; counts what failed in spite of that.
fn load(pods: &Pods) -> (Arc<AtomicBool>, tokio::task::JoinHandle<(usize, usize)>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, urls) = (stop.clone(), pods.pods.iter().map(|pod| pod.client_url.clone()).collect::<Vec<_>>());
    let writing = tokio::spawn(async move {
        let options = ConnectOptions::new().with_timeout(Duration::from_secs(1)).with_require_leader(true);
        let mut clients = Vec::new();
        for url in urls {
            clients.push(Client::connect([url], Some(options.clone())).await.expect("a client"));
        }
        let (mut written, mut failed) = (0, 0);
        while !stopped.load(Ordering::Relaxed) {
            let number = written + failed;
            let mut done = false;
            let give_up = Instant::now() + Duration::from_secs(5);
            while !done && Instant::now() < give_up {
                for client in &clients {
                    let (key, mut client) = (format!("load/{number}"), client.kv_client());
                    done = client.put(key, "x", None).await.is_ok();
                    if done {
                        break;
                    }
                }
            }
            if done { written += 1 } else { failed += 1 }
        }
        (written, failed)
    });
    (stop, writing)
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_lose_their_volumes_one_by_one_come_back_under_load() {
    let mut pods = Pods::start(3).await;
    pods.pods[0].put("kept", "yes").await;
    let (stop, writing) = load(&pods);
    // Each once: in the end nothing of the first three directories is left.
    for at in 0..3 {
        let before = pods.id_of(at, at).await;
        pods.pods[at].kill();
        pods.pods[at].lose_volume();
        let log = pods.start_one(at).await;
        assert!(log.contains("joins a cluster of 3 members"), "{log}");
        assert_ne!(pods.id_of(at, at).await, before, "the number of lost data is never used again");
    }
    stop.store(true, Ordering::Relaxed);
    let (written, failed) = writing.await.expect("the load");
    assert!(written > 50 && failed == 0, "{written} written, {failed} failed");
    pods.assert_one_cluster().await;
    for pod in &pods.pods {
        assert_eq!(pod.get("kept").await, Ok(Some("yes".to_owned())), "{}", pod.name);
        assert_eq!(pod.get(&format!("load/{}", written - 1)).await, Ok(Some("x".to_owned())), "{}", pod.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_five_that_lose_their_volumes_at_once_come_back_one_after_the_other() {
    let mut pods = Pods::start(5).await;
    pods.pods[0].put("kept", "yes").await;
    for at in [1, 3] {
        pods.pods[at].kill();
        pods.pods[at].lose_volume();
    }
    let mut joins = vec![(1, pods.join(1, &[])), (3, pods.join(3, &[]))];
    let give_up = Instant::now() + LONG;
    while !joins.is_empty() {
        assert!(Instant::now() < give_up, "{}", joins.iter().map(|(_, join)| join.log()).collect::<String>());
        for at in 0..joins.len() {
            if let Some(status) = joins[at].1.ended() {
                let (pod, join) = joins.remove(at);
                assert!(status.success(), "{}", join.log());
                pods.pods[pod].start_etcd();
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pods.wait_until_all_answer().await;
    pods.assert_one_cluster().await;
    assert_eq!(pods.pods[3].get("kept").await, Ok(Some("yes".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_may_be_killed_at_any_moment() {
    let mut pods = Pods::start(3).await;
    pods.pods[0].put("kept", "yes").await;
    pods.pods[1].kill();
    pods.pods[1].lose_volume();
    let killed = AtomicUsize::new(0);
    for after_ms in [30, 60, 90, 120, 150, 200, 300, 400] {
        let mut join = pods.join(1, &[]);
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        if join.ended().is_none() {
            killed.fetch_add(1, Ordering::Relaxed);
            join.kill();
        }
    }
    assert!(killed.load(Ordering::Relaxed) > 1, "it was never caught at work");
    pods.start_one(1).await;
    pods.assert_one_cluster().await;
    assert_eq!(pods.pods[1].get("kept").await, Ok(Some("yes".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_removal_it_is_added_and_killed_after_that_it_is_not_added_twice() {
    let mut pods = Pods::start(3).await;
    let old = pods.id_of(0, 1).await;
    pods.pods[1].kill();
    pods.pods[1].lose_volume();
    remove(&pods, old).await;
    let mut join = pods.join(1, &[]);
    assert_eq!(join.end(LONG).await, 0, "{}", join.log());
    let added = pods.list(0).await;
    assert_eq!(added.iter().filter(|(_, _, started)| !started).count(), 1, "{added:?}");

    // The pod ends before etcd has started.
    let mut join = pods.join(1, &[]);
    assert_eq!(join.end(LONG).await, 0, "{}", join.log());
    assert_eq!(pods.list(0).await, added, "the same number, for nobody has used it");

    // The same with a new volume: whether somebody has used the number can't be known.
    pods.pods[1].lose_volume();
    pods.start_one(1).await;
    let late: Vec<u64> = added.iter().filter(|(_, _, started)| !started).map(|(_, id, _)| *id).collect();
    assert_ne!(vec![pods.id_of(0, 1).await], late);
    pods.assert_one_cluster().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_a_removed_member_is_given_up_and_it_joins_anew() {
    let mut pods = Pods::start(3).await;
    pods.pods[0].put("kept", "yes").await;
    let old = pods.id_of(0, 2).await;
    pods.pods[2].kill();
    remove(&pods, old).await;
    let log = pods.start_one(2).await;
    assert!(log.contains("the cluster has gone on without this member"), "{log}");
    pods.assert_one_cluster().await;
    assert_eq!(pods.pods[2].get("kept").await, Ok(Some("yes".to_owned())));
}

#[rstest]
#[case::its_log("member/wal", "has lost its data")]
#[case::its_database("member/snap", "is missing")]
#[tokio::test(flavor = "multi_thread")]
async fn half_a_directory_is_replaced_by_a_whole_one(#[case] lost: &str, #[case] told: &str) {
    let mut pods = Pods::start(3).await;
    pods.pods[0].put("kept", "yes").await;
    pods.pods[2].kill();
    std::fs::remove_dir_all(pods.pods[2].volume().join("etcd").join(lost)).expect("it is there");
    let log = pods.start_one(2).await;
    assert!(log.contains("joins a cluster of 3 members"), "{log}");
    assert!(log.contains(told), "{log}");
    pods.assert_one_cluster().await;
    assert_eq!(pods.pods[2].get("kept").await, Ok(Some("yes".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_living_cluster_that_it_can_not_see_it_begins_none() {
    let mut pods = Pods::start(3).await;
    pods.pods[0].kill();
    pods.pods[0].lose_volume();
    // As when names don't resolve: the others run, and nothing of them is heard.
    let blind =
        format!("etcd-0={},etcd-1=http://etcd-1.invalid:2380,etcd-2=http://etcd-2.invalid:2380", pods.pods[0].peer_url);
    let elsewhere = "http://etcd-1.invalid:2379";
    let mut join = pods.join_told(0, &blind, elsewhere, &["--patience", "4", "--etcd-metrics-port", "2381"]);
    assert_eq!(join.end(LONG).await, 1);
    assert!(join.log().contains("etcd-0 has waited for 4 s, and will be started again"), "{}", join.log());
    assert!(join.log().contains("etcd-1 does not answer"), "{}", join.log());
    assert!(!pods.pods[0].may_start());

    // With data it starts, for that does no harm.
    pods.start_one(0).await;
    pods.pods[0].kill();
    let mut join = pods.join_told(0, &blind, elsewhere, &[]);
    assert_eq!(join.end(LONG).await, 0, "{}", join.log());
    assert!(join.log().contains("goes on with its data"), "{}", join.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nobody_is_replaced() {
    let mut pods = Pods::start(3).await;
    pods.pods[0].put("kept", "yes").await;
    pods.pods[0].kill();
    pods.pods[0].lose_volume();
    pods.pods[1].kill();
    let mut join = pods.join(0, &["--patience", "4"]);
    assert_eq!(join.end(LONG).await, 1);
    assert!(join.log().contains("the cluster has no quorum that could take this member in"), "{}", join.log());
    assert!(join.log().contains("etcd-1 does not answer"), "{}", join.log());

    let mut join = pods.join(0, &[]);
    says(&join, "the cluster has no quorum that could take this member in").await;
    let mut second = pods.join(1, &[]);
    assert_eq!(second.end(LONG).await, 0, "{}", second.log());
    pods.pods[1].start_etcd();
    assert_eq!(join.end(LONG).await, 0, "{}", join.log());
    pods.pods[0].start_etcd();
    pods.wait_until_all_answer().await;
    pods.assert_one_cluster().await;
    assert_eq!(pods.pods[0].get("kept").await, Ok(Some("yes".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_majority_is_said_with_the_command_that_ends_it() {
    let mut pods = Pods::start(3).await;
    for at in 0..2 {
        pods.pods[at].kill();
        pods.pods[at].lose_volume();
    }
    let joins = [pods.join(0, &[]), pods.join(1, &[])];
    says(&joins[0], "`kubectl delete pvc/data-etcd-2 pod/etcd-2`").await;
    says(&joins[1], "the majority is lost for good: 2 of 3 members have no data, and etcd-2 can't go on").await;
    // As it says.
    pods.pods[2].kill();
    pods.pods[2].lose_volume();
    let joins: Vec<Running> = joins.into_iter().chain([pods.join(2, &[])]).collect();
    for (at, mut join) in joins.into_iter().enumerate() {
        assert_eq!(join.end(LONG).await, 0, "{}", join.log());
        pods.pods[at].start_etcd();
    }
    pods.wait_until_all_answer().await;
    pods.assert_one_cluster().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_members_is_refused() {
    let mut pods = Pods::start(3).await;
    let (three, endpoint) = (pods.members(), pods.pods[1].client_url.clone());
    let more = Pods::prepare(2);
    let five = format!("{three},etcd-3={},etcd-4={}", more.pods[0].peer_url, more.pods[1].peer_url);

    // One more pod than the cluster has members.
    pods.pods.extend(more.pods);
    pods.pods[3].name = "etcd-3".to_owned();
    let mut join = pods.join_told(3, &five, &endpoint, &[]);
    assert_eq!(join.end(LONG).await, 1);
    assert!(join.log().contains("the cluster has 3 members, and --members has etcd-0, etcd-1"), "{}", join.log());
    assert!(join.log().contains("scale back to 3"), "{}", join.log());
    let mut join = pods.join_told(3, &three, &endpoint, &[]);
    assert_eq!(join.end(LONG).await, 64, "it is none of the members");
    pods.pods.truncate(3);

    // One pod less; with data, and without.
    let one = format!("etcd-0={}", pods.pods[0].peer_url);
    pods.pods[0].kill();
    let mut join = pods.join_told(0, &one, &endpoint, &[]);
    assert_eq!(join.end(LONG).await, 1);
    assert!(
        join.log().contains("the cluster of etcd-0 has 3 members, and --members lacks etcd-1, etcd-2"),
        "{}",
        join.log()
    );
    pods.pods[0].lose_volume();
    let two = format!("{one},etcd-1={}", pods.pods[1].peer_url);
    let mut join = pods.join_told(0, &two, &endpoint, &[]);
    assert_eq!(join.end(LONG).await, 1);
    assert!(
        join.log().contains("the cluster has 3 members, etcd-2 among them, which --members lacks"),
        "{}",
        join.log()
    );

    // Told of all it comes back, and then the cluster itself knows who belongs to it.
    pods.start_one(0).await;
    pods.pods[0].kill();
    pods.pods[0].lose_volume();
    let mut join = pods.join_told(0, &five, &endpoint, &[]);
    assert_eq!(join.end(LONG).await, 1);
    assert!(join.log().contains("the cluster is to have the members etcd-0, etcd-1, etcd-2"), "{}", join.log());
    pods.start_one(0).await;
    pods.assert_one_cluster().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_member_begins_alone_and_anew() {
    let mut pods = Pods::start(1).await;
    pods.pods[0].put("kept", "yes").await;
    pods.pods[0].kill();
    pods.start_all().await;
    assert_eq!(pods.pods[0].get("kept").await, Ok(Some("yes".to_owned())));
    pods.pods[0].kill();
    pods.pods[0].lose_volume();
    pods.start_all().await;
    assert_eq!(pods.pods[0].get("kept").await, Ok(None));
}
