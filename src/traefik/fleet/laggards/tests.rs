//! Laggards, with a time that the test makes.

use super::*;

const E: &str = "e";

fn marker(n: u64) -> Marker {
    Marker { layout: 1, digest: "d".into(), tag: String::new(), epoch: E.into(), n }
}

/// Some Traefiks and what we remember of them; everybody is asked when a test says so.
struct World {
    list: Watchlist,
    all: Traefiks,
    now: Moment,
}

impl World {
    fn new(traefiks: usize) -> Self {
        // So that nothing is taken for what was there at our start.
        let start = Moment::now();
        let now = start + Duration::from_secs(100);
        let all = (0..traefiks).map(|i| (format!("t{i}"), Seen::unknown(start))).collect();
        let mut world = Self { list: Watchlist::new(start), all, now };
        for i in 0..traefiks {
            world.shows(i, 1);
        }
        world
    }

    fn answers(&mut self, i: usize, status: Status) {
        let url = format!("t{i}");
        let seen = self.all.get_mut(&url).expect("known");
        if let Status::Serving(marker) = &status {
            self.list.see(&url, marker, seen.asked, self.now);
        }
        if seen.status.word() != status.word() {
            seen.since = self.now;
        }
        (seen.status, seen.asked) = (status, Some(self.now));
        self.list.review(&self.all, self.now);
    }

    fn shows(&mut self, i: usize, n: u64) {
        self.answers(i, Status::Serving(marker(n)));
    }

    fn is_silent(&mut self, i: usize) {
        self.answers(i, Status::Silent("no answer".into()));
    }

    /// A time passes in which each is asked again every second and says the same.
    fn passes(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let step = left.min(500);
            self.now += Duration::from_millis(step);
            left -= step;
            for i in 0..self.all.len() {
                let status = self.all[&format!("t{i}")].status.clone();
                self.answers(i, status);
            }
        }
    }

    /// As when we are stopped: nobody is asked.
    fn sleeps(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.list.woke(self.now);
        self.list.review(&self.all, self.now);
    }

    fn is_withdrawn(&self, n: u64) -> bool {
        self.list.withdrawn(&self.all, &marker(n), self.now).is_some()
    }

    /// Whether a change that was just seen elsewhere may go on without this one, with a grace of 6 s.
    fn is_excused(&self, i: usize) -> bool {
        let url = format!("t{i}");
        self.list.is_excused(&url, &self.all[&url], Duration::from_secs(6), self.now, self.now)
    }
}

#[test]
fn one_that_stays_behind_is_withdrawn_and_later_excused() {
    let mut world = World::new(2);
    world.shows(0, 2);
    world.passes(1500);
    assert!(!world.is_withdrawn(1) && world.list.laggards(world.now).is_empty());
    world.passes(1000);
    assert!(world.is_withdrawn(1) && !world.is_withdrawn(2) && !world.is_excused(1));
    world.passes(3000);
    assert!(!world.is_excused(1), "the grace is not over");
    world.passes(1000);
    assert!(world.is_excused(1) && !world.is_excused(0));
    let lag = world.list.laggards(world.now)["t1"].lag;
    assert_eq!(lag, Duration::from_millis(6500));
    // A change that another one shows only now needs a newer look: it may have come back since the last one.
    world.now += Duration::from_millis(20);
    assert!(!world.is_excused(1));
    world.shows(1, 1);
    assert!(world.is_excused(1));
    world.shows(1, 2);
    world.shows(0, 2);
    assert!(!world.is_excused(1) && world.list.laggards(world.now).is_empty() && !world.is_withdrawn(2));
}

#[test]
fn if_all_are_behind_nobody_is() {
    let mut world = World::new(2);
    world.shows(0, 2);
    world.shows(0, 1);
    world.passes(60_000);
    assert!(!world.is_withdrawn(1), "nobody serves 2 any more");
    let mut alone = World::new(1);
    alone.passes(60_000);
    assert!(!alone.is_withdrawn(1) && !alone.is_excused(0));
}

#[test]
fn a_silent_one_is_excused_if_it_is_silent_now() {
    let mut world = World::new(2);
    world.is_silent(1);
    world.passes(1500);
    assert!(world.list.laggards(world.now).is_empty());
    world.passes(5500);
    assert!(world.list.laggards(world.now)["t1"].silent && world.is_excused(1));
    // Between two questions it may have come back.
    world.now += Duration::from_millis(20);
    assert!(!world.is_excused(1));
    let asking = world.now;
    world.all.get_mut("t1").expect("known").asking = Some(asking);
    world.now += Duration::from_millis(50);
    assert!(!world.is_excused(1), "it may be about to answer");
    world.now += Duration::from_millis(50);
    assert!(world.is_excused(1));
    world.shows(1, 1);
    assert!(!world.is_excused(1));
}

