//! One address before several servers of one kind, for a client that never leaves a server that hangs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::members::Members;
use super::{Counts, Crew, Limits, after, prepare};
use crate::socket::lengthen_queue;
use crate::telemetry::throttle::{self, Peer};

/// Each member is looked at this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A look that takes longer has failed. The look itself should end a little earlier, and then say why.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is decided who is sick.
const JUDGE_INTERVAL: Duration = Duration::from_millis(100);
/// How long a member may take to accept a connection before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Carries the connections of one address to members that are well, and ends those to a member that is sick.
#[derive(Debug)]
pub struct Relay {
    listener: TcpListener,
    members: Arc<Members>,
    limits: Limits,
}

impl Relay {
    /// Listens at `address`, before the members, each as `HOST:PORT`. The error is that of the socket.
    pub async fn bind(address: &str, members: Vec<String>, limits: Limits) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        lengthen_queue(&listener)?;
        Ok(Self { listener, members: Arc::new(Members::new(members)), limits })
    }

    /// Carries connections until `stop`; then those that are open have a little time left. `look` asks the member of that
    /// number whether it does its work, and says why if it doesn't.
    pub async fn run<F>(self, look: impl Fn(usize) -> F + Clone + Send + 'static, stop: CancellationToken)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let Self { listener, members, limits } = self;
        let mut looks = JoinSet::new();
        for at in 0..members.count() {
            looks.spawn(keep_looking(members.clone(), at, look.clone()));
        }
        looks.spawn(keep_judging(members.clone()));
        let crew = Crew::new(&limits, Arc::new(Counts::new(limits.connections_total_max)));
        let connections = Arc::new(Semaphore::new(limits.connections_max));
        let accepting = async {
            loop {
                let permits = crew.permits(&connections, limits.connections_max, "the address").await;
                match listener.accept().await {
                    Ok((client, _)) => crew.carry(permits, carry(client, members.clone(), limits.clone())),
                    Err(error) => after(&error).await,
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            () = stop.cancelled() => {}
            // A task of these never ends; if one panics, we must not go on without it.
            ended = looks.join_next() => warn!("The looks at the members ended: {ended:?}"),
        }
        drop(listener);
        crew.end().await;
        info!("The relay has ended");
    }
}

async fn keep_looking<F>(members: Arc<Members>, at: usize, look: impl Fn(usize) -> F)
where
    F: Future<Output = Result<(), String>>,
{
    loop {
        let next = Instant::now() + LOOK_INTERVAL;
        match timeout(LOOK_TIMEOUT, look(at)).await {
            Ok(Ok(())) => members.answered(at),
            Ok(Err(why)) => members.failed(at, why),
            Err(_) => members.failed(at, "it does not answer".to_owned()),
        }
        sleep_until(next).await;
    }
}

async fn keep_judging(members: Arc<Members>) {
    let mut ticks = interval(JUDGE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        members.judge();
    }
}

/// One connection, from its beginning to its end.
async fn carry(mut client: TcpStream, members: Arc<Members>, limits: Limits) {
    prepare(&client, &limits);
    let Some((mut member, at, cut)) = connect(&members).await else {
        if throttle::is_first("connections that no member accepts", Peer::Unknown, "") {
            warn!("No member accepts connections");
        }
        return reset(&client);
    };
    prepare(&member, &limits);
    let ended = tokio::select! {
        ended = copy_bidirectional(&mut client, &mut member) => ended.map(drop),
        () = cut.cancelled() => Err(io::Error::other("the member is sick")),
    };
    if let Err(error) = ended {
        debug!(%error, "A connection to {} broke: {error}", members.address(at));
        // Both must hear that this was no good end.
        reset(&client);
        reset(&member);
    }
}

/// A connection to the best member that accepts one.
async fn connect(members: &Members) -> Option<(TcpStream, usize, CancellationToken)> {
    for at in members.order() {
        let cut = members.cut(at);
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(members.address(at))).await {
            Ok(Ok(member)) => return Some((member, at, cut)),
            Ok(Err(error)) => debug!(%error, "{} can't be reached: {error}", members.address(at)),
            Err(_) => debug!("{} does not accept connections", members.address(at)),
        }
    }
    None
}

/// When the connection is dropped the other side gets a reset.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
