//! `Follower`: list, then watch, and never miss a change.

use std::time::Duration;

use tokio::time::sleep;

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
    /// The store can't be followed now; what was heard so far may be getting old. The next update says that it can again.
    Lost(StoreError),
}

/// Follows everything below a prefix: first a [`Update::Reset`], then every change. A broken watch is resumed where it
/// broke; if the history since is gone, there is another `Reset`.
pub struct Follower {
    store: SharedStore,
    prefix: String,
    watch: Option<Box<dyn Watch>>,
    /// Everything up to here has been told; `None` before the first listing.
    told: Option<Revision>,
    pause: Option<Duration>,
    failures: u32,
}

impl Follower {
    /// A follower that has read nothing yet.
    #[must_use]
    pub fn new(store: SharedStore, prefix: String) -> Self {
        Self { store, prefix, watch: None, told: None, pause: None, failures: 0 }
    }

    /// The next update. Never ends; safe to cancel.
    pub async fn next(&mut self) -> Update {
        if let Some(pause) = self.pause {
            sleep(pause).await;
            self.pause = None;
        }
        match self.step().await {
            Ok(update) => {
                self.failures = 0;
                update
            }
            Err(StoreError::Compacted(revision)) => {
                // What happened since can't be told any more: list again, at once.
                (self.watch, self.told) = (None, None);
                if self.failures > 0 {
                    self.back_off();
                }
                self.failures += 1;
                Update::Lost(StoreError::Compacted(revision))
            }
            Err(error) => {
                self.watch = None;
                self.back_off();
                self.failures += 1;
                Update::Lost(error)
            }
        }
    }

    async fn step(&mut self) -> Result<Update, StoreError> {
        let Some(told) = self.told else {
            let listing = self.store.list(&self.prefix).await?;
            self.told = Some(listing.revision);
            return Ok(Update::Reset(listing));
        };
        if self.watch.is_none() {
            self.watch = Some(self.store.watch(&self.prefix, told).await?);
        }
        let watch = self.watch.as_mut().expect("just set");
        let changes = watch.next().await?;
        self.told = Some(changes.revision);
        Ok(Update::Changes(changes))
    }

    fn back_off(&mut self) {
        let mut jitter = [0];
        let _ = aws_lc_rs::rand::fill(&mut jitter);
        let pause = PAUSES.0.saturating_mul(1 << self.failures.min(8)).min(PAUSES.1);
        self.pause = Some(pause.mul_f64(0.75 + f64::from(jitter[0]) / 512.0));
    }
}
