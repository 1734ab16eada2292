//! The checkpoint: when each route was last used, packed into a few keys of the store.
//!
//! ```text
//! PREFIX/activity/7    1 1767123456789
//!                      life http://10.0.0.5:8099 1767000000000
//!                      2t656cpzfar 1767123450000 17
//! ```
//!
//! `PREFIX/activity/looked` is written with every whole look, `PREFIX/activity/note/...` by replicas that don't look. A
//! chunk names the version of the format and when somebody last looked at every Traefik; then each Traefik with the
//! start of its process; then each route by its name in Traefik, with the time of its last use and the good answers that
//! each of those Traefiks had counted for it. With these a restarted replica knows what happened while it was away.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use crate::traefik::name::{self, Kind};

/// Over so many keys the routes are spread, by the first character of their names.
pub const CHUNKS: usize = 16;

/// The key below the prefix that is written with every whole look.
pub const LOOKED: &str = "looked";

/// Where replicas that don't look tell what they know, each in a key that holds a chunk without Traefiks.
pub const NOTES: &str = "note/";

/// The version of the format.
const FORMAT: &str = "1";

/// One process of a Traefik: its address, and when it started, in milliseconds since 1970.
pub type Life = (String, i64);

/// What a chunk says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Up to here every Traefik had been looked at, in milliseconds since 1970.
    pub looked_ms: i64,
    /// The routes, by name.
    pub routes: BTreeMap<Box<str>, i64>,
    /// The good answers of each route, by name, in each Traefik's life.
    pub lives: BTreeMap<Life, HashMap<Box<str>, u64>>,
}

/// Which chunk a route belongs in.
#[must_use]
pub fn chunk_of(name: &str) -> usize {
    let first = name.bytes().next().unwrap_or_default();
    // Names begin with one of a to z and 2 to 7, each as often as the others.
    usize::from(if first.is_ascii_lowercase() { first - b'a' } else { first.saturating_sub(b'2') + 26 }) % CHUNKS
}

/// The chunk that a key below the prefix stands for.
#[must_use]
pub fn chunk_number(key: &str) -> Option<usize> {
    key.parse().ok().filter(|number| *number < CHUNKS)
}

/// The text of [`LOOKED`]: when the look was, in milliseconds since 1970, and how long it is to the next one.
#[must_use]
pub fn looked(looked_ms: i64, next_look: Duration) -> String {
    format!("{FORMAT} {looked_ms} {}", next_look.as_millis())
}

/// How long it is to the next look, from the text of [`LOOKED`]; `None` if it is of another format.
#[must_use]
pub fn next_look(text: &str) -> Option<Duration> {
    let mut words = text.strip_prefix(FORMAT)?.strip_prefix(' ')?.split(' ');
    let _looked_ms: i64 = words.next()?.parse().ok()?;
    words.next()?.parse().ok().map(Duration::from_millis)
}

