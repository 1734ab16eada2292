//! Single requests, each over a connection of its own, as a balancer's new connections are.

use std::net::Ipv4Addr;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::Value;

use crate::settings::TOKEN;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The server of the backend that answered, if it was one.
    pub(crate) server: Option<String>,
    /// The body.
    pub(crate) body: String,
}

/// A client that keeps no connection, follows nothing, and gives up after so long.
pub(crate) fn client(limit: Duration) -> Client {
    Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(limit)
        .build()
        .expect("a client")
}

/// A GET.
pub(crate) async fn get(address: Ipv4Addr, port: u16, path: &str, limit: Duration) -> Result<Answer, String> {
    send(client(limit).get(format!("http://{address}:{port}{path}"))).await
}

/// A call of Pointsman's API.
pub(crate) async fn call(address: Ipv4Addr, method: Method, path: &str, body: Option<Value>) -> Result<Answer, String> {
    // The hub waits for 20 s; each call is answered within 8.
    let mut request = client(Duration::from_secs(20)).request(method, format!("http://{address}:8001{path}"));
    request = request.header("Authorization", format!("token {TOKEN}"));
    if let Some(body) = body {
        request = request.json(&body);
    }
    send(request).await
}

async fn send(request: reqwest::RequestBuilder) -> Result<Answer, String> {
    let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status().as_u16();
    let server = answer.headers().get("x-server").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = answer.text().await.map_err(|error| format!("{error:?}"))?;
    Ok(Answer { status, server, body })
}
