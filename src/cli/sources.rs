//! Reads the three sources of settings.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgMatches;
use secrecy::SecretString;

use crate::config::settings::{REFUSED, SETTINGS, TOKEN_VARIABLE};
use crate::config::{Layer, Origin, Problems, Sources, secrets};

/// Flags (of the program and then of the command), variables, and the file that one of them names.
pub(super) fn read(
    matches: [&ArgMatches; 2],
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    problems: &mut Problems,
) -> Sources {
    let mut sources = Sources { flags: flags(matches, problems), ..Sources::default() };
    let (token, variables): (Vec<_>, Vec<_>) = variables.into_iter().partition(|(name, _)| name == TOKEN_VARIABLE);
    let extra_ca = variables.iter().find(|(name, value)| name == "NODE_EXTRA_CA_CERTS" && !value.is_empty());
    sources.extra_ca = extra_ca.map(|(_, value)| PathBuf::from(value));
    sources.warnings = without_effect(&variables);
    sources.environment = Layer::from_environment(variables, problems);
    // An empty token means none, as in the configurable-http-proxy.
    for (_, token) in token.into_iter().filter(|(_, token)| !token.is_empty()) {
        match token.into_string() {
            Ok(token) => sources.environment_token = Some(SecretString::from(token)),
            Err(_) => problems.add(format!("{TOKEN_VARIABLE}: its value is not UTF-8")),
        }
    }
    if let Some(given) = sources.given("config").cloned() {
        let path = PathBuf::from(given.values.concat());
        let file = match secrets::read(&path) {
            Ok(text) => Layer::from_toml(&text, &path, problems),
            Err(error) => {
                problems.add(format!("{}: {} {error}", given.origin.place("config"), path.display()));
                None
            }
        };
        sources.file_is_lost = file.is_none();
        sources.file = file.unwrap_or_default();
    }
    sources
}

fn flags(matches: [&ArgMatches; 2], problems: &mut Problems) -> Layer {
    let mut layer = Layer::default();
    for matches in matches {
        for setting in SETTINGS {
            if let Some(values) = matches.get_many::<String>(setting.name) {
                layer.set(setting, values.cloned().collect(), Origin::Flag);
            }
        }
    }
    for refused in REFUSED {
        if matches.iter().any(|matches| matches.contains_id(refused.name)) {
            problems.add(refused.sentence(&format!("--{}", refused.name)));
        }
    }
    layer
}

/// Variables that the configurable-http-proxy or its Node reads, that would matter, and that we don't follow.
fn without_effect(variables: &[(OsString, OsString)]) -> Vec<String> {
    let passphrase = |prefix: &str| {
        format!(
            "is not used, for Pointsman takes no passphrase: if the key of --{prefix}-key is encrypted, decrypt it with \
             'openssl pkey -in KEY -out KEY.plain' and name that file"
        )
    };
    let known = [
        ("CONFIGPROXY_SSL_KEY_PASSPHRASE", passphrase("ssl")),
        ("CONFIGPROXY_API_SSL_KEY_PASSPHRASE", passphrase("api-ssl")),
        (
            "NODE_TLS_REJECT_UNAUTHORIZED",
            "has no effect: the certificates of https servers are checked, unless --insecure is given".to_owned(),
        ),
    ];
    // Any other value is Node's default, and ours.
    let matters = |name: &str, value: &OsString| !value.is_empty() && (!name.starts_with("NODE_") || value == "0");
    let is_set = |name: &str| variables.iter().any(|(variable, value)| variable == name && matters(name, value));
    let known = known.into_iter().filter(|(name, _)| is_set(name));
    known.map(|(name, says)| format!("the variable {name} {says}")).collect()
}
