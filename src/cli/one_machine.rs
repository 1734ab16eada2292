//! Everything on this machine: the store in a folder, and a Traefik of our own that gets its routes from us.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error, info, warn};
use url::Url;

use super::copies::Copies;
use super::wiring;
use crate::activity::Process;
use crate::api::listen::{Limits, Listener};
use crate::api::pages;
use crate::child::gate::Door;
use crate::child::{Child, ChildSettings, State, binary, leftover};
use crate::clock::Moment;
use crate::config::{Config, Listen, Redirect};
use crate::control::{ControlPlane, Routes as _};
use crate::files;
use crate::forward::{self, Counts, Forwards, Runner, SocketForward};
use crate::lifecycle::{Lifecycle, Readiness};
use crate::random;
use crate::store::embedded::{EmbeddedSettings, EmbeddedStore};
use crate::telemetry::LogLevel;
use crate::traefik::dynamic_file::Own;
use crate::traefik::fixed;
use crate::traefik::fleet::{Fleet, Source, Status};
use crate::traefik::folder::{self, SECRET_MODE};
use crate::traefik::static_config::{self, KEYED_ENTRY_POINT, Private, REDIRECT_ENTRY_POINT, StaticConfig};
use crate::traefik::version::TraefikVersion;

/// How long Traefik finishes open requests: the hub gives the proxy 1 s in all.
const GRACE: Duration = Duration::from_millis(200);

/// How long a port that is taken is tried.
const PREDECESSOR_WAIT: Duration = Duration::from_millis(500);

/// How often we look which Unix sockets are still led to.
const RETIRE_INTERVAL: Duration = Duration::from_secs(60);

/// How long users are kept out of a Traefik that was started again and doesn't serve our routes.
const KEPT_OUT_MAX: Duration = Duration::from_secs(5);

/// The longest text that is a port, with the end of its line.
const PORT_BYTES_MAX: u64 = 6;

/// The latch that is held while our Traefik does not run.
const LATCH: &str = "traefik process";

/// What is there before the first route: sockets that listen, and files for Traefik.
pub(super) struct OneMachine {
    /// The store of the folder.
    pub(super) store: EmbeddedStore,
    /// What shapes Traefik's tree.
    pub(super) tree: fixed::Settings,
    /// The listener of our pages.
    pub(super) pages: Listener,
    /// What opens Traefik's private entry point.
    pub(super) key: SecretString,
    /// Where Traefik's API is.
    pub(super) source: Source,
    child: Arc<Child>,
    copies: Arc<Copies>,
    ways: Ways,
}

/// The ways between Unix sockets and Traefik, which speaks TCP only.
struct Ways {
    /// From the socket that users come in by.
    public: Option<SocketForward>,
    /// To servers.
    servers: (Forwards, Runner),
}

/// Binds, writes, starts Traefik, and opens the store meanwhile. The error is a sentence for the administrator.
pub(super) async fn prepare(config: &Config, data: &Path, traefik: Option<&Path>) -> Result<OneMachine, String> {
    let binary = binary::find(traefik).map_err(|error| error.to_string())?;
    if let Some(warning) = binary::outlives_us(&binary) {
        warn!("{warning}");
    }
    let store = after_leftover(config, data).await?;
    let sockets = Sockets::bind(config).await?;
    let (public, servers) = (public_socket(config, &sockets).await?, Forwards::new(forwarding(config).for_servers()));
    let pages = bind_pages(&Files::of(data).pages_port).await?;
    let pages_url = url_of(pages.addresses().first())?;
    let api_url = url_of(sockets.private.local_addr().ok().as_ref())?;
    // 256 random bits.
    let key = random::digits::<32>();
    let entry_points = sockets.names();
    let own = Own { key: key.clone(), entry_points: entry_points.clone(), pages_url: pages_url.clone() };

    // The folder is ours before anything is written into it: another Pointsman's Traefik may live there.
    let root = folder::create(data).map_err(|error| error.to_string())?;
    let store = match store {
        Some(store) => store,
        None => open(config, &root).await?,
    };
    keep_pages_port(&pages, &Files::of(&root).pages_port);
    let traefik = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || start(&config, &root, binary, sockets, own))
    };
    let (child, copies) = traefik.await.map_err(|error| error.to_string())??;

    let mut tree = wiring::tree_settings(config);
    tree.entry_points = entry_points;
    tree.pages_url = Some(pages_url);
    tree.servers.unix_sockets = Some(Arc::new(wiring::Forwarded(servers.0.clone())));
    let (key, source) = (SecretString::from(key), Source::Url(api_url));
    Ok(OneMachine { store, tree, pages, key, source, child: Arc::new(child), copies, ways: Ways { public, servers } })
}

