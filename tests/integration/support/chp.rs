//! A real configurable-http-proxy.

use std::path::Path;
use std::time::Duration;

use super::process::{Running, free_port, program};
use super::wait::{eventually, http_get};

/// A running one, with the address of its API and its port for users.
pub(crate) struct Chp {
    process: Running,
    pub(crate) api: String,
    /// The port for users.
    pub(crate) public: u16,
}

impl Chp {
    /// Starts one with this token, and waits until its API answers.
    pub(crate) async fn start(token: &str, more: &[&str], folder: &Path) -> Self {
        let (public, api) = (free_port(), free_port());
        let (users, port) = (public.to_string(), api.to_string());
        let arguments = ["--ip", "127.0.0.1", "--port", &users, "--api-ip", "127.0.0.1", "--api-port", &port];
        let arguments = [&arguments[..], more].concat();
        let path = std::env::var("PATH").unwrap_or_default();
        let environment = [("CONFIGPROXY_AUTH_TOKEN", token), ("PATH", &path)];
        let process = Running::start(&program("configurable-http-proxy"), &arguments, &environment, folder);
        let mut chp = Self { process, api: format!("http://127.0.0.1:{api}"), public };
        eventually("configurable-http-proxy", Duration::from_secs(20), || {
            let ended = chp.process.ended();
            assert!(ended.is_none(), "it ended at once ({ended:?}):\n{}", chp.process.log());
            let api = chp.api.clone();
            async move { http_get(&api).await.map(drop) }
        })
        .await;
        chp
    }

    /// Posts a record to a path that is encoded already.
    pub(crate) async fn post(&self, token: &str, path: &str, record: &str) {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let request = client.post(format!("{}/api/routes{path}", self.api)).body(record.to_owned());
        let answer = request.header("Authorization", format!("token {token}")).send().await.expect("an answer");
        assert_eq!(answer.status(), 201, "{path} {record}");
    }
}
