//! `pointsman`, without a command: the start-up as one story, and the end as another.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::copies::Copies;
use super::one_machine::{self, Running, SocketCounts};
use super::pid_file::PidFile;
use super::signals::{Asked, Signals};
use super::{Exit, complain, floors, wiring};
use crate::activity::Activity;
use crate::api::auth::Authenticator;
use crate::api::listen::tls::Tls;
use crate::api::listen::{Limits, ListenError, Listener};
use crate::api::metrics::{self, Ask, Metrics, Sources};
use crate::api::{self, ApiState, pages};
use crate::child::State;
use crate::clock::{self, Clock as _, SystemClock};
use crate::config::{Config, Listen, StoreConfig};
use crate::control::ControlPlane;
use crate::forward;
use crate::lifecycle::{Lifecycle, Readiness};
use crate::route::{RouteData, RouteSpec, Target};
use crate::store::SharedStore;
use crate::store::etcd::EtcdStore;
use crate::telemetry;
use crate::traefik::client::Access;
use crate::traefik::fixed;
use crate::traefik::fleet::{Fleet, Source};
use crate::traefik::folder;

/// After the first signal, open calls (which have 5 s) and then the tasks behind them have this long.
const STOP_PATIENCE: Duration = Duration::from_secs(8);

/// How long the default target waits before it is tried again.
const DEFAULT_TARGET_INTERVAL: Duration = Duration::from_secs(1);

/// Why serving ended badly.
struct Failed(Exit, String);

impl Failed {
    /// The settings can be read, but they can't be used.
    fn configuration(reason: impl std::fmt::Display) -> Self {
        Self(Exit::Configuration, format!("the configuration can't be used: {reason}"))
    }

    fn now(reason: impl std::fmt::Display) -> Self {
        Self(Exit::Failure, reason.to_string())
    }
}

/// Serves until a signal comes, or a task ends that should not.
pub(super) async fn run(config: &Config) -> Exit {
    if let Err(reason) = telemetry::init(config.log.level, config.log.format) {
        complain(&format!("pointsman: logging can't be started: {reason}"));
        return Exit::Failure;
    }
    match serve(config).await {
        Ok(()) => Exit::Success,
        Err(Failed(exit, reason)) => {
            error!("Pointsman ends: {reason}");
            exit
        }
    }
}

async fn serve(config: &Config) -> Result<(), Failed> {
    info!(version = env!("CARGO_PKG_VERSION"), "Pointsman {} starts", env!("CARGO_PKG_VERSION"));
    forward::raise_open_files();
    config.warnings.iter().for_each(|warning| warn!("Mind that {warning}"));
    let mut signals = Signals::listen().map_err(Failed::now)?;
    let lifecycle = Lifecycle::new();
    lifecycle.spawn("log", telemetry::throttle::write_sums(lifecycle.stopping()));
    let begun = tokio::select! {
        begun = Box::pin(begin(config, &lifecycle)) => begun?,
        name = signals.stop() => {
            info!(signal = name, "Got {name} during the start; stopping");
            return stop(&lifecycle, &mut signals).await;
        }
    };
    loop {
        tokio::select! {
            () = lifecycle.draining().cancelled_owned() => break,
            asked = signals.next() => match asked {
                Asked::Reload => begun.reload(config).await,
                Asked::Stop(name) => {
                    info!(signal = name, "Got {name}; open calls are finished, then Pointsman stops");
                    break;
                }
            },
        }
    }
    begun.readiness.expect("running", "this replica is stopping");
    stop(&lifecycle, &mut signals).await
}

/// What is needed of a start that has succeeded.
struct Begun {
    readiness: Readiness,
    auth: Arc<Authenticator>,
    tls: Option<Tls>,
    etcd: Option<Arc<EtcdStore>>,
    /// Those of our own Traefik.
    files: Option<Arc<Copies>>,
    _pid_file: Option<PidFile>,
}

