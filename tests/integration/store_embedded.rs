//! The embedded store and its folder: who may have it, what is in it, what is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use pointsman::route::{Route, RouteData, RouteSpec, RouteTable, Target};
use pointsman::store::embedded::{EmbeddedSettings, EmbeddedStore, OpenError};
use pointsman::store::{Commit, Op, Store, StoreError, Txn};
use pointsman::traefik::bucket::Sizes;
use pointsman::traefik::fixed::{Servers, Settings};
use pointsman::traefik::plan::{self, Edit, Limits};
use pointsman::traefik::rule::Space;
use pointsman::traefik::tree::Tree;

use crate::store_contract::{delete, put};
use crate::support::embedded::{database, open, try_open};

async fn commit(store: &EmbeddedStore, ops: Vec<Op>) -> i64 {
    match store.commit(Txn { guards: Vec::new(), ops }).await.expect("a commit") {
        Commit::Done(revision) => revision,
        Commit::Conflict(_) => panic!("a conflict without a guard"),
    }
}

fn rights(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().expect("text")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let first = commit(&store, vec![put("a/1", "one"), put("a/2", "two"), put("b", "x")]).await;
    let second = commit(&store, vec![put("a/2", "zwei"), delete("b")]).await;
    let third = commit(&store, vec![delete("a/1")]).await;
    let before = store.list("").await.unwrap();
    drop(store);
    let store = open(folder.path()).await;
    assert_eq!(store.folder(), folder.path());
    let after = store.list("").await.unwrap();
    assert_eq!(after, before);
    assert_eq!(after.revision, third, "also where the last change left no key behind");
    assert_eq!(after.entries[0].mod_revision, second);
    for gone in [first, second] {
        let watch = store.watch("a/", gone).await.err();
        assert!(matches!(watch, Some(StoreError::Compacted(_))), "history does not outlive the process: {watch:?}");
    }
    assert!(store.watch("a/", third).await.is_ok());
    assert_eq!(commit(&store, vec![put("c", "")]).await, third + 1, "revisions never go back");
}

#[tokio::test]
async fn nobody_else_can_read_what_is_kept() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("not/yet/there");
    let store = open(&folder).await;
    commit(&store, vec![put("a", "secret")]).await;
    assert_eq!(names(&folder), ["lock", "routes.redb"]);
    assert_eq!(rights(&folder), 0o700);
    assert_eq!((rights(&folder.join("lock")), rights(&database(&folder))), (0o600, 0o600));
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_who_has_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let error = try_open(folder.path()).await.expect_err("two at once");
    let (path, pid) = (folder.path().display(), std::process::id());
    let said = format!(
        "the folder {path} is in use by another process (pid {pid}): stop that one, or give this one a folder of its own"
    );
    assert_eq!(error.to_string(), said);
    commit(&store, vec![put("a", "the first one goes on")]).await;
    drop(store);
    assert_eq!(open(folder.path()).await.list("").await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_predecessor_that_is_just_ending_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    commit(&store, vec![put("a", "1")]).await;
    let successor = tokio::spawn(EmbeddedStore::open(EmbeddedSettings::new(folder.path())));
    // Not before it has found the folder held.
    let begun = Instant::now();
    while !successor.is_finished() && begun.elapsed() < Duration::from_millis(100) {
        tokio::task::yield_now().await;
    }
    assert!(!successor.is_finished());
    commit(&store, vec![put("a", "2")]).await;
    drop(store);
    let store = successor.await.unwrap().expect("the folder is free now");
    assert_eq!(store.get("a").await.unwrap().entry.unwrap().value, b"2", "read after the predecessor's last commit");
}

