//! `/api/routes`: the verbs on routes, as configurable-http-proxy answers them.

mod body;
mod query;
mod view;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::Answer;
use super::auth::{Grant, Scope};
use super::caller::authorize;
use super::{ApiSettings, ApiState};
use crate::control::{ControlError, LastKnown};
use crate::lifecycle::compute;
use crate::route::{Route, RouteData, RouteSpec, SpecError, Target, TargetError};
use view::{Listing, RouteView};

/// What comes before the path of a route.
const BASE: &str = "/api/routes";

/// To write a list of more routes than this takes long enough to be kept off the threads that answer.
const LARGE: usize = 500;

/// Answers one call on routes. The order matters: nothing of a call is looked at before its token is.
pub(super) async fn handle(State(state): State<ApiState>, request: Request) -> Answer {
    perform(&state, request).await.unwrap_or_else(|refusal| refusal)
}

async fn perform(state: &ApiState, request: Request) -> Result<Answer, Answer> {
    let (scope, verb) = match *request.method() {
        Method::GET => (Scope::Read, Verb::Get),
        Method::POST => (Scope::Write, Verb::Post),
        Method::DELETE => (Scope::Write, Verb::Delete),
        _ => return Err(Answer::method_not_supported()),
    };
    let grant = authorize(&state.auth, &request, scope).await?;
    // Calls without a valid token never have a place here that the others need.
    let Ok(_working) = state.calls.try_acquire() else {
        let max = state.settings.calls_max;
        return Err(Answer::unavailable(format!("{max} calls are being worked on already; try again")));
    };
    // The raw path: one decoding, by `RouteSpec`, is all it may see.
    let path = request.uri().path().strip_prefix(BASE).unwrap_or_default();
    if !path.is_ascii() {
        let says = "the path has bytes that must be percent-encoded in a URL";
        return Err(Answer::sentence(StatusCode::BAD_REQUEST, says));
    }
    let spec = parse_spec(path, state.settings.host_routing)
        .map_err(|error| Answer::sentence(StatusCode::BAD_REQUEST, error.to_string()))?;
    match verb {
        Verb::Get if spec.is_root() => list(state, &grant, request.uri().query()).await,
        Verb::Get => get(state, &grant, &spec, request.uri().query()).await,
        Verb::Post => post(state, &grant, spec, request).await,
        Verb::Delete => delete(state, &grant, spec).await,
    }
}

#[derive(Clone, Copy)]
enum Verb {
    Get,
    Post,
    Delete,
}

async fn list(state: &ApiState, grant: &Grant, query: Option<&str>) -> Result<Answer, Answer> {
    // The hub adds and deletes by this table, so a part of it would do harm.
    within(grant, &RouteSpec::root())?;
    let inactive_since = query::inactive_since(query.unwrap_or_default())
        .map_err(|error| Answer::as_chp(StatusCode::BAD_REQUEST, error.to_string()))?;
    let (routes, stale) = match state.routes.list().await {
        Ok(routes) => (routes, None),
        Err(error) => {
            let known = last_known(state, query, error)?;
            (known.table.iter().cloned().collect(), Some(known.age))
        }
    };
    let (activity, host_routing) = (state.activity.clone(), state.settings.host_routing);
    let answer = compute(routes.len() > LARGE, move || {
        let last = activity.of(&routes);
        let mut listed: Vec<_> =
            routes.iter().enumerate().map(|(at, route)| (&**route, last.as_ref().map(|last| last[at]))).collect();
        if let Some(since) = inactive_since {
            // A route of which nobody knows when it was last used is never called inactive: an active server would be culled.
            listed.retain(|(_, last)| last.is_some_and(|last| last < since));
        }
        Answer::json(StatusCode::OK, &Listing { routes: &listed, host_routing })
    });
    Ok(answer.await.stale(stale))
}

/// The routes as they were last known, for a caller who said that old ones will do.
fn last_known(state: &ApiState, query: Option<&str>, error: ControlError) -> Result<LastKnown, Answer> {
    let known = query::stale(query.unwrap_or_default()).then(|| state.routes.last_known()).flatten();
    known.ok_or_else(|| error.into())
}

