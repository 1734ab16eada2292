//! Where users come in: the address of one Traefik each, asked as a user asks.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use url::{Host, Url};

use crate::causes::innermost;
use crate::cli::check::probe::silence;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Of an answer no more is read: the word is short.
const BODY_BYTES_MAX: usize = 4096;

/// All of them.
pub(super) struct Doors {
    pub(super) all: Vec<Door>,
    places: Vec<Url>,
}

/// One address of one Traefik.
#[derive(Clone)]
pub(super) struct Door {
    /// Which of the places it belongs to.
    place: usize,
    address: SocketAddr,
    https: bool,
    /// Scheme, host and port, as they stand in front of a path.
    base: String,
    http: reqwest::Client,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) status: u16,
    pub(super) body: String,
}

/// `http://HOST:PORT` or `https://HOST:PORT`.
pub(super) fn parse(text: &str) -> Result<Url, String> {
    let says = "write it as http://HOST:PORT or https://HOST:PORT";
    let url = Url::parse(text).map_err(|error| format!("{error}; {says}"))?;
    let plain =
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.path() == "/" && url.query().is_none();
    if plain && url.username().is_empty() && url.fragment().is_none() { Ok(url) } else { Err(says.to_owned()) }
}

impl Doors {
    /// Looks up all addresses of all places.
    pub(super) async fn find(places: Vec<Url>, host: Option<String>) -> Result<Self, String> {
        let mut all = Vec::new();
        for (place, url) in places.iter().enumerate() {
            let addresses = look_up(url).await.map_err(|reason| {
                format!("--users-at: {} can't be resolved ({reason}); see whether a Traefik runs", shown(url))
            })?;
            for address in addresses {
                all.push(Door::new(place, url, address, host.as_deref())?);
            }
        }
        if all.is_empty() {
            Err("--users-at: no name has an address; see whether a Traefik runs".to_owned())
        } else {
            Ok(Self { all, places })
        }
    }

    /// The first address.
    pub(super) fn first(&self) -> SocketAddr {
        self.all[0].address
    }

    /// Whether that door is an address of its name no more. If that can't be told, it is one still.
    pub(super) async fn has_gone(&self, door: &Door) -> bool {
        look_up(&self.places[door.place]).await.is_ok_and(|now| !now.is_empty() && !now.contains(&door.address))
    }
}

impl fmt::Display for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.all.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

async fn look_up(url: &Url) -> Result<Vec<SocketAddr>, String> {
    let port = url.port_or_known_default().unwrap_or(80);
    let mut found: Vec<SocketAddr> = match url.host() {
        Some(Host::Ipv4(ip)) => vec![(ip, port).into()],
        Some(Host::Ipv6(ip)) => vec![(ip, port).into()],
        host => {
            let name = host.map(|host| host.to_string()).unwrap_or_default();
            lookup_host((name, port)).await.map_err(|error| error.to_string())?.collect()
        }
    };
    found.sort();
    found.dedup();
    Ok(found)
}

fn shown(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

impl Door {
    fn new(place: usize, url: &Url, address: SocketAddr, host: Option<&str>) -> Result<Self, String> {
        let name = host.or(url.host_str()).unwrap_or_default().to_owned();
        let https = url.scheme() == "https";
        // A certificate is for the users' name, and the word proves more than it does who answers: so any will do.
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .tls_danger_accept_invalid_certs(true)
            .tls_certs_only(None)
            .resolve(&name, address)
            .build()
            .map_err(|error| format!("no HTTP client can be made: {}", innermost(&error)))?;
        Ok(Self { place, address, https, base: format!("{}://{name}:{}", url.scheme(), address.port()), http })
    }

    /// Asks for a path.
    pub(super) async fn ask(&self, path: &str) -> Result<Seen, String> {
        let mut answer = self.http.get(format!("{}{path}", self.base)).send().await.map_err(|e| silence(&e))?;
        let (status, mut body) = (answer.status().as_u16(), Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(|e| silence(&e))? {
            body.extend_from_slice(&chunk);
            if body.len() > BODY_BYTES_MAX {
                break;
            }
        }
        Ok(Seen { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.address)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://traefik:8000")]
    #[case("https://10.0.0.1:8443/")]
    #[case("http://[fd00::1]:8000")]
    fn a_place_is_scheme_host_and_port(#[case] text: &str) {
        parse(text).unwrap();
    }

    #[rstest]
    #[case("traefik:8000")]
    #[case("ftp://traefik")]
    #[case("http://traefik/hub")]
    #[case("http://user@traefik")]
    #[case("http://traefik?x")]
    #[case("")]
    fn anything_else_is_refused(#[case] text: &str) {
        assert!(parse(text).unwrap_err().contains("http://HOST:PORT"));
    }
}
