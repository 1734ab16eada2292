//! Ciphers by OpenSSL's names, as the configurable-http-proxy takes them, and by Go's, as Traefik does.

/// OpenSSL's name, and Go's. Only what Go still offers for TLS 1.2; the ciphers of TLS 1.3 are always on.
const KNOWN: &[(&str, &str)] = &[
    ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ("ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ("ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("ECDHE-ECDSA-AES128-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"),
    ("ECDHE-RSA-AES128-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256"),
    ("ECDHE-ECDSA-AES128-SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"),
    ("ECDHE-RSA-AES128-SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"),
    ("ECDHE-ECDSA-AES256-SHA", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"),
    ("ECDHE-RSA-AES256-SHA", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"),
    ("AES128-GCM-SHA256", "TLS_RSA_WITH_AES_128_GCM_SHA256"),
    ("AES256-GCM-SHA384", "TLS_RSA_WITH_AES_256_GCM_SHA384"),
    ("AES128-SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA256"),
    ("AES128-SHA", "TLS_RSA_WITH_AES_128_CBC_SHA"),
    ("AES256-SHA", "TLS_RSA_WITH_AES_256_CBC_SHA"),
];

/// OpenSSL's names of the ciphers of TLS 1.3.
const ALWAYS_ON: &[&str] = &["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Reads a list of OpenSSL's. What only forbids (`!RC4`) is dropped if Go doesn't have it anyway; what Go lacks or what
/// names a whole family is refused, for nobody should believe it to be in force.
pub(super) fn parse(text: &str) -> Result<Vec<&'static str>, String> {
    let mut found = Vec::new();
    for name in text.split([':', ',', ' ']).filter(|name| !name.is_empty()) {
        if let Some((_, go)) = KNOWN.iter().find(|(openssl, go)| name == *openssl || name == *go) {
            if !found.contains(go) {
                found.push(*go);
            }
        } else if !(ALWAYS_ON.contains(&name) || is_empty_ban(name)) {
            return Err(format!("Traefik has no cipher '{name}'; write names out of {}", names()));
        }
    }
    if found.is_empty() { Err(format!("names no cipher; write names out of {}", names())) } else { Ok(found) }
}

/// Whether this forbids only what is never offered, or what no name in the list brings in.
fn is_empty_ban(name: &str) -> bool {
    const NEVER: &[&str] = &[
        "RC4", "MD5", "aNULL", "eNULL", "NULL", "EXPORT", "EXP", "LOW", "DES", "3DES", "PSK", "SRP", "DSS", "CAMELLIA",
    ];
    name.strip_prefix('!').is_some_and(|banned| NEVER.contains(&banned))
}

fn names() -> String {
    KNOWN.iter().map(|(openssl, _)| *openssl).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_openssl_become_names_of_go() {
        assert_eq!(
            parse("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:TLS_AES_256_GCM_SHA384:!RC4:!aNULL"),
            Ok(vec!["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"])
        );
        let all: Vec<_> = KNOWN.iter().map(|(openssl, _)| *openssl).collect();
        assert_eq!(parse(&all.join(",")).map(|found| found.len()), Ok(KNOWN.len()));
    }

    #[test]
    fn what_go_lacks_is_refused_by_name() {
        for name in ["HIGH", "DHE-RSA-AES128-GCM-SHA256", "!AES128-SHA", "RC4-SHA", "@STRENGTH"] {
            let error = parse(&format!("AES128-SHA:{name}")).expect_err(name);
            assert!(error.contains(&format!("'{name}'")), "{error}");
        }
        for text in ["", ":", "!RC4", "TLS_AES_128_GCM_SHA256"] {
            assert!(parse(text).is_err_and(|error| error.starts_with("names no cipher")), "{text}");
        }
    }
}
