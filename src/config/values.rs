//! From text to a value that can't be wrong. Each error is the second half of a sentence that begins with the setting.

use std::net::IpAddr;
use std::path::PathBuf;

use url::{Host, Url};

use super::{EntryPoint, TlsVersion, TraefikApi};
use crate::route::Target;

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("{text} is not a port (1-65535)"))
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n != 0).ok_or_else(|| format!("{text} is not a number above 0"))
}

pub(super) fn percent(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=100).contains(n)).ok_or_else(|| format!("{text} is not a number from 1 to 100"))
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("'{text}' is neither true nor false")),
    }
}

pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// What happens when a Traefik stays behind, without its time.
#[derive(Clone, Copy)]
pub(super) enum Policy {
    Proceed,
    Wait,
}

pub(super) fn policy(text: &str) -> Result<Policy, String> {
    match text {
        "proceed" => Ok(Policy::Proceed),
        "wait" => Ok(Policy::Wait),
        _ => Err(format!("'{text}' is neither proceed nor wait")),
    }
}

/// Seconds until changes go on without a Traefik. It is taken out of service two seconds after it fell behind, by a probe
/// that needs some time of its own.
pub(super) fn grace(text: &str) -> Result<usize, String> {
    let seconds = count(text)?;
    if seconds < 4 { Err(format!("{text} s is too short for a readiness probe; 4 is the least")) } else { Ok(seconds) }
}

/// The name of an installation, which stands in sentences and in a key's value.
pub(super) fn installation(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty() && text.len() <= 100 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
    if is_name { Ok(text.to_owned()) } else { Err(format!("'{text}' is not a name of letters, digits and -_./")) }
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    not_empty(text).map(PathBuf::from)
}

/// An address to listen on: a name, an IP address, or nothing or `*` for all interfaces, which becomes "".
pub(super) fn listen_address(text: &str) -> Result<String, String> {
    let address = text.trim();
    if matches!(address, "" | "*") {
        return Ok(String::new());
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if bare.parse::<IpAddr>().is_ok() {
        return Ok(bare.to_owned());
    }
    // A name of digits and dots only is a mistyped address.
    let is_name = !bare.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if is_name {
        return Ok(bare.to_owned());
    }
    Err(format!("'{text}' is not an address; write a name or an IP address (the port has a setting of its own)"))
}

/// An etcd endpoint, as `scheme://host:port`.
pub(super) fn etcd_endpoint(text: &str) -> Result<String, String> {
    let url = web_url(text, "http://HOST:2379")?;
    if url.path() != "/" {
        return Err(format!("'{text}' has a path; write http://HOST:2379"));
    }
    let authority = text.trim_end_matches('/');
    if url.port().is_none() && !authority.ends_with(":80") && !authority.ends_with(":443") {
        return Err(format!("'{text}' names no port; etcd's is 2379 as a rule"));
    }
    Ok(authority.to_owned())
}

pub(super) fn traefik_api(text: &str) -> Result<TraefikApi, String> {
    let example = "http://HOST:PORT, or dns://NAME:PORT for a name that resolves to all of them";
    if let Some(rest) = text.strip_prefix("dns://") {
        let (name, port) =
            rest.trim_end_matches('/').rsplit_once(':').ok_or(format!("'{text}' names no port; write {example}"))?;
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !is_name {
            return Err(format!("'{name}' is not a DNS name; write {example}"));
        }
        return Ok(TraefikApi::Dns { name: name.to_owned(), port: self::port(port)? });
    }
    web_url(text, example).map(TraefikApi::Url)
}

/// A URL without path, that Traefik asks by plain http.
pub(super) fn pages_url(text: &str) -> Result<Url, String> {
    let url = web_url(text, "http://HOST:PORT")?;
    if url.scheme() != "http" {
        return Err(format!("'{text}' must begin with http://; our pages don't speak TLS"));
    }
    if url.path() != "/" {
        return Err(format!("'{text}' has a path; write http://HOST:PORT"));
    }
    match url.host() {
        Some(Host::Ipv4(ip)) if ip.is_unspecified() => Err(format!("'{text}' is no address that anybody can call")),
        Some(Host::Ipv6(ip)) if ip.is_unspecified() => Err(format!("'{text}' is no address that anybody can call")),
        _ => Ok(url),
    }
}

/// A http or https URL without credentials, query and fragment.
pub(super) fn web_url(text: &str, example: &str) -> Result<Url, String> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("holds white space; write {example}"));
    }
    // What stands before an '@' may be a password: it isn't repeated.
    let shown = if text.contains('@') { "this".to_owned() } else { format!("'{text}'") };
    let not_a_url = |_| format!("{shown} is not a URL; write {example}");
    let url = Url::parse(text).map_err(not_a_url)?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) || !text.contains("://") {
        return Err(format!("{shown} is not a web address; write {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("carries a user name or password; remove the part before '@'".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("has a query or fragment; write {example}"));
    }
    Ok(url)
}

pub(super) fn target(text: &str) -> Result<Target, String> {
    Target::parse(text).map_err(|e| e.to_string())
}

/// The beginning of keys in etcd, without slashes around it.
pub(super) fn key_prefix(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        // Traefik cuts it off when it lists, and compares with it when it decodes: it then finds nothing.
        return Err(format!(
            "'{text}' begins with a slash, which Traefik can't read; write '{}'",
            text.trim_matches('/')
        ));
    }
    let text = text.trim_end_matches('/');
    let good = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    if text.split('/').all(good) {
        Ok(text.to_owned())
    } else {
        Err(format!("'{text}' may hold letters, digits, '-', '_' and '.', in parts separated by single slashes"))
    }
}

