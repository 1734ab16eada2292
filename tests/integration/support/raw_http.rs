//! HTTP byte by byte: a server that tells by which address it was reached, and a client that sends paths as they are.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One server that plays thousands: it listens on all of 127.0.0.0/8 and answers with the address that was asked.
pub(crate) struct Backends {
    pub(crate) port: u16,
    _task: JoinSet<()>,
}

impl Backends {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream));
            }
        });
        Self { port, _task: task }
    }

    /// The URL of server number `i`.
    pub(crate) fn url(&self, i: u16) -> String {
        let [high, low] = i.to_be_bytes();
        format!("http://{}:{}", Ipv4Addr::new(127, 1, high, low), self.port)
    }
}

async fn answer(mut stream: TcpStream) {
    let Ok(SocketAddr::V4(asked)) = stream.local_addr() else { return };
    let [_, _, high, low] = asked.ip().octets();
    let body = u16::from_be_bytes([high, low]).to_string();
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut buffer = Vec::new();
    while read_head(&mut stream, &mut buffer).await.is_some() {
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A kept-alive connection to Traefik.
pub(crate) struct RawClient {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer: status, head and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl RawClient {
    pub(crate) async fn connect(port: u16) -> Self {
        Self::try_connect(port).await.expect("a connection")
    }

    /// `None` if nobody listens.
    pub(crate) async fn try_connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        Some(Self { stream, buffer: Vec::new() })
    }

    /// Asks for a path exactly as it is written.
    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Answer {
        self.try_get(host, path).await.expect("an answer")
    }

    /// `None` if the connection breaks.
    pub(crate) async fn try_get(&mut self, host: &str, path: &str) -> Option<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await.ok()?;
        let head = read_head(&mut self.stream, &mut self.buffer).await?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        let length: usize = match status {
            204 | 304 => 0,
            _ => length.expect("a length").parse().expect("a number"),
        };
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
        let body = self.buffer.drain(..length).collect();
        Some(Answer { status, head, body: String::from_utf8(body).expect("text") })
    }
}

/// Reads up to the empty line; what follows stays in the buffer.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            return Some(String::from_utf8_lossy(&head).into_owned());
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
