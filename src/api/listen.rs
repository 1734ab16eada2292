//! Listeners: sockets for the addresses an administrator may write, TLS if it is wanted, and HTTP/1.1 on them, with a limit
//! on everything. TCP and Unix sockets, with TLS or without, take one way through the code.

pub mod tls;

mod address;
mod linger;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::socket::UnixSocket;
use linger::Lingering;
use tls::Tls;

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
    sockets: Vec<Socket>,
    limits: Limits,
    tls: Option<Tls>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

/// What connections are made of, whatever kind they are.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

type Accepted = (Box<dyn Stream>, OwnedSemaphorePermit);

impl Listener {
    /// Listens on `ip`: an address, a host name (all its addresses), or every interface if it is empty or `*`.
    /// `flags` names the settings that `ip` and `port` come from, for the error.
    pub async fn bind(flags: &'static str, ip: &str, port: u16, limits: Limits) -> Result<Self, ListenError> {
        match address::bind(ip, port).await {
            Ok(sockets) => Ok(Self { sockets: sockets.into_iter().map(Socket::Tcp).collect(), limits, tls: None }),
            Err((address, reason)) => Err(ListenError { address, flags, reason }),
        }
    }

    /// Listens at a Unix socket, whose file has the mode that the umask leaves and is removed at the end. A stale file is
    /// replaced; one where somebody answers is an error. `flag` names the setting, for the error.
    pub async fn bind_unix(flag: &'static str, path: &Path, limits: Limits) -> Result<Self, ListenError> {
        match UnixSocket::bind(path).await {
            Ok(socket) => Ok(Self { sockets: vec![Socket::Unix(socket)], limits, tls: None }),
            Err(reason) => Err(ListenError { address: path.display().to_string(), flags: flag, reason }),
        }
    }

    /// The same sockets, on which TLS is spoken.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The TCP addresses where it listens; with port 0 the kernel has chosen one.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let address = |socket: &Socket| match socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(_) => None,
        };
        self.sockets.iter().filter_map(address).collect()
    }

    /// Gives the TCP sockets to somebody else, who will serve on them.
    pub fn into_sockets(self) -> io::Result<Vec<std::net::TcpListener>> {
        let tcp = |socket| match socket {
            Socket::Tcp(socket) => Some(socket.into_std()),
            Socket::Unix(_) => None,
        };
        self.sockets.into_iter().filter_map(tcp).collect()
    }

    /// Serves until `stop`, then closes idle connections, finishes the requests that are under way, and returns.
    pub async fn serve(self, name: &'static str, router: Router, stop: CancellationToken) {
        self.announce(name);
        let permits = Arc::new(Semaphore::new(self.limits.connections_max));
        let (sender, mut accepted) = mpsc::channel(1);
        let mut accepting = JoinSet::new();
        for socket in self.sockets {
            accepting.spawn(accept(socket, permits.clone(), sender.clone()));
        }
        drop(sender);
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let connection = Connection { limits: self.limits.clone(), tls: self.tls.clone(), router, stop: stop.clone() };
        let mut changes = pin!(watch_files(self.tls));
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some((stream, permit)) = accepted.recv() => {
                    let served = connection.clone().serve(stream, graceful.watcher());
                    connections.spawn(async move {
                        let _permit = permit;
                        served.await;
                    });
                }
                Some(_) = connections.join_next() => {}
                () = &mut changes => {}
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

    fn announce(&self, name: &'static str) {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        for socket in &self.sockets {
            match socket {
                Socket::Tcp(socket) => match socket.local_addr() {
                    Ok(address) => info!(listener = name, %address, "Listening on {scheme}://{address} ({name})"),
                    Err(error) => debug!(%error, "A socket without an address: {error}"),
                },
                Socket::Unix(socket) => {
                    let path = socket.path().display();
                    info!(listener = name, %path, "Listening for {scheme} at the socket {path} ({name})");
                }
            }
        }
    }
}

/// Looks at the files of TLS again and again.
async fn watch_files(tls: Option<Tls>) {
    let Some(tls) = tls else { return std::future::pending().await };
    loop {
        sleep(tls.poll_interval()).await;
        tls.poll();
    }
}

/// Accepts for ever. No error may end it: most pass, and a full file table empties again.
async fn accept(socket: Socket, permits: Arc<Semaphore>, sender: mpsc::Sender<Accepted>) {
    loop {
        if permits.available_permits() == 0 {
            warn!("The limit of connections is reached; new ones wait until others end");
        }
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match socket.accept().await {
            Ok(stream) => {
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

impl Socket {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                // Answers are small and come at once; waiting to fill a packet would only delay them.
                let _ = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
            Self::Unix(socket) => Ok(Box::new(socket.accept().await?)),
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// What every connection of a listener needs.
#[derive(Clone)]
struct Connection {
    limits: Limits,
    tls: Option<Tls>,
    router: Router,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: Box<dyn Stream>, watcher: Watcher) {
        let stream = Lingering::new(stream);
        match self.tls.clone() {
            None => self.http(stream, watcher).await,
            // The handshake is part of this connection's own task: a client that says nothing holds up nobody else.
            Some(tls) => tokio::select! {
                () = self.stop.cancelled() => {}
                Some(stream) = tls.accept(stream) => self.http(stream, watcher).await,
                else => {}
            },
        }
    }

    async fn http<S: Stream + 'static>(&self, stream: S, watcher: Watcher) {
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_header_size(self.limits.head_bytes_max)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router.clone()));
        if let Err(error) = watcher.watch(served).await {
            // A port scan, a readiness check, a client that left: nothing that anybody has to know.
            debug!(%error, "A connection ended: {error}");
        }
    }
}
