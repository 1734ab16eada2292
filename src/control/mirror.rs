//! The mirror: what the store holds, followed key by key, and readable at once.
//!
//! Two watches, one for the records and one for Traefik's tree. Each is a state the store really had; one may be ahead of
//! the other. Whoever writes compares the head or the marker with what it saw here, so a mirror that is behind does no harm.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use percent_encoding::percent_decode_str;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info};

use super::flapping::Detector;
use super::past::{Past, Verdict};
pub(super) use super::view::View;
use super::view::remember;
use super::{Frozen, Settings, hands};
use crate::lifecycle::{Lifecycle, Readiness};
use crate::route::record::{self, Head};
use crate::route::{RouteSpec, RouteTable, chain};
use crate::store::follow::{Follower, Update};
use crate::store::{Event, KeyValue, Revision, SharedStore};
use crate::traefik::fixed::MARKER_KEY;
use crate::traefik::name;
use crate::traefik::tree::Tree;

mod others;

use others::Others;

/// How many past heads are remembered, to know our own commits again.
const HEADS_MAX: usize = 1024;

/// How many past markers are remembered, to know what Traefiks show.
const MARKERS_MAX: usize = 1024;

/// The view, shared, and a way to wait until it says something.
#[derive(Debug)]
pub(super) struct Mirror {
    settings: Arc<Settings>,
    readiness: Readiness,
    view: RwLock<View>,
    changed: watch::Sender<()>,
    /// Somebody doubts that the view is the present: the pulse should look now.
    pub(super) look: Notify,
    relist_records: Notify,
    relist_tree: Notify,

    flapping: Mutex<Detector>,
    others: Others,
}

impl Mirror {
    pub(super) fn new(settings: Arc<Settings>, readiness: Readiness, past: Past, before: Option<RouteTable>) -> Self {
        readiness.expect("records", "the routes have not been read from the store yet");
        readiness.expect("tree", "Traefik's keys have not been read from the store yet");
        let view = RwLock::new(View { past, before, ..View::default() });
        let [look, relist_records, relist_tree] = [(); 3].map(|()| Notify::new());
        Self {
            settings,
            readiness,
            view,
            changed: watch::Sender::new(()),
            look,
            relist_records,
            relist_tree,
            flapping: Mutex::default(),
            others: Others::default(),
        }
    }

    /// Nothing is answered until the pulse has looked whether the view is the present.
    pub(super) fn doubt(&self) {
        self.change(View::doubt);
        self.look.notify_one();
    }

    /// There was no reason for the first so many doubts.
    pub(super) fn trust(&self, doubts: u64) {
        let has_reason = |view: &View| view.records_loaded && (view.doubted || view.before.is_some());
        if has_reason(&self.read()) {
            self.change(|view| {
                view.doubted &= view.doubts != doubts;
                view.before = view.before.take().filter(|_| view.doubted);
            });
        }
    }

    /// Reads both trees anew.
    pub(super) fn relist(&self) {
        self.relist_records.notify_one();
        self.relist_tree.notify_one();
    }