#[tokio::test]
async fn what_is_no_good_file_is_refused_by_name_and_left_alone() {
    let good = tempfile::tempdir().unwrap();
    commit(&open(good.path()).await, vec![put("a", "1")]).await;
    let good = fs::read(database(good.path())).unwrap();
    let cut = good[..good.len() - 4096].to_vec();
    for (what, content) in [
        ("an empty file", Vec::new()),
        ("zeros", vec![0; 100_000]),
        ("text", b"routes:\n  /: http://127.0.0.1\n".to_vec()),
        ("a cut file", cut),
        ("half a header", good[..100].to_vec()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(database(folder.path()), &content).unwrap();
        let error = try_open(folder.path()).await.expect_err(what);
        assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error}");
        let said = error.to_string();
        assert!(said.contains(&database(folder.path()).display().to_string()), "{what}: {said}");
        assert!(said.contains("move its folder away") && !said.contains('\n'), "{what}: {said}");
        assert!(fs::read(database(folder.path())).unwrap() == content, "{what} is kept for whoever looks");
    }
}

#[tokio::test]
async fn a_folder_that_can_not_be_used_is_refused_by_name() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    for folder in [file.clone(), file.join("below")] {
        let error = try_open(&folder).await.expect_err("a file is no folder");
        let said = error.to_string();
        assert!(
            said.starts_with(&format!("{} can't be used as the folder of the routes: ", folder.display())),
            "{said}"
        );
    }
}

#[tokio::test]
async fn who_only_reads_begins_no_store() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("mistyped");
    let mut settings = EmbeddedSettings::new(&folder);
    settings.must_exist = true;
    let error = EmbeddedStore::open(settings.clone()).await.expect_err("there is nothing").to_string();
    assert!(error.ends_with("can't be used as the folder of the routes: there is no routes.redb in it"), "{error}");
    assert!(!folder.exists());
    commit(&open(&folder).await, vec![put("a", "1")]).await;
    assert_eq!(EmbeddedStore::open(settings).await.unwrap().list("").await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_successor_that_was_never_finished_is_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let unfinished = folder.path().join("routes.redb.new");
    fs::write(&unfinished, "half").unwrap();
    commit(&open(folder.path()).await, vec![put("a", "1")]).await;
    fs::write(&unfinished, "half").unwrap();
    assert_eq!(open(folder.path()).await.list("").await.unwrap().entries.len(), 1);
}

/// 20,000 changes of 1,000 keys, as hub and users would make them in a day.
#[tokio::test]
async fn the_file_does_not_grow_with_the_number_of_changes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let value = "x".repeat(300);
    let put_all = (0..1000).map(|n| put(&format!("routes/{n:04}"), &value)).collect();
    commit(&store, put_all).await;
    let mut sizes = BTreeMap::new();
    for change in 0_usize..2000 {
        // Ten keys a commit, spread over all of them; now and then one goes and comes back.
        let ops = (0..10).map(|at| {
            let key = format!("routes/{:04}", (change * 7919 + at * 101) % 1000);
            if (change + at) % 13 == 0 { delete(&key) } else { put(&key, &value[..change % 300]) }
        });
        commit(&store, ops.collect()).await;
        if change % 200 == 199 {
            sizes.insert(change + 1, fs::metadata(database(folder.path())).unwrap().size());
        }
    }
    let largest = sizes.values().max().expect("sizes");
    assert!(*largest < 4 * 1024 * 1024, "{sizes:?}");
    let before = store.list("").await.unwrap();
    drop(store);
    let closed = fs::metadata(database(folder.path())).unwrap().size();
    assert_eq!(open(folder.path()).await.list("").await.unwrap(), before);
    assert!(closed <= *largest, "{closed} bytes after all were {sizes:?}");
}

