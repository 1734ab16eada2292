//! Clients without a token that do their worst, and how the calls of a hub fare meanwhile: none fails, and none takes long.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jsonwebtoken::{EncodingKey, Header, encode};
use pointsman::api::listen::tls::{Tls, TlsSettings};
use rstest::rstest;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::api::{Api, Setup, TOKEN};
use crate::support::certificates::Authority;
use crate::support::http::{Connection, PATIENCE, Server};
use crate::support::one_machine::OneMachine;
use crate::support::tls::TlsClient;
use crate::support::wait::eventually;

/// How long the hub makes calls while a flood lasts.
const LASTS: Duration = Duration::from_secs(4);

/// No call of the hub takes longer.
const WORST_MAX: Duration = Duration::from_secs(2);

/// An attacker waits this long before the next connection, for all of them have the two cores of the test.
const PAUSE: Duration = Duration::from_millis(200);

/// A hub with the right token.
struct Hub {
    api: SocketAddr,
    authority: Option<PathBuf>,
    took: Vec<(Duration, String)>,
}

impl Hub {
    async fn connect(&self) -> Connection {
        match &self.authority {
            Some(authority) => Connection::over(TlsClient::of(authority).connect(self.api).await.expect("a handshake")),
            None => Connection::open(self.api).await,
        }
    }

    /// One call, by the connection that is kept or by one of its own.
    async fn call(&mut self, kept: Option<&mut Connection>, line: &str, body: &str, status: u16) {
        let begun = Instant::now();
        let mut own = None;
        let connection = match kept {
            Some(kept) => kept,
            None => own.insert(self.connect().await),
        };
        let length = body.len();
        let head =
            format!("{line} HTTP/1.1\r\nHost: a\r\nAuthorization: token {TOKEN}\r\nContent-Length: {length}\r\n");
        connection.send(format!("{head}\r\n{body}")).await;
        let reply = connection.reply_to(false).await.unwrap_or_else(|| panic!("{line}: the connection ended"));
        assert_eq!(reply.status, status, "{line}: {reply:?}");
        self.took.push((begun.elapsed(), line.to_owned()));
    }

