//! What can be seen of a folder from outside, without taking hold of it or changing anything.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A folder, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The number of the user whom it belongs to.
    pub owner: u32,
    /// Its permission bits.
    pub mode: u32,
    /// What an unprivileged user may still write there, in bytes, if the system says so.
    pub free_bytes: Option<u64>,
    /// Who holds it.
    pub held: Held,
    /// The size of the file with all keys, in bytes, if it is there.
    pub database_bytes: Option<u64>,
}

/// Whether a process holds a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Nobody.
    No,
    /// A process, with its number if it left it.
    By(Option<u32>),
    /// That can't be seen with our rights.
    Unknown,
}

/// Looks at a folder; `None` if it isn't there.
pub fn look(folder: &Path) -> io::Result<Option<Seen>> {
    let metadata = match fs::metadata(folder) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !metadata.is_dir() {
        return Err(io::Error::other("it is not a folder"));
    }
    Ok(Some(Seen {
        owner: metadata.uid(),
        mode: metadata.mode() & 0o7777,
        free_bytes: rustix::fs::statvfs(folder).ok().map(|seen| seen.f_bavail.saturating_mul(seen.f_frsize)),
        held: held(&folder.join("lock")),
        database_bytes: fs::metadata(folder.join("routes.redb")).ok().map(|file| file.len()),
    }))
}

/// Whether a store was ever made in a folder.
#[must_use]
pub fn is_there(folder: &Path) -> bool {
    folder.join("routes.redb").exists()
}

/// The number of the user that we are.
#[must_use]
pub fn our_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether we may make files in a folder.
#[must_use]
pub fn may_write(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

fn held(lock: &Path) -> Held {
    let file = match File::open(lock) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Held::No,
        Err(_) => return Held::Unknown,
    };
    // A shared lock, for a moment: whoever holds the folder has an exclusive one.
    match file.try_lock_shared() {
        Ok(()) => Held::No,
        Err(TryLockError::WouldBlock) => {
            let text = fs::read_to_string(lock).unwrap_or_default();
            Held::By(text.split_whitespace().next().and_then(|word| word.parse().ok()))
        }
        Err(TryLockError::Error(_)) => Held::Unknown,
    }
}
