//! Following real etcd through everything that happens to a watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pointsman::store::etcd::{EtcdSettings, EtcdStore};
use pointsman::store::follow::{Follower, Update};
use pointsman::store::memory::MemoryStore;
use pointsman::store::{Event, Revision, SharedStore, StoreError};
use tokio::time::timeout;

use crate::store_contract::{commit, put};
use crate::support::chaos_proxy::ChaosProxy;
use crate::support::etcd::{Etcd, Wanted};
use crate::support::flaky_store::FlakyStore;

/// A follower, and what it has learnt.
pub(crate) struct Mirror {
    follower: Follower,
    pub(crate) entries: BTreeMap<String, Vec<u8>>,
    pub(crate) revision: Revision,
    pub(crate) resets: usize,
    pub(crate) losses: Vec<StoreError>,
}

impl Mirror {
    pub(crate) fn of(store: SharedStore, prefix: &str) -> Self {
        let follower = Follower::new(store, prefix.to_owned());
        Self { follower, entries: BTreeMap::new(), revision: 0, resets: 0, losses: Vec::new() }
    }

    /// Takes in one update.
    pub(crate) async fn step(&mut self) {
        match self.follower.next().await {
            Update::Reset(listing) => {
                self.resets += 1;
                self.revision = listing.revision;
                self.entries = listing.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
            }
            Update::Changes(changes) => {
                assert!(changes.revision >= self.revision, "from {} back to {changes:?}", self.revision);
                for event in changes.events {
                    match event {
                        Event::Put(entry) => {
                            assert!(
                                entry.mod_revision > self.revision,
                                "twice, or late: {entry:?} at {}",
                                self.revision
                            );
                            assert!(entry.mod_revision <= changes.revision);
                            self.entries.insert(entry.key, entry.value);
                        }
                        Event::Delete { key, .. } => drop(self.entries.remove(&key)),
                    }
                }
                self.revision = changes.revision;
            }
            Update::Lost(error) => self.losses.push(error),
        }
    }

    /// Takes in updates until something is so, and says how long that took.
    pub(crate) async fn until(&mut self, what: &str, patience: Duration, so: impl Fn(&Self) -> bool) -> Duration {
        let begun = Instant::now();
        let wait = async {
            while !so(self) {
                self.step().await;
            }
        };
        let in_time = timeout(patience, wait).await.is_ok();
        assert!(
            in_time,
            "{what}: not within {patience:?}; at revision {}, {} resets, losses {:?}, entries {:?}",
            self.revision, self.resets, self.losses, self.entries
        );
        begun.elapsed()
    }

    fn has(&self, key: &str, value: &str) -> bool {
        self.entries.get(key).is_some_and(|found| found == value.as_bytes())
    }
}

async fn shared(urls: impl IntoIterator<Item = String>) -> SharedStore {
    Arc::new(EtcdStore::connect(EtcdSettings::new(urls)).await.expect("good settings"))
}

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_watch_that_dies_in_silence_is_noticed_and_resumed_elsewhere() {
    let etcd = Etcd::start().await;
    let (first, second) =
        (ChaosProxy::before(etcd.members[0].port).await, ChaosProxy::before(etcd.members[0].port).await);
    let writer = etcd.patient_store().await;
    commit(&writer, vec![put("f/1", "1")]).await;
    let mut mirror = Mirror::of(shared([first.url(), second.url()]).await, "f/");
    mirror.until("the listing", SOON, |mirror| mirror.has("f/1", "1")).await;
    commit(&writer, vec![put("f/1", "2")]).await;
    mirror.until("a first change, so that the watch is open", SOON, |mirror| mirror.has("f/1", "2")).await;
    first.stall();
    commit(&writer, vec![put("f/2", "unheard")]).await;
    let noticed = mirror.until("the loss", SOON, |mirror| !mirror.losses.is_empty()).await;
    assert!(noticed < Duration::from_secs(5), "it took {noticed:?}");
    assert!(matches!(&mirror.losses[0], StoreError::Unavailable(_)), "{:?}", mirror.losses);
    let healed = mirror.until("the missed change", SOON, |mirror| mirror.has("f/2", "unheard")).await;
    assert!(healed < Duration::from_secs(2), "the other endpoint was there all the time, and it took {healed:?}");
    assert_eq!(mirror.resets, 1, "resumed where it broke, not begun again");
}

