//! JSON Web Tokens: every way in which one can be wrong, and key sets that change, lag or are out of reach.

mod from_a_url;

use std::path::PathBuf;
use std::sync::Arc;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use pointsman::api::auth::{AuthSettings, JwtSettings};
use pointsman::route::RouteSpec;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm,
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::api::{Api, NOW_S, Setup, TOKEN};
use crate::support::http::Reply;

const SECRET: &[u8] = b"a secret of at least 32 bytes, as RFC 7518 asks";
const BODY: &str = r#"{"target":"http://x"}"#;

/// Signs tokens.
struct Signer {
    algorithm: Algorithm,
    key_id: Option<&'static str>,
    private: EncodingKey,
    public_pem: String,
}

impl Signer {
    fn new(algorithm: Algorithm, key_id: Option<&'static str>) -> Self {
        let pair = |kind: &'static SignatureAlgorithm| KeyPair::generate_for(kind).expect("a key");
        let (private, public_pem) = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => (EncodingKey::from_secret(SECRET), String::new()),
            Algorithm::ES256 | Algorithm::ES384 => {
                let kind =
                    if algorithm == Algorithm::ES256 { &PKCS_ECDSA_P256_SHA256 } else { &PKCS_ECDSA_P384_SHA384 };
                let pair = pair(kind);
                (EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key"), pair.public_key_pem())
            }
            Algorithm::EdDSA => {
                let pair = pair(&PKCS_ED25519);
                (EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).expect("a key"), pair.public_key_pem())
            }
            _ => {
                let pair = pair(&PKCS_RSA_SHA256);
                (EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).expect("a key"), pair.public_key_pem())
            }
        };
        Self { algorithm, key_id, private, public_pem }
    }

    fn token(&self, changes: Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = self.key_id.map(str::to_owned);
        encode(&header, &claims(changes), &self.private).expect("a token")
    }

    fn jwk(&self) -> Value {
        if self.algorithm == Algorithm::EdDSA {
            // The library can't make this one.
            let key = jsonwebtoken::DecodingKey::from_ed_pem(self.public_pem.as_bytes()).expect("a key");
            let x = base64_url(key.try_get_as_bytes().expect("bytes"));
            return json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": self.key_id, "x": x});
        }
        let mut jwk = Jwk::from_encoding_key(&self.private, self.algorithm).expect("a JWK");
        jwk.common.key_id = self.key_id.map(str::to_owned);
        serde_json::to_value(jwk).expect("JSON")
    }
}

fn base64_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |i| char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize])).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

/// Good claims with `changes` laid over them; a null takes a claim away.
fn claims(changes: Value) -> Value {
    let mut claims = json!({"iss": "issuer", "aud": "pointsman", "exp": NOW_S + 300, "scope": "read write"});
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    for (name, value) in changes {
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(&name);
        } else {
            claims[name] = value;
        }
    }
    claims
}

fn settings() -> JwtSettings {
    JwtSettings { issuer: "issuer".into(), audiences: vec!["pointsman".into()], ..JwtSettings::default() }
}

/// Writes a file that lives as long as the test.
fn file(folder: &tempfile::TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("the file is written");
    path
}

async fn start(jwt: JwtSettings) -> Api {
    Api::start_with(Setup { auth: AuthSettings { tokens: vec![TOKEN.into()], jwt: Some(jwt) }, ..Setup::default() })
        .await
}

async fn with_key(content: impl AsRef<[u8]>) -> Api {
    let folder = tempfile::tempdir().expect("a folder");
    start(JwtSettings { key_files: vec![file(&folder, "key", content)], ..settings() }).await
}

async fn call(api: &Api, line: &str, token: &str) -> Reply {
    let body = if line.starts_with("POST") { BODY } else { "" };
    api.call_as(line, &format!("Authorization: Bearer {token}\r\n"), body).await
}

async fn status(api: &Api, token: &str) -> u16 {
    let reply = call(api, "GET /api/routes", token).await;
    if reply.status == 403 {
        assert_eq!(reply.body, "", "a refusal tells nothing");
    }
    reply.status
}

