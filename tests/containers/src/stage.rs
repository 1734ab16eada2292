//! Where one test plays: a private network and volumes with names of their own, all labelled, all removed at the end.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use testcontainers::bollard::Docker;
use testcontainers::bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, NetworkConnectRequest, NetworkCreateRequest,
    NetworkDisconnectRequest, VolumeCreateRequest,
};
use testcontainers::bollard::query_parameters::{RemoveContainerOptionsBuilder, RemoveVolumeOptions};
use testcontainers::core::client::docker_client_instance;
use testcontainers::{ContainerRequest, GenericImage, ImageExt as _};

use crate::settings::pointsman_image;

/// The label by which `scripts/test-containers` finds what a killed run left.
const CHECKOUT: &str = "org.pointsman.test.checkout";

/// A network and volumes. The last owner removes them.
pub(crate) struct Stage {
    /// The daemon.
    pub(crate) docker: Docker,
    /// What all names end with.
    pub(crate) name: String,
    volumes: AtomicU32,
}

impl Stage {
    /// A network of its own.
    pub(crate) async fn new() -> Arc<Self> {
        let docker = docker_client_instance().await.unwrap_or_else(|error| {
            panic!("no Docker daemon can be used: {error}. `make test-containers` finds or starts one.")
        });
        docker.ping().await.unwrap_or_else(|error| {
            panic!("no Docker daemon answers: {error}. `make test-containers` finds or starts one.")
        });
        let stage = Arc::new(Self { docker, name: unique_name(), volumes: AtomicU32::new(0) });
        let network = NetworkCreateRequest {
            name: stage.name.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels()),
            ..Default::default()
        };
        stage.docker.create_network(network).await.expect("a network");
        stage
    }

    /// The host name of a part, which is the name of its container.
    pub(crate) fn host(&self, part: &str) -> String {
        format!("{part}.{}", self.name)
    }

    /// What every container of this stage has.
    pub(crate) fn on_stage(
        &self,
        request: ContainerRequest<GenericImage>,
        part: &str,
    ) -> ContainerRequest<GenericImage> {
        request
            .with_container_name(self.host(part))
            .with_labels(labels())
            // Nothing is published on the machine that runs the tests.
            .with_host_config_modifier(|host| host.publish_all_ports = Some(false))
    }

    /// A volume in which any user may write, as an emptyDir in Kubernetes is.
    pub(crate) async fn volume(&self) -> String {
        let name = format!("{}-{}", self.name, self.volumes.fetch_add(1, Ordering::Relaxed));
        let request = VolumeCreateRequest { name: Some(name.clone()), labels: Some(labels()), ..Default::default() };
        self.docker.create_volume(request).await.expect("a volume");
        // It takes over the rights of the folder of our image that it is first mounted over. The container never runs.
        let body = ContainerCreateBody {
            image: Some(pointsman_image()),
            labels: Some(labels()),
            host_config: Some(HostConfig { binds: Some(vec![format!("{name}:/data")]), ..Default::default() }),
            ..Default::default()
        };
        let made = self.docker.create_container(None, body).await.expect("a container of our image");
        self.docker.remove_container(&made.id, None).await.expect("it can be removed");
        name
    }

    /// Starts our image with another program of it, and says why that didn't go. `None`: it went.
    pub(crate) async fn why_it_does_not_run(&self, program: &str) -> Option<String> {
        let body = ContainerCreateBody {
            image: Some(pointsman_image()),
            entrypoint: Some(vec![program.to_owned()]),
            cmd: Some(vec!["--version".to_owned()]),
            labels: Some(labels()),
            ..Default::default()
        };
        let made = self.docker.create_container(None, body).await.expect("a container of our image");
        let error = self.docker.start_container(&made.id, None).await.err();
        let force = RemoveContainerOptionsBuilder::new().force(true).build();
        self.docker.remove_container(&made.id, Some(force)).await.expect("it can be removed");
        error.map(|error| error.to_string())
    }

    /// Puts a container on the network, under further names.
    pub(crate) async fn connect(&self, container: &str, names: &[String]) {
        let settings = EndpointSettings { aliases: Some(names.to_vec()), ..Default::default() };
        let request = NetworkConnectRequest { container: container.to_owned(), endpoint_config: Some(settings) };
        self.docker.connect_network(&self.name, request).await.expect("it can be connected");
    }

    /// Takes a container off the network: nothing reaches it, and it reaches nobody.
    pub(crate) async fn disconnect(&self, container: &str) {
        let request = NetworkDisconnectRequest { container: container.to_owned(), force: Some(false) };
        self.docker.disconnect_network(&self.name, request).await.expect("it can be disconnected");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let (docker, name, volumes) = (self.docker.clone(), self.name.clone(), *self.volumes.get_mut());
        finish(async move {
            // What can't be removed is found by its label at the next run.
            let _ = docker.remove_network(&name).await;
            for number in 0..volumes {
                let _ = docker.remove_volume(&format!("{name}-{number}"), None::<RemoveVolumeOptions>).await;
            }
        });
    }
}

/// Does in a `drop` what needs the daemon.
pub(crate) fn finish(work: impl Future<Output = ()>) {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work));
}

fn labels() -> HashMap<String, String> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the checkout is there");
    HashMap::from([(CHECKOUT.to_owned(), checkout.display().to_string())])
}

fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_nanos();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("pointsman-test-{:x}-{:x}-{count}", std::process::id(), now & 0xff_ffff)
}
