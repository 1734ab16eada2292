//! A connection that ends politely: an early answer must reach a client that is still sending.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long we listen to what nobody will read.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// A client that sends nothing for so long isn't sending any more: an idle connection ends quickly at a stop.
const SILENCE_MAX: Duration = Duration::from_millis(300);

/// How much of it we take.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A stream that, once our side is shut down, takes in what still arrives until the client closes too.
///
/// If a socket is closed while unread bytes lie in it, the kernel resets the connection, and the reset can overtake the
/// answer: a client that is refused before its body is read would see a broken pipe instead of the 403.
pub(super) struct Lingering<S> {
    stream: S,
    ending: Option<Ending>,
}

struct Ending {
    silence: Pin<Box<Sleep>>,
    latest: Instant,
    taken: usize,
}

impl<S> Lingering<S> {
    /// Wraps a stream.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, ending: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(ending) = &mut this.ending else {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            let latest = Instant::now() + LINGER_MAX;
            this.ending = Some(Ending { silence: Box::pin(sleep(SILENCE_MAX)), latest, taken: 0 });
            return self.poll_shutdown(cx);
        };
        let mut waste = [0; 8 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut waste);
            let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, &mut buffer) else {
                return ending.silence.as_mut().poll(cx).map(Ok);
            };
            ending.taken += buffer.filled().len();
            let now = Instant::now();
            let enough = ending.taken > LINGER_BYTES_MAX || now >= ending.latest;
            if read.is_err() || buffer.filled().is_empty() || enough {
                return Poll::Ready(Ok(()));
            }
            ending.silence.as_mut().reset((now + SILENCE_MAX).min(ending.latest));
        }
    }
}
