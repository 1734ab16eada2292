//! The members that a cluster is to have, and the numbers that etcd makes of them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde::{Deserialize, Serialize};
use url::Url;

/// Names of members, each with the URL at which the others reach it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Members(BTreeMap<String, String>);

impl Members {
    /// Where the others reach this member.
    #[must_use]
    pub fn url(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Who is reached there.
    #[must_use]
    pub fn name_of(&self, url: &str) -> Option<&str> {
        self.0.iter().find(|(_, known)| *known == url).map(|(name, _)| name.as_str())
    }

    /// All of them, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, url)| (name.as_str(), url.as_str()))
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many must be there so that the cluster can decide anything.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.len() / 2 + 1
    }

    /// The number that etcd gives to the cluster that these members found with this token.
    #[must_use]
    pub fn cluster_id(&self, token: &str) -> u64 {
        let mut ids: Vec<u64> = self.0.values().map(|url| first_number(&[url.as_bytes(), token.as_bytes()])).collect();
        ids.sort_unstable();
        let bytes: Vec<[u8; 8]> = ids.into_iter().map(u64::to_be_bytes).collect();
        first_number(&bytes.iter().map(<[u8; 8]>::as_slice).collect::<Vec<_>>())
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Members {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(members: I) -> Self {
        Self(members.into_iter().map(|(name, url)| (name.to_owned(), url.to_owned())).collect())
    }
}

/// As etcd wants them in `initial-cluster`.
impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, url)) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}={url}")?;
        }
        Ok(())
    }
}

impl FromStr for Members {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut members = Self::default();
        for item in text.split(',').map(str::trim) {
            let (name, url) = item.split_once('=').unwrap_or((item, ""));
            if name.is_empty() || name.chars().any(char::is_whitespace) {
                return Err(format!("'{item}' has no name; write NAME=http://HOST:PORT, separated by commas"));
            }
            let url = url.strip_suffix('/').unwrap_or(url);
            check_url(url).map_err(|reason| format!("'{item}': {reason}"))?;
            if members.name_of(url).is_some() || members.0.insert(name.to_owned(), url.to_owned()).is_some() {
                return Err(format!("'{item}' has the name or the URL of another member"));
            }
        }
        Ok(members)
    }
}

/// etcd compares these URLs as texts, so there must be one way to write each.
pub fn check_url(url: &str) -> Result<(), String> {
    let read = Url::parse(url).map_err(|error| format!("'{url}' is no URL ({error}); write http://HOST:PORT"))?;
    if read.scheme() != "http" {
        return Err(format!("'{url}' does not begin with http://; TLS between members is not supported"));
    }
    let port = url.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none_or(|port| port == 0) || read.path() != "/" || url.ends_with('/') || read.query().is_some() {
        return Err(format!("'{url}' must be http://HOST:PORT and nothing more"));
    }
    Ok(())
}

/// What etcd takes from a digest as a number.
fn first_number(parts: &[&[u8]]) -> u64 {
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &parts.concat());
    digest.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_and_written() {
        let text = "m0=http://m0.etcd.hub.svc:2380, m1=http://[::1]:2380/";
        let members: Members = text.parse().unwrap();
        assert_eq!(members.to_string(), "m0=http://m0.etcd.hub.svc:2380,m1=http://[::1]:2380");
        assert_eq!((members.len(), members.quorum()), (2, 2));
        assert_eq!(members.name_of("http://[::1]:2380"), Some("m1"));
        for bad in [
            "",
            "m0",
            "=http://a:1",
            "m0=a:1",
            "m0=https://a:1",
            "m0=http://a",
            "m0=http://a:0",
            "m0=http://a:1/x",
            "m0=http://a:1,",
            "m0=http://a:1,m0=http://b:1",
            "m0=http://a:1,m1=http://a:1",
            "m 0=http://a:1",
        ] {
            assert!(bad.parse::<Members>().is_err(), "{bad}");
        }
    }

    /// The number was read off etcd 3.5.16.
    #[test]
    fn the_number_of_a_cluster_is_the_one_that_etcd_makes() {
        let text = "m0=http://127.0.0.1:23801,m1=http://127.0.0.1:23803,m2=http://127.0.0.1:23805";
        let members: Members = text.parse().unwrap();
        assert_eq!(format!("{:x}", members.cluster_id("tok")), "90c0a8006ec1e3ec");
        assert_ne!(members.cluster_id("tok"), members.cluster_id("tok2"));
    }
}
