//! TLS for a listener: who we are, which clients we let in, and both read again when their files change.

mod files;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::server::{Acceptor, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

use super::super::files::Stamp;
use super::turns::Queue;
use crate::telemetry::throttle::{self, Peer};
pub(in crate::api) use files::Pair;

/// How long a client may take from its connection to the end of the handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Which versions of TLS are spoken, as `--ssl-protocol` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocols {
    /// TLS 1.2 and 1.3.
    #[default]
    Safe,
    /// TLS 1.2 only.
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

/// TLS 1.2 alone.
static TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// TLS 1.3 alone.
static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

impl Protocols {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Safe => rustls::DEFAULT_VERSIONS,
            Self::Tls12 => TLS12,
            Self::Tls13 => TLS13,
        }
    }
}

/// Checks that a certificate and a key can be read and belong together. `flags` is what their settings begin with.
pub fn check_pair(flags: &str, cert: &Path, key: &Path) -> Result<(), TlsError> {
    Pair::read(flags, cert, key).map(drop)
}

/// What a TLS listener needs to know.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// What its flags begin with, such as `--api-ssl`; errors name the flag.
    pub flags: &'static str,
    /// Our private key, in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
    /// Our certificate in PEM, and after it those between it and the authority.
    pub cert: PathBuf,
    /// The authorities whose clients we let in, in PEM.
    pub ca: Option<PathBuf>,
    /// Let in only clients with a certificate of an authority in `ca`. This is `request-cert` alone: as in
    /// configurable-http-proxy, where a certificate that is asked for is also demanded, and `reject-unauthorized` adds
    /// nothing.
    pub request_cert: bool,
    /// The versions that are spoken.
    pub protocols: Protocols,
    /// How often the files are looked at. A change is used once it has stood for as long.
    pub poll_interval: Duration,
}

impl TlsSettings {
    /// A server with this pair, which asks clients for nothing.
    #[must_use]
    pub fn new(flags: &'static str, key: PathBuf, cert: PathBuf) -> Self {
        Self {
            flags,
            key,
            cert,
            ca: None,
            request_cert: false,
            protocols: Protocols::default(),
            poll_interval: Duration::from_secs(2),
        }
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.key, &self.cert].into_iter().chain(&self.ca).map(PathBuf::as_path)
    }

    fn stamp(&self) -> Stamp {
        Stamp::of(self.files())
    }

    fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let Pair { chain, key } = Pair::read(self.flags, &self.cert, &self.key)?;
        let builder = ServerConfig::builder_with_protocol_versions(self.protocols.versions());
        let builder = match (&self.ca, self.request_cert) {
            (Some(ca), true) => {
                let mut roots = RootCertStore::empty();
                for authority in files::certificates(&format!("{}-ca", self.flags), ca)? {
                    let refused = |error| TlsError::new(format!("{}-ca", self.flags), ca, error);
                    roots.add(authority).map_err(refused)?;
                }
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| TlsError::new(format!("{}-ca", self.flags), ca, error))?,
                )
            }
            (None, true) => {
                let says =
                    format!("{0}-request-cert needs {0}-ca, the authorities whose clients are let in", self.flags);
                return Err(TlsError(says));
            }
            (_, false) => builder.with_no_client_auth(),
        };
        let unusable = |error| TlsError::new(format!("{}-cert", self.flags), &self.cert, error);
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// A certificate, a key or an authority can't be used. The message names the flag and the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

impl TlsError {
    fn new(flag: impl fmt::Display, file: &Path, reason: impl fmt::Display) -> Self {
        Self(format!("{flag} {}: {reason}", file.display()))
    }
}

/// The TLS side of a listener. Clones share one state, so that whoever keeps one may [`Tls::reload`] it.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: TlsSettings,
    files: Mutex<Files>,
}

#[derive(Debug)]
struct Files {
    config: Arc<ServerConfig>,
    /// How they looked when they were last tried, with success or without.
    tried: Stamp,
    /// How they looked when last polled.
    seen: Stamp,
}

impl Tls {
    /// Reads and checks the files.
    pub fn new(settings: TlsSettings) -> Result<Self, TlsError> {
        let stamp = settings.stamp();
        let files = Mutex::new(Files { config: settings.load()?, tried: stamp.clone(), seen: stamp });
        Ok(Self(Arc::new(Shared { settings, files })))
    }

    /// Reads the files again, now. What can't be used leaves the old in force. Open connections keep what they have.
    pub fn reload(&self) -> Result<(), TlsError> {
        let stamp = self.0.settings.stamp();
        let loaded = self.0.settings.load();
        let mut files = self.lock();
        files.tried.clone_from(&stamp);
        files.seen = stamp;
        files.config = loaded?;
        Ok(())
    }

    /// How often [`Tls::poll`] wants to be called.
    pub(super) fn poll_interval(&self) -> Duration {
        self.0.settings.poll_interval
    }

    /// Reads the files again if they have changed, and have stood still since the last look: a pair is two files, and who
    /// renews it writes one after the other.
    pub(super) fn poll(&self) {
        let stamp = self.0.settings.stamp();
        {
            let mut files = self.lock();
            let stands = files.seen == stamp;
            files.seen = stamp;
            if !stands || files.tried == files.seen {
                return;
            }
        }
        let flags = self.0.settings.flags;
        match self.reload() {
            Ok(()) => info!("The files of {flags}-key, -cert and -ca have changed, and are used from now on"),
            Err(error) => warn!(%error, "Changed files can't be used, the old ones stay in force: {error}"),
        }
    }

    /// Makes a TLS connection of `stream`. `None`: the client left, was too slow, or was refused; the log has it.
    pub(super) async fn accept<S>(&self, stream: S, peer: Peer) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Ok(shaken) = timeout(HANDSHAKE_MAX, self.handshake(stream)).await else {
            debug!("A client did not finish its TLS handshake within {} s", HANDSHAKE_MAX.as_secs());
            return None;
        };
        match shaken {
            Ok(stream) => Some(stream),
            // A readiness check connects and leaves without a word.
            Err(error) if error.get_ref().is_none_or(|inner| !inner.is::<rustls::Error>()) => {
                debug!(%error, "A client left during the TLS handshake: {error}");
                None
            }
            Err(error) => {
                self.complain(&error, peer);
                None
            }
        }
    }

    async fn handshake<S>(&self, stream: S) -> std::io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // The costly part begins when the client has said hello.
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let config = self.lock().config.clone();
        Queue::First.run(|| false, hello.into_stream(config)).await
    }

    fn complain(&self, error: &std::io::Error, peer: Peer) {
        if !throttle::is_first("TLS handshakes that failed", peer, &error.to_string()) {
            debug!(%error, %peer, "A TLS handshake failed: {error}");
            return;
        }
        let flags = self.0.settings.flags;
        let plain = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some_and(|error| {
            matches!(error, rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType))
        });
        let hint = if plain { "; did the client speak plain http? Its URL must begin with https" } else { "" };
        warn!(%error, %peer, "A TLS handshake with {peer} failed ({flags}): {error}{hint}");
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Files> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
