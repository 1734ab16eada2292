//! Our own API and pages, as the hub and Traefik see them: do they answer, are they ready, is the token good?

use secrecy::SecretString;

use super::probe::Probe;
use super::report::Report;
use crate::cli::routes::client::{ApiClient, Tls};
use crate::cli::routes::here;
use crate::config::Config;

/// Looks at the running Pointsman, if one runs where the settings say. Says whether one does.
pub(super) async fn check(config: &Config, probe: &Probe, report: &mut Report) -> bool {
    let address = here::api_address(config);
    let part = format!("api {address}");
    let trust = here::api_trust(config, &Tls::default());
    let client = |tokens| ApiClient::new(&address, &trust, tokens);
    let about = match client(Vec::new()) {
        Ok(api) => api.page("/api/").await,
        Err(error) => Err(error),
    };
    let about = match about {
        Ok(answer) if answer.status == 200 && answer.text().contains("\"pointsman\"") => answer.text(),
        Ok(answer) => {
            report.problem(
                &part,
                format_args!(
                    "something else answers there (status {} for /api/); stop it, or correct --api-port",
                    answer.status
                ),
            );
            return false;
        }
        Err(error) if config.api.tls.as_ref().is_some_and(|tls| tls.request_cert) => {
            report.warning(
                &part,
                format_args!("it asks callers for a certificate, and check has none to show ({error})"),
            );
            return false;
        }
        Err(error) => {
            report.warning(
                &part,
                format_args!("pointsman does not run there ({error}); start it, or correct --api-port"),
            );
            return false;
        }
    };
    version(&about, &part, report);
    match client(Vec::new()) {
        Ok(api) => match api.page("/readyz").await {
            Ok(answer) => {
                let body = answer.text();
                if answer.status == 200 {
                    report.ok(&part, "ready");
                } else {
                    report.problem(&part, format_args!("not ready: {}", reasons(&body)));
                }
                for warning in warnings(&body) {
                    report.warning(&part, warning);
                }
            }
            Err(error) => report.problem(&part, format_args!("/readyz: {error}")),
        },
        Err(error) => report.problem(&part, error),
    }
    token(config, &client, &part, report).await;
    pages(config, probe, report).await;
    true
}

/// Our pages, where Traefik is told to find them.
async fn pages(config: &Config, probe: &Probe, report: &mut Report) {
    let Some(url) = &config.pages.url else { return };
    let url = url.as_str().trim_end_matches('/');
    let part = format!("pages {url}");
    match probe.get(&format!("{url}/_chp_healthz")).await {
        Ok(answer) if answer.status == 200 => report.ok(&part, "answer (seen from here, not from Traefik)"),
        Ok(answer) => report.warning(&part, format_args!("the health page answers {}", answer.status)),
        Err(error) => report.warning(
            &part,
            format_args!(
                "no answer from here ({error}); if Traefik can't reach it either, users get bare error pages: correct \
                 --pages-url, --pages-ip or --pages-port"
            ),
        ),
    }
}

/// Asks for a route that can't be there: an accepted token gets 404, a refused one 403.
async fn token(
    config: &Config,
    client: &impl Fn(Vec<SecretString>) -> Result<ApiClient, String>,
    part: &str,
    report: &mut Report,
) {
    let path = format!("/api/routes/pointsman-check-{}", std::process::id());
    let ask = async |tokens| client(tokens)?.page(&path).await;
    let tokens = match config.auth.tokens() {
        Ok(tokens) => tokens,
        Err(problems) => return report.problem(part, problems),
    };
    if tokens.is_empty() && config.auth.jwt.is_some() {
        return report.ok(part, "only signed tokens are accepted; none was tried");
    }
    if tokens.is_empty() {
        match ask(Vec::new()).await {
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
        match ask(vec![token.clone()]).await {
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
                format_args!("a call with {which} is answered {}: {}", answer.status, answer.text().trim()),
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

/// What `/readyz` tells besides.
fn warnings(body: &str) -> Vec<String> {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let warnings = body["warnings"].as_object().into_iter().flatten();
    warnings.map(|(name, sentence)| format!("{name}: {}", sentence.as_str().unwrap_or("no reason"))).collect()
}

/// The sentences of `/readyz`.
fn reasons(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let missing = body["missing"].as_object().into_iter().flatten();
    let sentences: Vec<String> =
        missing.map(|(latch, reason)| format!("{latch}: {}", reason.as_str().unwrap_or("no reason"))).collect();
    if sentences.is_empty() { "it gives no reason".to_owned() } else { sentences.join("; ") }
}
