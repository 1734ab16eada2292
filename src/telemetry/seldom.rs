//! A warning that anybody could make us write again and again is written now and then.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Says when it is time again.
#[derive(Debug)]
pub struct Seldom {
    interval: Duration,
    last: Mutex<Option<Instant>>,
}

impl Seldom {
    /// Once in `interval` at most.
    #[must_use]
    pub const fn every(interval: Duration) -> Self {
        Self { interval, last: Mutex::new(None) }
    }

    /// Whether it is time; if so, it isn't again for the interval.
    pub fn is_due(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= self.interval);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn once_in_an_interval() {
        let seldom = Seldom::every(Duration::from_secs(60));
        assert!(seldom.is_due());
        assert!(!seldom.is_due());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(seldom.is_due());
        assert!(!seldom.is_due());
    }
}
