//! A lease: work that one replica at a time does, and what keeps a replica that has lost it from writing.
//!
//! Two keys. `KEY` names the holder and is written only when somebody takes the lease, so its revision stands for the
//! whole *term* of that holder. `KEY/beat` is written again and again by the holder, as a sign of life.
//!
//! - **Taking over.** Whoever has seen the same beat for a whole TTL, by his own monotonic clock, writes both keys, on
//!   condition that neither has changed. So a holder that has beaten meanwhile keeps the lease, however late the others
//!   hear of it, and of several who try one succeeds. No times of two machines are ever compared.
//! - **Fencing.** Every write under the lease carries [`Held::guard`]: `KEY` is still of this term. The store judges that in
//!   the same step in which it writes. A holder that was paused between its last look at a clock and its write, or whose
//!   write was under way for a minute, is refused if anybody has taken over, and writes rightly if nobody has. Beats don't
//!   touch `KEY`, so they and the writes never get in each other's way, and they carry the same guard.
//! - **Lost answers.** A beat or a write of which nobody knows whether it happened needs no care: it may be repeated, and it
//!   can't happen after a takeover. A claim of which nobody knows is found out by the name in `KEY`.
//!
//! Nothing here decides by time alone: the TTL says when it is worth while to try, the store says who has it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::follow::{Follower, Update};
use super::{Commit, Event, Guard, KeyValue, Op, Revision, SharedStore, StoreError, Txn};
use crate::clock::Moment;
use crate::random;

/// How long the store may take to hear that a lease is given back.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// How long a lease lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// A holder that gives no sign of life for this time may lose the lease.
    pub ttl: Duration,
    /// How often the holder gives one. Several must fit in the TTL.
    pub beat: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(10), beat: Duration::from_secs(3) }
    }
}

/// We have the lease, as far as we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    guard: Option<Guard>,
    asked: Moment,
}

impl Held {
    /// What every write under the lease must carry; `None` where nobody else could have it.
    #[must_use]
    pub fn guard(&self) -> Option<Guard> {
        self.guard.clone()
    }

    fn is_same_term(&self, other: &Self) -> bool {
        self.guard == other.guard
    }
}

/// Whether we have the lease, now and later.
#[derive(Debug, Clone)]
pub struct Tenure {
    terms: watch::Receiver<Option<Held>>,
    ttl: Duration,
    unable: Arc<Notify>,
    /// Keeps the channel open where no task does.
    _alone: Option<Arc<watch::Sender<Option<Held>>>>,
}

impl Tenure {
    /// That of somebody who shares the store with nobody: always held, and nothing is written for it.
    #[must_use]
    pub fn alone() -> Self {
        let (sender, terms) = watch::channel(Some(Held { guard: None, asked: Moment::now() }));
        Self { terms, ttl: Duration::MAX, unable: Arc::default(), _alone: Some(Arc::new(sender)) }
    }

    /// Whether we have it now, as far as we know.
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        self.terms.borrow().clone()
    }

    /// Waits until we have it. Safe to cancel.
    pub async fn taken(&mut self) -> Held {
        loop {
            if let Some(held) = self.held() {
                return held;
            }
            self.changed().await;
        }
    }

    /// Waits until this term is over. Safe to cancel.
    pub async fn lost(&mut self, term: &Held) {
        while self.held().is_some_and(|held| held.is_same_term(term)) {
            self.changed().await;
        }
    }

    /// Whether this term goes on, as of less than a TTL ago. Whoever was paused for longer waits here until the store has
    /// answered. A store that is away says nothing against one who asks all the time: he goes on, but can't write.
    pub async fn is_confirmed(&mut self, term: &Held) -> bool {
        loop {
            match self.held().filter(|held| held.is_same_term(term)) {
                None => return false,
                Some(held) if held.asked.elapsed() < self.ttl => return true,
                Some(_) => self.changed().await,
            }
        }
    }

    /// Gives the lease to somebody else, for we can't do the work. If there is nobody we have it again after a TTL.
    pub fn give_up(&self) {
        self.unable.notify_one();
    }

    async fn changed(&mut self) {
        if self.terms.changed().await.is_err() {
            // The lease has ended with us; what is known of it stays as it is.
            std::future::pending::<()>().await;
        }
    }
}

/// Contends for a lease, as a task.
pub struct Lease {
    store: SharedStore,
    key: String,
    contender: Contender,
    terms: watch::Sender<Option<Held>>,
    unable: Arc<Notify>,
}

impl Lease {
    /// A lease by this key, which every replica must spell alike.
    #[must_use]
    pub fn new(store: SharedStore, key: &str, times: Times) -> (Self, Tenure) {
        let (sender, terms) = watch::channel(None);
        let (contender, unable) = (Contender::new(key, times), Arc::new(Notify::new()));
        let lease = Self { store, key: key.to_owned(), contender, terms: sender, unable: unable.clone() };
        (lease, Tenure { terms, ttl: times.ttl, unable, _alone: None })
    }

