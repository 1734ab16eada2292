//! Unix sockets as files: a stale one makes room, a live one is left alone, and ours is gone when we are. And what the
//! libraries leave out when they make a socket.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{listen, sockopt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// How long a socket that is there already may take to say whether anybody answers.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The kernel's limit for the path of a socket, in bytes.
pub const PATH_BYTES_MAX: usize = 107;

/// Lets as many connections wait in the queue of a listening socket as the system allows (`net.core.somaxconn`). The
/// libraries ask for 128, and connections beyond are dropped: over TCP the client tries again after a second.
pub fn lengthen_queue(listener: impl AsFd) -> io::Result<()> {
    // The kernel takes what it allows.
    Ok(listen(listener, i32::MAX)?)
}

/// What the kernel may keep of each direction of a connection, in bytes; it takes twice as much with what it needs itself.
const BUFFER_BYTES: usize = 64 * 1024;

/// Bounds the buffers of a connection, which else grow to megabytes. So it shows soon whether a client reads, and a client
/// that doesn't costs little.
pub fn bound_buffers(stream: impl AsFd) -> io::Result<()> {
    sockopt::set_socket_send_buffer_size(&stream, BUFFER_BYTES)?;
    Ok(sockopt::set_socket_recv_buffer_size(&stream, BUFFER_BYTES)?)
}

/// When this TCP connection is closed, what was not sent is thrown away, and the peer gets a reset: else the kernel goes on
/// trying for minutes.
pub fn reset_on_close(stream: impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(stream, Some(Duration::ZERO))?)
}

/// A Unix socket that listens. Its file has the mode that the umask leaves, and is removed when this is dropped.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl UnixSocket {
    /// Listens at `path`, which may be relative. The error is a sentence that says what to do.
    pub async fn bind(path: &Path) -> Result<Self, String> {
        if path.as_os_str().is_empty() {
            return Err("the path is empty".to_owned());
        }
        if path.as_os_str().len() > PATH_BYTES_MAX {
            return Err(format!("a socket's path may have {PATH_BYTES_MAX} bytes at most; choose a shorter one"));
        }
        make_room(path).await?;
        let listener = UnixListener::bind(path).map_err(|error| explain(&error))?;
        lengthen_queue(&listener).map_err(|error| explain(&error))?;
        Ok(Self { listener, path: path.to_owned(), file: identity(path) })
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Our successor may have put its own file there; that one must stay.
        if self.file.is_some()
            && self.file == identity(&self.path)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            debug!(%error, "The socket {} can't be removed: {error}", self.path.display());
        }
    }
}

/// Removes what a process that was killed has left behind, and nothing else.
async fn make_room(path: &Path) -> Result<(), String> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(explain(&error)),
    };
    if !kind.is_socket() {
        return Err(
            "a file of that name is there, and it is no socket; move it away, or choose another path".to_owned()
        );
    }
    match timeout(ANSWER_MAX, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            warn!("Nobody answers at the socket {}, so it is replaced", path.display());
            std::fs::remove_file(path).map_err(|error| format!("the stale socket can't be removed: {error}"))
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            info!("The socket {} was just removed by somebody else", path.display());
            Ok(())
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err("a socket of another user is there; remove it, or choose another path".to_owned())
        }
        // Also one that is too busy to take us is alive.
        _ => Err("another program listens there; stop it, or choose another path".to_owned()),
    }
}

/// Which file a path leads to.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program has just begun to listen there".to_owned(),
        io::ErrorKind::NotFound => "its folder does not exist; create it".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "its folder does not let us write; change its owner or mode, or choose another path".to_owned()
        }
        _ => error.to_string(),
    }
}