    /// Adds, reads and deletes routes for as long as it should, and says how that went.
    #[expect(clippy::print_stdout, reason = "how the hub fared is to be seen also when all is well")]
    async fn work(mut self, name: &str) {
        let begun = Instant::now();
        let mut kept = self.connect().await;
        for n in 0.. {
            let path = format!("/api/routes/user/{n}");
            self.call(None, &format!("POST {path}"), r#"{"target":"http://127.0.0.1:9"}"#, 201).await;
            self.call(Some(&mut kept), "GET /api/routes", "", 200).await;
            self.call(None, &format!("DELETE {path}"), "", 204).await;
            if begun.elapsed() > LASTS {
                break;
            }
        }
        self.took.sort_unstable();
        let calls = self.took.len();
        let (p99, _) = self.took[(calls * 99).div_ceil(100) - 1];
        let (worst, line) = &self.took[calls - 1];
        println!("flood={name} calls={calls} p99={p99:.1?} worst={worst:.1?} ({line})");
        assert!(*worst < WORST_MAX, "{name}: {line} took {worst:?}");
    }
}

/// Clients that connect again and again.
struct Flood {
    attackers: JoinSet<()>,
    connected: Arc<AtomicUsize>,
}

impl Flood {
    /// Each of `n` clients connects, does what `attack` says until that ends, and begins again.
    async fn start<F>(
        n: usize,
        api: SocketAddr,
        attack: impl Fn(TcpStream, usize) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let (mut attackers, connected) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for i in 0..n {
            let (attack, connected) = (attack.clone(), connected.clone());
            attackers.spawn(async move {
                let mut is_first = true;
                loop {
                    let socket = TcpSocket::new_v4().expect("a socket");
                    // An attacker has no use for a long buffer.
                    socket.set_recv_buffer_size(4096).expect("a short buffer");
                    if let Ok(stream) = socket.connect(api).await {
                        if std::mem::take(&mut is_first) {
                            connected.fetch_add(1, Ordering::Relaxed);
                        }
                        attack(stream, i).await;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        let flood = Self { attackers, connected };
        eventually("the flood", PATIENCE, || async {
            let connected = flood.connected.load(Ordering::Relaxed);
            if connected >= n { Ok(()) } else { Err(format!("{connected} of {n} have connected")) }
        })
        .await;
        flood
    }

    async fn end(mut self) {
        self.attackers.shutdown().await;
    }
}

/// More connections than a test has by default, here and in the program that is started.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("the soft limit is ours to set");
    assert!(limit.maximum.is_none_or(|files| files >= 4096), "the limit of open files is too low for these tests");
}

async fn start(flags: &[&str]) -> OneMachine {
    raise_open_files();
    let folder = tempfile::tempdir().expect("a folder");
    let machine = OneMachine::start_in(folder, flags, &[("CONFIGPROXY_AUTH_TOKEN", TOKEN)]).await;
    // The first route of all takes longer, flood or not.
    let mut hub = Hub { api: api_of(&machine), authority: None, took: Vec::new() };
    hub.call(None, "POST /api/routes/", r#"{"target":"http://127.0.0.1:9"}"#, 201).await;
    machine
}

fn api_of(machine: &OneMachine) -> SocketAddr {
    machine.api.trim_start_matches("http://").parse().expect("an address")
}

async fn hub_under(name: &str, machine: &OneMachine, flood: Flood) {
    Hub { api: api_of(machine), authority: None, took: Vec::new() }.work(name).await;
    flood.end().await;
}

/// Sends this, and then only waits for the end.
async fn hold(mut stream: TcpStream, bytes: impl AsRef<[u8]>) {
    let _ = stream.write_all(bytes.as_ref()).await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_never_read() {
    let machine = start(&[]).await;
    let requests = "GET /api/ HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    let flood = Flood::start(1100, api_of(&machine), move |mut stream, _| {
        let requests = requests.clone();
        async move { while stream.write_all(requests.as_bytes()).await.is_ok() {} }
    })
    .await;
    hub_under("answers-never-read", &machine, flood).await;
    let log = machine.process.log();
    assert!(log.contains("The limit of 1024 connections is reached (api)"), "{log}");
    assert!(log.contains("from 127.0.0.1"), "the peer is named: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_unfinished_requests() {
    let machine = start(&[]).await;
    let half = "POST /api/routes/a HTTP/1.1\r\nHost: a\r\nX-Half:";
    let flood =
        Flood::start(1200, api_of(&machine), move |stream, i| hold(stream, if i % 2 == 0 { "" } else { half })).await;
    hub_under("silent-and-unfinished", &machine, flood).await;
}

/// A JWT that names a key which no issuer has.
fn made_up(n: usize) -> String {
    let header = Header { kid: Some(format!("key-{n}")), ..Header::default() };
    encode(&header, &serde_json::json!({}), &EncodingKey::from_secret(b"guessed")).expect("a token")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_tokens_while_the_issuer_hangs() {
    let issuer = Server::start(|_| None).await;
    let url = format!("http://{}/keys", issuer.address);
    let flags = ["--jwt-jwks-url", &url, "--jwt-issuer", "issuer", "--jwt-audience", "pointsman"];
    let machine = start(&flags).await;
    let flood = Flood::start(400, api_of(&machine), |stream, i| {
        let token = made_up(i);
        hold(
            stream,
            format!(
                "GET /api/routes HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
            ),
        )
    })
    .await;
    hub_under("jwks-hangs", &machine, flood).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_calls() {
    let mut machine = start(&[]).await;
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = refused.clone();
    let flood = Flood::start(50, api_of(&machine), move |mut stream, i| {
        let refused = counted.clone();
        // Some have a wrong token, some none, some are lost.
        let call = match i % 3 {
            0 => "POST /api/routes/a HTTP/1.1\r\nHost: a\r\nAuthorization: token guessed\r\nContent-Length: 0\r\n\r\n",
            1 => "DELETE /api/routes/a HTTP/1.1\r\nHost: a\r\n\r\n",
            _ => "POST /elsewhere HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        };
        async move {
            let mut answer = [0; 4096];
            while stream.write_all(call.as_bytes()).await.is_ok() && stream.read(&mut answer).await.is_ok_and(|n| n > 0)
            {
                refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
    hub_under("refused-calls", &machine, flood).await;
    let refused = refused.load(Ordering::Relaxed);
    assert!(refused > 1000, "only {refused} calls were refused");
    machine.process.signal("TERM");
    assert_eq!(machine.process.end(PATIENCE).await, 0);

    let log = machine.process.log();
    let about_refusals: Vec<_> =
        log.lines().filter(|line| line.contains(" 403 in ") || line.contains(" 404 in ")).collect();
    assert!((3..10).contains(&about_refusals.len()), "{refused} refusals: {about_refusals:#?}");
    assert!(about_refusals.iter().any(|line| line.contains("the token is not one of ours")), "{about_refusals:#?}");
    // What was summed is written when the flood is over, here by the stop: each call is in one line or in a sum.
    let sums = log.lines().filter(|line| line.contains("from 127.0.0.1: calls without a valid token: ")).map(|line| {
        let (before, _) = line.split_once(" more in the last ").expect("a sum");
        before.rsplit(' ').next().and_then(|n| n.parse::<usize>().ok()).expect("a number")
    });
    let told = sums.sum::<usize>() + about_refusals.len();
    assert!(told >= refused && told < refused + 100, "{told} in the log of {refused}:\n{log}");
}

/// The first message of a handshake.
fn client_hello() -> Vec<u8> {
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("written");
    hello
}

async fn tls_api(folder: &Path) -> (Api, PathBuf) {
    raise_open_files();
    let authority = Authority::new("authority", folder);
    let server = authority.sign("server");
    let tls = Tls::new(TlsSettings::new("--api-ssl", server.key, server.cert)).expect("usable");
    (Api::start_with(Setup { tls: Some(tls), ..Setup::default() }).await, authority.file)
}

#[rstest]
#[case::half("tls-hello-half", true)]
#[case::whole("tls-hello-only", false)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_never_end(#[case] name: &str, #[case] half: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let (api, authority) = tls_api(folder.path()).await;
    let mut hello = client_hello();
    if half {
        hello.truncate(hello.len() / 2);
    }
    let flood = Flood::start(300, api.address, move |stream, _| hold(stream, hello.clone())).await;
    Hub { api: api.address, authority: Some(authority), took: Vec::new() }.work(name).await;
    flood.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_handshakes_than_there_is_room_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (api, authority) = tls_api(folder.path()).await;
    let hello = client_hello();
    let flood = Flood::start(1200, api.address, move |stream, _| hold(stream, hello.clone())).await;
    Hub { api: api.address, authority: Some(authority), took: Vec::new() }.work("tls-hello-1200").await;
    flood.end().await;
}
