//! The task that looks: at every Traefik's counters and connections, again and again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use url::{Host, Url};

use super::counters::{Before, Counted, Counters};
use super::exposition::{self, Sample};
use super::keeper::{Keeper, Latest};
use super::remote::Remote;
use super::servers::{ByServer, Servers};
use super::streams::{Connection, Streams};
use super::traffic::Totals;
use super::{Activity, STALE_INTERVALS, Settings, Table, kernel};
use crate::route::RouteTable;
use crate::store::lease::{Held, Tenure};
use crate::traefik::client::TraefikClient;
use crate::traefik::fleet::{Fleet, Status};

/// A look takes at most this part of the time.
const COST_SHARE: u32 = 50;

/// So many different ports are asked for one by one; of more, all connections are read.
const PORTS_MAX: usize = 3;

/// Looks at Traefik for as long as the process lives and has the lease.
pub(super) struct Collector {
    activity: Arc<Activity>,
    keeper: Arc<Keeper>,
    fleet: Arc<Fleet>,
    table: Table,
    settings: Settings,
    tenure: Tenure,
    /// Whether the checkpoint was read since we have the lease.
    begun: bool,
    /// How long the last look took.
    took: Duration,
    servers: Servers,
    counters: Counters,
    totals: Totals,
    known_clients: HashMap<String, TraefikClient>,
    remotes: HashMap<String, Remote>,
    streams: HashMap<Place, Streams>,
    complaints: BTreeMap<String, String>,
    told: BTreeSet<Place>,
    /// When the last whole look since we have the lease was, in milliseconds since 1970.
    looked_ms: Option<i64>,
}

/// Whose connections are seen together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    /// All Traefiks of this machine.
    Here,
    /// One Traefik elsewhere, by the address of its API.
    There(String),
    /// The connections of this Traefik can't be seen.
    Unseen(String),
}

/// What one look at one Traefik gave.
struct Look {
    url: String,
    counters: Result<Sample, String>,
}

impl Collector {
    pub(super) fn new(
        activity: Arc<Activity>,
        keeper: Arc<Keeper>,
        fleet: Arc<Fleet>,
        table: Table,
        settings: Settings,
        tenure: Tenure,
    ) -> Self {
        let servers = Servers::new(settings.forwarders.clone());
        Self {
            activity,
            keeper,
            fleet,
            table,
            settings,
            tenure,
            begun: false,
            took: Duration::ZERO,
            servers,
            counters: Counters::default(),
            totals: Totals::default(),
            known_clients: HashMap::new(),
            remotes: HashMap::new(),
            streams: HashMap::new(),
            complaints: BTreeMap::new(),
            told: BTreeSet::new(),
            looked_ms: None,
        }
    }

    pub(super) async fn run(mut self, stopping: CancellationToken) {
        while let Some(term) = stopping.run_until_cancelled(self.turn()).await {
            self.begin();
            let mut tenure = self.tenure.clone();
            tokio::select! {
                () = stopping.cancelled() => break,
                () = tenure.lost(&term) => self.end(),
                () = self.look_again_and_again(&term) => {}
            }
        }
        match (self.tenure.held(), self.latest(None), (self.table)()) {
            (Some(held), Some(latest), _) => self.keeper.write_last(&held, &latest).await,
            (_, _, Some(table)) if self.settings.lease.is_some() => {
                self.keeper.note_last(&table, &self.activity.keep(&table)).await;
            }
            _ => {}
        }
    }

    /// Waits until it is our turn to look. Until then we follow the one who does.
    async fn turn(&mut self) -> Held {
        let mut pause = soon(self.settings.interval);
        loop {
            if let Ok(held) = timeout(pause, self.tenure.taken()).await {
                return held;
            }
            if let Some(table) = (self.table)() {
                let names = self.activity.keep(&table);
                self.keeper.remember();
                self.keeper.note(&table, &names).await;
            }
            pause = self.settings.interval;
        }
    }

    /// We have the lease. What we saw when we had it before is nothing to go by: others have looked since.
    fn begin(&mut self) {
        (self.begun, self.looked_ms) = (false, None);
        self.counters = Counters::default();
        self.streams.clear();
        self.activity.write().is_holder = true;
    }

    fn end(&self) {
        let mut known = self.activity.write();
        (known.is_holder, known.traffic) = (false, None);
    }

