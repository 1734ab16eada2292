//! The pulse: every second the store is asked where it is, and what we believe is held against the answer.
//!
//! It notices a store that can't be read, a mirror whose watch has died in silence, a store that went back in time, and
//! Traefiks that have gone deaf by that. What can be mended is mended here; the rest is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::behind::Behind;
use super::commit::{self, Seen};
use super::counts::Counts;
use super::mirror::{Mirror, View};
use super::past::{Past, Verdict, outdone};
use super::restore::{Cure, Deaf, Difference, PUSHES_MAX, push};
use super::{Settings, random_id, stillness};
use crate::clock::Moment;
use crate::lifecycle::Readiness;
use crate::route::chain;
use crate::route::record::Head;
use crate::store::{Commit, Op, Read, Revision, SharedStore, StoreError, Txn};
use crate::traefik::fixed::MARKER_KEY;
use crate::traefik::fleet::{self, Fleet};
use crate::traefik::marker::Marker;

/// How often the store is asked, and how long it may take to answer.
const INTERVAL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(1500);

/// Doubts have it asked sooner, but not all the time.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

/// How long the store may be silent before we say so.
const SILENCE_MAX: Duration = Duration::from_millis(2500);

/// How long a new listing may take.
const LISTING_MAX: Duration = Duration::from_secs(10);

/// How long the store is moved on at a time, before it is asked again.
const PUSH_SLICE: Duration = Duration::from_secs(1);

/// After an outage Traefiks come back to etcd by and by, and are not taken for deaf meanwhile.
const OUTAGE_GRACE: Duration = Duration::from_secs(10);

/// The latches: the store takes no changes (last), is silent, its head is broken, the mirror is behind, the store went back, Traefiks wait for a
/// revision that is too far away.
const STORE: &str = "store";
const HEAD: &str = "head";
const MIRROR: &str = "mirror";
const HISTORY: &str = "history";
const REVISIONS: &str = "revisions";
const WRITES: &str = "writes";

pub(super) struct Pulse {
    store: SharedStore,
    mirror: Arc<Mirror>,
    fleet: Arc<Fleet>,
    settings: Arc<Settings>,
    readiness: Readiness,
    counts: Arc<Counts>,
    /// When the store last answered, and when it last did not.
    answered: Instant,
    outage: Option<Instant>,
    records: Behind,
    tree: Behind,
    deaf: Deaf,
    /// The revision that the store has to reach again, so that nobody waits for it.
    wanted: Option<Revision>,
    /// Whether it isn't known that the store can be written, and how many commits had failed when that was last looked at.
    to_try: bool,
    failures: u64,
}

/// What is believed before the store is asked.
struct Belief {
    past: Past,
    doubts: u64,
    all: BTreeMap<String, fleet::Seen>,
    stood_still: u64,
}

impl Pulse {
    pub(super) fn new(
        store: SharedStore,
        mirror: Arc<Mirror>,
        fleet: Arc<Fleet>,
        settings: Arc<Settings>,
        readiness: Readiness,
        counts: Arc<Counts>,
    ) -> Self {
        let (records, tree) = (Behind::default(), Behind::default());
        let (answered, outage, wanted) = (Instant::now(), None, None);
        let deaf = Deaf::new(settings.allow_revision_bump);
        // A folder may be on a full disk from the start, and no other replica could tell.
        let (to_try, failures) = (settings.deliver, 0);
        if to_try {
            readiness.expect(WRITES, "whether routes can be written has not been tried yet");
        }
        Self {
            store,
            mirror,
            fleet,
            settings,
            readiness,
            counts,
            answered,
            outage,
            records,
            tree,
            deaf,
            wanted,
            to_try,
            failures,
        }
    }

