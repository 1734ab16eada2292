//! `pointsman export`: the table of routes as text, from a running proxy or out of the store.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};
use jiff::Timestamp;

use super::routes::client::{Address, ApiClient, Tls};
use super::routes::here::{self, Here, Purpose};
use super::routes::table::Table;
use super::{Exit, complain, wiring};
use crate::activity::checkpoint::Chunk;
use crate::api::listed;
use crate::config::Config;
use crate::control::bulk;
use crate::files;
use crate::route::Route;
use crate::route::record::RecordKeys;
use crate::store::Store;
use crate::traefik::folder::SECRET_MODE;
use crate::traefik::name;
use crate::traefik::rule::Space;

const OPTIONS: &str = "Options of export";

/// The command's own options.
pub(super) fn command() -> Command {
    Command::new("export")
        .about("Write the table of routes as JSON, from the store or from a running proxy")
        .long_about(
            "Writes the table of routes as JSON: what GET /api/routes answers, sorted by path.\n\nWithout --from it is read from \
             the store of the settings: from etcd, or from the folder --data-dir. If a running Pointsman has the folder, that one \
             is asked.",
        )
        .args([
            from("Read from the API of this running Pointsman or configurable-http-proxy"),
            Arg::new("output")
                .long("output")
                .value_name("FILE")
                .help("Write to this file instead of stdout")
                .value_parser(value_parser!(PathBuf)),
        ])
        .args(tls_options("--from"))
        .mut_args(|arg| if arg.get_help_heading().is_none() { arg.help_heading(OPTIONS) } else { arg })
}

/// `--from`, in both commands.
pub(super) fn from(help: &'static str) -> Arg {
    Arg::new("from").long("from").value_name("URL").help(help).value_parser(value_parser!(Address))
}

/// What https at `flags` needs.
pub(super) fn tls_options(flags: &str) -> [Arg; 3] {
    let option = |name: &'static str, help: String| {
        Arg::new(name).long(name).value_name("FILE").help(help).value_parser(value_parser!(PathBuf))
    };
    [
        option("ca", format!("Certificates (PEM) that the certificate of an https {flags} must lead to")),
        option("cert", format!("Our certificate (PEM), where {flags} asks for one")).requires("key"),
        option("key", "The key (PEM) of that certificate".to_owned()).requires("cert"),
    ]
}

/// What was said of https.
pub(super) fn tls(options: &ArgMatches) -> Tls {
    let path = |name: &str| options.get_one::<PathBuf>(name).cloned();
    Tls { ca: path("ca"), pair: path("cert").zip(path("key")), pinned: None }
}

/// Reads and writes it.
pub(super) async fn run(config: &Config, options: &ArgMatches) -> Exit {
    match export(config, options).await {
        Ok(()) => Exit::Success,
        Err(reason) => {
            complain(&format!("pointsman: {reason}"));
            Exit::Failure
        }
    }
}

async fn export(config: &Config, options: &ArgMatches) -> Result<(), String> {
    let tls = tls(options);
    let table = match options.get_one::<Address>("from") {
        Some(address) => remote(config, address, &tls).await?,
        None => match here::open(config, &tls, Purpose::Read).await? {
            Here::Api(client) => client.list().await?,
            Here::Store(store) => {
                let keys = RecordKeys::new(config.prefix());
                let records = bulk::read(&*store, &keys).await.map_err(|error| error.to_string())?;
                let used = last_uses(&*store, config).await?;
                let settings = wiring::api_settings(config);
                let space = if settings.host_routing { Space::Hosts } else { Space::Paths };
                let last = |route: &Route| {
                    let seen = used.get(name::route(space.place(&route.spec)).as_str());
                    seen.and_then(|at| Timestamp::from_millisecond(*at).ok())
                        .map_or(route.created, |at| at.max(route.created))
                };
                let routes: Vec<_> = records.table.iter().map(|route| (&**route, Some(last(route)))).collect();
                text_of(listed(&routes, &settings))?
            }
        },
    };
    let text = table.to_text();
    match options.get_one::<PathBuf>("output") {
        Some(path) => {
            let written = files::replace(path, text.as_bytes(), SECRET_MODE);
            written.map_err(|error| format!("{} can't be written: {error}", path.display()))?;
            complain(&format!("pointsman: wrote {} routes to {}", table.0.len(), path.display()));
            Ok(())
        }
        None => io::stdout().write_all(text.as_bytes()).map_err(|error| format!("stdout can't be written: {error}")),
    }
}

/// The table of a running proxy.
pub(super) async fn remote(config: &Config, address: &Address, tls: &Tls) -> Result<Table, String> {
    let tokens = config.auth.tokens().map_err(|problems| problems.to_string())?;
    ApiClient::new(address, tls, tokens)?.list().await
}

/// When routes were last used, as far as it is kept: by their names in Traefik, in milliseconds since 1970.
async fn last_uses(store: &dyn Store, config: &Config) -> Result<HashMap<Box<str>, i64>, String> {
    let prefix = wiring::activity_settings(config, &wiring::tree_settings(config)).prefix;
    let kept = store.list(&prefix).await.map_err(|error| error.to_string())?.entries;
    let chunks = kept.into_iter().filter_map(|entry| Chunk::decode(&String::from_utf8(entry.value).ok()?));
    // Some may stand in several keys.
    let mut last = HashMap::new();
    for (name, at_ms) in chunks.flat_map(|chunk| chunk.routes) {
        let latest = last.entry(name).or_insert(at_ms);
        *latest = at_ms.max(*latest);
    }
    Ok(last)
}

fn text_of(listed: serde_json::Value) -> Result<Table, String> {
    let serde_json::Value::Object(routes) = listed else { return Err("the table is no object".to_owned()) };
    Ok(Table(routes.into_iter().map(|(path, value)| (path, value.to_string().into())).collect()))
}