/// Starts everything. Whatever it waits for, it may be given up in the middle.
async fn begin(config: &Config, lifecycle: &Lifecycle) -> Result<Begun, Failed> {
    config.pid_file.as_deref().map_or(Ok(()), PidFile::check).map_err(Failed::now)?;
    let readiness = Readiness::new();
    let clock = Arc::new(SystemClock);
    clock::check(clock.now()).map_err(Failed::now)?;

    let auth = wiring::auth_settings(config).map_err(Failed::configuration)?;
    let auth = Arc::new(Authenticator::new(&auth, clock.clone()).map_err(Failed::configuration)?);
    let tls = wiring::api_tls(config).map_err(Failed::configuration)?;
    let api = bind("--api-ip and --api-port", "--api-socket", &config.api.listen).await.map_err(Failed::now)?;
    let api = match &tls {
        Some(tls) => api.with_tls(tls.clone()),
        None => api,
    };

    let Parts { store, etcd, own, pages, fleet, sources, tree } = parts(config, lifecycle).await?;
    let fleet = Arc::new(fleet);
    let mut looks = wiring::activity_settings(config, &tree);
    let control = wiring::control_settings(config, tree);
    let control = ControlPlane::start(lifecycle, &readiness, clock.clone(), store.clone(), fleet.clone(), control);
    spawn_until_stopped(lifecycle, "traefik", fleet.clone().run(sources));
    spawn_until_stopped(lifecycle, "traefik readiness", fleet.clone().report(readiness.clone()));
    looks.process = own.as_ref().map(Running::process);
    let child = own.as_ref().map(Running::state);
    let sockets = own.as_ref().map(Running::sockets).unwrap_or_default();
    let files = own.map(|own| own.start(lifecycle, &readiness, &fleet, &control));
    if let Some(target) = &config.routing.default_target {
        spawn_until_stopped(lifecycle, "default target", set_default_target(control.clone(), target.clone()));
    }

    let fallback = config.etcd().map(|_| control.fallback());
    let table = control.clone();
    let activity = Activity::start(lifecycle, clock, store, fleet.clone(), Arc::new(move || table.table()), looks);
    let metrics = match &config.metrics {
        Some(listen) => {
            Some(bind("--metrics-ip and --metrics-port", "--metrics-socket", listen).await.map_err(Failed::now)?)
        }
        None => None,
    };
    let state = ApiState::new(control.clone(), auth.clone(), readiness.clone(), wiring::api_settings(config))
        .with_last_activity(activity.clone());
    if let Some(metrics) = metrics {
        let sources = watched(config, &state, &control, &readiness, &activity, fleet.clone(), (child, sockets));
        let router = metrics::router(Arc::new(Metrics::new(sources)));
        lifecycle.spawn_front("metrics", metrics.serve("metrics", router, lifecycle.draining()));
    }
    lifecycle.spawn_front("api", api.serve("api", api::router(state), lifecycle.draining()));
    if let Some(pages) = pages {
        let sentinel = Arc::new(wiring::FleetSentinel(fleet));
        let mut router =
            pages::router_with(&wiring::pages_settings(config), sentinel).map_err(Failed::configuration)?;
        if let Some(fallback) = fallback {
            router = router.merge(pages::fallback::router(fallback, auth.clone()));
        }
        lifecycle.spawn_front("pages", pages.serve("pages", router, lifecycle.draining()));
    }

    // Last: a program that waits for this file finds everything started.
    let pid_file = config.pid_file.as_deref().map(PidFile::write).transpose().map_err(Failed::now)?;
    Ok(Begun { readiness, auth, tls, etcd, files, _pid_file: pid_file })
}

impl Begun {
    /// SIGHUP: reads tokens, keys, certificates and passwords again. What can't be used leaves the old in force.
    async fn reload(&self, config: &Config) {
        reload(config, &self.auth, self.etcd.as_deref()).await;
        if let Some(Err(reason)) = self.tls.as_ref().map(Tls::reload) {
            error!(%reason, "The API's old certificate stays in force: {reason}");
        }
        if let Some(files) = &self.files {
            files.reload();
        }
    }
}

/// What differs between one machine and a cluster.
struct Parts {
    store: SharedStore,
    /// The store once more, if it is etcd.
    etcd: Option<Arc<EtcdStore>>,
    /// Our own Traefik, if there is one.
    own: Option<Running>,
    pages: Option<Listener>,
    fleet: Fleet,
    sources: Vec<Source>,
    tree: fixed::Settings,
}

