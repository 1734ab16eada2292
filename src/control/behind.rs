//! A mirror that is behind what was read of the store: it may be on its way there, or its watch may be dead.

use std::time::Duration;

use tokio::time::Instant;

/// How long the mirror may be behind what was read.
const BEHIND_MAX: Duration = Duration::from_secs(3);

/// Whether the mirror has come to what was read.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// What the mirror has shown since when, although something else was read.
    stuck: Option<(Vec<u8>, Instant)>,
    /// When it was last read anew for that.
    due: Option<Instant>,
}

/// What [`Behind`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// For too long.
    pub(super) is_behind: bool,
    /// It should be read anew.
    pub(super) is_due: bool,
}

impl Behind {
    /// The store has `read`, and the mirror `mirrored`. A mirror that moves is alive, however far behind it is.
    pub(super) fn look(&mut self, read: &[u8], mirrored: &[u8], now: Instant) -> Found {
        let stands_still = self.stuck.as_ref().is_some_and(|(shown, _)| shown == mirrored);
        if read == mirrored || !stands_still {
            self.due = None;
            self.stuck = (read != mirrored).then(|| (mirrored.to_vec(), now));
            return Found { is_behind: false, is_due: false };
        }
        let is_behind = self.stuck.as_ref().is_some_and(|(_, since)| now.duration_since(*since) >= BEHIND_MAX);
        let is_due = is_behind && self.due.is_none_or(|due| now.duration_since(due) >= BEHIND_MAX);
        if is_due {
            self.due = Some(now);
        }
        Found { is_behind, is_due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_that_moves_is_alive_and_one_that_stands_is_read_anew() {
        let (mut behind, t) = (Behind::default(), Instant::now());
        let mut look = |read: &str, mirrored: &str, seconds| {
            let found = behind.look(read.as_bytes(), mirrored.as_bytes(), t + Duration::from_secs(seconds));
            (found.is_behind, found.is_due)
        };
        for second in 0..10 {
            assert_eq!(
                look(&format!("{}", second + 1), &format!("{second}"), second),
                (false, false),
                "always one behind"
            );
        }
        assert_eq!(look("20", "20", 10), (false, false));
        assert_eq!(look("21", "20", 11), (false, false));
        assert_eq!(look("22", "20", 13), (false, false));
        assert_eq!(look("23", "20", 14), (true, true));
        assert_eq!(look("23", "20", 15), (true, false), "it is being read");
        assert_eq!(look("23", "20", 17), (true, true), "once more");
        assert_eq!(look("23", "23", 18), (false, false));
    }
}
