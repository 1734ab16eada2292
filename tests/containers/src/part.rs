//! One container, and what can be done to it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use testcontainers::bollard::Docker;
use testcontainers::bollard::query_parameters::KillContainerOptionsBuilder;
use testcontainers::core::WaitFor;
use testcontainers::core::wait::ExitWaitStrategy;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt as _};

use crate::stage::{Stage, finish};
use crate::wait::eventually;

const LINES_OF_A_FAILED_TEST: usize = 25;
const LONGEST_LINE: usize = 400;

/// The way to a container, whose address may change.
#[derive(Clone)]
pub(crate) struct Place {
    docker: Docker,
    container: String,
    network: String,
}

impl Place {
    /// The address on the network, if it is on it.
    pub(crate) async fn address(&self) -> Option<Ipv4Addr> {
        let seen = self.docker.inspect_container(&self.container, None).await.ok()?;
        seen.network_settings?.networks?.get(&self.network)?.ip_address.as_ref()?.parse().ok()
    }
}

/// A container of a stage. It is removed when this is dropped; if a test fails, the end of its log is shown first.
pub(crate) struct Part {
    name: String,
    names: Vec<String>,
    container: ContainerAsync<GenericImage>,
    stage: Arc<Stage>,
}

impl Part {
    /// Starts a container on the stage's network. `names` are those that it shares with others.
    pub(crate) async fn start(
        stage: &Arc<Stage>,
        name: &str,
        names: &[&str],
        request: ContainerRequest<GenericImage>,
    ) -> Self {
        let request = stage.on_stage(request, name).with_network(&stage.name);
        let part = Self::begin(stage, name, names, request).await;
        if !names.is_empty() {
            // A request can't say these: the container leaves the network and comes back under them.
            part.cut_off().await;
            part.reconnect().await;
        }
        part
    }

    /// Starts a container in the network of another one, as a pod's containers share one.
    pub(crate) async fn start_beside(other: &Self, name: &str, request: ContainerRequest<GenericImage>) -> Self {
        let network = format!("container:{}", other.container.id());
        let request = other.stage.on_stage(request, name).with_host_config_modifier(move |host| {
            host.network_mode = Some(network.clone());
            host.publish_all_ports = None;
        });
        Self::begin(&other.stage, name, &[], request).await
    }

    /// Runs a container to its end, which must be a good one.
    pub(crate) async fn run(stage: &Arc<Stage>, name: &str, request: ContainerRequest<GenericImage>) {
        let end = WaitFor::exit(ExitWaitStrategy::new());
        let part = Self::start(stage, name, &[], request.with_ready_conditions(vec![end])).await;
        let code = part.exit_code().await;
        assert_eq!(code, 0, "{name} failed:\n{}", part.log().await);
    }

    async fn begin(stage: &Arc<Stage>, name: &str, names: &[&str], request: ContainerRequest<GenericImage>) -> Self {
        let container = request.start().await.unwrap_or_else(|error| panic!("{name} can't be started: {error}"));
        let names = names.iter().map(|&each| each.to_owned()).collect();
        Self { name: name.to_owned(), names, container, stage: Arc::clone(stage) }
    }

    /// What it is called in the test.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it can be found, for who outlives no test.
    pub(crate) fn place(&self) -> Place {
        let (docker, id) = (self.stage.docker.clone(), self.container.id().to_owned());
        Place { docker, container: id, network: self.stage.name.clone() }
    }

    /// Its address on the network, which it is on.
    pub(crate) async fn address(&self) -> Ipv4Addr {
        self.place().address().await.unwrap_or_else(|| panic!("{} is on no network", self.name))
    }

    /// SIGKILL, as a node's power cut or the kernel's hunger for memory does it.
    pub(crate) async fn kill(&self) {
        let options = KillContainerOptionsBuilder::new().signal("KILL").build();
        self.stage.docker.kill_container(self.container.id(), Some(options)).await.expect("it runs");
        eventually("it is gone", Duration::from_secs(10), async || match self.container.is_running().await {
            Ok(false) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// Starts it again, with the data that it had.
    pub(crate) async fn revive(&self) {
        self.container.start().await.expect("it can be started again");
    }

    /// Asks it to stop, as Kubernetes does: SIGTERM, and SIGKILL after the grace. Gives its exit code and how long it took.
    pub(crate) async fn stop(&self, grace: Duration) -> (i64, Duration) {
        let began = Instant::now();
        let seconds = i32::try_from(grace.as_secs()).expect("some seconds");
        self.container.stop_with_timeout(Some(seconds)).await.expect("it can be stopped");
        (self.exit_code().await, began.elapsed())
    }

    /// The code that it ended with.
    pub(crate) async fn exit_code(&self) -> i64 {
        eventually("it has ended", Duration::from_secs(30), async || match self.container.exit_code().await {
            Ok(Some(code)) => Ok(code),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    /// Holds all its processes: its connections stay open, and nothing comes of them.
    pub(crate) async fn pause(&self) {
        self.container.pause().await.expect("it runs");
    }

    /// Lets them go on.
    pub(crate) async fn unpause(&self) {
        self.container.unpause().await.expect("it was paused");
    }

    /// Takes it off the network.
    pub(crate) async fn cut_off(&self) {
        self.stage.disconnect(self.container.id()).await;
    }

    /// Brings it back under its names, though maybe not at its old address.
    pub(crate) async fn reconnect(&self) {
        self.stage.connect(self.container.id(), &self.names).await;
    }

    /// What it wrote to both outputs.
    pub(crate) async fn log(&self) -> String {
        let out = self.container.stdout_to_vec().await.unwrap_or_default();
        let err = self.container.stderr_to_vec().await.unwrap_or_default();
        format!("{}{}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&err))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if thread::panicking() {
            finish(async {
                let log = self.log().await;
                let lines: Vec<&str> = log.lines().map(|line| line.get(..LONGEST_LINE).unwrap_or(line)).collect();
                let end = &lines[lines.len().saturating_sub(LINES_OF_A_FAILED_TEST)..];
                eprintln!("--- the end of {}'s log:\n{}", self.name, end.join("\n"));
            });
        }
    }
}