#[tokio::test]
async fn a_paused_etcd_is_noticed_and_found_again() {
    let etcd = Etcd::start().await;
    let store = shared([etcd.members[0].url.clone()]).await;
    let mut mirror = Mirror::of(store.clone(), "f/");
    commit(&store, vec![put("f/1", "1")]).await;
    mirror.until("the listing", SOON, |mirror| mirror.has("f/1", "1")).await;
    let open = commit(&store, vec![put("f/1", "2")]).await;
    mirror.until("the watch", SOON, |mirror| mirror.revision >= open).await;
    etcd.members[0].pause();
    let noticed = mirror.until("the loss", SOON, |mirror| !mirror.losses.is_empty()).await;
    assert!(noticed < Duration::from_secs(5), "it took {noticed:?}");
    etcd.members[0].resume();
    let writer = etcd.patient_store().await;
    commit(&writer, vec![put("f/2", "after")]).await;
    mirror.until("what came after", SOON, |mirror| mirror.has("f/2", "after")).await;
    assert_eq!(mirror.resets, 1);
}

/// A quiet prefix must not look like a dead watch, whatever this etcd makes of progress requests.
#[tokio::test]
async fn a_quiet_watch_lives_and_says_so() {
    let etcd = Etcd::start().await;
    let store = shared([etcd.members[0].url.clone()]).await;
    let start = commit(&store, vec![put("elsewhere", "1")]).await;
    let mut watch = store.watch("f/", start).await.unwrap();
    for _ in 0..4 {
        let sign = timeout(Duration::from_secs(4), watch.next()).await.expect("a sign of life within 4 s");
        assert_eq!(sign.expect("a living watch").events, []);
    }
    let at = commit(&store, vec![put("f/1", "1")]).await;
    assert_eq!(timeout(SOON, watch.next()).await.unwrap().unwrap().revision, at);
}

