//! A TCP proxy that a test can break and mend.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::process::free_port;
use super::wait::eventually;

/// Stands before a port of this machine.
pub(crate) struct ChaosProxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weather {
    /// Connections are refused, and those that were open are closed.
    refusing: bool,
    /// Connections are taken, and then nothing ever happens on them.
    stalled: bool,
    /// A connection that is older than this is half open: it stays, and nothing happens on it, also after a mending.
    epoch: u64,
    delay: Duration,
}

impl ChaosProxy {
    /// Starts one in front of `port`.
    pub(crate) async fn before(port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let weather = watch::Sender::new(Weather { refusing: false, stalled: false, epoch: 0, delay: Duration::ZERO });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(address, SocketAddr::from(([127, 0, 0, 1], port)), weather.subscribe()));
        let proxy = Self { address, weather, _tasks: tasks };
        proxy.wait_until_open(true).await;
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes what is open, and refuses what comes.
    pub(crate) async fn cut(&self) {
        self.weather.send_modify(|weather| weather.refusing = true);
        self.wait_until_open(false).await;
    }

    /// Leaves everything open and lets nothing through, as a firewall does that has forgotten us.
    pub(crate) fn stall(&self) {
        self.weather.send_modify(|weather| {
            weather.stalled = true;
            weather.epoch += 1;
        });
    }

    /// Holds every piece of an answer back for so long. Requests go through at once.
    pub(crate) fn delay_answers(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// New connections work again. Stalled ones stay as they are.
    pub(crate) async fn mend(&self) {
        self.weather.send_modify(|weather| {
            (weather.refusing, weather.stalled, weather.delay) = (false, false, Duration::ZERO);
        });
        self.wait_until_open(true).await;
    }

    async fn wait_until_open(&self, open: bool) {
        eventually("the proxy's port", Duration::from_secs(5), || async {
            let connected = TcpStream::connect(self.address).await;
            if connected.is_ok() == open { Ok(()) } else { Err(format!("{connected:?}")) }
        })
        .await;
    }
}

async fn accept(here: SocketAddr, there: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let mut connections = JoinSet::new();
    loop {
        if weather.wait_for(|weather| !weather.refusing).await.is_err() {
            return;
        }
        let listener = TcpListener::bind(here).await.expect("our port is free");
        loop {
            tokio::select! {
                refusing = async { weather.wait_for(|weather| weather.refusing).await.is_ok() } => {
                    if refusing {
                        break;
                    }
                    return;
                }
                accepted = listener.accept() => {
                    let (client, _) = accepted.expect("a connection");
                    connections.spawn(carry(client, there, weather.clone()));
                }
            }
        }
        drop(listener);
        connections.shutdown().await;
    }
}

async fn carry(mut client: TcpStream, there: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let born = weather.borrow_and_update().epoch;
    if weather.borrow().stalled {
        std::future::pending::<()>().await;
    }
    let Ok(mut server) = TcpStream::connect(there).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.split(), server.split());
    let delayed = weather.clone();
    let up = pump(&mut from_client, &mut to_server, || Duration::ZERO);
    let down = pump(&mut from_server, &mut to_client, || delayed.borrow().delay);
    tokio::select! {
        () = up => {}
        () = down => {}
        () = async { drop(weather.wait_for(|weather| weather.epoch > born).await) } => {
            // The sockets stay open: that is what makes it half open.
            std::future::pending::<()>().await;
        }
    }
}

async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    delay: impl Fn() -> Duration,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let delay = delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