fn forwarding(config: &Config) -> forward::Limits {
    forward::Limits::of(config.public.socket_connections_max)
}

async fn open(config: &Config, folder: &Path) -> Result<EmbeddedStore, String> {
    wiring::is_ours_alone(config, "data-dir", folder)?;
    EmbeddedStore::open(EmbeddedSettings::new(folder)).await.map_err(|error| error.to_string())
}

/// If a Traefik of this folder has outlived its Pointsman, it has our ports: takes the folder, and ends it.
async fn after_leftover(config: &Config, data: &Path) -> Result<Option<EmbeddedStore>, String> {
    let Ok(root) = data.canonicalize() else { return Ok(None) };
    let files = Files::of(&root);
    if leftover::find(&files.record, &files.config).is_none() {
        return Ok(None);
    }
    // The process that has the folder ends its Traefik before it releases the folder: then there is nothing left to end.
    let store = open(config, &root).await?;
    if let Some(leftover) = leftover::find(&files.record, &files.config) {
        tokio::task::spawn_blocking(|| leftover.end()).await.map_err(|error| error.to_string())??;
    }
    Ok(Some(store))
}

/// Listens for what Traefik asks of our pages, on the port of the last start if that is free. Traefik's tree names the port:
/// if it stays, a start writes nothing, and on a full disk users still reach their servers.
async fn bind_pages(port: &Path) -> Result<Listener, String> {
    let last =
        files::read(port, PORT_BYTES_MAX).ok().and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok());
    let bind = |port| Listener::bind("the error pages", "127.0.0.1", port, pages::limits());
    match bind(last.unwrap_or(0)).await {
        Err(_) if last.is_some() => bind(0).await,
        bound => bound,
    }
    .map_err(|error| error.to_string())
}

/// Keeps the port for the next start. Without it that start writes the tree anew, which is no reason to fail now.
fn keep_pages_port(pages: &Listener, file: &Path) {
    let port = pages.addresses().first().map_or(0, SocketAddr::port);
    if let Err(error) = files::replace(file, format!("{port}\n").as_bytes(), SECRET_MODE) {
        debug!(%error, "The port of the pages can't be kept in {}: {error}", file.display());
    }
}

/// What a Traefik is started with, in the folder of the routes.
struct Files {
    /// Everything that Traefik reads.
    folder: PathBuf,
    /// Its static configuration.
    config: PathBuf,
    /// Which process it is.
    record: PathBuf,
    /// On which port it finds our pages.
    pages_port: PathBuf,
}

impl Files {
    fn of(root: &Path) -> Self {
        let folder = root.join("traefik");
        Self {
            config: folder.join("traefik.yaml"),
            folder,
            record: root.join("traefik-process"),
            pages_port: root.join("pages-port"),
        }
    }
}

/// The way from the Unix socket that users come in by, if they do.
async fn public_socket(config: &Config, sockets: &Sockets) -> Result<Option<SocketForward>, String> {
    let (Listen::Unix(path), Some(to)) = (&config.public.listen, sockets.first_address()) else { return Ok(None) };
    let bound = SocketForward::bind(path, to, forwarding(config)).await;
    bound.map(Some).map_err(|reason| format!("can't listen on {} (--socket): {reason}", path.display()))
}

impl OneMachine {
    /// Takes it apart: what the store and the pages need, and what goes on.
    pub(super) fn split(self) -> (EmbeddedStore, Listener, Running) {
        let Self { store, pages, child, copies, ways, .. } = self;
        (store, pages, Running { child, copies, ways })
    }
}

