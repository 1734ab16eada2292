//! What a member notes on its volume, and what it tells the others while it waits.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::members::Members;

/// The name of each member's volume, drawn when it was found empty: who loses a volume has another name from then on.
pub type Incarnations = BTreeMap<String, String>;

/// What a member notes on its volume; it goes with the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The name of this volume.
    pub incarnation: String,
    /// The members as of the last time that etcd was started; empty before the first.
    #[serde(default)]
    pub members: Members,
    /// All members were seen empty, with these volumes; so they may begin a cluster.
    #[serde(default)]
    pub agreed: Option<Incarnations>,
    /// The number by which a cluster has taken us in; etcd has not been started since.
    #[serde(default)]
    pub added: Option<u64>,
}

impl Note {
    /// The first note on an empty volume of this name.
    #[must_use]
    pub fn new(incarnation: String) -> Self {
        Self { incarnation, members: Members::default(), agreed: None, added: None }
    }
}

/// What a member that waits tells whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Who it is.
    pub name: String,
    /// The members that it was told of.
    pub members: Members,
    /// It has data, be they good or not.
    pub holds_data: bool,
    /// The name of its volume.
    pub incarnation: String,
    /// What it would begin a cluster with.
    pub agreed: Option<Incarnations>,
}

/// The token of the cluster that these volumes begin, from which etcd makes its number: no other volumes get the same.
///
/// # Panics
///
/// Never: a SHA-256 hash has 32 bytes.
#[must_use]
pub fn token(volumes: &Incarnations) -> String {
    let mut text = String::new();
    for (name, incarnation) in volumes {
        let _ = writeln!(text, "{name}={incarnation}");
    }
    let hash = digest(&SHA256, text.as_bytes());
    format!(
        "pointsman-{:016x}",
        u64::from_be_bytes(hash.as_ref()[..8].try_into().expect("a SHA-256 hash has 32 bytes"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_volume_counts_in_the_token() {
        let volumes = |first: &str, second: &str| {
            let volumes = [("m0", first), ("m1", second)].map(|(name, volume)| (name.to_owned(), volume.to_owned()));
            token(&volumes.into_iter().collect())
        };
        assert_eq!(volumes("a", "b"), volumes("a", "b"));
        assert_ne!(volumes("a", "b"), volumes("b", "a"));
        assert_ne!(volumes("a", "b"), volumes("a", "c"));
        assert_eq!(volumes("a", "b").len(), "pointsman-".len() + 16);
    }

    #[test]
    fn a_note_is_read_back() {
        let mut note = Note::new("abc".to_owned());
        note.members = "m0=http://a:1".parse().unwrap();
        note.agreed = Some([("m0".to_owned(), "abc".to_owned())].into());
        note.added = Some(u64::MAX);
        let text = serde_json::to_string(&note).unwrap();
        assert_eq!(serde_json::from_str::<Note>(&text).unwrap(), note);
        assert_eq!(serde_json::from_str::<Note>(r#"{"incarnation":"x"}"#).unwrap(), Note::new("x".to_owned()));
    }
}
