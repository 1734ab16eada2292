//! Each Traefik: is it there, new enough, told what it must be told, and does it serve our routes?

use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::probe::{Answer, Probe};
use super::report::Report;
use crate::cli::{floors, wiring};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, TraefikApi};
use crate::traefik::client::Access;
use crate::traefik::client::{ClientError, Shown, TraefikClient};
use crate::traefik::marker::Marker;

/// Signed tokens and certificates go wrong when clocks differ by more.
const CLOCKS_APART_SECONDS: i64 = 20;

/// What etcd says about Traefik's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InStore {
    /// etcd could not be read.
    Unknown,
    /// No Pointsman has written yet.
    Nothing,
    /// It holds a tree.
    Marker(Marker),
}

/// Looks at every Traefik that the settings name.
pub(super) async fn check(config: &Config, in_store: &InStore, probe: &Probe, report: &mut Report) {
    for api in &config.traefik.apis {
        match api {
            TraefikApi::Url(url) => one(url, config, in_store, probe, report).await,
            TraefikApi::Dns { name, port } => {
                let part = format!("traefik dns://{name}:{port}");
                match tokio::net::lookup_host((name.as_str(), *port)).await {
                    Ok(addresses) => {
                        let urls: Vec<Url> =
                            addresses.filter_map(|a| Url::parse(&format!("http://{a}")).ok()).collect();
                        report.ok(&part, format_args!("the name resolves to {} addresses", urls.len()));
                        for url in urls {
                            one(&url, config, in_store, probe, report).await;
                        }
                    }
                    Err(error) => report.problem(
                        &part,
                        format_args!("the name can't be resolved ({error}); correct it in --traefik-api"),
                    ),
                }
            }
        }
    }
}

async fn one(url: &Url, config: &Config, in_store: &InStore, probe: &Probe, report: &mut Report) {
    let base = url.as_str().trim_end_matches('/').to_owned();
    let part = format!("traefik {base}");
    let client = match TraefikClient::new(url.clone(), &Access::etcd()) {
        Ok(client) => client,
        Err(error) => return report.problem(&part, error),
    };
    match client.version().await {
        Ok(text) => version(&text, config.traefik.strict_versions, &part, report),
        Err(ClientError::Refused) => {
            return report.problem(&part, "nobody listens there; start Traefik, or correct --traefik-api");
        }
        Err(ClientError::Silent(why)) => {
            let advice = "--traefik-api must be the address of Traefik's private entry point, where its API is";
            return report.problem(&part, format_args!("no answer from Traefik's API ({why}); {advice}"));
        }
    }
    match client.overview().await {
        Ok(overview) => {
            if !overview.providers.iter().any(|provider| provider.eq_ignore_ascii_case("etcd")) {
                let seen = overview.providers.join(", ");
                report.problem(
                    &part,
                    format_args!(
                        "its etcd provider is off (on: {seen}); start it with what pointsman traefik-config writes"
                    ),
                );
            }
            let is_wanted = config.pages.url.is_some() && config.auth.tokens().is_ok_and(|tokens| !tokens.is_empty());
            if is_wanted && !overview.providers.iter().any(|provider| provider.eq_ignore_ascii_case("http")) {
                report.warning(
                    &part,
                    "its http provider is off, so if it starts while etcd is away it has no routes; give it what pointsman \
                     traefik-config writes",
                );
            }
            if overview.routers.errors > 0 {
                report.warning(
                    &part,
                    format_args!(
                        "{} of its {} routers don't work, so their users reach the hub instead; {base}/api/http/routers \
                         names them",
                        overview.routers.errors, overview.routers.total
                    ),
                );
            }
        }
        Err(error) => report.problem(&part, format_args!("/api/overview: {error}")),
    }
    match client.shown().await {
        Ok(Shown::Own(shown)) => marker(Some(&shown), in_store, config, &part, report),
        Ok(Shown::Nothing) => marker(None, in_store, config, &part, report),
        Ok(Shown::Fallback(shown)) => report.warning(
            &part,
            format_args!(
                "has no routes from etcd, and serves those that Pointsman gave it, up to change {}; see in its log whether \
                 it reaches etcd",
                shown.n
            ),
        ),
        Err(error) => report.problem(&part, format_args!("its middlewares can't be read: {error}")),
    }
    match probe.get(&format!("{base}/api/entrypoints")).await {
        Ok(answer) => {
            clock(&answer, &part, report);
            entry_points(&answer, config, &part, report);
        }
        Err(error) => report.problem(&part, format_args!("/api/entrypoints: {error}")),
    }
}

fn version(version: &str, strict: bool, part: &str, report: &mut Report) {
    match floors::traefik_complaint(version) {
        None => report.ok(part, format_args!("version {version}")),
        Some(complaint) => report.complaint(strict, part, complaint),
    }
}

