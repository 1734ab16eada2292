//! When each route was last used, as configurable-http-proxy knows it, over any number of Traefiks and replicas.
//!
//! Two sources, looked at every ten seconds: Traefik's counters ([`exposition`], [`counters`]), which tell of answers, and
//! the connections from Traefik to the servers ([`kernel`], [`remote`], [`streams`]), which tell of open websockets. One
//! replica looks, the one that has the lease ([`crate::store::lease`]). What it sees is merged by maximum, kept in memory,
//! and written into a few keys of the store ([`checkpoint`], [`keeper`]), which the other replicas follow.
//! `docs/activity.md` says what is seen and when.

pub mod checkpoint;
pub mod counters;
pub mod exposition;
pub mod kernel;
pub mod streams;

mod collector;
mod keeper;
pub mod remote;
mod servers;
pub mod traffic;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::lifecycle::Lifecycle;
use crate::route::{Route, RouteSpec, RouteTable};
use crate::store::SharedStore;
use crate::store::lease::{Lease, Tenure, Times};
use crate::traefik::fleet::Fleet;
use crate::traefik::name;
use crate::traefik::rule::Space;

use collector::Collector;
use keeper::Keeper;
pub use servers::Forwarders;

/// After so many intervals without a whole look, nothing is told any more.
const STALE_INTERVALS: u32 = 3;

/// What the API asks about routes, and tells.
pub trait LastActivity: Send + Sync + 'static {
    /// When each of these routes was last used, in their order, with whole milliseconds. `None`: nobody can say so now, and
    /// then none may be called inactive.
    fn of(&self, routes: &[Arc<Route>]) -> Option<Vec<Timestamp>>;

    /// A client posted this route, which counts as use.
    fn posted(&self, spec: &RouteSpec);
}

/// Nothing is known of any route.
#[derive(Debug, Clone, Copy)]
pub struct Unknown;

impl LastActivity for Unknown {
    fn of(&self, _: &[Arc<Route>]) -> Option<Vec<Timestamp>> {
        None
    }

    fn posted(&self, _: &RouteSpec) {}
}

/// The routes as they are now; `None` until they have been read from the store.
pub type Table = Arc<dyn Fn() -> Option<Arc<RouteTable>> + Send + Sync>;

/// The process of the Traefik on this machine, if we know it.
pub type Process = Arc<dyn Fn() -> Option<u32> + Send + Sync>;

/// How activity is looked for.
#[derive(Clone)]
pub struct Settings {
    /// The prefix of our keys in the store, with its trailing slash; never inside Traefik's tree.
    pub prefix: String,
    /// By path, or by host and path.
    pub space: Space,
    /// How often Traefik is looked at. Looks that cost more than a fiftieth of it are taken less often.
    pub interval: Duration,
    /// How often what is known is written into the store, at most; in any case not more often than Traefik is looked at.
    pub checkpoint_interval: Duration,
    /// How long the lease of the one replica that looks lasts. `None`: there are no others.
    pub lease: Option<Times>,
    /// Whether connections are looked at, where they can be seen. Without them open websockets don't count.
    pub connections: bool,
    /// The port of `pointsman connections` beside each Traefik that is not on this machine, if there is one.
    pub connections_port: Option<u16>,
    /// The token that it wants.
    pub connections_token: Option<SecretString>,
    /// The Traefik on this machine, if we started it: then nobody else's connections can be taken for its own.
    pub process: Option<Process>,
    /// Where Traefik connects for targets that it can't reach itself.
    pub forwarders: Forwarders,
}

impl Settings {
    /// The usual ones for replicas that share a store, with keys below `prefix`, which is written without a trailing slash.
    /// What was seen is written after each look, for the others wait for it.
    #[must_use]
    pub fn new(prefix: &str, space: Space) -> Self {
        Self {
            prefix: format!("{}/activity/", prefix.trim_end_matches('/')),
            space,
            interval: Duration::from_secs(10),
            checkpoint_interval: Duration::ZERO,
            lease: Some(Times::default()),
            connections: true,
            connections_port: None,
            connections_token: None,
            process: None,
            forwarders: Arc::new(|_| None),
        }
    }

    /// The same for one that shares its store with nobody. What is written is read only at the next start.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { lease: None, checkpoint_interval: Duration::from_secs(30), ..self }
    }
}

/// What is known of all routes.
pub struct Activity {
    known: RwLock<Known>,
    clock: SharedClock,
    space: Space,
}

