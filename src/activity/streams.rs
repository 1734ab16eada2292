//! From one look at Traefik's connections to the next: which of them are streams (open websockets, uploads), and when
//! data was last sent on them.
//!
//! A connection from Traefik to a server moves for three reasons: a request on it, which its answer's counter tells of
//! soon; data of an upload; or data of a websocket's client, pongs included, which no counter ever tells of. So a move is
//! a stream's
//!
//! - if it was shorter than any request that Traefik could have sent, as a pong is; then the connection is a stream for
//!   good, for it never carries requests again;
//! - if more connections to a server moved than answers of it were counted, in the same look and those before and after
//!   it. One that moves so twice while nothing at all was counted is a stream for good, too.
//!
//! When in doubt a move doesn't count: a page that is asked for and answered by an error leaves the same trace, and
//! must not keep a server alive.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;

/// Traefik's requests are longer than this, in bytes, for it adds its X-Forwarded headers; a pong in TLS is shorter.
const REQUEST_BYTES_MIN: u64 = 100;

/// So many unexplained moves, with nothing counted meanwhile, make a stream.
const UNEXPLAINED_MIN: u8 = 2;

/// One open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The server's address.
    pub server: SocketAddr,
    /// What tells it from every other connection of its machine, also from later ones.
    pub id: u64,
    /// Bytes sent to the server so far.
    pub sent: u64,
    /// The time since data was last sent.
    pub idle: Duration,
}

/// What is known of the connections of one or several Traefiks.
#[derive(Debug, Default)]
pub struct Streams {
    known: HashMap<(SocketAddr, u64), Known>,
    servers: HashMap<SocketAddr, Server>,
    /// When the last look was.
    looked_at: Option<Timestamp>,
    /// What was counted before the last look could not be read.
    blind: bool,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    sent: u64,
    is_stream: bool,
    unexplained: u8,
}

/// The last two looks at one server.
#[derive(Debug, Default)]
struct Server {
    /// Answers that were counted in the look before the last one, and in the last one.
    answers: [u64; 2],
    /// Connections that moved in the last look, not known to be streams, and the newest time of it.
    moved: Vec<u64>,
    moved_at: Option<Timestamp>,
}

impl Streams {
    /// Takes a new look, of the time `now`, and says on which servers' streams data was sent, and when last. `answers` is
    /// what was counted of each server since the last look; `None` if that could not be read.
    pub fn look(
        &mut self,
        connections: &[Connection],
        now: Timestamp,
        answers: Option<&HashMap<SocketAddr, u64>>,
    ) -> HashMap<SocketAddr, Timestamp> {
        let mut active = HashMap::new();
        let mut note = |server, at: Timestamp| {
            let latest = active.entry(server).or_insert(at);
            *latest = at.max(*latest);
        };
        let mut moved: HashMap<SocketAddr, (Vec<u64>, Option<Timestamp>)> = HashMap::new();
        let mut open = HashMap::with_capacity(connections.len());
        for connection in connections {
            let key = (connection.server, connection.id);
            if open.contains_key(&key) {
                // While connections come and go the kernel may tell of one twice.
                continue;
            }
            let before = self.known.get(&key).copied();
            let new = connection.sent.saturating_sub(before.map_or(0, |known| known.sent));
            let mut known = before.unwrap_or(Known { sent: 0, is_stream: false, unexplained: 0 });
            known.sent = connection.sent;
            let idle = jiff::SignedDuration::try_from(connection.idle).unwrap_or_default();
            let at = now.checked_sub(idle).unwrap_or(now);
            // Of one that wasn't there before, all is new, unless the kernel left it out of the last look, or there was none.
            let is_new = || self.looked_at.is_some_and(|looked_at| at >= looked_at);
            if new > 0 && (before.is_some() || is_new()) {
                known.is_stream |= before.is_some() && new < REQUEST_BYTES_MIN;
                if known.is_stream {
                    note(connection.server, at);
                } else {
                    let (ids, newest) = moved.entry(connection.server).or_default();
                    ids.push(connection.id);
                    *newest = (*newest).max(Some(at));
                }
            }
            open.insert(key, known);
        }
        self.known = open;
        self.looked_at = Some(now);
        for (server, at) in self.judge(moved, answers) {
            note(server, at);
        }
        active
    }