    /// Contends until `stop`, and gives the lease back then, so that another replica has it at once.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut follower = Follower::new(self.store.clone(), self.key.clone());
        loop {
            let until = match self.contender.step(Moment::now()) {
                Step::Ask(txn) => {
                    let sent = Moment::now();
                    // At the stop the answer is of no interest: a beat that comes late is refused.
                    let Some(answer) = stop.run_until_cancelled(self.ask(txn)).await else { break };
                    self.contender.answered(answer, sent, Moment::now());
                    self.publish();
                    continue;
                }
                Step::Wait(until) => until,
            };
            let wait = async {
                match until {
                    Some(until) => sleep(until.duration_since(Moment::now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = wait => {}
                () = self.unable.notified() => {
                    let given = self.contender.give_up(Moment::now());
                    self.publish();
                    self.give_back(given).await;
                }
                update = follower.next() => {
                    self.contender.see(update, Moment::now());
                    self.publish();
                }
            }
        }
        let given = self.contender.release();
        self.publish();
        self.give_back(given).await;
    }

    /// If that fails the others have it after a TTL.
    async fn give_back(&self, given: Option<Txn>) {
        let Some(txn) = given else { return };
        match timeout(STOP_PATIENCE, self.ask(txn)).await.unwrap_or_else(|_| Err(no_answer(STOP_PATIENCE))) {
            Ok(_) => debug!(key = self.key, "The lease {} was given back", self.key),
            Err(error) => warn!(%error, "The lease {} could not be given back: {error}", self.key),
        }
    }

    async fn ask(&self, txn: Txn) -> Result<Commit, StoreError> {
        let patience = self.contender.times.beat;
        timeout(patience, self.store.commit(txn)).await.unwrap_or_else(|_| Err(no_answer(patience)))
    }

    /// Tells those who wait, and the log.
    fn publish(&self) {
        let held = self.contender.held();
        self.terms.send_if_modified(|before| {
            match (before.is_some(), held.is_some()) {
                (false, true) => info!(key = self.key, "This replica has taken the lease {}", self.key),
                (true, false) => info!(key = self.key, "This replica has no longer the lease {}", self.key),
                _ => {}
            }
            let is_news = *before != held;
            *before = held;
            is_news
        });
    }
}

/// What a contender does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Commit this now, and tell what came of it.
    Ask(Txn),
    /// Nothing before then, or before something is seen.
    Wait(Option<Moment>),
}

/// One who wants a lease: all of the rules, and no input or output.
#[derive(Debug)]
pub struct Contender {
    key: String,
    beat_key: String,
    times: Times,
    seen: Option<Seen>,
    term: Option<Term>,
    /// The name by which we claimed, while it is unknown whether we succeeded.
    claim: Option<(String, Moment)>,
    /// Nothing is asked before.
    not_before: Option<Moment>,
    beats: u64,
}

/// How the two keys were when we last heard of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// The holder's name, and when he began; revision 0 if nobody has the lease.
    revision: Revision,
    holder: Vec<u8>,
    beat: Revision,
    /// Since when it has been so.
    since: Moment,
}

#[derive(Debug, Clone, Copy)]
struct Term {
    revision: Revision,
    /// When that was last asked of the store, which did not deny it, or gave no answer.
    asked: Moment,
}

impl Contender {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(key: &str, times: Times) -> Self {
        let (key, beat_key) = (key.to_owned(), format!("{key}/beat"));
        Self { key, beat_key, times, seen: None, term: None, claim: None, not_before: None, beats: 0 }
    }

