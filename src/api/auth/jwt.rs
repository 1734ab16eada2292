//! What a JSON Web Token says, and whether it is enough: plain functions, given keys and the time.

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::Scope;
use super::keys::{Algorithms, Key};
use crate::route::RouteSpec;

/// Clocks of different machines may differ by this much, in seconds.
const LEEWAY_S: f64 = 30.0;

/// A longer token is not read.
const BYTES_MAX: usize = 8 * 1024;

/// What a token must say.
pub(super) struct Policy {
    /// The algorithms that may be used at all.
    pub(super) allowed: Algorithms,
    /// Who must have issued it.
    pub(super) issuer: String,
    /// For whom it must be; any of these.
    pub(super) audiences: Vec<String>,
    /// The claim with the scopes.
    pub(super) scope_claim: String,
    /// What scopes begin with.
    pub(super) scope_prefix: String,
    /// The claim that limits it to some routes.
    pub(super) routes_claim: String,
}

/// What a token says about its signature, which nothing vouches for yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// How it is signed.
    pub(super) algorithm: Algorithm,
    /// The name of the key.
    pub(super) key_id: Option<String>,
}

/// Reads the head of a token.
pub(super) fn head(token: &str, policy: &Policy) -> Result<Head, String> {
    if token.len() > BYTES_MAX {
        return Err(format!("the JWT is longer than {BYTES_MAX} bytes"));
    }
    // The library knows no algorithm named `none`, so an unsigned token ends here.
    let header = decode_header(token).map_err(|_| "the JWT is malformed, or its algorithm is unknown".to_owned())?;
    if header.crit.is_some() {
        return Err("the JWT demands extensions ('crit') that Pointsman doesn't know".to_owned());
    }
    if !policy.allowed.contains(header.alg) {
        return Err(format!("the JWT is signed with {:?}, which --jwt-algorithms doesn't allow", header.alg));
    }
    Ok(Head { algorithm: header.alg, key_id: header.kid })
}

/// The claims of a token that one of `keys` has signed. The keys must fit the token's head.
pub(super) fn verify(token: &str, keys: &[&Key]) -> Result<Map<String, Value>, String> {
    if keys.is_empty() {
        return Err("no key of ours fits the name and algorithm in the JWT's head".to_owned());
    }
    let algorithm = decode_header(token).map_err(|_| "the JWT is malformed".to_owned())?.alg;
    // Only the signature is left to the library: what the claims must say is decided below, by our own clock.
    let mut signature_only = Validation::new(algorithm);
    signature_only.required_spec_claims.clear();
    signature_only.validate_exp = false;
    signature_only.validate_aud = false;
    keys.iter()
        .find_map(|key| decode::<Map<String, Value>>(token, key.decoding(), &signature_only).ok())
        .map(|data| data.claims)
        .ok_or_else(|| "the JWT's signature is wrong".to_owned())
}

