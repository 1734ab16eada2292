//! What we know about Traefik: how a routing table is written in its dynamic configuration, how to see what it serves,
//! and what it must be told at its start.

pub mod bucket;
pub mod client;
pub mod document;
pub mod dynamic_file;
pub mod fallback;
pub mod fixed;
pub mod fleet;
pub mod folder;
pub mod lag;
pub mod marker;
pub mod name;
pub mod plan;
pub mod rule;
pub mod static_config;
pub mod tree;
pub mod version;
