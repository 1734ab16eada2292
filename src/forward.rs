//! Carries bytes between sockets that can't meet: Traefik speaks TCP only, and some of its clients and servers are behind
//! Unix sockets. And from one address to whichever of several servers is well, for clients that never leave one that
//! hangs. Knows nothing of routes or HTTP.
//!
//! Bytes go both ways as fast as the slower side takes them; one side may end while the other goes on; silence has no limit,
//! for a websocket may be silent for hours.

mod counts;
mod members;
mod peer;
mod registry;
mod relay;

pub use counts::{Connections, Counts};
pub use registry::{Forwards, Runner};
pub use relay::Relay;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::socket::UnixSocket;
use crate::telemetry::throttle::{self, Peer};

/// Lets us have as many open files as the system allows: each forwarded connection takes two.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        debug!(%error, "The limit of open files stays as it is: {error}");
    }
}

/// The limits of forwarding.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections through one socket or address; more wait in the kernel's queue.
    pub connections_max: usize,
    /// Connections through all addresses of one registry.
    pub connections_total_max: usize,
    /// How long the other end may take to accept a connection.
    pub connect_timeout: Duration,
    /// After this much silence the kernel asks a TCP peer whether it is still there.
    pub keepalive: Duration,
    /// How long open connections may go on after the stop.
    pub stop_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(None)
    }
}

/// A connection takes two open files, and there are two sides, users and servers: so this leaves half of the open files to
/// everything else.
const OPEN_FILES_PER_CONNECTION: u64 = 8;

/// One server gets no more than this part of the connections, so that the others have some.
const PART_OF_ONE_SERVER: usize = 4;

impl Limits {
    /// So many connections in all, or as many as the limit of open files is good for.
    #[must_use]
    pub fn of(connections_max: Option<usize>) -> Self {
        let by_open_files = || {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            let connections = (limit / OPEN_FILES_PER_CONNECTION).clamp(1, Semaphore::MAX_PERMITS as u64);
            usize::try_from(connections).unwrap_or(Semaphore::MAX_PERMITS)
        };
        let connections_max = connections_max.unwrap_or_else(by_open_files);
        Self {
            connections_max,
            connections_total_max: connections_max,
            connect_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(60),
            stop_timeout: Duration::from_millis(300),
        }
    }

    /// The same for the sockets of several servers.
    #[must_use]
    pub fn for_servers(self) -> Self {
        Self { connections_max: (self.connections_total_max / PART_OF_ONE_SERVER).max(1), ..self }
    }
}

/// A public Unix socket whose connections are carried to a TCP address.
#[derive(Debug)]
pub struct SocketForward {
    socket: UnixSocket,
    to: SocketAddr,
    limits: Limits,
    counts: Arc<Counts>,
}

impl SocketForward {
    /// Listens at `path`; who may connect is up to the file's mode, which the umask gives. A stale file is replaced, and the
    /// file is removed at the end. The error is a sentence without the name of the setting.
    pub async fn bind(path: &Path, to: SocketAddr, limits: Limits) -> Result<Self, String> {
        let counts = Arc::new(Counts::new(limits.connections_max));
        Ok(Self { socket: UnixSocket::bind(path).await?, to, limits, counts })
    }

    /// How many connections there are.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Forwards until `stop`; then open connections have a little time left.
    pub async fn run(self, stop: CancellationToken) {
        let Self { socket, to, limits, counts } = self;
        info!("Connections to the socket {} go to {to}", socket.path().display());
        let crew = Crew::new(&limits, counts);
        let connections = Arc::new(Semaphore::new(limits.connections_max));
        let accepting = async {
            loop {
                let permits = crew.permits(&connections, limits.connections_max, socket.path().display()).await;
                let client = match socket.accept().await {
                    Ok(client) => client,
                    Err(error) => {
                        after(&error).await;
                        continue;
                    }
                };
                let limits = limits.clone();
                crew.carry(permits, async move {
                    match timeout(limits.connect_timeout, TcpStream::connect(to)).await {
                        Ok(Ok(server)) => {
                            prepare(&server, &limits);
                            pump(client, server).await;
                        }
                        Ok(Err(error)) => debug!(%error, "Nobody is at {to}: {error}"),
                        Err(_) => debug!("{to} does not accept connections"),
                    }
                });
            }
        };
        tokio::select! {
            () = accepting => {}
            () = stop.cancelled() => {}
        }
        drop(socket);
        crew.end().await;
    }
}

