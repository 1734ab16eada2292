//! Everything has a limit, and every limit answers with a sentence.

use std::time::{Duration, Instant};

use pointsman::api::ApiSettings;
use pointsman::api::listen::Limits;
use pointsman::control::ControlError;
use pointsman::route::Weight;
use rstest::rstest;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::api::{Api, Fault, Setup, TOKEN, request};
use crate::support::http::{Connection, PATIENCE, Reply};

const BODY: &str = r#"{"target":"http://x"}"#;

async fn hasty() -> Api {
    let settings = ApiSettings { deadline: Duration::from_millis(300), ..ApiSettings::default() };
    Api::start_with(Setup { settings, ..Setup::default() }).await
}

fn assert_unavailable(reply: &Reply, says: &str) {
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(reply.body.contains(says) && !reply.body.contains('\n'), "{reply:?} doesn't say {says:?}");
}

#[test]
fn hubs_get_their_answer_before_they_hang_up() {
    assert!(ApiSettings::default().deadline <= Duration::from_secs(8));
}

#[rstest]
#[case(ControlError::Unavailable("etcd does not answer".into()), "etcd does not answer")]
#[case(ControlError::NotRouted("http://traefik-2 lags behind".into()), "not routed yet: http://traefik-2")]
#[case(ControlError::TooManyRoutes { max: 7 }, "7 routes, the limit set by --max-routes")]
#[case(ControlError::TooManyBytes { max: 7 }, "7 bytes together, the limit set by --max-table-bytes")]
#[case(ControlError::ShareIsFull { max: Weight { routes: 7, bytes: 8 } }, "more than 7 or have more than 8 bytes")]
#[tokio::test]
async fn a_passing_fault_is_503_never_an_empty_table(#[case] error: ControlError, #[case] says: &str) {
    let api = Api::start().await;
    api.add("/a", "http://x").await;
    api.routes.break_with(Fault::Fail(error));
    for (line, body) in [
        ("GET /api/routes", ""),
        ("GET /api/routes?inactive_since=2026", ""),
        ("GET /api/routes/a", ""),
        ("GET /api/routes/none", ""),
        ("POST /api/routes/b", BODY),
        ("DELETE /api/routes/a", ""),
        ("DELETE /api/routes/none", ""),
    ] {
        assert_unavailable(&api.call(line, body).await, says);
    }
    api.routes.break_with(None);
    assert_eq!(api.table().await, json!({"/a": {"target": "http://x"}}));
}

