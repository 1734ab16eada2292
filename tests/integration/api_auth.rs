//! Tokens: which forms of the header are accepted, what is looked at before it, and what a refusal tells.

use pointsman::api::auth::AuthSettings;
use rstest::rstest;
use serde_json::json;

use crate::support::api::{Api, Setup, TOKEN};

const BODY: &str = r#"{"target":"http://x"}"#;

async fn with_tokens(tokens: &[&str]) -> Api {
    let tokens = tokens.iter().map(|token| (*token).into()).collect();
    Api::start_with(Setup { auth: AuthSettings { tokens, jwt: None }, ..Setup::default() }).await
}

#[rstest]
#[case("token §")]
#[case("token    §")]
#[case("token\t§")]
#[case("token \t §")]
#[case("token §   ")]
#[tokio::test]
async fn accepted(#[case] value: &str) {
    let api = Api::start().await;
    let header = format!("authorization: {}\r\n", value.replace('§', TOKEN));
    assert_eq!(api.call_as("GET /api/routes", &header, "").await.status, 200, "{value:?}");
}

#[rstest]
#[case("")]
#[case("Authorization: \r\n")]
#[case("Authorization: token\r\n")]
#[case("Authorization: §\r\n")]
#[case("Authorization: token§\r\n")]
#[case("Authorization: Token §\r\n")]
#[case("Authorization: TOKEN §\r\n")]
#[case("Authorization: xtoken §\r\n")]
#[case("Authorization: bearer token §\r\n")]
#[case("Authorization: Bearer §\r\n")]
#[case("Authorization: Basic §\r\n")]
#[case("Authorization: token § junk\r\n")]
#[case("Authorization: token §, token §\r\n")]
#[case("Authorization: \"token §\"\r\n")]
#[case("Authorization: token \"§\"\r\n")]
#[case("Authorization: token §1\r\n")]
#[case("Authorization: token wrong\r\n")]
#[case("Authorization: token wrong\r\nAuthorization: token §\r\n")]
#[case("Authorization: token §\r\nAuthorization: token §\r\n")]
#[case("Cookie: token=§\r\nX-Authorization: token §\r\n")]
#[tokio::test]
async fn refused_with_nothing_leaked(#[case] headers: &str) {
    let api = Api::start().await;
    api.add("/a", "http://x").await;
    api.routes.take_calls();
    let headers = headers.replace('§', TOKEN);
    let huge = "x".repeat(200_000);
    for (line, body) in [
        ("GET /api/routes", ""),
        ("GET /api/routes/a", ""),
        ("GET /api/routes/none", ""),
        ("GET /api/routes?token=§&inactive_since=bad", ""),
        ("GET /api/routes/%zz", ""),
        ("DELETE /api/routes/a", ""),
        ("DELETE /api/routes", ""),
        ("POST /api/routes/b", BODY),
        ("POST /api/routes/b", "not json"),
        ("POST /api/routes/b", &huge),
        ("POST /api/routes/user/..", BODY),
    ] {
        let reply = api.call_as(&line.replace('§', TOKEN), &headers, body).await;
        assert_eq!((reply.status, reply.body.as_str()), (403, ""), "{line} with {headers:?}");
        assert_eq!((reply.header("www-authenticate"), reply.header("content-type")), (None, None));
    }
    assert!(api.routes.take_calls().is_empty(), "a refused call reached the routes");
    assert_eq!(api.keys().await, ["/a"]);
}

#[rstest]
#[case("/", 404)]
#[case("/api/routesx", 404)]
#[case("/api//routes", 404)]
#[case("//api/routes", 404)]
#[case("/API/routes", 404)]
#[case("/Api/Routes", 404)]
#[case("/api/route", 404)]
#[case("/metrics", 404)]
#[case("/_chp_healthz", 404)]
#[case("/healthz/", 404)]
#[case("/%zz", 404)]
#[tokio::test]
async fn elsewhere_is_nothing_and_needs_no_token(#[case] path: &str, #[case] status: u16) {
    let api = Api::start().await;
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        let reply = api.call_as(&format!("{method} {path}"), "", "").await;
        assert_eq!((reply.status, reply.body.as_str()), (status, "Not Found"), "{method} {path}");
        assert_eq!(reply.header("content-type"), None);
    }
}

