//! Files for Traefik: written whole, readable for their owner only, and a certificate for whoever asks for no other.

mod kept;

pub use kept::Kept;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use jiff::civil::{Date, date};
use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

use crate::files;

/// Nobody but the owner: the folder holds private keys, and perhaps a password.
const FOLDER_MODE: u32 = 0o700;

/// For a file that nobody but its owner may read.
pub const SECRET_MODE: u32 = 0o600;

/// For a file that everybody may read who gets into the folder.
pub const PUBLIC_MODE: u32 = 0o644;

/// How long the default certificate is good. Browsers don't trust it anyway; it only saves Traefik the making of one.
const CERTIFICATE_YEARS: i32 = 10;

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
    /// They were there before.
    pub kept: bool,
}

/// Why a folder for Traefik can't be written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file or folder can't be written.
    #[error("{0} can't be written: {1}")]
    Io(PathBuf, io::Error),
    /// One half of a pair is missing.
    #[error("{0} is there but {1} isn't; put it back, or remove the first to get a new pair")]
    HalfPair(PathBuf, PathBuf),
    /// No certificate can be made.
    #[error("a default certificate can't be made: {0}")]
    Certificate(String),
}

/// Makes a folder that nobody else can enter, and says its full path.
pub fn create(folder: &Path) -> Result<PathBuf, FolderError> {
    let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
    made.and_then(|()| folder.canonicalize()).map_err(|error| FolderError::Io(folder.to_owned(), error))
}

/// The default certificate in a folder; it is made if it isn't there.
pub fn default_certificate(folder: &Path, now: Timestamp) -> Result<Pair, FolderError> {
    let (certificate, key) = (folder.join("default.crt"), folder.join("default.key"));
    match (certificate.exists(), key.exists()) {
        (true, true) => return Ok(Pair { certificate, key, kept: true }),
        (false, false) => {}
        (true, false) => return Err(FolderError::HalfPair(certificate, key)),
        (false, true) => return Err(FolderError::HalfPair(key, certificate)),
    }
    // A clock may be anywhere; a certificate has a year from 1970 to 9999.
    let today = now.to_zoned(TimeZone::UTC).date().clamp(date(1970, 1, 2), date(9980, 1, 1));
    let (certificate_pem, key_pem) = self_signed(today).map_err(FolderError::Certificate)?;
    replace(&key, &key_pem, SECRET_MODE)?;
    replace(&certificate, &certificate_pem, PUBLIC_MODE)?;
    Ok(Pair { certificate, key, kept: false })
}

/// A certificate and its key, in PEM.
fn self_signed(today: Date) -> Result<(String, String), String> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).map_err(|e| e.to_string())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "Pointsman default certificate");
    params.distinguished_name = name;
    let day = |date: Result<Date, jiff::Error>| {
        let date = date.map_err(|e| e.to_string())?;
        let (month, day) = (u8::try_from(date.month()), u8::try_from(date.day()));
        let (month, day) = month.and_then(|month| day.map(|day| (month, day))).map_err(|e| e.to_string())?;
        Ok::<_, String>(date_time_ymd(date.year().into(), month, day))
    };
    // A day early, for clocks that are slow.
    params.not_before = day(today.checked_sub(1.day()))?;
    params.not_after = day(today.checked_add(CERTIFICATE_YEARS.years()))?;
    let key = KeyPair::generate().map_err(|e| e.to_string())?;
    Ok((params.self_signed(&key).map_err(|e| e.to_string())?.pem(), key.serialize_pem()))
}

/// Puts a whole file in the place of another, so that nobody ever reads half of one.
pub fn replace(path: &Path, text: impl AsRef<[u8]>, mode: u32) -> Result<(), FolderError> {
    let write = || files::replace(path, text.as_ref(), mode);
    let written = write().or_else(|error| {
        // On a full disk the room of the old file is all that there is, and Traefik's files can be made again.
        if error.kind() != io::ErrorKind::StorageFull || fs::remove_file(path).is_err() {
            return Err(error);
        }
        write()
    });
    written.map_err(|error| FolderError::Io(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_whatever_the_clock_says() {
        for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            let folder = tempfile::tempdir().unwrap();
            let pair = default_certificate(folder.path(), now).unwrap();
            assert!(pair.certificate.is_file() && pair.key.is_file() && !pair.kept, "{now}");
        }
    }
}
