//! The connections of a Traefik elsewhere, as `pointsman connections` beside it tells them.
//!
//! ```text
//! GET /connections?port=8888      {"connections":[["10.1.2.3:8888","1f3c",48213,1250]]}
//! ```
//!
//! Each is the server's address, the connection's id in hexadecimal digits, the bytes sent, and the milliseconds since
//! data was last sent.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::Settings;
use super::streams::Connection;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The longest answer that is read, in bytes: some 400,000 connections.
const BYTES_MAX: usize = 24 << 20;

/// The answer, as it is written and read.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionList {
    connections: Vec<(SocketAddr, String, u64, u64)>,
}

impl From<&[Connection]> for ConnectionList {
    fn from(connections: &[Connection]) -> Self {
        let line = |connection: &Connection| {
            let idle_ms = u64::try_from(connection.idle.as_millis()).unwrap_or(u64::MAX);
            (connection.server, format!("{:x}", connection.id), connection.sent, idle_ms)
        };
        Self { connections: connections.iter().map(line).collect() }
    }
}

impl From<ConnectionList> for Vec<Connection> {
    fn from(list: ConnectionList) -> Self {
        let connection = |(server, id, sent, idle_ms): (SocketAddr, String, u64, u64)| {
            let id = u64::from_str_radix(&id, 16).ok()?;
            Some(Connection { server, id, sent, idle: Duration::from_millis(idle_ms) })
        };
        list.connections.into_iter().filter_map(connection).collect()
    }
}

/// Asks the neighbour of one Traefik.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    http: reqwest::Client,
    url: Url,
    token: Option<SecretString>,
}

impl Remote {
    /// For the Traefik whose API is at `traefik`.
    pub(super) fn new(traefik: &str, settings: &Settings) -> Result<Self, String> {
        let mut url = Url::parse(traefik).map_err(|e| e.to_string())?;
        let port = settings.connections_port.ok_or("no port is configured")?;
        let refuse = |()| "its address has no host".to_owned();
        // The neighbour speaks plain HTTP, whatever Traefik's API does.
        url.set_scheme("http").and_then(|()| url.set_port(Some(port))).map_err(refuse)?;
        url.set_username("").and_then(|()| url.set_password(None)).map_err(refuse)?;
        url.set_path("/connections");
        url.set_query(None);
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // A small machine has no certificates of authorities, and then not even this client could be built.
            .tls_certs_only(None)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self { http, url, token: settings.connections_token.clone() })
    }

    /// The connections to these ports, or to any if none is named.
    pub(super) async fn connections(&self, ports: &[u16]) -> Result<Vec<Connection>, String> {
        let mut url = self.url.clone();
        for port in ports {
            url.query_pairs_mut().append_pair("port", &port.to_string());
        }
        let mut request = self.http.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("token {}", token.expose_secret()));
        }
        let away = |e: reqwest::Error| {
            let where_ = self.url.as_str();
            if e.is_timeout() {
                format!("no answer from {where_}")
            } else {
                format!("{where_} can't be asked: {}", e.without_url())
            }
        };
        let mut response = request.send().await.map_err(away)?;
        match response.status().as_u16() {
            200 => {}
            403 => return Err(format!("{} refuses our token", self.url)),
            other => return Err(format!("{} answered {other}", self.url)),
        }
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(away)? {
            body.extend_from_slice(&bytes);
            if body.len() > BYTES_MAX {
                return Err(format!("{} answered more than {BYTES_MAX} bytes", self.url));
            }
        }
        let list: ConnectionList = serde_json::from_slice(&body).map_err(|e| format!("{}: {e}", self.url))?;
        Ok(list.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::traefik::rule::Space;

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let server = "[2001:db8::1]:8888".parse().expect("an address");
        let connection = Connection { server, id: u64::MAX - 1, sent: 48_213, idle: Duration::from_millis(1250) };
        let text = serde_json::to_string(&ConnectionList::from(&[connection][..])).expect("JSON");
        assert_eq!(text, r#"{"connections":[["[2001:db8::1]:8888","fffffffffffffffe",48213,1250]]}"#);
        let list: ConnectionList = serde_json::from_str(&text).expect("a list");
        assert_eq!(Vec::from(list), [connection]);
    }

    #[test]
    fn the_neighbour_is_where_traefik_is() {
        let mut settings = Settings::new("pointsman", Space::Paths);
        settings.connections_port = Some(8009);
        settings.forwarders = Arc::new(|_| None);
        for (traefik, url) in [
            ("http://10.0.0.5:8099", "http://10.0.0.5:8009/connections"),
            ("https://u:p@traefik:8099/x?y", "http://traefik:8009/connections"),
            ("http://[2001:db8::1]:8099", "http://[2001:db8::1]:8009/connections"),
        ] {
            assert_eq!(Remote::new(traefik, &settings).expect("a client").url.as_str(), url);
        }
    }
}