    /// The store goes on from here, whatever was before.
    pub(super) fn begin_anew(&self, head: Option<Head>, revision: Revision) {
        self.change(|view| {
            view.past.begin_anew(head, revision);
            (view.before, view.doubted) = (None, false);
        });
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
                    view.forget_head();
                    view.heads.clear();
                    self.meet(view, None);
                    view.unreadable.clear();
                    view.foreign_records.clear();
                    view.record_touched = None;
                    for entry in listing.entries {
                        self.put_record(view, &entry, Some(&old));
                    }
                    if view.past.judge(view.head.as_ref(), listing.revision, &[]) != Verdict::Onward {
                        view.before.get_or_insert(old);
                        view.doubt();
                    }
                    view.see_records(listing.revision);
                    view.records_loaded = true;
                    view.listings.0 += 1;
                });
                if self.read().doubted {
                    self.look.notify_one();
                }
                let routes = self.read().table.len();
                info!(routes, revision = listing.revision, "Read {routes} routes from the store");
                self.readiness.release("records");
                self.note_records();
            }
            Update::Changes(changes) => {
                let strangers = hands::strangers(&changes.events, &self.settings.records.head());
                self.watch_for_flapping(&changes.events);
                let doubts = self.read().doubts;
                self.change(|view| {
                    for event in changes.events {
                        match event {
                            Event::Put(entry) => self.put_record(view, &entry, None),
                            Event::Delete { key, .. } => self.delete_record(view, &key),
                        }
                    }
                    view.see_records(changes.revision);
                    if strangers.iter().any(|key| self.settings.records.is_route(key)) {
                        view.record_touched = Some(changes.revision);
                    }
                });
                if self.read().doubts != doubts {
                    self.relist_records.notify_one();
                    self.look.notify_one();
                }
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
                    // Heads come one by one. If one is missing, the others come from a store that went back in between.
                    let is_next = |old: &Head| {
                        old.epoch == head.epoch && old.n + 1 == head.n && chain::follows(&head.nonce, &old.nonce)
                    };
                    if view.head.as_ref().is_some_and(|old| !is_next(old)) {
                        view.before.get_or_insert_with(|| view.table.clone());
                        view.doubt();
                    }
                    view.past.see_head(&head);
                    remember(&mut view.heads, head.clone(), HEADS_MAX);
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
            view.head_value.clone_from(&entry.value);
        } else if entry.key == keys.installation() {
            self.meet(view, Some(entry.value.clone()));
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

    /// Learns whose records these are.
    fn meet(&self, view: &mut View, found: Option<Vec<u8>>) {
        let keys = &self.settings.records;
        let owner = self.settings.owner().zip(found.as_ref());
        view.quarrel = owner.and_then(|(owner, found)| owner.quarrel(keys.prefix(), &keys.installation(), found));
        view.installation = found;
        match &view.quarrel {
            Some(quarrel) => self.readiness.hold("installation", quarrel.as_str()),
            None => self.readiness.release("installation"),
        }
    }

    fn delete_record(&self, view: &mut View, key: &str) {
        if key == self.settings.records.head() {
            error!("The head of the routes was removed by another hand; the next change begins a new history");
            view.forget_head();
        } else if key == self.settings.records.installation() {
            self.meet(view, None);
        } else if let Some(spec) = self.spec_of(key) {
            view.unreadable.remove(key);
            view.table.remove(&spec);
        } else {
            view.foreign_records.remove(key);
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
                    view.markers.clear();
                    view.markers.extend(tree.marker.clone());
                    (view.tree, view.tree_loaded) = (tree, true);
                    view.see_tree(listing.revision);
                    view.listings.1 += 1;
                    view.tree_doubtful = true;
                });
                self.readiness.release("tree");
                self.note_tree();
            }
            Update::Changes(changes) => {
                let strangers = hands::strangers(&changes.events, &format!("{prefix}{MARKER_KEY}"));
                let mut is_torn = false;
                self.change(|view| {
                    for event in &changes.events {
                        let before = (view.tree.marker_revision, view.tree.marker.clone());
                        match event {
                            Event::Put(entry) => put(&mut view.tree, entry),
                            Event::Delete { key, .. } => view.tree.delete(&relative(key)),
                        }
                        let (true, Some(now)) = (view.tree.marker_revision != before.0, &view.tree.marker) else {
                            continue;
                        };
                        is_torn |= before.1.is_some_and(|before| !chain::follows(&now.tag, &before.tag));
                        remember(&mut view.markers, now.clone(), MARKERS_MAX);
                    }
                    view.see_tree(changes.revision);
                    view.tree_doubtful |= !strangers.is_empty();
                });
                if is_torn {
                    debug!("Changes of Traefik's keys are missing; reading them anew");
                    self.relist_tree.notify_one();
                }
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
    type Follow = (fn(&Mirror, Update), fn(&Mirror) -> &Notify);
    let follow = |prefix: String, (apply, relist): Follow| {
        let (mirror, store, stopping) = (mirror.clone(), store.clone(), lifecycle.stopping());
        async move {
            let mut follower = Follower::new(store, prefix);
            loop {
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => return,
                    () = relist(&mirror).notified() => follower.relist(),
                    update = follower.next() => apply(&mirror, update),
                }
            }
        }
    };
    let (records, tree) = (mirror.settings.records.prefix().to_owned(), mirror.settings.tree.prefix());
    lifecycle.spawn("follow records", follow(records, (Mirror::apply_records, |mirror| &mirror.relist_records)));
    lifecycle.spawn("follow tree", follow(tree, (Mirror::apply_tree, |mirror| &mirror.relist_tree)));
}
