//! The open connections of a listener, and which of them gives way when there are too many.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::api::caller::Client;
use crate::telemetry::throttle::{self, Peer};

/// The connections of one listener, the oldest first.
#[derive(Debug)]
pub(super) struct Clients {
    listener: &'static str,
    max: usize,
    open: Mutex<Open>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    clients: BTreeMap<u64, Arc<Client>>,
}

impl Open {
    /// The oldest connection without an authenticated call. An attacker who opens connections faster than a hub can send
    /// its call has the older ones.
    fn oldest(&self) -> Option<u64> {
        self.clients.iter().find(|(_, client)| !client.is_authenticated()).map(|(n, _)| *n)
    }
}

impl Clients {
    /// None yet, and never more than `max`.
    pub(super) fn new(listener: &'static str, max: usize) -> Self {
        Self { listener, max, open: Mutex::default(), freed: Notify::new() }
    }

    /// Waits until another connection may be admitted: there is room, or one that can give way.
    pub(super) async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            {
                let open = self.lock();
                if open.clients.len() < self.max || open.oldest().is_some() {
                    return;
                }
            }
            if throttle::is_first("full listeners", Peer::Unknown, self.listener) {
                let (listener, max) = (self.listener, self.max);
                warn!(
                    listener,
                    "The limit of {max} connections is reached ({listener}), all of them with valid tokens; new ones wait \
                     until others end"
                );
            }
            freed.await;
        }
    }

    /// Takes in a connection that was accepted. At the limit the oldest one without an authenticated call is closed.
    pub(super) fn admit(self: &Arc<Self>, peer: Peer) -> Place {
        let client = Arc::new(Client::new(peer));
        let mut open = self.lock();
        let evicted = if open.clients.len() < self.max { None } else { open.oldest() };
        let evicted = evicted.and_then(|n| open.clients.remove(&n));
        let n = open.next;
        open.next += 1;
        open.clients.insert(n, client.clone());
        drop(open);
        if let Some(evicted) = evicted {
            evicted.evicted().cancel();
            self.tell(evicted.peer());
        }
        Place { clients: self.clone(), n, client }
    }

    fn tell(&self, peer: Peer) {
        let (listener, max) = (self.listener, self.max);
        if throttle::is_first("connections closed at the limit", peer, listener) {
            warn!(
                listener, %peer,
                "The limit of {max} connections is reached ({listener}); closing the oldest one without a valid token, from \
                 {peer}"
            );
        } else {
            debug!(listener, %peer, "The connection of {peer} gives way to a new one");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    clients: Arc<Clients>,
    n: u64,
    client: Arc<Client>,
}

impl Place {
    /// Who has it.
    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.lock().clients.remove(&self.n);
        self.clients.freed.notify_waiters();
    }
}
