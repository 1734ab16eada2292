//! Our own program: run to its end, or started as a server.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::process::{Running, free_port};
use super::wait::{eventually, http_get};

/// How it ended and what it said.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `pointsman` with nothing in its environment but what is given.
pub(crate) fn pointsman(args: &[&str], environment: &[(&str, &str)]) -> Finished {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(args)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("pointsman can be started");
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// A serving Pointsman.
pub(crate) struct Server {
    pub(crate) process: Running,
    pub(crate) api: String,
}

impl Server {
    /// Starts one on a free port, and waits until its API answers at all.
    pub(crate) async fn start(args: &[&str], environment: &[(&str, &str)], folder: &Path) -> Self {
        let port = free_port();
        let number = port.to_string();
        let mut all = vec!["--api-ip", "127.0.0.1", "--api-port", &number];
        all.extend(args);
        let process = Running::start(Path::new(env!("CARGO_BIN_EXE_pointsman")), &all, environment, folder);
        let mut server = Self { process, api: format!("http://127.0.0.1:{port}") };
        let healthz = format!("{}/healthz", server.api);
        eventually("Pointsman's API", Duration::from_secs(10), || {
            let ended = server.process.ended();
            assert!(ended.is_none(), "pointsman ended at once ({ended:?}):\n{}", server.process.log());
            let healthz = &healthz;
            async move { http_get(healthz).await }
        })
        .await;
        server
    }
}
