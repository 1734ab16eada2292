//! One HTTP question, asked as somebody from outside would ask it.

use std::time::Duration;

use jiff::Timestamp;

use crate::causes::innermost;

/// How long an answer may take: more than any call of ours is allowed to.
const TIMEOUT: Duration = Duration::from_secs(9);

/// Asks.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    http: reqwest::Client,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// What time the other side thinks it is.
    pub(super) date: Option<Timestamp>,
    pub(super) body: String,
}

impl Probe {
    pub(super) fn new() -> Result<Self, String> {
        let client = || {
            reqwest::Client::builder()
                .timeout(TIMEOUT)
                .connect_timeout(Duration::from_secs(2))
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
        };
        // A small machine has no certificates of authorities; http works there all the same.
        let http = client().build().or_else(|_| client().tls_certs_only(None).build()).map_err(|e| e.to_string())?;
        Ok(Self { http })
    }

    /// Asks for a page.
    pub(super) async fn get(&self, url: &str) -> Result<Answer, String> {
        let answer = self.http.get(url).send().await.map_err(|e| silence(&e))?;
        let date = answer.headers().get("Date").and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| date.timestamp());
        let status = answer.status().as_u16();
        Ok(Answer { status, date, body: answer.text().await.map_err(|e| silence(&e))? })
    }
}

/// Why there is no answer.
pub(in crate::cli) fn silence(error: &reqwest::Error) -> String {
    if error.is_timeout() { "no answer in time".to_owned() } else { innermost(error) }
}
