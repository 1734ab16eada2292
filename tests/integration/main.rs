//! Everything that needs a process, a socket or a real service. The list of modules is the table of contents.

#![expect(clippy::disallowed_methods, reason = "tests start tasks as they please")]

mod support;

mod activity;
mod activity_one_machine;
mod api_activity;
mod api_auth;
mod api_docs;
mod api_http;
mod api_jwt;
mod api_limits;
mod api_listen;
mod api_log;
mod api_metrics;
mod api_pages;
mod api_routes;
mod api_tls;
mod api_unix;
mod cli_check;
mod cli_check_one_machine;
mod cli_default_target;
mod cli_docs;
mod cli_etcd_logins;
mod cli_help;
mod cli_migration;
mod cli_move;
mod cli_refusals;
mod cli_serve;
mod cli_traefik_config;
mod control;
mod control_bulk;
mod flags_docs;
mod flags_etcd;
mod flags_listen;
mod flags_public;
mod flags_routing;
mod flags_servers;
mod flags_tls;
mod forward;
mod laggards;
mod laggards_fleet;
mod last_known_good;
mod restores;
mod restores_system;
mod store_auth;
mod store_contract;
mod store_embedded;
mod store_embedded_crash;
mod store_faults;
mod store_follower;
mod store_model;
mod store_tls;
mod system;
mod system_pages;
mod tree;
