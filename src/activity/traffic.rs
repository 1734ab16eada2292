//! What users' requests came to, over all Traefiks and all of their lives since we look.

use std::collections::{BTreeMap, HashMap};

/// Users' requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests but websockets.
    pub web: u64,
    /// Websockets that have ended.
    pub websockets: u64,
    /// Answers by their status, those of servers and Traefik's own.
    pub answers: BTreeMap<u16, u64>,
}

impl Traffic {
    /// Adds answers of one kind.
    pub(super) fn count(&mut self, status: u16, is_websocket: bool, count: u64) {
        let kind = if is_websocket { &mut self.websockets } else { &mut self.web };
        *kind = kind.saturating_add(count);
        let answers = self.answers.entry(status).or_default();
        *answers = answers.saturating_add(count);
    }

    fn add(&mut self, more: &Self) {
        self.web = self.web.saturating_add(more.web);
        self.websockets = self.websockets.saturating_add(more.websockets);
        for (status, count) in &more.answers {
            let answers = self.answers.entry(*status).or_default();
            *answers = answers.saturating_add(*count);
        }
    }
}

/// Adds up what each life of each Traefik has counted. It never goes back: a Traefik that begins again at 0 leaves what it
/// had counted before.
#[derive(Debug, Default)]
pub(super) struct Totals {
    past: Traffic,
    /// When this life began, and what it has counted so far.
    lives: HashMap<String, (i64, Traffic)>,
}

impl Totals {
    /// One look at one Traefik.
    pub(super) fn look(&mut self, url: &str, started_ms: i64, now: Traffic) {
        if let Some((began, before)) = self.lives.insert(url.to_owned(), (started_ms, now))
            && began != started_ms
        {
            self.past.add(&before);
        }
    }

    /// Forgets the lives of Traefiks that are no more, but not what they have counted.
    pub(super) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        for (_, (_, gone)) in self.lives.extract_if(|url, _| !is_there(url)) {
            self.past.add(&gone);
        }
    }

    /// All of it.
    pub(super) fn all(&self) -> Traffic {
        let mut all = self.past.clone();
        self.lives.values().for_each(|(_, traffic)| all.add(traffic));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_life_adds_to_the_old_one() {
        let of = |count: u64| {
            let mut traffic = Traffic::default();
            traffic.count(200, false, count);
            traffic.count(101, true, 1);
            traffic
        };
        let mut totals = Totals::default();
        totals.look("a", 1, of(5));
        totals.look("b", 1, of(1));
        totals.look("a", 1, of(7));
        assert_eq!((totals.all().web, totals.all().websockets), (8, 2));
        totals.look("a", 2, of(2));
        let all = totals.all();
        assert_eq!((all.web, all.websockets), (10, 3));
        assert_eq!(all.answers, BTreeMap::from([(101, 3), (200, 10)]));
        totals.keep(|url| url == "b");
        assert_eq!((totals.all(), totals.lives.len()), (all, 1));
    }
}
