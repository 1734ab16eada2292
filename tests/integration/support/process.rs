//! Foreign programs as children: found by one rule, never left behind, their log at hand when something fails.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Where a program is: named by its variable, fetched into the checkout, or on the PATH.
pub(crate) fn program(name: &str) -> PathBuf {
    let variable = format!("POINTSMAN_TEST_{}", name.to_uppercase());
    if let Some(path) = std::env::var_os(&variable) {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "{variable} names {}, which is no file", path.display());
        return path;
    }
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".pointsman/bin").join(name);
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(fetched)
        .chain(std::env::split_paths(&on_path).map(|folder| folder.join(name)))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not here: run `make setup`, or name it in {variable}"))
}

/// A port for a server that is started later, and may come back on it: nobody listens there, no other test of this
/// machine is given it, and Linux takes none below 32768 for outgoing connections. (The helpers in Python give odd ones.)
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const LOWEST: u16 = 20_000;
    const EVEN_ONES: u32 = (32_768 - LOWEST as u32) / 2;
    // Tests are processes side by side: each begins elsewhere.
    let begin = std::process::id() % EVEN_ONES;
    (0..EVEN_ONES)
        .map(|_| (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % EVEN_ONES)
        .map(|at| LOWEST + 2 * u16::try_from(at).expect("a port"))
        .find(|&port| is_ours(port) && is_free(port))
        .expect("no port from 20000 to 32767 is free")
}

fn is_free(port: u16) -> bool {
    let anywhere = |host: &str| TcpListener::bind((host, port)).is_ok();
    // Without IPv6 the first can't be had.
    anywhere("::") || (TcpListener::bind("[::]:0").is_err() && anywhere("0.0.0.0"))
}

/// Takes the port's name for as long as this process lives; false if somebody has it. Before anything else is tried: what
/// only looks whether a port is free would be in the way of the server that it was given to.
fn is_ours(port: u16) -> bool {
    static OURS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let name = SocketAddr::from_abstract_name(format!("pointsman-test-port-{port}")).expect("a name");
    UnixListener::bind_addr(&name).map(|listener| OURS.lock().expect("a list").push(listener)).is_ok()
}

/// A running child. Dropped, it is killed; the kernel kills it too when this process dies.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a program with nothing but these variables; what it says goes into a file in `folder`.
    pub(crate) fn start(
        program: &Path,
        args: &[impl AsRef<OsStr>],
        environment: &[(&str, &str)],
        folder: &Path,
    ) -> Self {
        let log = folder.join(format!("{}.log", program.file_name().expect("a name").to_string_lossy()));
        let output = std::fs::File::create(&log).expect("a log file");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(args)
            .env_clear()
            .envs(environment.iter().copied())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("a second handle"))
            .stdout(output)
            .spawn()
            .unwrap_or_else(|e| panic!("{} can't be started: {e}", program.display()));
        Self { child, log }
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far; nothing if its log is no file.
    pub(crate) fn log(&self) -> String {
        if !self.log.is_file() {
            return String::new();
        }
        self.wait_for_writer();
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Lines of ours are written by a thread named `log`: when it sleeps, nothing waits to be written.
    fn wait_for_writer(&self) {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let stats = tasks.map(|task| task.path().join("stat"));
        let is_writer = |stat: &PathBuf| std::fs::read_to_string(stat).is_ok_and(|text| text.contains(" (log) "));
        let Some(writer) = stats.into_iter().find(is_writer) else { return };
        let give_up = Instant::now() + Duration::from_secs(1);
        let writes = || {
            std::fs::read_to_string(&writer).is_ok_and(|text| text.contains(" (log) R") || text.contains(" (log) D"))
        };
        while writes() && Instant::now() < give_up {
            std::thread::yield_now();
        }
    }

    /// Sends a signal, by its short name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the signal {name} can't be sent");
    }

    /// Stops it, every thread of it, until it gets CONT. The signal alone is only a request.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
        let tasks = PathBuf::from(format!("/proc/{}/task", self.child.id()));
        let running = || -> Vec<String> {
            let states = std::fs::read_dir(&tasks).expect("its threads").flatten();
            let states = states.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
            states.filter(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"))).collect()
        };
        let give_up = Instant::now() + Duration::from_secs(5);
        while !running().is_empty() {
            assert!(Instant::now() < give_up, "some threads don't stop: {:?}", running());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for its end, and gives the exit code.
    pub(crate) async fn end(&mut self, patience: Duration) -> i32 {
        let give_up = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < give_up, "still running after {patience:?}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills it without a warning, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
    }

    /// Whether and how it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
