//! Who makes a call, as far as it is known: the connection that it came by, and whether it showed a valid token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::Request;
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::auth::{Authenticator, Grant, Refusal, Scope};
use crate::telemetry::throttle::Peer;

/// The connection of a client.
#[derive(Debug)]
pub(in crate::api) struct Client {
    peer: Peer,
    authenticated: AtomicBool,
    evicted: CancellationToken,
}

impl Client {
    /// A fresh connection.
    pub(in crate::api) fn new(peer: Peer) -> Self {
        Self { peer, authenticated: AtomicBool::new(false), evicted: CancellationToken::new() }
    }

    /// The other end.
    pub(in crate::api) fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether a call by this connection had a valid token.
    pub(in crate::api) fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    /// Cancelled when the connection must give way to another one.
    pub(in crate::api) fn evicted(&self) -> &CancellationToken {
        &self.evicted
    }
}

/// One call. It travels in the request's extensions.
#[derive(Debug, Clone, Default)]
pub(in crate::api) struct Caller {
    client: Option<Arc<Client>>,
    granted: Arc<AtomicBool>,
}

impl Caller {
    /// A call by this connection.
    pub(in crate::api) fn new(client: Arc<Client>) -> Self {
        Self { client: Some(client), granted: Arc::default() }
    }

    /// The call that a request is.
    pub(in crate::api) fn of(request: &Request) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }

    /// The other end of the connection.
    pub(in crate::api) fn peer(&self) -> Peer {
        self.client.as_ref().map_or(Peer::Unknown, |client| client.peer)
    }

    /// Whether the call was found to have a valid token. A proxy may carry calls of several clients by one connection.
    pub(in crate::api) fn is_granted(&self) -> bool {
        self.granted.load(Ordering::Relaxed)
    }

    fn grant(&self) {
        self.granted.store(true, Ordering::Relaxed);
        if let Some(client) = &self.client {
            client.authenticated.store(true, Ordering::Relaxed);
        }
    }
}

/// Decides whether the caller may use `scope`. If so, the call and its connection count as authenticated.
pub(in crate::api) fn authorize(
    auth: &Authenticator,
    request: &Request,
    scope: Scope,
) -> impl Future<Output = Result<Grant, Answer>> + Send {
    // Bodies can't be shared among threads, so the request itself stays out.
    let (headers, caller) = (request.headers(), Caller::of(request));
    async move {
        match auth.check(headers, scope).await {
            Ok(grant) => {
                caller.grant();
                Ok(grant)
            }
            Err(Refusal::Forbidden(reason)) => Err(Answer::forbidden(reason)),
            Err(Refusal::Unavailable(reason)) => Err(Answer::unavailable(reason)),
        }
    }
}
