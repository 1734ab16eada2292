//! What we know about Traefik: how a routing table is written in its dynamic configuration, and how to see what it serves.

pub mod bucket;
pub mod client;
pub mod fixed;
pub mod fleet;
pub mod marker;
pub mod name;
pub mod plan;
pub mod rule;
pub mod tree;
