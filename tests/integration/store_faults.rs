//! etcd that is away, hung, unreachable, slow, full or replaced: what the store does then, and how soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue, Response};
use bytes::Bytes;
use pointsman::store::etcd::{EtcdSettings, EtcdStore};
use pointsman::store::{Commit, Op, SharedStore, Store, StoreError, Txn};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::store_contract::{commit, put};
use crate::support::chaos_proxy::ChaosProxy;
use crate::support::etcd::{Etcd, Wanted};
use crate::support::process::free_port;
use crate::support::wait::eventually;

/// What the callers of the store count on.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

fn txn(key: &str, value: &str) -> Txn {
    Txn { guards: Vec::new(), ops: vec![put(key, value)] }
}

/// Every call ends in time, as `Unavailable`, and names an endpoint.
async fn assert_away(store: &EtcdStore, url: &str) {
    for call in ["get", "list", "commit", "watch"] {
        let begun = Instant::now();
        let error = match call {
            "get" => store.get("k").await.err(),
            "list" => store.list("k").await.err(),
            "commit" => store.commit(txn("k", "v")).await.err(),
            _ => store.watch("k", 1).await.err(),
        };
        let took = begun.elapsed();
        match error {
            Some(StoreError::Unavailable(text)) if text.contains(url) => {}
            other => panic!("{call}: {other:?}"),
        }
        assert!(took < ANSWER_WITHIN, "{call} took {took:?}");
    }
}

/// Reads and writes succeed, each at once or, where an answer had to be waited for in vain, at the second attempt.
async fn assert_goes_on(store: &EtcdStore, value: &str) {
    let begun = Instant::now();
    store.get("k").await.expect("a read goes elsewhere by itself");
    assert!(begun.elapsed() < ANSWER_WITHIN, "the read took {:?}", begun.elapsed());
    let begun = Instant::now();
    let done = store.commit(txn("k", value)).await;
    assert!(matches!(done, Ok(Commit::Done(_))), "{done:?}");
    assert!(begun.elapsed() < ANSWER_WITHIN, "the commit took {:?}", begun.elapsed());
}

