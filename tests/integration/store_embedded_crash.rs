//! The embedded store under kill -9, with a file that is torn, and on a full disk.
//!
//! The processes that are killed are this test program itself, told by a variable to be the writer.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use pointsman::store::embedded::{EmbeddedStore, OpenError};
use pointsman::store::{Commit, Listing, Op, Revision, Store, StoreError, Txn};

use crate::support::embedded::{database, open, try_open};

/// The variable that makes a test the writer, and names its folder.
const WRITER: &str = "POINTSMAN_TEST_WRITER";

/// The folder, if this process is to be the writer.
fn writers_folder() -> Option<PathBuf> {
    std::env::var_os(WRITER).map(PathBuf::from)
}

/// Says something to the test that has started this process.
fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}").and_then(|()| out.flush()).expect("somebody who listens");
}

/// A writer, killed when dropped, and when this process dies.
struct Writer {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Writer {
    /// Starts one test of this program as a writer; `wrapper` comes before it on the command line.
    fn start(test: &str, folder: &Path, wrapper: &[&str]) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(wrapper)
            .arg(program)
            .args(["--exact", &format!("store_embedded_crash::{test}"), "--nocapture"])
            .env(WRITER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv, of util-linux");
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, said }
    }

    /// What comes after `word` on the next line that begins with it; `None` at the end.
    fn hears(&mut self, word: &str) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.said.read_line(&mut line).expect("text") == 0 {
                return None;
            }
            // The harness says things of its own on the same line.
            if let Some((_, rest)) = line.trim_end().split_once(word) {
                return Some(rest.trim().to_owned());
            }
        }
    }

    fn kill(&mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets the files of a process grow as far as it likes from now on.
fn lift_limit(pid: u32) {
    let lifted = Command::new("prlimit").args(["--pid", &pid.to_string(), "--fsize=unlimited"]).status();
    assert!(lifted.is_ok_and(|status| status.success()), "prlimit, of util-linux");
}

type State = BTreeMap<String, (Vec<u8>, Revision)>;

/// The transaction that leads to a revision, whoever makes it: some puts, and sometimes a delete.
fn step(to: Revision) -> Vec<Op> {
    let n = usize::try_from(to).expect("a small number");
    let keys: Vec<usize> = (0..=n % 7).map(|at| (n * 31 + at * 17) % 97).collect();
    let value = |at: usize| format!("{n}.{at} ").repeat(1 + n % 60).into_bytes();
    let mut ops: Vec<Op> =
        keys.iter().enumerate().map(|(at, key)| Op::Put { key: format!("k/{key}"), value: value(at) }).collect();
    let gone = (n * 13) % 97;
    if n % 3 == 0 && !keys.contains(&gone) {
        ops.push(Op::Delete { key: format!("k/{gone}") });
    }
    ops
}

/// What a store holds that has come to a revision.
fn state_at(revision: Revision) -> State {
    let mut state = State::new();
    for at in 2..=revision {
        for op in step(at) {
            match op {
                Op::Put { key, value } => drop(state.insert(key, (value, at))),
                Op::Delete { key } => drop(state.remove(&key)),
                Op::DeletePrefix { .. } => unreachable!("no step has one"),
            }
        }
    }
    state
}

fn state_of(listing: Listing) -> State {
    listing.entries.into_iter().map(|entry| (entry.key, (entry.value, entry.mod_revision))).collect()
}

async fn next_step(store: &EmbeddedStore) -> Result<Revision, StoreError> {
    let revision = store.list("none/").await?.revision;
    match store.commit(Txn { guards: Vec::new(), ops: step(revision + 1) }).await? {
        Commit::Done(at) => Ok(at),
        Commit::Conflict(_) => panic!("a conflict without a guard"),
    }
}

/// A folder whose store has come to a revision.
async fn folder_at(revision: Revision) -> (tempfile::TempDir, EmbeddedStore) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).await;
    while next_step(&store).await.expect("a commit") < revision {}
    (folder, store)
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_killed_writer() {
    if let Some(folder) = writers_folder() {
        let store = open(&folder).await;
        loop {
            let revision = next_step(&store).await.expect("a commit");
            say(&format!("acknowledged {revision}"));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut between) = (1, 0);
    for round in 0..40 {
        let mut writer = Writer::start("what_was_acknowledged_outlives_a_killed_writer", folder.path(), &[]);
        // At any moment: before the first commit, and in the middle of one.
        let kill_after = random() % 30;
        for _ in 0..kill_after {
            let said = writer.hears("acknowledged").expect("a writer that writes");
            acknowledged = said.parse().expect("a revision");
        }
        let until = Instant::now() + Duration::from_micros(random() % 20_000);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        writer.kill();
        while let Some(said) = writer.hears("acknowledged") {
            acknowledged = said.parse().expect("a revision");
        }
        // Every other time the next writer is the first to see what was left.
        if round % 2 == 0 {
            let store = open(folder.path()).await;
            let found = store.list("").await.unwrap();
            let revision = found.revision;
            assert!(
                revision == acknowledged || revision == acknowledged + 1,
                "at {revision} after {acknowledged} was acknowledged"
            );
            between += revision - acknowledged;
            assert_eq!(state_of(found), state_at(revision), "at {revision} after {acknowledged} was acknowledged");
            acknowledged = revision;
        }
    }
    assert!(acknowledged > 100, "only {acknowledged} commits ({between} of them killed before they were answered)");
}

/// Damages a file in some way, and says how.
fn damage(file: &mut Vec<u8>) -> String {
    let at = usize::try_from(random() % file.len() as u64).expect("small");
    // Half of the time near the beginning, where the file says what it is.
    let at = if random().is_multiple_of(2) { at } else { at % 8192 };
    match random() % 5 {
        0 => {
            let len = at / 4096 * 4096;
            file.truncate(len);
            format!("cut to {len}")
        }
        1 => {
            file.truncate(at);
            format!("cut to {at}")
        }
        2 => {
            let end = file.len().min(at + 4096);
            file[at..end].fill(0);
            format!("zeros from {at} to {end}")
        }
        3 => {
            let noise = random().to_le_bytes();
            let end = file.len().min(at + noise.len());
            file[at..end].copy_from_slice(&noise[..end - at]);
            format!("{noise:?} at {at}")
        }
        _ => {
            let bit = random() % 8;
            file[at] ^= 1 << bit;
            format!("bit {bit} of byte {at}")
        }
    }
}

/// The file of a folder, and what stands in its lock.
fn files(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    (fs::read(database(folder)).expect("a file"), fs::read(folder.join("lock")).expect("a file"))
}

/// Opens a file: either exactly this is in it, or it is refused by name.
async fn is_right_or_refused(file: &[u8], lock: &[u8], expected: &Listing, what: &str) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(database(folder.path()), file).expect("a file");
    fs::write(folder.path().join("lock"), lock).expect("a file");
    match try_open(folder.path()).await {
        Ok(store) => {
            let found = store.list("").await.expect("a listing");
            assert_eq!(found.revision, expected.revision, "{what}");
            assert!(found == *expected, "{what}: opened with other content");
            next_step(&store).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            true
        }
        Err(error @ OpenError::Damaged { .. }) => {
            let said = error.to_string();
            let name = database(folder.path()).display().to_string();
            assert!(said.contains(&name) && said.contains("move its folder away"), "{what}: {said}");
            false
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_right() {
    let (folder, store) = folder_at(300).await;
    let expected = store.list("").await.unwrap();
    assert_eq!(state_of(expected.clone()), state_at(300));
    let killed = files(folder.path());
    drop(store);
    let closed = files(folder.path());
    let mut opened = 0;
    for (kind, (good, lock)) in [("killed", &killed), ("closed", &closed)] {
        assert!(is_right_or_refused(good, lock, &expected, kind).await, "a good file opens");
        for _ in 0..250 {
            let mut file = good.clone();
            let what = format!("{kind}, {}", damage(&mut file));
            opened += usize::from(is_right_or_refused(&file, lock, &expected, &what).await);
        }
        // The flags of the file, one of which says which of its two last states is the newer one.
        for bit in 0..8 {
            let mut file = good.clone();
            file[9] ^= 1 << bit;
            is_right_or_refused(&file, lock, &expected, &format!("{kind}, flag {bit}")).await;
        }
    }
    assert!((1..500).contains(&opened), "{opened} of 500 files were opened");
}

/// What a writer on a full disk does: fills it, sees that nothing has changed, and goes on when there is room.
async fn write_until_full_and_on(folder: &Path) {
    let store = open(folder).await;
    let big = |n: usize| Op::Put { key: format!("k/{n}"), value: vec![b'x'; 50_000] };
    let mut written = 0;
    let refused = loop {
        match store.commit(Txn { guards: Vec::new(), ops: vec![big(written)] }).await {
            Ok(_) => written += 1,
            Err(refused) => break refused,
        }
        assert!(written < 1000, "the limit is not in force");
    };
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    assert!(refused.to_string().contains("routes.redb can't be written: "), "{refused}");
    let before = store.list("").await.expect("a listing");
    assert_eq!(before.entries.len(), written);
    let again = store.commit(Txn { guards: Vec::new(), ops: vec![big(written)] }).await;
    assert!(matches!(again, Err(StoreError::Unavailable(_))), "{again:?}");
    assert_eq!(store.list("").await.expect("a listing"), before);
    say(&format!("full {written}"));
    std::io::stdin().read_line(&mut String::new()).expect("a word");
    for at in written..written + 20 {
        let commit = store.commit(Txn { guards: Vec::new(), ops: vec![big(at)] }).await.expect("there is room");
        assert_eq!(commit, Commit::Done(before.revision + 1 + i64::try_from(at - written).expect("small")));
    }
    say("done");
}

/// A file that may not grow stands for a full disk: the same calls fail, and no right is needed to arrange it.
#[tokio::test]
async fn a_full_disk_refuses_commits_and_harms_nothing() {
    if let Some(folder) = writers_folder() {
        return write_until_full_and_on(&folder).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let limited = ["env", "--ignore-signal=XFSZ", "prlimit", "--fsize=1000000:unlimited", "--"];
    let mut writer = Writer::start("a_full_disk_refuses_commits_and_harms_nothing", folder.path(), &limited);
    let written: usize = writer.hears("full").expect("a disk that gets full").parse().expect("a number");
    assert!(written > 3, "full after {written}");
    let held = try_open(folder.path()).await.expect_err("the writer has the folder");
    assert!(matches!(held, OpenError::Held { pid, .. } if pid == Some(writer.child.id())), "{held}");
    lift_limit(writer.child.id());
    writer.child.stdin.take().expect("a pipe").write_all(b"go on\n").expect("somebody who listens");
    writer.hears("done").expect("a writer that goes on");
    writer.child.wait().expect("a child of ours");
    assert_eq!(open(folder.path()).await.list("").await.unwrap().entries.len(), written + 20);
}
