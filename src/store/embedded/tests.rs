use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use redb::{Database, TableDefinition};
use tempfile::TempDir;

use super::faults::{Done, Faults};
use super::folder::Folder;
use super::{EmbeddedStore, OpenError};
use crate::store::{Commit, Guard, Listing, Op, Revision, Store, StoreError, Txn};

/// Opens the store of a folder on a disk that can fail.
fn try_open(folder: &Path) -> (Faults, Result<EmbeddedStore, OpenError>) {
    let folder = Folder::new(folder.to_owned());
    let faults = folder.faults.clone();
    (faults, EmbeddedStore::open_blocking(folder, Duration::ZERO))
}

fn open(folder: &Path) -> (Faults, EmbeddedStore) {
    let (faults, opened) = try_open(folder);
    (faults, opened.unwrap_or_else(|error| panic!("{error}")))
}

/// Several keys at once, some of them new: larger than what fits into the file's free pages.
fn step(n: u8) -> Txn {
    let put = |at: u8| Op::Put { key: format!("k/{}", at % 40), value: vec![n; 50 + 20 * usize::from(at)] };
    let mut ops: Vec<Op> = (0..20).map(|at| put(n.wrapping_add(at))).collect();
    ops.push(Op::Delete { key: format!("k/{}", n.wrapping_add(25) % 40) });
    Txn { guards: Vec::new(), ops }
}

async fn commit(store: &EmbeddedStore, txn: Txn) -> Result<Revision, StoreError> {
    store.commit(txn).await.map(|commit| match commit {
        Commit::Done(revision) => revision,
        Commit::Conflict(_) => panic!("a conflict without a guard"),
    })
}

async fn content(store: &EmbeddedStore) -> Listing {
    store.list("").await.expect("a listing")
}

fn database(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("routes.redb")
}

/// Fails each writing call of a commit in turn, and everything after it, as a full disk does.
#[tokio::test]
async fn a_write_that_fails_at_any_point_changes_nothing_and_the_next_one_works() {
    let mut failed = 0;
    for calls in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let (faults, store) = open(folder.path());
        commit(&store, step(1)).await.unwrap();
        let before = content(&store).await;
        let mut watch = store.watch("k/", before.revision).await.unwrap();
        faults.fail_after(calls);
        let outcome = commit(&store, step(2)).await;
        if !faults.mend() {
            outcome.unwrap();
            break;
        }
        failed += 1;
        let Err(StoreError::Unavailable(why)) = &outcome else { panic!("after {calls} calls: {outcome:?}") };
        assert!(why.starts_with(&format!("{} can't be written: ", database(&folder).display())), "{why}");
        assert_eq!(content(&store).await, before, "after {calls} calls");
        faults.fail_after(0);
        let again = commit(&store, step(3)).await;
        assert!(matches!(again, Err(StoreError::Unavailable(_))), "still full, after {calls} calls: {again:?}");
        assert_eq!(content(&store).await, before, "after {calls} calls");
        faults.mend();
        let only_the_old = Guard::at("k/1", before.revision);
        let revision = store.commit(Txn { guards: vec![only_the_old], ..step(4) }).await.unwrap();
        assert_eq!(revision, Commit::Done(before.revision + 1), "there is room again, after {calls} calls");
        let after = content(&store).await;
        let seen = watch.next().await.unwrap();
        assert_eq!((seen.revision, seen.events.len()), (after.revision, 20), "nothing was seen of what failed");
        drop(store);
        assert_eq!(content(&open(folder.path()).1).await, after, "after {calls} calls");
    }
    assert!(failed > 10, "only {failed} points were tried");
}

/// The same, but the process ends before anything else is written.
#[tokio::test]
async fn a_process_that_ends_after_a_failed_write_leaves_a_whole_state() {
    let (mut kept, mut lost) = (0, 0);
    for calls in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let (faults, store) = open(folder.path());
        commit(&store, step(1)).await.unwrap();
        let before = content(&store).await;
        faults.fail_after(calls);
        let outcome = commit(&store, step(2)).await;
        drop(store);
        if outcome.is_ok() {
            break;
        }
        faults.mend();
        let (_, store) = open(folder.path());
        let found = content(&store).await;
        // It was not acknowledged, and may have happened.
        if found == before {
            lost += 1;
        } else {
            assert_eq!(found.revision, before.revision + 1, "after {calls} calls");
            let fresh = tempfile::tempdir().unwrap();
            let (_, other) = open(fresh.path());
            commit(&other, step(1)).await.unwrap();
            commit(&other, step(2)).await.unwrap();
            assert_eq!(found, content(&other).await, "after {calls} calls");
            kept += 1;
        }
    }
    assert!(lost > 5 && kept > 0, "{lost} were lost, {kept} were kept");
}

/// A full disk takes nothing of what opening the file writes, and everything that was acknowledged is there all the same.
#[tokio::test]
async fn a_file_on_a_full_disk_is_read_and_written_once_there_is_room() {
    let mut failed = 0;
    for calls in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let (faults, store) = open(folder.path());
        commit(&store, step(1)).await.unwrap();
        // The next opening has something to mend.
        faults.fail_after(3);
        commit(&store, step(2)).await.unwrap_err();
        let before = content(&store).await;
        drop(store);
        let place = Folder::new(folder.path().to_owned());
        let faults = place.faults.clone();
        faults.fail_after(calls);
        let store =
            EmbeddedStore::open_blocking(place, Duration::ZERO).unwrap_or_else(|e| panic!("{calls} calls: {e}"));
        assert_eq!(content(&store).await, before, "after {calls} calls");
        if !faults.mend() {
            break;
        }
        failed += 1;
        faults.fail_after(0);
        commit(&store, step(3)).await.unwrap_err();
        faults.mend();
        commit(&store, step(4)).await.unwrap();
        let after = content(&store).await;
        assert_eq!(after.revision, before.revision + 1);
        drop(store);
        assert_eq!(content(&open(folder.path()).1).await, after, "after {calls} calls");
    }
    assert!(failed > 0, "no call of an opening writes");
}

