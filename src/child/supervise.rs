//! The thread that starts a Traefik, waits for its end, and starts the next.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::exec::COMMAND;
use super::{ChildSettings, State, binary, config_flag, gate, log};

/// Pauses before the next start: from the second failure in a row on, doubling to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A child that ran for so long was well: the next pause is the shortest again.
const STEADY: Duration = Duration::from_secs(10);

/// A child that has never served and ended so often will not get better.
const FIRST_STARTS_MAX: u32 = 3;

/// Traefik ends at SIGHUP until it has begun to wait for it. After so long it has.
const HANGUP_SAFE_AFTER: Duration = Duration::from_secs(5);

/// The first file number that systemd's way of handing over sockets uses.
const FIRST_SOCKET: i32 = 3;

/// What of our environment the child gets. The hub's holds secrets, and proxies that would divert users' requests.
const ENVIRONMENT: &[&str] =
    &["PATH", "HOME", "TZ", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "GOMAXPROCS", "GOMEMLIMIT", "GOGC", "GODEBUG"];

#[derive(Debug)]
pub(super) struct Supervisor {
    /// The child that runs and when it was started, until it has been waited for: after that its number may be another
    /// process's.
    running: Mutex<Option<(Pid, Instant)>>,
    ending: AtomicBool,
    served: AtomicBool,
    /// Wakes the thread out of a pause.
    thread: Mutex<Option<std::thread::Thread>>,
    ended: watch::Sender<bool>,
}

impl Supervisor {
    /// Starts the thread.
    pub(super) fn start(settings: ChildSettings) -> io::Result<(Arc<Self>, watch::Receiver<State>)> {
        let supervisor = Arc::new(Self {
            running: Mutex::default(),
            ending: AtomicBool::new(false),
            served: AtomicBool::new(false),
            thread: Mutex::default(),
            ended: watch::Sender::new(false),
        });
        let (state, watched) = watch::channel(State::Starting);
        let ours = supervisor.clone();
        let handle = std::thread::Builder::new().name("traefik".to_owned()).spawn(move || {
            ours.run(&settings, &state);
            ours.ended.send_replace(true);
        })?;
        *supervisor.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle.thread().clone());
        Ok((supervisor, watched))
    }

    pub(super) fn has_served(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// Turns true when no child will run any more.
    pub(super) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// Asks the child to end, and starts no other.
    pub(super) fn ask_to_end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.signal(Signal::TERM);
        if let Some(thread) = &*self.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
        }
    }

    /// Ends the child at once.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    pub(super) fn read_again(&self) -> bool {
        match *self.running.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((pid, since)) if since.elapsed() > HANGUP_SAFE_AFTER => kill_process(pid, Signal::HUP).is_ok(),
            _ => false,
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some((pid, _)) = *self.running.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = kill_process(pid, signal);
        }
    }

    fn run(&self, settings: &ChildSettings, state: &watch::Sender<State>) {
        let (mut restarts, mut failures) = (0, 0_u32);
        while !self.ending.load(Ordering::SeqCst) {
            let began = Instant::now();
            let (how, said) = match self.run_once(settings, state, restarts) {
                Ok((how, said)) => (how, said.map(|said| format!(": {said}")).unwrap_or_default()),
                Err(error) => (format!("{} can't be started: {error}", settings.binary.display()), String::new()),
            };
            if self.ending.load(Ordering::SeqCst) {
                return;
            }
            failures = if began.elapsed() > STEADY { 0 } else { failures + 1 };
            if !self.served.load(Ordering::Relaxed) && failures >= FIRST_STARTS_MAX {
                let cause = cause(settings, &said);
                error!("Traefik {how}{said}{cause}");
                state.send_replace(State::Failed { how });
                return;
            }
            let pause = if failures <= 1 { Duration::ZERO } else { PAUSES.0 * (1 << (failures - 2).min(8)) };
            let pause = pause.min(PAUSES.1);
            warn!(
                "Traefik {how}{said}; starting it again{}",
                if pause.is_zero() { String::new() } else { format!(" in {pause:?}") }
            );
            state.send_replace(State::Down { how, restarts });
            std::thread::park_timeout(pause);
            restarts += 1;
        }
    }

    /// One life of a child. Says how it ended, and its own reason if it gave one.
    fn run_once(
        &self,
        settings: &ChildSettings,
        state: &watch::Sender<State>,
        restarts: u64,
    ) -> io::Result<(String, Option<String>)> {
        (settings.prepare)();
        let (mut child, output) = {
            // Whoever asks for the end either finds this child's number, or has kept us from starting it.
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if self.ending.load(Ordering::SeqCst) {
                return Ok(("was not started".to_owned(), None));
            }
            let (child, output) = spawn(settings)?;
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            *running = pid.map(|pid| (pid, Instant::now()));
            (child, output)
        };
        let pid = child.id();
        info!(pid, "Traefik runs as process {pid}");
        state.send_replace(State::Running { pid, restarts });
        let reader = std::thread::Builder::new().name("traefik log".to_owned()).spawn(move || log::join(output));
        if reader.is_err() {
            // Nothing would read what it writes.
            self.kill();
        }
        let status = self.wait(&mut child)?;
        gate::close(&settings.doors);
        // What it said is for the log alone: it may quote what a user has sent.
        let said = reader?.join().unwrap_or_default().filter(|_| !status.success());
        Ok((format!("ended ({status})"), said))
    }

    /// Waits for the end. The number of the child is taken back before it is given up to the system.
    fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            while waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
                .is_err_and(|e| e == rustix::io::Errno::INTR)
            {}
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running = None;
        child.wait()
    }
}

/// Starts our own program, which becomes Traefik, with the sockets and a clean environment. What it writes comes together.
fn spawn(settings: &ChildSettings) -> io::Result<(Child, io::PipeReader)> {
    let (output, input) = io::pipe()?;
    let mut mappings = Vec::new();
    let mut names = Vec::new();
    for (child_fd, (name, socket)) in (FIRST_SOCKET..).zip(&settings.sockets) {
        mappings.push(FdMapping { parent_fd: OwnedFd::from(socket.try_clone()?), child_fd });
        names.push(name.as_str());
    }
    // Not by its path: that may hold another version by now.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(COMMAND)
        .arg(std::process::id().to_string())
        .arg(&settings.record)
        .arg(&settings.binary)
        .arg(config_flag(&settings.config_file))
        .current_dir(&settings.folder)
        .env_clear()
        .envs(ENVIRONMENT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))))
        .env("LISTEN_FDS", names.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        .stdin(Stdio::from(File::open("/dev/null")?))
        .stdout(input.try_clone()?)
        .stderr(input);
    command.fd_mappings(mappings).map_err(|_| io::Error::other("two sockets have one number"))?;
    Ok((command.spawn()?, output))
}

/// What is behind the reason that Traefik gives, where we know better.
fn cause(settings: &ChildSettings, said: &str) -> String {
    // Sockets are handed over to one process number: that of the shell, if the shell starts Traefik as a child.
    if said.contains("address already in use") && binary::is_script(&settings.binary) {
        let script = settings.binary.display();
        return format!(
            ". {script} is a script: its last line must be `exec traefik \"$@\"`, so that Traefik itself gets the sockets \
             that Pointsman hands over"
        );
    }
    String::new()
}
