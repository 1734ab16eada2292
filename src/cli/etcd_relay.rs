//! `pointsman etcd-relay`: stands beside a Traefik, and keeps it on members of etcd that are well.

use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use tracing::info;

use super::signals::Signals;
use super::{Exit, beside, wiring};
use crate::config::{self, Config};
use crate::forward::{self, Limits, Relay};
use crate::lifecycle::Lifecycle;
use crate::store::etcd::Looks;

const LISTEN: &str = "listen";
const LISTEN_DEFAULT: &str = "127.0.0.1:2379";
/// How long a member may take to answer a look: below the limit of the relay itself, so that the reason is known.
const LOOK_PATIENCE: Duration = Duration::from_millis(950);

/// The command's own options.
pub(super) fn command() -> Command {
    let about = "Carry the connections of the Traefik beside which this runs to members of etcd that are well";
    Command::new("etcd-relay").about(about).arg(
        Arg::new(LISTEN)
            .long(LISTEN)
            .value_name("HOST:PORT")
            .help("Where to listen; let Traefik reach etcd there, by `pointsman traefik-config --etcd-relay HOST:PORT`")
            .help_heading("Options of etcd-relay")
            .default_value(LISTEN_DEFAULT)
            .value_parser(config::check_socket_address),
    )
}

/// Carries until a signal comes.
pub(super) async fn run(config: &Config, options: &ArgMatches) -> Exit {
    beside::run(config, serve(config, options)).await
}

async fn serve(config: &Config, options: &ArgMatches) -> Result<(), beside::Failed> {
    let wrong = |reason: String| (Exit::Configuration, reason);
    let etcd = config.etcd().ok_or_else(|| wrong("it needs the members of etcd, in --etcd-endpoints".to_owned()))?;
    let looks = Looks::new(&wiring::etcd_settings(etcd)).map_err(|error| wrong(error.to_string()))?;
    let (members, looks) = (looks.addresses(), Arc::new(looks));
    let listen = options.get_one::<String>(LISTEN).map_or(LISTEN_DEFAULT, String::as_str);
    if members.iter().any(|member| member == listen) {
        return Err(wrong(format!("--listen: {listen} is a member of etcd by --etcd-endpoints; listen elsewhere")));
    }
    let address = if listen.starts_with(':') { format!("0.0.0.0{listen}") } else { listen.to_owned() };
    forward::raise_open_files();
    let told = members.join(", ");
    let relay = Relay::bind(&address, members, Limits::default()).await;
    let relay = relay.map_err(|error| (Exit::Failure, format!("--listen: {listen} can't be listened at: {error}")))?;

    let signals = Signals::listen().map_err(|error| (Exit::Failure, error.to_string()))?;
    info!("Connections to {listen} go to the members of etcd that are well: {told}");
    let lifecycle = Lifecycle::new();
    let look = move |at| {
        let looks = looks.clone();
        async move { looks.look(at, LOOK_PATIENCE).await.map_err(|error| error.to_string()) }
    };
    lifecycle.spawn_front("relay", relay.run(look, lifecycle.draining()));
    beside::until_stopped(&lifecycle, signals).await
}
