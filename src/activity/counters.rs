//! From one look at Traefik's counters to the next: how much each route was used between them.
//!
//! A counter only says how many answers there were since Traefik, or the route's router, began. One that falls has begun
//! again, and what it shows has happened since; one that vanishes says nothing. So nothing here ever goes backwards.

use std::collections::HashMap;

use super::exposition::{Answers, Sample};
use crate::traefik::name::{self, Kind};

/// What was counted by each route's routers between two looks, by the route's name.
pub type Counted = HashMap<Box<str>, Answers>;

/// The last look at each Traefik.
#[derive(Debug, Default)]
pub struct Counters {
    looks: HashMap<String, Sample>,
}

/// What is known of a Traefik that this replica looks at for the first time.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// Up to here somebody has looked at every Traefik there was, in milliseconds since 1970: whatever a Traefik that
    /// started later has counted is news.
    pub looked_ms: i64,
    /// The good answers of each route, by name, that were kept of this life of this Traefik.
    pub kept: Option<&'a HashMap<Box<str>, u64>>,
}

impl Counters {
    /// Takes a new look at one Traefik and says what happened since the last one.
    pub fn look(&mut self, traefik: &str, sample: Sample, before: Before<'_>) -> Counted {
        let counted = match self.looks.get(traefik) {
            Some(last) if last.started_ms == sample.started_ms => since(last, &sample),
            // Another life: all of it is news.
            Some(_) => by_route(&sample),
            None if before.kept.is_some() || sample.started_ms > before.looked_ms => first(&sample, before.kept),
            // It may all be long ago.
            None => Counted::new(),
        };
        self.looks.insert(traefik.to_owned(), sample);
        counted
    }

    /// Whether there was a look at this Traefik before.
    #[must_use]
    pub fn knows(&self, traefik: &str) -> bool {
        self.looks.contains_key(traefik)
    }

    /// Forgets the Traefiks that are no longer there.
    pub fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.looks.retain(|traefik, _| is_there(traefik));
    }

    /// The last look at each Traefik, to be kept: its address, when it started, and the good answers of each route.
    pub fn lives(&self) -> impl Iterator<Item = (&str, i64, HashMap<Box<str>, u64>)> {
        self.looks.iter().map(|(traefik, sample)| {
            let good = by_route(sample).into_iter().map(|(name, answers)| (name, answers.good)).collect();
            (traefik.as_str(), sample.started_ms, good)
        })
    }
}

fn since(last: &Sample, sample: &Sample) -> Counted {
    let mut counted = Counted::new();
    for (router, now) in &sample.routers {
        let before = last.routers.get(router).copied().unwrap_or_default();
        let new = if now.good < before.good || now.other < before.other {
            *now
        } else {
            Answers { good: now.good - before.good, other: now.other - before.other }
        };
        if new.all() > 0 {
            counted.entry(route_name(router).into()).or_default().add(new);
        }
    }
    counted
}

fn by_route(sample: &Sample) -> Counted {
    since(&Sample::default(), sample)
}

/// A life that somebody has looked at before, or that began since.
fn first(sample: &Sample, kept: Option<&HashMap<Box<str>, u64>>) -> Counted {
    let mut counted = by_route(sample);
    for (name, answers) in &mut counted {
        let before = kept.and_then(|kept| kept.get(name)).copied().unwrap_or(0);
        if before <= answers.good {
            answers.good -= before;
        }
    }
    counted
}

