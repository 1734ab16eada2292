//! `pointsman connections`: stands beside a Traefik and tells Pointsmen elsewhere of its open connections.

use std::sync::Arc;

use clap::{Arg, ArgMatches, Command};

use super::signals::Signals;
use super::{Exit, beside, wiring};
use crate::activity::kernel;
use crate::api::auth::Authenticator;
use crate::api::connections;
use crate::api::listen::{Limits, Listener};
use crate::clock::SystemClock;
use crate::config::{self, Config};
use crate::lifecycle::Lifecycle;

const LISTEN: &str = "listen";

/// The command's own options.
pub(super) fn command() -> Command {
    let about = "Tell Pointsmen elsewhere of the open connections of the Traefik beside which this runs";
    Command::new("connections").about(about).arg(
        Arg::new(LISTEN)
            .long(LISTEN)
            .value_name("HOST:PORT")
            .help("Where to listen; Pointsman asks there by --connections-port")
            .help_heading("Options of connections")
            .default_value(":8098")
            .value_parser(config::check_socket_address),
    )
}

/// Serves until a signal comes.
pub(super) async fn run(config: &Config, options: &ArgMatches) -> Exit {
    beside::run(config, serve(config, options)).await
}

async fn serve(config: &Config, options: &ArgMatches) -> Result<(), beside::Failed> {
    let wrong = |reason: String| (Exit::Configuration, reason);
    let auth = wiring::auth_settings(config).map_err(|error| wrong(error.to_string()))?;
    if auth.tokens.is_empty() && auth.jwt.is_none() {
        return Err(wrong("it needs the token of the API, in CONFIGPROXY_AUTH_TOKEN or --token-file".to_owned()));
    }
    let auth = Authenticator::new(&auth, Arc::new(SystemClock)).map_err(|error| wrong(error.to_string()))?;
    // Whoever may not look should hear of it now, and not at the first question.
    kernel::outgoing(&[])
        .map_err(|error| (Exit::Failure, format!("the kernel's connections can't be read: {error}")))?;
    let address = options.get_one::<String>(LISTEN).map_or(":8098", String::as_str);
    let (host, port) = address.rsplit_once(':').unwrap_or(("", address));
    let port = port.parse().map_err(|_| wrong(format!("--listen: '{address}' is not HOST:PORT")))?;
    let listener = Listener::bind("--listen", host, port, Limits::default()).await;
    let listener = listener.map_err(|error| (Exit::Failure, error.to_string()))?;

    let signals = Signals::listen().map_err(|error| (Exit::Failure, error.to_string()))?;
    let lifecycle = Lifecycle::new();
    let router = connections::router(Arc::new(auth), Arc::new(kernel::outgoing));
    lifecycle.spawn_front("connections", listener.serve("connections", router, lifecycle.draining()));
    beside::until_stopped(&lifecycle, signals).await
}