/// How many connections are forwarded, by whose sockets they come.
pub(super) type SocketCounts = Vec<(&'static str, Arc<Counts>)>;

/// What goes on for as long as we live.
pub(super) struct Running {
    child: Arc<Child>,
    copies: Arc<Copies>,
    ways: Ways,
}

impl Running {
    /// How Traefik is, and every change of that.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.child.watch()
    }

    /// The connections through Unix sockets.
    pub(super) fn sockets(&self) -> SocketCounts {
        let servers = ("servers", self.ways.servers.1.counts());
        self.ways.public.iter().map(|public| ("users", public.counts())).chain([servers]).collect()
    }

    /// Says which process Traefik is, while it runs.
    pub(super) fn process(&self) -> Process {
        let state = self.state();
        Arc::new(move || if let State::Running { pid, .. } = *state.borrow() { Some(pid) } else { None })
    }

    /// Starts it: the watch over the child and over files that change, and the ways between sockets. Returns what SIGHUP
    /// calls.
    pub(super) fn start(
        self,
        lifecycle: &Lifecycle,
        readiness: &Readiness,
        fleet: &Arc<Fleet>,
        control: &Arc<ControlPlane>,
    ) -> Arc<Copies> {
        let Self { child, copies, ways: Ways { public, servers: (forwards, runner) } } = self;
        readiness.expect(LATCH, "Traefik is being started");
        // It ends after the last call was answered: until then a caller waits for it.
        lifecycle.spawn("traefik process", child.clone().run_until(lifecycle.stopping()));
        let (fleet, readiness, traefik) = (fleet.clone(), readiness.clone(), child.clone());
        let stopping = lifecycle.stopping();
        lifecycle.spawn("traefik state", async move {
            if stopping.run_until_cancelled(follow(&child, &fleet, &readiness)).await.is_some() {
                // Ending by itself ends everything: there is no Traefik, and there will be none.
                error!("Traefik can't be started, so Pointsman ends");
            }
        });
        let (watched, stopping) = (copies.clone(), lifecycle.stopping());
        lifecycle.spawn("traefik files", async move {
            stopping.run_until_cancelled(watched.watch(|| traefik.read_again())).await;
        });
        if let Some(public) = public {
            lifecycle.spawn("public socket", public.run(lifecycle.stopping()));
        }
        lifecycle.spawn("sockets of servers", runner.run(lifecycle.stopping()));
        let (control, stopping) = (control.clone(), lifecycle.stopping());
        lifecycle.spawn("unused sockets", async move {
            stopping.run_until_cancelled(retire(&forwards, &control)).await;
        });
        copies
    }
}

/// Closes the ways to sockets that no route has led to for a while.
async fn retire(forwards: &Forwards, control: &ControlPlane) {
    let mut before = BTreeSet::new();
    loop {
        sleep(RETIRE_INTERVAL).await;
        if forwards.is_empty() {
            continue;
        }
        let Ok(routes) = control.list().await else { continue };
        let now: BTreeSet<PathBuf> =
            routes.iter().filter_map(|route| route.target.unix_path()).map(Path::to_owned).collect();
        forwards.retain(|path| now.contains(path) || before.contains(path));
        before = now;
    }
}

/// Follows the child's life. Returns when there is no hope.
async fn follow(child: &Child, fleet: &Fleet, readiness: &Readiness) {
    let (mut states, mut seen) = (child.watch(), fleet.watch());
    // Neither may have been missed before we came.
    states.mark_changed();
    seen.mark_changed();
    // When the Traefik was started whose users are still kept out.
    let (mut waits, mut give_up): (Option<Moment>, _) = (None, Instant::now());
    loop {
        tokio::select! {
            Ok(()) = states.changed() => match &*states.borrow_and_update() {
                State::Starting => {}
                State::Running { restarts, .. } => {
                    (waits, give_up) = ((*restarts > 0).then(Moment::now), Instant::now() + KEPT_OUT_MAX);
                    readiness.release(LATCH);
                    // It has nothing yet, and is asked again and again until it has.
                    fleet.hurry();
                }
                State::Down { how, .. } => readiness.hold(LATCH, format!("Traefik {how}")),
                State::Failed { .. } => return,
            },
            Ok(()) = seen.changed() => {
                let answers = |status: &Status| matches!(status, Status::Serving(_) | Status::Empty);
                let seen = seen.borrow_and_update();
                if seen.values().any(|seen| answers(&seen.status)) {
                    child.has_served();
                }
                // What was seen of one before says nothing. An empty Traefik may not even have read its configuration.
                let serves = |since: Moment| {
                    seen.values().any(|seen| matches!(seen.status, Status::Serving(_)) && seen.since >= since)
                };
                if waits.is_some_and(serves) && !states.has_changed().unwrap_or(true) {
                    child.let_users_in();
                    waits = None;
                }
            }
            () = sleep_until(give_up), if waits.is_some() => {
                warn!("Traefik has been started again and doesn't serve the routes; letting users in all the same");
                child.let_users_in();
                waits = None;
            }
            else => return,
        }
    }
}

/// The sockets that Traefik is given.
struct Sockets {
    public: Vec<(String, TcpListener)>,
    redirect: Option<TcpListener>,
    private: TcpListener,
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Self, String> {
        let public = match &config.public.listen {
            Listen::Tcp { ip, port } => std_sockets("--ip and --port", ip, *port).await?,
            Listen::Unix(_) => std_sockets("the way from --socket to Traefik", "127.0.0.1", 0).await?,
        };
        let name = |i: usize| if i == 0 { "web".to_owned() } else { format!("web{}", i + 1) };
        let public = public.into_iter().enumerate().map(|(i, socket)| (name(i), socket)).collect();
        let redirect = match config.public.redirect {
            Some(Redirect { port, .. }) => std_sockets("--redirect-port", "", port).await?.into_iter().next(),
            None => None,
        };
        let private = std_sockets("Traefik's private entry point", "127.0.0.1", 0).await?.into_iter().next();
        Ok(Self { public, redirect, private: private.ok_or("no private socket")? })
    }

