//! Keys behind a URL, which are fetched when a token needs them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, Header, encode};
use pointsman::api::ApiSettings;
use pointsman::api::auth::{AuthSettings, JwtSettings};
use rstest::rstest;
use serde_json::json;
use tokio::time::timeout;

use super::{SECRET, Signer, call, claims, file, settings, start, status};
use crate::support::api::{Api, Setup, TOKEN, request};
use crate::support::http::{Connection, PATIENCE, Server, ask, response};
use crate::support::wait::eventually;

/// A key set that a test changes while it is served.
struct Issuer {
    server: Server,
    keys: Arc<Mutex<Option<Vec<u8>>>>,
    asked: usize,
}

impl Issuer {
    async fn start(keys: &[&Signer]) -> Self {
        let current = Arc::new(Mutex::new(Some(Self::set(keys))));
        let shared = current.clone();
        let server = Server::start(move |_| shared.lock().expect("nobody panics with it").clone()).await;
        Self { server, keys: current, asked: 0 }
    }

    fn set(keys: &[&Signer]) -> Vec<u8> {
        let mut keys: Vec<_> = keys.iter().map(|signer| signer.jwk()).collect();
        // What an issuer publishes beside is none of our business, and must not hide the rest.
        keys.insert(0, json!({"kty": "quantum", "kid": "other"}));
        keys.insert(0, json!({"kty": "EC", "crv": "P-521", "kid": "p521", "x": "AA", "y": "AA"}));
        response(200, "Content-Type: application/json\r\n", json!({"keys": keys}).to_string())
    }

    fn serve(&self, keys: &[&Signer]) {
        *self.keys.lock().expect("nobody panics with it") = Some(Self::set(keys));
    }

    fn answer(&self, bytes: Vec<u8>) {
        *self.keys.lock().expect("nobody panics with it") = Some(bytes);
    }

    fn settings(&self) -> JwtSettings {
        let url = format!("http://{}/keys", self.server.address).parse().expect("a URL");
        JwtSettings { jwks_url: Some(url), ..settings() }
    }

    /// How often it was asked since the last time this was asked.
    fn asked(&mut self) -> usize {
        let mut asked = 0;
        while self.server.heads.try_recv().is_ok() {
            asked += 1;
        }
        self.asked += asked;
        asked
    }
}

