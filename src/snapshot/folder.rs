//! The folder of the snapshot: written whole or not at all, and the one before is kept.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::{Owner, Snapshot, SnapshotError};
use crate::files;

/// The newest snapshot.
const NEWEST: &str = "routes.json";

/// The one before.
const PREVIOUS: &str = "routes.previous.json";

/// Where snapshots of one installation lie on this disk.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    owner: Owner,
}

/// What [`Folder::store`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The size of the file.
    pub bytes: u64,
}

impl Folder {
    /// The folder at `path`, which need not be there.
    #[must_use]
    pub fn new(path: PathBuf, owner: Owner) -> Self {
        Self { path, owner }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest good snapshot. What can't be used is named in the log.
    #[must_use]
    pub fn load(&self) -> Option<Snapshot> {
        [NEWEST, PREVIOUS].into_iter().find_map(|name| {
            let path = self.path.join(name);
            let snapshot = self.read(&path)?;
            let (routes, n) = (snapshot.table.len(), snapshot.head.n);
            info!(routes, n, taken = %snapshot.taken, "The snapshot {} of {} holds {routes} routes", path.display(), snapshot.taken);
            Some(snapshot)
        })
    }

    fn read(&self, path: &Path) -> Option<Snapshot> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(%error, "The snapshot {} can't be read: {error}; look at --snapshot-dir", path.display());
                return None;
            }
        };
        match Snapshot::decode(&bytes, &self.owner) {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                let hint = match error {
                    SnapshotError::Foreign(_) => "; give each installation its own --snapshot-dir",
                    _ => "",
                };
                warn!(%error, "The snapshot {} is not used: {error}{hint}", path.display());
                None
            }
        }
    }

    /// Writes a snapshot in the place of the newest one, which becomes the previous one if `keep` says that it is good. A
    /// crash at any moment leaves a good one behind.
    pub fn store(&self, snapshot: &Snapshot, keep: bool) -> io::Result<Stored> {
        let bytes = snapshot.encode(&self.owner);
        if !self.path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        }
        let newest = self.path.join(NEWEST);
        let fresh = files::Fresh::write(&newest, &bytes, 0o600)?;
        if keep {
            match fs::rename(&newest, self.path.join(PREVIOUS)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fresh.put()?;
        Ok(Stored { bytes: bytes.len() as u64 })
    }

    /// Whether the newest file is a good snapshot.
    #[must_use]
    pub fn newest_is_good(&self) -> bool {
        fs::read(self.path.join(NEWEST)).is_ok_and(|bytes| Snapshot::decode(&bytes, &self.owner).is_ok())
    }
}
