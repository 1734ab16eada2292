//! `/api/routes`: what configurable-http-proxy's own specification and its clients rely on.

use std::sync::Arc;
use std::time::Duration;

use pointsman::api::ApiSettings;
use pointsman::control::ControlError;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::api::{Api, Fault, Setup};

const TARGET: &str = r#"{"target":"http://127.0.0.1:8888"}"#;

#[tokio::test]
async fn a_new_proxy_has_no_routes() {
    let api = Api::start().await;
    for path in ["/api/routes", "/api/routes/", "/api/routes?x=1", "/api/routes/?limit=1"] {
        let reply = api.call(&format!("GET {path}"), "").await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "{}"), "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("server"), None);
        assert!(reply.header("date").is_some());
    }
}

#[tokio::test]
async fn a_route_is_added_listed_and_deleted() {
    let api = Api::start().await;
    let body = json!({"target": "http://127.0.0.1:8888/", "user": "jane", "server_name": "", "jupyterhub": true});
    let added = api.call("POST /api/routes/user/jane", &body.to_string()).await;
    assert_eq!((added.status, added.body.as_str(), added.header("content-type")), (201, "", None));
    assert_eq!(api.table().await, json!({"/user/jane": body}));
    let one = api.call("GET /api/routes/user/jane", "").await;
    assert_eq!((one.status, one.json(), one.header("content-type")), (200, body, Some("application/json")));
    let gone = api.call("DELETE /api/routes/user/jane", "").await;
    assert_eq!((gone.status, gone.body.as_str(), gone.header("content-type")), (204, "", None));
    assert_eq!(api.table().await, json!({}));
    for call in ["DELETE /api/routes/user/jane", "GET /api/routes/user/jane"] {
        let reply = api.call(call, "").await;
        assert_eq!((reply.status, reply.body.as_str(), reply.header("content-type")), (404, "", None), "{call}");
    }
}

