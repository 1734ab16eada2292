//! Pointsman's image in containers, several of each on a private network, as the chart runs it: killed, hung and cut off.
//!
//! `make test-containers` has a Docker daemon and the images ready. A machine where that can't be makes these tests fail: none
//! is skipped. They reach containers by their addresses, so the daemon must be on this machine, and Linux its system.

mod cluster;
mod http;
mod image;
mod kills;
mod members;
mod part;
mod partitions;
mod pauses;
mod pods;
mod routes;
mod settings;
mod stage;
mod traffic;
mod users;
mod wait;
