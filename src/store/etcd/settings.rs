//! Where etcd is, and who we are to it. Secrets are read from their files when needed, never kept in the settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use secrecy::{ExposeSecret, SecretString};

use crate::files;
use crate::store::StoreError;

/// How long a call to etcd may take, unless it is told otherwise: below the 2 s in which our own callers want an answer.
const OP_TIMEOUT: Duration = Duration::from_millis(1500);
/// No password is longer, and no bundle of certificates.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How long one connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// HTTP/2 pings on a connection with an open watch. etcd cuts off clients that ping more often than every 5 s
/// (`--grpc-keepalive-min-time`), and at all when nothing is open; the watch has a faster sign of life of its own.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(3));

/// Where etcd is, and who we are to it.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// `http://host:port` or `https://host:port`; at least one.
    pub endpoints: Vec<String>,
    /// The etcd user; needs a password file.
    pub user: Option<String>,
    /// The file with the user's password; a line break at its end doesn't count.
    pub password_file: Option<PathBuf>,
    /// The certificates (PEM) that etcd's certificate must be signed by; without it the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate (PEM), if etcd asks for one; needs a key.
    pub cert: Option<PathBuf>,
    /// The key (PEM) of our certificate.
    pub key: Option<PathBuf>,
    /// How long one call may take.
    pub op_timeout: Duration,
}

impl EtcdSettings {
    /// These endpoints, without user and certificates.
    #[must_use]
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            user: None,
            password_file: None,
            ca: None,
            cert: None,
            key: None,
            op_timeout: OP_TIMEOUT,
        }
    }

    /// Reads the files, and makes of everything the options of a connection.
    pub(super) fn connect_options(&self) -> Result<ConnectOptions, StoreError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT.min(self.op_timeout))
            .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
            .with_keep_alive_while_idle(false)
            .with_auto_token_refresh(true);
        if let Some(user) = &self.user {
            options = options.with_user(user, self.password(user)?.expose_secret());
        }
        if self.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
            options = options.with_tls(self.tls()?);
        }
        Ok(options)
    }

    fn password(&self, user: &str) -> Result<SecretString, StoreError> {
        let Some(file) = &self.password_file else {
            return refuse(format!("the etcd user {user} has no password; name its file by --etcd-password-file"));
        };
        let password = String::from_utf8(read("--etcd-password-file", file)?);
        let Ok(password) = password.map(SecretString::from) else {
            return refuse(format!("--etcd-password-file: {} is not text", file.display()));
        };
        Ok(password.expose_secret().trim_end_matches(['\r', '\n']).into())
    }

    fn tls(&self) -> Result<TlsOptions, StoreError> {
        let mut tls = TlsOptions::new();
        match &self.ca {
            Some(file) => tls = tls.ca_certificate(Certificate::from_pem(read_pem("--etcd-ca", file)?)),
            None => tls = tls.with_native_roots(),
        }
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let identity = Identity::from_pem(read_pem("--etcd-cert", cert)?, read_pem("--etcd-key", key)?);
                Ok(tls.identity(identity))
            }
            (None, None) => Ok(tls),
            (Some(_), None) => refuse("--etcd-cert needs --etcd-key beside it".to_owned()),
            (None, Some(_)) => refuse("--etcd-key needs --etcd-cert beside it".to_owned()),
        }
    }
}

/// A file without a single PEM block would be taken for an empty list, and say nothing until the handshake fails.
fn read_pem(setting: &str, file: &Path) -> Result<Vec<u8>, StoreError> {
    let pem = read(setting, file)?;
    if String::from_utf8_lossy(&pem).contains("-----BEGIN ") {
        Ok(pem)
    } else {
        refuse(format!("{setting}: {} holds no PEM block (-----BEGIN ...)", file.display()))
    }
}

fn read(setting: &str, file: &Path) -> Result<Vec<u8>, StoreError> {
    files::read_any(file, FILE_BYTES_MAX)
        .or_else(|error| refuse(format!("{setting}: {} can't be read: {error}", file.display())))
}

fn refuse<T>(why: String) -> Result<T, StoreError> {
    Err(StoreError::Refused(why))
}
