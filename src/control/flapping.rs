//! Routes that go back and forth: two hubs on one proxy.
//!
//! Calls carry no identity, so two hubs can't be told apart by them. But each of them, at each of its checks, takes away the
//! routes of the other one and puts back its own: a route then returns to a target that it had before, again and again, and
//! many routes are removed and put back just as they were. A user who restarts a server does neither: it has a new address as
//! a rule, and where addresses are fixed it is a few routes of many that come back again and again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::route::{RouteSpec, Target};

/// How long a return is remembered: some checks of a hub, which come every five minutes.
const WINDOW: Duration = Duration::from_secs(20 * 60);

/// One route that has returned to an earlier target so often flaps.
const RETURNS_MIN: usize = 3;

/// So many routes that were each put back so often as they had been flap, if they are at least half of all that were put
/// back at all: where every server keeps its address, a class that restarts its servers has a few who do it again and again.
const PUT_BACK_MIN: (usize, usize) = (3, 3);

/// Routes that are remembered, beside the root. Of a storm of changes the first ones are enough.
const ROUTES_MAX: usize = 2_000;

/// How long no room is looked for after none was found.
const FULL_FOR: Duration = Duration::from_secs(30);

/// What two hubs do to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flap {
    /// One of the routes.
    pub(super) spec: RouteSpec,
    /// Its target, and the one before; the same if it was removed and put back.
    pub(super) targets: [Target; 2],
}

#[derive(Debug)]
struct Past {
    now: Option<Target>,
    before: Option<Target>,
    returned: VecDeque<Instant>,
    put_back: VecDeque<Instant>,
    at: Instant,
}

/// Remembers the changes of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Detector {
    routes: HashMap<RouteSpec, Past>,
    /// When no room was found.
    full_since: Option<Instant>,
}

impl Detector {
    /// A route has a target now; `old` is what it had until now, as the table knows. Says whether this is flapping.
    pub(super) fn put(&mut self, spec: &RouteSpec, old: Option<&Target>, new: &Target, now: Instant) -> Option<Flap> {
        let past = self.past(spec, old, now)?;
        match past.now.take() {
            Some(target) if target == *new => {}
            Some(target) => {
                if past.before.as_ref() == Some(new) {
                    past.returned.push_back(now);
                }
                past.before = Some(target);
            }
            None if past.before.as_ref() == Some(new) => past.put_back.push_back(now),
            None => {}
        }
        past.now = Some(new.clone());
        self.verdict(spec, now)
    }

    /// A route is gone.
    pub(super) fn delete(&mut self, spec: &RouteSpec, old: Option<&Target>, now: Instant) {
        if let Some(past) = self.past(spec, old, now) {
            past.before = past.now.take().or(past.before.take());
        }
    }

