//! Bytes through the forwarder: all of them, both ways, and for nobody who may not.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pointsman::forward::{Connections, Counts, Forwards, Limits, SocketForward};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::http::{BURST, PATIENCE, connect_within_a_second};
use crate::support::wait::eventually;

/// A running registry over a folder of sockets.
struct World {
    folder: TempDir,
    forwards: Forwards,
    counts: Arc<Counts>,
    stop: CancellationToken,
    runner: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    fn start(limits: Limits) -> Self {
        let (forwards, runner) = Forwards::new(limits);
        let (counts, stop) = (runner.counts(), CancellationToken::new());
        let runner = tokio::spawn(runner.run(stop.clone()));
        Self { folder: tempfile::tempdir().expect("a folder"), forwards, counts, stop, runner }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn connect(&self, path: &Path) -> TcpStream {
        TcpStream::connect(self.forwards.address(path).expect("an address")).await.expect("connects")
    }
}

/// Answers every connection with what it sends, and ends when the client has ended.
async fn echo(server: UnixListener) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = server.accept().await.expect("accepts");
        connections.spawn(async move {
            let (mut read, mut write) = split(stream);
            let _ = copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
    }
}

fn serve<F: Future<Output = ()> + Send + 'static>(
    path: &Path,
    serve: impl FnOnce(UnixListener) -> F,
) -> JoinHandle<()> {
    tokio::spawn(serve(UnixListener::bind(path).expect("binds")))
}

/// Bytes without a pattern that buffers could hide.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

