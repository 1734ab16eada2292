//! Listeners: sockets for the addresses an administrator may write, TLS if it is wanted, and HTTP/1.1 on them, with a limit
//! on everything. TCP and Unix sockets, with TLS or without, take one way through the code.

pub mod tls;

mod address;
mod clients;
mod linger;
mod progress;
mod turns;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::caller::{Caller, Client};
use crate::lifecycle::compute;
use crate::socket::{UnixSocket, bound_buffers};
use crate::telemetry::throttle::{self, Peer};
use clients::{Clients, Place};
use linger::Lingering;
use progress::Progressing;
use tls::Tls;
use turns::Queue;

/// The limits of one listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Request line and headers, in bytes: as in Node.
    pub head_bytes_max: usize,
    /// How long a client may take for a head, the silence before it included. It is longer than the 15 s for which the
    /// hub keeps an idle connection, so that we never close one that the hub is just about to use.
    pub head_timeout: Duration,
    /// How long a client may take nothing of its answers.
    pub write_stall: Duration,
    /// Connections at once. For one more, the oldest that has not shown a valid token is closed; if all have, it waits in
    /// the kernel's queue.
    pub connections_max: usize,
    /// How long requests may go on after the stop.
    pub stop_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            head_timeout: Duration::from_secs(20),
            write_stall: Duration::from_secs(10),
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

type Accepted = (Box<dyn progress::Socket>, Place);

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
        let clients = Arc::new(Clients::new(name, self.limits.connections_max));
        let (sender, mut accepted) = mpsc::channel(1);
        let mut accepting = JoinSet::new();
        for socket in self.sockets {
            accepting.spawn(accept(name, socket, clients.clone(), sender.clone()));
        }
        drop(sender);
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let connection = Connection { limits: self.limits.clone(), tls: self.tls.clone(), router, stop: stop.clone() };
        let mut changes = pin!(watch_files(self.tls));
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some((stream, place)) = accepted.recv() => {
                    let served = connection.clone().serve(stream, place.client().clone(), graceful.watcher());
                    connections.spawn(async move {
                        place.client().evicted().run_until_cancelled(served).await;
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
        let tls = tls.clone();
        compute(true, move || tls.poll()).await;
    }
}

/// Accepts for ever. No error may end it: most pass, and a full file table empties again.
async fn accept(name: &'static str, socket: Socket, clients: Arc<Clients>, sender: mpsc::Sender<Accepted>) {
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                clients.room().await;
                if sender.send((stream, clients.admit(peer))).await.is_err() {
                    return;
                }
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                let says = error.to_string();
                if throttle::is_first("connections that can't be accepted", Peer::Unknown, &says) {
                    warn!(
                        listener = name, %error,
                        "A connection can't be accepted ({name}): {error}; trying again (is the limit of open files reached?)"
                    );
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<(Box<dyn progress::Socket>, Peer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, from) = socket.accept().await?;
                // Answers are small and come at once; waiting to fill a packet would only delay them.
                let _ = stream.set_nodelay(true);
                let _ = bound_buffers(&stream);
                Ok((Box::new(stream), Peer::Ip(from.ip().to_canonical())))
            }
            Self::Unix(socket) => Ok((Box::new(socket.accept().await?), Peer::UnixSocket)),
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
    async fn serve(self, stream: Box<dyn progress::Socket>, client: Arc<Client>, watcher: Watcher) {
        let stream = Lingering::new(Progressing::new(stream, client.clone(), self.limits.write_stall));
        match self.tls.clone() {
            None => self.http(stream, client, watcher).await,
            // The handshake is part of this connection's own task: a client that says nothing holds up nobody else.
            Some(tls) => tokio::select! {
                () = self.stop.cancelled() => {}
                Some(stream) = tls.accept(stream, client.peer()) => self.http(stream, client, watcher).await,
                else => {}
            },
        }
    }

    async fn http<S: Stream + 'static>(&self, stream: S, client: Arc<Client>, watcher: Watcher) {
        let (router, is_first) = (TowerToHyperService::new(self.router.clone()), AtomicBool::new(true));
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Caller::new(client.clone()));
            let (answer, client) = (router.call(request), client.clone());
            let queue = if is_first.swap(false, Ordering::Relaxed) { Queue::First } else { Queue::Later };
            queue.run(move || client.is_authenticated(), answer)
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_header_size(self.limits.head_bytes_max)
            // A client may close its side for writing after its request, and waits for the answer.
            .half_close(true)
            // Else 400 KB of answers are prepared for a client that does not read them.
            .max_buf_size(2 * self.limits.head_bytes_max)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(served).await {
            // A port scan, a readiness check, a client that left: nothing that anybody has to know.
            debug!(%error, "A connection ended: {error}");
        }
    }
}