    /// What is remembered of a route; `None` if there is no room for it. The root has it always: two hubs both want that one.
    fn past(&mut self, spec: &RouteSpec, old: Option<&Target>, now: Instant) -> Option<&mut Past> {
        if self.routes.len() >= ROUTES_MAX && !self.routes.contains_key(spec) && !spec.is_root() {
            // Looking through all of them for each change of a storm would cost more than it finds.
            if self.full_since.is_some_and(|since| now.duration_since(since) < FULL_FOR) {
                return None;
            }
            self.routes.retain(|_, past| now.duration_since(past.at) < WINDOW);
            self.full_since = (self.routes.len() >= ROUTES_MAX).then_some(now);
            if self.full_since.is_some() {
                return None;
            }
        }
        let past = self.routes.entry(spec.clone()).or_insert_with(|| Past {
            now: old.cloned(),
            before: None,
            returned: VecDeque::new(),
            put_back: VecDeque::new(),
            at: now,
        });
        past.at = now;
        for times in [&mut past.returned, &mut past.put_back] {
            while times.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
                times.pop_front();
            }
        }
        Some(past)
    }

    fn verdict(&self, spec: &RouteSpec, now: Instant) -> Option<Flap> {
        let past = self.routes.get(spec)?;
        let target = past.now.clone()?;
        if past.returned.len() >= RETURNS_MIN {
            let before = past.before.clone()?;
            return Some(Flap { spec: spec.clone(), targets: [target, before] });
        }
        let (routes_min, times_min) = PUT_BACK_MIN;
        let times = |past: &Past| past.put_back.iter().filter(|at| now.duration_since(**at) < WINDOW).count();
        if times(past) < times_min {
            return None;
        }
        let all = || self.routes.values().map(times);
        let (often, ever) =
            (all().filter(|times| *times >= times_min).count(), all().filter(|times| *times > 0).count());
        let flaps = often >= routes_min && 2 * often >= ever;
        flaps.then(|| Flap { spec: spec.clone(), targets: [target.clone(), target] })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(path: &str) -> RouteSpec {
        RouteSpec::from_decoded(path).expect("valid")
    }

    fn target(port: u16) -> Target {
        Target::parse(&format!("http://10.0.0.1:{port}")).expect("valid")
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_between_two_targets_is_named() {
        let (mut detector, root, begun) = (Detector::default(), spec("/"), Instant::now());
        let mut found = Vec::new();
        for (minute, port) in [(0, 1), (1, 2), (5, 1), (6, 2), (10, 1)] {
            let now = begun + Duration::from_secs(60 * minute);
            found.push(detector.put(&root, None, &target(port), now));
        }
        let flap = Flap { spec: root, targets: [target(1), target(2)] };
        assert_eq!(found, [None, None, None, None, Some(flap)]);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_changes_are_no_flapping() {
        let (mut detector, root, begun) = (Detector::default(), spec("/"), Instant::now());
        for hour in 0..20 {
            let now = begun + Duration::from_secs(3600 * hour);
            assert_eq!(detector.put(&root, None, &target(u16::try_from(hour % 2).unwrap() + 1), now), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_are_put_back_flap_and_one_user_who_restarts_does_not() {
        let now = Instant::now();
        for (users, is_flapping) in [(1, false), (2, false), (3, true)] {
            let mut detector = Detector::default();
            let mut found = false;
            for _ in 0..4 {
                for user in 0..users {
                    let spec = spec(&format!("/user/{user}"));
                    detector.delete(&spec, Some(&target(1)), now);
                    found |= detector.put(&spec, None, &target(1), now).is_some();
                }
            }
            assert_eq!(found, is_flapping, "{users}");
        }
    }

    /// Where servers keep their addresses: everybody restarts a server, some do it again and again.
    #[tokio::test(start_paused = true)]
    async fn a_class_that_restarts_its_servers_does_not_flap() {
        let (mut detector, now) = (Detector::default(), Instant::now());
        for round in 0..6 {
            for user in (0..30).filter(|user| round == 0 || user % 6 == 0) {
                let spec = spec(&format!("/user/{user}"));
                detector.delete(&spec, Some(&target(1 + user)), now);
                assert_eq!(detector.put(&spec, None, &target(1 + user), now), None, "{user} in round {round}");
            }
        }
    }

    /// Two large hubs: each check of one takes away thousands of routes of the other.
    #[tokio::test(start_paused = true)]
    async fn a_storm_does_not_hide_two_hubs() {
        let (mut detector, begun, root) = (Detector::default(), Instant::now(), spec("/"));
        let (mut at_root, mut at_users) = (false, false);
        for check in 0..8_u16 {
            let now = begun + Duration::from_secs(120 * u64::from(check));
            for user in 0..3_000_u16 {
                let spec = spec(&format!("/user/{user}"));
                match (user + check) % 2 {
                    0 => detector.delete(&spec, Some(&target(1 + user)), now),
                    _ => at_users |= detector.put(&spec, None, &target(1 + user), now).is_some(),
                }
            }
            at_root |= detector.put(&root, None, &target(1 + check % 2), now).is_some();
        }
        assert!(at_root && at_users, "{at_root} {at_users}");
    }

    proptest! {
        /// Servers that start again elsewhere, however often and however many.
        #[test]
        fn new_targets_never_flap(order in prop::collection::vec((0..5_u8, any::<bool>()), 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().start_paused(true).enable_time().build().unwrap();
            runtime.block_on(async {
                let (mut detector, now) = (Detector::default(), Instant::now());
                for (port, (user, is_removed)) in (1..).zip(order) {
                    let spec = spec(&format!("/user/{user}"));
                    if is_removed {
                        detector.delete(&spec, None, now);
                    }
                    prop_assert_eq!(detector.put(&spec, None, &target(port), now), None);
                }
                Ok(())
            })?;
        }

        #[test]
        fn memory_is_bounded(users in prop::collection::vec(any::<u16>(), 0..100)) {
            let mut detector = Detector::default();
            let now = Instant::now();
            for user in 0..ROUTES_MAX {
                detector.put(&spec(&format!("/user/{user}")), None, &target(1), now);
            }
            for user in users {
                detector.put(&spec(&format!("/late/{user}")), None, &target(1), now);
                prop_assert!(detector.routes.len() <= ROUTES_MAX);
            }
        }
    }
}
