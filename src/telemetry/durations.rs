//! How long things took, as a histogram with few buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets, in seconds. The API answers within 8 s, so nothing is beyond for long.
pub const BOUNDS_S: [f64; 7] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 8.0];

/// Counts durations.
#[derive(Debug, Default)]
pub struct Durations {
    /// One for each bound, and one for what is beyond.
    buckets: [AtomicU64; BOUNDS_S.len() + 1],
    sum_us: AtomicU64,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// All durations together, in seconds.
    pub sum_s: f64,
    /// How many.
    pub count: u64,
    /// How many were within each bound (in seconds) and not within the one before; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Durations {
    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS_S.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS_S.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What has been counted so far.
    #[must_use]
    pub fn read(&self) -> Counted {
        let bounds = BOUNDS_S.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().map(|count| count.load(Ordering::Relaxed))).collect();
        let sum = Duration::from_micros(self.sum_us.load(Ordering::Relaxed));
        Counted { sum_s: sum.as_secs_f64(), count: buckets.iter().map(|(_, count)| count).sum(), buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_one_bucket() {
        let durations = Durations::default();
        for ms in [0, 5, 6, 100, 9000] {
            durations.observe(Duration::from_millis(ms));
        }
        let Counted { sum_s, count, buckets } = durations.read();
        assert!((sum_s - 9.111).abs() < 1e-9 && count == 5, "{sum_s} {count}");
        let counts: Vec<u64> = buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 1, 0, 0, 0, 0, 1]);
    }
}
