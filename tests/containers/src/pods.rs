//! A Traefik as the chart's pods have it: its configuration written by our image, and the way to etcd beside it.

use std::sync::Arc;
use std::time::Duration;

use testcontainers::core::{AccessMode, ImageExt as _, Mount};

use crate::http::{self, Answer};
use crate::part::Part;
use crate::settings::{generic, pointsman_image, restricted, traefik_image, traefik_version};
use crate::stage::Stage;
use crate::wait::eventually;

/// The name that stands for all Traefiks.
pub(crate) const ALL: &str = "traefiks";

const PUBLIC_PORT: u16 = 8000;
const RELAY: &str = "127.0.0.1:2379";

/// Traefik, and the relay that holds the pod's network.
pub(crate) struct Pod {
    /// Traefik itself.
    pub(crate) traefik: Part,
    /// `pointsman etcd-relay`. Who cuts it off cuts off the pod.
    pub(crate) relay: Part,
}

impl Pod {
    /// Starts a pod, and doesn't wait until it is ready.
    pub(crate) async fn start(stage: &Arc<Stage>, number: usize, settings: &[(String, String)], user: &str) -> Self {
        let folder = stage.volume().await;
        let of_ours = |command: Vec<String>| {
            let request = restricted(generic(&pointsman_image()), user).with_cmd(command);
            settings.iter().fold(request, |request, (name, value)| request.with_env_var(name, value))
        };
        let write = of_ours(vec![
            "traefik-config".to_owned(),
            "--dir=/traefik".to_owned(),
            "--private-address=:8099".to_owned(),
            format!("--traefik-version={}", traefik_version()),
            format!("--etcd-relay={RELAY}"),
        ]);
        let mount = Mount::volume_mount(&folder, "/traefik");
        Part::run(stage, &format!("configuration-{number}"), write.with_mount(mount.clone())).await;
        let relay = of_ours(vec!["etcd-relay".to_owned(), format!("--listen={RELAY}")]);
        let relay = Part::start(stage, &format!("relay-{number}"), &[ALL], relay).await;
        let traefik = restricted(generic(&traefik_image()), user)
            .with_cmd(["--configFile=/traefik/traefik.yaml"])
            .with_mount(mount.with_access_mode(AccessMode::ReadOnly));
        let traefik = Part::start_beside(&relay, &format!("traefik-{number}"), traefik).await;
        Self { traefik, relay }
    }

    /// What it answers its users.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, String> {
        let address = self.relay.place().address().await.ok_or("it has no address")?;
        http::get(address, PUBLIC_PORT, path, Duration::from_secs(2)).await
    }

    /// Which server of the backend a path leads to; anything else as a sentence.
    pub(crate) async fn leads_to(&self, path: &str) -> String {
        match self.get(path).await {
            Ok(Answer { status: 200, server: Some(server), .. }) => server,
            other => format!("{other:?}"),
        }
    }

    /// Waits for the first good answer to its readiness probe.
    pub(crate) async fn wait_until_ready(&self) {
        let what = format!("{} is ready", self.traefik.name());
        eventually(&what, Duration::from_secs(30), async || match self.get("/_chp_healthz").await? {
            Answer { status: 200, .. } => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
}
