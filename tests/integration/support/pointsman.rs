//! Our own program, run to its end.

use std::process::{Command, Stdio};

/// How it ended and what it said.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `pointsman` with nothing in its environment but what is given.
pub(crate) fn pointsman(args: &[&str], environment: &[(&str, &str)]) -> Finished {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(args)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("pointsman can be started");
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}
