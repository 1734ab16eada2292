//! The file with our process number.

use std::fs;
use std::path::{Path, PathBuf};

use crate::traefik::folder::{self, PUBLIC_MODE};

/// The file; gone with us, unless we are killed.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// Whether there is a folder for it: said before anything is started.
    pub(super) fn check(path: &Path) -> Result<(), String> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let found = fs::metadata(folder).map(drop);
        found.map_err(|error| format!("--pid-file: {} can't be written: {error}", path.display()))
    }

    /// Writes it in the place of whatever has its name: a symbolic link is replaced, never followed.
    pub(super) fn write(path: &Path) -> Result<Self, String> {
        let written = folder::replace(path, ours(), PUBLIC_MODE);
        written.map_err(|error| format!("--pid-file: {error}"))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Our successor may have written its own.
        let is_file = fs::symlink_metadata(&self.0).is_ok_and(|found| found.is_file());
        if is_file && fs::read_to_string(&self.0).is_ok_and(|text| text == ours()) {
            let _ = fs::remove_file(&self.0);
        }
    }
}

fn ours() -> String {
    std::process::id().to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_replaced_and_what_it_leads_to_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let [file, victim] = ["pid", "victim"].map(|name| folder.path().join(name));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &file).unwrap();
        let held = PidFile::write(&file).unwrap();
        assert_eq!(
            (fs::read_to_string(&file).unwrap(), fs::read_to_string(&victim).unwrap()),
            (ours(), "precious".into())
        );
        drop(held);
        assert!(!file.exists() && victim.exists());
    }

    #[test]
    fn only_our_own_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let held = PidFile::write(&file).unwrap();
        fs::write(&file, "1").unwrap();
        drop(held);
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
    }
}
