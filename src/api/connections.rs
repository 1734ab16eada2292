//! `pointsman connections`: tells Pointsmen elsewhere of the connections from the Traefik that it stands beside.
//!
//! It shows addresses of servers and how much was sent there when, nothing of users; still a token is wanted.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::routing::any;
use tokio::task::spawn_blocking;

use super::answer::Answer;
use super::auth::{Authenticator, Scope};
use super::caller::authorize;
use crate::activity::remote::ConnectionList;
use crate::activity::streams::Connection;

/// So many ports may be named in one question.
const PORTS_MAX: usize = 64;

/// Reads the open connections to these ports, or to any if none is named, as `activity::kernel::outgoing` does. It may
/// block.
pub type ReadConnections = Arc<dyn Fn(&[u16]) -> io::Result<Vec<Connection>> + Send + Sync>;

#[derive(Clone)]
struct Connections {
    auth: Arc<Authenticator>,
    read: ReadConnections,
}

/// Every address of the service: `/connections` for those with a token, and `/healthz`.
pub fn router(auth: Arc<Authenticator>, read: ReadConnections) -> Router {
    Router::new()
        .route("/connections", any(connections))
        .route("/healthz", any(|| async { Answer::sentence(StatusCode::OK, "ok") }))
        .fallback(|| async { Answer::not_found() })
        .with_state(Connections { auth, read })
}

async fn connections(State(state): State<Connections>, request: Request) -> Answer {
    if request.method() != Method::GET {
        return Answer::method_not_supported();
    }
    match authorize(&state.auth, &request, Scope::Read).await {
        Ok(grant) if grant.covers(&crate::route::RouteSpec::root()) => {}
        Ok(_) => return Answer::forbidden("the token is good for some routes only, not for all connections"),
        Err(refusal) => return refusal,
    }
    let ports = match ports(request.uri().query().unwrap_or_default()) {
        Ok(ports) => ports,
        Err(reason) => return Answer::sentence(StatusCode::BAD_REQUEST, reason),
    };
    let read = state.read.clone();
    match spawn_blocking(move || read(&ports)).await {
        Ok(Ok(connections)) => Answer::json(StatusCode::OK, &ConnectionList::from(&connections[..])),
        Ok(Err(error)) => Answer::unavailable(format!("the kernel's connections can't be read: {error}")),
        Err(_) => Answer::unavailable("the kernel's connections can't be read"),
    }
}

/// The ports that a query names.
fn ports(query: &str) -> Result<Vec<u16>, String> {
    let named = url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "port");
    let ports: Vec<u16> = named
        .map(|(_, value)| {
            value.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("'port' is {value:?}, not a port"))
        })
        .collect::<Result<_, _>>()?;
    if ports.len() > PORTS_MAX {
        return Err(format!("'port' is given {} times, and the limit is {PORTS_MAX}", ports.len()));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_the_query() {
        assert_eq!(ports(""), Ok(vec![]));
        assert_eq!(ports("port=8888&x=1&port=1"), Ok(vec![8888, 1]));
        for bad in ["port=", "port=0", "port=65536", "port=a", "port=-1"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
        assert!(ports(&"port=1&".repeat(65)).is_err());
    }
}
