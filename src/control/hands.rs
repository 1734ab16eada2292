//! Other hands: changes of our two trees that no replica made.
//!
//! Every transaction of ours that changes records writes the head too, and every one that changes Traefik's tree writes the
//! marker. So a change at a revision at which that key did not change is somebody else's.

use std::collections::BTreeSet;

use crate::store::{Event, Revision};

/// So many keys are named; of more, their number is told.
const NAMED_MAX: usize = 5;

/// The keys in one report of a watch that somebody else has changed. `guard` is the key that goes with each change of ours.
pub(super) fn strangers(events: &[Event], guard: &str) -> BTreeSet<String> {
    let ours: BTreeSet<Revision> = events
        .iter()
        .filter_map(|event| match event {
            Event::Put(entry) if entry.key == guard => Some(entry.mod_revision),
            _ => None,
        })
        .collect();
    let is_stranger = |event: &&Event| match event {
        Event::Put(entry) => !ours.contains(&entry.mod_revision),
        Event::Delete { key, revision } => key == guard || !ours.contains(revision),
    };
    events.iter().filter(is_stranger).map(|event| event.key().to_owned()).collect()
}

/// Whether we can remove this key. One that is no text is known to us by another name than etcd knows it by.
pub(super) fn can_be_removed(key: &str) -> bool {
    !key.contains(char::REPLACEMENT_CHARACTER)
}

/// Some of the keys, for a sentence.
pub(super) fn named<'a>(keys: impl IntoIterator<Item = &'a str>) -> String {
    let mut keys = keys.into_iter();
    let first: Vec<&str> = keys.by_ref().take(NAMED_MAX).collect();
    match keys.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::KeyValue;

    fn put(key: &str, mod_revision: Revision) -> Event {
        Event::Put(KeyValue { key: key.to_owned(), value: Vec::new(), mod_revision })
    }

    fn delete(key: &str, revision: Revision) -> Event {
        Event::Delete { key: key.to_owned(), revision }
    }

    fn found(events: &[Event]) -> Vec<String> {
        strangers(events, "head").into_iter().collect()
    }

    #[test]
    fn what_comes_without_the_guard_is_another_s() {
        assert_eq!(found(&[put("a", 5), put("head", 5), delete("b", 5)]), [""; 0]);
        assert_eq!(found(&[put("a", 5)]), ["a"]);
        assert_eq!(found(&[delete("a", 5)]), ["a"]);
        assert_eq!(found(&[put("a", 5), put("head", 5), put("b", 6)]), ["b"]);
        assert_eq!(found(&[put("a", 5), put("head", 5), delete("head", 6)]), ["head"]);
        let caught_up = [delete("a", 4), put("b", 5), put("head", 5)];
        assert_eq!(found(&caught_up), ["a"], "in one report with a change of ours, and not of it");
    }

    #[test]
    fn a_sentence_names_a_few() {
        assert_eq!(named(["a", "b"]), "a, b");
        assert_eq!(named(["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }

    proptest! {
        #[test]
        fn our_own_changes_are_never_taken_for_another_s(changes in prop::collection::vec(prop::collection::vec("[a-c]", 0..4), 1..4)) {
            let mut events = Vec::new();
            for (revision, keys) in (1..).zip(changes) {
                events.extend(keys.iter().map(|key| put(key, revision)));
                events.push(put("head", revision));
            }
            prop_assert!(strangers(&events, "head").is_empty());
        }
    }
}
