//! The member's volume: etcd's data, our note, and the file that etcd is started with. Each is written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::note::Note;
use super::situation::Directory;
use super::wal::{self, BEGINNING_BYTES};
use crate::files;

/// Where everything of one member lies.
#[derive(Debug, Clone)]
pub struct Home {
    folder: PathBuf,
}

impl Home {
    /// The folder of the volume, which must be there.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// etcd's data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("etcd")
    }

    /// The file that etcd is started with.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("etcd.json")
    }

    fn note(&self) -> PathBuf {
        self.folder.join("etcd-join.json")
    }

    /// What is there of etcd's.
    pub fn look(&self) -> io::Result<Directory> {
        let member = self.data().join("member");
        let mut files = match fs::read_dir(member.join("wal")) {
            Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        files.retain(|file| file.extension().is_some_and(|extension| extension == "wal"));
        // Before it has a log, which comes to its place whole, an etcd promises nothing.
        let Some(first) = files.iter().min() else { return Ok(Directory::Empty) };
        let mut beginning = Vec::new();
        File::open(first)?.take(BEGINNING_BYTES as u64).read_to_end(&mut beginning)?;
        let Some(identity) = wal::identity(&beginning) else {
            return Ok(Directory::Damaged(format!("{} is no log of etcd's", first.display())));
        };
        let database = member.join("snap/db");
        Ok(match fs::metadata(&database) {
            Ok(found) if found.len() > 0 => Directory::Of(identity),
            _ => Directory::Damaged(format!("{} is missing", database.display())),
        })
    }

    /// What was noted, if it can be read.
    pub fn load(&self) -> io::Result<Option<Note>> {
        match fs::read(self.note()) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes something; it is on disk when this returns.
    pub fn store(&self, note: &Note) -> io::Result<()> {
        files::replace(&self.note(), &serde_json::to_vec(note)?, 0o600)
    }

    /// Writes the file that etcd is started with.
    pub fn store_config(&self, text: &str) -> io::Result<()> {
        files::replace(&self.config(), text.as_bytes(), 0o600)
    }

    /// Removes etcd's data. They are out of the way at once, also if this is killed before the last is gone.
    pub fn discard(&self) -> io::Result<()> {
        let doomed = self.folder.join("etcd.discarded");
        remove(&doomed)?;
        match fs::rename(self.data(), &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        files::sync_folder(&self.folder)?;
        remove(&doomed)
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_and_files_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        assert_eq!(home.load().unwrap(), None);
        let note = Note::new("abc".to_owned());
        home.store(&note).unwrap();
        assert_eq!(home.load().unwrap(), Some(note));
        fs::write(home.note(), "half a no").unwrap();
        assert_eq!(home.load().unwrap(), None);
        home.store_config("{}").unwrap();
        assert_eq!(fs::read_to_string(home.config()).unwrap(), "{}");
    }

    #[test]
    fn a_directory_without_a_log_is_empty_and_one_without_its_rest_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        assert_eq!(home.look().unwrap(), Directory::Empty);
        fs::create_dir_all(home.data().join("member/snap")).unwrap();
        fs::write(home.data().join("member/snap/db"), "x").unwrap();
        fs::create_dir_all(home.data().join("member/wal")).unwrap();
        fs::write(home.data().join("member/wal/0.tmp"), "x").unwrap();
        assert_eq!(home.look().unwrap(), Directory::Empty);
        fs::write(home.data().join("member/wal/0000-0000.wal"), "x").unwrap();
        assert!(matches!(home.look().unwrap(), Directory::Damaged(why) if why.contains("is no log")));
        home.discard().unwrap();
        assert_eq!(home.look().unwrap(), Directory::Empty);
        assert!(!home.data().exists());
        home.discard().unwrap();
    }
}