pub(super) fn entry_point(text: &str) -> Result<EntryPoint, String> {
    let (name, address) = match text.split_once('=') {
        Some((name, address)) => (name, Some(address)),
        None => (text, None),
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
        return Err(format!("'{name}' is not the name of an entry point (letters, digits, '-' and '_')"));
    }
    if name.eq_ignore_ascii_case("traefik") {
        return Err("'traefik' is the private entry point, with Traefik's API; users need another one".to_owned());
    }
    if let Some(address) = address {
        socket_address(address)?;
    }
    Ok(EntryPoint { name: name.to_owned(), address: address.map(str::to_owned) })
}

/// `HOST:PORT` as Traefik wants it; the host may be missing.
pub(super) fn socket_address(text: &str) -> Result<String, String> {
    let wrong = || format!("'{text}' is not HOST:PORT");
    let (host, number) = text.rsplit_once(':').ok_or_else(wrong)?;
    port(number)?;
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(format!("'{text}': write an IPv6 address in brackets, as [::1]:{number}"));
    }
    listen_address(host).map_err(|_| wrong())?;
    Ok(text.to_owned())
}

/// An address or a range of addresses.
pub(super) fn address_range(text: &str) -> Result<String, String> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let wrong = || format!("'{text}' is not an address or range, such as 10.0.0.0/8");
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    match bits.map(str::parse::<u8>) {
        None => Ok(text.to_owned()),
        Some(Ok(bits)) if bits <= bits_max => Ok(text.to_owned()),
        Some(_) => Err(wrong()),
    }
}

/// A version of TLS, by the name that OpenSSL's methods have (`TLSv1_2_method`) or the configurable-http-proxy takes.
pub(super) fn tls_version(text: &str) -> Result<TlsVersion, String> {
    match text.trim_end_matches("_method").trim_end_matches("_server").trim_end_matches("_client") {
        "TLSv1_2" | "TLSv1.2" => Ok(TlsVersion::Tls12),
        "TLSv1_3" | "TLSv1.3" => Ok(TlsVersion::Tls13),
        "TLSv1" | "TLSv1_1" | "TLSv1.1" | "SSLv2" | "SSLv3" | "SSLv23" | "TLS" => Err(format!(
            "'{text}' is too old to be safe, or names no one version; write TLSv1_2 or TLSv1_3, or remove it"
        )),
        _ => Err(format!("'{text}' is not a version of TLS; write TLSv1_2 or TLSv1_3")),
    }
}

/// A header, as `NAME: VALUE`.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("'{text}' has no colon; write NAME: VALUE"))?;
    let (name, value) = (name.trim(), value.trim());
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("'{name}' is not the name of a header"));
    }
    // Traefik takes a name of digits for a place in a list, and refuses everything.
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("'{name}' is a number, which Traefik can't read as the name of a header"));
    }
    if value.is_empty() {
        // Traefik would take it for the wish to remove the header.
        return Err(format!("the header {name} has no value"));
    }
    if value.chars().any(char::is_control) {
        return Err(format!("the value of the header {name} holds a control character"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A middleware of the administrator's, as `name@provider`.
pub(super) fn middleware(text: &str) -> Result<String, String> {
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    match text.split_once('@') {
        Some((name, provider)) if is_name(name) && is_name(provider) => Ok(text.to_owned()),
        _ => Err(format!("'{text}' is not NAME@PROVIDER, such as limit@file")),
    }
}

/// The signature algorithms that the API's tokens may have.
pub(super) const ALGORITHMS: &[&str] =
    &["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

pub(super) fn algorithm(text: &str) -> Result<String, String> {
    ALGORITHMS
        .iter()
        .find(|known| known.eq_ignore_ascii_case(text))
        .map(|&known| known.to_owned())
        .ok_or_else(|| format!("'{text}' is not one of {}", ALGORITHMS.join(", ")))
}
