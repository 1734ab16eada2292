//! What surrounds every call: a request id, one log line (or a share in one, for calls without a valid token), the
//! deadline, and a net under panics.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Level, debug, error, info, info_span, warn};

use super::ApiState;
use super::answer::{Answer, Reason};
use super::caller::Caller;
use crate::telemetry::throttle;

/// Numbers the calls of this process, so that the log lines of one call can be found.
static CALLS: AtomicU64 = AtomicU64::new(1);

/// Log lines show no more of a path than this many characters; a route's path may have thousands.
const PATH_SHOWN_MAX: usize = 300;

/// Runs a call, and logs it once, whatever becomes of it.
pub(super) async fn guard(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let (method, path) = (request.method().clone(), shown(request.uri().path()));
    let span = info_span!("api", request = call);
    let announced = request.body().size_hint().lower();
    let caller = Caller::of(&request);
    async move {
        let start = Instant::now();
        let mut response = answer(&state, request, next).await;
        // What is left of a body that is too long is not read, so the connection can't go on; and a client that isn't told
        // would lose its next call with it.
        let too_long = response.status() == StatusCode::PAYLOAD_TOO_LARGE;
        if too_long || announced > state.settings.body_bytes_max as u64 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        state.counts.note(&method, &path, response.status(), start.elapsed());
        log(&caller, &method, &path, &response, start);
        response
    }
    .instrument(span)
    .await
}

async fn answer(state: &ApiState, request: Request, next: Next) -> Response {
    match timeout(state.settings.deadline, catch_panic(next.run(request))).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            error!(%panic, "A call panicked: {panic}");
            Answer::sentence(StatusCode::INTERNAL_SERVER_ERROR, "an error in Pointsman; its log has more")
                .into_response()
        }
        Err(_) => {
            let s = state.settings.deadline.as_secs_f64();
            Answer::unavailable(format!("no answer within {s} s; repeating the call does no harm")).into_response()
        }
    }
}

fn log(caller: &Caller, method: &Method, path: &str, response: &Response, start: Instant) {
    let status = response.status().as_u16();
    let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let reason = response.extensions().get::<Reason>().map(|Reason(why)| one_line(why));
    let because = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    // A probe that finds us not ready comes every few seconds, and what is missing was logged where it went missing.
    let probe = matches!(path, "/healthz" | "/readyz");
    let level = if !probe && (status == 403 || status >= 500) {
        Level::WARN
    } else if matches!(*method, Method::POST | Method::DELETE) {
        Level::INFO
    } else {
        Level::DEBUG
    };
    let peer = caller.peer();
    // What a client without a valid token causes is not written each time.
    let is_written = level != Level::DEBUG
        && (caller.is_granted() && status != 403
            || throttle::is_first("calls without a valid token", peer, &format!("{status}{because}")));
    let reason = reason.map(tracing::field::display);
    match level {
        Level::WARN if is_written => {
            warn!(%method, %path, status, ms, %peer, reason, "{method} {path} {status} in {ms} ms{because}");
        }
        Level::INFO if is_written => {
            info!(%method, %path, status, ms, %peer, reason, "{method} {path} {status} in {ms} ms{because}");
        }
        _ => debug!(%method, %path, status, ms, %peer, reason, "{method} {path} {status} in {ms} ms{because}"),
    }
}

/// A path, decoded and made fit for one log line.
fn shown(text: &str) -> String {
    let decoded = percent_decode_str(text).decode_utf8_lossy();
    let mut shown = one_line(&decoded.chars().take(PATH_SHOWN_MAX).collect::<String>());
    if decoded.chars().nth(PATH_SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Escapes what could forge or garble a line; quotes stay as they are.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\'' | '"') {
            line.push(c);
        } else {
            line.extend(c.escape_debug());
        }
    }
    line
}

/// Polls a future to its end or to its panic, whose message it returns.
async fn catch_panic<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            Poll::Ready(Err(text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()))
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_on_one_line() {
        assert_eq!(shown("/user/j%40x"), "/user/j@x");
        assert_eq!(shown("/a%0Ab%1b[31m"), "/a\\nb\\u{1b}[31m");
        assert_eq!(shown("/%zz%ff"), "/%zz\u{fffd}");
        assert_eq!(shown(&"x".repeat(5000)).chars().count(), PATH_SHOWN_MAX + 1);
    }

    #[tokio::test]
    async fn a_panic_becomes_a_value() {
        assert_eq!(catch_panic(async { 7 }).await, Ok(7));
        assert_eq!(catch_panic(async { panic!("at {}", "once") }).await, Err::<(), _>("at once".to_owned()));
        let later = catch_panic(async {
            tokio::task::yield_now().await;
            panic!("later");
        });
        assert_eq!(later.await, Err::<(), _>("later".to_owned()));
    }
}
