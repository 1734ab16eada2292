//! Names of routers and services.
//!
//! Traefik's decoder compares every name with those it has already read, without regard to case, and takes a name of
//! digits for a list index. So names are short, lower-case, differ in their first characters, end in a letter that says
//! what they name, and hold no text of a user's.

use aws_lc_rs::digest::{SHA256, digest};

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Characters of the hash: 50 bits, so that two of 50,000 routes share a name once in a million installations. The
/// control plane refuses a route whose name is taken by another.
const HASH_CHARACTERS: usize = 10;

/// The router everything hangs below.
pub const ROOT: &str = "root";

/// The name of a route's own router and of its service.
#[must_use]
pub fn route(place: &str) -> String {
    hashed("route", place, 'r')
}

/// The name of the router that takes, for a route that covers whole buckets, what no other route takes.
#[must_use]
pub fn catch_all(place: &str) -> String {
    hashed("route", place, 'c')
}

/// The name of the route that a catch-all serves, from the catch-all's own.
#[must_use]
pub fn route_of(catch_all: &str) -> String {
    format!("{}r", &catch_all[..catch_all.len() - 1])
}

/// The name of a bucket.
#[must_use]
pub fn bucket(prefix: &str, whole: bool) -> String {
    if prefix.is_empty() {
        return ROOT.to_owned();
    }
    hashed(if whole { "whole" } else { "bucket" }, prefix, 'b')
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A route's own router, or its service.
    Route,
    /// A bucket, the root included.
    Bucket,
    /// A catch-all.
    CatchAll,
    /// None of ours.
    Other,
}

/// What a name stands for, by its shape.
#[must_use]
pub fn kind(name: &str) -> Kind {
    if name == ROOT {
        return Kind::Bucket;
    }
    let ours = name.len() == HASH_CHARACTERS + 1 && name.bytes().all(|b| ALPHABET.contains(&b));
    match name.as_bytes().last() {
        Some(b'r') if ours => Kind::Route,
        Some(b'b') if ours => Kind::Bucket,
        Some(b'c') if ours => Kind::CatchAll,
        _ => Kind::Other,
    }
}

fn hashed(family: &str, text: &str, kind: char) -> String {
    let hash = digest(&SHA256, format!("{family}\0{text}").as_bytes());
    let mut bits = u64::from_be_bytes(hash.as_ref()[..8].try_into().expect("a SHA-256 hash has more than eight bytes"));
    let mut name = String::with_capacity(HASH_CHARACTERS + 1);
    for _ in 0..HASH_CHARACTERS {
        name.push(char::from(ALPHABET[(bits >> 59) as usize]));
        bits <<= 5;
    }
    name.push(kind);
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_say_what_they_name() {
        assert_eq!(kind(&route("/user/a")), Kind::Route);
        assert_eq!(kind(&catch_all("")), Kind::CatchAll);
        assert_eq!(kind(&bucket("/user/a", false)), Kind::Bucket);
        assert_eq!(kind(&bucket("", true)), Kind::Bucket);
        assert_eq!(kind("dashboard"), Kind::Other);
        assert_ne!(bucket("/a", true), bucket("/a", false));
        assert_eq!(route_of(&catch_all("/jup")), route("/jup"));
    }

    proptest! {
        #[test]
        fn any_text_becomes_a_name_that_traefik_keeps_apart(text in any::<String>()) {
            let name = route(&text);
            prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b)));
            prop_assert!(name.ends_with(|c: char| c.is_ascii_lowercase()));
        }
    }
}