/// The tasks that carry connections, all of which end with it.
struct Crew {
    tasks: TaskTracker,
    cut: CancellationToken,
    total: Arc<Semaphore>,
    counts: Arc<Counts>,
    stop_timeout: Duration,
}

type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Drop for Crew {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

impl Crew {
    fn new(limits: &Limits, counts: Arc<Counts>) -> Self {
        let (tasks, cut, total) = (TaskTracker::new(), CancellationToken::new(), counts.max());
        Self { tasks, cut, total: Arc::new(Semaphore::new(total)), counts, stop_timeout: limits.stop_timeout }
    }

    /// A place for one more connection; `socket` is named when there is none.
    async fn permits(&self, of_one: &Arc<Semaphore>, max: usize, socket: impl fmt::Display) -> Permits {
        if of_one.available_permits() == 0 || self.total.available_permits() == 0 {
            self.counts.limit_reached();
            let socket = socket.to_string();
            if throttle::is_first("sockets with too many connections", Peer::Unknown, &socket) {
                warn!(
                    socket,
                    "The limit of connections through {socket} is reached ({max}, and {} for all of its kind); new ones \
                     wait until others end",
                    self.counts.max()
                );
            }
        }
        let acquire = |semaphore: &Arc<Semaphore>| semaphore.clone().acquire_owned();
        let (one, all) = (acquire(of_one).await, acquire(&self.total).await);
        (one.expect("never closed"), all.expect("never closed"))
    }

    fn carry(&self, permits: Permits, connection: impl Future<Output = ()> + Send + 'static) {
        let (cut, counted) = (self.cut.clone(), self.counts.count());
        self.tasks.spawn(async move {
            let (_permits, _counted) = (permits, counted);
            tokio::select! {
                () = connection => {}
                () = cut.cancelled() => {}
            }
        });
    }

    async fn end(self) {
        self.tasks.close();
        if timeout(self.stop_timeout, self.tasks.wait()).await.is_err() {
            debug!(open = self.tasks.len(), "Cutting {} forwarded connection(s)", self.tasks.len());
            self.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

/// What to do about a connection that could not be accepted. Nothing may end the accepting: most errors pass, and a full
/// file table empties again.
async fn after(error: &io::Error) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    if throttle::is_first("connections that can't be accepted", Peer::Unknown, &error.to_string()) {
        warn!(%error, "A connection can't be accepted: {error}; trying again (is the limit of open files reached?)");
    }
    sleep(Duration::from_millis(100)).await;
}

/// Carries bytes both ways until both sides have ended.
async fn pump(mut a: impl AsyncRead + AsyncWrite + Unpin, mut b: impl AsyncRead + AsyncWrite + Unpin) {
    if let Err(error) = copy_bidirectional(&mut a, &mut b).await {
        debug!(%error, "A forwarded connection broke: {error}");
    }
}

/// Keepalive finds out about a peer that has vanished without a word, however long nobody says anything.
fn prepare(stream: &TcpStream, limits: &Limits) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(limits.keepalive).with_interval(limits.keepalive / 4);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Connects to a Unix socket. One whose queue is full says so at once, where TCP would wait; so we do the waiting.
async fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let give_up = Instant::now() + patience;
    let mut pause = Duration::from_millis(2);
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() + pause < give_up => {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            connected => return connected,
        }
    }
}