#[tokio::test]
async fn other_methods_are_not_supported_token_or_not() {
    let api = Api::start().await;
    for method in ["PUT", "PATCH", "HEAD", "OPTIONS", "TRACE"] {
        for path in ["/api/routes", "/api/routes/", "/api/routes/a", "/api/routes/%zz"] {
            for headers in [String::new(), format!("Authorization: token {TOKEN}\r\n")] {
                let reply = api.call_as(&format!("{method} {path}"), &headers, "").await;
                let body = if method == "HEAD" { "" } else { "Method not supported" };
                assert_eq!((reply.status, reply.body.as_str()), (405, body), "{method} {path}");
                assert_eq!((reply.header("allow"), reply.header("content-type")), (None, None));
            }
        }
    }
}

#[tokio::test]
async fn several_tokens_are_good_at_once() {
    let api = with_tokens(&["old", "", "new"]).await;
    for (token, status) in [("old", 200), ("new", 200), ("", 403), ("ol", 403), ("oldnew", 403)] {
        let reply = api.call_as("GET /api/routes", &format!("Authorization: token {token}\r\n"), "").await;
        assert_eq!(reply.status, status, "{token:?}");
    }
}

#[tokio::test]
async fn tokens_change_while_it_runs() {
    let api = with_tokens(&["old"]).await;
    let status = async |token: &str| {
        api.call_as("GET /api/routes", &format!("Authorization: token {token}\r\n"), "").await.status
    };
    assert_eq!((status("old").await, status("new").await), (200, 403));
    api.auth.reload(&AuthSettings { tokens: vec!["new".into()], jwt: None }).expect("usable");
    assert_eq!((status("old").await, status("new").await), (403, 200));
}

#[tokio::test]
async fn without_a_token_the_api_is_open() {
    for tokens in [&[][..], &[""]] {
        let api = with_tokens(tokens).await;
        assert_eq!(api.call_as("POST /api/routes/a", "", BODY).await.status, 201);
        assert_eq!(
            api.call_as("GET /api/routes", "Authorization: Basic x\r\n", "").await.json(),
            json!({"/a": {"target": "http://x"}})
        );
    }
}

#[tokio::test]
async fn what_answers_here_is_no_secret() {
    let api = Api::start().await;
    for path in ["/api", "/api/", "/api/?x"] {
        let reply = api.call_as(&format!("GET {path}"), "", "").await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{path}");
        let about = reply.json();
        assert_eq!((&about["name"], &about["version"]), (&json!("pointsman"), &json!(env!("CARGO_PKG_VERSION"))));
        assert_eq!(about["links"]["routes"], "/api/routes");
        assert!(!reply.body.contains(TOKEN));
        assert_eq!(api.call_as(&format!("POST {path}"), "", "").await.status, 405, "{path}");
    }
}

#[tokio::test]
async fn health_and_readiness_need_no_token() {
    let api = Api::start().await;
    let ask = async |line: &str| api.call_as(line, "", "").await;
    assert_eq!(ask("GET /readyz").await.json(), json!({"ready": true, "missing": {}}));
    api.readiness.hold("mirror", "the routes have not been read from etcd yet");
    api.readiness.hold("traefik", "no Traefik answers");
    let unready = ask("GET /readyz").await;
    assert_eq!(unready.status, 503);
    let missing = json!({"mirror": "the routes have not been read from etcd yet", "traefik": "no Traefik answers"});
    assert_eq!(unready.json(), json!({"ready": false, "missing": missing}));
    let health = ask("GET /healthz").await;
    assert_eq!((health.status, health.body.as_str()), (200, "ok"));
    assert_eq!((ask("HEAD /healthz").await.status, ask("POST /healthz").await.status), (200, 405));
    api.readiness.release("mirror");
    assert_eq!(ask("GET /readyz").await.status, 503);
    api.readiness.release("traefik");
    assert_eq!(ask("GET /readyz").await.status, 200);
}