    async fn look_again_and_again(&mut self, term: &Held) {
        let mut whole = Instant::now();
        loop {
            let begun = Instant::now();
            self.look(term, begun).await;
            let pause = self.pause(begun);
            self.took = begun.elapsed();
            if self.complaints.is_empty() {
                whole = Instant::now();
                self.activity.looked(pause);
            } else if whole.elapsed() > pause * STALE_INTERVALS {
                // Another replica may see what we can't.
                self.tenure.give_up();
                whole = Instant::now();
            }
            let wait = if self.looked_ms.is_none() { soon(pause) } else { pause };
            debug!(ms = self.took.as_millis(), "Looked for users' activity; next look in {} s", wait.as_secs());
            sleep(wait).await;
        }
    }

    /// The time between a look that began then and the next one.
    fn pause(&self, begun: Instant) -> Duration {
        pause(self.settings.interval, [self.took, begun.elapsed()])
    }

    /// One look at everything. What is missing stands in `complaints`.
    async fn look(&mut self, term: &Held, begun: Instant) {
        let mut complaints = BTreeMap::new();
        let live = self.live();
        if live.is_empty() {
            complaints.insert(String::new(), "no Traefik is up".to_owned());
        }
        let is_read = self.keeper.is_loaded() && self.is_begun(term).await;
        match (self.table)().filter(|_| is_read) {
            Some(table) => self.look_with(&table, &live, term, begun, &mut complaints).await,
            None => drop(complaints.insert(String::new(), "the store has not been read".to_owned())),
        }
        self.tell(complaints);
    }

    /// Whether we know what those before us have written.
    async fn is_begun(&mut self, term: &Held) -> bool {
        // Where nobody else writes, we know.
        if !self.begun && term.guard().is_some() {
            self.begun = self.keeper.load().await.is_ok();
            return self.begun;
        }
        true
    }

    async fn look_with(
        &mut self,
        table: &RouteTable,
        live: &[String],
        term: &Held,
        begun: Instant,
        complaints: &mut BTreeMap<String, String>,
    ) {
        let names = self.activity.keep(table);
        let servers = self.servers.of(table, &names).await;
        let places = self.places(live);
        let connections = self.connections(&places, &servers).await;
        let looks = self.scrape(live).await;
        let now_ms = self.activity.clock.now().as_millisecond();
        // If we were paused somebody else has the lease, and what is news to us happened long ago. A pause that comes only
        // now does no harm: the time of this look is known.
        if !self.tenure.is_confirmed(term).await {
            complaints.insert(String::new(), "another replica looks".to_owned());
            return;
        }
        let counted = self.count(looks, complaints);
        let listed: HashSet<&str> = names.values().map(|name| &**name).collect();
        for counted in counted.values() {
            let used = counted.iter().filter(|(name, answers)| answers.good > 0 && listed.contains(&***name));
            self.activity.merge(used.map(|(name, _)| (&**name, now_ms)));
        }
        let all = self.fleet.watch().borrow().clone();
        self.counters.keep(|url| all.contains_key(url));
        self.totals.keep(|url| all.contains_key(url));
        self.streams.retain(|place, _| places.contains_key(place));
        for (place, urls) in &places {
            let (connections, looked_at) = match connections.get(place) {
                Some(Ok((connections, looked_at))) => (connections, *looked_at),
                Some(Err(reason)) => {
                    complaints.insert(urls.join(", "), format!("its connections can't be seen: {reason}"));
                    continue;
                }
                None => continue,
            };
            let answers = answers(urls, &counted, &servers);
            let streams = self.streams.entry(place.clone()).or_default();
            for (server, at) in streams.look(connections, looked_at, answers.as_ref()) {
                let names = servers.get(&server).into_iter().flatten();
                self.activity.merge(names.map(|name| (&**name, at.as_millisecond())));
            }
        }
        let is_whole = complaints.is_empty();
        if is_whole {
            self.looked_ms = Some(now_ms);
            self.activity.write().traffic = Some(self.totals.all());
        }
        let next_look = is_whole.then(|| self.pause(begun));
        if self.looked_ms.is_some()
            && self.keeper.is_due()
            && let Some(latest) = self.latest(next_look)
        {
            self.keeper.write(term, &latest).await;
        }
    }

