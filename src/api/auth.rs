//! Who may call: static tokens as configurable-http-proxy knows them, and JSON Web Tokens.
//!
//! What to decide lies in plain functions ([`header`], [`jwt`], [`keys`]); here and in [`jwks`] is what needs files,
//! the network and the time.

mod header;
mod jwks;
mod jwt;
mod keys;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use axum::http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};
use tracing::{info, warn};
use url::Url;

use crate::clock::SharedClock;
use crate::files;
use crate::route::RouteSpec;
use header::Credentials;
use jwks::RemoteKeys;
use keys::{Algorithms, Key};

/// What the administrator says about tokens.
#[derive(Debug, Clone, Default)]
pub struct AuthSettings {
    /// Any of these opens everything; several allow for a change of token without a gap. Empty ones don't count.
    pub tokens: Vec<SecretString>,
    /// JSON Web Tokens are accepted as well.
    pub jwt: Option<JwtSettings>,
}

/// What the administrator says about JSON Web Tokens.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// Files with one key each: a public key in PEM, or the secret of HS256, HS384 and HS512.
    pub key_files: Vec<PathBuf>,
    /// A file with a JSON Web Key Set.
    pub jwks_file: Option<PathBuf>,
    /// Where a JSON Web Key Set is served.
    pub jwks_url: Option<Url>,
    /// The `iss` that a token must have: else whoever shares the issuer's key would count.
    pub issuer: String,
    /// The `aud` of a token must be, or contain, one of these: else tokens for other services would count.
    pub audiences: Vec<String>,
    /// The algorithms that are allowed, as `RS256`; empty: all that fit the keys.
    pub algorithms: Vec<String>,
    /// The claim with the scopes: a text with blanks between them, or a list.
    pub scope_claim: String,
    /// What the names of our scopes begin with, as `pointsman:`.
    pub scope_prefix: String,
    /// The claim that limits a token to the routes below a prefix.
    pub routes_claim: String,
}

impl Default for JwtSettings {
    fn default() -> Self {
        Self {
            key_files: Vec::new(),
            jwks_file: None,
            jwks_url: None,
            issuer: String::new(),
            audiences: Vec::new(),
            algorithms: Vec::new(),
            scope_claim: "scope".to_owned(),
            scope_prefix: String::new(),
            routes_claim: "routes".to_owned(),
        }
    }
}

/// Why the settings can't be used. Each message names the file and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthError(String);

/// What a caller wants to do. Scopes don't contain each other: a token lists all that it is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Look at routes.
    Read,
    /// Add and delete routes.
    Write,
    /// Steer Pointsman itself.
    Admin,
}

impl Scope {
    /// Its name in a token, after the prefix.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// Leave to do what was asked for, perhaps only below some prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    below: Option<Vec<RouteSpec>>,
}

impl Grant {
    /// Leave for every route.
    const EVERYWHERE: Self = Self { below: None };

    /// The prefixes that it is limited to, if it is.
    #[must_use]
    pub fn below(&self) -> Option<&[RouteSpec]> {
        self.below.as_deref()
    }

    /// Whether it is good for the route `spec`.
    #[must_use]
    pub fn covers(&self, spec: &RouteSpec) -> bool {
        self.below.as_ref().is_none_or(|prefixes| prefixes.iter().any(|prefix| prefix.covers(spec.as_str())))
    }
}

/// Why a call may not go on. The text is for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The caller has no right to it.
    Forbidden(String),
    /// Whether the caller has the right to it can't be known now.
    Unavailable(String),
}

/// Decides about every call; its settings can be replaced while it works.
pub struct Authenticator {
    current: RwLock<Arc<Rules>>,
    clock: SharedClock,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

/// No key is longer, and no set of keys.
const KEY_BYTES_MAX: u64 = 1024 * 1024;

/// What a fallback key is made for: another use of the token would have another label.
const FALLBACK_LABEL: &[u8] = b"pointsman fallback 1";

/// The key that Traefik shows when it asks for the fallback. It follows from a token, so that nobody has to hand it out,
/// and doesn't tell it.
#[must_use]
pub fn fallback_key(token: &SecretString) -> SecretString {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.expose_secret().as_bytes());
    let mac = hmac::sign(&key, FALLBACK_LABEL);
    mac.as_ref().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")).into()
}

/// The settings, made ready.
struct Rules {
    tokens: Vec<[u8; 32]>,
    /// The hashes of the keys that follow from the tokens.
    fallback_keys: Vec<[u8; 32]>,
    jwt: Option<JwtRules>,
}

struct JwtRules {
    policy: jwt::Policy,
    keys: Vec<Key>,
    remote: Option<RemoteKeys>,
}

impl Authenticator {
    /// Reads the keys that `settings` names. A key set behind a URL is fetched when the first token needs it.
    pub fn new(settings: &AuthSettings, clock: SharedClock) -> Result<Self, AuthError> {
        Ok(Self { current: RwLock::new(Arc::new(Rules::new(settings)?)), clock })
    }

