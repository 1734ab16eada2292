//! Lag: since when a state has been behind what other Traefiks serve. Pure; the time comes from outside.
//!
//! Within one epoch the higher `n` is ahead. Epochs are random, so their order has to be learned: the one that the store
//! has now is ahead of those it had, and a Traefik that moves from one epoch to another shows which came later. Two epochs
//! whose order isn't known are not behind each other: nobody is judged by a guess.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::marker::Marker;
use crate::clock::Moment;

/// A Traefik that is behind for longer is withdrawn.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// What was asked longer ago is no evidence for or against anybody: we may have been paused.
pub const EVIDENCE_MAX: Duration = Duration::from_secs(3);

/// How many sightings are kept, and epochs that are over.
const SIGHTINGS_MAX: usize = 512;
const PAST_MAX: usize = 64;

/// When a state began to be behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// At the earliest: nobody had looked for a while before. By this a Traefik is withdrawn.
    pub from: Moment,
    /// When it was noticed here. By this changes go on without it.
    pub noticed: Moment,
}

/// The first time that some Traefik was seen to serve a state.
#[derive(Debug, Clone)]
struct Sighting {
    epoch: String,
    n: u64,
    behind: Behind,
}

/// When each newer state was first served by any Traefik.
#[derive(Debug, Default)]
pub struct History {
    /// The epoch that is ahead of all those in `past`.
    current: Option<String>,
    /// Whether the store itself has named the current epoch.
    told: bool,
    /// Epochs that are over, oldest first.
    past: VecDeque<String>,
    /// Epochs whose place isn't known, and when they were first seen.
    strangers: BTreeMap<String, Moment>,
    /// The epoch that each Traefik showed last.
    last: BTreeMap<String, String>,
    sightings: Vec<Sighting>,
}

impl History {
    /// The store is in this epoch, says our mirror, which may be behind: an epoch that is known to be over stays so.
    pub fn store_has(&mut self, epoch: &str) {
        if self.past.iter().any(|past| past == epoch) {
            return;
        }
        self.told = true;
        self.begin(epoch);
    }

    /// The Traefik at `url` serves this from the store. It may have done so since `from`; it is `now`.
    pub fn see(&mut self, url: &str, marker: &Marker, from: Moment, now: Moment) {
        let epoch = &marker.epoch;
        let before = self.last.insert(url.to_owned(), epoch.clone());
        let is_over = self.past.contains(epoch);
        match &self.current {
            None => self.begin(epoch),
            Some(current) if current == epoch || is_over => {}
            // A Traefik's tree goes forward.
            Some(current) if before.as_ref() == Some(current) => {
                self.told = false;
                self.begin(epoch);
            }
            Some(_) => {
                self.strangers.entry(epoch.clone()).or_insert(now);
            }
        }
        if !self.sightings.iter().rev().any(|seen| seen.epoch == *epoch && seen.n >= marker.n) {
            self.thin_out();
            let behind = Behind { from: from.min(now), noticed: now };
            self.sightings.push(Sighting { epoch: epoch.clone(), n: marker.n, behind });
        }
    }

    /// There is no such Traefik any more.
    pub fn forget(&mut self, url: &str) {
        self.last.remove(url);
    }

    /// Whether the state `a` is newer than `b`.
    #[must_use]
    pub fn is_ahead(&self, a: (&str, u64), b: (&str, u64), now: Moment) -> bool {
        if a.0 == b.0 {
            return a.1 > b.1;
        }
        matches!((self.rank(a.0, now), self.rank(b.0, now)), (Some(a), Some(b)) if a > b)
    }

    /// Since when something newer than this has been served; `None` if nothing newer was ever seen.
    #[must_use]
    pub fn behind_since(&self, marker: &Marker, now: Moment) -> Option<Behind> {
        let ahead = self.sightings.iter().filter(|seen| self.is_ahead((&seen.epoch, seen.n), marker.state(), now));
        ahead
            .map(|seen| seen.behind)
            .reduce(|a, b| Behind { from: a.from.min(b.from), noticed: a.noticed.min(b.noticed) })
    }

    fn begin(&mut self, epoch: &str) {
        if self.current.as_deref() == Some(epoch) {
            return;
        }
        if let Some(over) = self.current.replace(epoch.to_owned()) {
            if self.past.len() == PAST_MAX {
                self.past.pop_front();
            }
            self.past.push_back(over);
        }
        self.strangers.remove(epoch);
    }

    /// An epoch's place in the order of epochs, if it is known.
    fn rank(&self, epoch: &str, now: Moment) -> Option<usize> {
        if self.current.as_deref() == Some(epoch) {
            return Some(usize::MAX);
        }
        if let Some(at) = self.past.iter().position(|past| past == epoch) {
            return Some(at + 1);
        }
        // Newer than our mirror, or older than our memory? A mirror is not behind for that long.
        let first = self.strangers.get(epoch)?;
        (self.told && now.duration_since(*first) > EVIDENCE_MAX).then_some(0)
    }