    /// What was counted since the last look, or, by whoever looked before us, since the checkpoint.
    fn count(&mut self, looks: Vec<Look>, complaints: &mut BTreeMap<String, String>) -> HashMap<String, Counted> {
        let mut counted = HashMap::new();
        for Look { url, counters } in looks {
            match counters {
                Ok(sample) => {
                    self.totals.look(&url, sample.started_ms, sample.traffic.clone());
                    let life = (url.clone(), sample.started_ms);
                    let (looked_ms, kept) =
                        if self.counters.knows(&url) { (i64::MAX, None) } else { self.keeper.before(&life) };
                    let before = Before { looked_ms, kept: kept.as_ref() };
                    counted.insert(url.clone(), self.counters.look(&url, sample, before));
                }
                Err(reason) => drop(complaints.insert(url, reason)),
            }
        }
        counted
    }

    /// The Traefiks that may serve users, by the addresses of their APIs.
    fn live(&self) -> Vec<String> {
        let seen = self.fleet.watch();
        let is_live = |status: &Status| !matches!(status, Status::Unknown | Status::Down);
        seen.borrow().iter().filter(|(_, seen)| is_live(&seen.status)).map(|(url, _)| url.clone()).collect()
    }

    /// Where the connections of each Traefik are seen.
    fn places(&mut self, live: &[String]) -> BTreeMap<Place, Vec<String>> {
        let mut places: BTreeMap<Place, Vec<String>> = BTreeMap::new();
        for url in live {
            let place = if !self.settings.connections {
                Place::Unseen(url.clone())
            } else if is_here(url) {
                Place::Here
            } else if self.settings.connections_port.is_some() {
                Place::There(url.clone())
            } else {
                Place::Unseen(url.clone())
            };
            if self.told.insert(place.clone()) {
                tell_place(&place);
            }
            places.entry(place).or_default().push(url.clone());
        }
        self.told.retain(|place| places.contains_key(place));
        places
    }

    /// The connections to our servers, as far as they can be seen, and when they were so: what is said of them counts from
    /// that moment, however long this task then waits for its turn.
    async fn connections(
        &mut self,
        places: &BTreeMap<Place, Vec<String>>,
        servers: &ByServer,
    ) -> HashMap<Place, Result<(Vec<Connection>, Timestamp), String>> {
        let ports: BTreeSet<u16> = servers.keys().map(SocketAddr::port).collect();
        let ports: Vec<u16> = if ports.len() > PORTS_MAX { Vec::new() } else { ports.into_iter().collect() };
        let mut looks = JoinSet::new();
        for place in places.keys() {
            match place {
                Place::Here => {
                    let (ports, process) = (ports.clone(), self.settings.process.clone());
                    let clock = self.activity.clock.clone();
                    looks.spawn(async move {
                        let read = move || {
                            let read = kernel::connections(&ports, process.and_then(|process| process()));
                            read.map(|connections| (connections, clock.now()))
                        };
                        let read = spawn_blocking(read).await.map_err(|e| e.to_string());
                        (Place::Here, read.and_then(|read| read.map_err(|e| e.to_string())))
                    });
                }
                Place::There(url) => {
                    let remote = match self.remotes.get(url) {
                        Some(remote) => Ok(remote.clone()),
                        None => Remote::new(url, &self.settings),
                    };
                    if let Ok(remote) = &remote {
                        self.remotes.insert(url.clone(), remote.clone());
                    }
                    let (place, ports, clock) = (place.clone(), ports.clone(), self.activity.clock.clone());
                    looks.spawn(async move {
                        match remote {
                            Ok(remote) => {
                                let read = remote.connections(&ports).await;
                                (place, read.map(|connections| (connections, clock.now())))
                            }
                            Err(reason) => (place, Err(reason)),
                        }
                    });
                }
                Place::Unseen(_) => {}
            }
        }
        self.remotes.retain(|url, _| places.contains_key(&Place::There(url.clone())));
        let mut found = HashMap::new();
        while let Some(look) = looks.join_next().await {
            if let Ok((place, mut read)) = look {
                if let Ok((connections, _)) = &mut read {
                    connections.retain(|connection| servers.contains_key(&connection.server));
                }
                found.insert(place, read);
            }
        }
        found
    }

