//! The folder: made for us alone, held by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::OpenError;

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
    _file: File,
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
                    let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
                    return Err(OpenError::Held { folder: self.path.clone(), pid });
                }
                Err(TryLockError::WouldBlock) => sleep(RETRY_PAUSE),
            }
        }
        // For the words of whoever comes next. Without it they are merely fewer.
        let _ = file.set_len(0).and_then(|()| (&file).write_all(format!("{}\n", std::process::id()).as_bytes()));
        Ok(Lock { _file: file })
    }

    /// Makes the names of the folder's files durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync_folder(&self.path)
    }
}

/// Options of a file that nobody else may read.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