#[rstest]
#[case(Algorithm::HS256)]
#[case(Algorithm::HS384)]
#[case(Algorithm::HS512)]
#[case(Algorithm::RS256)]
#[case(Algorithm::RS384)]
#[case(Algorithm::RS512)]
#[case(Algorithm::PS256)]
#[case(Algorithm::PS384)]
#[case(Algorithm::PS512)]
#[case(Algorithm::ES256)]
#[case(Algorithm::ES384)]
#[case(Algorithm::EdDSA)]
#[tokio::test]
async fn every_algorithm_works(#[case] algorithm: Algorithm) {
    let signer = Signer::new(algorithm, None);
    let key = if signer.public_pem.is_empty() { SECRET.to_vec() } else { signer.public_pem.clone().into_bytes() };
    let api = with_key(&key).await;
    assert_eq!(status(&api, &signer.token(json!({}))).await, 200);
    if !signer.public_pem.is_empty() {
        assert_eq!(status(&api, &Signer::new(algorithm, None).token(json!({}))).await, 403, "another key");
    }
    let mut forged = signer.token(json!({})).into_bytes();
    let middle = forged.iter().position(|b| *b == b'.').expect("a dot") + 10;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    assert_eq!(status(&api, std::str::from_utf8(&forged).expect("text")).await, 403, "changed claims");
}

#[tokio::test]
async fn static_tokens_go_on_working_beside() {
    let api = with_key(SECRET).await;
    assert_eq!(api.table().await, json!({}));
    let token = Signer::new(Algorithm::HS256, None).token(json!({}));
    assert_eq!(api.call_as("GET /api/routes", &format!("Authorization: token {token}\r\n"), "").await.status, 403);
    assert_eq!(status(&api, TOKEN).await, 403);
}

#[rstest]
#[case(json!({"exp": NOW_S - 31}))]
#[case(json!({"exp": null}))]
#[case(json!({"exp": "never"}))]
#[case(json!({"nbf": NOW_S + 31}))]
#[case(json!({"iss": "another"}))]
#[case(json!({"iss": null}))]
#[case(json!({"aud": "another"}))]
#[case(json!({"aud": null}))]
#[case(json!({"aud": []}))]
#[case(json!({"scope": "write"}))]
#[case(json!({"scope": null}))]
#[case(json!({"scope": "admin"}))]
#[case(json!({"routes": 1}))]
#[case(json!({"routes": ""}))]
#[tokio::test]
async fn claims_that_are_not_enough(#[case] changes: Value) {
    let signer = Signer::new(Algorithm::HS256, None);
    let api = with_key(SECRET).await;
    assert_eq!(status(&api, &signer.token(json!({}))).await, 200);
    assert_eq!(status(&api, &signer.token(changes.clone())).await, 403, "{changes}");
}

#[tokio::test]
async fn a_token_ends_with_its_time() {
    let signer = Signer::new(Algorithm::HS256, None);
    let api = with_key(SECRET).await;
    let token = signer.token(json!({"nbf": NOW_S, "exp": NOW_S + 10}));
    for (seconds, expected) in [(-31, 403), (-29, 200), (0, 200), (39, 200), (41, 403)] {
        *api.clock.0.lock().expect("nobody panics with it") = jiff::Timestamp::from_second(NOW_S + seconds).unwrap();
        assert_eq!(status(&api, &token).await, expected, "{seconds} s after its beginning");
    }
}

#[rstest]
#[case("")]
#[case("x")]
#[case("a.b")]
#[case("a.b.c")]
#[case("....")]
#[case("eyJhbGciOiJIUzI1NiJ9..")]
#[tokio::test]
async fn rubbish_is_refused(#[case] token: &str) {
    let api = with_key(SECRET).await;
    assert_eq!(status(&api, token).await, 403, "{token:?}");
    assert_eq!(status(&api, &"x.".repeat(6000)).await, 403);
}

