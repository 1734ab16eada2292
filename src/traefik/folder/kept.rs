//! Files as they were written last: one that is removed under a running Traefik is written again, the same as before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{FolderError, create, replace};

/// The files, with their modes. They hold private keys, so this is never shown.
#[derive(Default)]
pub struct Kept(Mutex<BTreeMap<PathBuf, (Vec<u8>, u32)>>);

impl Kept {
    /// Writes a file, and keeps it.
    pub fn replace(&self, path: &Path, text: impl AsRef<[u8]>, mode: u32) -> Result<(), FolderError> {
        replace(path, &text, mode)?;
        self.lock().insert(path.to_owned(), (text.as_ref().to_owned(), mode));
        Ok(())
    }

    /// Keeps a file that is there.
    pub fn keep(&self, path: &Path, mode: u32) -> Result<(), FolderError> {
        let bytes = std::fs::read(path).map_err(|error| FolderError::Io(path.to_owned(), error))?;
        self.lock().insert(path.to_owned(), (bytes, mode));
        Ok(())
    }

    /// Writes the files again that are missing, with their folders, and says which.
    pub fn restore(&self) -> Result<Vec<PathBuf>, FolderError> {
        let files = self.lock();
        let missing: Vec<_> = files.iter().filter(|(path, _)| !path.exists()).collect();
        for (path, (bytes, mode)) in &missing {
            if let Some(folder) = path.parent() {
                create(folder)?;
            }
            replace(path, bytes, *mode)?;
        }
        Ok(missing.into_iter().map(|(path, _)| path.clone()).collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, (Vec<u8>, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_missing_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let [kept, other] = ["a/b/kept", "other"].map(|name| folder.path().join(name));
        create(kept.parent().unwrap()).unwrap();
        let files = Kept::default();
        files.replace(&kept, "old", 0o644).unwrap();
        files.replace(&kept, "new", 0o600).unwrap();
        fs::write(&other, "made elsewhere").unwrap();
        files.keep(&other, 0o600).unwrap();
        assert_eq!(files.restore().unwrap(), Vec::<PathBuf>::new());
        fs::remove_dir_all(folder.path().join("a")).unwrap();
        fs::remove_file(&other).unwrap();
        assert_eq!(files.restore().unwrap(), [kept.clone(), other.clone()]);
        assert_eq!((fs::read(&kept).unwrap(), fs::read(&other).unwrap()), (b"new".into(), b"made elsewhere".into()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&kept), mode(kept.parent().unwrap()), mode(&other)), (0o600, 0o700, 0o600));
    }
}
