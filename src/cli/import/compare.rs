//! Holds two proxies against each other, and changes nothing: their tables, and what their users get.

use std::sync::Arc;

use clap::ArgMatches;
use tokio::task::JoinSet;

use super::plan::Plan;
use super::print;
use crate::cli::export;
use crate::cli::routes::client::{Address, Visitor, path_of_users};
use crate::cli::{Exit, complain};
use crate::config::Config;
use crate::route::RouteSpec;
use crate::traefik::rule::Space;

/// Pages that are looked at in one moment: few enough for servers that share a machine.
const LOOKS_MAX: usize = 10;

/// Prints what differs. Success only if nothing does.
pub(super) async fn compare(
    config: &Config,
    options: &ArgMatches,
    plan: &Plan,
    refused: &[(String, String)],
) -> Result<Exit, String> {
    let differences = plan.differences(refused);
    let (routes, both) = plan.compared();
    print(&differences);
    complain(&format!("pointsman: {routes} routes are on one side or both, and {} differ", differences.len()));
    let visited = visit(config, options, both).await?;
    print(&visited);
    Ok(if differences.is_empty() && visited.is_empty() { Exit::Success } else { Exit::Failure })
}

/// Asks both proxies for the page of each route that both have, and says where the answers differ.
async fn visit(config: &Config, options: &ArgMatches, both: Vec<RouteSpec>) -> Result<Vec<String>, String> {
    let Some(places) = options.get_many::<Address>("visit") else { return Ok(Vec::new()) };
    let tls = export::tls(options);
    let visitors = places.map(|place| Visitor::new(place, &tls)).collect::<Result<Vec<_>, _>>()?;
    let visitors = Arc::new(visitors);
    let space = if config.routing.host_routing { Space::Hosts } else { Space::Paths };
    let (mut looks, mut found, routes) = (JoinSet::new(), Vec::new(), both.len());
    let mut rest = both.into_iter();
    loop {
        while looks.len() < LOOKS_MAX
            && let Some(spec) = rest.next()
        {
            let visitors = visitors.clone();
            looks.spawn(async move {
                let (host, path) = path_of_users(&spec, space);
                let mut seen = Vec::new();
                for visitor in visitors.iter() {
                    seen.push(visitor.look(&path, host.as_deref()).await);
                }
                (spec, seen)
            });
        }
        let Some(ended) = looks.join_next().await else { break };
        let (spec, seen) = ended.map_err(|error| format!("a look broke off: {error}"))?;
        if seen.windows(2).any(|pair| pair[0] != pair[1]) {
            found.push(format!("page    {spec}: {}", seen.join(" | ")));
        }
    }
    found.sort();
    complain(&format!("pointsman: the pages of {routes} routes were looked at, and {} differ", found.len()));
    Ok(found)
}
