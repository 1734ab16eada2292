//! The folder: made for us alone, held by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::OpenError;
use crate::files::sync_folder;
use crate::store::Revision;

/// How often a held folder is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Names and rights of what lies in the folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    #[cfg(test)]
    pub(super) faults: super::faults::Faults,
}

/// The folder is ours as long as this lives. The system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    committed: Option<Revision>,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            #[cfg(test)]
            faults: super::faults::Faults::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file with all keys.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("routes.redb")
    }

    /// Where its successor is written. One that is found was never finished.
    pub(super) fn successor(&self) -> PathBuf {
        self.path.join("routes.redb.new")
    }

    /// Makes the folder if need be, and takes hold of it, waiting for a predecessor that is just ending.
    pub(super) fn take(&self, patience: Duration) -> Result<Lock, OpenError> {
        let refuse = |what: &str, error: io::Error| OpenError::Folder {
            folder: self.path.clone(),
            why: format!("{what}: {error}"),
        };
        if !self.path.is_dir() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
            made.map_err(|error| refuse("it can't be made", error))?;
            if let Some(parent) = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                sync_folder(parent).map_err(|error| refuse("it can't be made", error))?;
            }
        }
        let path = self.path.join("lock");
        let options = private().read(true).write(true).create(true).truncate(false).open(&path);
        let file = options.map_err(|error| refuse("its file lock can't be opened", error))?;
        let give_up = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(refuse("its file lock can't be locked", error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= give_up => {
                    let pid =
                        fs::read_to_string(&path).ok().and_then(|text| text.split_whitespace().next()?.parse().ok());
                    return Err(OpenError::Held { folder: self.path.clone(), pid });
                }
                Err(TryLockError::WouldBlock) => sleep(RETRY_PAUSE),
            }
        }
        let left = fs::read_to_string(&path).unwrap_or_default();
        let committed = left.split_whitespace().nth(1).and_then(|revision| revision.parse().ok());
        Ok(Lock { file, committed })
    }

    /// Makes the names of the folder's files durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync_folder(&self.path)
    }
}

impl Lock {
    /// The newest revision that the last holder is known to have committed. It may have been newer.
    pub(super) fn committed(&self) -> Option<Revision> {
        self.committed
    }

    /// Leaves word of who we are and what has been committed, once it is. Not made durable, so it outlives this process
    /// and not the machine: a second opinion on the file, never more than the file itself says. Without it there is
    /// merely none.
    pub(super) fn leave_word(&self, committed: Revision) {
        // As wide as ever, so that it is one write over the last one.
        let _ = self.file.write_all_at(format!("{:10}\n{committed:20}\n", std::process::id()).as_bytes(), 0);
    }
}

/// Options of a file that nobody else may read.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}
