//! Settings of the configurable-http-proxy that Traefik can't follow, and what to do instead.

/// A setting of the configurable-http-proxy that is refused.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// Its name there.
    pub name: &'static str,
    /// Whether a value follows it.
    pub takes_value: bool,
    /// Why it is refused, and what to do instead: one or two sentences without the last full stop.
    pub why: &'static str,
}

impl Refused {
    /// The setting of that name, if it is refused.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        REFUSED.iter().find(|refused| refused.name == name)
    }

    /// The sentence that refuses it where it stands.
    #[must_use]
    pub fn sentence(&self, place: &str) -> String {
        format!("{place}: {}", self.why)
    }
}

const fn value(name: &'static str, why: &'static str) -> Refused {
    Refused { name, takes_value: true, why }
}

const fn bare(name: &'static str, why: &'static str) -> Refused {
    Refused { name, takes_value: false, why }
}

/// The flags of the configurable-http-proxy 5.3 that are refused by name.
pub const REFUSED: &[Refused] = &[
    bare("ssl-allow-rc4", "RC4 is broken and no part of TLS any more; it had no effect before either. Remove it"),
    value(
        "ssl-dhparam",
        "Traefik has no ciphers that use DH parameters, it uses elliptic curves instead. Remove it; no browser needs it",
    ),
    bare(
        "no-x-forward",
        "Traefik always tells servers the user's address in X-Forwarded headers. Where a proxy in front sets them, name \
         its address with --trusted-ips, and its values are passed on; then remove this",
    ),
    bare(
        "auto-rewrite",
        "Traefik can't rewrite the Location of redirects. Let the server make its redirects relative, or from the Host \
         header, which it gets as the user sent it; then remove this",
    ),
    value(
        "protocol-rewrite",
        "Traefik can't rewrite the Location of redirects. Let the server make them from X-Forwarded-Proto, which it \
         gets; then remove this",
    ),
    value(
        "timeout",
        "Traefik can't cut a connection for silence alone. --proxy-timeout limits how long a server may take to answer, \
         and --keep-alive-timeout how long a connection may be idle; remove this",
    ),
    value(
        "storage-backend",
        "it names a module for Node. Routes are kept on disk here (--data-dir) or in etcd (--etcd-endpoints); remove it",
    ),
];
