//! Everything on one machine: the Traefik that is started, the folder, the ports, and how users are served.

use std::io;
use std::net::{TcpListener, ToSocketAddrs as _};
use std::path::Path;

use url::Url;

use super::report::Report;
use crate::child::binary;
use crate::cli::floors;
use crate::cli::routes::client::{Address, ApiClient, Tls};
use crate::cli::routes::here;
use crate::cli::traefik_file::private_door;
use crate::cli::wiring;
use crate::config::{Config, Listen, StoreConfig};
use crate::control::bulk;
use crate::ownership::{self, Unsafe};
use crate::route::record::RecordKeys;
use crate::store::embedded::{self, EmbeddedSettings, EmbeddedStore, Held, Seen};
use crate::traefik::client::{Access, TraefikClient};

/// Less room than this, in bytes, and the next months of routes may not fit, nor what else shares the disk.
const FREE_BYTES_LOW: u64 = 256 * 1024 * 1024;

/// Less than this, in bytes, and writing may fail at any moment.
const FREE_BYTES_GONE: u64 = 4 * 1024 * 1024;

/// What others may not do in the folder: it holds keys.
const OTHERS: u32 = 0o077;

/// The folder, as it was seen first.
pub(super) struct Before<'a> {
    folder: &'a Path,
    held: bool,
}

/// Looks at what is there before anything runs. `None` with etcd.
pub(super) fn before<'a>(config: &'a Config, report: &mut Report) -> Option<Before<'a>> {
    let StoreConfig::OneMachine { folder, traefik } = &config.store else { return None };
    program(traefik.as_deref(), config.traefik.strict_versions, report);
    let part = format!("folder {}", folder.display());
    let held = match embedded::look(folder) {
        Ok(Some(seen)) => {
            match ownership::check(folder) {
                // That may be whom pointsman runs as.
                Err(error @ Unsafe::Owner(..)) => report.warning(&part, error),
                Err(error) if !config.shared_folders => report.problem(&part, error),
                _ => {}
            }
            self::folder(&seen, &part, report)
        }
        Ok(None) => {
            missing(folder, &part, report);
            false
        }
        Err(error) => {
            report.problem(
                &part,
                format_args!("can't be looked at ({error}); correct --data-dir, or run this as its owner"),
            );
            false
        }
    };
    Some(Before { folder, held })
}

/// The folder is still to be made.
fn missing(folder: &Path, part: &str, report: &mut Report) {
    let above = folder.ancestors().skip(1).find(|above| above.as_os_str().is_empty() || above.exists());
    let above = above.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if embedded::may_write(above) {
        report.ok(part, "is not there yet; pointsman makes it at its first start");
    } else {
        report.problem(
            part,
            format_args!(
                "is not there, and we may not make it in {}; make it for the user that pointsman runs as, or correct \
                 --data-dir",
                above.display()
            ),
        );
    }
}

fn program(named: Option<&Path>, strict: bool, report: &mut Report) {
    let part = "traefik";
    let path = match binary::find(named) {
        Ok(path) => path,
        Err(error) => return report.problem(part, error),
    };
    let shown = path.display();
    match binary::version(&path) {
        Some(version) => match floors::traefik_complaint(&version.to_string()) {
            None => report.ok(part, format_args!("{shown} is release {version}")),
            Some(complaint) => report.complaint(strict, part, format_args!("{shown}: {complaint}")),
        },
        None => report.problem(
            part,
            format_args!(
                "{shown} does not say which release it is when it is called with 'version'; correct --traefik-binary"
            ),
        ),
    }
}

/// Tells about the folder; says whether somebody holds it.
fn folder(seen: &Seen, part: &str, report: &mut Report) -> bool {
    if seen.mode & OTHERS != 0 {
        report.warning(
            part,
            format_args!(
                "others may look into it (mode {:03o}), and it holds private keys; chmod 700 it",
                seen.mode & 0o777
            ),
        );
    }
    let megabytes = |bytes: u64| bytes / (1024 * 1024);
    match seen.free_bytes {
        Some(free) if free < FREE_BYTES_GONE => {
            report.problem(part, format_args!("its disk is full ({} MB are left); make room", megabytes(free)));
        }
        Some(free) if free < FREE_BYTES_LOW => {
            report.warning(part, format_args!("its disk has only {} MB left; make room", megabytes(free)));
        }
        Some(free) => report.ok(part, format_args!("{} MB are free", megabytes(free))),
        None => {}
    }
    match seen.held {
        Held::By(pid) => {
            let pid = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            report.ok(part, format_args!("is held by a running pointsman{pid}"));
            true
        }
        Held::No => false,
        Held::Unknown => {
            report.warning(part, "it can't be seen who holds it; run this as the user that pointsman runs as");
            false
        }
    }
}

