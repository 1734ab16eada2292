//! What others do to our keys, and how it is told.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::{Mirror, View};
use crate::control::flapping::Flap;
use crate::control::hands;
use crate::route::record;
use crate::store::{Event, Revision};
use crate::telemetry::seldom::Seldom;

/// Flapping goes on; the log has it this often.
const FLAPPING_TOLD_AGAIN: Duration = Duration::from_secs(600);

/// What others did to our keys, since the start.
#[derive(Debug)]
pub(in crate::control) struct Others {
    /// Keys of ours that somebody else changed.
    pub(in crate::control) touched: AtomicU64,
    /// Changes by which a route flapped.
    pub(in crate::control) flaps: AtomicU64,
    told: Seldom,
}

impl Default for Others {
    fn default() -> Self {
        Self { touched: AtomicU64::new(0), flaps: AtomicU64::new(0), told: Seldom::every(FLAPPING_TOLD_AGAIN) }
    }
}

impl Mirror {
    /// Looks whether routes go back and forth, before the view has the changes.
    pub(super) fn watch_for_flapping(&self, events: &[Event]) {
        let (keys, now) = (&self.settings.records, Instant::now());
        let mut detector = self.flapping.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            let Some(spec) = keys.spec(event.key()) else { continue };
            let old = self.read().table.get(&spec).map(|route| route.target.clone());
            let Event::Put(entry) = event else {
                detector.delete(&spec, old.as_ref(), now);
                continue;
            };
            let Ok(new) = record::decode(keys, &entry.key, &entry.value) else { continue };
            if let Some(flap) = detector.put(&spec, old.as_ref(), &new.target, now) {
                self.tell_flap(&flap);
            }
        }
    }

    pub(super) fn tell_flap(&self, Flap { spec, targets: [now, before] }: &Flap) {
        self.others.flaps.fetch_add(1, Ordering::Relaxed);
        if !self.others.told.is_due() {
            return;
        }
        let what = if now == before {
            format!("{} and other routes are removed and put back again and again", spec.as_str())
        } else {
            format!("{} goes back and forth between {} and {}", spec.as_str(), before.as_str(), now.as_str())
        };
        warn!(
            route = spec.as_str(),
            "The route {what}: two JupyterHubs seem to use this proxy, or their proxies share one --etcd-prefix; give each \
             hub a proxy with a prefix and a token of its own"
        );
    }

    pub(super) fn tell_strangers(&self, keys: &BTreeSet<String>, what_then: &str) {
        if keys.is_empty() {
            return;
        }
        self.others.touched.fetch_add(keys.len() as u64, Ordering::Relaxed);
        let named = hands::named(keys.iter().map(String::as_str));
        warn!("Somebody other than Pointsman has changed {named}; that {what_then}");
    }

    /// Tells at /readyz, and once in the log, what among the records can't be used.
    pub(super) fn note_records(&self) {
        let view = self.read();
        let unreadable = (!view.unreadable.is_empty()).then(|| {
            let named = hands::named(view.unreadable.keys().map(String::as_str));
            format!("records that can't be read, so that their routes stay as they were: {named}; add each route again, or delete it")
        });
        let foreign = (!view.foreign_records.is_empty()).then(|| {
            let named = hands::named(view.foreign_records.iter().map(String::as_str));
            format!("keys under --etcd-prefix that are none of ours: {named}; they do no harm, and should be removed")
        });
        drop(view);
        self.note("unreadable records", unreadable);
        self.note("foreign records", foreign);
    }

    /// Tells at /readyz, and once in the log, of keys that Traefik reads and that aren't ours.
    pub(super) fn note_tree(&self) {
        self.note("foreign keys", self.foreign().map(|named| self.foreign_sentence(&named)));
    }

    /// What keys there are that aren't ours, what they may do, and what is to be done.
    pub(in crate::control) fn foreign_sentence(&self, named: &str) -> String {
        let remedy = if self.settings.own_root_key {
            "remove them: their names are no text, and we can't"
        } else {
            "remove them, or let us do it by --own-root-key"
        };
        format!(
            "keys under --traefik-root-key that are none of ours: {named}; one that Traefik can't understand stops all \
             changes, so {remedy}"
        )
    }

    pub(super) fn note(&self, name: &'static str, sentence: Option<String>) {
        match sentence {
            Some(sentence) => {
                if self.readiness.notes().get(name) != Some(&sentence) {
                    warn!("There are {sentence}");
                }
                self.readiness.note(name, sentence);
            }
            None => self.readiness.forget(name),
        }
    }

    /// Keys that Traefik reads and that aren't ours, some of them by name; without those that we shall remove.
    pub(in crate::control) fn foreign(&self) -> Option<String> {
        let view = self.read();
        let prefix = self.settings.tree.prefix();
        let stays = |key: &&String| !self.settings.own_root_key || !hands::can_be_removed(key);
        let keys: Vec<String> = view.tree.foreign.keys().filter(stays).map(|key| format!("{prefix}{key}")).collect();
        (!keys.is_empty()).then(|| hands::named(keys.iter().map(String::as_str)))
    }

    /// What others did to our keys.
    pub(in crate::control) fn others(&self) -> &Others {
        &self.others
    }

    /// A plan has found that the tree of this revision is as it should be.
    pub(in crate::control) fn trust_tree(&self, revision: Revision) {
        let is_due = |view: &View| view.tree_doubtful && view.tree_revision == revision;
        if is_due(&self.read()) {
            self.change(|view| view.tree_doubtful &= !is_due(view));
        }
    }
}
