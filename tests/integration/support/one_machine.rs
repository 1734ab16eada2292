//! Everything on one machine, as a hub starts it: `pointsman` in a folder of its own, with a Traefik of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::http::{Connection, Reply};
use super::pointsman::{Finished, pointsman};
use super::process::{Running, free_port, program};
use super::wait::{eventually, http_get};

/// A running Pointsman without etcd. Relative paths in its flags are those of its folder.
pub(crate) struct OneMachine {
    pub(crate) process: Running,
    pub(crate) public: u16,
    pub(crate) api: String,
    pub(crate) folder: TempDir,
}

/// What a WebSocket begins with.
pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

impl OneMachine {
    /// Starts one with these flags, and waits until it is ready.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), flags, &[]).await
    }

    /// The same in a folder where something may lie already, and with an environment.
    pub(crate) async fn start_in(folder: TempDir, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let machine = Self::begin(folder, flags, environment).await;
        machine.ready().await;
        machine
    }

    /// The same without waiting for readiness: only until the API answers.
    pub(crate) async fn begin(folder: TempDir, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let (public, api) = (free_port(), free_port());
        let [port, api_port] = [public, api].map(|port| port.to_string());
        let mut all = vec!["--ip", "127.0.0.1", "--port", &port, "--api-ip", "127.0.0.1", "--api-port", &api_port];
        // The folder that it has by default at the default port.
        all.extend(["--data-dir", "pointsman-data"]);
        all.extend(flags);
        Self::begin_at((public, api), folder, &all, environment).await
    }

    /// The same with nothing said about addresses but what the flags say; the ports are what they come to.
    pub(crate) async fn begin_at(
        (public, api): (u16, u16),
        folder: TempDir,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let traefik = program("traefik").display().to_string();
        let flags = [&["--traefik-binary", &traefik], flags].concat();
        let process = Running::start(Path::new(env!("CARGO_BIN_EXE_pointsman")), &flags, environment, folder.path());
        let mut machine = Self { process, public, api: format!("http://127.0.0.1:{api}"), folder };
        let healthz = format!("{}/healthz", machine.api);
        eventually("Pointsman's API", Duration::from_secs(20), || {
            let ended = machine.process.ended();
            assert!(ended.is_none(), "pointsman ended at once ({ended:?}):\n{}", machine.process.log());
            let healthz = &healthz;
            async move { http_get(healthz).await }
        })
        .await;
        machine
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self) {
        let url = format!("{}/readyz", self.api);
        eventually("readiness", Duration::from_secs(20), || async {
            match http_get(&url).await? {
                (200, _) => Ok(()),
                (status, body) => Err(format!("{status} {body}\n{}", self.process.log())),
            }
        })
        .await;
    }

    /// Ends it as a hub does, and gives its folder back. Nobody listens any more where users came in.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.process.signal("TERM");
        let code = self.process.end(Duration::from_secs(10)).await;
        assert_eq!(code, 0, "{}", self.process.log());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.public));
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "somebody still listens at {address}");
        self.folder
    }

    /// Adds a route, or replaces it.
    pub(crate) async fn add(&self, path: &str, target: &str) {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let body = json!({ "target": target }).to_string();
        let answer = client.post(format!("{}/api/routes{path}", self.api)).body(body).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 201, "{path}: {}", answer.text().await.unwrap_or_default());
    }

    /// Removes a route.
    pub(crate) async fn remove(&self, path: &str) {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer = client.delete(format!("{}/api/routes{path}", self.api)).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 204, "{path}");
    }

    /// What a user gets: a request line without the version, such as `GET /x`, and headers that each end in CRLF.
    pub(crate) async fn ask(&self, line: &str, headers: &str) -> Reply {
        ask_over(self.connect().await, line, headers).await
    }

    /// The same for a GET of this path.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path}"), "").await
    }

    /// A connection such as a user's.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.public_address()).await
    }

    /// Where users come in.
    pub(crate) fn public_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.public))
    }

    /// The number of the process that is Traefik now.
    pub(crate) fn traefik(&self) -> Option<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.pid())).expect("its threads").flatten();
        let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let children: Vec<String> =
            children.flat_map(|list| list.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
        let is_traefik = |pid: &&String| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "traefik")
        };
        children.iter().find(is_traefik).and_then(|pid| pid.parse().ok())
    }

    /// Kills the Traefik that runs, and says which it was.
    pub(crate) fn kill_traefik(&self) -> u32 {
        let pid = self.traefik().expect("it runs");
        kill(pid);
        pid
    }

    /// Waits until a Traefik that isn't this one has the routes.
    pub(crate) async fn another_traefik(&self, first: u32) {
        eventually("another Traefik has the routes", Duration::from_secs(20), || async {
            match (self.traefik(), self.get("/_chp_healthz").await.status) {
                (Some(pid), 200) if pid != first => Ok(()),
                other => Err(format!("{other:?}\n{}", self.process.log())),
            }
        })
        .await;
    }

    /// A file in its folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Kills a process, also one that this test did not start.
pub(crate) fn kill(pid: u32) {
    let killed = std::process::Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()), "{pid} can't be killed");
}

/// One request over a connection.
pub(crate) async fn ask_over(mut connection: Connection, line: &str, headers: &str) -> Reply {
    let host = if headers.contains("Host:") { "" } else { "Host: hub.example.org\r\n" };
    connection.send(format!("{line} HTTP/1.1\r\n{host}{headers}\r\n")).await;
    connection.reply_to(line.starts_with("HEAD")).await.expect("an answer")
}

/// What `pointsman` says to flags that it refuses, without etcd.
#[track_caller]
pub(crate) fn refusal(flags: &[&str], environment: &[(&str, &str)]) -> Finished {
    let finished = pointsman(&[flags, &["--data-dir", "/nowhere/at/all"]].concat(), environment);
    assert_ne!(finished.code, 0, "{flags:?} were accepted");
    finished
}
