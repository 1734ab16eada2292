//! The whole thing on this machine: etcd, Traefiks, servers, and as many Pointsmen as a test starts.

use std::time::Duration;

use serde_json::json;

use super::etcd::Etcd;
use super::pointsman::{Server, pointsman};
use super::process::free_port;
use super::raw_http::{Answer, Backends, RawClient};
use super::traefik::Traefik;
use super::wait::eventually;

pub(crate) const TOKEN: &str = "a-token-for-tests";

/// One Traefik and where users reach it.
pub(crate) struct Edge {
    pub(crate) traefik: Traefik,
    pub(crate) public: u16,
    private: u16,
    folder: tempfile::TempDir,
}

pub(crate) struct System {
    pub(crate) etcd: Etcd,
    pub(crate) edges: Vec<Edge>,
    pub(crate) backends: Backends,
    /// Flags that Pointsman and what it writes for Traefik share.
    shared: Vec<String>,
    folder: tempfile::TempDir,
}

impl System {
    /// etcd and so many Traefiks; no Pointsman yet.
    pub(crate) async fn start(traefiks: usize) -> Self {
        Self::start_with(traefiks, &[]).await
    }

    /// The same with flags that concern Traefik too.
    pub(crate) async fn start_with(traefiks: usize, shared: &[&str]) -> Self {
        let etcd = Etcd::start().await;
        let mut edges = Vec::new();
        for _ in 0..traefiks {
            edges.push(Edge::start(etcd.endpoint(), shared).await);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let shared = shared.iter().map(|flag| (*flag).to_owned()).collect();
        Self { etcd, edges, backends: Backends::start().await, shared, folder }
    }

    /// This etcd; no Traefik and no Pointsman yet.
    pub(crate) async fn over(etcd: Etcd) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { etcd, edges: Vec::new(), backends: Backends::start().await, shared: Vec::new(), folder }
    }

    /// One more Traefik, which reaches etcd only at this address.
    pub(crate) async fn add_edge(&mut self, etcd: &str) {
        let shared: Vec<&str> = self.shared.iter().map(String::as_str).collect();
        self.edges.push(Edge::start(etcd, &shared).await);
    }

    /// A Pointsman over all of it, with more flags.
    pub(crate) async fn pointsman(&self, more: &[&str]) -> Pointsman {
        let apis: Vec<_> = self.edges.iter().map(|edge| edge.traefik.api.clone()).collect();
        self.pointsman_over(&apis, more).await
    }

    /// A Pointsman that looks for Traefiks there, with more flags.
    pub(crate) async fn pointsman_over(&self, apis: &[String], more: &[&str]) -> Pointsman {
        let mut flags = vec!["--etcd-endpoints".to_owned(), self.etcd.endpoint().to_owned()];
        for api in apis {
            flags.extend(["--traefik-api".to_owned(), api.clone()]);
        }
        flags.extend(self.shared.iter().cloned());
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        // Each has a folder, and a log, of its own.
        let folder = tempfile::tempdir_in(self.folder.path()).expect("a folder").keep();
        let server = Server::start(&flags, &[("CONFIGPROXY_AUTH_TOKEN", TOKEN)], &folder).await;
        Pointsman { server, http: reqwest::Client::builder().no_proxy().build().expect("a client") }
    }

    /// What users get at one Traefik.
    pub(crate) async fn visit(&self, edge: usize, path: &str) -> Answer {
        RawClient::connect(self.edges[edge].public).await.get("hub.example.org", path).await
    }

    /// Whether every Traefik leads `path` to server number `i`.
    pub(crate) async fn leads_to(&self, path: &str, i: u16) -> Result<(), String> {
        for edge in 0..self.edges.len() {
            let answer = self.visit(edge, path).await;
            if answer.body != i.to_string() {
                return Err(format!("{path} at Traefik {edge}: {} {}", answer.status, answer.body));
            }
        }
        Ok(())
    }
}

impl Edge {
    async fn start(endpoint: &str, shared: &[&str]) -> Self {
        let [public, private] = [free_port(), free_port()];
        let folder = tempfile::tempdir().expect("a folder");
        let (dir, api) = (folder.path().display().to_string(), format!("http://127.0.0.1:{private}"));
        let port = public.to_string();
        let flags = ["--dir", &dir, "--etcd-endpoints", endpoint, "--port", &port, "--traefik-api", &api];
        let written =
            pointsman(&[&["traefik-config"], &flags[..], shared].concat(), &[("CONFIGPROXY_AUTH_TOKEN", TOKEN)]);
        assert_eq!(written.code, 0, "{}", written.stderr);
        let traefik = Traefik::start(&folder.path().join("traefik.yaml"), private, folder.path()).await;
        Self { traefik, public, private, folder }
    }

    /// The same Traefik again, with nothing in its memory.
    pub(crate) async fn restart(&mut self) {
        self.traefik.process.kill();
        self.traefik = Traefik::start(&self.folder.path().join("traefik.yaml"), self.private, self.folder.path()).await;
    }
}

/// A running Pointsman and a caller with the right token.
pub(crate) struct Pointsman {
    pub(crate) server: Server,
    http: reqwest::Client,
}

impl Pointsman {
    /// Status, `X-Pointsman-Stale` and body of a read.
    pub(crate) async fn read(&self, path: &str) -> (u16, Option<String>, String) {
        let request = self.http.get(format!("{}/api/routes{path}", self.server.api));
        let answer = request.header("Authorization", format!("token {TOKEN}")).send().await.expect("an answer");
        let stale = answer.headers().get("x-pointsman-stale").map(|age| age.to_str().expect("text").to_owned());
        (answer.status().as_u16(), stale, answer.text().await.expect("a body"))
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(self) -> Self {
        eventually("readiness", Duration::from_secs(20), || async {
            match self.http.get(format!("{}/readyz", self.server.api)).send().await {
                Ok(answer) if answer.status() == 200 => Ok(()),
                Ok(answer) => Err(answer.text().await.unwrap_or_default()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        self
    }

    /// Status and body of a call.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<String>) -> (u16, String) {
        self.try_call(method, path, body).await.expect("an answer")
    }

    /// The same, if there is an answer at all.
    pub(crate) async fn try_call(&self, method: &str, path: &str, body: Option<String>) -> Option<(u16, String)> {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, format!("{}/api/routes{path}", self.server.api));
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.header("Authorization", format!("token {TOKEN}")).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    pub(crate) async fn add(&self, path: &str, target: &str) -> (u16, String) {
        self.call("POST", path, Some(json!({ "target": target }).to_string())).await
    }
}