/// The route that a router serves.
fn route_name(router: &str) -> String {
    if name::kind(router) == Kind::CatchAll { name::route_of(router) } else { router.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTHING: Before<'_> = Before { looked_ms: i64::MAX, kept: None };

    fn sample(started_ms: i64, routers: &[(&str, u64, u64)]) -> Sample {
        let routers = routers.iter().map(|&(name, good, other)| (name.into(), Answers { good, other })).collect();
        Sample { started_ms, routers, ..Sample::default() }
    }

    fn good(counted: &Counted, name: &str) -> u64 {
        counted.get(name).map_or(0, |answers| answers.good)
    }

    #[test]
    fn only_what_is_new_counts() {
        let (a, b) = (name::route("/a"), name::route("/b"));
        let mut counters = Counters::default();
        assert!(counters.look("t", sample(1, &[(&a, 5, 0)]), NOTHING).is_empty(), "it may be long ago");
        assert!(counters.look("t", sample(1, &[(&a, 5, 0)]), NOTHING).is_empty());
        let counted = counters.look("t", sample(1, &[(&a, 5, 3), (&b, 1, 0)]), NOTHING);
        assert_eq!(
            (counted[a.as_str()], counted[b.as_str()]),
            (Answers { good: 0, other: 3 }, Answers { good: 1, other: 0 })
        );
    }

    #[test]
    fn a_new_life_is_news_and_a_vanished_counter_is_not() {
        let a = name::route("/a");
        let mut counters = Counters::default();
        counters.look("t", sample(1, &[(&a, 5, 0)]), NOTHING);
        assert_eq!(good(&counters.look("t", sample(2, &[(&a, 5, 0)]), NOTHING), &a), 5, "Traefik started again");
        assert!(counters.look("t", sample(2, &[]), NOTHING).is_empty());
        assert_eq!(good(&counters.look("t", sample(2, &[(&a, 2, 0)]), NOTHING), &a), 2, "the route is there again");
        assert_eq!(good(&counters.look("t", sample(2, &[(&a, 1, 0)]), NOTHING), &a), 1, "it fell");
    }

    #[test]
    fn what_was_kept_is_the_measure_of_the_first_look() {
        let (a, b) = (name::route("/a"), name::route("/b"));
        let kept = HashMap::from([(a.clone().into(), 5)]);
        let before = Before { looked_ms: i64::MAX, kept: Some(&kept) };
        let counted = Counters::default().look("t", sample(1, &[(&a, 5, 0), (&b, 1, 0)]), before);
        assert_eq!((good(&counted, &a), good(&counted, &b)), (0, 1));
        let late = Before { looked_ms: 99, kept: None };
        assert_eq!(good(&Counters::default().look("t", sample(100, &[(&a, 5, 0)]), late), &a), 5);
        assert_eq!(good(&Counters::default().look("t", sample(99, &[(&a, 5, 0)]), late), &a), 0);
    }

    #[test]
    fn a_catch_all_counts_for_its_route() {
        let (leaf, catch_all) = (name::route(""), name::catch_all(""));
        let mut counters = Counters::default();
        counters.look("t", sample(1, &[(&leaf, 100, 0)]), NOTHING);
        // The route becomes a domain: its old router is still in the first look after that, and then gone.
        let counted = counters.look("t", sample(1, &[(&leaf, 100, 0), (&catch_all, 3, 0)]), NOTHING);
        assert_eq!(good(&counted, &leaf), 3);
        assert!(counters.look("t", sample(1, &[(&catch_all, 3, 0)]), NOTHING).is_empty());
    }

    proptest! {
        /// Whatever happens to Traefik, a route is active exactly in the looks after it was asked.
        #[test]
        fn a_route_is_active_when_it_was_asked(steps in proptest::collection::vec((0u64..3, any::<bool>()), 1..40)) {
            let a = name::route("/a");
            let mut counters = Counters::default();
            let (mut life, mut count) = (1, 0);
            counters.look("t", sample(life, &[]), NOTHING);
            for (asked, restarts) in steps {
                if restarts {
                    (life, count) = (life + 1, 0);
                }
                count += asked;
                let routers: &[_] = if count == 0 { &[] } else { &[(a.as_str(), count, 0)] };
                prop_assert_eq!(good(&counters.look("t", sample(life, routers), NOTHING), &a), asked);
            }
        }
    }
}
