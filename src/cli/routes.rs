//! Tables of routes outside of a running Pointsman: as text, at somebody's API, and in the store of the settings.

pub(super) mod client;
pub(super) mod here;
mod pinned;
pub(super) mod table;
