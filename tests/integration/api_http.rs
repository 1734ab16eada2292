//! HTTP itself, byte by byte: what keeps a connection, what ends it, and what malformed input gets.

use std::time::Duration;

use serde_json::json;

use crate::support::api::{Api, TOKEN, request};
use crate::support::http::{Connection, ask};

const BODY: &str = r#"{"target":"http://x"}"#;

fn kept(line: &str, body: &str) -> String {
    let length = body.len();
    format!("{line} HTTP/1.1\r\nHost: api\r\nAuthorization: token {TOKEN}\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn a_connection_serves_many_calls_and_survives_errors() {
    let api = Api::start().await;
    let mut connection = Connection::open(api.address).await;
    for (line, body, status) in [
        ("GET /api/routes", "", 200),
        ("POST /api/routes/a", BODY, 201),
        ("POST /api/routes/a", "bad", 400),
        ("GET /api/routes/%zz", "", 400),
        ("PUT /api/routes/a", "body", 405),
        ("GET /nowhere", "", 404),
        ("DELETE /api/routes/a", "", 204),
        ("DELETE /api/routes/a", "", 404),
        ("GET /api/routes", "", 200),
    ] {
        connection.send(kept(line, body)).await;
        assert_eq!(connection.reply().await.status, status, "{line}");
    }
}

#[tokio::test]
async fn pipelined_calls_are_answered_in_order() {
    let api = Api::start().await;
    let mut connection = Connection::open(api.address).await;
    let calls = ["POST /api/routes/a", "GET /api/routes/a", "DELETE /api/routes/a", "GET /api/routes/a"];
    let bodies = [BODY, "", "", ""];
    let all: String = calls.iter().zip(bodies).map(|(line, body)| kept(line, body)).collect();
    connection.send(all).await;
    for status in [201, 200, 204, 404] {
        assert_eq!(connection.reply().await.status, status);
    }
}

#[tokio::test]
async fn connection_close_closes() {
    let api = Api::start().await;
    let mut connection = Connection::open(api.address).await;
    connection.send(request("GET /healthz", "", "")).await;
    assert_eq!(connection.reply().await.status, 200);
    assert!(connection.is_closed().await);
}

#[tokio::test]
async fn http_1_0_is_answered() {
    let api = Api::start().await;
    let reply = ask(api.address, format!("GET /api/routes HTTP/1.0\r\nAuthorization: token {TOKEN}\r\n\r\n")).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
}

#[tokio::test]
async fn an_absolute_target_counts_as_its_path() {
    let api = Api::start().await;
    let added = api.call("POST http://elsewhere:99/api/routes/a%40b?x", BODY).await;
    assert_eq!(added.status, 201);
    assert_eq!(api.table().await, json!({"/a@b": {"target": "http://x"}}));
    assert_eq!(api.call_as("GET http://api/api/routes", "", "").await.status, 403);
}

#[tokio::test]
async fn strange_targets_are_not_found() {
    let api = Api::start().await;
    for line in ["OPTIONS *", "CONNECT api:80"] {
        assert_eq!(api.call_as(line, "", "").await.status, 404, "{line}");
    }
}

#[tokio::test]
async fn malformed_requests_get_400_and_the_end() {
    let api = Api::start().await;
    for bytes in [
        &b"rubbish\r\n\r\n"[..],
        b"GET /api/routes\r\n\r\n",
        b"GET /api/routes HTTP/9.9\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET /api/routes HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /api/routes HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        b"POST /api/routes HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /api/routes HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting\r\n\r\n",
    ] {
        let mut connection = Connection::open(api.address).await;
        connection.send(bytes).await;
        let reply = connection.reply().await;
        assert_eq!(reply.status, 400, "{}", bytes.escape_ascii());
        assert!(connection.is_closed().await);
    }
    assert_eq!(api.table().await, json!({}));
}

#[tokio::test]
async fn raw_bytes_in_a_path_are_refused() {
    let api = Api::start().await;
    for path in [&b"/api/routes/\xc3\xa9"[..], b"/api/routes/\xff"] {
        let mut connection = Connection::open(api.address).await;
        let mut bytes = b"POST ".to_vec();
        bytes.extend_from_slice(path);
        bytes.extend(request("", &format!("Authorization: token {TOKEN}\r\n"), BODY).into_bytes());
        connection.send(bytes).await;
        assert_eq!(connection.reply().await.status, 400, "{}", path.escape_ascii());
    }
    assert_eq!(api.table().await, json!({}));
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_431() {
    let api = Api::start().await;
    let fits = format!("X-Filler: {}\r\nAuthorization: token {TOKEN}\r\n", "x".repeat(15 * 1024));
    assert_eq!(api.call_as("GET /api/routes", &fits, "").await.status, 200);
    for headers in [format!("X-Filler: {}\r\n", "x".repeat(17 * 1024)), "X: y\r\n".repeat(200)] {
        let mut connection = Connection::open(api.address).await;
        connection.send(request("GET /api/routes", &headers, "")).await;
        assert_eq!(connection.reply().await.status, 431);
        assert!(connection.is_closed().await);
    }
    let long = api.call_as(&format!("GET /{}", "x".repeat(17 * 1024)), "", "").await;
    assert!(matches!(long.status, 414 | 431), "{long:?}");
}

#[tokio::test]
async fn a_chunked_body_is_read() {
    let api = Api::start().await;
    let mut connection = Connection::open(api.address).await;
    let head = format!(
        "POST /api/routes/a HTTP/1.1\r\nHost: a\r\nAuthorization: token {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    connection.send(&head).await;
    for part in [&BODY[..5], &BODY[5..]] {
        connection.send(format!("{:x}\r\n{part}\r\n", part.len())).await;
    }
    connection.send("0\r\n\r\n").await;
    assert_eq!(connection.reply().await.status, 201);
    connection.send(&head).await;
    connection.send("zz\r\n").await;
    assert_eq!(connection.reply().await.status, 400);
}

#[tokio::test]
async fn expect_continue_is_answered_when_the_body_is_wanted() {
    let api = Api::start().await;
    let head = |token: &str| {
        let length = BODY.len();
        format!(
            "POST /api/routes/a HTTP/1.1\r\nHost: a\r\nAuthorization: token {token}\r\nExpect: 100-continue\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    let mut connection = Connection::open(api.address).await;
    connection.send(head(TOKEN)).await;
    assert_eq!(connection.reply().await.status, 100);
    connection.send(BODY).await;
    assert_eq!(connection.reply().await.status, 201);

    let mut stranger = Connection::open(api.address).await;
    stranger.send(head("wrong")).await;
    assert_eq!(stranger.reply().await.status, 403, "a stranger's body isn't asked for");
}

#[tokio::test]
async fn a_refusal_comes_before_the_body() {
    let api = Api::start().await;
    let mut connection = Connection::open(api.address).await;
    connection.send("POST /api/routes/a HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000\r\n\r\n{\"target\":").await;
    assert_eq!(connection.reply().await.status, 403);
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_goes_on_sending() {
    let api = Api::start().await;
    let mut connection = Connection::open(api.address).await;
    connection.send("POST /api/routes/a HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000\r\n\r\n").await;
    // Many clients read no answer before they have sent everything: they must not run into a broken pipe.
    for i in 0..20 {
        connection.try_send(vec![b'x'; 100_000]).await.unwrap_or_else(|error| panic!("after {i} parts: {error}"));
        tokio::task::yield_now().await;
    }
    assert_eq!(connection.reply().await.status, 403);
    assert!(connection.is_closed().await);
}

#[tokio::test]
async fn a_silent_connection_disturbs_nobody() {
    let api = Api::start().await;
    let mut silent = Connection::open(api.address).await;
    let mut slow = Connection::open(api.address).await;
    slow.send("GET /api/rou").await;
    api.add("/a", "http://x").await;
    assert!(silent.is_silent(Duration::from_millis(50)).await);
    slow.send(format!("tes HTTP/1.1\r\nHost: a\r\nAuthorization: token {TOKEN}\r\n\r\n")).await;
    assert_eq!(slow.reply().await.json(), json!({"/a": {"target": "http://x"}}));
}

#[tokio::test]
async fn an_aborted_post_adds_nothing() {
    let api = Api::start().await;
    let mut connection = Connection::open(api.address).await;
    let whole = kept("POST /api/routes/a", BODY);
    connection.send(&whole[..whole.len() - 1]).await;
    drop(connection);
    assert_eq!(api.table().await, json!({}));
    assert!(api.routes.take_calls().iter().all(|call| call == "list"));
}
