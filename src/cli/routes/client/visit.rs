//! Looks at pages as a browser gets them from a proxy, to hold two proxies against each other.

use std::time::Duration;

use reqwest::header::{HOST, LOCATION};

use super::{Address, Tls, with_tls};
use crate::causes::innermost;

/// How long a page may take; no more of it is awaited than its head.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Whoever asks one proxy for pages.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Visitor {
    http: reqwest::Client,
    base: String,
}

impl Visitor {
    /// For the proxy whose users come in at `address`.
    pub(in crate::cli) fn new(address: &Address, tls: &Tls) -> Result<Self, String> {
        let Address::Url(base) = address else {
            return Err("--visit: users come in at http://HOST:PORT or https://HOST:PORT".to_owned());
        };
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().redirect(reqwest::redirect::Policy::none());
        let http = if base.starts_with("http://") { http.tls_certs_only(None) } else { with_tls(http, tls)? };
        let http = http.build().map_err(|error| format!("no HTTP client can be made: {}", innermost(&error)))?;
        Ok(Self { http, base: base.clone() })
    }

    /// What is answered at this path, which is encoded, in a few words: the status, and where it leads on.
    pub(in crate::cli) async fn look(&self, path: &str, host: Option<&str>) -> String {
        let mut request = self.http.get(format!("{}{path}", self.base));
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        match request.send().await {
            Ok(answer) => {
                let on = answer.headers().get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()));
                let on = on.map(|on| format!(" to {}", self.place(&on)));
                format!("{}{}", answer.status().as_u16(), on.unwrap_or_default())
            }
            Err(error) => format!("no answer ({})", innermost(&error)),
        }
    }

    /// Where a redirection leads, without what differs at each request: the state of a login stands behind the question mark,
    /// and a server that says where it was asked names the proxy through which it was asked.
    fn place<'a>(&self, location: &'a str) -> &'a str {
        let path = location.split_once('?').map_or(location, |(path, _)| path);
        path.strip_prefix(&self.base).unwrap_or(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirection_is_the_same_through_each_proxy() {
        let visitor = Visitor::new(&"http://127.0.0.1:8000".parse().unwrap(), &Tls::default()).unwrap();
        let same = |location| visitor.place(location).to_owned();
        assert_eq!(same("/hub/api/oauth2/authorize?client_id=a&state=random"), "/hub/api/oauth2/authorize");
        assert_eq!(same("http://127.0.0.1:8000/hub/login?next=x"), "/hub/login");
        assert_eq!(same("https://elsewhere.example.org/a"), "https://elsewhere.example.org/a");
    }
}
