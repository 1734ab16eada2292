//! Chained marks: each is drawn at random and names the one before it.
//!
//! Head and marker carry one. Who follows them sees at once if a change is missing in between, as when a store is restored
//! from a backup and counts the same numbers and revisions once more.
//!
//! ```text
//! 3f9a1c07d2b45e88-9c01b2d3e4f5a687    its own draw, and that of the one before
//! ```

/// A mark of its own draw, after another mark. The first of a chain comes after the empty text.
#[must_use]
pub fn link(draw: &str, before: &str) -> String {
    format!("{draw}-{}", own(before))
}

/// Whether `mark` may come right after `before`. One without a link, from a version that has none, may come after each.
#[must_use]
pub fn follows(mark: &str, before: &str) -> bool {
    mark.split_once('-').is_none_or(|(_, link)| link == own(before))
}

/// What was drawn for a mark.
fn own(mark: &str) -> &str {
    mark.split_once('-').map_or(mark, |(own, _)| own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_seen() {
        let first = link("a", "");
        let second = link("b", &first);
        let third = link("c", &second);
        assert_eq!(third, "c-b");
        assert!(follows(&second, &first) && follows(&third, &second));
        assert!(!follows(&third, &first), "one is missing");
        assert!(!follows(&third, &link("b2", &first)), "another one was there");
    }

    #[test]
    fn marks_without_a_link_follow_all() {
        assert!(follows("b", "a") && follows("b", "") && follows("b", "a-x"));
        assert!(follows(&link("b", "a"), "a"), "and can be followed");
        assert!(!follows(&link("b", "a"), "x"));
    }
}
