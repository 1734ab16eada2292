//! The mirror: what the store holds, followed key by key, and readable at once.
//!
//! Two watches, one for the records and one for Traefik's tree. Each is a state the store really had; one may be ahead of
//! the other. Whoever writes compares the head or the marker with what it saw here, so a mirror that is behind does no harm.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info};

use super::commit::Changes as RecordChanges;
use super::flapping::Detector;
use super::past::{Past, Verdict};
pub(super) use super::view::View;
use super::view::remember;
use super::{Frozen, Settings, hands};
use crate::lifecycle::{Lifecycle, Readiness, compute};
use crate::route::record::{self, Head, RecordError};
use crate::route::{Route, RouteSpec, RouteTable, chain};
use crate::store::follow::{Follower, Update};
use crate::store::{Event, KeyValue, Revision, SharedStore};
use crate::traefik::fixed::MARKER_KEY;
use crate::traefik::name;
use crate::traefik::tree::Tree;

mod others;

use others::Others;

/// To read more records than this takes long enough to be kept off the threads that answer.
const LARGE: usize = 500;

/// How many past heads are remembered, to know our own commits again.
const HEADS_MAX: usize = 1024;

/// How many past markers are remembered, to know what Traefiks show.
const MARKERS_MAX: usize = 1024;

/// The name of a route, and its record if that can be read.
type ReadRecord = (RouteSpec, Result<Route, RecordError>);

/// The view, shared, and a way to wait until it says something.
#[derive(Debug)]
pub(super) struct Mirror {
    settings: Arc<Settings>,
    readiness: Readiness,
    view: RwLock<Arc<View>>,
    changed: watch::Sender<()>,
    /// Somebody doubts that the view is the present: the pulse should look now.
    pub(super) look: Notify,
    relist_records: Notify,
    relist_tree: Notify,

    flapping: Mutex<Detector>,
    others: Others,
}

