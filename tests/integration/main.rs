//! Everything that needs a process, a socket or a real service. The list of modules is the table of contents.

mod support;

mod cli_docs;
mod cli_help;
mod cli_refusals;
mod cli_serve;
mod cli_traefik_config;
mod control;
