//! `last_activity` in the records, and the list of what was not used since a time.

use jiff::Timestamp;
use pointsman::control::ControlError;
use rstest::rstest;
use serde_json::json;

use crate::support::api::{Api, Fault};

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// Three routes: `/old`, `/new` and `/`, which was used at the same time as `/new`.
async fn api() -> Api {
    let api = Api::start().await;
    for path in ["/", "/old", "/new"] {
        api.add(path, "http://x").await;
    }
    *api.activity.otherwise.lock().expect("a lock") = Some(time("2026-01-02T03:04:05.678Z"));
    api.activity.last.lock().expect("a lock").insert("/old".into(), time("2025-12-31T23:59:59.999Z"));
    api
}

#[tokio::test]
async fn every_record_has_it() {
    let api = api().await;
    let new = json!({"target": "http://x", "last_activity": "2026-01-02T03:04:05.678Z"});
    let old = json!({"target": "http://x", "last_activity": "2025-12-31T23:59:59.999Z"});
    assert_eq!(api.table().await, json!({"/": new, "/new": new, "/old": old}));
    assert_eq!(api.call("GET /api/routes/old", "").await.json(), old);
    api.activity.last.lock().expect("a lock").insert("/old".into(), time("2026-05-06T07:08:09Z"));
    let text = api.call("GET /api/routes/old", "").await.body;
    assert!(text.contains(r#""last_activity":"2026-05-06T07:08:09.000Z""#), "{text}");
}

#[tokio::test]
async fn what_a_client_says_about_it_does_not_count() {
    let api = api().await;
    let body = r#"{"target":"http://y","last_activity":"1999-01-01T00:00:00.000Z"}"#;
    assert_eq!(api.call("POST /api/routes/new", body).await.status, 201);
    let record = api.call("GET /api/routes/new", "").await.json();
    assert_eq!(record, json!({"target": "http://y", "last_activity": "2026-01-02T03:04:05.678Z"}));
}

#[tokio::test]
async fn a_post_is_a_use_and_nothing_else_is() {
    let api = api().await;
    let posted = || std::mem::take(&mut *api.activity.posted.lock().expect("a lock"));
    assert_eq!(posted(), ["/", "/old", "/new"]);
    api.table().await;
    api.call("GET /api/routes/old", "").await;
    api.call("DELETE /api/routes/old", "").await;
    assert_eq!(api.call("POST /api/routes/new", r#"{"target":"nonsense"}"#).await.status, 400);
    assert_eq!(posted(), Vec::<String>::new());
    api.add("/user/%4aane/", "http://x").await;
    assert_eq!(posted(), ["/user/Jane"]);
    api.routes.break_with(Fault::Fail(ControlError::Unavailable("etcd is out of reach".into())));
    assert_eq!(api.call("POST /api/routes/new", r#"{"target":"http://x"}"#).await.status, 503);
    assert_eq!(posted(), Vec::<String>::new());
}

#[rstest]
#[case("inactive_since=2025-12-31T23:59:59.999Z", &[])]
#[case("inactive_since=2026", &["/old"])]
#[case("inactive_since=2026-01-02T03:04:05.678Z", &["/old"])]
#[case("inactiveSince=2026-01-02T03:04:05.679Z", &["/", "/new", "/old"])]
#[case("inactive_since=2026-01-01T01:00:00%2B01:00", &["/old"])]
#[case("inactive_since=2999&inactiveSince=2020", &[])]
#[tokio::test]
async fn the_filter_lists_what_was_used_before(#[case] query: &str, #[case] listed: &[&str]) {
    let api = api().await;
    let reply = api.call(&format!("GET /api/routes?{query}"), "").await.json();
    let keys: Vec<_> = reply.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(keys, listed, "{query}");
}

#[rstest]
#[case("inactive_since=2026")]
#[case("inactiveSince=2026-01-02T03:04:05.678Z")]
#[case("inactive_since=2999-01-01T00:00:00%2B00:00")]
#[case("inactive_since=bad&inactiveSince=2026")]
#[tokio::test]
async fn what_is_unknown_is_not_inactive(#[case] query: &str) {
    let api = Api::start().await;
    api.add("/a", "http://x").await;
    let reply = api.call(&format!("GET /api/routes?{query}"), "").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "{}"), "{query}");
    // A filter is for the list: one route is given out whatever the query says.
    assert_eq!(api.call(&format!("GET /api/routes/a?{query}"), "").await.status, 200);
    api.routes.break_with(Fault::Fail(ControlError::Unavailable("etcd is out of reach".into())));
    assert_eq!(api.call(&format!("GET /api/routes?{query}"), "").await.status, 503, "an empty table that nobody read");
}
