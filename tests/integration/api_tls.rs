//! The API over TLS: who we are, who gets in, and files that change.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman::api::listen::tls::{Protocols, Tls, TlsSettings, check_pair};
use rstest::rstest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::api::{Api, Setup, TOKEN, request};
use crate::support::certificates::{Authority, Signed};
use crate::support::http::{Connection, PATIENCE, Reply};

const FLAGS: &str = "--api-ssl";

/// An authority and a server's certificate of it, in a folder.
struct World {
    folder: TempDir,
    authority: Authority,
    server: Signed,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("authority", folder.path());
        let server = authority.sign("server");
        Self { folder, authority, server }
    }

    fn settings(&self) -> TlsSettings {
        let (key, cert) = (self.server.key.clone(), self.server.cert.clone());
        TlsSettings { poll_interval: Duration::from_millis(20), ..TlsSettings::new(FLAGS, key, cert) }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

async fn start(settings: TlsSettings) -> (Api, Tls) {
    let tls = Tls::new(settings).expect("usable");
    (Api::start_with(Setup { tls: Some(tls.clone()), ..Setup::default() }).await, tls)
}

/// A client that trusts an authority, and may have a certificate itself.
struct Client<'a> {
    trusts: &'a Path,
    has: Option<&'a Signed>,
    versions: &'static [&'static rustls::SupportedProtocolVersion],
}

impl<'a> Client<'a> {
    fn of(world: &'a World) -> Self {
        Self { trusts: &world.authority.file, has: None, versions: rustls::ALL_VERSIONS }
    }

    fn with(self, has: &'a Signed) -> Self {
        Self { has: Some(has), ..self }
    }

    async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.trusts).expect("a certificate")).expect("an authority");
        let builder = ClientConfig::builder_with_protocol_versions(self.versions).with_root_certificates(roots);
        let config = match self.has {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain =
                    CertificateDer::pem_file_iter(&pair.cert).expect("a file").map(|c| c.expect("valid")).collect();
                let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::from(address.ip());
        timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.expect("no hang")
    }

    /// The answer to a call with the right token; `None`: the connection ended without one.
    async fn call(&self, address: SocketAddr) -> Option<Reply> {
        let mut connection = Connection::over(self.connect(address).await.ok()?);
        connection.send(request("GET /api/routes", &format!("Authorization: token {TOKEN}\r\n"), "")).await;
        connection.reply_to(false).await
    }

    async fn gets_in(&self, address: SocketAddr) -> bool {
        self.call(address).await.is_some_and(|reply| reply.status == 200)
    }

    /// The certificate that the server shows.
    async fn shown(&self, address: SocketAddr) -> CertificateDer<'static> {
        let stream = self.connect(address).await.expect("connects");
        let (_, session) = stream.get_ref();
        session.peer_certificates().expect("certificates")[0].clone().into_owned()
    }
}

#[tokio::test]
async fn calls_are_answered_over_tls_and_still_need_a_token() {
    let world = World::new();
    let (api, _) = start(world.settings()).await;
    let client = Client::of(&world);
    assert!(client.gets_in(api.address).await);
    let mut connection = Connection::over(client.connect(api.address).await.expect("connects"));
    connection.send(request("GET /api/routes", "Authorization: token wrong\r\n", "")).await;
    assert_eq!(connection.reply().await.status, 403);
    assert!(connection.is_closed().await);
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let world = World::new();
    let (api, _) = start(world.settings()).await;
    let mut connection = Connection::over(Client::of(&world).connect(api.address).await.expect("connects"));
    connection.send("POST /api/routes/a HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000\r\n\r\n").await;
    for i in 0..20 {
        connection.try_send(vec![b'x'; 100_000]).await.unwrap_or_else(|error| panic!("after {i} parts: {error}"));
        tokio::task::yield_now().await;
    }
    assert_eq!(connection.reply().await.status, 403);
}