async fn get(state: &ApiState, grant: &Grant, spec: &RouteSpec, query: Option<&str>) -> Result<Answer, Answer> {
    within(grant, spec)?;
    let (route, stale) = match state.routes.get(spec).await {
        Ok(route) => (route, None),
        Err(error) => {
            let known = last_known(state, query, error)?;
            (known.table.get(spec).cloned(), Some(known.age))
        }
    };
    let answer = match route {
        Some(route) => {
            let last = state.activity.of(std::slice::from_ref(&route)).map(|last| last[0]);
            Answer::json(StatusCode::OK, &RouteView { route: &route, last, host_routing: state.settings.host_routing })
        }
        None => Answer::empty(StatusCode::NOT_FOUND),
    };
    Ok(answer.stale(stale))
}

async fn post(state: &ApiState, grant: &Grant, spec: RouteSpec, request: Request) -> Result<Answer, Answer> {
    within(grant, &spec)?;
    let bytes = body::read(request, state.settings.body_bytes_max).await?;
    let data = body::parse(&bytes)?;
    body::target(&data)?;
    let (target, data) =
        kept(&spec, data, &state.settings).map_err(|says| Answer::sentence(StatusCode::BAD_REQUEST, says))?;
    state.routes.add(spec.clone(), target, data, grant.below()).await?;
    // As in configurable-http-proxy, also if it changed nothing.
    state.activity.posted(&spec);
    Ok(Answer::empty(StatusCode::CREATED))
}

/// What is kept of a record that is posted to a route: where it leads, and the rest. The error is a sentence.
fn kept(spec: &RouteSpec, mut data: RouteData, settings: &ApiSettings) -> Result<(Target, RouteData), String> {
    let target = data.get("target").and_then(Value::as_str).ok_or(body::NO_TARGET)?;
    let target = Target::parse(target).map_err(|error| error.to_string())?;
    if target.unix_path().is_some() && !settings.unix_targets {
        return Err(TargetError::UnixSocket.to_string());
    }
    if spec.is_root() && data.contains_key("user") && data.contains_key("jupyterhub") {
        // Many clients resolve `/api/routes/user/..` before they send it: a user of that name would get the hub's place.
        return Err("a user's server can't have the route '/'; is the user's name '.' or '..'?".to_owned());
    }
    // These fields are ours to fill in; what a client says about them doesn't count.
    data.remove("last_activity");
    if settings.host_routing && !spec.is_root() {
        data.remove("host");
    }
    Ok((target, data))
}

/// What a POST of this JSON text to this decoded path would record, or the sentence that it would be refused with.
pub fn would_record(
    path: &str,
    record: &str,
    settings: &ApiSettings,
) -> Result<(RouteSpec, Target, RouteData), String> {
    if record.len() > settings.body_bytes_max {
        return Err(format!("the record is longer than {} bytes, the limit for a route", settings.body_bytes_max));
    }
    let spec = RouteSpec::from_decoded(path)
        .and_then(|spec| if settings.host_routing { spec.with_host() } else { Ok(spec) })
        .map_err(|error| error.to_string())?;
    let data = body::object(record).map_err(|says| says.to_string())?;
    let (target, data) = kept(&spec, data, settings)?;
    Ok((spec, target, data))
}

/// Each route's record as `GET /api/routes` lists it, by path, with when it was last used if that is known.
#[must_use]
pub fn listed(routes: &[(&Route, Option<Timestamp>)], settings: &ApiSettings) -> Value {
    json!(Listing { routes, host_routing: settings.host_routing })
}

async fn delete(state: &ApiState, grant: &Grant, spec: RouteSpec) -> Result<Answer, Answer> {
    within(grant, &spec)?;
    let found = state.routes.remove(spec).await?;
    Ok(Answer::empty(if found { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }))
}

fn parse_spec(path: &str, host_routing: bool) -> Result<RouteSpec, SpecError> {
    let spec = RouteSpec::parse_encoded(path)?;
    if host_routing { spec.with_host() } else { Ok(spec) }
}

fn within(grant: &Grant, spec: &RouteSpec) -> Result<(), Answer> {
    if grant.covers(spec) {
        return Ok(());
    }
    Err(Answer::forbidden(format!("the token is good for other routes only, not for {spec}")))
}
