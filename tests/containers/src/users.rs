//! Who gets users, and who gets the hub's calls: what a balancer knows of each Traefik, and a Service of each Pointsman.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::http;
use crate::part::Place;

const FAILURES_TO_LEAVE: u32 = 2;

/// One server behind a balancer: it is in after one good probe, and out after two that failed.
pub(crate) struct Door {
    /// What it is called.
    pub(crate) name: String,
    place: Place,
    probe: (u16, &'static str),
    period: Duration,
    address: Mutex<Option<Ipv4Addr>>,
    is_in: AtomicBool,
    is_victim: AtomicBool,
}

impl Door {
    /// A server that is known to be well now.
    pub(crate) fn open(name: &str, place: Place, probe: (u16, &'static str), period: Duration) -> Arc<Self> {
        let name = name.to_owned();
        let (is_in, is_victim) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { name, place, probe, period, address: Mutex::new(None), is_in, is_victim })
    }

    /// Where it gets connections, while it gets any.
    pub(crate) fn way_in(&self) -> Option<Ipv4Addr> {
        if self.is_in.load(Ordering::SeqCst) { *self.address.lock().expect("nobody panics with it") } else { None }
    }

    /// Whether the test does it harm now, so that nobody counts on it.
    pub(crate) fn is_victim(&self) -> bool {
        self.is_victim.load(Ordering::SeqCst)
    }

    /// Nobody counts on it from now on. Its balancer has to find out by itself.
    pub(crate) fn harm(&self) {
        self.is_victim.store(true, Ordering::SeqCst);
    }

    /// It is let in again only once it was well, and from then on it is counted on.
    pub(crate) fn heal(&self) {
        self.is_in.store(false, Ordering::SeqCst);
        self.is_victim.store(false, Ordering::SeqCst);
    }

    /// Probes it for ever.
    pub(crate) async fn watch(self: Arc<Self>) {
        let (port, path) = self.probe;
        let mut failures = 0;
        loop {
            let address = self.place.address().await;
            let is_well = match address {
                Some(address) => http::get(address, port, path, self.period).await.is_ok_and(|seen| seen.status == 200),
                None => false,
            };
            failures = if is_well { 0 } else { failures + 1 };
            if is_well {
                *self.address.lock().expect("nobody panics with it") = address;
                self.is_in.store(true, Ordering::SeqCst);
            } else if failures >= FAILURES_TO_LEAVE {
                self.is_in.store(false, Ordering::SeqCst);
            }
            tokio::time::sleep(self.period).await;
        }
    }
}
