//! The mirror: what the store holds, followed key by key, and readable at once.
//!
//! Two watches, one for the records and one for Traefik's tree. Each is a state the store really had; one may be ahead of
//! the other. Whoever writes compares the head or the marker with what it saw here, so a mirror that is behind does no harm.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info, warn};

use super::flapping::{Detector, Flap};
use super::{Frozen, Settings, hands};
use crate::lifecycle::{Lifecycle, Readiness};
use crate::route::record::{self, Head};
use crate::route::{RouteSpec, RouteTable};
use crate::store::follow::{Follower, Update};
use crate::store::{Event, KeyValue, Revision, SharedStore};
use crate::telemetry::seldom::Seldom;
use crate::traefik::fixed::MARKER_KEY;
use crate::traefik::name;
use crate::traefik::tree::Tree;

/// How many past heads are remembered, to know our own commits again.
const HEADS_MAX: usize = 1024;

/// Flapping goes on; the log has it this often.
const FLAPPING_TOLD_AGAIN: Duration = Duration::from_secs(600);

/// What the store holds, as far as this replica has heard.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Whether the records have been read.
    pub(super) records_loaded: bool,
    /// All routes.
    pub(super) table: RouteTable,
    /// The last record change.
    pub(super) head: Option<Head>,
    /// Whether there is a head that can't be read: then nothing may be written.
    pub(super) head_is_broken: bool,
    /// The revision of the head's last change; 0 without a head.
    pub(super) head_revision: Revision,
    /// The records are those of this revision.
    pub(super) records_revision: Revision,
    /// The last heads, oldest first.
    pub(super) heads: VecDeque<Head>,
    /// Records that can't be read, by key.
    pub(super) unreadable: BTreeMap<String, String>,
    /// Whether Traefik's tree has been read.
    pub(super) tree_loaded: bool,
    /// Traefik's tree.
    pub(super) tree: Tree,
    /// The tree is that of this revision.
    pub(super) tree_revision: Revision,
    /// The tree may differ from what its marker says, for somebody else has changed it, or it was read anew.
    pub(super) tree_doubtful: bool,
    /// Somebody else has changed a record, at this revision, and the head has not moved since.
    pub(super) record_touched: Option<Revision>,
    /// Keys among our records that are none of ours.
    pub(super) foreign_records: BTreeSet<String>,
    /// When the store last told of the records, be it that nothing had changed.
    pub(super) heard: Option<Instant>,
    /// Since when the records can't be followed, if they can't.
    pub(super) lost: Option<Instant>,
}

impl View {
    /// Whether the records have been read, and are followed.
    pub(super) fn followed(&self) -> bool {
        self.records_loaded && self.lost.is_none()
    }
}

/// The view, shared, and a way to wait until it says something.
#[derive(Debug)]
pub(super) struct Mirror {
    settings: Arc<Settings>,
    readiness: Readiness,
    view: RwLock<View>,
    changed: watch::Sender<()>,
    flapping: Mutex<Detector>,
    others: Others,
}

/// What others did to our keys, since the start.
#[derive(Debug)]
pub(super) struct Others {
    /// Keys of ours that somebody else changed.
    pub(super) touched: AtomicU64,
    /// Changes by which a route flapped.
    pub(super) flaps: AtomicU64,
    told: Seldom,
}

impl Default for Others {
    fn default() -> Self {
        Self { touched: AtomicU64::new(0), flaps: AtomicU64::new(0), told: Seldom::every(FLAPPING_TOLD_AGAIN) }
    }
}

impl Mirror {
    pub(super) fn new(settings: Arc<Settings>, readiness: Readiness) -> Self {
        readiness.expect("records", "the routes have not been read from the store yet");
        readiness.expect("tree", "Traefik's keys have not been read from the store yet");
        Self {
            settings,
            readiness,
            view: RwLock::default(),
            changed: watch::Sender::new(()),
            flapping: Mutex::default(),
            others: Others::default(),
        }
    }

