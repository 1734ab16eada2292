//! Waiting for a condition, with a deadline that says what was seen last.

use std::future::Future;
use std::time::{Duration, Instant};

/// Asks again and again until the answer is `Ok`. The error says what was seen instead.
pub(crate) async fn eventually<T, F>(what: &str, patience: Duration, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let give_up = Instant::now() + patience;
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(seen) if Instant::now() > give_up => panic!("{what}: not within {patience:?}; seen last: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A GET with a time limit: status and body.
pub(crate) async fn http_get(url: &str) -> Result<(u16, String), String> {
    http_get_as(url, None).await
}

/// The same with a token.
pub(crate) async fn http_get_as(url: &str, token: Option<&str>) -> Result<(u16, String), String> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build().expect("a client");
    let mut request = client.get(url);
    if let Some(token) = token {
        request = request.header("Authorization", format!("token {token}"));
    }
    let answer = request.send().await.map_err(|e| format!("{url}: {e:?}"))?;
    let status = answer.status().as_u16();
    Ok((status, answer.text().await.map_err(|e| format!("{url}: {e:?}"))?))
}