    /// The lease, if we have it as far as we know.
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        let term = self.term?;
        Some(Held { guard: Some(self.guard(term)), asked: term.asked })
    }

    /// Takes what a follower of the key's prefix says.
    pub fn see(&mut self, update: Update, now: Moment) {
        match update {
            Update::Reset(listing) => {
                let fresh = Seen { revision: 0, holder: Vec::new(), beat: 0, since: now };
                let before = self.seen.replace(fresh);
                for entry in listing.entries {
                    self.see_event(Event::Put(entry), now);
                }
                // It may be just what it was before, and then the time goes on.
                if let (Some(seen), Some(before)) = (&mut self.seen, before)
                    && (seen.revision, seen.beat) == (before.revision, before.beat)
                {
                    seen.since = before.since;
                }
            }
            Update::Changes(changes) => {
                for event in changes.events {
                    self.see_event(event, now);
                }
            }
            Update::Lost(error) => return debug!(%error, "The lease {} can't be followed: {error}", self.key),
        }
        let Some(seen) = &self.seen else { return };
        if self.term.is_some_and(|term| term.revision != seen.revision) {
            self.term = None;
        }
        if let Some((_, sent)) = self.claim.take_if(|(name, _)| name.as_bytes() == seen.holder) {
            self.term = Some(Term { revision: seen.revision, asked: sent });
        }
    }

    fn see_event(&mut self, event: Event, now: Moment) {
        let Some(seen) = &mut self.seen else { return };
        let key = event.key();
        if key != self.key && key != self.beat_key {
            return;
        }
        let is_beat = key == self.beat_key;
        let (revision, value) = match event {
            Event::Put(KeyValue { value, mod_revision, .. }) => (mod_revision, value),
            Event::Delete { .. } => (0, Vec::new()),
        };
        if is_beat {
            seen.beat = revision;
        } else {
            (seen.revision, seen.holder) = (revision, value);
        }
        seen.since = now;
    }

    /// What is to be done now. After [`Step::Ask`] it must be told what came of it.
    pub fn step(&mut self, now: Moment) -> Step {
        let due = match (self.term, &self.seen) {
            (Some(_), _) => self.not_before.unwrap_or(now),
            (None, None) => return Step::Wait(None),
            (None, Some(seen)) => {
                let free = if seen.revision == 0 { seen.since } else { seen.since + self.times.ttl };
                self.not_before.map_or(free, |not_before| free.max(not_before))
            }
        };
        if now < due {
            return Step::Wait(Some(due));
        }
        match (self.term, &self.seen) {
            (Some(term), _) => {
                self.beats += 1;
                let ops = vec![Op::Put { key: self.beat_key.clone(), value: self.beats.to_string().into_bytes() }];
                Step::Ask(Txn { guards: vec![self.guard(term)], ops })
            }
            (None, Some(seen)) => {
                let guards = vec![Guard::at(&self.key, seen.revision), Guard::at(&self.beat_key, seen.beat)];
                // The same name as long as it is unknown what became of it; never one of an earlier term. And none that anybody
                // had before: two who have one name would both take the lease for theirs.
                let name = self.claim.take().map_or_else(random::digits::<8>, |(name, _)| name);
                let ops = vec![
                    Op::Put { key: self.key.clone(), value: name.clone().into_bytes() },
                    Op::Put { key: self.beat_key.clone(), value: b"0".to_vec() },
                ];
                self.claim = Some((name, now));
                Step::Ask(Txn { guards, ops })
            }
            (None, None) => Step::Wait(None),
        }
    }

    /// What came of the transaction of the last [`Step::Ask`], which was sent at `sent`.
    pub fn answered(&mut self, answer: Result<Commit, StoreError>, sent: Moment, now: Moment) {
        self.not_before = Some(now + self.times.beat);
        match (&mut self.term, answer) {
            (Some(term), Ok(Commit::Done(_))) => {
                term.asked = sent;
                self.not_before = Some(sent + self.times.beat);
            }
            (Some(_), Ok(Commit::Conflict(_))) => self.term = None,
            (Some(term), Err(error)) => {
                debug!(%error, "The lease {} could not be kept: {error}; trying again", self.key);
                // It may be that the store is away for everybody, and then nobody else can have the lease. But not if we
                // were paused since we asked last: then it is unknown until the store answers.
                if now.duration_since(term.asked) < self.times.ttl {
                    term.asked = sent;
                }
                self.not_before = Some(now + self.times.beat / 3);
            }
            (None, Ok(Commit::Done(revision))) => {
                // What we shall hear next of the keys is this.
                let holder = self.claim.take().map(|(name, _)| name.into_bytes()).unwrap_or_default();
                self.seen = Some(Seen { revision, holder, beat: revision, since: now });
                self.term = Some(Term { revision, asked: sent });
            }
            (None, Ok(Commit::Conflict(_))) => {
                // An earlier attempt may have succeeded: then the key has our name, and we shall see it.
                debug!("Another replica was faster to take the lease {}", self.key);
            }
            (None, Err(error)) => debug!(%error, "The lease {} can't be taken: {error}; trying again", self.key),
        }
    }

    /// The end: what gives the lease back, if we have it.
    pub fn release(&mut self) -> Option<Txn> {
        let term = self.term.take()?;
        let ops = [&self.key, &self.beat_key].map(|key| Op::Delete { key: key.clone() }).into();
        Some(Txn { guards: vec![self.guard(term)], ops })
    }

    /// The same, but we go on: for a TTL the lease is left to others.
    pub fn give_up(&mut self, now: Moment) -> Option<Txn> {
        let given = self.release()?;
        self.not_before = Some(now + self.times.ttl);
        Some(given)
    }

    fn guard(&self, term: Term) -> Guard {
        Guard::at(&self.key, term.revision)
    }
}

fn no_answer(patience: Duration) -> StoreError {
    StoreError::Unavailable(format!("no answer within {patience:?}"))
}
