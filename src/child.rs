//! A Traefik of our own, as a child process: found, configured, started, watched, started again, and never left behind.
//!
//! We hold its listening sockets and hand them to each new child, as systemd does. So a Traefik that is started again
//! refuses nobody, a busy port is our own error at our own start, and no other user of the machine can take its place.
//! The thread that started a child lives as long as we do, for the kernel ends the child when that thread ends.

pub mod binary;
pub mod exec;
pub mod gate;
pub mod leftover;

mod log;
mod supervise;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use gate::Door;
use supervise::Supervisor;

/// How long a child may take to end after it was asked, before it is killed. The hub gives us 1 s in all.
const STOP_WAIT: Duration = Duration::from_millis(500);

/// What a child is started with.
pub struct ChildSettings {
    /// The program.
    pub binary: PathBuf,
    /// Its static configuration.
    pub config_file: PathBuf,
    /// Where it works.
    pub folder: PathBuf,
    /// The file that says which process it is, for [`leftover::find`].
    pub record: PathBuf,
    /// Called before each start, to write files that are missing.
    pub prepare: Box<dyn Fn() + Send>,
    /// The sockets that it listens on, by the name of the entry point.
    pub sockets: Vec<(String, Arc<TcpListener>)>,
    /// Those of them that users come in by.
    pub doors: Vec<Door>,
}

/// How the child is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is being started for the first time.
    Starting,
    /// It runs.
    Running {
        /// Its process number.
        pid: u32,
        /// How often it was started again.
        restarts: u64,
    },
    /// It ended, and will be started again.
    Down {
        /// How it ended: nothing that a user could have put into its log.
        how: String,
        /// How often it was started again before.
        restarts: u64,
    },
    /// It can't be started at all, or it ended at its first start again and again: nothing will change by itself.
    Failed {
        /// Why.
        how: String,
    },
}

impl State {
    /// How often the child was started again.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        match self {
            Self::Running { restarts, .. } | Self::Down { restarts, .. } => *restarts,
            Self::Starting | Self::Failed { .. } => 0,
        }
    }
}

/// A child that is kept running.
#[derive(Debug)]
pub struct Child {
    supervisor: Arc<Supervisor>,
    state: watch::Receiver<State>,
    doors: Vec<Door>,
}

impl Child {
    /// Starts it, and keeps it running.
    pub fn start(settings: ChildSettings) -> std::io::Result<Self> {
        let doors = settings.doors.clone();
        let (supervisor, state) = Supervisor::start(settings)?;
        Ok(Self { supervisor, state, doors })
    }

    /// How it is, and every change of that.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// It has served: from now on its end is a passing fault, however often it comes.
    pub fn has_served(&self) {
        self.supervisor.has_served();
    }

    /// Asks it to read its files again. `false`: it does not run, or not for long enough to understand that.
    #[must_use]
    pub fn read_again(&self) -> bool {
        self.supervisor.read_again()
    }

    /// Lets users in: at the end of a child their sockets are closed to new clients.
    pub fn let_users_in(&self) {
        gate::open(&self.doors);
    }

    /// Waits for the stop, then ends the child, and returns when it is gone.
    pub async fn run_until(self: Arc<Self>, stop: CancellationToken) {
        stop.cancelled().await;
        self.supervisor.ask_to_end();
        let mut ended = self.supervisor.ended();
        let gone = async { ended.wait_for(|ended| *ended).await.is_ok() };
        if tokio::time::timeout(STOP_WAIT, gone).await.is_err() {
            self.supervisor.kill();
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }
}

/// The flag that names its configuration: what a child of ours is recognised by.
fn config_flag(config_file: &Path) -> String {
    format!("--configFile={}", config_file.display())
}
