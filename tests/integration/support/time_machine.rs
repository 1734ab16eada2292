//! A store in memory that can go back in time, as one that is restored from a backup, and whose watches can go silent.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pointsman::store::memory::MemoryStore;
use pointsman::store::{
    Changes, Commit, Listing, Read, Revision, SharedStore, Store, StoreError, Txn, TxnLimits, Watch,
};
use tokio::sync::watch;

/// The store, with all that ever happened to it.
#[derive(Clone)]
pub(crate) struct TimeMachine {
    state: Arc<Mutex<State>>,
    /// How often it went elsewhere.
    worlds: watch::Sender<u64>,
    silent: watch::Sender<bool>,
}

struct State {
    now: MemoryStore,
    txns: Vec<(Txn, Revision)>,
}

/// How somebody watches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It hears that the store went elsewhere, and may be silenced.
    Ours,
    /// As Traefik does: it goes on where it was, and waits if that is in the future.
    Patient,
}

struct Seat {
    machine: TimeMachine,
    manner: Manner,
}

impl TimeMachine {
    pub(crate) fn new() -> Self {
        let state = State { now: MemoryStore::new(), txns: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)), worlds: watch::Sender::new(0), silent: watch::Sender::new(false) }
    }

    /// As our replicas see it.
    pub(crate) fn store(&self) -> SharedStore {
        Arc::new(Seat { machine: self.clone(), manner: Manner::Ours })
    }

    /// As Traefik sees it.
    pub(crate) fn for_traefik(&self) -> SharedStore {
        Arc::new(Seat { machine: self.clone(), manner: Manner::Patient })
    }

    /// What is there now.
    pub(crate) fn now(&self) -> MemoryStore {
        self.state.lock().expect("not poisoned").now.clone()
    }

    /// Has been restored from a backup of that revision; of revision 1: it was wiped.
    pub(crate) async fn go_back_to(&self, revision: Revision) {
        let txns: Vec<_> = {
            let state = self.state.lock().expect("not poisoned");
            state.txns.iter().filter(|(_, at)| *at <= revision).cloned().collect()
        };
        let now = MemoryStore::new();
        for (txn, at) in &txns {
            assert_eq!(now.commit(txn.clone()).await.expect("as before"), Commit::Done(*at));
        }
        *self.state.lock().expect("not poisoned") = State { now, txns };
        self.worlds.send_modify(|world| *world += 1);
    }

    /// Whether our watches say nothing, although they live.
    pub(crate) fn silence(&self, silent: bool) {
        self.silent.send_replace(silent);
    }
}

#[async_trait]
impl Store for Seat {
    async fn get(&self, key: &str) -> Result<Read, StoreError> {
        self.machine.now().get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.machine.now().list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let now = self.machine.now();
        let before = now.revision();
        let done = now.commit(txn.clone()).await?;
        if let Commit::Done(at) = done
            && at > before
        {
            let mut state = self.machine.state.lock().expect("not poisoned");
            state.txns.push((txn, at));
            state.txns.sort_by_key(|(_, at)| *at);
        }
        Ok(done)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let world = self.machine.worlds.subscribe();
        let inner = match self.machine.now().watch(prefix, after).await {
            Ok(inner) => Some(inner),
            Err(_) if self.manner == Manner::Patient => None,
            Err(error) => return Err(error),
        };
        let (machine, manner, prefix) = (self.machine.clone(), self.manner, prefix.to_owned());
        Ok(Box::new(TimeWatch { machine, manner, world, prefix, after, inner }))
    }

    fn limits(&self) -> TxnLimits {
        self.machine.now().limits()
    }
}

struct TimeWatch {
    machine: TimeMachine,
    manner: Manner,
    world: watch::Receiver<u64>,
    prefix: String,
    after: Revision,
    inner: Option<Box<dyn Watch>>,
}

#[async_trait]
impl Watch for TimeWatch {
    async fn next(&mut self) -> Result<Changes, StoreError> {
        let mut silent = self.machine.silent.subscribe();
        loop {
            if self.manner == Manner::Ours {
                let _ = silent.wait_for(|silent| !silent).await;
            }
            let Some(inner) = &mut self.inner else {
                // It waits for the revision that it knows.
                let now = self.machine.now();
                let mut all = now.watch("", now.revision()).await?;
                if now.revision() >= self.after {
                    self.inner = Some(now.watch(&self.prefix, self.after).await?);
                    continue;
                }
                tokio::select! {
                    _ = all.next() => {}
                    _ = self.world.changed() => {}
                }
                continue;
            };
            tokio::select! {
                changes = inner.next() => {
                    // The old store may end before we hear of the new one.
                    if changes.is_err() && self.manner == Manner::Patient {
                        self.inner = None;
                        continue;
                    }
                    let changes = changes?;
                    if self.manner == Manner::Ours && *silent.borrow() {
                        // Lost: it was silent when this happened.
                        continue;
                    }
                    self.after = changes.revision;
                    return Ok(changes);
                }
                _ = self.world.changed() => {
                    self.inner = None;
                    if self.manner == Manner::Ours {
                        return Err(StoreError::Unavailable("the connection broke".into()));
                    }
                }
            }
        }
    }
}
