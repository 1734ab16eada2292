//! What an error of etcd, of the connection or of a time limit means for the caller.

use std::io;
use std::time::Duration;

use etcd_client::Error;

use crate::causes::chain;
use crate::store::StoreError;

/// gRPC's status codes, by their numbers in its specification.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNIMPLEMENTED: i32 = 12;
}

/// A call that failed.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// For the caller.
    pub(super) error: StoreError,
    /// It is certain that nothing happened: also a commit may be tried elsewhere.
    pub(super) nothing_happened: bool,
    /// The member answered, so the connection is good.
    pub(super) connection_is_good: bool,
}

impl Fault {
    /// What `error` means, from the endpoint `url`.
    pub(super) fn new(url: &str, error: &Error) -> Self {
        let text = describe(url, error);
        let Error::GRpcStatus(status) = error else {
            // Not from a member: the options are wrong, or there is no connection yet.
            let error = match error {
                Error::InvalidArgs(_) | Error::InvalidUri(_) => StoreError::Refused(text),
                _ => StoreError::Unavailable(text),
            };
            return Self { error, nothing_happened: false, connection_is_good: false };
        };
        let message = status.message();
        let from_etcd = message.starts_with("etcdserver: ") || message.starts_with("auth: ");
        let is_refusal = match status.code() as i32 {
            // In these words etcd says that it is overloaded, or that we should log in again: both pass.
            code::RESOURCE_EXHAUSTED => !message.contains("too many requests"),
            code::INVALID_ARGUMENT => !message.contains("auth store is old"),
            code::NOT_FOUND | code::PERMISSION_DENIED | code::FAILED_PRECONDITION | code::UNIMPLEMENTED => true,
            _ => false,
        };
        let no_leader = message == "etcdserver: no leader";
        let nothing_happened = no_leader || needs_login(error) || is_nobody_listening(status);
        let error = if is_compacted(error) {
            StoreError::Compacted(0)
        } else if is_refusal {
            StoreError::Refused(text)
        } else {
            StoreError::Unavailable(text)
        };
        Self { error, nothing_happened, connection_is_good: from_etcd && !no_leader }
    }

    /// etcd refused, in these words.
    pub(super) fn refused(url: &str, why: &str) -> Self {
        let text = with_advice(format!("{url}: {why}"));
        Self { error: StoreError::Refused(text), nothing_happened: true, connection_is_good: true }
    }

    /// Something broke, described in these words.
    pub(super) fn unavailable(url: &str, why: &str) -> Self {
        let text = with_advice(format!("{url}: {why}"));
        Self { error: StoreError::Unavailable(text), nothing_happened: false, connection_is_good: false }
    }

    /// No answer in time: anything may have happened.
    pub(super) fn silence(url: &str, patience: Duration) -> Self {
        let error = StoreError::Unavailable(format!("{url} gave no answer within {} ms", patience.as_millis()));
        Self { error, nothing_happened: false, connection_is_good: false }
    }
}

/// etcd has forgotten our login (expired, a restarted member, changed roles): logging in again helps. It says so before
/// it does anything.
pub(super) fn needs_login(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if status.message().contains("invalid auth token") || status.message().contains("auth store is old"))
}

/// The user may not touch this key.
pub(super) fn is_no_permission(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.code() as i32 == code::PERMISSION_DENIED)
}

/// The transaction has more operations than `--max-txn-ops`.
pub(super) fn is_too_many_ops(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("too many operations in txn"))
}

/// An answer was larger than our own limit for one message.
pub(super) fn is_too_large(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if status.code() as i32 == code::OUT_OF_RANGE && status.message().contains("message length too large"))
}

/// The asked revision is gone, or has not come yet (etcd was restored from a backup or replaced).
fn is_compacted(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.code() as i32 == code::OUT_OF_RANGE
        && (status.message().contains("compacted") || status.message().contains("future revision")))
}

/// Nobody listens on the port: so the request was never sent. Any other broken connection may have carried it.
fn is_nobody_listening(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = chain(error).find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused)
}

/// The endpoint and the causes, outermost first, each said once. The outer layers say "transport error" and the like;
/// what an administrator can use stands at the end.
fn describe(url: &str, error: &Error) -> String {
    let mut parts = match error {
        Error::GRpcStatus(status) => {
            let mut parts = vec![status.message().to_owned()];
            parts.extend(chain(status).skip(1).map(ToString::to_string));
            parts
        }
        Error::TransportError(error) => chain(error).map(ToString::to_string).collect(),
        other => vec![other.to_string()],
    };
    // A layer that only repeats its cause, or says nothing that an administrator could use.
    parts.retain(|part| !part.is_empty() && part != "transport error" && part != "operation was canceled");
    parts.dedup_by(|later, earlier| earlier.contains(later.as_str()));
    if parts.is_empty() {
        parts.push("the connection failed".to_owned());
    }
    with_advice(format!("{url}: {}", parts.join(": ")))
}

/// Adds what to do about the errors that set-ups usually run into.
fn with_advice(text: String) -> String {
    let known = [
        ("UnknownIssuer", "does --etcd-ca name the certificate that signed etcd's?"),
        ("NotValidForName", "the host name in --etcd-endpoints must be in etcd's certificate"),
        ("InvalidContentType", "does etcd speak TLS here? then write https:// or, if not, http://"),
        ("authentication failed", "look at --etcd-user and --etcd-password-file"),
        ("user name is empty", "etcd wants a login: --etcd-user and --etcd-password-file"),
        ("authentication is not enabled", "etcd wants no login: leave out --etcd-user"),
        ("permission denied", "the etcd user needs read and write permission below our prefix and Traefik's root key"),
        ("database space exceeded", "etcd is full: compact and defragment it, then disarm its alarm"),
    ];
    // With TLS 1.3 a server that doesn't like our certificate hangs up after the handshake; we may see its reason or
    // only a closed connection.
    let signs = ["received fatal alert", "connection closed", "broken pipe", "Connection reset"];
    let closed = text.starts_with("https://") && signs.iter().any(|sign| text.contains(sign));
    let closed = closed.then_some(("", "if etcd asks for client certificates, --etcd-cert must be one that it trusts"));
    match known.into_iter().chain(closed).find(|(sign, _)| text.contains(sign)) {
        Some((_, advice)) => format!("{text} ({advice})"),
        None => text,
    }
}
