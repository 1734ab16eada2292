//! Traefik's version, and what depends on it.

use std::fmt;
use std::str::FromStr;

/// A release of Traefik.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraefikVersion(pub u32, pub u32, pub u32);

impl TraefikVersion {
    /// The newest release that this version of Pointsman was tried with.
    pub const NEWEST_KNOWN: Self = Self(3, 7, 15);
    /// The oldest release that is supported.
    pub const FLOOR: Self = Self(3, 7, 9);
    /// From here on there is `underscoreHeadersStrategy`; an older Traefik doesn't start with it.
    pub const UNDERSCORE_HEADERS: Self = Self(3, 7, 9);
    /// From here on there is `aliasHeadersStrategy`, which takes its place; an older Traefik doesn't start with it.
    pub const ALIAS_HEADERS: Self = Self(3, 7, 12);

    /// Finds the version in what `traefik version` prints.
    #[must_use]
    pub fn in_output(output: &str) -> Option<Self> {
        output.lines().find_map(|line| line.trim().strip_prefix("Version:")?.trim().parse().ok())
    }
}

impl FromStr for TraefikVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("'{text}' is not a version of Traefik, such as {}", Self::NEWEST_KNOWN);
        // A release candidate counts as its release: `3.8.0-rc1`.
        let numbers = text.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
        let parts: Vec<u32> = numbers.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
        match parts[..] {
            [major, minor, patch] => Ok(Self(major, minor, patch)),
            [major, minor] => Ok(Self(major, minor, 0)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for TraefikVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        for (text, version) in [
            ("3.7.15", TraefikVersion(3, 7, 15)),
            ("v3.10.2", TraefikVersion(3, 10, 2)),
            ("3.8.0-rc.1", TraefikVersion(3, 8, 0)),
            ("3.7", TraefikVersion(3, 7, 0)),
        ] {
            assert_eq!(text.parse(), Ok(version));
        }
        for text in ["", "3", "latest", "3.7.x", "3.7.15.1"] {
            assert!(text.parse::<TraefikVersion>().is_err(), "{text}");
        }
        assert!(
            TraefikVersion(3, 7, 9) < TraefikVersion(3, 7, 12) && TraefikVersion(3, 7, 15) < TraefikVersion(3, 10, 0)
        );
    }

    #[test]
    fn the_version_is_found_in_the_output() {
        let output = "Version:      3.7.15\nCodename:     langres\nGo version:   go1.26.9\n";
        assert_eq!(TraefikVersion::in_output(output), Some(TraefikVersion(3, 7, 15)));
        assert_eq!(TraefikVersion::in_output("Version: dev\n"), None);
    }
}