    /// Judges the moves of the last look, now that it is known what was counted after it, and keeps those of this one.
    fn judge(
        &mut self,
        mut moved: HashMap<SocketAddr, (Vec<u64>, Option<Timestamp>)>,
        answers: Option<&HashMap<SocketAddr, u64>>,
    ) -> Vec<(SocketAddr, Timestamp)> {
        let mut active = Vec::new();
        let counted = |server: &SocketAddr| {
            // What could not be read may have been anything.
            answers.map_or(u64::MAX, |answers| answers.get(server).copied().unwrap_or(0))
        };
        for (server, history) in &mut self.servers {
            let now = counted(server);
            let explained = history.answers.iter().fold(now, |sum, answers| sum.saturating_add(*answers));
            if let Some(at) = history.moved_at.filter(|_| history.moved.len() as u64 > explained) {
                active.push((*server, at));
                for id in history.moved.iter().filter(|_| explained == 0) {
                    if let Some(known) = self.known.get_mut(&(*server, *id)) {
                        known.unexplained += 1;
                        known.is_stream |= known.unexplained >= UNEXPLAINED_MIN;
                    }
                }
            }
            history.answers = [history.answers[1], now];
            (history.moved, history.moved_at) = moved.remove(server).unwrap_or_default();
        }
        for (server, (ids, at)) in moved {
            let before = if self.blind { u64::MAX } else { 0 };
            self.servers.insert(server, Server { answers: [before, counted(&server)], moved: ids, moved_at: at });
        }
        self.blind = answers.is_none();
        let quiet = |server: &Server| server.moved.is_empty() && server.answers == [0, 0];
        self.servers.retain(|_, server| !quiet(server));
        // A server without a history may have been counted all the same: what was before a move explains it, too.
        for (server, answers) in answers.into_iter().flatten().filter(|(_, answers)| **answers > 0) {
            self.servers.entry(*server).or_insert_with(|| Server { answers: [0, *answers], ..Server::default() });
        }
        active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_S: i64 = 10;

    /// Connections to one server, looked at every ten seconds.
    struct World {
        streams: Streams,
        server: SocketAddr,
        now: Timestamp,
        sent: HashMap<u64, u64>,
    }

    impl World {
        /// Three connections that were there before.
        fn new() -> Self {
            let now = Timestamp::from_second(1_800_000_000).expect("in range");
            let server = "127.0.0.1:8888".parse().expect("an address");
            let mut world = Self { streams: Streams::default(), server, now, sent: HashMap::new() };
            world.sent = HashMap::from([(1, 5000), (2, 5000), (3, 5000)]);
            assert_eq!(world.look(&[(1, 500)], Some(0)), None, "the first look tells nothing");
            world
        }

        /// Ten seconds later: so much was sent on these connections, 3 s ago, and so many answers were counted. How many
        /// seconds ago was a stream active?
        fn look(&mut self, sent: &[(u64, u64)], answers: Option<u64>) -> Option<i64> {
            self.now += jiff::SignedDuration::from_secs(STEP_S);
            for (id, bytes) in sent {
                *self.sent.entry(*id).or_default() += bytes;
            }
            let connection = |(id, sent): (&u64, &u64)| Connection {
                server: self.server,
                id: *id,
                sent: *sent,
                idle: Duration::from_secs(3),
            };
            let connections: Vec<_> = self.sent.iter().map(connection).collect();
            let answers = answers.map(|answers| HashMap::from([(self.server, answers)]));
            let active = self.streams.look(&connections, self.now, answers.as_ref());
            active.get(&self.server).map(|at| self.now.as_second() - at.as_second())
        }
    }

    #[test]
    fn a_pong_is_seen_at_once_whatever_else_happens() {
        let mut world = World::new();
        assert_eq!(world.look(&[(1, 6)], Some(0)), Some(3));
        assert_eq!(world.look(&[(1, 6), (2, 4000)], Some(9)), Some(3));
        assert_eq!(world.look(&[(2, 400)], Some(1)), None, "a silent websocket");
        assert_eq!(world.look(&[(1, 4000)], Some(9)), Some(3), "a stream for good");
    }

    #[test]
    fn requests_are_none_of_our_business() {
        let mut world = World::new();
        for _ in 0..10 {
            assert_eq!(world.look(&[(1, 300), (2, 900)], Some(2)), None);
        }
        assert_eq!(world.look(&[], Some(0)), None);
    }

    #[test]
    fn an_answer_may_be_counted_a_look_later_or_earlier_than_its_request_is_seen() {
        for looks in [[(300, 0), (0, 1)], [(0, 1), (300, 0)]] {
            let mut world = World::new();
            for _ in 0..5 {
                for (bytes, answers) in looks {
                    assert_eq!(world.look(&[(1, bytes)], Some(answers)), None, "{looks:?}");
                }
                assert_eq!(world.look(&[], Some(0)), None);
                assert_eq!(world.look(&[], Some(0)), None);
            }
        }
    }

    #[test]
    fn an_upload_is_seen_a_look_later_and_then_at_once() {
        let mut world = World::new();
        assert_eq!(world.look(&[(1, 10_000)], Some(0)), None);
        assert_eq!(world.look(&[(1, 10_000)], Some(0)), Some(13));
        assert_eq!(world.look(&[(1, 10_000)], Some(0)), Some(13));
        assert_eq!(world.look(&[(1, 10_000)], Some(0)), Some(3), "a stream for good");
    }

    #[test]
    fn more_moves_than_answers_are_a_stream_s() {
        let mut world = World::new();
        world.look(&[(1, 4000), (2, 400), (3, 400)], Some(2));
        assert_eq!(world.look(&[], Some(0)), Some(13));
        world.look(&[(1, 4000), (2, 400), (3, 400)], Some(3));
        assert_eq!(world.look(&[], Some(0)), None);
    }

    #[test]
    fn a_new_websocket_is_a_stream_although_its_first_bytes_are_a_request() {
        let mut world = World::new();
        assert_eq!(world.look(&[(9, 700)], Some(0)), None);
        assert_eq!(world.look(&[(9, 6)], Some(0)), Some(3));
    }

    #[test]
    fn what_could_not_be_counted_explains_everything_but_a_pong() {
        let mut world = World::new();
        world.look(&[(1, 4000)], None);
        assert_eq!(world.look(&[(1, 4000)], Some(0)), None);
        assert_eq!(world.look(&[(1, 4000)], Some(0)), None);
        assert_eq!(world.look(&[(1, 6)], None), Some(3));
    }

    #[test]
    fn a_connection_that_the_kernel_tells_of_twice_or_not_at_all_has_not_moved() {
        let mut world = World::new();
        let old = Connection { server: world.server, id: 7, sent: 900, idle: Duration::from_secs(100) };
        for connections in [&[old, old][..], &[], &[old], &[old]] {
            world.now += jiff::SignedDuration::from_secs(STEP_S);
            assert!(world.streams.look(connections, world.now, Some(&HashMap::new())).is_empty());
        }
        let moved = Connection { sent: 1800, idle: Duration::from_secs(3), ..old };
        let answers = HashMap::from([(world.server, 1)]);
        for answers in [&answers, &HashMap::new(), &HashMap::new()] {
            world.now += jiff::SignedDuration::from_secs(STEP_S);
            assert!(world.streams.look(&[moved, moved], world.now, Some(answers)).is_empty(), "one move, one answer");
        }
    }

    #[test]
    fn a_connection_that_ends_is_forgotten() {
        let mut world = World::new();
        assert_eq!(world.look(&[(1, 6)], Some(0)), Some(3));
        world.sent.remove(&1);
        assert_eq!(world.look(&[], Some(0)), None);
        assert_eq!(world.look(&[(1, 4000)], Some(1)), None, "another one, whatever its number");
        assert_eq!(world.streams.known.len(), 3);
        for _ in 0..3 {
            world.look(&[], Some(0));
        }
        assert!(world.streams.servers.is_empty());
    }
}
