//! Pointsman: a control plane that lets `JupyterHub` route through Traefik.
//!
//! The rooms, in reading order. `ARCHITECTURE.md` is the map; `tests/architecture.rs` holds the direction of imports.

pub mod route;

pub mod snapshot;

pub mod store;

pub mod traefik;

pub mod activity;

pub mod control;

pub mod child;

pub mod api;

pub mod forward;

pub mod join;

pub mod config;

pub mod cli;

pub mod causes;
pub mod clock;
pub mod files;
pub mod lifecycle;
pub mod ownership;
pub mod random;
pub mod socket;
pub mod telemetry;
