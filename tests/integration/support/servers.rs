//! Servers behind Traefik that answer as the path asks: `…/404` with that status, `…/ws` with a websocket that is left
//! open; and the clients for them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;

/// A pong without content, from a client: the shortest thing that a notebook ever sends.
const PONG: [u8; 6] = [0x8a, 0x80, 1, 2, 3, 4];

/// One server.
pub(crate) struct PathServer {
    pub(crate) address: SocketAddr,
    _task: JoinSet<()>,
}

impl PathServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream));
            }
        });
        Self { address, _task: task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// The same behind a Unix socket.
pub(crate) struct SocketServer {
    _task: JoinSet<()>,
}

impl SocketServer {
    /// Listens at this path, which must be free.
    pub(crate) fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a free path");
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream));
            }
        });
        Self { _task: task }
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        if last == "ws" {
            let upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            let _ = stream.write_all(upgrade.as_bytes()).await;
            while stream.read_buf(&mut buffer).await.is_ok_and(|length| length > 0) {
                buffer.clear();
            }
            return;
        }
        let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        let mut missing = length.and_then(|length| length.parse().ok()).unwrap_or(0_usize).saturating_sub(buffer.len());
        buffer.clear();
        while missing > 0 {
            match stream.read_buf(&mut buffer).await {
                Ok(length @ 1..) => missing = missing.saturating_sub(length),
                _ => return,
            }
            buffer.clear();
        }
        let status = last.parse().unwrap_or(200_u16);
        let answer = format!("HTTP/1.1 {status} Some\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            return Some(String::from_utf8_lossy(&head).into_owned());
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// A websocket from a browser to Traefik's public port.
pub(crate) struct OpenWebsocket(TcpStream);

impl OpenWebsocket {
    pub(crate) async fn open(port: u16, path: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("it takes the request");
        let head = read_head(&mut stream, &mut Vec::new()).await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self(stream)
    }

    pub(crate) async fn pong(&mut self) {
        self.0.write_all(&PONG).await.expect("it is open");
    }

    /// Whether the other side ends it in this time.
    pub(crate) async fn ends_within(&mut self, patience: Duration) -> bool {
        let read = tokio::time::timeout(patience, self.0.read(&mut [0; 64])).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    }
}

/// A request whose body comes in pieces.
pub(crate) struct Upload(TcpStream);

impl Upload {
    pub(crate) async fn begin(port: u16, path: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let head = format!("POST {path} HTTP/1.1\r\nHost: hub\r\nContent-Length: 1000000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("it takes the request");
        Self(stream)
    }

    pub(crate) async fn piece(&mut self) {
        self.0.write_all(&vec![b'x'; 20_000]).await.expect("it is open");
    }
}
