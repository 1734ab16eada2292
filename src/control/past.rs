//! The past: what this replica knows of how far the store had come, and what it concludes when the store says something else.
//!
//! A store goes back in time when it is restored from a backup, and has no past at all when it was wiped. Its revisions and
//! the numbers of its heads are then given out once more, for something else. So whoever knew more than the store says now
//! has proof. Everything here is plain values: who reads, waits and mends is `pulse`.

use std::collections::{BTreeMap, VecDeque};

use crate::route::chain;
use crate::route::record::Head;
use crate::store::Revision;
use crate::traefik::fleet::{Seen, Status};
use crate::traefik::marker::Marker;

/// How many epochs that are over are remembered.
const OVER_MAX: usize = 64;

/// How far the store had come, as far as we know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// The newest head of the present epoch.
    head: Option<Head>,
    /// The highest revision.
    revision: Revision,
    /// Epochs that were given up, oldest first.
    over: VecDeque<String>,
}

/// What follows from a linearizable read of the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The store has gone on, or stands still.
    Onward,
    /// It went back to an earlier point of a history that goes on elsewhere: what Traefiks show, late transactions. A new
    /// epoch has to begin. The text says how that is known.
    Back(String),
    /// It has another history. If it went back, somebody else has begun a new epoch already.
    Other,
    /// It was wiped.
    Wiped,
}

/// What some Traefik was seen to serve before the read: epoch and number.
pub(super) type Shown<'a> = (&'a str, u64);

/// Why a Traefik proves that its tree went back in time: it was seen to serve more of this epoch than the tree's marker
/// says, which was read later.
pub(super) fn outdone(head: Option<&Head>, marker: Option<&Marker>, all: &BTreeMap<String, Seen>) -> Option<String> {
    let marker = marker.filter(|marker| head.is_some_and(|head| head.epoch == marker.epoch))?;
    all.iter().find_map(|(url, seen)| match &seen.status {
        Status::Serving(shown) if shown.epoch == marker.epoch && shown.n > marker.n => {
            Some(format!("the Traefik at {url} serves change {}, and its keys in the store have {}", shown.n, marker.n))
        }
        _ => None,
    })
}

impl Past {
    /// What a snapshot knew.
    pub(super) fn of(head: Head, revision: Revision) -> Self {
        Self { head: Some(head), revision, over: VecDeque::new() }
    }

    /// The newest head that is known.
    pub(super) fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The highest revision that is known.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// The store has, or had, this head. That of another epoch is not taken for progress: it has to be judged first.
    pub(super) fn see_head(&mut self, head: &Head) {
        match &self.head {
            None => self.head = Some(head.clone()),
            Some(known) if known.epoch == head.epoch && known.n < head.n => self.head = Some(head.clone()),
            Some(_) => {}
        }
    }

    /// The store has, or had, come so far.
    pub(super) fn see_revision(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// What a read of the head, with the store's revision at that moment, says of the store. Everything here must have been
    /// known before the read began, and what Traefiks `shown` must have been seen before.
    pub(super) fn judge(&self, head: Option<&Head>, revision: Revision, shown: &[Shown<'_>]) -> Verdict {
        let Some(head) = head else {
            return if self.head.is_some() { Verdict::Wiped } else { Verdict::Onward };
        };
        if self.over.contains(&head.epoch) {
            return Verdict::Back(format!("the history {} had ended", head.epoch));
        }
        if let Some((_, n)) = shown.iter().find(|(epoch, n)| *epoch == head.epoch && *n > head.n) {
            return Verdict::Back(format!("a Traefik serves change {n}, and the store has {}", head.n));
        }
        let Some(known) = &self.head else { return Verdict::Onward };
        if known.epoch != head.epoch {
            return Verdict::Other;
        }
        if head.n < known.n {
            return Verdict::Back(format!("its last change was {} and is {}", known.n, head.n));
        }
        let is_another = if head.n == known.n {
            head.nonce != known.nonce
        } else {
            head.n == known.n + 1 && !chain::follows(&head.nonce, &known.nonce)
        };
        if is_another {
            return Verdict::Back(format!("change {} is not the one that it was", known.n));
        }
        if revision < self.revision {
            return Verdict::Back(format!("its revision was {} and is {revision}", self.revision));
        }
        Verdict::Onward
    }

    /// The store was found to be elsewhere, and this is where it goes on.
    pub(super) fn begin_anew(&mut self, head: Option<Head>, revision: Revision) {
        if let Some(old) = self.head.take()
            && head.as_ref().is_none_or(|head| head.epoch != old.epoch)
        {
            if self.over.len() == OVER_MAX {
                self.over.pop_front();
            }
            self.over.push_back(old.epoch);
        }
        (self.head, self.revision) = (head, revision);
    }
}

#[cfg(test)]
mod tests;
