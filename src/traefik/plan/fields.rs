//! Edits of single routers, services and middlewares.

use super::pack::Edit;
use crate::traefik::tree::{Fields, field};

/// What makes the fields of one router or service as they should be. `prefix` ends in a slash.
pub(super) fn difference(prefix: &str, present: Option<&Fields>, wanted: &[(&'static str, String)]) -> Vec<Edit> {
    let none = Fields::new();
    let present = present.unwrap_or(&none);
    let puts = wanted
        .iter()
        .filter(|(name, value)| field(present, name) != Some(value))
        .map(|(name, value)| Edit::Put { key: format!("{prefix}{name}"), value: value.clone() });
    let deletes = present
        .iter()
        .filter(|(name, _)| wanted.iter().all(|(wanted, _)| *wanted != &**name))
        .map(|(name, _)| Edit::Delete { key: format!("{prefix}{name}") });
    puts.chain(deletes).collect()
}

pub(super) fn put_router(name: &str, field: &str, value: &str) -> Edit {
    Edit::Put { key: format!("http/routers/{name}/{field}"), value: value.to_owned() }
}

pub(super) fn remove_router(name: &str) -> Edit {
    Edit::DeletePrefix { prefix: format!("http/routers/{name}/") }
}

pub(super) fn remove_service(name: &str) -> Edit {
    Edit::DeletePrefix { prefix: format!("http/services/{name}/") }
}

pub(super) fn remove_middleware(name: &str) -> Edit {
    Edit::DeletePrefix { prefix: format!("http/middlewares/{name}/") }
}
