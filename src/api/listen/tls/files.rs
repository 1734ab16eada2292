//! Certificates and keys in their files.

use std::path::Path;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::super::super::files;
use super::TlsError;

/// Bundles of authorities may be long; nothing else is.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The shortest RSA key that our TLS library signs with.
const RSA_BITS_MIN: usize = 2048;

/// Tags of DER.
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// The object identifier of RSA keys, with its tag and length.
const RSA_ENCRYPTION: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// A certificate with what leads to its authority, and the key that belongs to it.
pub(in crate::api) struct Pair {
    /// The certificate first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub(super) key: PrivateKeyDer<'static>,
}

impl Pair {
    /// Reads both and checks that they belong together.
    pub(in crate::api) fn read(flags: &str, cert_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        let (cert_flag, key_flag) = (format!("{flags}-cert"), format!("{flags}-key"));
        let chain = certificates(&cert_flag, cert_file)?;
        let key = key(&key_flag, key_file)?;
        let provider = CryptoProvider::get_default()
            .cloned()
            .unwrap_or_else(|| std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
            Ok(_) => Ok(Self { chain, key }),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let says = format!("it does not belong to the key of {key_flag}, {}", key_file.display());
                Err(TlsError::new(cert_flag, cert_file, says))
            }
            Err(rustls::Error::InvalidCertificate(error)) => Err(TlsError::new(cert_flag, cert_file, error)),
            Err(error) => Err(match rsa_bits(&key) {
                Some(bits) if bits < RSA_BITS_MIN => {
                    let says = format!(
                        "its RSA key has {bits} bits, and at least {RSA_BITS_MIN} are needed; make a new key and a \
                         certificate for it"
                    );
                    TlsError::new(key_flag, key_file, says)
                }
                _ => TlsError::new(key_flag, key_file, error),
            }),
        }
    }
}

/// How long the modulus of an RSA key is; `None` for another kind of key.
fn rsa_bits(key: &PrivateKeyDer<'_>) -> Option<usize> {
    let pkcs1 = match key {
        PrivateKeyDer::Pkcs1(key) => key.secret_pkcs1_der(),
        PrivateKeyDer::Pkcs8(key) => {
            let (info, _) = der(SEQUENCE, key.secret_pkcs8_der())?;
            let (_version, rest) = der(INTEGER, info)?;
            let (algorithm, rest) = der(SEQUENCE, rest)?;
            algorithm.starts_with(RSA_ENCRYPTION).then(|| der(OCTET_STRING, rest))??.0
        }
        _ => return None,
    };
    let (_version, rest) = der(INTEGER, der(SEQUENCE, pkcs1)?.0)?;
    let (modulus, _) = der(INTEGER, rest)?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = modulus.get(zeros)?;
    Some((modulus.len() - zeros) * 8 - first.leading_zeros() as usize)
}

/// The contents of a DER element with this tag, and what comes after it.
fn der(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    if *found == tag { rest.split_at_checked(length) } else { None }
}

/// All certificates in a file, at least one.
pub(super) fn certificates(flag: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(flag, file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| TlsError::new(flag, file, error))?;
    if certificates.is_empty() {
        return Err(TlsError::new(flag, file, "it holds no certificate in PEM ('-----BEGIN CERTIFICATE-----')"));
    }
    Ok(certificates)
}

fn key(flag: &str, file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(flag, file)?;
    let has = |sign: &str| text.windows(sign.len()).any(|window| window == sign.as_bytes());
    if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
        let name = file.display();
        let says = format!(
            "the key is encrypted, and Pointsman takes no passphrase. Decrypt it with \
             'openssl pkey -in {name} -out {name}.plain' and name that file"
        );
        return Err(TlsError::new(flag, file, says));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let says = match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                "it holds no private key in PEM ('-----BEGIN PRIVATE KEY-----')".to_owned()
            }
            error => error.to_string(),
        };
        TlsError::new(flag, file, says)
    })
}

fn read(flag: &str, file: &Path) -> Result<Vec<u8>, TlsError> {
    files::read(file, BYTES_MAX).map_err(|error| TlsError::new(flag, file, format_args!("it can't be read: {error}")))
}
