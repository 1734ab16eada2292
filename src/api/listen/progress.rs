//! A connection whose client must read: one that takes nothing of its answers for some seconds ends.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};
use tracing::{debug, warn};

use crate::api::caller::Client;
use crate::socket::reset_on_close;
use crate::telemetry::throttle;

/// An accepted socket.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {
    /// Throws away what was not sent when it is closed.
    fn reset_on_close(&self);
}

impl Socket for TcpStream {
    fn reset_on_close(&self) {
        // At worst the kernel tries to send for some minutes.
        let _ = reset_on_close(self);
    }
}

impl Socket for UnixStream {
    fn reset_on_close(&self) {}
}

/// A socket that fails once a write has made no progress for too long.
pub(super) struct Progressing {
    socket: Box<dyn Socket>,
    client: Arc<Client>,
    stall_max: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Progressing {
    /// Watches over `socket`.
    pub(super) fn new(socket: Box<dyn Socket>, client: Arc<Client>, stall_max: Duration) -> Self {
        Self { socket, client, stall_max, stalled: None }
    }

    /// What a write came to, unless it has waited for too long.
    fn watched<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let stall_max = self.stall_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall_max)));
        if stalled.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let (peer, s) = (self.client.peer(), stall_max.as_secs());
        if throttle::is_first("clients that stopped reading", peer, "") {
            warn!(%peer, "A client at {peer} has read nothing of its answers for {s} s; closing its connection");
        } else {
            debug!(%peer, "A client at {peer} does not read its answers");
        }
        self.socket.reset_on_close();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Progressing {
    fn drop(&mut self) {
        if self.client.evicted().is_cancelled() {
            self.socket.reset_on_close();
        }
    }
}

impl AsyncRead for Progressing {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Progressing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.watched(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.watched(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
