//! How many connections are forwarded, and how often there was no place for more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counts the connections through one public socket, or through all addresses of a registry.
#[derive(Debug)]
pub struct Counts {
    max: usize,
    open: AtomicUsize,
    limit_reached: AtomicU64,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Connections that are open now.
    pub open: usize,
    /// How many there may be.
    pub max: usize,
    /// How often all places were taken.
    pub limit_reached: u64,
}

impl Counts {
    pub(super) fn new(max: usize) -> Self {
        Self { max, open: AtomicUsize::new(0), limit_reached: AtomicU64::new(0) }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Counts a connection until the result is dropped.
    pub(super) fn count(self: &Arc<Self>) -> Counted {
        self.open.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    pub(super) fn limit_reached(&self) {
        self.limit_reached.fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers as they are now.
    #[must_use]
    pub fn read(&self) -> Connections {
        let (open, limit_reached) = (self.open.load(Ordering::Relaxed), self.limit_reached.load(Ordering::Relaxed));
        Connections { open, max: self.max, limit_reached }
    }
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Counted(Arc<Counts>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
