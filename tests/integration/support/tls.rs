//! TLS from both sides: a client that trusts one authority, and a server that may ask for certificates.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::certificates::Signed;
use super::http::{Connection, PATIENCE};

/// A client that trusts an authority, and may have a certificate itself.
#[derive(Clone, Copy)]
pub(crate) struct TlsClient<'a> {
    pub(crate) trusts: &'a Path,
    pub(crate) has: Option<&'a Signed>,
    pub(crate) versions: &'static [&'static rustls::SupportedProtocolVersion],
}

impl<'a> TlsClient<'a> {
    pub(crate) fn of(trusts: &'a Path) -> Self {
        Self { trusts, has: None, versions: rustls::ALL_VERSIONS }
    }

    pub(crate) fn with(self, has: &'a Signed) -> Self {
        Self { has: Some(has), ..self }
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let builder = ClientConfig::builder_with_protocol_versions(self.versions);
        let builder = builder.with_root_certificates(roots(self.trusts));
        let config = match self.has {
            None => builder.with_no_client_auth(),
            Some(pair) => builder.with_client_auth_cert(chain(pair), key(pair)).expect("a pair"),
        };
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::from(address.ip());
        timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.expect("no hang")
    }

    /// The status of a GET; `None`: the connection ended without an answer.
    pub(crate) async fn status(&self, address: SocketAddr, path: &str) -> Option<u16> {
        let mut connection = Connection::over(self.connect(address).await.ok()?);
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: hub.example.org\r\n\r\n")).await;
        connection.reply_to(false).await.map(|reply| reply.status)
    }

    /// The certificate that the server shows.
    pub(crate) async fn shown(&self, address: SocketAddr) -> Option<CertificateDer<'static>> {
        let stream = self.connect(address).await.ok()?;
        let (_, session) = stream.get_ref();
        session.peer_certificates().map(|all| all[0].clone().into_owned())
    }
}

/// A server over TLS that answers each request with its head. It asks for certificates of `clients`, if that is given.
pub(crate) async fn echo(pair: &Signed, clients: Option<&Path>) -> (SocketAddr, JoinSet<()>) {
    echo_with(pair, clients, rustls::ALL_VERSIONS).await
}

/// The same with some versions of TLS only.
pub(crate) async fn echo_with(
    pair: &Signed,
    clients: Option<&Path>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> (SocketAddr, JoinSet<()>) {
    let builder = ServerConfig::builder_with_protocol_versions(versions);
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(ca) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder(Arc::new(roots(ca))).build().expect("an authority"),
        ),
    };
    let config = builder.with_single_cert(chain(pair), key(pair)).expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let mut connection = Connection::over(stream);
                while let Some(head) = connection.head().await {
                    connection.send(super::http::echo(&head)).await;
                }
            });
        }
    });
    (address, tasks)
}

fn roots(file: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file).expect("a certificate")).expect("an authority");
    roots
}

fn chain(pair: &Signed) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(&pair.cert).expect("a file").map(|c| c.expect("valid")).collect()
}

fn key(pair: &Signed) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(&pair.key).expect("a key")
}
