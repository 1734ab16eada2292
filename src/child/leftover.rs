//! A Traefik that outlived its Pointsman: found by the next one of the same folder, and ended.
//!
//! The kernel ends our Traefik with us, but not if Traefik's file has capabilities or is set-user-ID: starting such a
//! program clears the signal. So each Traefik leaves its identity in the folder.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tracing::warn;

/// How long it may take until a killed process is gone.
const END_WAIT: Duration = Duration::from_secs(5);

/// How often it is looked whether it is gone.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Which process, beyond its number: that may be given to another one, but not at the same moment of the same boot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    pid: u32,
    /// Clock ticks from the machine's boot to its start.
    started: u64,
    boot: String,
}

impl Identity {
    /// The identity of a process that runs.
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name of the program comes before, in brackets, and may hold anything.
        let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        // A zombie holds nothing any more.
        (!matches!(state, "Z" | "X")).then_some(Self { pid, started, boot })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (pid, started) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { pid, started, boot: words.next()?.to_owned() })
    }

    fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Whether it was started with this word.
    fn has_word(&self, word: &str) -> bool {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|found| found == word.as_bytes())
    }
}

/// Leaves the identity of this very process, which becomes Traefik. It need not outlive the machine.
pub(super) fn record(file: &Path) {
    if let Some(Identity { pid, started, boot }) = Identity::of(std::process::id()) {
        // Without it the kernel's signal is still there: a full disk is no reason not to start.
        let _ = fs::write(file, format!("{pid} {started} {boot}\n"));
    }
}

/// The Traefik that the file names, as long as it runs.
#[derive(Debug)]
pub struct Leftover(Identity);

/// Finds the process that `file` names, if it runs and was started with this configuration.
#[must_use]
pub fn find(file: &Path, config_file: &Path) -> Option<Leftover> {
    let found = Identity::parse(&fs::read_to_string(file).ok()?)?;
    let is_ours = found.is_alive() && found.has_word(&super::config_flag(config_file));
    is_ours.then_some(Leftover(found))
}

impl Leftover {
    /// Kills it, and waits until it is gone. Only for the one process that holds the folder.
    ///
    /// # Errors
    /// A sentence that names the process.
    pub fn end(self) -> Result<(), String> {
        let Self(found) = self;
        let pid = found.pid;
        let failed =
            |why: &str| format!("process {pid}, a Traefik of this folder, still runs and {why}; end it: kill -9 {pid}");
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| failed("has a strange number"))?;
        let handle = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(_) if !found.is_alive() => return Ok(()),
            Err(error) => return Err(failed(&format!("can't be ended ({error})"))),
        };
        // Now the handle stands for that process, or the number had been given to another one.
        if !found.is_alive() {
            return Ok(());
        }
        warn!(pid, "Traefik outlived the Pointsman that started it; ending it (process {pid})");
        let sent = pidfd_send_signal(&handle, Signal::KILL);
        let give_up = Instant::now() + END_WAIT;
        while found.is_alive() {
            if let Err(error) = sent {
                return Err(failed(&format!("can't be ended ({error})")));
            }
            if Instant::now() > give_up {
                return Err(failed("did not end when it was killed"));
            }
            sleep(LOOK_PAUSE);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process with this word, as a Traefik would be.
    fn process(word: &str) -> Child {
        // It waits for its stdin, which is ours; the word is one of its own.
        let script = ["-c", "read -r line", word];
        Command::new("sh").args(script).stdin(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn only_the_very_process_with_our_file_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (file, config) = (folder.path().join("traefik-process"), folder.path().join("traefik.yaml"));
        let (mut ours, mut other) = (process(&super::super::config_flag(&config)), process("--configFile=/other"));
        assert!(find(&file, &config).is_none(), "there is no file");
        let write = |identity: &Identity| {
            let Identity { pid, started, boot } = identity;
            fs::write(&file, format!("{pid} {started} {boot}\n")).unwrap();
        };
        let identity = Identity::of(ours.id()).unwrap();
        for wrong in [
            Identity { started: identity.started + 1, ..identity.clone() },
            Identity { boot: "another".to_owned(), ..identity.clone() },
            Identity::of(other.id()).unwrap(),
        ] {
            write(&wrong);
            assert!(find(&file, &config).is_none(), "{wrong:?}");
        }
        fs::write(&file, "rubbish").unwrap();
        assert!(find(&file, &config).is_none());
        write(&identity);
        let found = find(&file, &config).unwrap();
        found.end().unwrap();
        assert!(!identity.is_alive() && Identity::of(other.id()).is_some());
        assert!(find(&file, &config).is_none(), "it has ended");
        ours.wait().unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