fn marker(shown: Option<&Marker>, in_store: &InStore, config: &Config, part: &str, report: &mut Report) {
    let root_key = &config.traefik.root_key;
    match (shown, in_store) {
        (Some(shown), InStore::Marker(stored)) if shown == stored => {
            report.ok(part, format_args!("serves our routes, up to change {}", shown.n));
        }
        (Some(shown), InStore::Marker(stored)) => report.warning(
            part,
            format_args!(
                "serves the state {shown} while etcd holds {stored}; if that stays so, it no longer hears from etcd: \
                 restart it"
            ),
        ),
        (Some(shown), InStore::Unknown) => report.ok(part, format_args!("serves routes, up to change {}", shown.n)),
        (Some(shown), InStore::Nothing) => report.problem(
            part,
            format_args!(
                "serves the state {shown}, which is not in our etcd below '{root_key}': it reads another root key or \
                 another etcd; give it what pointsman traefik-config writes"
            ),
        ),
        (None, InStore::Marker(_)) => report.problem(
            part,
            format_args!(
                "does not show the routes that are in etcd below '{root_key}': its etcd provider reads another root \
                 key or another etcd, or can't read; look at its log, and give it what pointsman traefik-config writes"
            ),
        ),
        (None, InStore::Nothing) => report.warning(
            part,
            format_args!(
                "no Pointsman has written to etcd yet, so it can't be seen whether it reads '{root_key}' there; check \
                 again once pointsman runs"
            ),
        ),
        (None, InStore::Unknown) => report.warning(part, "serves none of our routes"),
    }
}

fn clock(answer: &Answer, part: &str, report: &mut Report) {
    let Some(theirs) = answer.date else { return };
    let apart = SystemClock.now().as_second() - theirs.as_second();
    if apart.abs() > CLOCKS_APART_SECONDS {
        report.warning(
            part,
            format_args!("its clock and ours differ by {} s; let both machines follow a time server", apart.abs()),
        );
    }
}

/// What `/api/entrypoints` says about one entry point; what has its zero value is left out there.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryPoint {
    name: String,
    #[serde(default)]
    transport: Transport,
    #[serde(default)]
    http: Http,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Transport {
    responding_timeouts: Timeouts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Timeouts {
    read_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Http {
    sanitize_path: bool,
    encode_query_semicolons: bool,
    alias_headers_strategy: String,
}

/// A duration as Go writes it, such as `1h0m0.5s` or `1500ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = rest[number..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| number + at);
        let seconds = match &rest[number..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(rest[..number].parse::<f64>().ok()? * seconds).ok()?;
        rest = &rest[unit..];
    }
    Some(total)
}

fn entry_points(answer: &Answer, config: &Config, part: &str, report: &mut Report) {
    let Ok(shown) = serde_json::from_str::<Vec<EntryPoint>>(&answer.body) else {
        return report.warning(part, "its entry points can't be read");
    };
    let advice = "pointsman traefik-config writes what it should be";
    for wanted in config.traefik.entry_points.iter().map(|entry_point| &entry_point.name) {
        let Some(entry_point) = shown.iter().find(|entry_point| entry_point.name.eq_ignore_ascii_case(wanted)) else {
            let names: Vec<&str> = shown.iter().map(|entry_point| entry_point.name.as_str()).collect();
            let names = names.join(", ");
            report
                .problem(part, format_args!("has no entry point '{wanted}' (it has: {names}); correct --entry-point"));
            continue;
        };
        let mut odd = Vec::new();
        let wanted_timeout = config.public.request_timeout;
        match &entry_point.transport.responding_timeouts.read_timeout {
            None => odd.push("readTimeout is off, so a client that sends nothing keeps its connection".to_owned()),
            Some(limit) if go_duration(limit).is_none_or(|limit| limit < wanted_timeout) => odd.push(format!(
                "readTimeout is {limit}, which cuts longer uploads (--request-timeout is {} ms)",
                wanted_timeout.as_millis()
            )),
            Some(_) => {}
        }
        if wiring::vouches_for_headers(config) && entry_point.http.alias_headers_strategy != "delete" {
            odd.push(
                "aliasHeadersStrategy is not delete, so a client can set X_Given where servers read it as X-Given"
                    .to_owned(),
            );
        }
        if entry_point.http.sanitize_path {
            odd.push("sanitizePath is on, which changes paths with //".to_owned());
        }
        if !entry_point.http.encode_query_semicolons {
            odd.push("encodeQuerySemicolons is off, which changes queries with ;".to_owned());
        }
        if odd.is_empty() {
            report.ok(part, format_args!("entry point '{wanted}' is set as it should be"));
        } else {
            report.warning(part, format_args!("entry point '{wanted}': {}; {advice}", odd.join("; ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go() {
        for (text, milliseconds) in [("2h0m0s", 7_200_000), ("1m30.5s", 90_500), ("1500ms", 1500), ("0s", 0)] {
            assert_eq!(go_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["5", "1x", "s", "-1s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
