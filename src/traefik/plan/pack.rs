//! Packs the units of a plan into steps: as few as the limits of a transaction allow.

use std::collections::BTreeMap;

/// One change of Traefik's tree; keys are relative to the root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Writes a key.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: String,
    },
    /// Removes a router or service with all its keys.
    DeletePrefix {
        /// What the keys begin with, up to the slash behind the name.
        prefix: String,
    },
}

impl Edit {
    /// The key, or what the keys begin with.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
            Self::DeletePrefix { prefix } => prefix,
        }
    }

    /// The bytes that it adds to a transaction, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let value = if let Self::Put { value, .. } = self { value.len() } else { 0 };
        self.key().len() + value + 32
    }
}

/// Changes that must happen together, and whether every record change is in once they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The changes, none of a key twice.
    pub edits: Vec<Edit>,
    /// Whether the tree holds every record change after this step.
    pub complete: bool,
}

/// How large a step may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Edits in one step.
    pub edits_max: usize,
    /// Bytes of keys and values in one step.
    pub bytes_max: usize,
    /// Edits that the first step leaves free, for the records that go along with it.
    pub reserved_edits: usize,
    /// Bytes that the first step leaves free.
    pub reserved_bytes: usize,
}

/// Packs units, in order; with unit number `complete_at` (counted from 1) every record change is in.
pub(super) fn pack(units: Vec<Vec<Edit>>, complete_at: usize, limits: Limits) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut open = Open::default();
    for (done, unit) in units.into_iter().enumerate() {
        let first = steps.is_empty();
        let edits_max = limits.edits_max.saturating_sub(if first { limits.reserved_edits } else { 0 });
        let bytes_max = limits.bytes_max.saturating_sub(if first { limits.reserved_bytes } else { 0 });
        let fits = open.edits.len() + open.keys_added(&unit) <= edits_max
            && open.bytes + unit.iter().map(Edit::bytes).sum::<usize>() <= bytes_max
            && !open.writes_what_it_removes(&unit);
        if !fits {
            // An empty first step leaves its room to the records alone.
            steps.push(Step { edits: open.edits.into_values().collect(), complete: done >= complete_at });
            open = Open::default();
        }
        open.add(unit);
    }
    steps.push(Step { edits: open.edits.into_values().collect(), complete: true });
    steps
}

/// A step that is being filled: its edits by key, so that a later change of a key replaces an earlier one.
#[derive(Debug, Default)]
struct Open {
    edits: BTreeMap<String, Edit>,
    bytes: usize,
}

impl Open {
    fn keys_added(&self, unit: &[Edit]) -> usize {
        unit.iter().filter(|edit| !self.edits.contains_key(edit.key())).count()
    }

    /// Whether a key of the unit lies in what this step removes: the two can't be in one transaction.
    fn writes_what_it_removes(&self, unit: &[Edit]) -> bool {
        let removed = |prefix: &str| matches!(self.edits.get(prefix), Some(Edit::DeletePrefix { .. }));
        unit.iter().any(|edit| match edit {
            Edit::Put { key, .. } | Edit::Delete { key } => {
                key.match_indices('/').any(|(slash, _)| removed(&key[..=slash]))
            }
            Edit::DeletePrefix { .. } => false,
        })
    }

    fn add(&mut self, unit: Vec<Edit>) {
        for edit in unit {
            if let Edit::DeletePrefix { prefix } = &edit {
                let from = self.edits.range(prefix.clone()..).map(|(key, _)| key);
                let below: Vec<_> = from.take_while(|key| key.starts_with(prefix.as_str())).cloned().collect();
                for key in below {
                    self.remove(&key);
                }
            }
            self.remove(edit.key());
            self.bytes += edit.bytes();
            self.edits.insert(edit.key().to_owned(), edit);
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some(old) = self.edits.remove(key) {
            self.bytes -= old.bytes();
        }
    }
}