async fn parts(config: &Config, lifecycle: &Lifecycle) -> Result<Parts, Failed> {
    match &config.store {
        StoreConfig::OneMachine { folder, traefik } => {
            let prepared = one_machine::prepare(config, folder, traefik.as_deref()).await.map_err(Failed::now)?;
            let (tree, sources) = (prepared.tree.clone(), vec![prepared.source.clone()]);
            let fleet = Fleet::new(Access::push(prepared.key.clone()));
            let (store, pages, running) = prepared.split();
            Ok(Parts {
                store: Arc::new(store),
                etcd: None,
                own: Some(running),
                pages: Some(pages),
                fleet,
                sources,
                tree,
            })
        }
        StoreConfig::Etcd(etcd) => {
            // One that can't be made is complained of later, when it is needed.
            let _ = folder::create(&etcd.snapshot_folder);
            wiring::is_ours_alone(config, "snapshot-dir", &etcd.snapshot_folder).map_err(Failed::now)?;
            let store = EtcdStore::connect(wiring::etcd_settings(etcd)).await.map_err(Failed::configuration)?;
            let store = Arc::new(store);
            versions(config, &store, lifecycle).await?;
            let pages = match &config.pages.url {
                Some(_) => {
                    let (ip, port) = (&config.pages.ip, config.pages.port);
                    let bound = Listener::bind("--pages-ip and --pages-port", ip, port, pages::limits());
                    Some(bound.await.map_err(Failed::now)?)
                }
                None => None,
            };
            Ok(Parts {
                store: store.clone(),
                etcd: Some(store),
                own: None,
                pages,
                fleet: Fleet::new(Access::etcd()).with_laggards(wiring::laggards(config)),
                sources: wiring::traefik_sources(config),
                tree: wiring::tree_settings(config),
            })
        }
    }
}

/// Listens at one of our own addresses; the flags are those that it comes from.
async fn bind(tcp: &'static str, unix: &'static str, listen: &Listen) -> Result<Listener, ListenError> {
    match listen {
        Listen::Tcp { ip, port } => Listener::bind(tcp, ip, *port, Limits::default()).await,
        Listen::Unix(path) => Listener::bind_unix(unix, path, Limits::default()).await,
    }
}

/// What is told at /metrics.
fn watched(
    config: &Config,
    state: &ApiState,
    control: &Arc<ControlPlane>,
    readiness: &Readiness,
    activity: &Arc<Activity>,
    fleet: Arc<Fleet>,
    (child, sockets): (Option<watch::Receiver<State>>, SocketCounts),
) -> Sources {
    let (routes, age, holder, traffic) = (control.clone(), activity.clone(), activity.clone(), activity.clone());
    let others = control.clone();
    let (kept, fallback) = (control.clone(), config.pages.url.as_ref().map(|_| control.fallback()));
    Sources {
        calls: state.counts(),
        control: control.counts(),
        readiness: readiness.clone(),
        store: if config.etcd().is_some() { "etcd" } else { "embedded" },
        routes: Box::new(move || routes.routes()),
        others: Box::new(move || others.others()),
        traefiks: Box::new(move || wiring::traefiks(&fleet)),
        activity_age: Some(Box::new(move || age.age())),
        activity_holder: Some(Box::new(move || holder.is_holder())),
        child_restarts: child.map(|child| Box::new(move || child.borrow().restarts()) as Ask<u64>),
        sockets: sockets.into_iter().map(|(whose, counts)| (whose, wiring::sockets(counts))).collect(),
        kept: Some(Box::new(move || kept.kept())),
        fallback: fallback.map(|fallback| Box::new(move || fallback.is_offered()) as Ask<bool>),
        traffic: Some(Box::new(move || traffic.traffic())),
    }
}

