//! Certificates for one test: an authority, and what it has signed.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// An authority of its own, whose files lie in a folder.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    pub(crate) file: PathBuf,
}

/// The files of a certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// Makes one.
    pub(crate) fn new(name: &str, folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, issuer.pem()).expect("a file");
        Self { issuer, folder: folder.to_owned(), file }
    }

    /// Signs a certificate for 127.0.0.1, good for servers and clients.
    pub(crate) fn sign(&self, name: &str) -> Signed {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        let pair = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&pair, &self.issuer).expect("a certificate");
        let file = |kind: &str, pem: String| {
            let file = self.folder.join(format!("{name}-{kind}.pem"));
            std::fs::write(&file, pem).expect("a file");
            file
        };
        Signed { cert: file("cert", cert.pem()), key: file("key", pair.serialize_pem()) }
    }
}
