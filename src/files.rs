//! Files: replaced whole and for good, read up to a limit, and read again when they change.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// How a set of files looked at one moment; a file that isn't there is `None`. Equal stamps: nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Vec<Option<Seen>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    file: (u64, u64),
    modified: (i64, i64),
    bytes: u64,
}

impl Stamp {
    /// Looks at the files now. Links are followed: a mounted secret is renewed by turning a link.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let look = |file: &Path| {
            let seen = fs::metadata(file).ok()?;
            let modified = (seen.mtime(), seen.mtime_nsec());
            Some(Seen { file: (seen.dev(), seen.ino()), modified, bytes: seen.size() })
        };
        Self(files.into_iter().map(look).collect())
    }
}

/// Reads a regular file of at most `bytes_max` bytes; anything else is an error that says so.
pub fn read(file: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // A named pipe would hold us up for ever, before a single byte is asked for.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    read_any(file, bytes_max)
}

/// Reads at most `bytes_max` bytes of whatever has an end before that, be it a pipe that a shell hands over.
pub fn read_any(file: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it is longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Puts a whole file with these permission bits in the place of another: whoever reads it, also after a crash of the machine,
/// finds the old one or the new one, and once this returns the new one.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    Fresh::write(path, bytes, mode)?.put()
}

/// A file that is written and not yet in its place. It is gone with this value, unless it is put there.
#[derive(Debug)]
pub struct Fresh {
    written: PathBuf,
    place: PathBuf,
}

impl Fresh {
    /// Writes the file that is to lie at `path`, on the disk and beside it.
    pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let fresh = Self { written: path.with_file_name(name), place: path.to_owned() };
        // One that a process of our number left behind when it was killed. Made anew, so that its rights are ours to choose.
        let _ = fs::remove_file(&fresh.written);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh.written)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(fresh)
    }

    /// Puts it in its place.
    pub fn put(self) -> io::Result<()> {
        put(&self.written, &self.place)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // Half a file would only keep the space from the next try; one that was put is not there any more.
        let _ = fs::remove_file(&self.written);
    }
}

/// Puts a file that is on the disk already in the place of another one of its folder, for good.
pub fn put(written: &Path, place: &Path) -> io::Result<()> {
    fs::rename(written, place)?;
    sync_folder(place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_rights_and_nothing_is_left_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for (text, mode) in [("one", 0o600), ("two", 0o644), ("three", 0o600)] {
            replace(&path, text.as_bytes(), mode).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
            assert_eq!(names(folder.path()), ["a"]);
        }
        // What is written and not put takes no space.
        drop(Fresh::write(&path, b"four", 0o600).unwrap());
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), names(folder.path())),
            ("three", vec!["a".to_owned()])
        );
        // A link is replaced, never followed.
        let other = folder.path().join("other");
        fs::write(&other, "theirs").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        replace(&path, b"ours", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "theirs");
        assert!(replace(&folder.path().join("none/a"), b"", 0o600).is_err());
    }

    #[test]
    fn what_has_no_end_is_read_to_a_limit() {
        let endless = Path::new("/dev/zero");
        assert_eq!(read_any(endless, 100).unwrap_err().to_string(), "it is longer than 100 bytes");
        assert_eq!(read(endless, 100).unwrap_err().to_string(), "it is not a regular file");
        assert_eq!(read_any(Path::new("/dev/null"), 100).unwrap(), b"");
    }
}
