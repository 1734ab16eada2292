//! The mirror: what the store holds, followed key by key, and readable at once.
//!
//! Two watches, one for the records and one for Traefik's tree. Each is a state the store really had; one may be ahead of
//! the other. Whoever writes compares the head or the marker with what it saw here, so a mirror that is behind does no harm.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info, warn};

use super::flapping::{Detector, Flap};
use super::past::{Past, Verdict};
use super::{Frozen, Settings, hands};
use crate::lifecycle::{Lifecycle, Readiness};
use crate::route::record::{self, Head};
use crate::route::{RouteSpec, RouteTable, chain};
use crate::store::follow::{Follower, Update};
use crate::store::{Event, KeyValue, Revision, SharedStore};
use crate::telemetry::seldom::Seldom;
use crate::traefik::fixed::MARKER_KEY;
use crate::traefik::fleet::Status;
use crate::traefik::marker::Marker;
use crate::traefik::name;
use crate::traefik::tree::Tree;

/// How many past heads are remembered, to know our own commits again.
const HEADS_MAX: usize = 1024;

/// How many past markers are remembered, to know what Traefiks show.
const MARKERS_MAX: usize = 1024;

/// Flapping goes on; the log has it this often.
const FLAPPING_TOLD_AGAIN: Duration = Duration::from_secs(600);

/// What the store holds, as far as this replica has heard.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
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
    /// The head as it is written.
    pub(super) head_value: Vec<u8>,
    /// Whose records these are, as it is written.
    pub(super) installation: Option<Vec<u8>>,
    /// Why they aren't ours, if they aren't.
    pub(super) quarrel: Option<String>,
    /// The records are those of this revision.
    pub(super) records_revision: Revision,
    /// The last heads, oldest first; never one that the store does not have in its past now.
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
    /// The last markers, oldest first; never one that the store does not have in its past now.
    pub(super) markers: VecDeque<Marker>,
    /// How far the store had come.
    pub(super) past: Past,
    /// The routes as they were before the store was found to have another past.
    pub(super) before: Option<RouteTable>,
    /// How often there was a doubt whether this is the present, and whether there is one now. Nothing is answered then.
    pub(super) doubts: u64,
    pub(super) doubted: bool,
    /// How often records and tree were listed.
    pub(super) listings: (u64, u64),
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

    /// Whether both trees have been read, and are believed.
    pub(super) fn is_usable(&self) -> bool {
        self.records_loaded && self.tree_loaded && !self.head_is_broken && !self.doubted
    }

    /// Whether a Traefik that shows this has it from the store as it is now, and not from one before a restore: the numbers
    /// may be the same.
    pub(super) fn has_told(&self, status: &Status) -> bool {
        match status {
            Status::Serving(marker) => self.markers.iter().rev().any(|told| told == marker),
            // Its mark is that of the head.
            Status::Fallback(marker) => {
                self.heads.iter().rev().any(|head| marker.state() == (&head.epoch, head.n) && marker.tag == head.nonce)
            }
            _ => false,
        }
    }

    fn doubt(&mut self) {
        self.doubts += 1;
        self.doubted = true;
    }
}

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
        self.note("foreign keys", self.foreign().map(|named| self.foreign_sentence(&named)));
    }

    /// What keys there are that aren't ours, what they may do, and what is to be done.
    pub(super) fn foreign_sentence(&self, named: &str) -> String {
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

    /// Keys that Traefik reads and that aren't ours, some of them by name; without those that we shall remove.
    pub(super) fn foreign(&self) -> Option<String> {
        let view = self.read();
        let prefix = self.settings.tree.prefix();
        let stays = |key: &&String| !self.settings.own_root_key || !hands::can_be_removed(key);
        let keys: Vec<String> = view.tree.foreign.keys().filter(stays).map(|key| format!("{prefix}{key}")).collect();
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

impl View {
    fn see_records(&mut self, revision: Revision) {
        self.records_revision = revision;
        self.past.see_revision(revision);
        (self.heard, self.lost) = (Some(Instant::now()), None);
    }

    fn see_tree(&mut self, revision: Revision) {
        self.tree_revision = revision;
        self.past.see_revision(revision);
    }

    fn forget_head(&mut self) {
        (self.head, self.head_revision, self.head_is_broken) = (None, 0, false);
        self.head_value.clear();
    }
}

fn remember<T>(all: &mut VecDeque<T>, newest: T, max: usize) {
    if all.len() == max {
        all.pop_front();
    }
    all.push_back(newest);
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
