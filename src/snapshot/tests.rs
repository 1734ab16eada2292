use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;
use crate::route::{Route, RouteSpec, Target};

fn owner() -> Owner {
    Owner { prefix: "pointsman/hub/".to_owned(), installation: None }
}

fn snapshot(n: u64, paths: &[String]) -> Snapshot {
    let data = serde_json::json!({"target": "http://10.0.0.1:8888", "user": "jané", "x": {"deep": [1, null]}});
    let route = |path: &String| Route {
        spec: RouteSpec::from_decoded(path).expect("valid"),
        target: Target::parse("http://10.0.0.1:8888").expect("valid"),
        data: data.as_object().expect("an object").clone(),
        created: "2026-01-02T03:04:05.678Z".parse().expect("a time"),
        n,
    };
    Snapshot {
        head: Head { epoch: "e1".to_owned(), n, nonce: "0011".to_owned() },
        revision: 40,
        highest_revision: 50,
        taken: "2026-01-02T03:04:05Z".parse().expect("a time"),
        table: Arc::new(paths.iter().map(route).collect()),
    }
}

fn folder() -> (tempfile::TempDir, Folder) {
    let place = tempfile::tempdir().expect("a folder");
    let folder = Folder::new(place.path().join("deep/snapshot"), owner());
    (place, folder)
}

#[test]
fn the_previous_one_is_used_when_the_newest_is_torn() {
    let (_place, folder) = folder();
    assert_eq!(folder.load(), None, "nothing yet");
    let [first, second] = [1, 2].map(|n| snapshot(n, &["/".to_owned(), format!("/user/{n}")]));
    folder.store(&first, true).expect("written");
    let stored = folder.store(&second, true).expect("written");
    assert_eq!(folder.load(), Some(second.clone()));
    let newest = folder.path().join("routes.json");
    let whole = std::fs::read(&newest).expect("the file");
    assert_eq!(stored.bytes, whole.len() as u64);
    // At every length that a torn write may leave, but for the newline at the end.
    for length in 0..whole.len() - 1 {
        assert!(Snapshot::decode(&whole[..length], &owner()).is_err(), "{length} bytes");
    }
    std::fs::write(&newest, &whole[..whole.len() / 2]).expect("torn");
    assert_eq!(folder.load(), Some(first.clone()));
    assert!(!folder.newest_is_good());
    // A damaged one must not take the place of the good one.
    folder.store(&second, folder.newest_is_good()).expect("written");
    std::fs::write(&newest, "").expect("torn again");
    assert_eq!(folder.load(), Some(first));
}

#[test]
fn a_crash_between_the_two_renames_leaves_the_previous_one() {
    let (_place, folder) = folder();
    let one = snapshot(1, &[]);
    folder.store(&one, true).expect("written");
    std::fs::rename(folder.path().join("routes.json"), folder.path().join("routes.previous.json")).expect("renamed");
    std::fs::write(folder.path().join("routes.json.new"), "half").expect("left over");
    assert_eq!(folder.load(), Some(one));
    folder.store(&snapshot(2, &[]), true).expect("written over what was left");
}

#[test]
fn nobody_else_may_read_it() {
    let (_place, folder) = folder();
    folder.store(&snapshot(1, &[]), true).expect("written");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(folder.path()), mode(&folder.path().join("routes.json"))), (0o700, 0o600));
}

#[test]
fn what_is_not_ours_is_named() {
    let bytes = snapshot(1, &["/a".to_owned()]).encode(&owner());
    for other in
        [Owner { prefix: "other/hub/".to_owned(), ..owner() }, Owner { installation: Some("b".to_owned()), ..owner() }]
    {
        let error = Snapshot::decode(&bytes, &other).expect_err("another's");
        assert_eq!(error.to_string(), "it holds the routes of the prefix \"pointsman/hub/\"");
    }
    let text = String::from_utf8(bytes).expect("text");
    let newer = text.replacen("\"format\":1", "\"format\":2,\"new\":true", 1);
    assert_eq!(Snapshot::decode(newer.as_bytes(), &owner()), Err(SnapshotError::Format(2)));
    // One changed character, and it is still JSON.
    let changed = text.replacen("10.0.0.1", "10.0.0.2", 1);
    assert_eq!(Snapshot::decode(changed.as_bytes(), &owner()), Err(SnapshotError::Digest));
}

/// What this version writes: a later one must read it.
#[test]
fn format_1_stays_readable() {
    let text = include_str!("format_1.json");
    let read = Snapshot::decode(text.as_bytes(), &owner()).expect("readable");
    assert_eq!(read, snapshot(7, &["/".to_owned(), "/user/jane@x.org".to_owned()]));
    assert_eq!(String::from_utf8(read.encode(&owner())).expect("text"), text);
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        paths in proptest::collection::vec(any::<String>(), 0..8),
        n in any::<u64>(),
        revision in any::<i64>(),
        highest_revision in any::<i64>(),
        prefix in any::<String>(),
        installation in any::<Option<String>>(),
    ) {
        let paths: Vec<_> = paths.into_iter().filter(|path| RouteSpec::from_decoded(path).is_ok()).collect();
        let owner = Owner { prefix, installation };
        let snapshot = Snapshot { revision, highest_revision, ..snapshot(n, &paths) };
        prop_assert_eq!(Snapshot::decode(&snapshot.encode(&owner), &owner), Ok(snapshot));
    }

    #[test]
    fn any_bytes_are_refused_in_peace(bytes in any::<Vec<u8>>()) {
        prop_assert!(Snapshot::decode(&bytes, &owner()).is_err());
    }

    #[test]
    fn a_changed_byte_is_noticed(at in any::<proptest::sample::Index>(), to in any::<u8>()) {
        let mut bytes = snapshot(7, &["/user/jane".to_owned()]).encode(&owner());
        // White space around the envelope carries nothing.
        let at = at.index(bytes.len() - 1);
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        prop_assert!(Snapshot::decode(&bytes, &owner()).is_err());
    }
}
