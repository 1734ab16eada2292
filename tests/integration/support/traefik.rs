//! A real Traefik.

use std::path::Path;
use std::time::Duration;

use super::process::{Running, program};
use super::wait::{eventually, http_get};

/// A running Traefik, with the address of its private entry point.
pub(crate) struct Traefik {
    pub(crate) process: Running,
    pub(crate) api: String,
}

impl Traefik {
    /// Starts one with a file, and waits until its ping answers.
    pub(crate) async fn start(file: &Path, private_port: u16, folder: &Path) -> Self {
        let arguments = ["--configFile".as_ref(), file.as_os_str()];
        let process = Running::start(&program("traefik"), &arguments, &[], folder);
        let mut traefik = Self { process, api: format!("http://127.0.0.1:{private_port}") };
        let ping = format!("{}/ping", traefik.api);
        eventually("Traefik's ping", Duration::from_secs(20), || {
            let ended = traefik.process.ended();
            assert!(ended.is_none(), "Traefik ended at once ({ended:?}):\n{}", traefik.process.log());
            let ping = &ping;
            async move {
                match http_get(ping).await? {
                    (200, _) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            }
        })
        .await;
        traefik
    }
}
