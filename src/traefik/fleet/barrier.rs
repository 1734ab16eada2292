//! The barrier: whom a change still waits for. Pure.

use std::time::Duration;

use super::{Fleet, Laggards, Seen, Status, Traefiks};
use crate::clock::Moment;
use crate::traefik::lag::EVIDENCE_MAX;

/// A Traefik that is up without our configuration may be about to load it: it is waited for this long.
pub(super) const LOADING_GRACE: Duration = Duration::from_secs(5);

/// A change that is to be served everywhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) epoch: &'a str,
    pub(super) n: u64,
    /// Somebody is told that it is served.
    pub(super) answers: bool,
}

/// What all Traefiks have to say to a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// How many serve it.
    pub(super) serving: usize,
    /// Those of them that were asked a moment ago.
    pub(super) serving_now: usize,
    /// Who doesn't and is live, and how that is said.
    pub(super) behind: Vec<(String, String)>,
}

impl Verdict {
    /// `Ok` if all live Traefiks serve the change, else who doesn't.
    pub(super) fn result(&self) -> Result<(), String> {
        match (self.behind.is_empty(), self.serving) {
            (true, 0) => Err("no Traefik is up that serves our routes; look at --traefik-api".to_owned()),
            (true, _) => Ok(()),
            (false, _) => Err(self.behind.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>().join("; ")),
        }
    }
}

/// Who serves a change that somebody has waited for since `start`, and who is still to do so.
///
/// Only what is `believed` counts as serving.
pub(super) fn behind(
    fleet: &Traefiks,
    change: Change<'_>,
    start: Moment,
    now: Moment,
    believed: impl Fn(&Status) -> bool,
) -> Verdict {
    let mut verdict = Verdict::default();
    for (url, seen) in fleet {
        let fresh = seen.asked.is_some_and(|asked| asked >= start);
        let why = match &seen.status {
            Status::Serving(marker) | Status::Fallback(marker)
                if marker.covers(change.epoch, change.n) && believed(&seen.status) =>
            {
                verdict.serving += 1;
                verdict.serving_now += usize::from(seen.is_evidence(now));
                continue;
            }
            Status::Down if fresh => continue,
            Status::Empty if fresh && now.duration_since(seen.since) > LOADING_GRACE => continue,
            Status::Serving(_) | Status::Fallback(_) => format!("{url} serves an older state"),
            Status::Empty => format!("{url} has not loaded our routes"),
            Status::Down | Status::Unknown => format!("{url} was not reached"),
            Status::Silent(reason) => format!("{url} does not answer ({reason})"),
        };
        verdict.behind.push((url.clone(), why));
    }
    verdict
}

impl Seen {
    /// Whether it says how things are now.
    pub(super) fn is_evidence(&self, now: Moment) -> bool {
        self.asked.is_some_and(|asked| now.duration_since(asked) <= EVIDENCE_MAX)
    }
}

impl Fleet {
    /// Whether the change may be answered. `shown_since` is when this wait first saw a Traefik serve it.
    pub(super) fn judge(
        &self,
        change: Change<'_>,
        start: Moment,
        shown_since: &mut Option<Moment>,
    ) -> Result<(), String> {
        let seen = self.seen.borrow();
        let now = Moment::now();
        let verdict = behind(&seen, change, start, now, |status| self.belief.holds(status));
        let result = verdict.result();
        if verdict.serving_now == 0 {
            return result;
        }
        let shown_since = *shown_since.get_or_insert(now);
        let Laggards::Proceed(grace) = self.laggards else { return result };
        if verdict.behind.is_empty() {
            return result;
        }
        let mut watch = self.watchlist();
        let may_go_on = |(url, _): &(String, String)| {
            seen.get(url).is_some_and(|seen| watch.is_excused(url, seen, grace, shown_since, now))
        };
        if !verdict.behind.iter().all(may_go_on) {
            return result;
        }
        if change.answers {
            watch.go_on_without(verdict.behind.iter().map(|(url, _)| url.as_str()), change.epoch, change.n, now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traefik::marker::Marker;

    const MS: Duration = Duration::from_millis(1);

    fn seen(status: Status, asked: Moment) -> Seen {
        Seen { status, since: asked, asked: Some(asked), asking: None, router_errors: None }
    }

    fn serving(n: u64, at: Moment) -> Seen {
        seen(Status::Serving(Marker { layout: 1, digest: "d".into(), tag: String::new(), epoch: "e".into(), n }), at)
    }

    fn of<const N: usize>(all: [Seen; N]) -> Traefiks {
        all.into_iter().enumerate().map(|(i, seen)| (format!("http://t{i}"), seen)).collect()
    }

    fn result<const N: usize>(all: [Seen; N], start: Moment, now: Moment) -> Result<(), String> {
        behind(&of(all), Change { epoch: "e", n: 7, answers: true }, start, now, |_| true).result()
    }

    #[test]
    fn everybody_live_must_serve_it() {
        let t = Moment::now();
        let now = t + LOADING_GRACE + 2 * MS;
        let fallback =
            Status::Fallback(Marker { layout: 1, digest: "d".into(), tag: String::new(), epoch: "e".into(), n: 7 });
        let silent = Status::Silent("no answer".into());
        let told = |all: [Seen; 2]| result(all, t, now);
        assert_eq!(told([serving(7, t), serving(9, t)]), Ok(()));
        assert_eq!(told([serving(7, t), seen(fallback, t)]), Ok(()), "the fallback is as good");
        assert_eq!(told([serving(7, t), serving(6, t)]), Err("http://t1 serves an older state".into()));
        assert_eq!(told([serving(7, t), seen(silent, t)]), Err("http://t1 does not answer (no answer)".into()));
        assert_eq!(told([serving(7, t), seen(Status::Unknown, t)]), Err("http://t1 was not reached".into()));
    }

    #[test]
    fn who_serves_nobody_is_not_waited_for() {
        let t = Moment::now();
        let now = t + LOADING_GRACE + 2 * MS;
        assert_eq!(result([serving(7, t), seen(Status::Down, t)], t, now), Ok(()));
        assert!(result([serving(7, t), seen(Status::Down, t)], t + MS, now).is_err(), "it may have begun since");
        assert_eq!(result([serving(7, t), seen(Status::Empty, t)], t, now), Ok(()));
        assert!(result([serving(7, t), seen(Status::Empty, t)], t, t + MS).is_err(), "it is loading");
        assert!(result([seen(Status::Down, t), seen(Status::Empty, t)], t, now).is_err(), "nobody serves it");
        assert!(result([], t, now).is_err(), "no Traefik at all");
    }

    #[test]
    fn what_is_not_believed_does_not_count() {
        let t = Moment::now();
        let all = of([serving(7, t), serving(8, t)]);
        let seven = |status: &Status| status.marker().is_some_and(|marker| marker.n == 7);
        let verdict = behind(&all, Change { epoch: "e", n: 7, answers: true }, t, t, seven);
        assert_eq!(verdict.result(), Err("http://t1 serves an older state".into()), "its 8 is another 8");
    }

    #[test]
    fn an_old_look_is_no_evidence() {
        let t = Moment::now();
        let all = of([serving(7, t)]);
        let at = |now| behind(&all, Change { epoch: "e", n: 7, answers: true }, t, now, |_| true).serving_now;
        assert_eq!((at(t + EVIDENCE_MAX), at(t + EVIDENCE_MAX + MS)), (1, 0));
    }
}