#[derive(Default)]
struct Known {
    /// When each route was last used, by its name in Traefik, in milliseconds since 1970.
    last: HashMap<Box<str>, i64>,
    /// The names of the routes in the table.
    names: HashMap<RouteSpec, Box<str>>,
    /// Until then this may be told.
    fresh_until: Option<Instant>,
    /// When the last whole look was, ours or another replica's.
    looked: Option<Instant>,
    /// Whether it is we who look.
    is_holder: bool,
    /// What users' requests came to; `None` if others look, or before our first whole look.
    traffic: Option<traffic::Traffic>,
}

impl Activity {
    /// How long ago we heard of the last whole look, of whichever replica; `None` if there was none.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.read().looked.map(|looked| looked.elapsed())
    }

    /// Whether it is this replica that looks.
    #[must_use]
    pub fn is_holder(&self) -> bool {
        self.read().is_holder
    }

    /// What users' requests came to, as of the last look; `None` before the first, and if another replica looks.
    #[must_use]
    pub fn traffic(&self) -> Option<traffic::Traffic> {
        self.read().traffic.clone()
    }

    /// Starts to look at every Traefik of the `fleet`. `table` gives the routes.
    pub fn start(
        lifecycle: &Lifecycle,
        clock: SharedClock,
        store: SharedStore,
        fleet: Arc<Fleet>,
        table: Table,
        settings: Settings,
    ) -> Arc<Self> {
        let activity = Arc::new(Self { known: RwLock::default(), clock, space: settings.space });
        let keeper = Arc::new(Keeper::new(store.clone(), &settings, activity.clone()));
        let stopping = lifecycle.stopping();
        lifecycle.spawn("follow activity", keeper.clone().follow(stopping.clone()));
        // What was seen last is written under the lease, and only then is it given back.
        let released = CancellationToken::new();
        let tenure = match settings.lease {
            Some(times) => {
                let (lease, tenure) = Lease::new(store, &format!("{}lease", settings.prefix), times);
                lifecycle.spawn("activity lease", lease.run(released.clone()));
                tenure
            }
            None => Tenure::alone(),
        };
        let collector = Collector::new(activity.clone(), keeper, fleet, table, settings, tenure);
        lifecycle.spawn("activity", async move {
            let _released = released.drop_guard();
            collector.run(stopping).await;
        });
        activity
    }

    /// There was a whole look just now, by whichever replica, and the next one is so far away: what is known may be told
    /// until so many looks have failed.
    fn looked(&self, next_look: Duration) {
        let (now, mut known) = (Instant::now(), self.write());
        known.looked = Some(now);
        known.fresh_until = known.fresh_until.max(now.checked_add(next_look.saturating_mul(STALE_INTERVALS)));
    }

    /// A route was used at these times, by name. Never goes backwards.
    fn merge<'a>(&self, uses: impl IntoIterator<Item = (&'a str, i64)>) {
        let mut known = self.write();
        for (name, at_ms) in uses {
            match known.last.get_mut(name) {
                Some(last) => *last = at_ms.max(*last),
                None => drop(known.last.insert(name.into(), at_ms)),
            }
        }
    }

    /// Forgets what isn't in the table. Gives the names of what is.
    fn keep(&self, table: &RouteTable) -> HashMap<RouteSpec, Box<str>> {
        let old = self.read().names.clone();
        let names: HashMap<RouteSpec, Box<str>> = table
            .iter()
            .map(|route| {
                let name = old.get(&route.spec).cloned().unwrap_or_else(|| self.name(&route.spec));
                (route.spec.clone(), name)
            })
            .collect();
        let there: std::collections::HashSet<&str> = names.values().map(|name| &**name).collect();
        let mut known = self.write();
        known.last.retain(|name, _| there.contains(&**name));
        known.names.clone_from(&names);
        names
    }

    fn name(&self, spec: &RouteSpec) -> Box<str> {
        name::route(self.space.place(spec)).into()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LastActivity for Activity {
    fn of(&self, routes: &[Arc<Route>]) -> Option<Vec<Timestamp>> {
        let known = self.read();
        if known.fresh_until.is_none_or(|until| until < Instant::now()) {
            return None;
        }
        let last = |route: &Arc<Route>| {
            let name = known.names.get(&route.spec).cloned().unwrap_or_else(|| self.name(&route.spec));
            // A route begins with its POST, whatever one of the same prefix did before it was deleted.
            let created_ms = route.created.as_millisecond();
            let last_ms = known.last.get(&*name).map_or(created_ms, |last| created_ms.max(*last));
            Timestamp::from_millisecond(last_ms).unwrap_or(route.created)
        };
        Some(routes.iter().map(last).collect())
    }

    fn posted(&self, spec: &RouteSpec) {
        self.merge([(&*self.name(spec), self.clock.now().as_millisecond())]);
    }
}

impl std::fmt::Debug for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Activity").field("routes", &self.read().last.len()).finish_non_exhaustive()
    }
}