    /// Makes room. The first sighting stays, so that a lag only ever looks a little shorter than it is.
    fn thin_out(&mut self) {
        if self.sightings.len() < SIGHTINGS_MAX {
            return;
        }
        let mut at = 0;
        self.sightings.retain(|_| {
            at += 1;
            at > SIGHTINGS_MAX / 2 || at % 2 == 1
        });
        let (sightings, last, current) = (&self.sightings, &self.last, &self.current);
        self.strangers.retain(|epoch, _| {
            sightings.iter().any(|s| s.epoch == *epoch)
                || last.values().any(|shown| shown == epoch)
                || current.as_ref() == Some(epoch)
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marker(epoch: &str, n: u64) -> Marker {
        Marker { layout: 1, digest: "d".into(), tag: String::new(), epoch: epoch.into(), n }
    }

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn lag(history: &History, epoch: &str, n: u64, now: Moment) -> Option<u64> {
        history.behind_since(&marker(epoch, n), now).map(|behind| (now - behind.noticed).as_secs())
    }

    #[test]
    fn lag_counts_from_the_first_that_went_ahead() {
        let (mut history, t) = (History::default(), Moment::now());
        history.see("a", &marker("e", 1), t, t);
        history.see("b", &marker("e", 1), t, t);
        assert_eq!(lag(&history, "e", 1, t + seconds(9)), None);
        history.see("a", &marker("e", 2), t + seconds(1), t + seconds(1));
        history.see("a", &marker("e", 5), t + seconds(4), t + seconds(4));
        history.see("c", &marker("e", 5), t + seconds(8), t + seconds(8));
        let now = t + seconds(10);
        assert_eq!(lag(&history, "e", 1, now), Some(9));
        assert_eq!(lag(&history, "e", 2, now), Some(6));
        assert_eq!(lag(&history, "e", 4, now), Some(6));
        assert_eq!(lag(&history, "e", 5, now), None);
    }

    #[test]
    fn a_traefik_that_moves_to_another_epoch_is_ahead() {
        let (mut history, t) = (History::default(), Moment::now());
        history.see("a", &marker("old", 100), t, t);
        history.see("b", &marker("old", 100), t, t);
        history.see("a", &marker("new", 1), t + seconds(1), t + seconds(1));
        let now = t + seconds(4);
        assert_eq!(lag(&history, "old", 100, now), Some(3));
        assert_eq!(lag(&history, "new", 1, now), None);
        // Nor does a mirror that is behind turn it round, nor a Traefik that comes back with what it had.
        history.store_has("old");
        history.see("a", &marker("old", 101), now, now);
        assert!(lag(&history, "old", 101, now).is_some());
        assert_eq!(lag(&history, "new", 1, now), None);
    }

    #[test]
    fn without_knowledge_of_their_order_no_epoch_is_behind() {
        let (mut history, t) = (History::default(), Moment::now());
        history.see("a", &marker("x", 5), t, t);
        history.see("b", &marker("y", 1), t, t);
        let later = t + seconds(60);
        assert_eq!((lag(&history, "x", 5, later), lag(&history, "y", 1, later)), (None, None));
        // The store knows, whichever was seen first.
        history.store_has("y");
        assert_eq!((lag(&history, "x", 5, later), lag(&history, "y", 1, later)), (Some(60), None));
    }

    #[test]
    fn an_epoch_from_before_our_time_is_behind_after_a_moment() {
        let (mut history, t) = (History::default(), Moment::now());
        history.store_has("now");
        history.see("a", &marker("now", 5), t, t);
        history.see("b", &marker("ancient", 900), t, t);
        assert_eq!(lag(&history, "ancient", 900, t + seconds(2)), None, "our mirror may be behind");
        assert_eq!(lag(&history, "ancient", 900, t + seconds(4)), Some(4));
        assert_eq!(lag(&history, "now", 5, t + seconds(4)), None);
        // It was newer after all, and our mirror comes to know.
        history.store_has("ancient");
        assert_eq!(lag(&history, "ancient", 900, t + seconds(5)), None);
        assert!(lag(&history, "now", 5, t + seconds(5)).is_some());
    }

    #[test]
    fn a_full_memory_forgets_no_lag() {
        let (mut history, t) = (History::default(), Moment::now());
        for n in 1..5000 {
            let now = t + Duration::from_millis(n);
            history.see("a", &marker("e", n), now, now);
        }
        assert!(history.sightings.len() <= SIGHTINGS_MAX);
        let since = history.behind_since(&marker("e", 0), t + seconds(10)).expect("behind");
        assert_eq!(since.noticed, t + Duration::from_millis(1));
    }

    proptest! {
        /// Against the whole history, kept in full: what nobody was ahead of has no lag, the rest has exactly its own.
        #[test]
        fn lag_is_what_the_whole_history_says(steps in prop::collection::vec((0u8..3, 0u64..6, 0u64..3), 1..40), asked in 0u64..50) {
            let (mut history, t) = (History::default(), Moment::now());
            let (mut states, mut whole, mut now) = ([0u64; 3], Vec::new(), t);
            for (traefik, forward, pause) in steps {
                now += seconds(pause);
                let n = &mut states[usize::from(traefik)];
                *n += forward;
                history.see(&traefik.to_string(), &marker("e", *n), now, now);
                whole.push((*n, now));
            }
            let expected = whole.iter().filter(|(n, _)| *n > asked).map(|(_, at)| *at).min();
            prop_assert_eq!(history.behind_since(&marker("e", asked), now).map(|b| b.noticed), expected);
        }

        /// Whatever is seen in whatever order, no two states are ahead of each other.
        #[test]
        fn nobody_is_ahead_of_whom_he_is_behind(steps in prop::collection::vec((0u8..3, 0u8..4, 0u64..4, any::<bool>()), 0..40)) {
            let (mut history, mut now) = (History::default(), Moment::now());
            for (traefik, epoch, n, told) in steps {
                now += seconds(1);
                if told {
                    history.store_has(&epoch.to_string());
                } else {
                    history.see(&traefik.to_string(), &marker(&epoch.to_string(), n), now, now);
                }
            }
            let states: Vec<(String, u64)> = (0..4).flat_map(|e| (0..4).map(move |n| (e.to_string(), n))).collect();
            for a in &states {
                for b in &states {
                    let (a, b) = ((a.0.as_str(), a.1), (b.0.as_str(), b.1));
                    prop_assert!(!(history.is_ahead(a, b, now) && history.is_ahead(b, a, now)), "{a:?} {b:?}");
                }
            }
        }
    }
}