impl Mirror {
    pub(super) fn new(
        settings: Arc<Settings>,
        readiness: Readiness,
        past: Past,
        before: Option<Arc<RouteTable>>,
    ) -> Self {
        readiness.expect("records", "the routes have not been read from the store yet");
        readiness.expect("tree", "Traefik's keys have not been read from the store yet");
        let view = RwLock::new(Arc::new(View { past, before, ..View::default() }));
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

    /// The view as it is now: whoever has it keeps nobody from changing it.
    pub(super) fn read(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
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
        change(Arc::make_mut(&mut self.view.write().unwrap_or_else(PoisonError::into_inner)));
        self.changed.send_replace(());
    }

    fn apply_records(&self, update: Update) {
        match update {
            Update::Reset(listing) => {
                // Thousands of records take a while to parse; nothing waits for the view meanwhile.
                let read: Vec<_> = listing.entries.iter().map(|entry| self.read_record(entry)).collect();
                self.change(|view| {
                    // What can't be read keeps its last good version.
                    let old = std::mem::take(&mut view.table);
                    view.forget_head();
                    view.heads.clear();
                    self.meet(view, None);
                    view.unreadable.clear();
                    view.foreign_records.clear();
                    view.record_touched = None;
                    for (entry, read) in listing.entries.iter().zip(read) {
                        self.put_record(view, entry, read, Some(&*old));
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
                            Event::Put(entry) => self.put_record(view, &entry, self.read_record(&entry), None),
                            Event::Delete { key, .. } => self.delete_record(view, &key),
                        }
                    }
                    view.see_records(changes.revision);
                    if strangers.iter().any(|key| self.settings.records.spec(key).is_some()) {
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

    /// The name of the route and its record, if the key is that of a record.
    fn read_record(&self, entry: &KeyValue) -> Option<ReadRecord> {
        let keys = &self.settings.records;
        keys.spec(&entry.key).map(|spec| (spec, record::decode(keys, &entry.key, &entry.value)))
    }

    fn put_record(&self, view: &mut View, entry: &KeyValue, read: Option<ReadRecord>, old: Option<&RouteTable>) {
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
                    remember(&mut view.heads, Arc::new(head.clone()), HEADS_MAX);
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
        } else if let Some((spec, read)) = read {
            match read {
                Ok(route) => {
                    view.unreadable.remove(&entry.key);
                    Arc::make_mut(&mut view.table).insert(Arc::new(route));
                }
                Err(error) => {
                    error!(
                        key = %entry.key, %error,
                        "The record {} can't be read: {error}; its route {spec} stays as it was until it is added again or deleted",
                        entry.key
                    );
                    view.unreadable.insert(entry.key.clone(), error.to_string());
                    if let Some(route) = old.and_then(|old| old.get(&spec).cloned()) {
                        Arc::make_mut(&mut view.table).insert(route);
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
        } else if let Some(spec) = self.settings.records.spec(key) {
            view.unreadable.remove(key);
            Arc::make_mut(&mut view.table).remove(&spec);
        } else {
            view.foreign_records.remove(key);
        }
    }

    /// The names of routes whose records can't be read and of which no good version is known, but for those that change now.
    pub(super) fn frozen(&self, view: &View, changes: Option<&RecordChanges>) -> Frozen {
        let stay = view.unreadable.keys().filter(|key| !changes.is_some_and(|changes| changes.contains(key)));
        let specs = stay.filter_map(|key| self.settings.records.spec(key));
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
                    view.markers.extend(tree.marker.clone().map(Arc::new));
                    (view.tree, view.tree_loaded) = (Arc::new(tree), true);
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
                        let tree = Arc::make_mut(&mut view.tree);
                        let before = (tree.marker_revision, tree.marker.clone());
                        match event {
                            Event::Put(entry) => put(tree, entry),
                            Event::Delete { key, .. } => tree.delete(&relative(key)),
                        }
                        let (true, Some(now)) = (tree.marker_revision != before.0, &tree.marker) else { continue };
                        is_torn |= before.1.is_some_and(|before| !chain::follows(&now.tag, &before.tag));
                        remember(&mut view.markers, Arc::new(now.clone()), MARKERS_MAX);
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
                    update = follower.next() => {
                        let is_long = matches!(&update, Update::Reset(listing) if listing.entries.len() > LARGE);
                        let mirror = mirror.clone();
                        compute(is_long, move || apply(&mirror, update)).await;
                    }
                }
            }
        }
    };
    let (records, tree) = (mirror.settings.records.prefix().to_owned(), mirror.settings.tree.prefix());
    lifecycle.spawn("follow records", follow(records, (Mirror::apply_records, |mirror| &mirror.relist_records)));
    lifecycle.spawn("follow tree", follow(tree, (Mirror::apply_tree, |mirror| &mirror.relist_tree)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Room;
    use crate::route::Weight;
    use crate::route::record::RecordKeys;
    use crate::store::{Changes, Listing};
    use crate::traefik::bucket::Sizes;
    use crate::traefik::fixed;
    use crate::traefik::marker::LAYOUT;
    use crate::traefik::rule::Space;

    fn settings() -> Settings {
        Settings {
            records: RecordKeys::new("p"),
            tree: fixed::Settings {
                root_key: "traefik".to_owned(),
                entry_points: vec!["web".to_owned()],
                space: Space::Paths,
                pages_url: None,
                pages_get_address: false,
                middlewares: Vec::new(),
                servers: fixed::Servers::default(),
            },
            sizes: Sizes::default(),
            room: Room { max: Weight { routes: 10, bytes: 10_000 }, share_percent: 10 },
            adopt_layout: false,
            own_root_key: false,
            allow_revision_bump: false,
            deliver: false,
            snapshots: None,
            installation: None,
            layout: LAYOUT,
        }
    }

    /// Who plans with a view for a while holds nobody up, and sees nothing of what comes meanwhile.
    #[test]
    fn who_has_a_view_keeps_nobody_from_changing_it() {
        let mirror = Mirror::new(Arc::new(settings()), Readiness::new(), Past::default(), None);
        let listing = |revision| Listing { revision, entries: Vec::new() };
        mirror.apply_records(Update::Reset(listing(3)));
        mirror.apply_tree(Update::Reset(listing(3)));
        let view = mirror.read();
        let marker =
            KeyValue { key: format!("traefik/{MARKER_KEY}"), value: b"2.0a1b2c3d-t.e.7".to_vec(), mod_revision: 4 };
        mirror.apply_tree(Update::Changes(Changes { revision: 4, events: vec![Event::Put(marker)] }));
        assert_eq!((view.tree_revision, view.tree.marker_revision), (3, 0));
        assert_eq!((mirror.read().tree_revision, mirror.read().tree.marker_revision), (4, 4));
        // What did not change is not copied.
        assert!(Arc::ptr_eq(&view.table, &mirror.read().table) && !Arc::ptr_eq(&view.tree, &mirror.read().tree));
    }
}
