//! The marker: which record changes Traefik's tree covers.

use std::fmt;

/// The version of the layout that this program writes.
pub const LAYOUT: u32 = 2;

/// The first layout whose markers are tagged.
pub const TAGGED_LAYOUT: u32 = 2;

/// Says that every record change up to `n` of `epoch` is in the tree, and who wrote the tree. Its key is the guard of every
/// change of that tree, and Traefik shows it as a header of the sentinel: `2.k3f9a2c4-1b2c3d4e-5f6a7b8c.9f8e7d6c.4711`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The version of the layout.
    pub layout: u32,
    /// A digest of the settings that shape the tree: replicas with different settings must not mend each other's work.
    pub digest: String,
    /// The mark of the change of the tree that this marker came with, chained to the one before: a tree that was restored
    /// from a backup is told by it from the one that had the same numbers. Empty up to layout 1.
    pub tag: String,
    /// The history that `n` counts in.
    pub epoch: String,
    /// Every record change up to this one is in the tree.
    pub n: u64,
}

impl Marker {
    /// Reads a marker; `None` if it isn't one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let [layout, digest, epoch, n] = text.split('.').collect::<Vec<_>>()[..] else { return None };
        let (digest, tag) = digest.split_once('-').unwrap_or((digest, ""));
        Some(Self {
            layout: layout.parse().ok()?,
            digest: digest.to_owned(),
            tag: tag.to_owned(),
            epoch: epoch.to_owned(),
            n: n.parse().ok()?,
        })
    }

    /// The epoch, and the last record change of it that is covered.
    #[must_use]
    pub fn state(&self) -> (&str, u64) {
        (&self.epoch, self.n)
    }

    /// Whether both say the same, whichever change of the tree they came with.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.layout == other.layout && self.digest == other.digest && self.state() == other.state()
    }

    /// Whether a tree with this marker holds the record change `n` of `epoch`.
    #[must_use]
    pub fn covers(&self, epoch: &str, n: u64) -> bool {
        self.epoch == epoch && self.n >= n
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.layout, self.digest)?;
        if !self.tag.is_empty() {
            write!(f, "-{}", self.tag)?;
        }
        write!(f, ".{}.{}", self.epoch, self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_reads_what_it_wrote() {
        let marker = Marker { layout: 1, digest: "abc".into(), tag: String::new(), epoch: "e".into(), n: 12 };
        assert_eq!(marker.to_string(), "1.abc.e.12");
        assert_eq!(Marker::parse("1.abc.e.12"), Some(marker.clone()));
        let tagged = Marker { layout: 2, tag: "t1-t0".into(), ..marker.clone() };
        assert_eq!(tagged.to_string(), "2.abc-t1-t0.e.12");
        assert_eq!(Marker::parse("2.abc-t1-t0.e.12"), Some(tagged.clone()));
        assert!(tagged.says_the_same(&Marker { tag: "t2-t1".into(), ..tagged.clone() }));
        assert!(!tagged.says_the_same(&Marker { n: 13, ..tagged.clone() }) && !tagged.says_the_same(&marker));
        for bad in ["", "1.a.e", "1.a.e.x", "x.a.e.1", "1.a.e.1.2"] {
            assert_eq!(Marker::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn another_epoch_is_never_covered() {
        let marker = Marker { layout: 1, digest: "abc".into(), tag: String::new(), epoch: "e".into(), n: 12 };
        assert!(marker.covers("e", 12) && marker.covers("e", 1));
        assert!(!marker.covers("e", 13) && !marker.covers("f", 1));
    }
}