/// Whether these claims allow `scope` now, and below which prefixes; `None`: everywhere.
pub(super) fn decide(
    claims: &Map<String, Value>,
    policy: &Policy,
    scope: Scope,
    now: Timestamp,
) -> Result<Option<Vec<RouteSpec>>, String> {
    in_time(claims, now)?;
    if claims.get("iss").and_then(Value::as_str) != Some(&policy.issuer) {
        return Err(format!("the JWT's 'iss' is not '{}'", policy.issuer));
    }
    let audience = texts(claims.get("aud")).unwrap_or_default();
    if !audience.iter().any(|one| policy.audiences.iter().any(|ours| ours == one)) {
        return Err(format!("the JWT's 'aud' has none of: {}", policy.audiences.join(", ")));
    }
    let needed = format!("{}{}", policy.scope_prefix, scope.name());
    let scopes = match claims.get(&policy.scope_claim) {
        Some(Value::String(list)) => list.split(' ').collect(),
        list => texts(list).unwrap_or_default(),
    };
    if !scopes.contains(&needed.as_str()) {
        return Err(format!("the JWT lacks the scope '{needed}'"));
    }
    let Some(limit) = claims.get(&policy.routes_claim) else { return Ok(None) };
    let name = &policy.routes_claim;
    let malformed = || format!("the JWT's '{name}' is neither a path nor a list of paths");
    let prefixes = texts(Some(limit)).ok_or_else(malformed)?;
    prefixes
        .into_iter()
        .map(|prefix| {
            if !prefix.starts_with('/') {
                // An empty text would be read as the root, and open everything.
                return Err(malformed());
            }
            RouteSpec::from_decoded(prefix).map_err(|error| format!("the JWT's '{name}': {error}"))
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

fn in_time(claims: &Map<String, Value>, now: Timestamp) -> Result<(), String> {
    let now = now.as_duration().as_secs_f64();
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| format!("the JWT's '{name}' is not a number")),
    };
    let expires = time("exp")?.ok_or("the JWT has no 'exp': it must say when it expires")?;
    if now >= expires + LEEWAY_S {
        return Err("the JWT has expired".to_owned());
    }
    if time("nbf")?.is_some_and(|begins| now < begins - LEEWAY_S) {
        return Err("the JWT is not valid yet ('nbf')".to_owned());
    }
    Ok(())
}

/// A text, or a list of nothing but texts.
fn texts(value: Option<&Value>) -> Option<Vec<&str>> {
    match value? {
        Value::String(text) => Some(vec![text]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn policy() -> Policy {
        Policy {
            allowed: Algorithms::parse(&[]).expect("all"),
            issuer: "https://issuer".to_owned(),
            audiences: vec!["hub".to_owned(), "proxy".to_owned()],
            scope_claim: "scope".to_owned(),
            scope_prefix: "pointsman:".to_owned(),
            routes_claim: "routes".to_owned(),
        }
    }

    /// Good claims with `changes` laid over them; a null takes a claim away.
    fn decided(changes: &Value, scope: Scope) -> Result<Option<Vec<RouteSpec>>, String> {
        let mut claims = json!({"iss": "https://issuer", "aud": "hub", "exp": NOW + 60, "scope": "x pointsman:read"})
            .as_object()
            .expect("an object")
            .clone();
        for (name, value) in changes.as_object().expect("an object") {
            if value.is_null() {
                claims.remove(name);
            } else {
                claims.insert(name.clone(), value.clone());
            }
        }
        decide(&claims, &policy(), scope, Timestamp::from_second(NOW).expect("in range"))
    }

    #[rstest]
    #[case(json!({}))]
    #[case(json!({"aud": ["other", "proxy"]}))]
    #[case(json!({"scope": ["pointsman:read"]}))]
    #[case(json!({"exp": NOW - 29}))]
    #[case(json!({"exp": 1.9e9}))]
    #[case(json!({"nbf": NOW + 29}))]
    fn enough(#[case] changes: Value) {
        assert_eq!(decided(&changes, Scope::Read), Ok(None), "{changes}");
    }

    #[rstest]
    #[case(json!({"exp": null}), "no 'exp'")]
    #[case(json!({"exp": NOW - 30}), "expired")]
    #[case(json!({"exp": "later"}), "'exp' is not a number")]
    #[case(json!({"nbf": NOW + 31}), "not valid yet")]
    #[case(json!({"nbf": "now"}), "'nbf' is not a number")]
    #[case(json!({"iss": null}), "'iss'")]
    #[case(json!({"iss": "https://other"}), "'iss'")]
    #[case(json!({"iss": ["https://issuer"]}), "'iss'")]
    #[case(json!({"aud": null}), "'aud'")]
    #[case(json!({"aud": "hubs"}), "'aud'")]
    #[case(json!({"aud": ["hub", 7]}), "'aud'")]
    #[case(json!({"scope": null}), "scope 'pointsman:read'")]
    #[case(json!({"scope": "read pointsman:write pointsman:reader"}), "scope 'pointsman:read'")]
    #[case(json!({"scope": {"pointsman:read": true}}), "scope 'pointsman:read'")]
    #[case(json!({"routes": 7}), "'routes'")]
    #[case(json!({"routes": ""}), "'routes'")]
    #[case(json!({"routes": ["/a", ""]}), "'routes'")]
    #[case(json!({"routes": "user/jane"}), "'routes'")]
    #[case(json!({"routes": "/user/.."}), "'..'")]
    fn not_enough(#[case] changes: Value, #[case] because: &str) {
        let reason = decided(&changes, Scope::Read).expect_err("refused");
        assert!(reason.contains(because), "{changes}: {reason:?} doesn't say {because:?}");
    }

    #[test]
    fn one_scope_does_not_imply_another() {
        for (scope, name) in [(Scope::Read, "read"), (Scope::Write, "write"), (Scope::Admin, "admin")] {
            for other in ["read", "write", "admin"] {
                let granted = decided(&json!({"scope": format!("pointsman:{other}")}), scope).is_ok();
                assert_eq!(granted, name == other, "{name} with {other}");
            }
        }
    }

    #[test]
    fn a_limit_is_a_list_of_prefixes() {
        let specs = |paths: &[&str]| {
            Ok(Some(paths.iter().map(|path| RouteSpec::from_decoded(path).expect("valid")).collect::<Vec<_>>()))
        };
        assert_eq!(decided(&json!({"routes": "/user/jane"}), Scope::Read), specs(&["/user/jane"]));
        assert_eq!(decided(&json!({"routes": ["/a", "/b/"]}), Scope::Read), specs(&["/a", "/b"]));
        assert_eq!(decided(&json!({"routes": []}), Scope::Read), specs(&[]));
    }
}