#[tokio::test]
async fn only_clients_of_our_authorities_get_in() {
    let world = World::new();
    let (second, stranger) = (Authority::new("second", world.path()), Authority::new("stranger", world.path()));
    let bundle = world.path().join("bundle.pem");
    let pem = [&world.authority.file, &second.file].map(|file| std::fs::read_to_string(file).expect("a file"));
    std::fs::write(&bundle, pem.join("\n")).expect("a file");
    let settings = TlsSettings { ca: Some(bundle), request_cert: true, ..world.settings() };
    let (api, _) = start(settings).await;
    for versions in [rustls::ALL_VERSIONS, TLS12] {
        let client = || Client { versions, ..Client::of(&world) };
        for (signed, lets_in) in
            [(world.authority.sign("hub"), true), (second.sign("hub2"), true), (stranger.sign("evil"), false)]
        {
            assert_eq!(client().with(&signed).gets_in(api.address).await, lets_in, "{signed:?}");
        }
        assert!(!client().gets_in(api.address).await, "a client without a certificate gets in");
    }
    assert_eq!(api.routes.take_calls().len(), 4, "refused clients reached no handler");
}

#[tokio::test]
async fn authorities_alone_ask_for_nothing() {
    let world = World::new();
    let settings = TlsSettings { ca: Some(world.authority.file.clone()), ..world.settings() };
    let (api, _) = start(settings).await;
    assert!(Client::of(&world).gets_in(api.address).await);
}

#[tokio::test]
async fn silent_clients_hold_up_nobody_and_no_stop() {
    let world = World::new();
    let (api, _) = start(world.settings()).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(Connection::open(api.address).await);
    }
    let begun = Instant::now();
    assert!(Client::of(&world).gets_in(api.address).await);
    assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    // A readiness check is no more than this.
    drop(Connection::open(api.address).await);
    let begun = Instant::now();
    api.lifecycle.stop();
    timeout(PATIENCE, api.lifecycle.finished()).await.expect("ends").expect("nothing crashed");
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn plain_http_gets_no_answer() {
    let world = World::new();
    let (api, _) = start(world.settings()).await;
    let mut connection = Connection::open(api.address).await;
    connection.send(request("GET /healthz", "", "")).await;
    assert_eq!(connection.reply_to(false).await, None);
    assert!(Client::of(&world).gets_in(api.address).await);
}

static TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
static TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

#[rstest]
#[case(Protocols::Safe, true, true)]
#[case(Protocols::Tls12, true, false)]
#[case(Protocols::Tls13, false, true)]
#[tokio::test]
async fn versions_can_be_limited(#[case] protocols: Protocols, #[case] tls12: bool, #[case] tls13: bool) {
    let world = World::new();
    let (api, _) = start(TlsSettings { protocols, ..world.settings() }).await;
    for (versions, version, spoken) in
        [(TLS12, ProtocolVersion::TLSv1_2, tls12), (TLS13, ProtocolVersion::TLSv1_3, tls13)]
    {
        let stream = Client { versions, ..Client::of(&world) }.connect(api.address).await;
        let got = stream.ok().and_then(|stream| stream.get_ref().1.protocol_version());
        assert_eq!(got, spoken.then_some(version));
    }
}

