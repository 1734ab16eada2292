//! How somebody who may read the files of our Traefik gets through its private door, as the running Pointsman does.

use std::path::Path;

use secrecy::SecretString;

use crate::traefik::dynamic_file::KEY_HEADER;
use crate::traefik::static_config::KEYED_ENTRY_POINT;

/// Address and key, out of the files in the folder of a running Pointsman.
pub(super) fn private_door(data: &Path) -> Option<(String, SecretString)> {
    let read = |name: &str| std::fs::read_to_string(data.join("traefik").join(name)).ok();
    let address = address_in(&read("traefik.yaml")?)?;
    let key = key_in(&read("dynamic/pointsman.yaml")?)?;
    Some((address, SecretString::from(key)))
}

fn address_in(yaml: &str) -> Option<String> {
    let mut lines = yaml.lines().map(str::trim);
    lines.find(|line| line.trim_end_matches(':').trim_matches('"') == KEYED_ENTRY_POINT)?;
    let address = lines.find_map(|line| line.strip_prefix("address:"))?;
    Some(address.trim().trim_matches('"').to_owned())
}

fn key_in(yaml: &str) -> Option<String> {
    let (_, rest) = yaml.split_once(&format!("Header(`{KEY_HEADER}`,`"))?;
    rest.split_once('`').map(|(key, _)| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_and_key_are_found() {
        let yaml = "entryPoints:\n  \"web\":\n    address: \":80\"\n  private:\n    address: \"127.0.0.1:7\"\n";
        assert_eq!(address_in(yaml).as_deref(), Some("127.0.0.1:7"));
        assert_eq!(key_in("rule: \"Header(`X-Pointsman-Key`,`abc`)&&x\"").as_deref(), Some("abc"));
        assert_eq!((address_in("web:"), key_in("")), (None, None));
    }
}
