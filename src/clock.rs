//! The time, from outside, so that tests can set it; and the time since something, which goes on while the machine sleeps.

use std::ops::{Add, AddAssign, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Says what time it is.
pub trait Clock: Send + Sync + 'static {
    /// The time of day, UTC.
    fn now(&self) -> Timestamp;
}

/// A clock, shared.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the machine for the time")]
    fn now(&self) -> Timestamp {
        timestamp(SystemTime::now())
    }
}

/// A time of day; one that is beyond all calendars is the last or the first that there is.
fn timestamp(time: SystemTime) -> Timestamp {
    let end = if time < SystemTime::UNIX_EPOCH { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::try_from(time).unwrap_or(end)
}

/// Whether a machine with this time can serve at all: no HTTP answer has a date before 1970 or after 9999, and the library that
/// writes them panics instead. The error is a sentence.
pub fn check(now: Timestamp) -> Result<(), String> {
    if (Timestamp::UNIX_EPOCH..Timestamp::MAX).contains(&now) {
        return Ok(());
    }
    Err(format!("the clock of this machine says {now}: set it to a time between 1970 and 9999"))
}

/// A moment, to tell how old something is. While the machine is suspended [`Instant`] stands still, and this doesn't: what was
/// seen before is old after it. The two can't be mixed, for a wait until such a moment would be as much too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Instant);

impl Moment {
    /// This one. In a test with paused time that time counts.
    #[must_use]
    pub fn now() -> Self {
        Self(Instant::now() + suspended())
    }

    /// The time since then.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().duration_since(self)
    }

    /// The time from an earlier moment to this one; none from a later one.
    #[must_use]
    pub fn duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    /// An earlier moment, if there is one.
    #[must_use]
    pub fn checked_sub(self, duration: Duration) -> Option<Self> {
        self.0.checked_sub(duration).map(Self)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

/// For how long the machine has been suspended since it was switched on. It grows in steps, and stands still in between: the
/// two clocks are read one after the other, and what happens in between is no suspension.
fn suspended() -> Duration {
    static KNOWN_MS: AtomicU64 = AtomicU64::new(0);
    const SHORTEST_MS: u64 = 100;
    const LOOKS: usize = 3;
    let look = || {
        let [boot, running] = [ClockId::Boottime, ClockId::Monotonic].map(|clock| {
            let now = clock_gettime(clock);
            Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
        });
        // Read in this order a pause in between makes it less, never more.
        u64::try_from(boot.saturating_sub(running).as_millis()).unwrap_or(0)
    };
    let known = KNOWN_MS.load(Ordering::Relaxed);
    let mut found = look();
    if found.saturating_sub(known) > SHORTEST_MS {
        found = (1..LOOKS).map(|_| look()).fold(found, u64::max);
        KNOWN_MS.fetch_max(found, Ordering::Relaxed);
    }
    let all = Duration::from_millis(KNOWN_MS.load(Ordering::Relaxed));
    #[cfg(test)]
    let all = all + tests::SUSPENDED.get();
    all
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        pub(super) static SUSPENDED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// As if the machine had been suspended for so long, for this thread.
    pub(crate) fn suspend(duration: Duration) {
        SUSPENDED.set(SUSPENDED.get() + duration);
    }

    #[test]
    fn a_clock_beyond_all_calendars_is_no_panic() {
        let day = Duration::from_secs(86_400);
        for days in [1, 365 * 300, 365 * 8_000, 365 * 1_000_000] {
            let _ = timestamp(SystemTime::UNIX_EPOCH - day * days);
            let _ = timestamp(SystemTime::UNIX_EPOCH + day * days);
        }
        assert_eq!(timestamp(SystemTime::UNIX_EPOCH - day).to_string(), "1969-12-31T00:00:00Z");
        assert!(check(timestamp(SystemTime::UNIX_EPOCH - day)).is_err_and(|why| why.contains("says 1969-12-31")));
        assert!(check(Timestamp::MAX).is_err() && check(Timestamp::MIN).is_err());
        assert_eq!(check(timestamp(SystemTime::UNIX_EPOCH + day * 365 * 50)), Ok(()));
        assert_eq!(timestamp(SystemTime::UNIX_EPOCH + day * 365 * 1_000_000), Timestamp::MAX);
    }

    #[test]
    fn time_goes_on_while_the_machine_sleeps() {
        let (moment, instant) = (Moment::now(), Instant::now());
        suspend(Duration::from_secs(3600));
        assert!(moment.elapsed() >= Duration::from_secs(3600) && instant.elapsed() < Duration::from_secs(60));
        assert!(Moment::now() > moment && moment.duration_since(Moment::now()) == Duration::ZERO);
    }

    #[test]
    fn without_a_suspension_it_is_the_same_time() {
        let begun = (Moment::now(), Instant::now());
        let mut last = begun.0;
        for _ in 0..1000 {
            let now = Moment::now();
            assert!(now >= last);
            last = now;
        }
        assert!(begun.0.elapsed() < begun.1.elapsed() + Duration::from_millis(100));
    }
}