#[tokio::test]
async fn an_unsigned_token_is_refused() {
    let api = with_key(SECRET).await;
    let good = Signer::new(Algorithm::HS256, None).token(json!({}));
    let payload = good.split('.').nth(1).expect("a payload");
    let signature = good.split('.').nth(2).expect("a signature");
    // The head is {"alg":"none","typ":"JWT"}.
    let head = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    for token in [format!("{head}.{payload}."), format!("{head}.{payload}.{signature}"), format!("{head}.{payload}")] {
        assert_eq!(status(&api, &token).await, 403, "{token}");
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let rsa = Signer::new(Algorithm::RS256, None);
    let api = with_key(&rsa.public_pem).await;
    assert_eq!(status(&api, &rsa.token(json!({}))).await, 200);
    for secret in [rsa.public_pem.as_str(), rsa.public_pem.trim_end()] {
        let forged =
            encode(&Header::new(Algorithm::HS256), &claims(json!({})), &EncodingKey::from_secret(secret.as_bytes()));
        assert_eq!(status(&api, &forged.expect("a token")).await, 403);
    }
}

#[tokio::test]
async fn an_algorithm_outside_the_list_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let key_files = vec![file(&folder, "secret", SECRET)];
    let api = start(JwtSettings { key_files, algorithms: vec!["HS512".into(), "RS256".into()], ..settings() }).await;
    assert_eq!(status(&api, &Signer::new(Algorithm::HS512, None).token(json!({}))).await, 200);
    assert_eq!(status(&api, &Signer::new(Algorithm::HS256, None).token(json!({}))).await, 403);
}

#[tokio::test]
async fn critical_extensions_are_not_overlooked() {
    let api = with_key(SECRET).await;
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["exp".into()]);
    let token = encode(&header, &claims(json!({})), &EncodingKey::from_secret(SECRET)).expect("a token");
    assert_eq!(status(&api, &token).await, 403);
}

#[tokio::test]
async fn scopes_open_what_they_name() {
    let signer = Signer::new(Algorithm::HS256, None);
    let api = with_key(SECRET).await;
    for (scope, get, post, delete) in [
        (json!("read"), 200, 403, 403),
        (json!("write"), 403, 201, 204),
        (json!("read write"), 200, 201, 204),
        (json!(["write", "read"]), 200, 201, 204),
        (json!("admin"), 403, 403, 403),
        (json!("Read writer"), 403, 403, 403),
    ] {
        let token = signer.token(json!({"scope": scope}));
        let mut statuses = Vec::new();
        for line in ["GET /api/routes", "POST /api/routes/a", "DELETE /api/routes/a"] {
            statuses.push(call(&api, line, &token).await.status);
        }
        assert_eq!(statuses, [get, post, delete], "{scope}");
    }
}

#[tokio::test]
async fn claims_may_have_other_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = start(JwtSettings {
        key_files: vec![file(&folder, "secret", SECRET)],
        scope_claim: "scp".into(),
        scope_prefix: "pointsman:".into(),
        routes_claim: "paths".into(),
        ..settings()
    })
    .await;
    let signer = Signer::new(Algorithm::HS256, None);
    assert_eq!(status(&api, &signer.token(json!({"scp": ["pointsman:read"]}))).await, 200);
    assert_eq!(status(&api, &signer.token(json!({"scope": "pointsman:read"}))).await, 403);
    assert_eq!(status(&api, &signer.token(json!({"scp": "read"}))).await, 403);
    assert_eq!(status(&api, &signer.token(json!({"scp": "pointsman:read", "paths": "/a"}))).await, 403);
}

