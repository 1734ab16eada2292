//! The command line: which command, with which settings. No command means `serve`.

mod beside;
mod check;
mod commands;
mod connections;
mod copies;
mod etcd_join;
mod etcd_relay;
mod etcd_users;
mod export;
mod floors;
mod import;
mod one_machine;
mod pid_file;
mod routes;
mod serve;
mod signals;
mod sources;
pub mod traefik_config;
mod traefik_file;
mod try_route;
mod wiring;

use std::ffi::OsString;
use std::io::{self, Write as _};

use clap::ArgMatches;
use clap::error::ErrorKind;

use crate::config::{Config, Files, Problems};
pub use commands::command;

/// How the process ends; each number has one meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Success = 0,
    /// It began and then failed; or `check` found a problem.
    Failure = 1,
    /// The command line can't be understood.
    Usage = 2,
    /// The configuration is wrong.
    Configuration = 64,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Does what the command line says.
pub async fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let (name, own) = matches.subcommand().unwrap_or(("serve", &matches));
    // What moves routes, or bytes, needs no files but those it reads itself, and has nothing to do with Traefik's settings.
    let without_traefik = matches!(name, "etcd-join" | "etcd-relay" | "etcd-users" | "export" | "import" | "try-route");
    let files = if without_traefik || name == "traefik-config" { Files::Ignore } else { Files::Check };
    let config = match load(&matches, own, files, without_traefik) {
        Ok(config) => config,
        Err(problems) => {
            complain(&format!("pointsman: the configuration is wrong: {problems}"));
            return Exit::Configuration;
        }
    };
    match name {
        "check" => check::run(&config).await,
        "connections" => connections::run(&config, own).await,
        "etcd-join" => etcd_join::run(&config, own).await,
        "etcd-relay" => etcd_relay::run(&config, own).await,
        "etcd-users" => etcd_users::run(&config, own),
        "export" => export::run(&config, own).await,
        "import" => import::run(&config, own).await,
        "traefik-config" => traefik_config::run(&config, own).await,
        "try-route" => try_route::run(&config, own).await,
        _ => serve::run(&config).await,
    }
}

/// Says that the process could not even begin.
#[must_use]
pub fn startup_failure(error: &io::Error) -> Exit {
    complain(&format!("pointsman: this process can't begin: {error}"));
    Exit::Failure
}

/// Reads flags, variables and the file. A flag may stand before the command and after it; after it counts more.
fn load(matches: &ArgMatches, own: &ArgMatches, files: Files, without_traefik: bool) -> Result<Config, Problems> {
    let mut problems = Problems::none();
    let mut read = sources::read([matches, own], std::env::vars_os(), &mut problems);
    read.without_traefik = without_traefik;
    Config::from_sources(&read, files, problems)
}

fn usage(error: &clap::Error) -> Exit {
    // Help and version are no errors, and go to stdout. A closed pipe is nobody's problem.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Success,
        _ => Exit::Usage,
    }
}

/// Tells the person at the terminal what is wrong.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
