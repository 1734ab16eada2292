//! Listeners: sockets for the addresses an administrator may write, and HTTP/1.1 on them, with a limit on everything.

mod linger;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use linger::Lingering;

/// The limits of one listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Request line and headers, in bytes: as in Node.
    pub head_bytes_max: usize,
    /// How long a client may take for a head, the silence before it included. It is longer than the 15 s for which the
    /// hub keeps an idle connection, so that we never close one that the hub is just about to use.
    pub head_timeout: Duration,
    /// Connections at once; more wait in the kernel's queue.
    pub connections_max: usize,
    /// How long requests may go on after the stop.
    pub stop_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            head_timeout: Duration::from_secs(20),
            connections_max: 1024,
            stop_timeout: Duration::from_secs(4),
        }
    }
}

/// An address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address} ({flags}): {reason}")]
pub struct ListenError {
    address: String,
    flags: &'static str,
    reason: String,
}

/// Sockets that listen, on which nothing is served yet. Clients may connect already.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<TcpListener>,
    limits: Limits,
}

impl Listener {
    /// Listens on `ip`: an address, a host name (all its addresses), or every interface if it is empty or `*`.
    /// `flags` names the settings that `ip` and `port` come from, for the error.
    pub async fn bind(flags: &'static str, ip: &str, port: u16, limits: Limits) -> Result<Self, ListenError> {
        // With port 0 the kernel chooses for the first address, and for the second that port may be taken.
        let mut attempts = if port == 0 { 8 } else { 1 };
        loop {
            let sockets = match host_of(ip) {
                Some(host) => bind_host(host, port).await,
                None => bind_everywhere(port).await,
            };
            attempts -= 1;
            match sockets {
                Ok(sockets) => return Ok(Self { sockets, limits }),
                Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
                Err((address, error)) => {
                    return Err(ListenError { address, flags, reason: explain(&error, port) });
                }
            }
        }
    }

    /// Where it listens; with port 0 the kernel has chosen one.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Serves until `stop`, then closes idle connections, finishes the requests that are under way, and returns.
    pub async fn serve(self, name: &'static str, router: Router, stop: CancellationToken) {
        for address in self.addresses() {
            info!(listener = name, %address, "Listening on http://{address} ({name})");
        }
        let permits = Arc::new(Semaphore::new(self.limits.connections_max));
        let (sender, mut accepted) = mpsc::channel(1);
        let mut accepting = JoinSet::new();
        for socket in self.sockets {
            accepting.spawn(accept(socket, permits.clone(), sender.clone()));
        }
        drop(sender);
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some((stream, permit)) = accepted.recv() => {
                    let connection = connect(&self.limits, stream, router.clone());
                    let watched = graceful.watch(connection);
                    connections.spawn(async move {
                        let _permit = permit;
                        if let Err(error) = watched.await {
                            // A port scan, a readiness check, a client that left: nothing that anybody has to know.
                            debug!(%error, "A connection ended: {error}");
                        }
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
        // The sockets close first: whoever comes now is refused at once, and asks another replica.
        accepting.shutdown().await;
        drop(accepted);
        if timeout(self.limits.stop_timeout, graceful.shutdown()).await.is_err() {
            warn!(listener = name, "Requests were still under way when the time to stop was up; cutting them ({name})");
        }
        connections.shutdown().await;
    }
}

type Accepted = (TcpStream, OwnedSemaphorePermit);

/// Accepts for ever. No error may end it: most pass, and a full file table empties again.
async fn accept(socket: TcpListener, permits: Arc<Semaphore>, sender: mpsc::Sender<Accepted>) {
    loop {
        if permits.available_permits() == 0 {
            warn!("The limit of connections is reached; new ones wait until others end");
        }
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, _)) => {
                if sender.send((stream, permit)).await.is_err() {
                    return;
                }
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                warn!(%error, "A connection can't be accepted: {error}; trying again (is the limit of open files reached?)");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

fn connect(
    limits: &Limits,
    stream: TcpStream,
    router: Router,
) -> http1::Connection<TokioIo<Lingering>, TowerToHyperService<Router>> {
    // Answers are small and come at once; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_header_size(limits.head_bytes_max)
        .serve_connection(TokioIo::new(Lingering::new(stream)), TowerToHyperService::new(router))
}

/// The host to listen on, without the brackets that IPv6 has in URLs; `None`: every interface.
fn host_of(ip: &str) -> Option<&str> {
    let ip = ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(ip);
    (!ip.is_empty() && ip != "*").then_some(ip)
}

type BindError = (String, io::Error);

async fn bind_everywhere(port: u16) -> Result<Vec<TcpListener>, BindError> {
    let mut sockets = Vec::new();
    // On most machines the IPv6 socket takes IPv4 as well, and then the second one is refused: that is no fault.
    match bind_one((Ipv6Addr::UNSPECIFIED, port).into()).await {
        Ok(socket) => sockets.push(socket),
        Err((_, error)) if lacks_address(&error) => {}
        Err(error) => return Err(error),
    }
    let port = sockets.first().and_then(|socket| socket.local_addr().ok()).map_or(port, |address| address.port());
    match bind_one((Ipv4Addr::UNSPECIFIED, port).into()).await {
        Ok(socket) => sockets.push(socket),
        Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse && !sockets.is_empty() => {}
        Err(error) => return Err(error),
    }
    Ok(sockets)
}

async fn bind_host(host: &str, port: u16) -> Result<Vec<TcpListener>, BindError> {
    let several = |error| (format!("{host}:{port}"), error);
    let mut ips: Vec<IpAddr> = match host {
        // Not every machine's files say so, and clients try both.
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        _ => tokio::net::lookup_host((host, port)).await.map_err(several)?.map(|address| address.ip()).collect(),
    };
    ips.dedup();
    let alone = ips.len() == 1;
    let (mut sockets, mut port) = (Vec::<TcpListener>::new(), port);
    for ip in ips {
        match bind_one((ip, port).into()).await {
            Ok(socket) => {
                port = socket.local_addr().map_err(several)?.port();
                sockets.push(socket);
            }
            Err((address, error)) if lacks_address(&error) && !alone => {
                debug!(address, "This machine has no {address}, one of the addresses of {host}");
            }
            Err(error) => return Err(error),
        }
    }
    if sockets.is_empty() {
        return Err(several(io::ErrorKind::AddrNotAvailable.into()));
    }
    Ok(sockets)
}

async fn bind_one(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| (address.to_string(), error))
}

/// Whether the machine doesn't have the address, or not even its family.
fn lacks_address(error: &io::Error) -> bool {
    const NO_SUCH_FAMILY: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_SUCH_FAMILY)
}

fn explain(error: &io::Error, port: u16) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program listens there. 'ss -ltnp sport = :{port}' shows which; stop it, or choose another port"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("not permitted; ports below 1024 belong to root, and this is {port}: choose a higher one")
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        _ => error.to_string(),
    }
}
