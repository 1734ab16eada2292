//! `Follower`: list, then watch, and never miss a change.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Changes, Listing, Revision, SharedStore, StoreError, Watch};

/// Pauses after failures: from the first to the second, doubling.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What a follower has to say.
#[derive(Debug, Clone)]
pub enum Update {
    /// Everything below the prefix, as it is at one revision: forget what was before.
    Reset(Listing),
    /// The changes since.
    Changes(Changes),
    /// The store can't be followed now; what was heard so far may be getting old. The next update that is not this one
    /// says that it can again.
    Lost(StoreError),
}

/// Follows everything below a prefix: first a [`Update::Reset`], then every change. A broken watch is resumed where it
/// broke; if the history since is gone, or the store went back in time, there is another `Reset`.
pub struct Follower {
    store: SharedStore,
    prefix: String,
    watch: Option<Box<dyn Watch>>,
    /// Everything up to here has been told; `None` when there has to be a listing.
    told: Option<Revision>,
    /// Nothing is tried before. A point in time and not a duration: a caller that cancels us again and again must not
    /// prolong the pause.
    not_before: Option<Instant>,
    /// Failures and relistings since a watch last said something.
    failures: u32,
    /// The last update was a loss, so the caller waits to hear that we can follow again.
    lost: bool,
}

impl Follower {
    /// A follower that has read nothing yet.
    #[must_use]
    pub fn new(store: SharedStore, prefix: String) -> Self {
        Self { store, prefix, watch: None, told: None, not_before: None, failures: 0, lost: false }
    }

    /// Begins anew with a listing: what was heard can't be believed.
    pub fn relist(&mut self) {
        (self.watch, self.told) = (None, None);
    }

    /// The next update. Never ends; safe to cancel.
    pub async fn next(&mut self) -> Update {
        loop {
            if let Some(not_before) = self.not_before {
                sleep_until(not_before).await;
                self.not_before = None;
            }
            match self.step().await {
                Ok(update) => {
                    self.lost = false;
                    return update;
                }
                Err(StoreError::Compacted(_)) => {
                    (self.watch, self.told) = (None, None);
                    // At once the first time, for a plain compaction is nobody's fault. Something that compacts again
                    // and again must not make us list without a pause.
                    if self.failures > 0 {
                        self.back_off();
                    }
                    self.failures += 1;
                }
                Err(error) => {
                    self.watch = None;
                    self.back_off();
                    self.failures += 1;
                    self.lost = true;
                    return Update::Lost(error);
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Update, StoreError> {
        let Some(told) = self.told else {
            let listing = self.store.list(&self.prefix).await?;
            self.told = Some(listing.revision);
            return Ok(Update::Reset(listing));
        };
        let watch = match &mut self.watch {
            Some(watch) => watch,
            None => self.watch.insert(self.store.watch(&self.prefix, told).await?),
        };
        if self.lost {
            // Where nothing changes the watch may stay silent for long, and we would look lost for as long.
            return Ok(Update::Changes(Changes { revision: told, events: Vec::new() }));
        }
        let changes = watch.next().await?;
        self.failures = 0;
        self.told = Some(changes.revision.max(told));
        Ok(Update::Changes(changes))
    }

    fn back_off(&mut self) {
        let mut jitter = [0];
        // Without randomness the pause is merely the same for every replica.
        let _ = aws_lc_rs::rand::fill(&mut jitter);
        let pause = PAUSES.0.saturating_mul(1 << self.failures.min(8)).min(PAUSES.1);
        self.not_before = Some(Instant::now() + pause.mul_f64(0.5 + f64::from(jitter[0]) / 512.0));
    }
}