#[tokio::test]
async fn a_post_replaces_and_merges_nothing() {
    let api = Api::start().await;
    api.call("POST /api/routes/a", r#"{"target":"http://one","extra":1}"#).await;
    let again = api.call("POST /api/routes/a/", r#"{"target":"http://two"}"#).await;
    assert_eq!((again.status, again.body.as_str()), (201, ""));
    assert_eq!(api.table().await, json!({"/a": {"target": "http://two"}}));
}

#[tokio::test]
async fn a_delete_leaves_children_and_parents() {
    let api = Api::start().await;
    for path in ["/", "/a", "/a/b", "/a/b/c"] {
        api.add(path, "http://x").await;
    }
    assert_eq!(api.call("DELETE /api/routes/a/b", "").await.status, 204);
    assert_eq!(api.keys().await, ["/", "/a", "/a/b/c"]);
    assert_eq!(api.call("GET /api/routes/a/b/c/d", "").await.status, 404);
}

#[rstest]
#[case("/api/routes")]
#[case("/api/routes/")]
#[case("/api/routes//")]
#[case("/api/routes/?x=1")]
#[tokio::test]
async fn the_root_has_many_spellings(#[case] path: &str) {
    let api = Api::start().await;
    assert_eq!(api.call(&format!("POST {path}"), TARGET).await.status, 201);
    assert_eq!(api.keys().await, ["/"]);
    assert_eq!(api.call(&format!("DELETE {path}"), "").await.status, 204);
    assert_eq!(api.call(&format!("DELETE {path}"), "").await.status, 404);
}

#[rstest]
#[case(&["/a", "/a/", "/%61", "/a?x=1", "//a", "/a//"], "/a")]
#[case(&["/u/x%40y", "/u/x@y"], "/u/x@y")]
#[case(&["/%e7%a7%80", "/%E7%A7%80"], "/秀")]
#[case(&["/~x", "/%7Ex", "/%7ex"], "/~x")]
#[case(&["/a%2Bb", "/a+b"], "/a+b")]
#[case(&["/a%2Fb", "/a/b"], "/a/b")]
#[case(&["/a%20b"], "/a b")]
#[case(&["/a%2540b"], "/a%40b")]
#[case(&["/a%25b"], "/a%b")]
#[case(&["/a%3Fb%23c"], "/a?b#c")]
#[case(&["/a%00b%0Ac%5Cd%60%22%7B%7D"], "/a\0b\nc\\d`\"{}")]
#[case(&["/A"], "/A")]
#[case(&["/e%CC%81"], "/e\u{301}")]
#[case(&["/%C3%A9"], "/é")]
#[case(&["/user/!$&'()*,;=:"], "/user/!$&'()*,;=:")]
#[case(&["/api/routes"], "/api/routes")]
#[case(&["/metrics"], "/metrics")]
#[case(&["/_chp_healthz"], "/_chp_healthz")]
#[case(&["/constructor"], "/constructor")]
#[case(&["/__proto__"], "/__proto__")]
#[case(&["/..."], "/...")]
#[case(&["/a//b"], "/a//b")]
#[tokio::test]
async fn spellings_of_one_route(#[case] spellings: &[&str], #[case] key: &str) {
    let api = Api::start().await;
    for spelling in spellings {
        assert_eq!(api.call(&format!("POST /api/routes{spelling}"), TARGET).await.status, 201, "{spelling}");
        assert_eq!(api.keys().await, [key], "{spelling}");
    }
    for spelling in spellings {
        assert_eq!(api.call(&format!("GET /api/routes{spelling}"), "").await.status, 200, "{spelling}");
        assert_eq!(api.call(&format!("DELETE /api/routes{spelling}"), "").await.status, 204, "{spelling}");
        api.add(spelling, "http://x").await;
    }
}

#[tokio::test]
async fn a_long_path_is_a_name_until_the_limit() {
    let api = Api::start().await;
    let name = "n".repeat(4000);
    assert_eq!(api.call(&format!("POST /api/routes/{name}"), TARGET).await.status, 201);
    assert_eq!(api.keys().await, [format!("/{name}")]);
    let long = api.call(&format!("POST /api/routes/{}", "n".repeat(4096)), TARGET).await;
    assert_eq!((long.status, long.body.contains("4096")), (400, true), "{long:?}");
}

#[rstest]
#[case("/%zz", "'%'")]
#[case("/a%", "'%'")]
#[case("/%ff", "UTF-8")]
#[case("/user/..", "'..'")]
#[case("/user/%2e%2e", "'..'")]
#[case("/user/%2E", "'.'")]
#[case("/a/../b", "'..'")]
#[tokio::test]
async fn a_path_that_is_no_route_is_refused(#[case] path: &str, #[case] says: &str) {
    let api = Api::start().await;
    for (method, body) in [("GET", ""), ("POST", TARGET), ("DELETE", "")] {
        let reply = api.call(&format!("{method} /api/routes{path}"), body).await;
        assert_eq!((reply.status, reply.body.contains(says)), (400, true), "{method} {path}: {reply:?}");
    }
    assert_eq!(api.table().await, json!({}));
}

#[tokio::test]
async fn a_user_never_gets_the_root() {
    let api = Api::start().await;
    api.add("/", "http://hub:8081").await;
    let body = json!({"target": "http://evil", "user": "..", "server_name": "", "jupyterhub": true}).to_string();
    for path in ["", "/", "//"] {
        let reply = api.call(&format!("POST /api/routes{path}"), &body).await;
        assert_eq!((reply.status, reply.body.contains("'..'")), (400, true), "{reply:?}");
    }
    assert_eq!(api.table().await, json!({"/": {"target": "http://hub:8081"}}));
    let hub = r#"{"target":"http://hub:1","jupyterhub":true,"hub":true}"#;
    assert_eq!(api.call("POST /api/routes/", hub).await.status, 201);
}

#[rstest]
#[case("")]
#[case(" ")]
#[case("{")]
#[case("NaN")]
#[case("undefined")]
#[case("{'target':'http://x'}")]
#[case(r#"{"target":"http://x",}"#)]
#[case(r#"{"target":"http://x"} // comment"#)]
#[case(r#"{"target":"http://x"}{"target":"http://x"}"#)]
#[case("\u{feff}{\"target\":\"http://x\"}")]
#[case("target=http://x")]
#[tokio::test]
async fn a_body_that_is_not_json(#[case] body: &str) {
    let api = Api::start().await;
    api.add("/a", "http://old").await;
    let reply = api.call("POST /api/routes/a", body).await;
    assert_eq!((reply.status, reply.body.starts_with("Body not valid JSON: ")), (400, true), "{body:?}: {reply:?}");
    assert_eq!(api.table().await, json!({"/a": {"target": "http://old"}}));
}

#[rstest]
#[case("null")]
#[case("0")]
#[case("true")]
#[case(r#""http://x""#)]
#[case("[]")]
#[case(r#"[{"target":"http://x"}]"#)]
#[case("{}")]
#[case(r#"{"Target":"http://x"}"#)]
#[case(r#"{"target":null}"#)]
#[case(r#"{"target":8000}"#)]
#[case(r#"{"target":["http://x"]}"#)]
#[case(r#"{"target":{"host":"x"}}"#)]
#[tokio::test]
async fn json_without_a_target(#[case] body: &str) {
    let api = Api::start().await;
    let reply = api.call("POST /api/routes/a", body).await;
    assert_eq!((reply.status, reply.body.as_str()), (400, "Must specify 'target' as string"), "{body}");
    assert_eq!(reply.header("content-type"), None);
    assert_eq!(api.table().await, json!({}));
}

#[rstest]
#[case("nonsense", "not a URL")]
#[case("", "not a URL")]
#[case("ftp://host:1", "'ftp'")]
#[case("ws://host:1", "'ws'")]
#[case("http+unix://%2Frun%2Fx.sock", "a Unix socket, which can be reached only where Pointsman runs Traefik itself")]
#[case("unix+http://%2Frun%2Fx.sock", "without --etcd-endpoints")]
#[case("http+unix://run%2Fx.sock", "no absolute path")]
#[case("http+unix://", "percent-encode it")]
#[case("http:///path", "no host")]
#[case("http://user:hunter2@host:1", "user name or password")]
#[case("http://host:1\nX: y", "'\\n'")]
#[case("http://host:1/?q=1", "query")]
#[case("http://host:1/#f", "fragment")]
#[case("http://host:1`) || PathPrefix(`/", "'`'")]
#[tokio::test]
async fn a_target_that_cant_be_served_is_refused_with_a_sentence(#[case] target: &str, #[case] says: &str) {
    let api = Api::start().await;
    api.add("/good", "http://good").await;
    let reply = api.call("POST /api/routes/bad", &json!({"target": target}).to_string()).await;
    assert_eq!((reply.status, reply.body.contains(says)), (400, true), "{target:?}: {reply:?}");
    assert!(!reply.body.contains("hunter2"));
    assert_eq!(api.keys().await, ["/good"]);
}

#[rstest]
#[case("http+unix://%2Frun%2Fuser%2F1000%2Fserver.sock")]
#[case("unix+http://%2frun%2fx.sock/")]
#[tokio::test]
async fn a_unix_socket_is_a_target_where_it_can_be_reached(#[case] target: &str) {
    let settings = ApiSettings { unix_targets: true, ..ApiSettings::default() };
    let api = Api::start_with(Setup { settings, ..Setup::default() }).await;
    api.add("/a", target).await;
    assert_eq!(api.table().await, json!({"/a": {"target": target}}));
    let reply = api.call("POST /api/routes/b", r#"{"target":"http+unix:///run/x.sock"}"#).await;
    assert_eq!((reply.status, reply.body.contains("http+unix://%2Frun%2Fserver.sock")), (400, true), "{reply:?}");
}

#[rstest]
#[case("http://127.0.0.1:8888")]
#[case("http://127.0.0.1:8888/")]
#[case("HTTP://Host_Name.example:80/Path/x%20y/")]
#[case("https://[::1]:8443")]
#[tokio::test]
async fn a_target_comes_back_as_typed(#[case] target: &str) {
    let api = Api::start().await;
    api.add("/a", target).await;
    assert_eq!(api.table().await, json!({"/a": {"target": target}}));
}

#[rstest]
#[case(json!({"nested": {"a": [1, {"b": null}]}, "no": null, "false": false, "empty": "", "zero": 0}))]
#[case(json!({"__proto__": {"x": 1}, "constructor": "y", "a/b.c": 1, "": 2, "ü": "秀\u{0}\n\u{1F600}"}))]
#[tokio::test]
async fn data_comes_back_as_sent(#[case] data: Value) {
    let api = Api::start().await;
    let mut sent = data;
    sent["target"] = json!("http://x");
    assert_eq!(api.call("POST /api/routes/a", &sent.to_string()).await.status, 201);
    assert_eq!(api.table().await["/a"], sent);
}

#[rstest]
#[case(
    r#"{"target":"http://x","n":1.0,"big":9007199254740993,"deep":[2.50]}"#,
    r#"{"big":9007199254740992,"deep":[2.5],"n":1,"target":"http://x"}"#
)]
#[case(r#" { "target" : "http://one", "target" : "http://x" } "#, r#"{"target":"http://x"}"#)]
#[case(r#"{"target":"http://x","last_activity":"2000-01-01T00:00:00.000Z"}"#, r#"{"target":"http://x"}"#)]
#[case(r#"{"target":"http://x","last_activity":null}"#, r#"{"target":"http://x"}"#)]
#[case(r#"{"target":"http://x","host":"mine"}"#, r#"{"host":"mine","target":"http://x"}"#)]
#[tokio::test]
async fn what_is_kept_of_a_body(#[case] sent: &str, #[case] kept: &str) {
    let api = Api::start().await;
    assert_eq!(api.call("POST /api/routes/a", sent).await.status, 201);
    let reply = api.call("GET /api/routes/a", "").await;
    assert_eq!(reply.body, kept);
}

#[rstest]
#[case("1e400")]
#[case(r#""\ud800""#)]
#[tokio::test]
async fn what_json_can_not_say_is_refused(#[case] value: &str) {
    let api = Api::start().await;
    let reply = api.call("POST /api/routes/a", &format!(r#"{{"target":"http://x","x":{value}}}"#)).await;
    assert_eq!((reply.status, reply.body.starts_with("Body not valid JSON: ")), (400, true), "{reply:?}");
}

#[tokio::test]
async fn bytes_that_are_not_utf_8_become_replacement_characters() {
    let api = Api::start().await;
    let body = b"{\"target\":\"http://x\",\"x\":\"\xff\"}";
    let mut connection = crate::support::http::Connection::open(api.address).await;
    let token = crate::support::api::TOKEN;
    let head = format!(
        "POST /api/routes/a HTTP/1.1\r\nHost: a\r\nAuthorization: token {token}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.send(&head).await;
    connection.send(body).await;
    assert_eq!(connection.reply().await.status, 201);
    assert_eq!(api.table().await["/a"]["x"], json!("\u{fffd}"));
}

#[rstest]
#[case("text/plain; charset=utf-8")]
#[case("application/x-www-form-urlencoded")]
#[case("application/json")]
#[case("multipart/form-data")]
#[case("x")]
#[tokio::test]
async fn any_content_type_will_do(#[case] content: &str) {
    let api = Api::start().await;
    let token = crate::support::api::TOKEN;
    let headers = format!("Authorization: token {token}\r\nContent-Type: {content}\r\n");
    assert_eq!(api.call_as("POST /api/routes/a", &headers, TARGET).await.status, 201);
}

#[tokio::test]
async fn host_routing_takes_the_host_from_the_path() {
    let api = Api::start_host_routed().await;
    let body = r#"{"target":"http://x","host":"forged","last_activity":1,"user":"j"}"#;
    assert_eq!(api.call("POST /api/routes/Jane.Hub.example/user/J", body).await.status, 201);
    assert_eq!(api.call("POST /api/routes/jane_40x.example", TARGET).await.status, 201);
    assert_eq!(api.call("POST /api/routes/", body).await.status, 201);
    let table = api.table().await;
    assert_eq!(
        table["/jane.hub.example/user/J"],
        json!({"target": "http://x", "user": "j", "host": "jane.hub.example"})
    );
    assert_eq!(table["/jane_40x.example"]["host"], "jane_40x.example");
    assert_eq!(
        table["/"],
        json!({"target": "http://x", "user": "j", "host": "forged"}),
        "the root has no host of ours"
    );
    let bad = api.call("POST /api/routes/no%20host/x", TARGET).await;
    assert_eq!((bad.status, bad.body.contains("host name")), (400, true), "{bad:?}");
    assert_eq!(api.call("DELETE /api/routes/jane.HUB.example/user/J", "").await.status, 204);
}

#[rstest]
#[case("inactive_since=")]
#[case("x=inactive_since")]
#[case("Inactive_since=endoftheuniverse")]
#[tokio::test]
async fn without_a_filter_all_are_listed(#[case] query: &str) {
    let api = Api::start().await;
    api.add("/a", "http://x").await;
    let reply = api.call(&format!("GET /api/routes?{query}"), "").await;
    assert_eq!(reply.json(), json!({"/a": {"target": "http://x"}}), "{query}");
}

#[rstest]
#[case("inactive_since=endoftheuniverse", "endoftheuniverse")]
#[case("inactiveSince=end+of%20time", "end of time")]
#[case("inactive_since=2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05 00:00")]
#[case("inactive_since=2026-02-30", "2026-02-30")]
#[case("inactive_since=2026-1-2", "2026-1-2")]
#[case("inactive_since=2026-01-02%2003:04:05Z", "2026-01-02 03:04:05Z")]
#[tokio::test]
async fn a_bad_filter_is_refused(#[case] query: &str, #[case] value: &str) {
    let api = Api::start().await;
    let reply = api.call(&format!("GET /api/routes?{query}"), "").await;
    assert_eq!((reply.status, reply.body), (400, format!("Invalid datestamp '{value}' must be ISO8601.")));
    api.add("/a", "http://x").await;
    assert_eq!(api.call(&format!("GET /api/routes/a?{query}"), "").await.status, 200);
}

#[tokio::test]
async fn an_answered_call_is_seen_by_all_later_ones() {
    let api = Arc::new(Api::start().await);
    let mut workers = JoinSet::new();
    for worker in 0..10 {
        let api = api.clone();
        workers.spawn(async move {
            for i in 0..10 {
                let path = format!("/user/{worker}-{i}");
                api.add(&path, "http://x").await;
                api.add("/fought-over", &format!("http://host-{worker}")).await;
                assert!(api.keys().await.contains(&path), "{path}");
                assert_eq!(api.call(&format!("DELETE /api/routes{path}"), "").await.status, 204);
                assert!(!api.keys().await.contains(&path), "{path}");
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("no worker fails");
    }
    assert_eq!(api.keys().await, ["/fought-over"]);
}

#[tokio::test]
async fn old_routes_are_for_who_asks_for_them() {
    let api = Api::start().await;
    api.add("/a", "http://x").await;
    *api.routes.known.lock().unwrap() = Some(Duration::from_millis(61_999));
    // As long as the store can be read nobody gets old ones.
    for path in ["/api/routes?stale=true", "/api/routes/a?stale=true"] {
        let fresh = api.call(&format!("GET {path}"), "").await;
        assert_eq!((fresh.status, fresh.header("x-pointsman-stale")), (200, None), "{path}");
    }
    api.routes.break_with(Fault::Fail(ControlError::Unavailable("the store is away".to_owned())));
    for (path, body) in [
        ("/api/routes?stale=true", r#"{"/a":{"target":"http://x"}}"#),
        ("/api/routes/?inactive_since=&stale=true", r#"{"/a":{"target":"http://x"}}"#),
        ("/api/routes/a?stale=true", r#"{"target":"http://x"}"#),
    ] {
        let old = api.call(&format!("GET {path}"), "").await;
        assert_eq!((old.status, old.header("x-pointsman-stale"), old.body.as_str()), (200, Some("61"), body), "{path}");
    }
    let none = api.call("GET /api/routes/b?stale=true", "").await;
    assert_eq!((none.status, none.header("x-pointsman-stale")), (404, Some("61")));
    for path in ["/api/routes", "/api/routes/a", "/api/routes?stale=1", "/api/routes/a?stale=false"] {
        assert_eq!(api.call(&format!("GET {path}"), "").await.status, 503, "{path}");
    }
    for (line, body) in
        [("POST /api/routes/b?stale=true", r#"{"target":"http://x"}"#), ("DELETE /api/routes/a?stale=true", "")]
    {
        assert_eq!(api.call(line, body).await.status, 503, "{line}");
    }
    *api.routes.known.lock().unwrap() = None;
    assert_eq!(api.call("GET /api/routes?stale=true", "").await.status, 503, "nothing is known");
}
