//! `pointsman try-route`: adds a route, sees it at every Traefik, removes it, and sees it gone.

mod door;
mod server;
mod trial;

use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio_util::sync::CancellationToken;
use url::Url;

use self::door::Doors;
use self::server::Server;
use self::trial::Trial;
use super::check::report::Report;
use super::export::{tls, tls_options};
use super::routes::client::{Address, ApiClient};
use super::routes::here;
use super::signals::Signals;
use super::{Exit, complain};
use crate::config::{self, Config};
use crate::random;
use crate::route::RouteSpec;

const OPTIONS: &str = "Options of try-route";

/// The command's own options.
pub(super) fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("try-route")
        .about("Add a route, see it at every Traefik, remove it, and see it gone")
        .long_about(
            "Adds a route through the API, asks every Traefik for it as a user would, removes it, and asks again. The route \
             leads to this command itself, which answers with a random word: so each Traefik must really carry a request here. \
             The route has a random path, is none of the hub's, and is removed also if something fails or this is told to stop.",
        )
        .args([
            option(
                "users-at",
                "URL",
                "Where users come in, as http://HOST:PORT; every address of the name is asked for itself. May be repeated",
            )
            .required(true)
            .action(ArgAction::Append)
            .value_parser(door::parse),
            option("api", "URL", "The API to call [default: that of the settings]").value_parser(clap::value_parser!(Address)),
            option(
                "listen",
                "HOST:PORT",
                "Where this command listens, and is reached by every Traefik [default: a free port at the address that we have \
                 towards the first Traefik; :PORT for that address]",
            )
            .value_parser(config::check_socket_address),
            option(
                "host",
                "NAME",
                "The host to ask for [default: that of --users-at; with --host-routing one that nobody has]",
            )
            .value_parser(host_name),
        ])
        .args(tls_options("--api"))
        .mut_args(|arg| if arg.get_help_heading().is_none() { arg.help_heading(OPTIONS) } else { arg })
}

fn host_name(text: &str) -> Result<String, String> {
    let good = RouteSpec::from_decoded(text).and_then(RouteSpec::with_host).map_err(|error| error.to_string())?;
    match good.as_str().strip_prefix('/') {
        Some(host) if !host.is_empty() && !host.contains('/') => Ok(host.to_owned()),
        _ => Err("write a host's name, as hub.example.org".to_owned()),
    }
}

/// Tries, tells, and says whether all is well.
pub(super) async fn run(config: &Config, options: &ArgMatches) -> Exit {
    let mut report = Report::default();
    let (mut signals, trial) = match Signals::listen().map_err(|error| error.to_string()) {
        Ok(signals) => (signals, prepare(config, options, &mut report).await),
        Err(error) => {
            complain(&format!("pointsman: {error}"));
            return Exit::Failure;
        }
    };
    let trial = match trial {
        Ok(trial) => trial,
        Err(reason) => {
            report.problem("try-route", reason);
            report.finish();
            return Exit::Failure;
        }
    };
    let stop = CancellationToken::new();
    {
        let mut whole = std::pin::pin!(trial.run(&mut report, &stop));
        loop {
            tokio::select! {
                () = &mut whole => break,
                // What was added is removed first, so this only asks it to come to an end.
                name = signals.stop() => {
                    complain(&format!("pointsman: got {name}; the route is removed, then this ends"));
                    stop.cancel();
                }
            }
        }
    }
    if report.finish() { Exit::Success } else { Exit::Failure }
}

/// Everything that must be there before a route can be added.
async fn prepare(config: &Config, options: &ArgMatches, report: &mut Report) -> Result<Trial, String> {
    // Nobody has it by chance: 128 random bits.
    let word = random::digits::<16>();
    let path = format!("/pointsman-try-{word}");
    let host = match options.get_one::<String>("host") {
        None if config.routing.host_routing => Some(format!("pointsman-try-{word}.invalid")),
        host => host.cloned(),
    };
    let spec = match &host {
        Some(host) if config.routing.host_routing => format!("/{host}{path}"),
        _ => path.clone(),
    };
    let spec = RouteSpec::from_decoded(&spec).map_err(|error| error.to_string())?;

    let places: Vec<Url> = options.get_many("users-at").into_iter().flatten().cloned().collect();
    let doors = Doors::find(places, host).await?;
    report.ok("try-route", format_args!("asks each of {doors} for {path}/"));
    let first = doors.first();
    let listen = options.get_one::<String>("listen").map(String::as_str);
    let server = Server::start(listen, first).await?;

    let default = here::api_address(config);
    let address = options.get_one::<Address>("api");
    let asked = tls(options);
    let trust = if address.is_some() { asked } else { here::api_trust(config, &asked) };
    let tokens = config.auth.tokens().map_err(|problems| problems.to_string())?;
    let api = ApiClient::new(address.unwrap_or(&default), &trust, tokens)?;
    Ok(Trial { api, doors, server, spec, path: format!("{path}/") })
}