#[tokio::test]
async fn a_file_of_holes_is_written_anew_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let value = "x".repeat(1024 * 1024);
    commit(&store, (0..40).map(|n| put(&format!("a/{n}"), &value)).collect()).await;
    commit(&store, vec![put("b", "stays"), Op::DeletePrefix { prefix: "a/".into() }]).await;
    let before = store.list("").await.unwrap();
    // Killed, so that nothing tidies up: the file is taken as it is now.
    let killed = tempfile::tempdir().unwrap();
    fs::copy(database(folder.path()), database(killed.path())).unwrap();
    assert!(fs::metadata(database(killed.path())).unwrap().size() > 32 * 1024 * 1024);
    let store = open(killed.path()).await;
    assert!(fs::metadata(database(killed.path())).unwrap().size() < 1024 * 1024);
    assert_eq!(store.list("").await.unwrap(), before, "revisions too");
    assert_eq!(names(killed.path()), ["lock", "routes.redb"]);
    assert_eq!(rights(&database(killed.path())), 0o600);
    let next = commit(&store, vec![put("b", "goes on")]).await;
    drop(store);
    let again = open(killed.path()).await.list("").await.unwrap();
    assert_eq!((again.revision, &*again.entries[0].value), (next, &b"goes on"[..]));
}

/// Anything quadratic in a transaction's size would take minutes here, on any machine.
const LINEAR: Duration = Duration::from_secs(30);

/// As many operations as there may be, all in one transaction, and everything away again.
#[tokio::test]
async fn the_largest_transaction_takes_no_longer_than_its_size_asks() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let puts = (0..100_000).map(|n| put(&format!("traefik/http/routers/{:05}/rule{n}", n / 4), &"x".repeat(300)));
    let begun = Instant::now();
    commit(&store, puts.collect()).await;
    assert!(begun.elapsed() < LINEAR, "{:?} for 100,000 puts", begun.elapsed());
    let begun = Instant::now();
    let prefixes = (0..25_000).map(|n| Op::DeletePrefix { prefix: format!("traefik/http/routers/{n:05}/") });
    commit(&store, prefixes.collect()).await;
    assert!(begun.elapsed() < LINEAR, "{:?} to delete all", begun.elapsed());
    assert_eq!(store.list("").await.unwrap().entries.len(), 0);
}

/// Traefik's whole tree, records and all, where there was none: a new layout, or a hub that moves in.
#[tokio::test]
async fn the_tree_of_10_000_routes_goes_into_one_transaction() {
    let mut table = RouteTable::default();
    for n in 0..10_000 {
        let spec = RouteSpec::from_decoded(&format!("/user/somebody-{n:05}@university.example/server {n}/")).unwrap();
        let target = Target::parse(&format!("http://10.0.{}.{}:8888", n / 250, n % 250)).unwrap();
        let data = RouteData::new();
        table.insert(Route { spec, target, data, created: jiff::Timestamp::UNIX_EPOCH, n: 1 }.into());
    }
    let settings = Settings {
        root_key: "traefik".into(),
        entry_points: vec!["web".into()],
        space: Space::Paths,
        pages_url: None,
        pages_get_address: false,
        middlewares: Vec::new(),
        servers: Servers::default(),
    };
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let limits = store.limits();
    let limits = Limits {
        edits_max: limits.ops_max,
        bytes_max: limits.bytes_max,
        reserved_edits: 10_003,
        reserved_bytes: 10_000 * 1024,
    };
    let mut steps =
        plan::plan(&table, &Tree::default(), &settings, Sizes::default(), limits, &BTreeSet::new()).into_iter();
    let (step, rest) = (steps.next().unwrap(), steps.len());
    assert_eq!((step.complete, rest), (true, 0));
    let (count, bytes) = (step.edits.len(), step.edits.iter().map(Edit::bytes).sum::<usize>());
    assert!(count > 30_000 && count < 70_000 && bytes < 20_000_000, "{count} edits of {bytes} bytes");
    let ops = step.edits.into_iter().map(|edit| match edit {
        Edit::Put { key, value } => Op::Put { key: format!("traefik/{key}"), value: value.into_bytes() },
        Edit::Delete { key } => Op::Delete { key: format!("traefik/{key}") },
        Edit::DeletePrefix { prefix } => Op::DeletePrefix { prefix: format!("traefik/{prefix}") },
    });
    commit(&store, ops.collect()).await;
    let entries = store.list("traefik/").await.unwrap().entries;
    assert_eq!(entries.len(), count);
}
