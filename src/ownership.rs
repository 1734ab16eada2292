//! Folders that hold routes and keys are used only if no other user may change what is in them, as ssh does it: who can
//! put a file there reads and takes over all traffic.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

/// Writing, for the group and for all others.
const WRITE: u32 = 0o022;

/// Entering, for the group and for all others.
const ENTER: u32 = 0o011;

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unsafe {
    /// The folder is another user's.
    #[error(
        "{0} belongs to user {1}, and we are user {2}: run this as that user (sudo -u '#{1}' pointsman …), so that the \
         Pointsman that has it can still use every file in it, or give it to us: chown -R {2} {0}"
    )]
    Owner(String, u32, u32),
    /// Something in it is another user's.
    #[error(
        "{0} belongs to user {1}, who has put it into a folder of user {2}; look at it, then remove it, or give it to us: \
         chown {2} {0}"
    )]
    Planted(String, u32, u32),
    /// Others may write.
    #[error(
        "other users may write to {0} (mode {1:04o}) and so take over all traffic; take that right away: chmod go-w {0}"
    )]
    Mode(String, u32),
    /// It can't be looked at.
    #[error("{0} can't be looked at: {1}")]
    Io(String, io::Error),
}

/// Whether a folder is ours alone, with all that is in it. One that isn't there is.
///
/// # Errors
/// The first thing that isn't so, with what to do.
pub fn check(folder: &Path) -> Result<(), Unsafe> {
    let found = match fs::metadata(folder) {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(failed(folder)(error)),
    };
    let us = geteuid().as_raw();
    if found.uid() != us {
        return Err(Unsafe::Owner(shown(folder), found.uid(), us));
    }
    mode(folder, &found)?;
    // Behind a door that others can't pass, the modes don't matter, as those of files that are made by a umask of 002.
    content(folder, us, found.mode() & ENTER != 0)
}

fn content(folder: &Path, us: u32, others_enter: bool) -> Result<(), Unsafe> {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
            let path = entry.map_err(failed(&folder))?.path();
            let found = match fs::symlink_metadata(&path) {
                Ok(found) => found,
                // Removed meanwhile, by a Pointsman that runs.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&path)(error)),
            };
            if ![us, 0].contains(&found.uid()) {
                return Err(Unsafe::Planted(shown(&path), found.uid(), us));
            }
            if others_enter && !found.is_symlink() {
                mode(&path, &found)?;
            }
            if found.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(())
}

fn mode(path: &Path, found: &Metadata) -> Result<(), Unsafe> {
    let mode = found.mode() & 0o7777;
    if mode & WRITE == 0 { Ok(()) } else { Err(Unsafe::Mode(shown(path), mode)) }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Unsafe {
    let shown = shown(path);
    move |error| Unsafe::Io(shown, error)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn allow(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn others_may_not_write_where_they_can_enter() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        assert!(check(&top.join("missing")).is_ok());
        fs::write(top.join("file"), "").unwrap();
        assert!(check(&top.join("file/missing")).is_ok());
        fs::remove_file(top.join("file")).unwrap();
        let [inner, file] = ["inner", "inner/file"].map(|name| top.join(name));
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "").unwrap();
        symlink("/nowhere", top.join("link")).unwrap();
        // Modes of the folder, of one in it, and of a file in that; and what is complained of.
        for (modes, bad) in [
            ([0o700, 0o700, 0o600], None),
            ([0o755, 0o755, 0o644], None),
            ([0o700, 0o777, 0o666], None),
            ([0o744, 0o775, 0o664], None),
            ([0o720, 0o700, 0o600], Some(top)),
            ([0o702, 0o700, 0o600], Some(top)),
            ([0o1777, 0o700, 0o600], Some(top)),
            ([0o711, 0o770, 0o600], Some(inner.as_path())),
            ([0o755, 0o700, 0o660], Some(file.as_path())),
        ] {
            for (path, mode) in [top, &inner, &file].into_iter().zip(modes) {
                allow(path, mode);
            }
            match (check(top), bad) {
                (Ok(()), None) => {}
                (Err(error @ Unsafe::Mode(..)), Some(bad)) => {
                    let end = format!("chmod go-w {}", bad.display());
                    assert!(error.to_string().ends_with(&end), "{modes:?}: {error}");
                }
                other => panic!("{modes:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_folder_of_another_user_is_named_with_both() {
        let us = geteuid().as_raw();
        // There is always one that isn't ours.
        let theirs =
            if us == 0 { std::env::temp_dir().join(format!("pointsman-{}", std::process::id())) } else { "/".into() };
        if us == 0 {
            fs::create_dir(&theirs).unwrap();
            std::os::unix::fs::chown(&theirs, Some(4242), None).unwrap();
        }
        let error = check(&theirs).unwrap_err().to_string();
        let planted = (us == 0).then(|| {
            std::os::unix::fs::chown(&theirs, Some(us), None).unwrap();
            allow(&theirs, 0o700);
            fs::write(theirs.join("file"), "").unwrap();
            std::os::unix::fs::chown(theirs.join("file"), Some(4242), None).unwrap();
            let error = check(&theirs).unwrap_err().to_string();
            fs::remove_dir_all(&theirs).unwrap();
            error
        });
        assert!(error.contains(&format!("and we are user {us}: run this as that user")), "{error}");
        assert!(planted.is_none_or(|error| error.contains("file belongs to user 4242")), "{us}");
    }
}
