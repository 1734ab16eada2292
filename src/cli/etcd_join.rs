//! `pointsman etcd-join`: before a member of a bundled etcd starts, decides how.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::signals::Signals;
use super::{Exit, beside, wiring};
use crate::api::card;
use crate::api::listen::{Limits, Listener};
use crate::config::Config;
use crate::join::config_file::{self, Base};
use crate::join::home::Home;
use crate::join::members::{self, Members};
use crate::join::note::Card;
use crate::join::peers::CARD_PATH;
use crate::join::run::{self, Settings};
use crate::lifecycle::Lifecycle;

/// How long one question to the cluster may take: it is on the way to a start, and nobody waits for us.
const ASK_PATIENCE: Duration = Duration::from_secs(3);

/// The command's own options.
pub(super) fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).help_heading("Options of etcd-join")
    };
    Command::new("etcd-join")
        .about("Prepare the start of one member of an etcd: with its data, joining anew, or beginning a cluster")
        .long_about(
            "Prepares the start of one member of an etcd, as an init container before it, and writes the file that etcd is then \
             started with, by --config-file.\n\nA member with data goes on with them. One that has lost its data is replaced in \
             the cluster and joins it anew. If no member has any data they begin a new cluster. Whatever would harm data or \
             begin a second cluster is refused with a sentence. --etcd-endpoints names all members, as clients reach them.",
        )
        .args([
            option("name", "NAME", "Which member this is").required(true),
            option("members", "NAME=URL,…", "All members, with the URLs at which they reach each other: http://HOST:PORT")
                .required(true)
                .value_parser(value_parser!(Members)),
            option("client-url", "URL", "Where clients reach this member: http://HOST:PORT").required(true).value_parser(url),
            option("dir", "FOLDER", "The member's volume: etcd's data, FOLDER/etcd.json for --config-file, and a note")
                .required(true)
                .value_parser(value_parser!(PathBuf)),
            option("listen-ip", "ADDRESS", "What etcd listens on").default_value("0.0.0.0"),
            option("etcd-metrics-port", "PORT", "Where etcd tells how it is").value_parser(value_parser!(u16).range(1..)),
            option("etcd-config", "JSON", "More settings of etcd's file, by the names of its flags")
                .default_value("{}")
                .value_parser(config_file::read_more),
            option("claims", "NAME", "What the names of the members' volume claims begin with, for advice"),
            option("patience", "SECONDS", "After so long this ends with an error, to be started again")
                .default_value("600")
                .value_parser(value_parser!(u64).range(1..=86_400)),
        ])
}

/// Works until etcd may start.
pub(super) async fn run(config: &Config, options: &ArgMatches) -> Exit {
    beside::run(config, join(config, options)).await
}

async fn join(config: &Config, options: &ArgMatches) -> Result<(), beside::Failed> {
    let wrong = |reason: String| (Exit::Configuration, reason);
    let settings = settings(config, options).map_err(wrong)?;
    // Where its etcd will be reached by the others: so they know where to ask, and who may reach etcd may ask.
    let url = settings.members.url(&settings.base.name);
    let url = url.ok_or_else(|| wrong(format!("--name: {} is none of --members", settings.base.name)))?;
    let port = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default();
    let ip = match settings.base.listen_ip.as_str() {
        "0.0.0.0" | "[::]" => "*",
        ip => ip,
    };
    let listener = Listener::bind("--listen-ip, --members", ip, port, Limits::default()).await;
    let listener = listener.map_err(|error| (Exit::Failure, error.to_string()))?;

    let mut signals = Signals::listen().map_err(|error| (Exit::Failure, error.to_string()))?;
    let (sender, shown) = watch::channel::<Option<Card>>(None);
    let read = move || shown.borrow().as_ref().and_then(|card| serde_json::to_value(card).ok());
    let lifecycle = Lifecycle::new();
    let router = card::router(CARD_PATH, Arc::new(read));
    lifecycle.spawn_front("card", listener.serve("etcd-join", router, lifecycle.draining()));
    let outcome = tokio::select! {
        outcome = Box::pin(run::run(&settings, &sender)) => outcome,
        name = signals.stop() => Err(format!("got {name}")),
    };
    lifecycle.stop();
    let ended = lifecycle.finished().await;
    outcome.map_err(|reason| (Exit::Failure, reason))?;
    ended.map_err(|task| (Exit::Failure, format!("the task '{task}' ended by itself")))
}

fn settings(config: &Config, options: &ArgMatches) -> Result<Settings, String> {
    let text = |name: &str| options.get_one::<String>(name).cloned();
    let needed = |name: &str| text(name).ok_or_else(|| format!("--{name} is missing"));
    let etcd = config.etcd().ok_or_else(|| "it needs the members of etcd, in --etcd-endpoints".to_owned())?;
    let mut etcd = wiring::etcd_settings(etcd);
    etcd.op_timeout = ASK_PATIENCE;
    let base = Base {
        name: needed("name")?,
        client_url: needed("client-url")?,
        listen_ip: needed("listen-ip")?,
        metrics_port: options.get_one::<u16>("etcd-metrics-port").copied(),
        more: options.get_one::<Map<String, Value>>("etcd-config").cloned().unwrap_or_default(),
    };
    let home = options.get_one::<PathBuf>("dir").cloned().ok_or_else(|| "--dir is missing".to_owned())?;
    let members = options.get_one::<Members>("members").cloned().ok_or_else(|| "--members is missing".to_owned())?;
    let patience = Duration::from_secs(options.get_one::<u64>("patience").copied().unwrap_or(600));
    Ok(Settings { members, base, home: Home::new(home), etcd, patience, claims: text("claims") })
}

fn url(text: &str) -> Result<String, String> {
    members::check_url(text).map(|()| text.to_owned())
}
