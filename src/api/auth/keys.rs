//! Keys that verify tokens. What a key is decides which algorithms it may be used with, not what a token says.

use std::str::FromStr;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use tracing::warn;

use super::jwt::Head;
use crate::telemetry::throttle::{self, Peer};

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// A secret shorter than the shortest hash can be guessed from one token.
const SECRET_BYTES_MIN: usize = 32;

/// A key set with more keys than this is none of ours.
const KEYS_MAX: usize = 100;

/// One key, bound to its algorithms.
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

impl Key {
    /// Reads a key file: a public key in PEM, or else the secret itself.
    pub(super) fn from_file(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        if !text.contains("-----BEGIN") {
            return Self::from_secret(bytes);
        }
        if text.contains("PRIVATE KEY-----") {
            return Err("it holds a private key; Pointsman needs the public one only".to_owned());
        }
        if let Ok(decoding) = DecodingKey::from_rsa_pem(bytes) {
            return Ok(Self { id: None, algorithms: RSA.to_vec(), decoding });
        }
        if let Ok(decoding) = DecodingKey::from_ec_pem(bytes) {
            // A point is written as one byte and two numbers; their length tells the curve.
            let algorithm = match decoding.try_get_as_bytes().map(<[u8]>::len) {
                Ok(65) => Algorithm::ES256,
                Ok(97) => Algorithm::ES384,
                _ => return Err("its curve is neither P-256 nor P-384".to_owned()),
            };
            return Ok(Self { id: None, algorithms: vec![algorithm], decoding });
        }
        if let Ok(decoding) = DecodingKey::from_ed_pem(bytes) {
            return Ok(Self { id: None, algorithms: vec![Algorithm::EdDSA], decoding });
        }
        Err("it is not the PEM of a public key (RSA, P-256, P-384 or Ed25519)".to_owned())
    }

    fn from_secret(bytes: &[u8]) -> Result<Self, String> {
        // Editors end a file with a newline, which is no part of the secret.
        let secret = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        check_length(secret)?;
        Ok(Self { id: None, algorithms: HMAC.to_vec(), decoding: DecodingKey::from_secret(secret) })
    }

    fn from_jwk(jwk: &Jwk, secrets: bool) -> Result<Self, String> {
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return Err("it is not for signatures".to_owned());
        }
        if common.key_operations.as_ref().is_some_and(|verbs| !verbs.contains(&KeyOperations::Verify)) {
            return Err("it is not for verifying".to_owned());
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return Err("its curve is neither P-256 nor P-384".to_owned()),
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            AlgorithmParameters::OctetKey(_) if secrets => HMAC.to_vec(),
            AlgorithmParameters::OctetKey(_) => return Err("a secret has no place in a published key set".to_owned()),
            _ => return Err("its kind is unknown".to_owned()),
        };
        if let Some(only) = common.key_algorithm {
            algorithms.retain(|algorithm| format!("{algorithm:?}") == only.to_string());
        }
        if algorithms.is_empty() {
            return Err("its algorithm doesn't fit its kind".to_owned());
        }
        let decoding = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string())?;
        if algorithms.iter().any(|algorithm| HMAC.contains(algorithm)) {
            check_length(decoding.try_get_as_bytes().unwrap_or_default())?;
        }
        Ok(Self { id: common.key_id.clone(), algorithms, decoding })
    }

    /// Whether the token's head fits this key: its name, if both have one, and its algorithm.
    pub(super) fn may_have_signed(&self, head: &Head) -> bool {
        let name_fits = match (&self.id, &head.key_id) {
            (Some(own), Some(wanted)) => own == wanted,
            _ => true,
        };
        name_fits && self.algorithms.contains(&head.algorithm)
    }

    /// Whether any of its algorithms is allowed.
    pub(super) fn works_with(&self, allowed: &Algorithms) -> bool {
        self.algorithms.iter().any(|algorithm| allowed.contains(*algorithm))
    }

    /// The key itself.
    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

fn check_length(secret: &[u8]) -> Result<(), String> {
    if secret.len() >= SECRET_BYTES_MIN {
        return Ok(());
    }
    Err(format!("a secret must have at least {SECRET_BYTES_MIN} bytes, and it has {}", secret.len()))
}

/// The algorithms that the administrator allows.
pub(super) struct Algorithms(Option<Vec<Algorithm>>);

impl Algorithms {
    /// Reads their names; none means all.
    pub(super) fn parse(names: &[String]) -> Result<Self, String> {
        if names.is_empty() {
            return Ok(Self(None));
        }
        let parse = |name: &String| {
            Algorithm::from_str(name).map_err(|_| {
                format!(
                    "--jwt-algorithms: '{name}' is not one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, \
                     PS512, ES256, ES384, EdDSA"
                )
            })
        };
        Ok(Self(Some(names.iter().map(parse).collect::<Result<_, _>>()?)))
    }

    /// Whether `algorithm` is allowed.
    pub(super) fn contains(&self, algorithm: Algorithm) -> bool {
        self.0.as_ref().is_none_or(|allowed| allowed.contains(&algorithm))
    }
}

/// Reads a JSON Web Key Set. Keys that we can't use are passed over: an issuer may publish others beside.
pub(super) fn from_jwks(bytes: &[u8], secrets: bool) -> Result<Vec<Key>, String> {
    let set: Value = serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))?;
    let Some(list) = set.get("keys").and_then(Value::as_array) else {
        return Err("it is not a JSON Web Key Set: there is no list named 'keys'".to_owned());
    };
    if list.len() > KEYS_MAX {
        return Err(format!("it holds {} keys; the limit is {KEYS_MAX}", list.len()));
    }
    let mut keys = Vec::new();
    for (i, value) in list.iter().enumerate() {
        let jwk =
            serde_json::from_value::<Jwk>(value.clone()).map_err(|_| "it is malformed, or of an unknown kind".into());
        match jwk.and_then(|jwk| Key::from_jwk(&jwk, secrets)) {
            Ok(key) => keys.push(key),
            Err(reason) => {
                // Tokens that name unknown keys make us fetch the set again.
                if throttle::is_first("keys passed over", Peer::Unknown, &format!("key {i} of the key set: {reason}")) {
                    warn!(key = i, reason, "Key {i} of the key set is passed over: {reason}");
                }
            }
        }
    }
    Ok(keys)
}
