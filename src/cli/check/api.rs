//! Our own API and pages, as the hub and Traefik see them: do they answer, are they ready, is the token good?

use super::probe::Probe;
use super::report::Report;
use crate::config::{Config, Listen};

/// Looks at the running Pointsman, if one runs where the settings say.
pub(super) async fn check(config: &Config, probe: &Probe, report: &mut Report) {
    let Listen::Tcp { ip, port } = &config.api.listen else {
        return report.warning("api", "it is at a Unix socket, where check doesn't look");
    };
    let base = address(ip, *port);
    let part = format!("api {base}");
    let about = match probe.get(&format!("{base}/api/"), None).await {
        Ok(answer) if answer.status == 200 && answer.body.contains("\"pointsman\"") => answer.body,
        Ok(answer) => {
            return report.problem(
                &part,
                format_args!(
                    "something else answers there (status {} for /api/); stop it, or correct --api-port",
                    answer.status
                ),
            );
        }
        Err(error) => {
            return report.warning(
                &part,
                format_args!("pointsman does not run there ({error}); start it, or correct --api-port"),
            );
        }
    };
    version(&about, &part, report);
    match probe.get(&format!("{base}/readyz"), None).await {
        Ok(answer) if answer.status == 200 => report.ok(&part, "ready"),
        Ok(answer) => report.problem(&part, format_args!("not ready: {}", reasons(&answer.body))),
        Err(error) => report.problem(&part, format_args!("/readyz: {error}")),
    }
    token(config, &base, &part, probe, report).await;
    if let Some(url) = &config.pages.url {
        let url = url.as_str().trim_end_matches('/');
        let part = format!("pages {url}");
        match probe.get(&format!("{url}/_chp_healthz"), None).await {
            Ok(answer) if answer.status == 200 => report.ok(&part, "answer (seen from here, not from Traefik)"),
            Ok(answer) => report.warning(&part, format_args!("the health page answers {}", answer.status)),
            Err(error) => report.warning(
                &part,
                format_args!(
                    "no answer from here ({error}); if Traefik can't reach it either, users get bare error pages: \
                     correct --pages-url, --pages-ip or --pages-port"
                ),
            ),
        }
    }
}

/// Asks for a route that can't be there: an accepted token gets 404, a refused one 403.
async fn token(config: &Config, base: &str, part: &str, probe: &Probe, report: &mut Report) {
    let url = format!("{base}/api/routes/pointsman-check-{}", std::process::id());
    let tokens = match config.auth.tokens() {
        Ok(tokens) => tokens,
        Err(problems) => return report.problem(part, problems),
    };
    if tokens.is_empty() && config.auth.jwt.is_some() {
        return report.ok(part, "only signed tokens are accepted; none was tried");
    }
    if tokens.is_empty() {
        match probe.get(&url, None).await {
            Ok(answer) if answer.status == 403 => report.problem(
                part,
                "it wants a token, and there is none here; set CONFIGPROXY_AUTH_TOKEN or --token-file as for the \
                 running pointsman",
            ),
            Ok(_) => report.warning(
                part,
                "no token is set: everybody who reaches the API can change routes; set CONFIGPROXY_AUTH_TOKEN or \
                 --token-file",
            ),
            Err(error) => report.problem(part, format_args!("no answer to a call: {error}")),
        }
        return;
    }
    for (number, token) in tokens.iter().enumerate() {
        let which = if tokens.len() == 1 { "the token".to_owned() } else { format!("token {}", number + 1) };
        match probe.get(&url, Some(token)).await {
            Ok(answer) if matches!(answer.status, 200 | 404) => report.ok(part, format_args!("{which} is accepted")),
            Ok(answer) if answer.status == 403 => report.problem(
                part,
                format_args!(
                    "{which} is refused: the running pointsman has others; restart it, or send it SIGHUP if the token \
                     is in a --token-file"
                ),
            ),
            Ok(answer) => report.problem(
                part,
                format_args!("a call with {which} is answered {}: {}", answer.status, answer.body.trim()),
            ),
            Err(error) => report.problem(part, format_args!("no answer to a call with {which}: {error}")),
        }
    }
}

fn version(about: &str, part: &str, report: &mut Report) {
    let ours = env!("CARGO_PKG_VERSION");
    let about: serde_json::Value = serde_json::from_str(about).unwrap_or_default();
    match about["version"].as_str() {
        Some(theirs) if theirs == ours => report.ok(part, format_args!("pointsman {theirs} answers")),
        theirs => report.warning(
            part,
            format_args!("pointsman {} runs there, and this is {ours}; update both", theirs.unwrap_or("of no version")),
        ),
    }
}

/// The sentences of `/readyz`.
fn reasons(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let missing = body["missing"].as_object().into_iter().flatten();
    let sentences: Vec<String> =
        missing.map(|(latch, reason)| format!("{latch}: {}", reason.as_str().unwrap_or("no reason"))).collect();
    if sentences.is_empty() { "it gives no reason".to_owned() } else { sentences.join("; ") }
}

/// Where a listener of ours is reached from this machine.
fn address(ip: &str, port: u16) -> String {
    match ip {
        "" | "0.0.0.0" => format!("http://127.0.0.1:{port}"),
        "::" => format!("http://[::1]:{port}"),
        ip if ip.contains(':') => format!("http://[{ip}]:{port}"),
        ip => format!("http://{ip}:{port}"),
    }
}
