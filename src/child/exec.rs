//! The moment between us and Traefik: our own program, started as the child, becomes Traefik.
//!
//! Three things can only be said by the child itself: that it is to be killed when its parent ends, which process it is,
//! and that the sockets that it inherited are for its own process number.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

use super::leftover;

/// The command of our own program that becomes Traefik. Not for people.
pub const COMMAND: &str = "run-traefik";

/// Becomes the program that `words` name: the parent's process number, the file for the own one, the program, its
/// arguments. Returns only if that can't be done.
#[must_use]
pub fn exec(words: &[OsString]) -> io::Error {
    let [parent, record, program, arguments @ ..] = words else {
        return io::Error::new(io::ErrorKind::InvalidInput, "this command is for Pointsman's own use");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // The parent may have ended before it could be said.
    let expected = parent.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
    if expected.is_none() || getppid() != expected {
        return io::Error::other("the process that started this one is gone");
    }
    leftover::record(Path::new(record));
    Command::new(program).args(arguments).env("LISTEN_PID", getpid().as_raw_nonzero().to_string()).exec()
}