/// Lets time pass for everybody but the network.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[rstest]
#[case(Algorithm::RS256)]
#[case(Algorithm::ES256)]
#[case(Algorithm::ES384)]
#[case(Algorithm::EdDSA)]
#[tokio::test]
async fn keys_from_a_url(#[case] algorithm: Algorithm) {
    let (good, stranger) = (Signer::new(algorithm, Some("k1")), Signer::new(algorithm, Some("k1")));
    let mut issuer = Issuer::start(&[&good]).await;
    let api = start(issuer.settings()).await;
    assert_eq!(issuer.asked(), 0, "nothing is fetched before it is needed");
    for _ in 0..3 {
        assert_eq!(status(&api, &good.token(json!({}))).await, 200);
        assert_eq!(status(&api, &stranger.token(json!({}))).await, 403);
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn an_unknown_key_causes_one_fetch_in_30_s() {
    let (old, new) = (Signer::new(Algorithm::ES256, Some("old")), Signer::new(Algorithm::ES256, Some("new")));
    let mut issuer = Issuer::start(&[&old]).await;
    let api = start(issuer.settings()).await;
    assert_eq!(status(&api, &old.token(json!({}))).await, 200);
    assert_eq!(issuer.asked(), 1);
    for _ in 0..5 {
        assert_eq!(status(&api, &new.token(json!({}))).await, 403);
    }
    assert_eq!(issuer.asked(), 0, "the last fetch was less than 30 s ago");
    issuer.serve(&[&old, &new]);
    pass(Duration::from_secs(31)).await;
    assert_eq!(status(&api, &new.token(json!({}))).await, 200);
    assert_eq!(issuer.asked(), 1);
    for _ in 0..5 {
        assert_eq!(status(&api, &Signer::new(Algorithm::ES256, Some("never")).token(json!({}))).await, 403);
    }
    assert_eq!(issuer.asked(), 0);
}

#[tokio::test]
async fn a_withdrawn_key_is_forgotten() {
    let (old, new) = (Signer::new(Algorithm::ES256, Some("old")), Signer::new(Algorithm::ES256, Some("new")));
    let issuer = Issuer::start(&[&old]).await;
    let api = start(issuer.settings()).await;
    assert_eq!(status(&api, &old.token(json!({}))).await, 200);
    issuer.serve(&[&new]);
    pass(Duration::from_secs(601)).await;
    assert_eq!(status(&api, &old.token(json!({}))).await, 403);
    assert_eq!(status(&api, &new.token(json!({}))).await, 200);
}

#[rstest]
#[case(response(500, "", ""))]
#[case(response(200, "", "not json"))]
#[case(response(200, "", "{}"))]
#[case(response(200, "", vec![b' '; 1024 * 1024 + 1]))]
#[case(Vec::new())]
#[tokio::test]
async fn a_key_set_out_of_reach_is_503_not_403(#[case] answer: Vec<u8>) {
    let signer = Signer::new(Algorithm::ES256, Some("k"));
    let issuer = Issuer::start(&[&signer]).await;
    issuer.answer(answer);
    let api = start(issuer.settings()).await;
    let reply = call(&api, "GET /api/routes", &signer.token(json!({}))).await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{reply:?}");
    assert_eq!(api.call("GET /api/routes", "").await.status, 200, "static tokens need no key set");
    issuer.serve(&[&signer]);
    pass(Duration::from_secs(3)).await;
    assert_eq!(status(&api, &signer.token(json!({}))).await, 200);
    issuer.answer(response(500, "", ""));
    pass(Duration::from_secs(601)).await;
    assert_eq!(status(&api, &signer.token(json!({}))).await, 200, "the keys we know serve on");
}

#[tokio::test]
async fn a_key_is_good_for_the_algorithm_that_its_issuer_names() {
    let signer = Signer::new(Algorithm::RS256, Some("k"));
    let issuer = Issuer::start(&[&signer]).await;
    let api = start(issuer.settings()).await;
    assert_eq!(status(&api, &signer.token(json!({}))).await, 200);
    for algorithm in [Algorithm::RS512, Algorithm::PS256] {
        let mut header = Header::new(algorithm);
        header.kid = Some("k".into());
        let token = encode(&header, &claims(json!({})), &signer.private).expect("a token");
        assert_eq!(status(&api, &token).await, 403, "{algorithm:?}");
    }
}

#[tokio::test]
async fn a_caller_who_leaves_during_the_fetch_does_no_harm() {
    let signer = Signer::new(Algorithm::ES256, Some("k"));
    let mut issuer = Issuer::start(&[]).await;
    *issuer.keys.lock().expect("nobody panics with it") = None;
    let api = start(issuer.settings()).await;
    let token = signer.token(json!({}));
    let mut caller = Connection::open(api.address).await;
    caller.send(request("GET /api/routes", &format!("Authorization: Bearer {token}\r\n"), "")).await;
    issuer.server.heads.recv().await.expect("the key set is asked for");
    drop(caller);
    issuer.serve(&[&signer]);
    assert_eq!(status(&api, &token).await, 503, "nobody has seen the keys yet");
    pass(Duration::from_secs(3)).await;
    assert_eq!(status(&api, &token).await, 200);
}

#[tokio::test]
async fn keys_come_from_where_the_administrator_said() {
    let signer = Signer::new(Algorithm::ES256, Some("k"));
    let mut elsewhere = Issuer::start(&[&signer]).await;
    let issuer = Issuer::start(&[]).await;
    let address = elsewhere.server.address;
    issuer.answer(response(302, &format!("Location: http://{address}/keys\r\n"), ""));
    let api = start(issuer.settings()).await;
    assert_eq!(status(&api, &signer.token(json!({}))).await, 503);
    assert_eq!(elsewhere.asked(), 0, "a redirect was followed");
}

#[tokio::test]
async fn a_key_file_serves_while_the_key_set_is_out_of_reach() {
    let folder = tempfile::tempdir().expect("a folder");
    let issuer = Issuer::start(&[]).await;
    issuer.answer(response(500, "", ""));
    let api = start(JwtSettings { key_files: vec![file(&folder, "secret", SECRET)], ..issuer.settings() }).await;
    assert_eq!(status(&api, &Signer::new(Algorithm::HS256, None).token(json!({}))).await, 200);
    assert_eq!(status(&api, &Signer::new(Algorithm::ES256, None).token(json!({}))).await, 503);
}

#[tokio::test]
async fn a_secret_in_a_published_key_set_is_ignored() {
    let signer = Signer::new(Algorithm::HS256, Some("k"));
    let issuer = Issuer::start(&[&signer]).await;
    let api = start(issuer.settings()).await;
    assert_eq!(status(&api, &signer.token(json!({}))).await, 403);
    let folder = tempfile::tempdir().expect("a folder");
    let set = json!({"keys": [signer.jwk()]}).to_string();
    let api = start(JwtSettings { jwks_file: Some(file(&folder, "set", set)), ..settings() }).await;
    assert_eq!(status(&api, &signer.token(json!({}))).await, 200, "in a file of ours it is welcome");
}

#[tokio::test]
async fn few_calls_wait_for_an_issuer_that_hangs_and_take_no_place_of_others() {
    let signer = Signer::new(Algorithm::ES256, Some("k"));
    let mut issuer = Issuer::start(&[]).await;
    *issuer.keys.lock().expect("nobody panics with it") = None;
    let auth = AuthSettings { tokens: vec![TOKEN.into()], jwt: Some(issuer.settings()) };
    let settings = ApiSettings { calls_max: 1, ..ApiSettings::default() };
    let api = Api::start_with(Setup { auth, settings, ..Setup::default() }).await;
    let call = request("GET /api/routes", &format!("Authorization: Bearer {}\r\n", signer.token(json!({}))), "");
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let mut caller = Connection::open(api.address).await;
        caller.send(&call).await;
        waiting.push(caller);
    }
    issuer.server.heads.recv().await.expect("the key set is asked for");
    // One more than may wait is answered at once; before, all would have waited for as long as the fetch takes.
    let begun = Instant::now();
    eventually("a call that need not wait", PATIENCE, || async {
        let reply = timeout(Duration::from_millis(200), ask(api.address, &call)).await;
        match reply {
            Ok(reply) if reply.status == 503 && reply.body.contains("16 calls wait") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(api.call("GET /api/routes", "").await.status, 200, "the only place for work is free");
    assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    for caller in &mut waiting {
        assert_eq!(caller.reply().await.status, 503);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "one fetch is the end of all that wait: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_known_key_serves_while_the_issuer_hangs() {
    let signer = Signer::new(Algorithm::ES256, Some("k"));
    let issuer = Issuer::start(&[&signer]).await;
    let api = start(issuer.settings()).await;
    assert_eq!(status(&api, &signer.token(json!({}))).await, 200);
    *issuer.keys.lock().expect("nobody panics with it") = None;
    pass(Duration::from_secs(601)).await;
    for _ in 0..2 {
        let begun = Instant::now();
        assert_eq!(status(&api, &signer.token(json!({}))).await, 200);
        assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    }
}