    /// Takes new settings for the calls that come after. If they can't be used the old ones stay.
    pub fn reload(&self, settings: &AuthSettings) -> Result<(), AuthError> {
        let rules = Arc::new(Rules::new(settings)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = rules;
        Ok(())
    }

    /// Whether this key follows from one of the tokens that are good now. Without tokens there is none.
    #[must_use]
    pub fn knows_fallback_key(&self, key: &str) -> bool {
        let rules = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        is_one_of(&rules.fallback_keys, key)
    }

    /// Whether the caller who sent these headers may use `scope`, and for which routes.
    pub async fn check(&self, headers: &HeaderMap, scope: Scope) -> Result<Grant, Refusal> {
        let rules = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if rules.is_open() {
            return Ok(Grant::EVERYWHERE);
        }
        let refuse = |reason: &str| Err(Refusal::Forbidden(reason.to_owned()));
        match header::credentials(headers) {
            Ok(Credentials::Token(token)) if rules.knows(token) => Ok(Grant::EVERYWHERE),
            Ok(Credentials::Token(_)) => refuse("the token is not one of ours"),
            Ok(Credentials::Bearer(token)) => match &rules.jwt {
                Some(jwt) => jwt.check(token, scope, self.clock.now()).await,
                None => refuse("a Bearer token, but no JWT key is configured; use 'Authorization: token ...'"),
            },
            Err(reason) => refuse(reason),
        }
    }
}

impl Rules {
    fn new(settings: &AuthSettings) -> Result<Self, AuthError> {
        let tokens = settings.tokens.iter().filter(|token| !token.expose_secret().is_empty());
        let fallback_keys = tokens.clone().map(|token| fingerprint(fallback_key(token).expose_secret())).collect();
        let tokens = tokens.map(|token| fingerprint(token.expose_secret())).collect();
        let rules = Self { tokens, fallback_keys, jwt: settings.jwt.as_ref().map(JwtRules::new).transpose()? };
        if rules.is_open() {
            warn!(
                "No token is configured: anyone who reaches the API can redirect every user's traffic. \
                 Set CONFIGPROXY_AUTH_TOKEN, or name a file with --token-file"
            );
        } else {
            let (tokens, jwt) = (rules.tokens.len(), rules.jwt.is_some());
            info!(
                tokens,
                jwt,
                "The API accepts {tokens} static token(s), and {} JWTs",
                if jwt { "also" } else { "no" }
            );
        }
        Ok(rules)
    }

    fn is_open(&self) -> bool {
        self.tokens.is_empty() && self.jwt.is_none()
    }

    fn knows(&self, token: &str) -> bool {
        is_one_of(&self.tokens, token)
    }
}

/// Compares with all secrets, always, and in constant time: an answer's delay tells nothing about them.
fn is_one_of(secrets: &[[u8; 32]], text: &str) -> bool {
    let given = fingerprint(text);
    let known = secrets.iter().fold(Choice::from(0), |known, secret| known | secret.ct_eq(&given));
    known.into()
}

/// Tokens are compared by their hashes, which have one length, so that not even a token's length can be measured.
fn fingerprint(token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    out
}

impl JwtRules {
    fn new(settings: &JwtSettings) -> Result<Self, AuthError> {
        if settings.issuer.is_empty() || settings.audiences.is_empty() {
            return Err(AuthError("JWTs are asked for, so give --jwt-issuer and --jwt-audience as well".to_owned()));
        }
        let allowed = Algorithms::parse(&settings.algorithms).map_err(AuthError)?;
        let mut keys = Vec::new();
        for path in &settings.key_files {
            keys.push(Key::from_file(&read(path)?).map_err(|reason| in_file(path, &reason))?);
        }
        if let Some(path) = &settings.jwks_file {
            keys.extend(keys::from_jwks(&read(path)?, true).map_err(|reason| in_file(path, &reason))?);
        }
        let remote = settings.jwks_url.clone().map(RemoteKeys::new).transpose().map_err(AuthError)?;
        if keys.is_empty() && remote.is_none() {
            return Err(AuthError(
                "JWTs are asked for, but there is no key: give --jwt-key-file or --jwt-jwks-url".into(),
            ));
        }
        if remote.is_none() && !keys.iter().any(|key| key.works_with(&allowed)) {
            return Err(AuthError("none of the algorithms in --jwt-algorithms fits any of the keys".into()));
        }
        let policy = jwt::Policy {
            allowed,
            issuer: settings.issuer.clone(),
            audiences: settings.audiences.clone(),
            scope_claim: settings.scope_claim.clone(),
            scope_prefix: settings.scope_prefix.clone(),
            routes_claim: settings.routes_claim.clone(),
        };
        Ok(Self { policy, keys, remote })
    }

    async fn check(&self, token: &str, scope: Scope, now: jiff::Timestamp) -> Result<Grant, Refusal> {
        let head = jwt::head(token, &self.policy).map_err(Refusal::Forbidden)?;
        let fitting: Vec<&Key> = self.keys.iter().filter(|key| key.may_have_signed(&head)).collect();
        let mut claims = jwt::verify(token, &fitting);
        if let (Err(_), Some(remote)) = (&claims, &self.remote) {
            let fetched = remote.keys_for(&head).await.map_err(Refusal::Unavailable)?;
            claims = jwt::verify(token, &fetched.iter().map(|key| &**key).collect::<Vec<_>>());
        }
        let below = claims.and_then(|claims| jwt::decide(&claims, &self.policy, scope, now));
        below.map(|below| Grant { below }).map_err(Refusal::Forbidden)
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, AuthError> {
    files::read_any(path, KEY_BYTES_MAX).map_err(|error| in_file(path, &error.to_string()))
}

fn in_file(path: &std::path::Path, reason: &str) -> AuthError {
    AuthError(format!("the key file {}: {reason}", path.display()))
}
