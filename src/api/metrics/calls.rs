//! The API's calls, counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};

use crate::telemetry::durations::Durations;

/// What is counted about the API's calls. Probes (`/healthz`, `/readyz`) are left out.
#[derive(Debug, Default)]
pub struct CallCounts {
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
    durations: Durations,
    verbs: [AtomicU64; 3],
}

/// Methods that are counted by name; anybody may invent others.
const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::DELETE, Method::HEAD, Method::PUT, Method::PATCH, Method::OPTIONS];

impl CallCounts {
    /// Counts an answer.
    pub(in crate::api) fn note(&self, method: &Method, path: &str, status: StatusCode, took: Duration) {
        if matches!(path, "/healthz" | "/readyz") {
            return;
        }
        let name = METHODS.iter().position(|known| known == method).map_or("other", |i| NAMES[i]);
        *self.lock().entry((name, status.as_u16())).or_default() += 1;
        self.durations.observe(took);
        // As configurable-http-proxy counts: only what was let in, and a delete also if there was nothing to delete.
        let is_done = status.is_success() || *method != Method::POST && status == StatusCode::NOT_FOUND;
        let verb = match *method {
            Method::GET => 0,
            Method::POST => 1,
            Method::DELETE => 2,
            _ => return,
        };
        if is_done && (path == "/api/routes" || path.starts_with("/api/routes/")) {
            self.verbs[verb].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Answers by method and status.
    pub(super) fn by_method_and_status(&self) -> BTreeMap<(&'static str, u16), u64> {
        self.lock().clone()
    }

    /// How long they took.
    pub(super) fn durations(&self) -> &Durations {
        &self.durations
    }

    /// Routes that were asked for, added and deleted.
    pub(super) fn verbs(&self) -> [u64; 3] {
        [0, 1, 2].map(|verb: usize| self.verbs[verb].load(Ordering::Relaxed))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(&'static str, u16), u64>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names of [`METHODS`].
const NAMES: [&str; METHODS.len()] = ["GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_have_their_names() {
        assert_eq!(METHODS.map(|method| method.to_string()), NAMES);
    }
}
