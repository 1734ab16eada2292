//! Log lines that clients can cause as often as they like: the first of a kind from a peer is written in full, and those
//! that follow within a minute are counted and written as one line.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Lines of one kind are written in full once in this time.
const INTERVAL: Duration = Duration::from_secs(60);

/// How often [`write_sums`] looks for intervals that are over.
const TICK: Duration = Duration::from_secs(5);

/// Kinds of lines that are counted apart, each from one peer. What comes beyond is counted as from "other peers".
const KINDS_MAX: usize = 256;

/// The longest detail that is kept, in characters.
const DETAIL_CHARS_MAX: usize = 200;

/// Who causes a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A client at this address.
    Ip(IpAddr),
    /// A client of a Unix socket.
    UnixSocket,
    /// No client in particular, or not known.
    Unknown,
    /// Any of many.
    Others,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::UnixSocket => f.write_str("a Unix socket"),
            Self::Unknown => f.write_str("unknown"),
            Self::Others => f.write_str("other peers"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    what: &'static str,
    peer: Peer,
    detail: String,
}

#[derive(Debug)]
struct Counted {
    since: Instant,
    more: u64,
}

/// The lines of the whole process.
static LINES: LazyLock<Lines> = LazyLock::new(Lines::default);

/// Whether a line is to be written in full; if not it is counted. `what` is what happens, as a plural ("refused calls");
/// `detail` tells apart what an administrator must see apart, as the reason of a refusal.
#[must_use]
pub fn is_first(what: &'static str, peer: Peer, detail: &str) -> bool {
    let (is_first, sums) = LINES.note(what, peer, detail);
    write(sums);
    is_first
}

/// Writes what was counted once its interval is over, until `stop`; then the rest.
pub async fn write_sums(stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(TICK)).await.is_some() {
        write(LINES.take(INTERVAL));
    }
    write(LINES.take(Duration::ZERO));
}

fn write(sums: Vec<Sum>) {
    for Sum { kind: Kind { what, peer, detail }, more, seconds } in sums {
        let from = if peer == Peer::Unknown { String::new() } else { format!(" from {peer}") };
        let colon = if detail.is_empty() { "" } else { ": " };
        warn!(more, %peer, "{more} more in the last {seconds} s{from}: {what}{colon}{detail}");
    }
}

/// What was counted of one kind.
#[derive(Debug, PartialEq, Eq)]
struct Sum {
    kind: Kind,
    more: u64,
    seconds: u64,
}

#[derive(Debug, Default)]
struct Lines(Mutex<HashMap<Kind, Counted>>);

impl Lines {
    /// Counts a line. Says whether it is to be written in full, and what was counted in intervals that are over.
    fn note(&self, what: &'static str, peer: Peer, detail: &str) -> (bool, Vec<Sum>) {
        let detail = detail.chars().take(DETAIL_CHARS_MAX).collect();
        let mut kind = Kind { what, peer, detail };
        let now = Instant::now();
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = Vec::new();
        if !counted.contains_key(&kind) && counted.len() >= KINDS_MAX {
            sums = drain(&mut counted, now, INTERVAL);
            if counted.len() >= KINDS_MAX {
                kind = Kind { what, peer: Peer::Others, detail: String::new() };
            }
        }
        if counted.get(&kind).is_some_and(|counted| now.duration_since(counted.since) >= INTERVAL) {
            sums.extend(counted.remove_entry(&kind).and_then(|entry| sum(entry, now)));
        }
        let is_first = !counted.contains_key(&kind);
        counted.entry(kind).and_modify(|counted| counted.more += 1).or_insert(Counted { since: now, more: 0 });
        (is_first, sums)
    }

    /// What was counted in intervals of at least this length, which begin anew.
    fn take(&self, interval: Duration) -> Vec<Sum> {
        drain(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now(), interval)
    }
}

fn drain(counted: &mut HashMap<Kind, Counted>, now: Instant, interval: Duration) -> Vec<Sum> {
    let over = counted.extract_if(|_, counted| now.duration_since(counted.since) >= interval);
    over.filter_map(|entry| sum(entry, now)).collect()
}

fn sum((kind, Counted { since, more }): (Kind, Counted), now: Instant) -> Option<Sum> {
    (more > 0).then(|| Sum { kind, more, seconds: now.duration_since(since).as_secs().max(1) })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::advance;

    use super::*;

    fn peer(n: u32) -> Peer {
        Peer::Ip(Ipv4Addr::from(n).into())
    }

    fn texts(sums: Vec<Sum>) -> Vec<String> {
        sums.into_iter()
            .map(|sum| {
                format!("{} {} {} {} in {}", sum.more, sum.kind.what, sum.kind.peer, sum.kind.detail, sum.seconds)
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_lines_are_summed_for_each_peer_and_detail() {
        let lines = Lines::default();
        for (at, detail, first) in [(1, "a", true), (1, "a", false), (1, "b", true), (2, "a", true), (1, "a", false)] {
            assert_eq!(lines.note("refusals", peer(at), detail), (first, vec![]), "{at} {detail}");
        }
        advance(Duration::from_secs(59)).await;
        assert_eq!(lines.take(INTERVAL), [], "the interval is not over");
        advance(Duration::from_secs(1)).await;
        assert_eq!(texts(lines.take(INTERVAL)), ["2 refusals 0.0.0.1 a in 60"]);
        assert_eq!(lines.take(INTERVAL), [], "once");
        assert!(lines.note("refusals", peer(1), "a").0, "a new interval has a line in full");
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_line_writes_the_sum_of_an_interval_that_is_over() {
        let lines = Lines::default();
        for _ in 0..5 {
            let _ = lines.note("refusals", Peer::UnixSocket, "");
        }
        advance(INTERVAL * 2).await;
        let (first, sums) = lines.note("refusals", Peer::UnixSocket, "");
        assert_eq!((first, texts(sums)), (true, vec!["4 refusals a Unix socket  in 120".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn many_peers_are_counted_as_others() {
        let lines = Lines::default();
        let firsts = (0..10_000).filter(|n| lines.note("refusals", peer(*n), "").0).count();
        assert_eq!(firsts, KINDS_MAX + 1, "one for each peer that is known apart, and one for all others");
        advance(INTERVAL).await;
        let others = 10_000 - KINDS_MAX - 1;
        assert_eq!(texts(lines.take(INTERVAL)), [format!("{others} refusals other peers  in 60")]);
        assert!(lines.note("refusals", peer(20_000), "").0, "places are free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_detail_is_cut() {
        let lines = Lines::default();
        let _ = lines.note("refusals", peer(1), &"x".repeat(100_000));
        let _ = lines.note("refusals", peer(1), &"x".repeat(200_000));
        let sums = lines.take(Duration::ZERO);
        assert_eq!((sums.len(), sums[0].kind.detail.len()), (1, DETAIL_CHARS_MAX));
    }
}