/// Looks at what should be running, or could be started.
pub(super) async fn after(config: &Config, before: &Before<'_>, runs: bool, report: &mut Report) {
    let part = format!("folder {}", before.folder.display());
    match (runs, before.held) {
        (true, false) => report.problem(
            &part,
            "a pointsman answers at the API's address, but holds another folder; correct --data-dir or --api-port",
        ),
        (false, true) => report.problem(
            &part,
            "the pointsman that holds it does not answer where the settings say; correct --api-ip and --api-port, or --data-dir",
        ),
        (false, false) => routes(config, before.folder, &part, report).await,
        (true, true) => {}
    }
    if runs {
        users(config, report).await;
        own_traefik(before.folder, report).await;
    } else {
        ports(config, report);
    }
}

/// The routes of a folder that nobody holds.
async fn routes(config: &Config, folder: &Path, part: &str, report: &mut Report) {
    if !embedded::is_there(folder) {
        return report.ok(part, "holds no routes yet");
    }
    if wiring::is_ours_alone(config, "data-dir", folder).is_err() {
        return;
    }
    let settings =
        EmbeddedSettings { predecessor_patience: std::time::Duration::ZERO, ..EmbeddedSettings::new(folder) };
    let store = match EmbeddedStore::open(settings).await {
        Ok(store) => store,
        Err(error) => return report.problem(part, error),
    };
    match bulk::read(&store, &RecordKeys::new(config.prefix())).await {
        Ok(records) => report.ok(part, format_args!("can be read, and holds {} routes", records.table.len())),
        Err(error) => report.problem(part, error),
    }
}

/// What users get: the health page, through the public port.
async fn users(config: &Config, report: &mut Report) {
    let Listen::Tcp { ip, port } = &config.public.listen else {
        return report.ok("users", "they come in by a Unix socket, where check doesn't look");
    };
    let address = Address::Url(here::local_url(config.public.tls.is_some(), ip, *port));
    let part = format!("users {address}");
    let trust = config
        .public
        .tls
        .as_ref()
        .map_or_else(Tls::default, |tls| Tls { pinned: Some(tls.cert.clone()), ..Tls::default() });
    let asked = match ApiClient::new(&address, &trust, Vec::new()) {
        Ok(client) => client.page("/_chp_healthz").await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(answer) if answer.status == 200 => report.ok(&part, "Traefik answers with our health page"),
        Ok(answer) => report.problem(
            &part,
            format_args!(
                "the health page answers {}: something else has the port, or there is no route yet; look at pointsman's log",
                answer.status
            ),
        ),
        Err(error) if config.public.tls.as_ref().is_some_and(|tls| tls.request_cert) => {
            report.ok(&part, format_args!("users are asked for a certificate, and check has none to show ({error})"));
        }
        Err(error) => report.problem(&part, format_args!("{error}; look at pointsman's log")),
    }
}

/// Asks our own Traefik which of its routers don't work. Only the folder's owner can.
async fn own_traefik(folder: &Path, report: &mut Report) {
    let part = "traefik";
    let Some((address, key)) = private_door(folder) else {
        return report
            .warning(part, "its files can't be read, so it wasn't asked; run this as the user that pointsman runs as");
    };
    let client = Url::parse(&format!("http://{address}")).ok().map(|url| TraefikClient::new(url, &Access::push(key)));
    let overview = match client {
        Some(Ok(client)) => client.overview().await,
        Some(Err(error)) => Err(error),
        None => return report.warning(part, format_args!("its address in {} is odd: {address}", folder.display())),
    };
    match overview {
        Ok(overview) if overview.routers.errors > 0 => report.problem(
            part,
            format_args!(
                "{} of its {} routers don't work, so their users reach the hub instead; pointsman's log names them",
                overview.routers.errors, overview.routers.total
            ),
        ),
        Ok(overview) => report.ok(part, format_args!("all of its {} routers work", overview.routers.total)),
        Err(error) => report.problem(part, format_args!("does not answer us ({error}); look at pointsman's log")),
    }
}

/// The ports that a start would need.
fn ports(config: &Config, report: &mut Report) {
    let mut wanted: Vec<(&str, &Listen)> = vec![("--port", &config.public.listen), ("--api-port", &config.api.listen)];
    wanted.extend(config.metrics.as_ref().map(|listen| ("--metrics-port", listen)));
    let redirect = config.public.redirect.map(|redirect| Listen::Tcp { ip: String::new(), port: redirect.port });
    wanted.extend(redirect.as_ref().map(|listen| ("--redirect-port", listen)));
    for (flag, listen) in wanted {
        let Listen::Tcp { ip, port } = listen else { continue };
        let part = format!("port {port}");
        let host = if ip.is_empty() { "0.0.0.0" } else { ip };
        let bound =
            (host, *port).to_socket_addrs().and_then(|addresses| TcpListener::bind(&*addresses.collect::<Vec<_>>()));
        match bound {
            Ok(_) => report.ok(&part, format_args!("is free for {flag}")),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => report.problem(
                &part,
                format_args!("another program has it ('ss -ltnp' names it); stop that one, or choose another {flag}"),
            ),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => report.problem(
                &part,
                format_args!(
                    "ports below 1024 need a right that we don't have (CAP_NET_BIND_SERVICE, as in examples/pointsman.service); \
                     run this as pointsman is run, or choose another {flag}"
                ),
            ),
            Err(error) => report.problem(&part, format_args!("can't be listened on ({error}); correct {flag} or its address")),
        }
    }
}