    /// Where users come in.
    fn first_address(&self) -> Option<SocketAddr> {
        self.public.first().and_then(|(_, socket)| socket.local_addr().ok())
    }

    /// The names of the entry points for users.
    fn names(&self) -> Vec<String> {
        self.public.iter().map(|(name, _)| name.clone()).collect()
    }

    /// All of them, by the names of their entry points, and those for users. The public ones may speak TLS.
    fn all(self, tls: bool) -> (Vec<(String, Arc<TcpListener>)>, Vec<Door>) {
        let mut all: Vec<_> = self.public.into_iter().map(|(name, socket)| (name, Arc::new(socket))).collect();
        all.extend(self.redirect.map(|socket| (REDIRECT_ENTRY_POINT.to_owned(), Arc::new(socket))));
        let busy: Arc<[u8]> = pages::starting_answer().into();
        let door = |(name, socket): &(String, Arc<TcpListener>)| {
            let speaks_tls = tls && name != REDIRECT_ENTRY_POINT;
            Door { socket: socket.clone(), busy: (!speaks_tls).then(|| busy.clone()) }
        };
        let doors = all.iter().map(door).collect();
        all.push((KEYED_ENTRY_POINT.to_owned(), Arc::new(self.private)));
        (all, doors)
    }
}

/// Listens, and waits a little for a port that is taken: the Traefik of a predecessor that was killed may have a moment left.
async fn std_sockets(flags: &'static str, ip: &str, port: u16) -> Result<Vec<TcpListener>, String> {
    let give_up = Instant::now() + PREDECESSOR_WAIT;
    loop {
        match Listener::bind(flags, ip, port, Limits::default()).await {
            Ok(listener) => return listener.into_sockets().map_err(|error| error.to_string()),
            Err(error) if Instant::now() > give_up => return Err(error.to_string()),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

fn url_of(address: Option<&SocketAddr>) -> Result<Url, String> {
    let address = address.ok_or("a socket of ours has no address")?;
    Url::parse(&format!("http://{address}")).map_err(|error| error.to_string())
}

/// Writes what Traefik is started with, and starts it.
fn start(
    config: &Config,
    root: &Path,
    binary: PathBuf,
    sockets: Sockets,
    own: Own,
) -> Result<(Child, Arc<Copies>), String> {
    let version = version(config, &binary)?;
    let files = Files::of(root);
    let folder = folder::create(&files.folder).map_err(|error| error.to_string())?;
    let copies = Arc::new(Copies::install(config, &folder, Some(own))?);
    let mut public = wiring::public_entry_points(config);
    let address = |socket: &TcpListener| socket.local_addr().map(|a| a.to_string()).unwrap_or_default();
    if let (Some((place, _)), Some(socket)) = (&mut public.redirect, &sockets.redirect) {
        *place = address(socket);
    }
    let plan = StaticConfig {
        version,
        entry_points: sockets.public.iter().map(|(name, socket)| (name.clone(), address(socket))).collect(),
        public,
        private: Private::Keyed(address(&sockets.private)),
        accept: Duration::ZERO,
        grace: GRACE,
        source: static_config::Source::Push,
        fallback: None,
        dynamic_folder: Some(copies.dynamic_folder().display().to_string()),
        // What it tells at its start is of no use to those who don't look for a fault. At DEBUG it prints all of its
        // configuration, with the key of its private entry point and the headers for servers.
        log_level: if config.log.level == LogLevel::Debug { "INFO" } else { "WARN" }.to_owned(),
        log_json: true,
    };
    copies.add(&files.config, &plan.to_yaml())?;
    let prepared = copies.clone();
    let (sockets, doors) = sockets.all(config.public.tls.is_some());
    let settings = ChildSettings {
        binary,
        config_file: files.config,
        folder,
        record: files.record,
        prepare: Box::new(move || prepared.prepare_start()),
        sockets,
        doors,
    };
    let child = Child::start(settings).map_err(|error| format!("Traefik can't be started: {error}"))?;
    Ok((child, copies))
}

/// The release of our Traefik; one that is too old is complained of, or refused.
fn version(config: &Config, binary: &Path) -> Result<TraefikVersion, String> {
    let shown = binary.display();
    let Some(version) = binary::version(binary) else {
        return Err(format!("{shown} does not say which release it is when it is called with 'version': not Traefik?"));
    };
    info!(%version, "Traefik {version} is {shown}");
    if version < TraefikVersion::FLOOR {
        let complaint =
            format!("{shown} is release {version}, and the oldest supported is {}; update it", TraefikVersion::FLOOR);
        if config.traefik.strict_versions {
            return Err(complaint);
        }
        warn!("{complaint}");
    }
    Ok(version)
}
