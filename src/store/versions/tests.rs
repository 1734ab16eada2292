use super::{FIRST_REVISION, HistoryLimits, Keys, Versions};
use crate::store::{Commit, Event, Op, Revision, StoreError, Txn};

fn put(versions: &Versions, key: &str, bytes: usize) -> Revision {
    let ops = vec![Op::Put { key: key.to_owned(), value: vec![0; bytes] }];
    match versions.commit(Txn { guards: Vec::new(), ops }) {
        Commit::Done(revision) => revision,
        Commit::Conflict(_) => panic!("no guard"),
    }
}

fn with_history(revisions_max: usize, bytes_max: usize) -> Versions {
    Versions::new(FIRST_REVISION, Keys::new(), HistoryLimits { revisions_max, bytes_max })
}

fn kept(versions: &Versions) -> (usize, usize) {
    let state = versions.lock();
    (state.history.len(), state.history_bytes)
}

#[tokio::test]
async fn history_is_bounded_by_its_length() {
    let versions = with_history(3, usize::MAX);
    let mut behind = versions.watch("a", FIRST_REVISION).expect("nothing is missed yet");
    let mut abreast = versions.watch("a", FIRST_REVISION).expect("nothing is missed yet");
    for n in 0..10 {
        let at = put(&versions, "a", n);
        assert_eq!(abreast.next().await.expect("changes").revision, at);
    }
    assert_eq!(kept(&versions).0, 3);
    assert!(matches!(behind.next().await, Err(StoreError::Compacted(FIRST_REVISION))));
    let newest = versions.revision();
    assert!(versions.watch("a", newest - 4).is_err());
    let mut last = versions.watch("a", newest - 3).expect("three are kept");
    assert_eq!(last.next().await.expect("changes").revision, newest - 2);
}

#[tokio::test]
async fn history_is_bounded_by_its_bytes_but_for_the_newest_change() {
    let versions = with_history(usize::MAX, 1000);
    for _ in 0..100 {
        put(&versions, "a", 100);
        let (revisions, bytes) = kept(&versions);
        assert!((1..=6).contains(&revisions) && bytes <= 1000, "{revisions} revisions of {bytes} bytes");
    }
    let before = versions.revision();
    let mut watch = versions.watch("", before).expect("the newest is always a start");
    put(&versions, "a", 5000);
    assert_eq!(kept(&versions).0, 1);
    assert_eq!(watch.next().await.expect("changes").revision, before + 1, "too large to keep, and still told");
    put(&versions, "a", 10);
    assert_eq!(kept(&versions), (1, 10 + 1 + super::EVENT_OVERHEAD_BYTES), "and gone with the next one");
}

#[tokio::test]
async fn a_watch_of_quiet_keys_is_not_left_behind_by_loud_ones() {
    let versions = with_history(3, usize::MAX);
    let mut quiet = versions.watch("quiet", FIRST_REVISION).expect("nothing is missed yet");
    for n in 0..20 {
        put(&versions, "loud", n);
        let polled = what_is_there(&mut quiet).await;
        assert!(polled.is_none(), "{polled:?}");
    }
    let at = put(&versions, "quiet", 1);
    assert_eq!(quiet.next().await.expect("changes").revision, at);
}

/// Lets a watch run until it waits.
async fn what_is_there(watch: &mut Box<dyn crate::store::Watch>) -> Option<Result<crate::store::Changes, StoreError>> {
    tokio::select! {
        biased;
        changes = watch.next() => Some(changes),
        () = std::future::ready(()) => None,
    }
}

#[test]
fn a_key_that_is_deleted_in_two_ways_goes_once() {
    let versions = with_history(10, usize::MAX);
    put(&versions, "a/1", 1);
    let ops = vec![
        Op::Delete { key: "a/1".into() },
        Op::DeletePrefix { prefix: "a/".into() },
        Op::Delete { key: "a/1".into() },
        Op::DeletePrefix { prefix: String::new() },
    ];
    versions.commit(Txn { guards: Vec::new(), ops });
    let state = versions.lock();
    assert_eq!(
        state.history.back().expect("a change").events,
        [Event::Delete { key: "a/1".into(), revision: state.revision }]
    );
}
