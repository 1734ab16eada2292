//! Where the route leads: a server that answers every request with a word that nobody else knows.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::random;

/// The longest head of a request that is read.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How long a request may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// It listens for as long as this lives.
pub(super) struct Server {
    /// Where Traefik reaches it.
    pub(super) address: SocketAddr,
    /// What it answers.
    pub(super) word: String,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Listens where it is told to; else at the address that this machine has towards `traefik`.
    pub(super) async fn start(listen: Option<&str>, traefik: SocketAddr) -> Result<Self, String> {
        let (host, port) = listen.and_then(|listen| listen.rsplit_once(':')).unwrap_or(("", "0"));
        let ours = || {
            address_towards(traefik).map_err(|error| {
                format!("no way leads to {traefik} ({error}); say with --listen where this is reached")
            })
        };
        let host = if host.is_empty() { ours()?.to_string() } else { host.trim_matches(['[', ']']).to_owned() };
        let port: u16 = port.parse().map_err(|_| format!("--listen: {port} is no port"))?;
        let cannot = |error: io::Error| format!("--listen: {host} port {port} can't be listened at: {error}");
        let listener = TcpListener::bind((host.as_str(), port)).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        if address.ip().is_unspecified() {
            return Err(format!("--listen: {host} is no address that Traefik can reach; name one, or write :{port}"));
        }
        let word = random::digits::<16>();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, word.clone()));
        Ok(Self { address, word, _tasks: tasks })
    }
}

/// The address that others on the way to `there` see of us. Nothing is sent.
fn address_towards(there: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if there.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(there)?;
    Ok(socket.local_addr()?.ip())
}

async fn serve(listener: TcpListener, word: String) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{word}",
        word.len()
    );
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = answer.clone();
                connections.spawn(async move {
                    let _ = timeout(PATIENCE, one(stream, answer.as_bytes())).await;
                });
            }
            // Too many open files, for instance: some will be closed soon.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Reads the head of one request, and answers. Whoever asks in this way sends no body.
async fn one(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > HEAD_BYTES_MAX || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(answer).await?;
    stream.shutdown().await
}