async fn wait_until_it_works(store: &EtcdStore) {
    eventually("a commit", Duration::from_secs(20), async || {
        store.commit(txn("k", "again")).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

#[tokio::test]
async fn an_etcd_that_is_not_there_yet_is_no_reason_to_fail() {
    let mut etcd = Etcd::prepare(Wanted { arguments: &["--max-txn-ops=512"], ..Wanted::default() });
    let begun = Instant::now();
    let store = etcd.store().await;
    assert!(begun.elapsed() < ANSWER_WITHIN);
    assert_away(&store, &etcd.members[0].url).await;
    let refused = store.get("k").await.unwrap_err().to_string();
    assert!(refused.contains("Connection refused"), "{refused}");
    assert_eq!(store.limits().ops_max, 128, "what etcd takes if nobody has told it otherwise");
    etcd.members[0].start();
    wait_until_it_works(&store).await;
    store.list("k").await.unwrap();
    assert_eq!(store.limits().ops_max, 512, "asked as soon as it could be");
    let most: Vec<Op> = (0..512).map(|at| put(&format!("l/{at}"), "")).collect();
    commit(&(Arc::new(store) as SharedStore), most).await;
}

#[tokio::test]
async fn a_small_limit_is_found_too() {
    let etcd = Etcd::start_as(Wanted { arguments: &["--max-txn-ops=40"], ..Wanted::default() }).await;
    assert_eq!(etcd.store().await.limits().ops_max, 32);
}

#[tokio::test]
async fn a_restarted_etcd_is_found_again() {
    let mut etcd = Etcd::start().await;
    let store = etcd.store().await;
    wait_until_it_works(&store).await;
    etcd.members[0].kill();
    assert_away(&store, &etcd.members[0].url).await;
    etcd.members[0].start();
    wait_until_it_works(&store).await;
}

#[tokio::test]
async fn a_hung_etcd_gets_no_more_than_our_patience() {
    let etcd = Etcd::start().await;
    let store = etcd.store().await;
    wait_until_it_works(&store).await;
    etcd.members[0].pause();
    assert_away(&store, &etcd.members[0].url).await;
    etcd.members[0].resume();
    wait_until_it_works(&store).await;
}

#[tokio::test]
async fn one_dead_member_of_three_stops_nothing() {
    let mut etcd = Etcd::start_as(Wanted { members: 3, ..Wanted::default() }).await;
    let store = etcd.store().await;
    wait_until_it_works(&store).await;
    for at in 0..3 {
        etcd.members[at].kill();
        // If it led, the others need their time to elect; the first commit may fail in that time, but not for long.
        let begun = Instant::now();
        eventually("a commit without the dead member", Duration::from_secs(10), async || {
            let begun = Instant::now();
            let done = store.commit(txn("k", "v")).await;
            assert!(begun.elapsed() < ANSWER_WITHIN, "one call took {:?}", begun.elapsed());
            done.map(drop).map_err(|error| error.to_string())
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(5), "member {at}: it took {:?}", begun.elapsed());
        etcd.members[at].start();
        etcd.wait_until_it_answers().await;
    }
}

#[tokio::test]
async fn a_hung_member_of_three_stops_nothing() {
    let etcd = Etcd::start_as(Wanted { members: 3, ..Wanted::default() }).await;
    let store = etcd.store().await;
    wait_until_it_works(&store).await;
    let status = store.status().await;
    let leads =
        |at: usize| status.endpoints[at].member.as_ref().is_ok_and(pointsman::store::etcd::MemberStatus::is_leader);
    // The one we talk to, and not the leader, so that what is measured is us and not an election.
    let others: Vec<usize> = (0..3).filter(|at| !leads(*at)).collect();
    for at in others {
        let mut settings = etcd.settings();
        settings.endpoints.rotate_left(at);
        let store = EtcdStore::connect(settings).await.unwrap();
        wait_until_it_works(&store).await;
        etcd.members[at].pause();
        assert_goes_on(&store, "without it").await;
        etcd.members[at].resume();
    }
}

#[tokio::test]
async fn two_of_three_dead_is_unavailable_not_empty() {
    let mut etcd = Etcd::start_as(Wanted { members: 3, ..Wanted::default() }).await;
    let store = etcd.store().await;
    wait_until_it_works(&store).await;
    etcd.members[1].kill();
    etcd.members[2].kill();
    eventually("the survivor knows that it has no quorum", Duration::from_secs(10), async || {
        let begun = Instant::now();
        let listed = store.list("k").await;
        assert!(begun.elapsed() < ANSWER_WITHIN, "the listing took {:?}", begun.elapsed());
        match listed {
            Err(StoreError::Unavailable(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(matches!(store.commit(txn("k", "w")).await, Err(StoreError::Unavailable(_))));
    let status = store.status().await;
    assert_eq!(status.endpoints[0].member.as_ref().map(|member| member.leader_id).unwrap(), 0, "{status:?}");
    etcd.members[1].start();
    wait_until_it_works(&store).await;
    assert_eq!(store.list("k").await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_firewall_that_swallows_everything_is_walked_around() {
    let etcd = Etcd::start().await;
    let (first, second) =
        (ChaosProxy::before(etcd.members[0].port).await, ChaosProxy::before(etcd.members[0].port).await);
    let store = EtcdStore::connect(EtcdSettings::new([first.url(), second.url()])).await.unwrap();
    wait_until_it_works(&store).await;
    first.stall();
    assert_goes_on(&store, "2").await;
    first.mend().await;
    second.stall();
    assert_goes_on(&store, "3").await;
    first.cut().await;
    assert_away(&store, "http://").await;
    second.mend().await;
    wait_until_it_works(&store).await;
}

#[tokio::test]
async fn a_half_open_connection_to_the_only_endpoint_is_replaced() {
    let etcd = Etcd::start().await;
    let proxy = ChaosProxy::before(etcd.members[0].port).await;
    let store = EtcdStore::connect(EtcdSettings::new([proxy.url()])).await.unwrap();
    wait_until_it_works(&store).await;
    proxy.stall();
    proxy.mend().await;
    assert_goes_on(&store, "2").await;
}

#[tokio::test]
async fn a_slow_road_is_a_road() {
    let etcd = Etcd::start().await;
    let proxy = ChaosProxy::before(etcd.members[0].port).await;
    let store = EtcdStore::connect(EtcdSettings::new([proxy.url()])).await.unwrap();
    proxy.delay_answers(Duration::from_millis(150));
    for n in 0..3 {
        store.commit(txn("k", &n.to_string())).await.unwrap();
        store.list("k").await.unwrap();
    }
}

/// A commit whose answer is lost must not be made twice: its own first copy would make it a conflict.
#[tokio::test]
async fn a_commit_without_an_answer_is_not_repeated() {
    let etcd = Etcd::start().await;
    let (first, second) =
        (ChaosProxy::before(etcd.members[0].port).await, ChaosProxy::before(etcd.members[0].port).await);
    let store = EtcdStore::connect(EtcdSettings::new([first.url(), second.url()])).await.unwrap();
    let before = commit_revision(&store, "0").await;
    // It happens at once, and the answer would come after our patience.
    first.delay_answers(Duration::from_secs(3));
    let answer = store.commit(txn("k", "1")).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    let read = store.get("k").await.unwrap();
    assert_eq!(read.entry.unwrap().value, b"1", "it did happen");
    assert_eq!(read.revision, before + 1, "and once");
}

async fn commit_revision(store: &EtcdStore, value: &str) -> i64 {
    match store.commit(txn("k", value)).await.expect("a commit") {
        Commit::Done(revision) => revision,
        Commit::Conflict(_) => panic!("no guard"),
    }
}

#[tokio::test]
async fn a_full_etcd_refuses_and_says_what_to_do() {
    let etcd = Etcd::start_as(Wanted { arguments: &["--quota-backend-bytes=2000000"], ..Wanted::default() }).await;
    let store = etcd.store().await;
    let big = "x".repeat(500_000);
    let error =
        eventually("etcd to be full", Duration::from_secs(20), async || match store.commit(txn("k", &big)).await {
            Err(error) => Ok(error),
            Ok(done) => Err(format!("{done:?}")),
        })
        .await;
    assert!(matches!(&error, StoreError::Refused(text) if text.contains("defragment")), "{error}");
    let alarms = store.status().await.alarms.unwrap();
    assert_eq!(alarms.first().map(|alarm| alarm.kind.as_str()), Some("NOSPACE"), "{alarms:?}");
}

#[tokio::test]
async fn the_status_shows_every_endpoint() {
    let etcd = Etcd::start().await;
    let mut settings = etcd.settings();
    let dead = format!("http://127.0.0.1:{}", free_port());
    settings.endpoints.push(dead.clone());
    let status = EtcdStore::connect(settings).await.unwrap().status().await;
    let member = status.endpoints[0].member.clone().unwrap();
    assert!(member.is_leader() && member.version.starts_with("3."), "{member:?}");
    assert!(member.cluster_id != 0 && member.member_id != 0 && member.database_bytes > 0, "{member:?}");
    assert_eq!((status.endpoints[1].url.as_str(), status.alarms.as_deref().unwrap()), (&*dead, &[][..]));
    let error = status.endpoints[1].member.clone().unwrap_err();
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

/// Something on etcd's port that answers every call with success and an empty message.
async fn etcd_without_headers() -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut connection = h2::server::handshake(socket).await.expect("HTTP/2");
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let head = Response::builder().header("content-type", "application/grpc").body(()).expect("a head");
                    let mut answer = respond.send_response(head, false).expect("sent");
                    // One message without compression, of no bytes.
                    answer.send_data(Bytes::from_static(&[0; 5]), false).expect("sent");
                    let status = [(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))];
                    answer.send_trailers(status.into_iter().collect()).expect("sent");
                }
            });
        }
    });
    (url, tasks)
}

/// Revision 0 would say that the store went back in time, or was wiped.
#[tokio::test]
async fn an_answer_without_a_header_is_none() {
    let (url, _tasks) = etcd_without_headers().await;
    let store = EtcdStore::connect(EtcdSettings::new([url])).await.expect("it may come later");
    for (call, error) in [
        ("get", store.get("k").await.err()),
        ("list", store.list("k").await.err()),
        ("commit", store.commit(txn("k", "v")).await.err()),
        ("watch", store.watch("k", 1).await.err()),
    ] {
        assert!(
            matches!(&error, Some(StoreError::Unavailable(why)) if why.contains("without a header")),
            "{call}: {error:?}"
        );
    }
}
