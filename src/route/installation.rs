//! Whose records these are: the name of the installation, and where its routes go.
//!
//! ```text
//! PREFIX/hub/installation    {"v":1,"name":"maths","root_key":"traefik"}
//! ```
//!
//! The first replica writes it. One that has another name, or brings routes to another of Traefik's trees, was set up to
//! use somebody else's records, and must not touch them.

use serde::{Deserialize, Serialize};

/// The version of the format that this program writes; it reads this one only.
const FORMAT: u32 = 1;

/// One installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Traefik's root key, without slashes at its ends.
    pub root_key: String,
}

#[derive(Serialize, Deserialize)]
struct Value {
    v: u32,
    name: Option<String>,
    root_key: String,
}

impl Installation {
    /// What stands in the store.
    ///
    /// # Panics
    ///
    /// Never: text can always be written.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let value = Value { v: FORMAT, name: self.name.clone(), root_key: self.root_key.clone() };
        serde_json::to_vec(&value).expect("text can always be written")
    }

    /// Reads what stands in the store.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(value: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let version: Version = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        if version.v != FORMAT {
            return Err(format!("it has format {}, and this version of Pointsman reads format {FORMAT}", version.v));
        }
        let Value { name, root_key, .. } = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        Ok(Self { name, root_key })
    }

    /// Why we, who are this installation, must not use the records below `prefix`, with the value that was found at `key`;
    /// `None` if they are ours.
    #[must_use]
    pub fn quarrel(&self, prefix: &str, key: &str, found: &[u8]) -> Option<String> {
        let found = match Self::parse(found) {
            Ok(found) => found,
            Err(error) => {
                return Some(format!(
                    "whose routes lie below {prefix} can't be read from {key} ({error}): use the version of Pointsman that wrote \
                     it, or remove that key if it is nobody's"
                ));
            }
        };
        if found.name != self.name {
            return Some(format!(
                "the routes below {prefix} are those of {}, and this replica is {}: give it another --etcd-prefix and \
                 --traefik-root-key, or correct --installation (to rename an installation stop all its replicas and remove \
                 {key})",
                called(found.name.as_deref()),
                called(self.name.as_deref()),
            ));
        }
        (found.root_key != self.root_key).then(|| {
            format!(
                "the routes below {prefix} go to Traefik's root key '{}', and this replica has '{}': give all replicas the same \
                 --traefik-root-key, or this one another --etcd-prefix (to move an installation stop all its replicas and remove \
                 {key})",
                found.root_key, self.root_key
            )
        })
    }
}

fn called(name: Option<&str>) -> String {
    name.map_or_else(|| "an installation without a name".to_owned(), |name| format!("the installation '{name}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(name: Option<&str>, root_key: &str) -> Installation {
        Installation { name: name.map(ToOwned::to_owned), root_key: root_key.to_owned() }
    }

    #[test]
    fn it_reads_what_it_wrote() {
        for name in [None, Some("maths")] {
            let ours = installation(name, "traefik");
            assert_eq!(Installation::parse(&ours.encode()), Ok(ours));
        }
        assert!(Installation::parse(b"{\"v\":2}").is_err_and(|why| why.contains("format 2")));
        assert!(Installation::parse(b"nonsense").is_err());
    }

    #[test]
    fn a_quarrel_names_both_and_the_flag() {
        let ours = installation(Some("maths"), "traefik");
        let quarrel = |found: &Installation| ours.quarrel("p/hub/", "p/hub/installation", &found.encode());
        assert_eq!(quarrel(&ours), None);
        for (found, words) in [
            (installation(Some("physics"), "traefik"), ["'physics'", "'maths'", "--installation"]),
            (installation(None, "traefik"), ["without a name", "'maths'", "--installation"]),
            (installation(Some("maths"), "proxy"), ["'proxy'", "'traefik'", "--traefik-root-key"]),
        ] {
            let sentence = quarrel(&found).expect("a quarrel");
            assert!(words.iter().all(|word| sentence.contains(word)), "{sentence}");
        }
        let unreadable = ours.quarrel("p/hub/", "p/hub/installation", b"x").expect("a quarrel");
        assert!(unreadable.contains("p/hub/installation"), "{unreadable}");
    }
}