#[test]
fn silence_of_all_is_nobodys_lag() {
    let mut world = World::new(2);
    world.is_silent(0);
    world.is_silent(1);
    world.passes(60_000);
    assert!(world.list.laggards(world.now).is_empty() && !world.is_excused(0) && !world.is_excused(1));
}

#[test]
fn after_a_pause_of_our_own_nothing_is_decided_on_what_was() {
    let mut world = World::new(2);
    world.shows(0, 2);
    world.passes(4000);
    assert!(world.is_withdrawn(1));
    world.sleeps(30);
    assert!(!world.is_withdrawn(1) && !world.is_excused(1), "what we know is 30 s old");
    // Asked again, it really is behind: withdrawn at once, but the grace begins anew, for we answered no probe.
    world.shows(0, 2);
    world.shows(1, 1);
    assert!(world.is_withdrawn(1) && !world.is_excused(1));
    world.passes(6500);
    assert!(world.is_excused(1));
}

#[test]
fn what_we_find_after_a_pause_may_have_been_there_for_long() {
    let mut world = World::new(2);
    world.sleeps(30);
    world.shows(0, 9);
    world.shows(1, 4);
    assert!(world.is_withdrawn(4) && !world.is_excused(1));
    // As at our start.
    let now = Moment::now();
    let mut list = Watchlist::new(now);
    list.see("t0", &marker(9), None, now);
    let behind = list.history.behind_since(&marker(4), now).expect("behind");
    assert_eq!((now - behind.from, behind.noticed), (PATIENCE, now));
}

#[test]
fn nobody_is_let_in_again_without_what_was_answered() {
    let mut world = World::new(3);
    world.shows(0, 2);
    world.shows(1, 2);
    world.passes(7000);
    world.shows(0, 3);
    world.shows(1, 3);
    world.shows(2, 1);
    assert!(world.is_excused(2));
    let now = world.now;
    world.list.go_on_without(["t2"].into_iter(), E, 3, now);
    assert!(world.list.laggards(now)["t2"].excused && world.list.went_on == 1);
    // It has loaded 2, and 3 is elsewhere since a moment only: far from the patience.
    world.shows(2, 2);
    assert!(world.is_withdrawn(2) && !world.is_withdrawn(3));
    world.shows(2, 3);
    world.shows(0, 3);
    assert!(world.list.laggards(world.now).is_empty());
    // The floor stays when the episode is over; but if nobody is left who serves it, an old state is better than none.
    assert!(world.is_withdrawn(2));
    for i in 0..2 {
        world.answers(i, Status::Down);
    }
    world.shows(2, 2);
    assert!(!world.is_withdrawn(2));
}

#[test]
fn while_somebody_lags_the_probe_has_no_patience() {
    // Another replica may have answered what all but the laggard serve.
    let mut world = World::new(3);
    world.shows(0, 2);
    world.shows(1, 2);
    world.passes(2500);
    world.shows(0, 4);
    world.shows(1, 3);
    assert!(!world.is_withdrawn(3), "one of the others has no more either");
    assert!(world.is_withdrawn(2));
    world.shows(2, 3);
    world.shows(1, 3);
    assert!(world.list.laggards(world.now).is_empty());
    assert!(!world.is_withdrawn(3));
}

#[test]
fn a_fallback_is_judged_and_judges_nobody() {
    let mut world = World::new(2);
    world.answers(0, Status::Fallback(marker(2)));
    world.list.see("t9", &marker(2), None, world.now);
    world.passes(60_000);
    assert!(!world.is_withdrawn(1), "the store is away: nobody can serve what the fallback has");
    world.answers(0, Status::Fallback(marker(1)));
    world.shows(1, 2);
    world.passes(2500);
    assert!(world.is_withdrawn(1) && world.list.laggards(world.now).contains_key("t0"));
}

#[test]
fn one_that_is_gone_is_no_laggard() {
    for end in [Status::Down, Status::Empty] {
        let mut world = World::new(2);
        world.shows(0, 2);
        world.passes(2500);
        assert!(!world.list.laggards(world.now).is_empty());
        world.answers(1, end);
        world.passes(5500);
        assert!(world.list.laggards(world.now).is_empty());
    }
    let mut world = World::new(2);
    world.shows(0, 2);
    world.passes(2500);
    world.all.remove("t1");
    world.list.forget("t1");
    assert!(world.list.laggards(world.now).is_empty());
}

/// What was seen before the machine was suspended is old when it wakes, although no time seems to have passed.
#[tokio::test(start_paused = true)]
async fn what_was_seen_before_a_suspension_is_no_evidence() {
    let mut seen = Seen::unknown(Moment::now());
    (seen.status, seen.asked) = (Status::Serving(marker(7)), Some(Moment::now()));
    assert!(seen.is_evidence(Moment::now()));
    crate::clock::tests::suspend(Duration::from_secs(3600));
    assert!(!seen.is_evidence(Moment::now()));
}