#[tokio::test]
async fn a_folder_that_can_not_be_begun_is_no_damaged_one() {
    let mut failed = 0;
    for calls in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let place = Folder::new(folder.path().to_owned());
        place.faults.fail_after(calls);
        match EmbeddedStore::open_blocking(place, Duration::ZERO) {
            Ok(_) => break,
            Err(OpenError::Folder { .. }) => failed += 1,
            Err(error) => panic!("after {calls} calls: {error}"),
        }
        assert!(!database(&folder).exists() && !folder.path().join("routes.redb.new").exists(), "after {calls} calls");
        assert_eq!(content(&open(folder.path()).1).await.entries, [], "after {calls} calls");
    }
    assert!(failed > 3, "only {failed} points were tried");
}

#[tokio::test]
async fn another_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    commit(&open(folder.path()).1, step(1)).await.unwrap();
    let file = Database::open(database(&folder)).unwrap();
    let txn = file.begin_write().unwrap();
    {
        let mut meta = txn.open_table(TableDefinition::<&str, &str>::new("meta")).unwrap();
        meta.insert("format", "2").unwrap();
        meta.insert("created_by", "pointsman 9.1.0").unwrap();
    }
    txn.commit().unwrap();
    drop(file);
    let error = try_open(folder.path()).1.expect_err("another format").to_string();
    let file = database(&folder);
    let begin = format!("{} has the format 2, written by pointsman 9.1.0, and this is pointsman ", file.display());
    assert!(error.starts_with(&begin), "{error}");
    assert!(error.contains("which reads format 1: use that version, or move the folder away"), "{error}");
    assert!(Database::open(file).is_ok(), "it is still a good file");
}

#[tokio::test]
async fn an_older_file_than_there_was_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, store) = open(folder.path());
    commit(&store, step(1)).await.unwrap();
    let older = fs::read(database(&folder)).unwrap();
    commit(&store, step(2)).await.unwrap();
    drop(store);
    fs::write(database(&folder), older).unwrap();
    let error = try_open(folder.path()).1.expect_err("an older file").to_string();
    assert!(error.contains("it ends with revision 2, and 3 had been committed"), "{error}");
    fs::remove_file(database(&folder)).unwrap();
    assert_eq!(content(&open(folder.path()).1).await.entries, [], "a file that was moved away is another matter");
}

/// What is on the disk after a cut of its power: everything up to the last fsync, and of what was written after it any
/// part in any order.
fn after_power_cut(base: &[u8], done: &[Done], lucky: &mut impl FnMut() -> bool) -> Vec<u8> {
    let synced = done.iter().rposition(|done| matches!(done, Done::Sync)).map_or(0, |at| at + 1);
    let mut file = base.to_vec();
    for (at, done) in done.iter().enumerate() {
        match done {
            // The length is the file system's own business, and in order.
            Done::Length(length) => file.resize(*length, 0),
            Done::Write(offset, data) if file.len() < offset + data.len() => panic!("{offset} is beyond the end"),
            Done::Write(offset, data) => {
                // Sector by sector.
                for (sector, part) in data.chunks(512).enumerate() {
                    if at < synced || lucky() {
                        let from = offset + sector * 512;
                        file[from..from + part.len()].copy_from_slice(part);
                    }
                }
            }
            Done::Sync => {}
        }
    }
    file
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_cut_of_the_power() {
    let folder = tempfile::tempdir().unwrap();
    let (faults, store) = open(folder.path());
    let base = fs::read(database(&folder)).unwrap();
    faults.record();
    // How much had been done when each revision was acknowledged, and what it held.
    let mut acknowledged = vec![(0, content(&store).await)];
    for n in 0..40 {
        commit(&store, step(n)).await.unwrap();
        acknowledged.push((faults.done().len(), content(&store).await));
    }
    let done = faults.done();
    let mut runner = TestRunner::new(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() });
    let runtime = tokio::runtime::Handle::current();
    let cut = (0..=done.len(), any::<u64>());
    tokio::task::spawn_blocking(move || {
        runner.run(&cut, |(at, seed)| {
            let mut seed = seed;
            let mut lucky = || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                seed >> 63 == 1
            };
            let folder = tempfile::tempdir().unwrap();
            fs::write(database(&folder), after_power_cut(&base, &done[..at], &mut lucky)).unwrap();
            let found = runtime.block_on(content(&open(folder.path()).1));
            let newest = acknowledged.iter().rposition(|(then, _)| *then <= at).unwrap();
            let allowed = &acknowledged[newest..acknowledged.len().min(newest + 2)];
            prop_assert!(
                allowed.iter().any(|(_, content)| *content == found),
                "revision {} after {} was acknowledged",
                found.revision,
                acknowledged[newest].1.revision
            );
            Ok(())
        })
    })
    .await
    .unwrap()
    .unwrap();
}
