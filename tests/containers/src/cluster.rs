//! A whole installation on a stage: etcd, Pointsmen, Traefiks, and servers to lead users to.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use testcontainers::core::{ImageExt as _, Mount};

use crate::http;
use crate::members;
use crate::part::Part;
use crate::pods::{self, Pod};
use crate::settings::{TOKEN, USER, generic, pointsman_image, restricted, traefik_image};
use crate::stage::Stage;
use crate::wait::eventually;

/// How many of each, and who they are.
pub(crate) struct Size {
    pub(crate) members: usize,
    pub(crate) replicas: usize,
    pub(crate) traefiks: usize,
    /// The user as which our image and Traefik run: `UID:GID`.
    pub(crate) user: &'static str,
}

/// What the chart makes by default.
pub(crate) const DEFAULT: Size = Size { members: 3, replicas: 2, traefiks: 2, user: USER };
/// One of each.
pub(crate) const SMALL: Size = Size { members: 1, replicas: 1, traefiks: 1, user: USER };

/// The name that stands for all Pointsmen, for Traefik's questions.
const PAGES: &str = "pages";
const BACKEND: &str = "backend";

/// All parts. Those that need others are removed first.
pub(crate) struct Cluster {
    pub(crate) pods: Vec<Pod>,
    pub(crate) replicas: Vec<Part>,
    pub(crate) members: Vec<Part>,
    _backend: Part,
    settings: Vec<(String, String)>,
    stage: Arc<Stage>,
}

impl Cluster {
    /// Starts all, and waits until all are ready and `/` leads to the server `root`.
    pub(crate) async fn start(size: &Size) -> Self {
        let stage = Stage::new().await;
        let members = members::start(&stage, size.members).await;
        let backend = start_backend(&stage).await;
        let settings = settings(&stage, size.members);
        let mut replicas = Vec::new();
        for number in 0..size.replicas {
            replicas.push(start_replica(&stage, number, &settings, size.user).await);
        }
        let mut pods = Vec::new();
        for number in 0..size.traefiks {
            pods.push(Pod::start(&stage, number, &settings, size.user).await);
        }
        let cluster = Self { pods, replicas, members, _backend: backend, settings, stage };
        for replica in &cluster.replicas {
            wait_until_ready(replica).await;
        }
        cluster.add("/", "root").await;
        for pod in &cluster.pods {
            pod.wait_until_ready().await;
        }
        cluster
    }

    /// One more Traefik, which isn't waited for.
    pub(crate) async fn add_pod(&mut self) {
        let pod = Pod::start(&self.stage, self.pods.len(), &self.settings, USER).await;
        self.pods.push(pod);
    }

    /// The URL of one of the servers behind: `root`, `a` or `b`. Each names itself in its answers.
    pub(crate) fn target(&self, server: &str) -> String {
        let port = BACKEND_PORTS.iter().find(|(name, _)| *name == server).expect("a known server").1;
        format!("http://{}:{port}", self.stage.host(BACKEND))
    }

    /// Adds a route through the first replica.
    pub(crate) async fn add(&self, path: &str, server: &str) {
        let body = json!({ "target": self.target(server) });
        let address = self.replicas[0].address().await;
        let answer = http::call(address, Method::POST, &format!("/api/routes{path}"), Some(body)).await;
        let answer = answer.unwrap_or_else(|error| panic!("{path} can't be added: {error}"));
        assert_eq!(answer.status, 201, "{path}: {}", answer.body);
    }

    /// Removes a route through the first replica.
    pub(crate) async fn remove(&self, path: &str) {
        let address = self.replicas[0].address().await;
        let answer = http::call(address, Method::DELETE, &format!("/api/routes{path}"), None).await;
        let answer = answer.unwrap_or_else(|error| panic!("{path} can't be removed: {error}"));
        assert_eq!(answer.status, 204, "{path}: {}", answer.body);
    }
}

/// What Pointsman and those who write for Traefik share, as the chart's environment has it.
fn settings(stage: &Stage, members: usize) -> Vec<(String, String)> {
    [
        ("CONFIGPROXY_AUTH_TOKEN", TOKEN.to_owned()),
        ("POINTSMAN_API_IP", "*".to_owned()),
        ("POINTSMAN_API_PORT", "8001".to_owned()),
        ("POINTSMAN_PAGES_IP", "*".to_owned()),
        ("POINTSMAN_PAGES_PORT", "8002".to_owned()),
        ("POINTSMAN_PAGES_URL", format!("http://{PAGES}:8002")),
        ("POINTSMAN_INSTALLATION", "tests/containers".to_owned()),
        ("POINTSMAN_ETCD_ENDPOINTS", members::endpoints(stage, members)),
        ("POINTSMAN_TRAEFIK_API", format!("dns://{}:8099", pods::ALL)),
        ("POINTSMAN_PORT", "8000".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

async fn start_replica(stage: &Arc<Stage>, number: usize, settings: &[(String, String)], user: &str) -> Part {
    let request = restricted(generic(&pointsman_image()), user)
        .with_cmd(["--snapshot-dir=/snapshot", "--own-root-key"])
        .with_mount(Mount::volume_mount(stage.volume().await, "/snapshot"));
    let request = settings.iter().fold(request, |request, (name, value)| request.with_env_var(name, value));
    Part::start(stage, &format!("pointsman-{number}"), &[PAGES], request).await
}

/// Waits until a replica says that it is ready.
pub(crate) async fn wait_until_ready(replica: &Part) {
    eventually(&format!("{} is ready", replica.name()), Duration::from_secs(30), async || {
        let address = replica.place().address().await.ok_or("it has no address")?;
        let answer = http::get(address, 8001, "/readyz", Duration::from_secs(1)).await?;
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    })
    .await;
}

const BACKEND_PORTS: [(&str, u16); 3] = [("root", 9000), ("a", 9001), ("b", 9002)];

/// Servers that answer every path with their name: a Traefik that knows nothing else, so that no further image is needed.
async fn start_backend(stage: &Arc<Stage>) -> Part {
    let mut flags = vec!["--ping=true".to_owned(), "--providers.file.filename=/backend.yaml".to_owned()];
    flags.extend(BACKEND_PORTS.iter().map(|(name, port)| format!("--entryPoints.{name}.address=:{port}")));
    let router = |name| {
        let rule = "rule: 'PathPrefix(`/`)', service: 'ping@internal'";
        format!("    {name}: {{{rule}, entryPoints: [{name}], middlewares: [{name}]}}\n")
    };
    let middleware = |name| format!("    {name}: {{headers: {{customResponseHeaders: {{X-Server: {name}}}}}}}\n");
    let routers: String = BACKEND_PORTS.iter().map(|(name, _)| router(name)).collect();
    let middlewares: String = BACKEND_PORTS.iter().map(|(name, _)| middleware(name)).collect();
    let file = format!("http:\n  routers:\n{routers}  middlewares:\n{middlewares}");
    let request = generic(&traefik_image()).with_cmd(flags).with_copy_to("/backend.yaml", file.into_bytes());
    let part = Part::start(stage, BACKEND, &[], request).await;
    for (name, port) in BACKEND_PORTS {
        eventually(&format!("the server {name} answers"), Duration::from_secs(20), async || {
            let answer = http::get(part.address().await, port, "/any/path", Duration::from_secs(1)).await?;
            if answer.server.as_deref() == Some(name) { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }
    part
}