#[tokio::test]
async fn a_token_for_some_routes_is_good_for_no_others() {
    let signer = Signer::new(Algorithm::HS256, None);
    let api = with_key(SECRET).await;
    for path in ["/", "/user/jane", "/user/janet", "/user/jane/gpu"] {
        api.add(path, "http://x").await;
    }
    let token = signer.token(json!({"routes": "/user/jane"}));
    for (line, expected) in [
        ("GET /api/routes", 403),
        ("GET /api/routes/", 403),
        ("GET /api/routes/user", 403),
        ("GET /api/routes/user/janet", 403),
        ("GET /api/routes/user/none", 403),
        ("GET /api/routes/user/jane", 200),
        ("GET /api/routes/user/j%61ne/gpu", 200),
        ("GET /api/routes/user/jane/none", 404),
        ("POST /api/routes/user/jane/new", 201),
        ("POST /api/routes/user/jane%2Fnew2", 201),
        ("POST /api/routes/", 403),
        ("POST /api/routes/user/janet", 403),
        ("POST /api/routes/user/jane/../janet", 400),
        ("DELETE /api/routes/user/janet", 403),
        ("DELETE /api/routes", 403),
        ("DELETE /api/routes/user/jane", 204),
    ] {
        assert_eq!(call(&api, line, &token).await.status, expected, "{line}");
    }
    let below = || api.routes.below.lock().expect("nobody panics with it").clone();
    let jane = RouteSpec::from_decoded("/user/jane").expect("valid");
    assert_eq!(below(), Some(vec![jane]), "its routes fill a share of the table at most");
    api.add("/user/janet", "http://x").await;
    assert_eq!(below(), None, "and those of who may do everything all of it");
    let everything = signer.token(json!({"routes": ["/x", "/"]}));
    assert_eq!(status(&api, &everything).await, 200);
    assert_eq!(status(&api, &signer.token(json!({"routes": []}))).await, 403);
}

#[tokio::test]
async fn settings_change_while_it_runs_and_bad_ones_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (Signer::new(Algorithm::RS256, None), Signer::new(Algorithm::EdDSA, None));
    let key = file(&folder, "key", &old.public_pem);
    let auth =
        || AuthSettings { tokens: vec![], jwt: Some(JwtSettings { key_files: vec![key.clone()], ..settings() }) };
    let api = Api::start_with(Setup { auth: auth(), ..Setup::default() }).await;
    assert_eq!(status(&api, &old.token(json!({}))).await, 200);
    file(&folder, "key", "-----BEGIN PUBLIC KEY-----\nrubbish");
    api.auth.reload(&auth()).expect_err("no key");
    assert_eq!(status(&api, &old.token(json!({}))).await, 200);
    file(&folder, "key", &new.public_pem);
    api.auth.reload(&auth()).expect("a key");
    assert_eq!((status(&api, &old.token(json!({}))).await, status(&api, &new.token(json!({}))).await), (403, 200));
}

#[test]
fn bad_settings_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let private = KeyPair::generate().expect("a key").serialize_pem();
    let check = |jwt: JwtSettings, says: &str| {
        let clock = Arc::new(pointsman::clock::SystemClock);
        let auth = AuthSettings { tokens: vec![], jwt: Some(jwt) };
        let error = pointsman::api::auth::Authenticator::new(&auth, clock).expect_err("bad").to_string();
        assert!(error.contains(says), "{error:?} doesn't say {says:?}");
    };
    let key = |content: &str| JwtSettings { key_files: vec![file(&folder, "the-key", content)], ..settings() };
    check(settings(), "--jwt-key-file");
    check(JwtSettings { issuer: String::new(), ..key("x") }, "--jwt-issuer");
    check(JwtSettings { audiences: vec![], ..key("x") }, "--jwt-audience");
    check(JwtSettings { key_files: vec!["/nowhere/key".into()], ..settings() }, "/nowhere/key");
    check(key("short"), "at least 32 bytes, and it has 5");
    check(key(&private), "private key");
    check(key("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), "the-key");
    let all = std::str::from_utf8(SECRET).expect("text");
    check(JwtSettings { algorithms: vec!["none".into()], ..key(all) }, "'none'");
    check(JwtSettings { algorithms: vec!["RS256".into()], ..key(all) }, "fits any of the keys");
    check(JwtSettings { jwks_file: Some(file(&folder, "set", "{}")), ..settings() }, "'keys'");
}