/// Sends everything, ends its side, and reads until the other side ends.
async fn exchange(stream: impl AsyncRead + AsyncWrite + Send + 'static, bytes: Vec<u8>) -> Vec<u8> {
    let (mut read, mut write) = split(stream);
    let send = async move {
        write.write_all(&bytes).await.expect("sent");
        write.shutdown().await.expect("ended");
    };
    let receive = async move {
        let mut all = Vec::new();
        read.read_to_end(&mut all).await.expect("received");
        all
    };
    timeout(PATIENCE, async { tokio::join!(send, receive).1 }).await.expect("in time")
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(timeout(PATIENCE, stream.read(&mut byte)).await.expect("no hang"), Ok(0) | Err(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_megabytes_both_ways_and_a_half_close() {
    let world = World::start(Limits::default());
    let path = world.path("server.sock");
    let _server = serve(&path, echo);
    let sent = noise(16 * 1024 * 1024);
    // The echo of the end comes back only if ending one direction leaves the other one open.
    assert!(exchange(world.connect(&path).await, sent.clone()).await == sent, "the bytes differ");
}

#[tokio::test]
async fn each_socket_has_an_address_of_its_own_that_stays() {
    let world = World::start(Limits::default());
    let (a, b) = (world.path("a.sock"), world.path("b.sock"));
    let addresses = [&a, &b].map(|path| world.forwards.address(path).expect("an address"));
    assert_ne!(addresses[0], addresses[1]);
    assert!(addresses.iter().all(|address| address.ip().is_loopback()));
    assert_eq!(world.forwards.address(&a).expect("an address"), addresses[0]);
    assert_eq!(world.forwards.len(), 2);
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_back() {
    let world = World::start(Limits::default());
    let path = world.path("server.sock");
    let taken = Arc::new(AtomicUsize::new(0));
    let seen = taken.clone();
    let _server = serve(&path, |server| async move {
        let (stream, _) = server.accept().await.expect("accepts");
        // It never reads: what the sender gets rid of is what lies in buffers.
        let _open = stream;
        std::future::pending::<()>().await;
    });
    let mut client = world.connect(&path).await;
    tokio::spawn(async move {
        let chunk = vec![b'x'; 64 * 1024];
        while client.write_all(&chunk).await.is_ok() {
            seen.fetch_add(chunk.len(), Ordering::Relaxed);
        }
    });
    let mut last = usize::MAX;
    eventually("the sender is held back", PATIENCE, || {
        let now = taken.load(Ordering::Relaxed);
        let stands = now > 0 && now == last;
        last = now;
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if stands { Ok(()) } else { Err(format!("{now} bytes were taken")) }
        }
    })
    .await;
    let taken = taken.load(Ordering::Relaxed);
    assert!(taken < 16 * 1024 * 1024, "{taken} bytes were taken, although nobody reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_to_a_server_with_a_short_queue() {
    let world = World::start(Limits::default());
    let path = world.path("server.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&socket2::SockAddr::unix(&path).expect("an address")).expect("binds");
    socket.listen(1).expect("listens");
    socket.set_nonblocking(true).expect("set");
    let listener = UnixListener::from_std(socket.into()).expect("a listener");
    let _server = tokio::spawn(echo(listener));
    let mut clients = JoinSet::new();
    for i in 0..300_u32 {
        let client = world.connect(&path).await;
        clients.spawn(async move {
            let sent = i.to_be_bytes().repeat(1000);
            assert!(exchange(client, sent.clone()).await == sent, "connection {i}");
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("a good connection");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let world = World::start(Limits { connections_max: 2, ..Limits::of(Some(8)) });
    let path = world.path("server.sock");
    let _server = serve(&path, echo);
    let mut open = Vec::new();
    assert_eq!(world.counts.read(), Connections { open: 0, max: 8, limit_reached: 0 });
    for _ in 0..2 {
        let mut client = world.connect(&path).await;
        client.write_all(b"x").await.expect("sent");
        assert_eq!(client.read_u8().await.expect("an echo"), b'x');
        open.push(client);
    }
    let mut third = world.connect(&path).await;
    third.write_all(b"y").await.expect("the kernel takes it");
    assert!(timeout(Duration::from_millis(100), third.read_u8()).await.is_err(), "no place yet");
    assert_eq!(world.counts.read(), Connections { open: 2, max: 8, limit_reached: 1 });
    drop(open);
    assert_eq!(timeout(PATIENCE, third.read_u8()).await.expect("in time").expect("an echo"), b'y');
    drop(third);
    eventually("no connection is counted", PATIENCE, || async {
        let counted = world.counts.read().open;
        if counted == 0 { Ok(()) } else { Err(format!("{counted}")) }
    })
    .await;
}

#[tokio::test]
async fn a_socket_that_is_gone_closes_and_one_that_comes_works() {
    let world = World::start(Limits::default());
    let path = world.path("server.sock");
    assert!(is_closed(&mut world.connect(&path).await).await, "nothing is there");
    let server = serve(&path, echo);
    assert_eq!(exchange(world.connect(&path).await, b"hello".to_vec()).await, b"hello");
    server.abort();
    let _ = server.await;
    assert!(is_closed(&mut world.connect(&path).await).await, "nobody listens any more");
    std::fs::remove_file(&path).expect("removed");
    let _server = serve(&path, echo);
    assert_eq!(exchange(world.connect(&path).await, b"again".to_vec()).await, b"again");
}

#[tokio::test]
async fn a_server_that_dies_closes_the_connection() {
    let world = World::start(Limits::default());
    let path = world.path("server.sock");
    let server = serve(&path, echo);
    let mut client = world.connect(&path).await;
    client.write_all(b"x").await.expect("sent");
    assert_eq!(client.read_u8().await.expect("an echo"), b'x');
    server.abort();
    assert!(is_closed(&mut client).await);
}

#[tokio::test]
async fn a_retired_address_refuses_and_what_is_open_goes_on() {
    let world = World::start(Limits::default());
    let (kept, path) = (world.path("kept.sock"), world.path("server.sock"));
    let (_server, _other) = (serve(&path, echo), serve(&kept, echo));
    world.forwards.address(&kept).expect("an address");
    let address = world.forwards.address(&path).expect("an address");
    let mut client = world.connect(&path).await;
    client.write_all(b"x").await.expect("sent");
    assert_eq!(client.read_u8().await.expect("an echo"), b'x');
    world.forwards.retain(|path| path == kept);
    eventually("the address is closed", PATIENCE, || async {
        TcpStream::connect(address).await.map_or(Ok(()), |_| Err("it accepts".to_owned()))
    })
    .await;
    client.write_all(b"y").await.expect("sent");
    assert_eq!(client.read_u8().await.expect("an echo"), b'y', "open connections go on");
    assert_eq!(exchange(world.connect(&kept).await, b"kept".to_vec()).await, b"kept");
    assert_eq!(exchange(world.connect(&path).await, b"back".to_vec()).await, b"back", "it may come back");
}

#[tokio::test]
async fn a_stop_cuts_what_does_not_end() {
    let mut world = World::start(Limits { stop_timeout: Duration::from_millis(50), ..Limits::default() });
    let path = world.path("server.sock");
    let _server = serve(&path, echo);
    let mut client = world.connect(&path).await;
    client.write_all(b"x").await.expect("sent");
    assert_eq!(client.read_u8().await.expect("an echo"), b'x');
    let begun = Instant::now();
    world.stop.cancel();
    timeout(PATIENCE, &mut world.runner).await.expect("ends").expect("no panic");
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    assert!(is_closed(&mut client).await);
    assert!(TcpStream::connect(world.forwards.address(&path).expect("known")).await.is_err());
    let error = world.forwards.address(&world.path("late.sock")).expect_err("it has ended");
    assert!(error.to_string().contains("ended"), "{error}");
}

/// Only root can become somebody else; for all others the module's own tests let the doorman refuse us ourselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_a_shell_does_not_get_around_the_mode_of_a_socket() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::start(Limits { connections_max: 1, ..Limits::default() });
    let path = world.path("server.sock");
    let heard = Arc::new(AtomicUsize::new(0));
    let hears = heard.clone();
    let _server = serve(&path, |server| async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = server.accept().await.expect("accepts");
            hears.fetch_add(1, Ordering::Relaxed);
            connections.spawn(async move { stream.read_to_end(&mut Vec::new()).await });
        }
    });
    let port = world.forwards.address(&path).expect("an address").port();
    let as_user = async |user: &str, script: String| {
        let output = tokio::process::Command::new("setpriv")
            .args(["--reuid", user, "--regid", user, "--clear-groups", "bash", "-c", &script])
            .stdin(Stdio::null())
            .output();
        timeout(PATIENCE, output).await.expect("no hang").expect("setpriv and bash are installed")
    };
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    as_user("65534", format!("{connect} && echo hello >&3; cat <&3")).await;
    assert_eq!(heard.load(Ordering::Relaxed), 0, "a foreign process reached the socket");

    // While the only place is taken others queue; these have sent and are gone before anybody asks whose they were.
    let client = world.connect(&path).await;
    eventually("our own connection", PATIENCE, || async {
        if heard.load(Ordering::Relaxed) == 1 { Ok(()) } else { Err("not there".to_owned()) }
    })
    .await;
    as_user("65534", format!("for i in $(seq 20); do ({connect} && echo attack >&3); done")).await;
    drop(client);
    // The last one in the queue comes after all of them.
    let script = format!("{connect} && echo hello >&3; sleep 60 <&3 & sleep 0.2; kill $!");
    let root = as_user("0", script);
    let arrives = eventually("a process of root", PATIENCE, || async {
        if heard.load(Ordering::Relaxed) == 2 {
            Ok(())
        } else {
            Err(format!("{} connections", heard.load(Ordering::Relaxed)))
        }
    });
    tokio::join!(root, arrives);
    assert_eq!(heard.load(Ordering::Relaxed), 2, "nobody but us");
}

/// A public socket that leads to an echo by TCP.
async fn public(path: &Path, stop: &CancellationToken) -> (JoinHandle<()>, SocketAddr) {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let to = server.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = server.accept().await.expect("accepts");
            connections.spawn(async move {
                let (mut read, mut write) = split(stream);
                let _ = copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    let limits = Limits { stop_timeout: Duration::from_millis(50), ..Limits::default() };
    let forward = SocketForward::bind(path, to, limits).await.expect("binds");
    (tokio::spawn(forward.run(stop.clone())), to)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_public_socket_leads_to_tcp() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("public.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a stale file"));
    let stop = CancellationToken::new();
    let (running, to) = public(&path, &stop).await;
    let sent = noise(16 * 1024 * 1024);
    assert!(exchange(UnixStream::connect(&path).await.expect("connects"), sent.clone()).await == sent);

    let busy = SocketForward::bind(&path, to, Limits::default()).await.expect_err("it is in use");
    assert!(busy.contains("another program listens there"), "{busy}");

    let mut open = UnixStream::connect(&path).await.expect("connects");
    open.write_all(b"x").await.expect("sent");
    assert_eq!(open.read_u8().await.expect("an echo"), b'x');
    stop.cancel();
    timeout(PATIENCE, running).await.expect("ends").expect("no panic");
    assert!(!path.exists(), "the file is removed");
    assert_eq!(open.read(&mut [0]).await.unwrap_or(0), 0, "cut");
}

#[tokio::test]
async fn a_public_socket_whose_address_is_dead_closes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("public.sock");
    let dead = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let to = dead.local_addr().expect("an address");
    drop(dead);
    let stop = CancellationToken::new();
    let forward = SocketForward::bind(&path, to, Limits::default()).await.expect("binds");
    let running = tokio::spawn(forward.run(stop.clone()));
    let mut client = UnixStream::connect(&path).await.expect("connects");
    assert_eq!(timeout(PATIENCE, client.read(&mut [0])).await.expect("no hang").unwrap_or(0), 0);
    stop.cancel();
    running.await.expect("no panic");
}

#[tokio::test]
async fn a_burst_of_connections_waits_in_the_queue() {
    // Nothing accepts here: the runner does not run.
    let (forwards, _runner) = Forwards::new(Limits::default());
    let folder = tempfile::tempdir().expect("a folder");
    let address = forwards.address(&folder.path().join("server.sock")).expect("an address");
    let path = folder.path().join("public.sock");
    let _public = SocketForward::bind(&path, address, Limits::default()).await.expect("binds");
    let mut burst = JoinSet::new();
    for _ in 0..BURST {
        burst.spawn(async move { connect_within_a_second(TcpStream::connect(address)).await });
    }
    assert_eq!(burst.join_all().await.len(), BURST);
    let mut open = Vec::new();
    for _ in 0..BURST {
        open.push(connect_within_a_second(UnixStream::connect(&path)).await);
    }
}

#[test]
fn the_limit_of_connections_follows_the_limit_of_open_files() {
    // Each test is a process of its own.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(800), ..limit }).expect("lowered");
    let limits = Limits::of(None);
    assert_eq!((limits.connections_max, limits.connections_total_max), (100, 100));
    assert_eq!(limits.clone().for_servers().connections_max, 25, "one server does not get all");
    assert_eq!(Limits::of(Some(3)).for_servers().connections_max, 1);
}