#[tokio::test]
async fn a_body_up_to_the_limit_is_read_and_no_longer_one() {
    let api = Api::start().await;
    let body = |length: usize| {
        let rest = length - r#"{"target":"http://x","x":""}"#.len();
        format!(r#"{{"target":"http://x","x":"{}"}}"#, "y".repeat(rest))
    };
    assert_eq!(api.call("POST /api/routes/a", &body(64 * 1024)).await.status, 201);
    let long = api.call("POST /api/routes/b", &body(64 * 1024 + 1)).await;
    assert_eq!((long.status, long.body.contains("65536 bytes")), (413, true), "{long:?}");
    assert_eq!(long.header("connection"), Some("close"), "the next call must not be sent after an unread body");

    let mut connection = Connection::open(api.address).await;
    let head = format!(
        "POST /api/routes/b HTTP/1.1\r\nHost: a\r\nAuthorization: token {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    connection.send(head).await;
    connection.send(format!("{:x}\r\n{}\r\n", 70_000, "y".repeat(70_000))).await;
    assert_eq!(connection.reply().await.status, 413, "the length was not announced");

    let mut announced = Connection::open(api.address).await;
    let head = format!(
        "POST /api/routes/b HTTP/1.1\r\nHost: a\r\nAuthorization: token {TOKEN}\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n"
    );
    announced.send(head).await;
    assert_eq!(announced.reply().await.status, 413, "the body isn't waited for");
    assert_eq!(api.keys().await, ["/a"]);
}

#[tokio::test]
async fn a_deep_body_is_refused() {
    let api = Api::start().await;
    // The object itself is a level.
    let body =
        |levels: usize| format!(r#"{{"target":"http://x","x":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
    assert_eq!(api.call("POST /api/routes/a", &body(64)).await.status, 201);
    for levels in [65, 127, 128, 1000, 30_000] {
        let reply = api.call("POST /api/routes/b", &body(levels)).await;
        assert_eq!((reply.status, reply.body.contains("64 levels")), (400, true), "{levels}: {reply:?}");
    }
    assert_eq!(api.keys().await, ["/a"]);
}

#[rstest]
#[case("$serde_json::private::RawValue", r#""[[[[[7]]]]]""#)]
#[case("$serde_json::private::RawValue", r#""{\"a\":7}""#)]
#[case("$serde_json::private::RawValue", r#""no JSON""#)]
#[case("$serde_json::private::Number", r#""7""#)]
#[tokio::test]
async fn no_key_of_a_body_has_a_meaning(#[case] key: &str, #[case] value: &str) {
    let api = Api::start().await;
    let body = format!(r#"{{"target":"http://x","x":{{"{key}":{value}}}}}"#);
    assert_eq!(api.call("POST /api/routes/a", &body).await.status, 201);
    let sent: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(api.call("GET /api/routes/a", "").await.json(), sent);
    assert_eq!(sent["x"][key].to_string(), value, "and this test reads it as it is");
    let whole = format!(r#"{{"{key}":{value}}}"#);
    assert_eq!(api.call("POST /api/routes/b", &whole).await.status, 400, "it has no target");
}

#[tokio::test]
async fn every_call_is_answered_in_time() {
    let api = hasty().await;
    api.routes.break_with(Fault::Hang);
    for (line, body) in [("GET /api/routes", ""), ("POST /api/routes/a", BODY), ("DELETE /api/routes/a", "")] {
        let start = Instant::now();
        assert_unavailable(&api.call(line, body).await, "no answer within 0.3 s");
        assert!(start.elapsed() >= Duration::from_millis(300), "{line}");
    }
    api.routes.break_with(None);
    api.add("/a", "http://x").await;
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_is_answered() {
    let api = hasty().await;
    api.routes.break_with(Fault::Hang);
    let mut connection = Connection::open(api.address).await;
    connection.send(request("GET /api/routes", &format!("Authorization: token {TOKEN}\r\n"), "")).await;
    connection.finish().await;
    assert_unavailable(&connection.reply().await, "no answer within 0.3 s");
}

#[tokio::test]
async fn a_client_that_sends_its_body_slowly_is_answered_in_time() {
    let api = hasty().await;
    let mut connection = Connection::open(api.address).await;
    let whole = request("POST /api/routes/a", &format!("Authorization: token {TOKEN}\r\n"), BODY);
    connection.send(&whole[..whole.len() - 1]).await;
    assert_unavailable(&connection.reply().await, "no answer within");
    assert_eq!(api.table().await, json!({}));
}

#[tokio::test]
async fn calls_beyond_the_limit_are_told_to_come_again() {
    let settings = ApiSettings { calls_max: 2, ..ApiSettings::default() };
    let api = Api::start_with(Setup { settings, ..Setup::default() }).await;
    api.routes.break_with(Fault::Hang);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::open(api.address).await;
        connection.send(request("GET /api/routes", &format!("Authorization: token {TOKEN}\r\n"), "")).await;
        held.push(connection);
    }
    let deadline = Instant::now() + PATIENCE;
    let mut arrived = 0;
    while arrived < 2 {
        assert!(Instant::now() < deadline, "{arrived} of 2 calls have arrived");
        tokio::time::sleep(Duration::from_millis(5)).await;
        arrived += api.routes.take_calls().len();
    }
    api.routes.break_with(None);
    assert_unavailable(&api.call("GET /api/routes", "").await, "2 calls are being worked on already");
    // A client that goes away gives its place back.
    drop(held);
    let mut last = api.call("GET /api/routes", "").await;
    while last.status != 200 {
        assert!(Instant::now() < deadline, "the places were not given back; last: {last:?}");
        last = api.call("GET /api/routes", "").await;
    }
}

#[tokio::test]
async fn a_panic_is_500_and_harms_no_other_call() {
    let api = Api::start().await;
    api.routes.break_with(Fault::Panic);
    let reply = api.call("GET /api/routes", "").await;
    assert_eq!((reply.status, reply.body.as_str()), (500, "an error in Pointsman; its log has more"));
    api.routes.break_with(None);
    assert_eq!(api.table().await, json!({}));
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut() {
    let limits = Limits { head_timeout: Duration::from_millis(200), ..Limits::default() };
    let api = Api::start_with(Setup { limits, ..Setup::default() }).await;
    for bytes in ["", "GET /healthz HTTP/1.1\r\nHost:"] {
        let mut connection = Connection::open(api.address).await;
        connection.send(bytes).await;
        assert!(connection.is_closed().await, "{bytes:?}");
    }
}

/// A connection whose call with a token was answered.
async fn authenticated(api: &Api) -> Connection {
    let mut connection = Connection::open(api.address).await;
    connection.send(format!("GET /api/routes HTTP/1.1\r\nHost: a\r\nAuthorization: token {TOKEN}\r\n\r\n")).await;
    assert_eq!(connection.reply().await.status, 200);
    connection
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place_of_those_with_a_token() {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let api = Api::start_with(Setup { limits, ..Setup::default() }).await;
    let mut held = vec![authenticated(&api).await, authenticated(&api).await];
    let mut third = Connection::open(api.address).await;
    third.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(third.is_silent(Duration::from_millis(200)).await);
    held.pop();
    assert_eq!(third.reply().await.status, 200);
}

#[tokio::test]
async fn at_the_limit_the_oldest_connection_without_a_token_gives_way() {
    let limits = Limits { connections_max: 3, ..Limits::default() };
    let api = Api::start_with(Setup { limits, ..Setup::default() }).await;
    let mut hub = authenticated(&api).await;
    let mut others = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(api.address).await;
        connection.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(connection.reply().await.status, 200);
        others.push(connection);
    }
    let mut newest = others.split_off(2);
    for mut oldest in others {
        assert!(oldest.is_closed().await, "the oldest were closed");
    }
    newest.push(hub);
    for connection in &mut newest {
        connection.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(connection.reply().await.status, 200, "the newest and the hub's are open");
    }
    hub = newest.pop().expect("the hub's");
    drop((newest, hub));
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_connection() {
    let limits = Limits { write_stall: Duration::from_millis(300), ..Limits::default() };
    let api = Api::start_with(Setup { limits, ..Setup::default() }).await;
    let mut stream = TcpStream::connect(api.address).await.expect("connects");
    let requests = "GET /api/ HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    let write = async { while stream.write_all(requests.as_bytes()).await.is_ok() {} };
    timeout(PATIENCE, write).await.expect("the connection is reset");
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_its_whole_answer() {
    const STALL: Duration = Duration::from_secs(1);
    let limits = Limits { write_stall: STALL, ..Limits::default() };
    let api = Api::start_with(Setup { limits, ..Setup::default() }).await;
    let long = json!({"target": "http://x", "long": "y".repeat(60_000)}).to_string();
    for n in 0..150 {
        assert_eq!(api.call(&format!("POST /api/routes/{n}"), &long).await.status, 201);
    }
    let mut stream = TcpStream::connect(api.address).await.expect("connects");
    let call = request("GET /api/routes", &format!("Authorization: token {TOKEN}\r\n"), "");
    stream.write_all(call.as_bytes()).await.expect("sent");
    let (begun, mut length, mut part) = (Instant::now(), 0, vec![0; 100_000]);
    loop {
        match timeout(PATIENCE, stream.read(&mut part)).await.expect("no hang").expect("no reset") {
            0 => break,
            n => length += n,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(length > 150 * 60_000, "only {length} bytes");
    assert!(begun.elapsed() > STALL, "it was not slow: {:?}", begun.elapsed());
}