impl Chunk {
    /// The text that is stored. Answers of routes that are not in `routes` are left out.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{FORMAT} {}\n", self.looked_ms);
        for (url, started_ms) in self.lives.keys() {
            let _ = writeln!(text, "life {url} {started_ms}");
        }
        for (name, at_ms) in &self.routes {
            let _ = write!(text, "{name} {at_ms}");
            for good in self.lives.values() {
                let _ = write!(text, " {}", good.get(name).copied().unwrap_or(0));
            }
            text.push('\n');
        }
        text
    }

    /// Reads a stored text; `None` if it is of another format. Lines that can't be read are passed over.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let looked = lines.next()?.strip_prefix(FORMAT)?.strip_prefix(' ')?;
        let mut chunk = Self { looked_ms: looked.parse().ok()?, ..Self::default() };
        let mut order = Vec::new();
        for line in lines {
            let mut words = line.split(' ');
            let Some(first) = words.next() else { continue };
            if first == "life" {
                // Also one that can't be read has its place in the columns.
                let life = words.next().zip(words.next().and_then(|word| word.parse().ok()));
                let life = life.map(|(url, started_ms)| (url.to_owned(), started_ms));
                chunk.lives.extend(life.clone().map(|life| (life, HashMap::new())));
                order.push(life);
                continue;
            }
            let Some(at_ms) = words.next().and_then(|word| word.parse().ok()) else { continue };
            if name::kind(first) != Kind::Route {
                continue;
            }
            chunk.routes.insert(first.into(), at_ms);
            for (life, good) in order.iter().zip(words) {
                let answers = life.as_ref().and_then(|life| chunk.lives.get_mut(life));
                if let (Some(answers), Some(good)) = (answers, good.parse().ok().filter(|good| *good > 0)) {
                    answers.insert(first.into(), good);
                }
            }
        }
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chunk_is_a_short_text() {
        let jane = name::route("/user/jane");
        let chunk = Chunk {
            looked_ms: 1_767_123_456_789,
            routes: BTreeMap::from([(jane.as_str().into(), 1_767_123_450_000)]),
            lives: BTreeMap::from([
                (("http://10.0.0.5:8099".to_owned(), 1_767_000_000_000), HashMap::from([(jane.as_str().into(), 17)])),
                (("http://10.0.0.6:8099".to_owned(), 1_767_000_000_001), HashMap::new()),
            ]),
        };
        let text = chunk.encode();
        assert_eq!(
            text,
            format!(
                "1 1767123456789\nlife http://10.0.0.5:8099 1767000000000\nlife http://10.0.0.6:8099 1767000000001\n\
                 {jane} 1767123450000 17 0\n"
            )
        );
        assert_eq!(Chunk::decode(&text), Some(chunk));
    }

    #[test]
    fn what_another_version_wrote_is_left_alone() {
        for text in ["", "2 5\n", "1", "1 x\n", "11 5\n"] {
            assert_eq!(Chunk::decode(text), None, "{text:?}");
        }
        let jane = name::route("/user/jane");
        let odd = format!("1 5\nlife x y\nlife http://a 7\nnonsense 1 2\n{jane} 9 3 4\n{jane}x 9\n");
        let chunk = Chunk::decode(&odd).expect("its format is ours");
        assert_eq!(chunk.routes, BTreeMap::from([(jane.as_str().into(), 9)]));
        assert_eq!(chunk.lives, BTreeMap::from([(("http://a".to_owned(), 7), HashMap::from([(jane.into(), 4)]))]));
    }

    #[test]
    fn a_look_says_when_the_next_one_is() {
        let text = looked(1_767_123_456_789, Duration::from_secs(10));
        assert_eq!((text.as_str(), next_look(&text)), ("1 1767123456789 10000", Some(Duration::from_secs(10))));
        for text in ["", "1", "1 5", "1 5 x", "2 5 7", "15 7 7", "1 x 7", "1 5 -7"] {
            assert_eq!(next_look(text), None, "{text:?}");
        }
    }

    #[test]
    fn routes_are_spread_over_all_chunks() {
        let mut sizes = [0; CHUNKS];
        for i in 0..10_000 {
            sizes[chunk_of(&name::route(&i.to_string()))] += 1;
        }
        assert!(sizes.iter().all(|size| (400..900).contains(size)), "{sizes:?}");
        assert_eq!((chunk_number("15"), chunk_number("16"), chunk_number("x")), (Some(15), None, None));
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(text in any::<String>()) {
            let _ = Chunk::decode(&text);
            let _ = Chunk::decode(&format!("1 5\n{text}"));
        }

        #[test]
        fn what_was_written_is_read(
            looked_ms in any::<i64>(),
            routes in proptest::collection::btree_map("[a-z]{1,9}", any::<i64>(), 0..20),
            lives in proptest::collection::btree_map(("http://[a-z0-9.:]{1,20}", any::<i64>()), any::<u64>(), 0..4),
        ) {
            let routes: BTreeMap<Box<str>, i64> =
                routes.into_iter().map(|(text, at)| (name::route(&text).into(), at)).collect();
            let answers = |good: u64| routes.keys().map(|name| (name.clone(), good)).filter(|_| good > 0).collect();
            let lives = lives.into_iter().map(|(life, good)| (life, answers(good))).collect();
            let chunk = Chunk { looked_ms, routes, lives };
            prop_assert_eq!(Chunk::decode(&chunk.encode()), Some(chunk));
        }
    }
}