    /// Reads the counters of all these Traefiks, at once.
    async fn scrape(&mut self, live: &[String]) -> Vec<Look> {
        self.known_clients.retain(|url, _| live.contains(url));
        let mut looks = JoinSet::new();
        let mut done = Vec::new();
        for url in live {
            let client = match self.known_clients.get(url) {
                Some(client) => client.clone(),
                None => match self.fleet.client(url).await {
                    Ok(client) => self.known_clients.entry(url.clone()).or_insert(client).clone(),
                    Err(error) => {
                        done.push(Look { url: url.clone(), counters: Err(error.to_string()) });
                        continue;
                    }
                },
            };
            let url = url.clone();
            looks.spawn(async move { Look { url, counters: counters(&client).await } });
        }
        done.extend(looks.join_all().await);
        done
    }

    /// What is to be kept; `None` before the first whole look since we have the lease.
    fn latest(&self, next_look: Option<Duration>) -> Option<Latest> {
        let looked_ms = self.looked_ms?;
        let known = self.activity.read();
        let mut lives = BTreeMap::new();
        for (url, started_ms, good) in self.counters.lives() {
            lives.insert((url.to_owned(), started_ms), good);
        }
        Some(Latest { looked_ms, next_look, routes: known.last.clone(), lives })
    }

    /// Logs what changed.
    fn tell(&mut self, complaints: BTreeMap<String, String>) {
        for (traefik, reason) in &complaints {
            if self.complaints.get(traefik) != Some(reason) && !traefik.is_empty() {
                warn!(%traefik, reason, "When routes were last used can't be seen at {traefik}: {reason}");
            }
        }
        if complaints.is_empty() && !self.complaints.is_empty() {
            info!("When routes were last used can be seen");
        }
        self.complaints = complaints;
    }
}

/// The time until the next look, by what the last two took. A single slow one, which may have waited for the disk of the
/// store, doesn't count: a server in use must not look idle for that.
fn pause(interval: Duration, took: [Duration; 2]) -> Duration {
    interval.max(took[0].min(took[1]) * COST_SHARE)
}

/// The first whole look should not wait for an interval.
fn soon(pause: Duration) -> Duration {
    pause.min(Duration::from_secs(1))
}

/// Says once where the connections of a Traefik are seen.
fn tell_place(place: &Place) {
    match place {
        Place::Unseen(url) => warn!(
            traefik = %url,
            "Open websockets of the Traefik at {url} can't be seen, so a server with nothing but an open notebook looks \
             idle; run `pointsman connections` beside it"
        ),
        Place::There(url) => info!(traefik = %url, "Open websockets of {url} are seen through its neighbour"),
        Place::Here => info!("Open websockets of the Traefik on this machine are seen"),
    }
}

/// Reads the counters of one Traefik.
async fn counters(client: &TraefikClient) -> Result<Sample, String> {
    let metrics = client.metrics().await.map_err(|e| e.to_string())?;
    // A page of many routes takes a while to unpack.
    let read = spawn_blocking(move || exposition::read(&mut metrics.reader())).await;
    read.map_err(|e| e.to_string())?.map_err(|e| format!("its metrics can't be unpacked: {e}"))
}

/// What was counted of each server, if all of these Traefiks could be asked.
fn answers(
    urls: &[String],
    counted: &HashMap<String, Counted>,
    servers: &ByServer,
) -> Option<HashMap<SocketAddr, u64>> {
    let counted: Vec<&Counted> = urls.iter().map(|url| counted.get(url)).collect::<Option<_>>()?;
    let of = |name: &str| counted.iter().filter_map(|counted| counted.get(name)).map(|answers| answers.all()).sum();
    let sum = |names: &Vec<Box<str>>| names.iter().map(|name| of(name)).fold(0, u64::saturating_add);
    Some(servers.iter().map(|(server, names)| (*server, sum(names))).filter(|(_, answers)| *answers > 0).collect())
}

/// Whether a Traefik's API is on this machine, by its address, and so are its connections.
fn is_here(url: &str) -> bool {
    match Url::parse(url).ok().as_ref().and_then(Url::host) {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(host)) => host == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_look_puts_off_nothing_and_two_do() {
        let (interval, ms) = (Duration::from_secs(10), Duration::from_millis);
        for (took, seconds) in [([10, 10], 10), ([10, 900], 10), ([900, 10], 10), ([900, 1200], 45)] {
            assert_eq!(pause(interval, took.map(ms)), Duration::from_secs(seconds), "{took:?}");
        }
    }
}
