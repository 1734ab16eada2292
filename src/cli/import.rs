//! `pointsman import`: a table of routes, from a running proxy or a file, into this installation.

mod apply;
mod compare;
mod plan;

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use self::plan::{Plan, There};
use super::export::{self, from, tls_options};
use super::routes::client::{Address, ApiClient};
use super::routes::here::{self, Here, Purpose};
use super::routes::table::Table;
use super::{Exit, complain, wiring};
use crate::config::Config;
use crate::control::bulk;
use crate::route::record::RecordKeys;

const OPTIONS: &str = "Options of import";

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// The command's own options.
pub(super) fn command() -> Command {
    Command::new("import")
        .about("Copy the routes of a running proxy, or of a file, into this installation")
        .long_about(
            "Copies the routes of a running Pointsman or configurable-http-proxy, or of a file that export wrote, into the \
             installation of the settings: into etcd, into the folder --data-dir, or to the running Pointsman that has the \
             folder.\n\nRoutes that are here and not there stay, unless --replace is given. A route that can't be served here is \
             named with the reason, and the others are imported; then the exit code is 1.",
        )
        .args([
            Arg::new("file")
                .value_name("FILE")
                .help("The file with the routes; - for stdin")
                .conflicts_with("from")
                .required_unless_present("from")
                .value_parser(value_parser!(PathBuf)),
            from("Read from the API of this running Pointsman or configurable-http-proxy"),
            Arg::new("to")
                .long("to")
                .value_name("URL")
                .help("Write to the API of this running Pointsman or configurable-http-proxy, instead of the installation of the settings")
                .value_parser(value_parser!(Address)),
            switch("replace", "Also remove the routes that the source does not have"),
            switch("dry-run", "Only say what would be added, changed, removed and left alone"),
            switch("compare", "Change nothing, and name the routes that are not the same on both sides; the exit code is 1 if there are any")
                .conflicts_with_all(["dry-run", "replace"]),
            Arg::new("visit")
                .long("visit")
                .value_name("URL")
                .help(
                    "With --compare, given twice: where users come in, here and there. The page of each route is asked for at both, \
                     and named if status or redirection differ",
                )
                .requires("compare")
                .action(ArgAction::Append)
                .value_parser(value_parser!(Address)),
        ])
        .args(tls_options("--from, --to or --visit"))
        .mut_args(|arg| if arg.get_help_heading().is_none() { arg.help_heading(OPTIONS) } else { arg })
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

/// Reads, says what it would do or does it, and says what became of it.
pub(super) async fn run(config: &Config, options: &ArgMatches) -> Exit {
    match import(config, options).await {
        Ok(exit) => exit,
        Err(reason) => {
            complain(&format!("pointsman: {reason}"));
            Exit::Failure
        }
    }
}

/// Success if everything was imported, or is the same on both sides.
async fn import(config: &Config, options: &ArgMatches) -> Result<Exit, String> {
    let places = options.get_many::<Address>("visit").map_or(0, Iterator::count);
    if places == 1 {
        return Err("--visit: name two places, by --visit URL --visit URL".to_owned());
    }
    let source = read(config, options).await?;
    let settings = wiring::api_settings(config);
    let mut wanted = source.understand(&settings);
    let (dry_run, compared) = (options.get_flag("dry-run"), options.get_flag("compare"));
    let here = destination(config, options, if dry_run || compared { Purpose::Read } else { Purpose::Write }).await?;
    let there = match &here {
        None => There::default(),
        Some(Here::Store(store)) => {
            let keys = RecordKeys::new(config.prefix());
            let records = bulk::read(&**store, &keys).await.map_err(|error| error.to_string())?;
            if let Some(quarrel) = wiring::owner(config).and_then(|owner| records.quarrel(&keys, &owner)) {
                return Err(quarrel);
            }
            There::recorded(&records.table)
        }
        Some(Here::Api(client)) => There::listed(client.list().await?, &settings),
    };
    wanted.refuse_clashes(there.routes.keys(), settings.host_routing);
    let mut refused = std::mem::take(&mut wanted.refused);
    let plan = Plan::new(&wanted, &there, &refused, options.get_flag("replace"));
    if compared {
        return compare::compare(config, options, &plan, &refused).await;
    }
    if dry_run {
        print(&plan.sentences());
    } else if let Some(here) = here {
        refused.extend(apply::apply(config, &here, &plan).await?);
    }
    for (path, reason) in &refused {
        complain(&format!("pointsman: not imported: {}: {reason}", path.escape_debug()));
    }
    complain(&format!("pointsman: {}", plan.sum(dry_run, &refused)));
    Ok(if refused.is_empty() { Exit::Success } else { Exit::Failure })
}

async fn read(config: &Config, options: &ArgMatches) -> Result<Table, String> {
    if let Some(address) = options.get_one::<Address>("from") {
        return export::remote(config, address, &export::tls(options)).await;
    }
    let Some(path) = options.get_one::<PathBuf>("file") else { return Err("name a file, or --from".to_owned()) };
    let (name, bytes) = if path.as_os_str() == "-" {
        ("stdin".to_owned(), limited(io::stdin()))
    } else {
        (path.display().to_string(), std::fs::File::open(path).and_then(limited))
    };
    let bytes = bytes.map_err(|error| format!("{name} can't be read: {error}"))?;
    Table::parse(&bytes).map_err(|error| format!("{name} {error}"))
}

fn limited(reader: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX { Err(io::Error::other("it is too long")) } else { Ok(bytes) }
}

/// Where the routes go. `None`: nothing is there yet, and nothing is to be made.
async fn destination(config: &Config, options: &ArgMatches, purpose: Purpose) -> Result<Option<Here>, String> {
    let tls = export::tls(options);
    if let Some(address) = options.get_one::<Address>("to") {
        let tokens = config.auth.tokens().map_err(|problems| problems.to_string())?;
        return Ok(Some(Here::Api(ApiClient::new(address, &tls, tokens)?)));
    }
    if purpose == Purpose::Read && here::is_new(config) {
        return Ok(None);
    }
    here::open(config, &tls, purpose).await.map(Some)
}

/// A reader who has gone away is nobody's problem.
fn print(lines: &[String]) {
    let mut out = io::stdout().lock();
    for line in lines {
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
}