    /// The view now. Not to be held over an await.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of every change of the view.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until the view is as asked.
    pub(super) async fn wait(&self, deadline: Instant, is_so: impl Fn(&View) -> bool) -> Result<(), ()> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if is_so(&self.read()) {
                return Ok(());
            }
            match timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                _ => return Err(()),
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
    }

    fn apply_records(&self, update: Update) {
        match update {
            Update::Reset(listing) => {
                self.change(|view| {
                    // What can't be read keeps its last good version.
                    let old = std::mem::take(&mut view.table);
                    (view.head, view.head_revision, view.head_is_broken) = (None, 0, false);
                    view.unreadable.clear();
                    view.foreign_records.clear();
                    view.record_touched = None;
                    for entry in listing.entries {
                        self.put_record(view, &entry, Some(&old));
                    }
                    view.records_revision = listing.revision;
                    view.records_loaded = true;
                    (view.heard, view.lost) = (Some(Instant::now()), None);
                });
                let routes = self.read().table.len();
                info!(routes, revision = listing.revision, "Read {routes} routes from the store");
                self.readiness.release("records");
                self.note_records();
            }
            Update::Changes(changes) => {
                let strangers = hands::strangers(&changes.events, &self.settings.records.head());
                self.watch_for_flapping(&changes.events);
                self.change(|view| {
                    for event in changes.events {
                        match event {
                            Event::Put(entry) => self.put_record(view, &entry, None),
                            Event::Delete { key } => self.delete_record(view, &key),
                        }
                    }
                    view.records_revision = changes.revision;
                    (view.heard, view.lost) = (Some(Instant::now()), None);
                    if strangers.iter().any(|key| self.settings.records.is_route(key)) {
                        view.record_touched = Some(changes.revision);
                    }
                });
                self.readiness.release("records");
                self.tell_strangers(&strangers, "is taken for a change, and Traefik's keys follow");
                self.note_records();
            }
            Update::Lost(error) => {
                self.change(|view| view.lost = view.lost.or_else(|| Some(Instant::now())));
                self.readiness.hold("records", format!("the routes can't be followed: {error}"));
            }
        }
    }

    fn put_record(&self, view: &mut View, entry: &KeyValue, old: Option<&RouteTable>) {
        let keys = &self.settings.records;
        if entry.key == keys.head() {
            match Head::parse(&entry.value) {
                Ok(head) => {
                    if view.heads.len() == HEADS_MAX {
                        view.heads.pop_front();
                    }
                    view.heads.push_back(head.clone());
                    view.head = Some(head);
                    view.head_is_broken = false;
                }
                Err(error) => {
                    error!(key = %entry.key, %error, "The head of the routes can't be read: {error}; nothing is written until it is mended");
                    view.head_is_broken = true;
                }
            }
            view.head_revision = entry.mod_revision;
            view.record_touched = view.record_touched.filter(|touched| *touched >= entry.mod_revision);
        } else if keys.is_route(&entry.key) {
            match record::decode(keys, &entry.key, &entry.value) {
                Ok(route) => {
                    view.unreadable.remove(&entry.key);
                    view.table.insert(Arc::new(route));
                }
                Err(error) => {
                    error!(key = %entry.key, %error, "The record {} can't be read: {error}; its route stays as it was", entry.key);
                    view.unreadable.insert(entry.key.clone(), error.to_string());
                    if let Some(route) = self.spec_of(&entry.key).and_then(|spec| old?.get(&spec).cloned()) {
                        view.table.insert(route);
                    }
                }
            }
        } else {
            view.foreign_records.insert(entry.key.clone());
        }
    }

    fn delete_record(&self, view: &mut View, key: &str) {
        if key == self.settings.records.head() {
            error!("The head of the routes was removed by another hand; the next change begins a new history");
            (view.head, view.head_revision, view.head_is_broken) = (None, 0, false);
        } else if let Some(spec) = self.spec_of(key) {
            view.unreadable.remove(key);
            view.table.remove(&spec);
        } else {
            view.foreign_records.remove(key);
        }
    }

    /// Looks whether routes go back and forth, before the view has the changes.
    fn watch_for_flapping(&self, events: &[Event]) {
        let (keys, now) = (&self.settings.records, Instant::now());
        let mut detector = self.flapping.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events.iter().filter(|event| keys.is_route(event.key())) {
            let Some(spec) = self.spec_of(event.key()) else { continue };
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

    fn tell_flap(&self, Flap { spec, targets: [now, before] }: &Flap) {
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

    fn tell_strangers(&self, keys: &BTreeSet<String>, what_then: &str) {
        if keys.is_empty() {
            return;
        }
        self.others.touched.fetch_add(keys.len() as u64, Ordering::Relaxed);
        let named = hands::named(keys.iter().map(String::as_str));
        warn!("Somebody other than Pointsman has changed {named}; that {what_then}");
    }

    /// Tells at /readyz, and once in the log, what among the records can't be used.
    fn note_records(&self) {
        let view = self.read();
        let unreadable = (!view.unreadable.is_empty()).then(|| {
            let named = hands::named(view.unreadable.keys().map(String::as_str));
            format!("records that can't be read, so that their routes stay as they were: {named}; add each route again, or remove its key")
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
    fn note_tree(&self) {
        let foreign = self.foreign().filter(|_| !self.settings.own_root_key);
        let sentence = |named| {
            format!(
                "keys under --traefik-root-key that are none of ours: {named}; Traefik reads them too, and one that it can't \
                 understand stops all changes: remove them, or let us do it by --own-root-key"
            )
        };
        self.note("foreign keys", foreign.map(sentence));
    }

    fn note(&self, name: &'static str, sentence: Option<String>) {
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

    /// Keys that Traefik reads and that aren't ours, some of them by name.
    pub(super) fn foreign(&self) -> Option<String> {
        let view = self.read();
        let prefix = self.settings.tree.prefix();
        let keys: Vec<String> = view.tree.foreign.keys().map(|key| format!("{prefix}{key}")).collect();
        (!keys.is_empty()).then(|| hands::named(keys.iter().map(String::as_str)))
    }

    /// What others did to our keys.
    pub(super) fn others(&self) -> &Others {
        &self.others
    }

    /// A plan has found that the tree of this revision is as it should be.
    pub(super) fn trust_tree(&self, revision: Revision) {
        let is_due = |view: &View| view.tree_doubtful && view.tree_revision == revision;
        if is_due(&self.read()) {
            self.change(|view| view.tree_doubtful &= !is_due(view));
        }
    }

    /// The routespec whose record has this key.
    fn spec_of(&self, key: &str) -> Option<RouteSpec> {
        let path = key.strip_prefix(self.settings.records.prefix())?.strip_prefix("routes")?;
        RouteSpec::from_decoded(&percent_decode_str(path).decode_utf8().ok()?).ok()
    }

    /// The names of routes whose records can't be read and of which no good version is known.
    pub(super) fn frozen(&self, view: &View) -> Frozen {
        let specs = view.unreadable.keys().filter_map(|key| self.spec_of(key));
        specs.map(|spec| name::route(self.settings.tree.space.place(&spec))).collect()
    }

    fn apply_tree(&self, update: Update) {
        let prefix = self.settings.tree.prefix();
        let relative = |key: &str| key.strip_prefix(&prefix).unwrap_or(key).to_owned();
        let put = |tree: &mut Tree, entry: &KeyValue| {
            tree.put(&relative(&entry.key), &String::from_utf8_lossy(&entry.value), entry.mod_revision);
        };
        match update {
            Update::Reset(listing) => {
                let mut tree = Tree::default();
                listing.entries.iter().for_each(|entry| put(&mut tree, entry));
                self.change(|view| {
                    (view.tree, view.tree_revision, view.tree_loaded) = (tree, listing.revision, true);
                    view.tree_doubtful = true;
                });
                self.readiness.release("tree");
                self.note_tree();
            }
            Update::Changes(changes) => {
                let strangers = hands::strangers(&changes.events, &format!("{prefix}{MARKER_KEY}"));
                self.change(|view| {
                    for event in &changes.events {
                        match event {
                            Event::Put(entry) => put(&mut view.tree, entry),
                            Event::Delete { key } => view.tree.delete(&relative(key)),
                        }
                    }
                    view.tree_revision = changes.revision;
                    view.tree_doubtful |= !strangers.is_empty();
                });
                self.readiness.release("tree");
                self.tell_strangers(&strangers, "is mended as far as the keys are ours");
                self.note_tree();
            }
            Update::Lost(error) => {
                self.readiness.hold("tree", format!("Traefik's keys can't be followed: {error}"));
            }
        }
    }
}

/// Starts the two tasks that follow the store.
pub(super) fn start(mirror: &Arc<Mirror>, lifecycle: &Lifecycle, store: &SharedStore) {
    let follow = |prefix: String, apply: fn(&Mirror, Update)| {
        let (mirror, store, stopping) = (mirror.clone(), store.clone(), lifecycle.stopping());
        async move {
            let mut follower = Follower::new(store, prefix);
            while let Some(update) = stopping.run_until_cancelled(follower.next()).await {
                apply(&mirror, update);
            }
        }
    };
    let settings = &mirror.settings;
    lifecycle.spawn("follow records", follow(settings.records.prefix().to_owned(), Mirror::apply_records));
    lifecycle.spawn("follow tree", follow(settings.tree.prefix(), Mirror::apply_tree));
}
