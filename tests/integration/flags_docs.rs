//! `docs/chp-flags.md` names every flag and variable of the configurable-http-proxy, and for each a test that exists.

use std::collections::BTreeMap;
use std::path::Path;

use pointsman::config::settings::{REFUSED, Setting};

use crate::support::one_machine::refusal;

/// Every flag of the configurable-http-proxy 5.3.
const FLAGS: &[&str] = &[
    "ip",
    "port",
    "socket",
    "api-ip",
    "api-port",
    "api-socket",
    "ssl-key",
    "ssl-cert",
    "ssl-ca",
    "ssl-request-cert",
    "ssl-reject-unauthorized",
    "ssl-protocol",
    "ssl-ciphers",
    "ssl-allow-rc4",
    "ssl-dhparam",
    "api-ssl-key",
    "api-ssl-cert",
    "api-ssl-ca",
    "api-ssl-request-cert",
    "api-ssl-reject-unauthorized",
    "client-ssl-key",
    "client-ssl-cert",
    "client-ssl-ca",
    "client-ssl-request-cert",
    "client-ssl-reject-unauthorized",
    "default-target",
    "error-target",
    "error-path",
    "redirect-port",
    "redirect-to",
    "pid-file",
    "no-x-forward",
    "no-prepend-path",
    "no-include-prefix",
    "auto-rewrite",
    "protocol-rewrite",
    "change-origin",
    "custom-header",
    "insecure",
    "host-routing",
    "metrics-ip",
    "metrics-port",
    "metrics-socket",
    "log-level",
    "timeout",
    "proxy-timeout",
    "keep-alive-timeout",
    "storage-backend",
];

/// Every variable that it, or what it is made of, reads.
const VARIABLES: &[&str] = &[
    "CONFIGPROXY_AUTH_TOKEN",
    "CONFIGPROXY_SSL_KEY_PASSPHRASE",
    "CONFIGPROXY_API_SSL_KEY_PASSPHRASE",
    "NODE_EXTRA_CA_CERTS",
    "NODE_TLS_REJECT_UNAUTHORIZED",
    "NODE_OPTIONS",
    "DEBUG",
    "FORCE_FETCH_PATH",
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{} can't be read: {error}", path.display()))
}

/// The rows of the page: what stands in the other columns, by the name in the first.
fn rows() -> BTreeMap<String, Vec<String>> {
    let page = read("docs/chp-flags.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<String> = row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        (cells[0].trim_matches('`').to_owned(), cells[1..].to_vec())
    })
    .collect()
}

#[test]
fn every_flag_and_variable_has_a_row_and_a_test() {
    let rows = rows();
    let names: Vec<String> = FLAGS.iter().map(|flag| format!("--{flag}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).chain(VARIABLES.iter().copied()).collect();
    for name in &names {
        let cells = rows.get(*name).unwrap_or_else(|| panic!("{name} is not in the page"));
        assert_eq!(cells.len(), 3, "{name}: {cells:?}");
        for test in cells[2].split(", ") {
            let (file, test) = test.trim_matches('`').split_once("::").unwrap_or_else(|| panic!("no test: {name}"));
            let source = read(&format!("tests/integration/{file}.rs"));
            assert!(source.contains(&format!("fn {test}(")), "there is no {file}::{test}, named for {name}");
        }
    }
    assert_eq!(rows.len(), names.len(), "the page has rows for something else");
}

#[test]
fn every_flag_is_a_setting_or_refused_as_the_page_says() {
    let rows = rows();
    for flag in FLAGS {
        let says_refused = rows[&format!("--{flag}")][0] == "refused";
        let is_refused = REFUSED.iter().any(|refused| refused.name == *flag);
        assert_eq!(is_refused, says_refused, "--{flag}");
        assert_eq!(Setting::find(flag).is_none(), is_refused, "--{flag}");
    }
    assert!(REFUSED.iter().all(|refused| FLAGS.contains(&refused.name)));
}

#[test]
fn what_is_refused_says_why() {
    for refused in REFUSED {
        let flag = format!("--{}", refused.name);
        let mut flags = vec![flag.as_str()];
        flags.extend(refused.takes_value.then_some("x"));
        let finished = refusal(&flags, &[]);
        assert_eq!(finished.code, 64, "{finished:?}");
        assert!(finished.stderr.contains(&format!("{flag}: {}", refused.why)), "{finished:?}");
        assert!(refused.why.to_lowercase().contains("remove"), "{flag} doesn't say what to do");
    }
}