/// Waits until the server shows `cert`.
async fn until_shown(world: &World, address: SocketAddr, cert: &Path) {
    let wanted = CertificateDer::from_pem_file(cert).expect("a certificate");
    let deadline = Instant::now() + PATIENCE;
    while Client::of(world).shown(address).await != wanted {
        assert!(Instant::now() < deadline, "the new certificate is never shown");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A certificate of a key of 1,024 bits, and the key in both forms that openssl writes. Nothing trusts them.
const SHORT: [&str; 3] = [
    "-----BEGIN CERTIFICATE-----
MIIB9DCCAV2gAwIBAgIUeldCT513uUJh4/8cA3R67k4/xJkwDQYJKoZIhvcNAQEL
BQAwDDEKMAgGA1UEAwwBeDAeFw0yNjEyMDEwMzE4MTRaFw0yNjEyMzEwMzE4MTRa
MAwxCjAIBgNVBAMMAXgwgZ8wDQYJKoZIhvcNAQEBBQADgY0AMIGJAoGBAO0OmaYA
1bfPM8t6Wm24X4sXzs7N12k2xXIjsjs4p2b5aaXXN8iQkDYomQV6Yn1atJ4a3fBe
bTt7xPhwy2DVnJSPKwSiRzQmBvB2QU2tZL826sOF15I7+eaxXVE4cFFZOF4mYIia
dNgwaKRt01g5gbCbKmif3wAVT0wQv01eM4gRAgMBAAGjUzBRMB0GA1UdDgQWBBQQ
cJKRMFHL++ZQvqvOINR8NsLO1DAfBgNVHSMEGDAWgBQQcJKRMFHL++ZQvqvOINR8
NsLO1DAPBgNVHRMBAf8EBTADAQH/MA0GCSqGSIb3DQEBCwUAA4GBAEPokCaPovsa
/UpZOGScxKkA8oDTXO0xPZb0IgR6Tne1Nh3MyYNy565epYMx9LW2p9TE0LYsOWdF
C706/5Ngx5CSgRV8kPHZxWtRYeVLxxqB3fxO1/mTxeQW9ms+17oQeoRmtyXzwQjN
hT0neI+q9JHLJsHvBJLtcGEUuTWjS2zr
-----END CERTIFICATE-----",
    "-----BEGIN PRIVATE KEY-----
MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBAO0OmaYA1bfPM8t6
Wm24X4sXzs7N12k2xXIjsjs4p2b5aaXXN8iQkDYomQV6Yn1atJ4a3fBebTt7xPhw
y2DVnJSPKwSiRzQmBvB2QU2tZL826sOF15I7+eaxXVE4cFFZOF4mYIiadNgwaKRt
01g5gbCbKmif3wAVT0wQv01eM4gRAgMBAAECgYAMUBHS+YAgR/bcvsIrqMPtqZLo
UvC5WkrvHsOHJ+4p/xJptsAC/t8+sOUhz7WF5Uw0Whjk/0KVMFyOuu0VXoL/ashp
1lNUbbWpZFjDzo3Jr67zVxMkVlR2eTx2XpXX2PI7T/WeWT+WfeODz5dCZzSNRIvW
vYgu6MCaEMVT19KwAQJBAPmlNYeRSRJ9bTcWpEwpBCSLusq6BJjNaLW7VO108rLE
1sFbWGNZKB8d7BfF9ziVzWY0LozHbD/UiqHsTg/lzNECQQDzF1xI8xQ1+Xx6RDhS
X4K1EX7NR2ltkTUOXSB2lc8/tuTJH8m4UPPxQPdGerp2nyRnHbAx22E5sLEV042C
J9dBAkEAo5JxUYOLancOYYMPYeuaEEwRtxVNP8WPL0wwaGoxP5sjz4uHjYj0dfcI
I8eNpeDZtXbJbWqZbfVYZKJNv7LlkQJAVjHkUSGP+wt5rcjex6aCLD4F3jgCFA22
6F7xEdtQ32C0gvQ4jJh3xwWoKF+AGmuXdtC6FxOYx+H1CK44sPv7gQJAVui7cIaO
HzfJF5s+sgjYYjKBa33uzZDVep/emL6u9X0jmDMnRI153Qsf84n8XJUXW/zUmSfh
fxSys12SYzaccw==
-----END PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----
MIICXAIBAAKBgQDtDpmmANW3zzPLelptuF+LF87OzddpNsVyI7I7OKdm+Wml1zfI
kJA2KJkFemJ9WrSeGt3wXm07e8T4cMtg1ZyUjysEokc0JgbwdkFNrWS/NurDhdeS
O/nmsV1ROHBRWTheJmCImnTYMGikbdNYOYGwmypon98AFU9MEL9NXjOIEQIDAQAB
AoGADFAR0vmAIEf23L7CK6jD7amS6FLwuVpK7x7DhyfuKf8SabbAAv7fPrDlIc+1
heVMNFoY5P9ClTBcjrrtFV6C/2rIadZTVG21qWRYw86Nya+u81cTJFZUdnk8dl6V
19jyO0/1nlk/ln3jg8+XQmc0jUSL1r2ILujAmhDFU9fSsAECQQD5pTWHkUkSfW03
FqRMKQQki7rKugSYzWi1u1TtdPKyxNbBW1hjWSgfHewXxfc4lc1mNC6Mx2w/1Iqh
7E4P5czRAkEA8xdcSPMUNfl8ekQ4Ul+CtRF+zUdpbZE1Dl0gdpXPP7bkyR/JuFDz
8UD3Rnq6dp8kZx2wMdthObCxFdONgifXQQJBAKOScVGDi2p3DmGDD2HrmhBMEbcV
TT/Fjy9MMGhqMT+bI8+Lh42I9HX3CCPHjaXg2bV2yW1qmW31WGSiTb+y5ZECQFYx
5FEhj/sLea3I3semgiw+Bd44AhQNtuhe8RHbUN9gtIL0OIyYd8cFqChfgBprl3bQ
uhcTmMfh9QiuOLD7+4ECQFbou3CGjh83yRebPrII2GIygWt97s2Q1Xqf3pi+rvV9
I5gzJ0SNed0LH/OJ/FyVF1v81Jkn4X8UsrNdkmM2nHM=
-----END RSA PRIVATE KEY-----",
];

#[test]
fn a_key_that_is_too_short_is_refused_by_its_length() {
    let world = World::new();
    let [cert, pkcs8, pkcs1] = SHORT;
    let file = |name: &str, text: &str| {
        let path = world.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let cert = file("short.pem", cert);
    for (name, text) in [("pkcs8.pem", pkcs8), ("pkcs1.pem", pkcs1)] {
        let error = check_pair("--ssl", &cert, &file(name, text)).expect_err("too short").to_string();
        assert!(error.starts_with("--ssl-key "), "{error}");
        assert!(error.contains("its RSA key has 1024 bits, and at least 2048 are needed"), "{error}");
    }
}

#[tokio::test]
async fn a_renewed_pair_is_used_without_a_restart() {
    let world = World::new();
    let (api, tls) = start(world.settings()).await;
    let first = Client::of(&world).shown(api.address).await;
    let fresh = world.authority.sign("fresh");
    std::fs::copy(&fresh.key, &world.server.key).expect("copied");
    // Half of a pair is no pair: the old one stays in force.
    let error = tls.reload().expect_err("half a pair").to_string();
    assert!(error.contains("does not belong to the key of --api-ssl-key"), "{error}");
    assert_eq!(Client::of(&world).shown(api.address).await, first);
    std::fs::copy(&fresh.cert, &world.server.cert).expect("copied");
    until_shown(&world, api.address, &fresh.cert).await;

    // By another way: a new file takes the name of the old one, and nobody waits for the next look.
    let again = world.authority.sign("again");
    std::fs::rename(&again.cert, &world.server.cert).expect("renamed");
    std::fs::rename(&again.key, &world.server.key).expect("renamed");
    tls.reload().expect("usable");
    let shown = Client::of(&world).shown(api.address).await;
    assert_eq!(shown, CertificateDer::from_pem_file(&world.server.cert).expect("a certificate"));
}

#[tokio::test]
async fn authorities_that_change_let_others_in() {
    let world = World::new();
    let newcomer = Authority::new("newcomer", world.path());
    let bundle = world.path().join("bundle.pem");
    std::fs::copy(&world.authority.file, &bundle).expect("copied");
    let (api, tls) = start(TlsSettings { ca: Some(bundle.clone()), request_cert: true, ..world.settings() }).await;
    let (old, new) = (world.authority.sign("old"), newcomer.sign("new"));
    assert!(Client::of(&world).with(&old).gets_in(api.address).await);
    assert!(!Client::of(&world).with(&new).gets_in(api.address).await);
    std::fs::copy(&newcomer.file, &bundle).expect("copied");
    tls.reload().expect("usable");
    assert!(!Client::of(&world).with(&old).gets_in(api.address).await);
    assert!(Client::of(&world).with(&new).gets_in(api.address).await);
}

fn openssl(args: &[&str]) {
    let output = Command::new("openssl").args(args).output().expect("openssl is installed");
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[rstest]
#[case::pkcs8("PRIVATE KEY", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "")]
#[case::pkcs1("RSA PRIVATE KEY", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "-traditional")]
#[case::sec1("EC PRIVATE KEY", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256", "-traditional")]
#[tokio::test]
async fn every_form_of_a_key(#[case] form: &str, #[case] made: &str, #[case] written: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (raw, key, cert) = (file("raw"), file("key"), file("cert"));
    openssl(&[&["genpkey", "-out", &raw][..], &made.split(' ').collect::<Vec<_>>()].concat());
    openssl(&[&["pkey", "-in", &raw, "-out", &key][..], &written.split_whitespace().collect::<Vec<_>>()].concat());
    openssl(&["req", "-x509", "-key", &key, "-out", &cert, "-days", "2", "-subj", "/CN=x"]);
    assert!(std::fs::read_to_string(&key).expect("a key").contains(&format!("-----BEGIN {form}-----")));
    Tls::new(TlsSettings::new(FLAGS, key.into(), cert.into())).expect("usable");
}

#[rstest]
#[case("")]
#[case("-traditional")]
#[tokio::test]
async fn an_encrypted_key_is_refused_with_what_decrypts_it(#[case] form: &str) {
    let world = World::new();
    let file = world.path().join("locked.pem");
    let (plain, locked) = (world.server.key.to_str().expect("text"), file.to_str().expect("text"));
    let mut args = vec!["pkey", "-in", plain, "-out", locked, "-aes256", "-passout", "pass:secret"];
    args.extend(form.split_whitespace());
    openssl(&args);
    let error = Tls::new(TlsSettings { key: file.clone(), ..world.settings() }).expect_err("encrypted").to_string();
    assert!(error.starts_with(&format!("--api-ssl-key {locked}: the key is encrypted")), "{error}");
    // The command does what it says.
    let command = error.split('\'').nth(1).expect("a command");
    let args: Vec<_> = command.split(' ').skip(1).chain(["-passin", "pass:secret"]).collect();
    openssl(&args);
    Tls::new(TlsSettings { key: format!("{locked}.plain").into(), ..world.settings() }).expect("usable");
}

#[tokio::test]
async fn errors_name_the_flag_and_the_file() {
    let world = World::new();
    let other = world.authority.sign("other");
    let junk = world.path().join("junk.pem");
    std::fs::write(&junk, "-----BEGIN NOTHING-----\n").expect("a file");
    let none = world.path().join("none.pem");
    let base = world.settings();
    let asks = || TlsSettings { request_cert: true, ..world.settings() };
    for (settings, flag, file, says) in [
        (TlsSettings { key: none.clone(), ..base.clone() }, "--api-ssl-key", &none, "can't be read"),
        (TlsSettings { cert: none.clone(), ..base.clone() }, "--api-ssl-cert", &none, "can't be read"),
        (TlsSettings { ca: Some(none.clone()), ..asks() }, "--api-ssl-ca", &none, "can't be read"),
        (TlsSettings { key: other.cert.clone(), ..base.clone() }, "--api-ssl-key", &other.cert, "no private key"),
        (TlsSettings { cert: other.key.clone(), ..base.clone() }, "--api-ssl-cert", &other.key, "no certificate"),
        (TlsSettings { cert: other.cert.clone(), ..base.clone() }, "--api-ssl-cert", &other.cert, "does not belong"),
        (TlsSettings { ca: Some(other.key.clone()), ..asks() }, "--api-ssl-ca", &other.key, "no certificate"),
        (
            TlsSettings { key: "/dev/null".into(), ..base.clone() },
            "--api-ssl-key",
            &"/dev/null".into(),
            "not a regular",
        ),
        (TlsSettings { key: junk.clone(), ..base.clone() }, "--api-ssl-key", &junk, ""),
        (asks(), "--api-ssl-request-cert", &"".into(), "needs --api-ssl-ca"),
    ] {
        let error = Tls::new(settings).expect_err("unusable").to_string();
        assert!(error.starts_with(flag) && error.contains(&*file.to_string_lossy()) && error.contains(says), "{error}");
    }
}
