//! A loopback address for each Unix socket that somebody must reach by TCP.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::peer::{Doorman, Peer};
use super::{Counts, Crew, Limits, after, connect, prepare, pump};
use crate::socket::lengthen_queue;
use crate::telemetry::throttle;

/// Gives each path of a Unix socket a loopback TCP address of its own, whose connections are carried to it.
///
/// Only processes of our own user and of root are let in, whatever the socket's mode: a mode can't be asked on behalf of
/// another user, and Traefik is one of ours. Whether the socket is there doesn't matter until somebody connects; if it isn't
/// then, the connection is closed at once.
#[derive(Debug, Clone)]
pub struct Forwards(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    known: Mutex<HashMap<PathBuf, Known>>,
    fresh: mpsc::UnboundedSender<Fresh>,
}

#[derive(Debug)]
struct Known {
    address: SocketAddr,
    retired: CancellationToken,
}

/// An address on which nobody accepts yet; the kernel queues who connects.
#[derive(Debug)]
struct Fresh {
    listener: std::net::TcpListener,
    address: SocketAddrV4,
    path: PathBuf,
    retired: CancellationToken,
}

impl Forwards {
    /// An empty registry, and what serves its addresses.
    #[must_use]
    pub fn new(limits: Limits) -> (Self, Runner) {
        Self::guarded_by(limits, Doorman::ours())
    }

    fn guarded_by(limits: Limits, doorman: Doorman) -> (Self, Runner) {
        let (fresh, queue) = mpsc::unbounded_channel();
        let counts = Arc::new(Counts::new(limits.connections_total_max));
        let runner = Runner { queue, limits, doorman: Arc::new(doorman), counts };
        (Self(Arc::new(Shared { known: Mutex::default(), fresh })), runner)
    }

    /// The address that leads to the socket at `path`, an absolute path. It is chosen at the first call and stays until the
    /// path is retired. Errors: no address can be had, as when the limit of open files is reached.
    pub fn address(&self, path: &Path) -> io::Result<SocketAddr> {
        let mut known = self.lock();
        if let Some(known) = known.get(path) {
            return Ok(known.address);
        }
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        lengthen_queue(&listener)?;
        let SocketAddr::V4(address) = listener.local_addr()? else {
            return Err(io::Error::other("an address of IPv4 was asked for"));
        };
        let retired = CancellationToken::new();
        let fresh = Fresh { listener, address, path: path.to_owned(), retired: retired.clone() };
        self.0.fresh.send(fresh).map_err(|_| io::Error::other("forwarding has ended"))?;
        known.insert(path.to_owned(), Known { address: address.into(), retired });
        Ok(address.into())
    }

    /// Closes the address of every path that is not to be kept; connections that are open go on. Call it only once no
    /// Traefik has such an address any more: another program may get its port next.
    pub fn retain(&self, keep: impl Fn(&Path) -> bool) {
        self.lock().retain(|path, known| {
            let stays = keep(path);
            if !stays {
                known.retired.cancel();
            }
            stays
        });
    }

    /// How many sockets have an address.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no socket has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the addresses of a [`Forwards`].
#[derive(Debug)]
pub struct Runner {
    queue: mpsc::UnboundedReceiver<Fresh>,
    limits: Limits,
    doorman: Arc<Doorman>,
    counts: Arc<Counts>,
}

impl Runner {
    /// How many connections there are.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Forwards until `stop`; then open connections have a little time left.
    pub async fn run(mut self, stop: CancellationToken) {
        let crew = Arc::new(Crew::new(&self.limits, self.counts.clone()));
        let mut accepting = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(fresh) = self.queue.recv() => {
                    let (limits, doorman) = (self.limits.clone(), self.doorman.clone());
                    accepting.spawn(serve(fresh, limits, doorman, crew.clone()));
                }
                Some(_) = accepting.join_next() => {}
            }
        }
        accepting.shutdown().await;
        if let Some(crew) = Arc::into_inner(crew) {
            crew.end().await;
        }
    }
}

/// Accepts at one address until it is retired.
async fn serve(fresh: Fresh, limits: Limits, doorman: Arc<Doorman>, crew: Arc<Crew>) {
    let Fresh { listener, address, path, retired } = fresh;
    let path: Arc<Path> = path.into();
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "{address} for {} can't be served: {error}", path.display()),
    };
    info!("Connections to {address} go to the socket {}", path.display());
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        let next = async {
            let permits = crew.permits(&connections, limits.connections_max, path.display()).await;
            listener.accept().await.map(|accepted| (permits, accepted))
        };
        let next = tokio::select! {
            () = retired.cancelled() => break,
            next = next => next,
        };
        match next {
            Ok((permits, (client, SocketAddr::V4(from)))) if may_pass(&doorman, &client, from, address, &path) => {
                let (path, limits) = (path.clone(), limits.clone());
                crew.carry(permits, async move { carry(client, &path, &limits).await });
            }
            Ok(_) => {}
            Err(error) => after(&error).await,
        }
    }
    info!("{address} no longer leads to the socket {}", path.display());
}

fn may_pass(doorman: &Doorman, client: &TcpStream, from: SocketAddrV4, to: SocketAddrV4, path: &Path) -> bool {
    let refusal = match doorman.look(from, to) {
        // Had the client gone before we asked, another one might have got its port: ours must still be connected.
        Ok(Peer::LetIn) if client.peer_addr().is_ok() => return true,
        Ok(Peer::LetIn | Peer::Gone) => {
            debug!("A client of {} left before it could be asked who it is", path.display());
            return false;
        }
        Ok(Peer::Foreign(user)) => format!(
            "a process of user {user} connected to {to}, which leads to the socket {}; only Traefik may, so it was refused",
            path.display()
        ),
        Err(error) => format!(
            "nobody is let in to the socket {}: the kernel can't be asked who connects: {error}",
            path.display()
        ),
    };
    if throttle::is_first(
        "connections to sockets that were refused",
        throttle::Peer::Unknown,
        &path.display().to_string(),
    ) {
        warn!("Refused: {refusal}");
    } else {
        debug!("Refused: {refusal}");
    }
    false
}

fn is_first_denied(path: &Path) -> bool {
    throttle::is_first("sockets that do not let us in", throttle::Peer::Unknown, &path.display().to_string())
}

async fn carry(client: TcpStream, path: &Path, limits: &Limits) {
    prepare(&client, limits);
    match connect(path, limits.connect_timeout).await {
        Ok(server) => pump(client, server).await,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_first_denied(path) => {
            warn!("The socket {} does not let us in; its mode and its folder's must allow our user", path.display());
        }
        Err(error) => debug!(%error, "Nobody is at the socket {}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_foreign_user_is_closed_out_before_the_socket_hears_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("server.sock");
        let server = UnixListener::bind(&path).expect("binds");
        let us = rustix::process::geteuid().as_raw();
        let (forwards, runner) = Forwards::guarded_by(Limits::default(), Doorman::of([us + 1]));
        let stop = CancellationToken::new();
        let address = forwards.address(&path).expect("an address");
        let visit = async {
            let mut client = TcpStream::connect(address).await.expect("connects");
            assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0, "closed");
        };
        tokio::select! {
            () = runner.run(stop) => panic!("ended"),
            accepted = server.accept() => panic!("carried: {accepted:?}"),
            () = visit => {}
        }
    }
}