    /// Beats until the stop.
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        loop {
            let beat = async {
                self.beat().await;
                sleep(INTERVAL_MIN).await;
                if self.wanted.is_none() {
                    let _ = timeout(INTERVAL.saturating_sub(INTERVAL_MIN), self.mirror.look.notified()).await;
                }
            };
            if stopping.run_until_cancelled(beat).await.is_none() {
                return;
            }
        }
    }

    async fn beat(&mut self) {
        let belief = {
            let all = self.fleet.watch().borrow().clone();
            let view = self.mirror.read();
            let stood_still = self.counts.stood_still.load(Ordering::SeqCst);
            Belief { past: view.past.clone(), doubts: view.doubts, all, stood_still }
        };
        let (marker, head) = match timeout(PATIENCE, self.ask()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return self.silent(&error),
            Err(_) => return self.silent(&StoreError::Unavailable("it took too long".to_owned())),
        };
        self.answered = Instant::now();
        self.counts.read_now();
        self.readiness.release(STORE);
        let parsed = match head.entry.as_ref().map(|entry| Head::parse(&entry.value)).transpose() {
            Ok(parsed) => parsed,
            Err(error) => {
                let key = self.settings.records.head();
                let reason = format!(
                    "the head of the routes ({key}) can't be read: {error}; run the version of Pointsman that wrote it, or, if \
                     nobody did, remove that key, and the next change begins a new history"
                );
                return self.readiness.hold(HEAD, reason);
            }
        };
        self.readiness.release(HEAD);
        let marker = marker.entry.map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
        let shown: Vec<_> = belief.all.values().filter_map(|seen| seen.status.marker()).map(Marker::state).collect();
        let tree = marker.as_deref().and_then(Marker::parse);
        let verdict = match belief.past.judge(parsed.as_ref(), head.revision, &shown) {
            Verdict::Onward => {
                outdone(parsed.as_ref(), tree.as_ref(), &belief.all).map_or(Verdict::Onward, Verdict::Back)
            }
            other => other,
        };
        if verdict != Verdict::Onward {
            return self.recover(verdict, &belief.past, parsed.as_ref()).await;
        }
        self.mirror.trust(belief.doubts);
        if self.counts.stood_still.load(Ordering::SeqCst) == belief.stood_still {
            self.readiness.release(stillness::LATCH);
        }
        self.look_at_mirror(&head, marker.as_deref());
        self.look_at_writes().await;
        self.look_at_traefiks(head.revision, marker.as_deref().unwrap_or_default(), &belief.all).await;
    }

    /// The marker and then the head: so the head is not older than the marker.
    async fn ask(&self) -> Result<(Read, Read), StoreError> {
        let marker = self.store.get(&format!("{}{MARKER_KEY}", self.settings.tree.prefix())).await?;
        Ok((marker, self.store.get(&self.settings.records.head()).await?))
    }

    fn silent(&mut self, error: &StoreError) {
        debug!(%error, "The store did not answer: {error}");
        self.outage = Some(Instant::now());
        if self.answered.elapsed() >= SILENCE_MAX {
            let reason = format!("{error}; look whether etcd has a quorum, and whether this replica reaches it");
            self.readiness.hold(STORE, reason);
        }
    }

    /// Reads anew what a dead watch does not tell.
    fn look_at_mirror(&mut self, head: &Read, marker: Option<&str>) {
        let head = head.entry.as_ref().map(|entry| entry.value.as_slice()).unwrap_or_default();
        let now = Instant::now();
        let (records, tree, loaded) = {
            let view = self.mirror.read();
            let marker = marker.unwrap_or_default().as_bytes();
            (
                self.records.look(head, &view.head_value, now),
                self.tree.look(marker, view.tree.marker_value.as_bytes(), now),
                view.records_loaded && view.tree_loaded && view.lost.is_none(),
            )
        };
        if !loaded || !(records.is_behind || tree.is_behind) {
            return self.readiness.release(MIRROR);
        }
        if records.is_due || tree.is_due {
            self.counts.relists.fetch_add(1, Ordering::Relaxed);
            let reason = "what is known here is older than what etcd has, although its watch seems to live: it is read anew; if \
                          that lasts, restart this replica";
            self.readiness.hold(MIRROR, reason);
            self.mirror.relist();
        }
    }

    /// Holds the latch while the store takes no changes: its disk is full, or etcd has no space. One commit that failed may
    /// have been a moment's trouble, so that it is tried once more before anything is said.
    async fn look_at_writes(&mut self) {
        let failures = self.counts.failures();
        self.to_try |= failures > self.failures;
        if !self.to_try || self.mirror.read().quarrel.is_some() {
            self.failures = failures;
            return;
        }
        let put = Op::Put { key: self.settings.records.push(), value: b"is it writable?".to_vec() };
        let tried = timeout(PATIENCE, self.store.commit(Txn { guards: Vec::new(), ops: vec![put] })).await;
        self.failures = self.counts.failures();
        match tried.unwrap_or_else(|_| Err(StoreError::Unavailable("it took too long".to_owned()))) {
            Ok(_) => {
                self.to_try = false;
                self.readiness.release(WRITES);
            }
            Err(error) => self.readiness.hold(
                WRITES,
                format!("no change of a route can be written, and those that there are are served as before: {error}"),
            ),
        }
    }

    /// Moves the store on for Traefiks that can't hear it.
    async fn look_at_traefiks(&mut self, revision: Revision, marker: &str, all: &BTreeMap<String, fleet::Seen>) {
        // Those that are sent their routes don't hear the store at all.
        if self.settings.deliver {
            return self.readiness.release(HISTORY);
        }
        let cure = if self.outage.is_some_and(|outage| outage.elapsed() < OUTAGE_GRACE) {
            self.deaf = Deaf::new(self.settings.allow_revision_bump);
            None
        } else {
            self.deaf.look(all, marker, Moment::now())
        };
        if let Some(wanted) = self.wanted {
            if let Some(why) = self.may_not_push(wanted - revision) {
                self.wanted = None;
                let reason = format!(
                    "etcd went back from revision {wanted} to {revision}, and {why}: restart every Traefik, for each of them hears \
                     nothing until then. The next time restore etcd with 'etcdutl snapshot restore BACKUP --bump-revision \
                     1000000000 --mark-compacted'"
                );
                self.readiness.hold(REVISIONS, reason);
            } else if self.push(revision, wanted).await.is_some_and(|reached| reached >= wanted) {
                info!(
                    revision = wanted,
                    "The store has revision {wanted} again, so that every Traefik hears its changes"
                );
                self.wanted = None;
                self.touch().await;
            }
        } else if let Some(Cure::Push(further, url)) = &cure {
            if let Some(named) = self.mirror.foreign() {
                let keys = self.mirror.foreign_sentence(&named);
                warn!(traefik = %url, "The Traefik at {url} shows an old state although etcd is well; there are {keys}");
            }
            info!(
                traefik = %url, further,
                "The Traefik at {url} shows an old state although etcd is well: in case it waits for a revision from before a \
                 restore, etcd's is moved on by {further}"
            );
            if self.push(revision, revision + further).await.is_some() {
                self.touch().await;
            }
        }
        if let Some(Cure::GiveUp(url)) = cure {
            let hint = if self.settings.allow_revision_bump {
                ""
            } else {
                "; if etcd was restored from a backup without --bump-revision and --mark-compacted, --allow-revision-bump mends it, too"
            };
            error!(
                traefik = %url,
                "The Traefik at {url} does not follow its keys: restart it, and look whether it reaches etcd{hint}"
            );
        }
        if self.wanted.is_none() {
            self.readiness.release(HISTORY);
        }
        let serves = |seen: &fleet::Seen| seen.status.marker().is_some();
        if self.deaf.is_empty() && all.values().any(serves) {
            self.readiness.release(REVISIONS);
        }
    }

    /// Why the store is not moved on by so many revisions, if it isn't.
    fn may_not_push(&self, further: Revision) -> Option<&'static str> {
        if further > PUSHES_MAX {
            return Some("that is too far to write it on");
        }
        (!self.settings.allow_revision_bump).then_some(
            "without --allow-revision-bump it is not written on, for others who use this etcd would have to live with that",
        )
    }

    /// How far the store has come; `None` if it can't be written.
    async fn push(&self, from: Revision, to: Revision) -> Option<Revision> {
        if self.mirror.read().quarrel.is_some() {
            return None;
        }
        let reached = push(&self.store, &self.settings.records.push(), from, to, Instant::now() + PUSH_SLICE).await;
        match reached {
            Ok(reached) => {
                self.counts.pushes.fetch_add(u64::try_from(reached - from).unwrap_or(0), Ordering::Relaxed);
                Some(reached)
            }
            Err(error) => {
                debug!(%error, "The store can't be moved on: {error}");
                if self.wanted.is_some() {
                    let key = self.settings.records.push();
                    let reason =
                        format!("etcd went back in time, and its revision can't be moved on by writing {key}: {error}");
                    self.readiness.hold(HISTORY, reason);
                }
                None
            }
        }
    }

    /// Says in Traefik's tree what it says already: an event for those who can hear again.
    async fn touch(&self) {
        let txn = {
            let view = self.mirror.read();
            let ours = |marker: &&Marker| {
                marker.layout == self.settings.layout
                    && marker.digest == self.settings.digest()
                    && view.quarrel.is_none()
            };
            let Some(marker) = view.tree.marker.as_ref().filter(ours) else { return };
            let tag = chain::link(&random_id()[..8], &marker.tag);
            let marker = self.settings.marker(&marker.epoch, marker.n, tag);
            let mut txn = Txn::default();
            commit::add_edits(&mut txn, &self.settings, Vec::new(), &marker, Seen::of(&view, &self.settings).marker);
            txn
        };
        // A conflict is an event as well.
        if let Err(error) = self.store.commit(txn).await {
            debug!(%error, "Traefik's marker can't be written again: {error}");
        }
    }

    /// The store is elsewhere: reads it anew, has a new history begin where the old one is not over for everybody, and says
    /// what happened.
    async fn recover(&mut self, mut verdict: Verdict, past: &Past, judged: Option<&Head>) {
        self.readiness.hold(
            HISTORY,
            "etcd went back in time or was replaced: its routes are read anew, and Traefiks are brought to them",
        );
        let (before, listings) = {
            let view = self.mirror.read();
            (view.before.clone().unwrap_or_else(|| view.table.clone()), view.listings)
        };
        self.mirror.doubt();
        self.mirror.relist();
        let is_listed = |view: &View| view.listings.0 > listings.0 && view.listings.1 > listings.1;
        if self.mirror.wait(Instant::now() + LISTING_MAX, is_listed).await.is_err() {
            return;
        }
        let (seen, head, difference, is_ours) = {
            let view = self.mirror.read();
            let is_ours = view.quarrel.is_none();
            (Seen::of(&view, &self.settings), view.head.clone(), Difference::between(&before, &view.table), is_ours)
        };
        let mut now = (head.clone(), self.mirror.read().records_revision);
        if head.as_ref().map(|head| &head.epoch) != judged.map(|head| &head.epoch) {
            // Another replica has noticed as well, and was faster.
            verdict = if head.is_some() { Verdict::Other } else { Verdict::Wiped };
        }
        if let (Verdict::Back(_), true) = (&verdict, is_ours) {
            // It was there a moment ago; the next beat sees what became of it.
            let Some(head) = head else { return };
            // The numbers go on: records keep theirs, and who waits for one of them must find it covered.
            let next = Head { epoch: random_id(), n: head.n + 1, nonce: chain::link(&random_id(), &head.nonce) };
            let put = Op::Put { key: seen.head.key.clone(), value: next.to_string().into_bytes() };
            match self.store.commit(Txn { guards: vec![seen.head], ops: vec![put] }).await {
                Ok(Commit::Done(revision)) => now = (Some(next), revision),
                Ok(Commit::Conflict(_)) => return,
                Err(error) => return warn!(%error, "No new history can be begun yet: {error}"),
            }
        }
        tell(&verdict, past.head(), now.0.as_ref(), difference);
        self.counts.went_back.fetch_add(1, Ordering::Relaxed);
        // Who is deaf now is so by this.
        self.outage = None;
        if past.revision() > now.1 {
            self.wanted = Some(past.revision());
        }
        self.mirror.begin_anew(now.0, now.1);
    }
}

/// Says what happened, in one sentence.
fn tell(verdict: &Verdict, before: Option<&Head>, now: Option<&Head>, difference: Difference) {
    let place = |head: Option<&Head>| head.map_or("nothing".to_owned(), |head| format!("{}/{}", head.epoch, head.n));
    let (from, to) = (place(before), place(now));
    match verdict {
        Verdict::Back(sign) => error!(
            %from, %to,
            "ETCD WENT BACK IN TIME, as after a restore from a backup ({sign}): the routes go on from {from} to {to}, {difference}; \
             what hubs don't add again at their next check is lost"
        ),
        Verdict::Wiped => error!(
            %from, %to,
            "ETCD WAS WIPED: the routes go on from {from} to {to}, {difference}; hubs add theirs again at their next check"
        ),
        Verdict::Other | Verdict::Onward => error!(
            %from, %to,
            "ETCD HAS ANOTHER HISTORY than this replica knew: the routes go on from {from} to {to}, {difference}; the log of the \
             replica that began it has more"
        ),
    }
}
