//! An HTTP client that sends exactly the bytes it is given, and a server that answers with them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Nothing in these tests takes longer, unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// More connections at once than the library's default queue of 128 holds, and fewer than any system's.
pub(crate) const BURST: usize = 300;

/// A connection to a listener that may not accept for a while. One that the kernel drops is tried again after a second.
pub(crate) async fn connect_within_a_second<S>(connecting: impl Future<Output = std::io::Result<S>>) -> S {
    timeout(Duration::from_millis(900), connecting).await.expect("the queue takes it").expect("connects")
}

/// An answer, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: u16,
    /// Names in lower case, and values.
    pub(crate) headers: Vec<(String, String)>,
    /// The body, unchunked.
    pub(crate) body: String,
}

impl Reply {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{self:?} is not JSON: {error}"))
    }
}

/// What a connection is made of: TCP, TLS, a Unix socket.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await.expect("connects in time").expect("connects");
        Self::over(stream)
    }

    /// HTTP over something that is connected already.
    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), unread: Vec::new() }
    }

    /// Sends bytes; that the other side has gone shows when its answer is read.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_send(bytes).await;
    }

    /// Sends bytes, unless the other side has gone.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("the bytes are taken in time")
    }

    /// Says that nothing more will be sent; answers can still come.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.expect("half closed");
    }

    /// Reads the head of the next request.
    pub(crate) async fn head(&mut self) -> Option<String> {
        Some(String::from_utf8_lossy(&self.until(b"\r\n\r\n").await?).into_owned())
    }

    /// Reads the next answer; `bodiless`: it answers a HEAD.
    pub(crate) async fn reply_to(&mut self, bodiless: bool) -> Option<Reply> {
        let head = self.until(b"\r\n\r\n").await?;
        let head = String::from_utf8(head).expect("a head is text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut reply = Reply { status: status.expect("a status line"), headers, body: String::new() };
        if bodiless || matches!(reply.status, 100 | 101 | 204 | 304) {
            return Some(reply);
        }
        let body = if reply.header("transfer-encoding") == Some("chunked") {
            self.chunks().await
        } else {
            let length = reply.header("content-length").map(|text| text.parse().expect("a length"));
            self.exactly(length.unwrap_or(0)).await
        };
        reply.body = String::from_utf8_lossy(&body?).into_owned();
        Some(reply)
    }

    /// Reads the next answer.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.reply_to(false).await.expect("an answer before the connection ends")
    }

    /// Whether the other side closes, now that everything was read.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && !self.more().await
    }

    /// Whether nothing arrives for a while: for answers that must not come.
    pub(crate) async fn is_silent(&mut self, time: Duration) -> bool {
        let mut byte = [0];
        self.unread.is_empty() && timeout(time, self.stream.read(&mut byte)).await.is_err()
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return Some(self.unread.drain(..at + end.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            if !self.more().await {
                return None;
            }
        }
        Some(self.unread.drain(..length).collect())
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?;
            let line = String::from_utf8_lossy(&line);
            let length = usize::from_str_radix(line.trim(), 16).expect("a chunk's length");
            body.extend(self.exactly(length).await?);
            self.until(b"\r\n").await?;
            if length == 0 {
                return Some(body);
            }
        }
    }

    async fn more(&mut self) -> bool {
        let mut buffer = vec![0; 16 * 1024];
        let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("no more bytes within {PATIENCE:?}; so far: {:?}", self.unread));
        let length = read.unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..length]);
        length > 0
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Reply {
    let mut connection = Connection::open(address).await;
    let bodiless = request.as_ref().starts_with(b"HEAD ");
    connection.send(request).await;
    connection.reply_to(bodiless).await.expect("an answer")
}

/// A server for others to talk to: it answers each request with what `answer` makes of its head.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The head of each request.
    pub(crate) heads: mpsc::UnboundedReceiver<String>,
    tasks: tokio::task::JoinSet<()>,
}

impl Server {
    /// Starts one. `None` as an answer: it never comes.
    pub(crate) async fn start(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, heads) = mpsc::unbounded_channel();
        let answer = std::sync::Arc::new(answer);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, sender) = (answer.clone(), sender.clone());
                connections.spawn(async move {
                    let mut connection = Connection::over(stream);
                    let Some(head) = connection.head().await else { return };
                    let _ = sender.send(head.clone());
                    match answer(&head) {
                        Some(bytes) => {
                            connection.send(bytes).await;
                        }
                        None => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, heads, tasks }
    }

    /// Ends it; its port refuses connections from now on.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// An answer with a body.
pub(crate) fn response(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes =
        format!("HTTP/1.1 {status} Some\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len())
            .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// An answer with the head of the request as its body; a websocket is accepted, and the head is its first bytes.
pub(crate) fn echo(head: &str) -> Vec<u8> {
    if head.to_ascii_lowercase().contains("upgrade: websocket") {
        let accept = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        return [accept.as_bytes(), head.as_bytes()].concat();
    }
    response(200, "", head)
}