#[tokio::test]
async fn a_follower_that_was_lost_where_nothing_changes_says_that_it_is_back() {
    let mut etcd = Etcd::start().await;
    let store = shared([etcd.members[0].url.clone()]).await;
    let mut mirror = Mirror::of(store.clone(), "f/");
    let at = commit(&store, vec![put("f/1", "1")]).await;
    mirror.until("the listing", SOON, |mirror| mirror.revision >= at).await;
    etcd.members[0].kill();
    mirror.until("the loss", SOON, |mirror| !mirror.losses.is_empty()).await;
    etcd.members[0].start();
    etcd.wait_until_it_answers().await;
    let begun = Instant::now();
    loop {
        let losses = mirror.losses.len();
        timeout(SOON, mirror.step()).await.expect("an update");
        if mirror.losses.len() == losses {
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    assert!(mirror.has("f/1", "1"));
}

#[tokio::test]
async fn a_compaction_while_we_were_cut_off_is_a_new_listing() {
    let etcd = Etcd::start().await;
    let proxy = ChaosProxy::before(etcd.members[0].port).await;
    let writer = etcd.patient_store().await;
    commit(&writer, vec![put("f/gone", "1"), put("f/kept", "1")]).await;
    let mut mirror = Mirror::of(shared([proxy.url()]).await, "f/");
    mirror.until("the listing", SOON, |mirror| mirror.has("f/gone", "1")).await;
    commit(&writer, vec![put("f/kept", "2")]).await;
    mirror.until("the watch", SOON, |mirror| mirror.has("f/kept", "2")).await;
    proxy.cut().await;
    mirror.until("the loss", SOON, |mirror| !mirror.losses.is_empty()).await;
    commit(&writer, vec![crate::store_contract::delete("f/gone")]).await;
    let at = commit(&writer, vec![put("f/kept", "3")]).await;
    etcd.client().await.compact(at, None).await.unwrap();
    proxy.mend().await;
    mirror.until("the newest", SOON, |mirror| mirror.has("f/kept", "3")).await;
    assert_eq!(mirror.resets, 2);
    assert_eq!(mirror.entries.len(), 1, "a listing replaces everything: {:?}", mirror.entries);
}

/// As after a restore from an old backup: the revisions that we know are still to come.
#[tokio::test]
async fn an_etcd_that_went_back_in_time_is_a_new_listing() {
    let mut etcd = Etcd::start().await;
    let store = shared([etcd.members[0].url.clone()]).await;
    for n in 0..20 {
        commit(&store, vec![put("f/old", &n.to_string())]).await;
    }
    let mut mirror = Mirror::of(store.clone(), "f/");
    mirror.until("the listing", SOON, |mirror| mirror.has("f/old", "19")).await;
    let before = commit(&store, vec![put("f/old", "20")]).await;
    mirror.until("the watch", SOON, |mirror| mirror.revision == before).await;
    etcd.members[0].kill();
    etcd.members[0].wipe();
    etcd.members[0].start();
    etcd.wait_until_it_answers().await;
    let writer = etcd.patient_store().await;
    commit(&writer, vec![put("f/new", "1")]).await;
    mirror.until("the new world", SOON, |mirror| mirror.has("f/new", "1")).await;
    assert!(mirror.revision < before && mirror.entries.len() == 1, "{:?}", mirror.entries);
}

#[tokio::test]
async fn a_killed_member_of_three_costs_no_event() {
    let mut etcd = Etcd::start_as(Wanted { members: 3, ..Wanted::default() }).await;
    let mut settings = etcd.settings();
    let mut mirror = Mirror::of(Arc::new(EtcdStore::connect(settings.clone()).await.unwrap()), "f/");
    settings.endpoints.reverse();
    let writer: SharedStore = Arc::new(EtcdStore::connect(settings).await.unwrap());
    commit(&writer, vec![put("f/1", "1")]).await;
    mirror.until("the listing", SOON, |mirror| mirror.has("f/1", "1")).await;
    commit(&writer, vec![put("f/1", "2")]).await;
    mirror.until("the watch", SOON, |mirror| mirror.has("f/1", "2")).await;
    etcd.members[0].kill();
    crate::support::wait::eventually("a commit without the dead member", SOON, async || {
        let ops = vec![put("f/2", "after")];
        let txn = pointsman::store::Txn { guards: Vec::new(), ops };
        writer.commit(txn).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    mirror.until("what came after", SOON, |mirror| mirror.has("f/2", "after")).await;
    assert_eq!(mirror.resets, 1);
}

/// A caller that cancels us again and again must neither hurry nor prolong the pauses.
#[tokio::test(start_paused = true)]
async fn an_unreachable_store_is_tried_with_growing_pauses() {
    let memory = MemoryStore::new();
    let flaky = FlakyStore::over(Arc::new(memory));
    flaky.away.store(true, Ordering::SeqCst);
    let mut follower = Follower::new(flaky.clone(), "f/".to_owned());
    let begun = tokio::time::Instant::now();
    let mut tries = Vec::new();
    while begun.elapsed() < Duration::from_secs(30) {
        if let Ok(Update::Lost(_)) = timeout(Duration::from_millis(30), follower.next()).await {
            tries.push(begun.elapsed());
        }
    }
    let pauses: Vec<Duration> = tries.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    assert!(pauses[0] <= Duration::from_millis(130), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause >= Duration::from_millis(50)), "{pauses:?}");
    let late = &pauses[pauses.len() - 5..];
    let expected = Duration::from_secs(1)..Duration::from_millis(2100);
    assert!(late.iter().all(|pause| expected.contains(pause)), "{pauses:?}");
    flaky.away.store(false, Ordering::SeqCst);
    let back = timeout(Duration::from_millis(2100), follower.next()).await.expect("back within the longest pause");
    assert!(matches!(back, Update::Reset(_)), "{back:?}");
}
