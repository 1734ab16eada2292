//! The shape of the command line, made from the list of settings.

use clap::builder::styling::Styles;
use clap::{Arg, ArgAction, Command};

use super::{connections, etcd_join, etcd_relay, etcd_users, export, import, traefik_config, try_route};
use crate::config::settings::{Group, Kind, REFUSED, SETTINGS, Setting};

const ABOUT: &str = "\
Serves configurable-http-proxy's REST API to JupyterHub and routes its users through Traefik.

JupyterHub calls the API. By itself Pointsman keeps the routes on this machine and starts a Traefik of its own, in place \
of configurable-http-proxy; with --etcd-endpoints it keeps them in etcd, from where every Traefik takes them. Without a \
command, serves.

Every setting is a flag, an environment variable and, without the dashes in front, a key of the file that --config \
names; flags win over variables, and variables over the file. A flag that takes a list may be repeated, or its values \
separated by commas.";

const EXAMPLES: &str = "\
Examples:
  pointsman --port 8000 --error-target http://127.0.0.1:8081/hub/error
  pointsman --etcd-endpoints http://127.0.0.1:2379 --traefik-api http://127.0.0.1:8099
  pointsman --config /etc/pointsman.toml check
  pointsman import --from http://127.0.0.1:8001
  pointsman --config /etc/pointsman.toml traefik-config --dir /etc/traefik

The API's token is in CONFIGPROXY_AUTH_TOKEN, as with configurable-http-proxy, or in --token-file.
Exit codes: 0 good, 1 failed or problems found, 2 wrong command line, 64 wrong configuration.";

/// The whole command line.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new("pointsman")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(EXAMPLES)
        .styles(Styles::plain())
        .max_term_width(110)
        .args_override_self(true)
        .disable_help_subcommand(true)
        .subcommand_value_name("COMMAND")
        .subcommand(Command::new("serve").about("Serve the API (this is what happens without a command)").hide(true))
        .subcommand(
            Command::new("check")
                .about("Check the configuration, then look at etcd, Traefik and the API from outside")
                .args_override_self(true),
        )
        .subcommand(connections::command().args_override_self(true))
        .subcommand(etcd_join::command().args_override_self(true))
        .subcommand(etcd_relay::command().args_override_self(true))
        .subcommand(etcd_users::command().args_override_self(true))
        .subcommand(export::command().args_override_self(true))
        .subcommand(import::command().args_override_self(true))
        .subcommand(traefik_config::command().args_override_self(true))
        .subcommand(try_route::command().args_override_self(true));
    for group in Group::ALL {
        let settings = SETTINGS.iter().filter(|setting| setting.group == group);
        command = command.args(settings.map(argument));
    }
    command.args(REFUSED.iter().map(|refused| {
        let argument = Arg::new(refused.name).long(refused.name).hide(true).global(true).action(ArgAction::Append);
        if refused.takes_value { argument } else { optional(argument) }
    }))
}

fn argument(setting: &Setting) -> Arg {
    let argument = Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.value)
        .help(setting.full_help())
        .help_heading(setting.group.heading())
        .global(true);
    match setting.kind {
        Kind::One => argument.action(ArgAction::Set),
        Kind::List | Kind::Repeated => argument.action(ArgAction::Append),
        Kind::Switch => optional(argument.action(ArgAction::Set)),
    }
}

/// The bare flag means yes; a value needs `=`, so that the next word isn't taken for one.
fn optional(argument: Arg) -> Arg {
    argument.num_args(0..=1).require_equals(true).default_missing_value("true")
}