/// Complains of releases of etcd and Traefik that are too old; with `--strict-versions` we don't start beside them.
async fn versions(config: &Config, store: &Arc<EtcdStore>, lifecycle: &Lifecycle) -> Result<(), Failed> {
    if config.traefik.strict_versions {
        let complaints = floors::complaints(config, store).await;
        return if complaints.is_empty() { Ok(()) } else { Err(Failed::now(complaints.join("; "))) };
    }
    let (config, store) = (config.clone(), store.clone());
    spawn_until_stopped(lifecycle, "versions", async move {
        for complaint in floors::complaints(&config, &store).await {
            warn!("{complaint}");
        }
    });
    Ok(())
}

/// Ends everything in order; a second signal, or the end of patience, ends it at once.
async fn stop(lifecycle: &Lifecycle, signals: &mut Signals) -> Result<(), Failed> {
    lifecycle.stop();
    tokio::select! {
        ended = tokio::time::timeout(STOP_PATIENCE, lifecycle.finished()) => match ended {
            Ok(Ok(())) => {
                info!("Pointsman has stopped");
                Ok(())
            }
            Ok(Err(task)) => Err(Failed::now(format_args!("the task '{task}' ended by itself"))),
            Err(_) => Err(Failed::now(format_args!("some tasks did not end within {} s", STOP_PATIENCE.as_secs()))),
        },
        name = signals.stop() => Err(Failed::now(format_args!("got {name} once more, so open calls are cut"))),
    }
}

/// Reads the tokens and keys of callers again, and the login and certificates for etcd.
async fn reload(config: &Config, auth: &Authenticator, etcd: Option<&EtcdStore>) {
    let fresh = wiring::auth_settings(config).map_err(|e| e.to_string());
    match fresh.and_then(|fresh| auth.reload(&fresh).map_err(|e| e.to_string())) {
        Ok(()) => info!("Tokens and keys were read again"),
        Err(reason) => error!(reason, "The old tokens and keys stay in force: {reason}"),
    }
    let Some((store, settings)) = etcd.zip(config.etcd()) else { return };
    match store.reload().await {
        Ok(()) if settings.password_file.is_none() && settings.ca.is_none() && settings.cert.is_none() => {}
        Ok(()) => info!("The login and certificates for etcd were read again"),
        Err(reason) => error!(%reason, "The old login and certificates for etcd stay in force: {reason}"),
    }
}

/// Gives `/` to the default target, unless it has a route. Goes on trying: the store may come later than we do.
async fn set_default_target(control: Arc<ControlPlane>, target: Target) {
    let data: RouteData = [("target".to_owned(), target.as_str().into())].into_iter().collect();
    loop {
        match control.add_if_absent(RouteSpec::root(), target.clone(), data.clone()).await {
            Ok(true) => return info!("'/' has a route already; --default-target is not used"),
            Ok(false) => return info!(target = %target.as_str(), "'/' leads to the default target {}", target.as_str()),
            Err(reason) => warn!(%reason, "The default target can't be set yet: {reason}"),
        }
        tokio::time::sleep(DEFAULT_TARGET_INTERVAL).await;
    }
}

/// Runs something that may end, or never does, as a task that stops when it is told to.
fn spawn_until_stopped(lifecycle: &Lifecycle, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    let stopping = lifecycle.stopping();
    lifecycle.spawn(name, async move {
        let work = async {
            work.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = work => {}
            () = stopping.cancelled() => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_named() {
        for front in [false, true] {
            let lifecycle = Lifecycle::new();
            if front {
                lifecycle.spawn_front("boom", async {});
            } else {
                lifecycle.spawn("boom", async {});
            }
            lifecycle.draining().cancelled().await;
            let mut signals = Signals::listen().unwrap();
            let Err(Failed(exit, reason)) = stop(&lifecycle, &mut signals).await else { panic!("ended well") };
            assert_eq!((exit, reason.as_str()), (Exit::Failure, "the task 'boom' ended by itself"));
        }
    }

    #[tokio::test]
    async fn work_that_is_done_does_not_end_its_task() {
        let lifecycle = Lifecycle::new();
        let (done, wait) = tokio::sync::oneshot::channel();
        spawn_until_stopped(&lifecycle, "short", async move {
            let _ = done.send(());
        });
        wait.await.unwrap();
        assert!(!lifecycle.draining().is_cancelled());
        lifecycle.stop();
        assert_eq!(lifecycle.finished().await, Ok(()));
    }
}
