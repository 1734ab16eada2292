//! A single real etcd, without passwords unless asked for.

use std::path::Path;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Permission, PermissionType};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::process::{Running, free_port, program};
use super::wait::eventually;

/// A running etcd; its data go with it.
pub(crate) struct OneEtcd {
    pub(crate) endpoint: String,
    pub(crate) process: Running,
    _data: tempfile::TempDir,
}

impl OneEtcd {
    /// Starts one, and waits until it answers.
    pub(crate) async fn start() -> Self {
        let etcd = Self::begin("http", &[]);
        eventually("etcd", Duration::from_secs(20), || async {
            let mut client = etcd.client(None).await?;
            client.get("x", None).await.map(drop).map_err(|e| e.to_string())
        })
        .await;
        etcd
    }

    /// Starts one that speaks TLS and asks everybody for a certificate.
    pub(crate) fn begin_with_certificates(files: &Certificates) -> Self {
        let arguments = [
            format!("--cert-file={}", files.server.0),
            format!("--key-file={}", files.server.1),
            format!("--trusted-ca-file={}", files.authority),
            "--client-cert-auth=true".to_owned(),
        ];
        Self::begin("https", &arguments)
    }

    fn begin(scheme: &str, more: &[String]) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let endpoint = format!("{scheme}://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut arguments = vec![
            format!("--data-dir={}", data.path().join("data").display()),
            format!("--listen-client-urls={endpoint}"),
            format!("--advertise-client-urls={endpoint}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
        ];
        arguments.extend_from_slice(more);
        let process = Running::start(&program("etcd"), &arguments, &[], data.path());
        Self { endpoint, process, _data: data }
    }

    /// A client of its own, as this user.
    pub(crate) async fn client(&self, login: Option<(&str, &str)>) -> Result<Client, String> {
        let options = ConnectOptions::new().with_timeout(Duration::from_secs(2));
        let options = match login {
            Some((user, password)) => options.with_user(user, password),
            None => options,
        };
        Client::connect([&self.endpoint], Some(options)).await.map_err(|e| e.to_string())
    }

    /// From now on passwords are needed: `root` may do all, `reader` may read all, each with its name as password.
    pub(crate) async fn require_passwords(&self) {
        let mut client = self.client(None).await.expect("a client");
        client.role_add("reading").await.expect("a role");
        let all = Permission::new(PermissionType::Read, "\0").with_from_key();
        client.role_grant_permission("reading", all).await.expect("a right");
        client.role_add("root").await.expect("a role");
        for (user, role) in [("root", "root"), ("reader", "reading")] {
            client.user_add(user, user, None).await.expect("a user");
            client.user_grant_role(user, role).await.expect("its role");
        }
        client.auth_enable().await.expect("passwords");
    }
}

/// Certificates of one authority, in files.
pub(crate) struct Certificates {
    pub(crate) authority: String,
    pub(crate) server: (String, String),
    pub(crate) client: (String, String),
}

impl Certificates {
    /// Makes new ones for 127.0.0.1.
    pub(crate) fn new(folder: &Path) -> Self {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("a file");
            path.display().to_string()
        };
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = write("ca.pem", &params.self_signed(&key).expect("a certificate").pem());
        let issuer = Issuer::new(params, key);
        let pair = |name: &str| {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let certificate = params.signed_by(&key, &issuer).expect("a certificate").pem();
            (write(&format!("{name}.pem"), &certificate), write(&format!("{name}.key"), &key.serialize_pem()))
        };
        Self { authority, server: pair("server"), client: pair("client") }
    }
}

/// Writes a password into a file.
pub(crate) fn password_file(folder: &Path, password: &str) -> String {
    let path = folder.join(format!("password-{password}"));
    std::fs::write(&path, password).expect("a file");
    path.display().to_string()
}
