//! The program: one crypto provider, one runtime, and the command line.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use pointsman::child::exec;
use pointsman::cli::{self, Exit};
use pointsman::telemetry::FlushAtEnd;

/// How long a blocking call that nobody waits for any more may hold up the end of the process.
const LEFTOVERS_WAIT: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == exec::COMMAND) {
        return cli::startup_failure(&exec::exec(&words[1..])).into();
    }
    let _flush = FlushAtEnd;
    // With more than one provider compiled in, rustls has no default; so the choice is made here, once.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return Exit::Failure.into();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cli::startup_failure(&error).into(),
    };
    let exit = runtime.block_on(cli::run(std::env::args_os()));
    runtime.shutdown_timeout(LEFTOVERS_WAIT);
    exit.into()
}
