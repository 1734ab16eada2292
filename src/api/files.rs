//! Small files that are read again when they change: certificates, keys, pages.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
            let seen = std::fs::metadata(file).ok()?;
            let modified = (seen.mtime(), seen.mtime_nsec());
            Some(Seen { file: (seen.dev(), seen.ino()), modified, bytes: seen.size() })
        };
        Self(files.into_iter().map(look).collect())
    }
}

/// Reads a regular file of at most `bytes_max` bytes; anything else is an error that says so.
pub fn read(file: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // A named pipe would hold us up for ever, before a single byte is asked for.
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it is longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}
