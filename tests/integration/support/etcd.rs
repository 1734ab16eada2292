//! Real etcd: one or several members, which a test can kill, pause and bring back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use pointsman::store::SharedStore;
use pointsman::store::etcd::{EtcdSettings, EtcdStore};
use tempfile::TempDir;

use super::certificates::{Authority, Signed};
use super::process::{Running, free_port, program};
use super::wait::eventually;

/// Members of one cluster, with their data in a folder that goes with them.
pub(crate) struct Etcd {
    pub(crate) members: Vec<Member>,
    pub(crate) folder: TempDir,
    pub(crate) tls: Option<Tls>,
}

/// One member.
pub(crate) struct Member {
    pub(crate) port: u16,
    pub(crate) url: String,
    arguments: Vec<String>,
    folder: PathBuf,
    process: Option<Running>,
}

/// The certificates of an etcd that speaks TLS.
pub(crate) struct Tls {
    pub(crate) authority: Authority,
    pub(crate) client: Signed,
}

/// How etcd is to be started.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Members; 0 stands for 1.
    pub(crate) members: usize,
    pub(crate) tls: bool,
    /// Clients must show a certificate.
    pub(crate) client_certificates: bool,
    /// Further arguments for every member.
    pub(crate) arguments: &'a [&'a str],
}

impl Etcd {
    /// One member, without anything special.
    pub(crate) async fn start() -> Self {
        Self::start_as(Wanted::default()).await
    }

    /// Starts as wanted, and waits until every member answers.
    pub(crate) async fn start_as(wanted: Wanted<'_>) -> Self {
        let mut etcd = Self::prepare(wanted);
        etcd.members.iter_mut().for_each(Member::start);
        etcd.wait_until_it_answers().await;
        etcd
    }

    /// Prepares everything but does not start: a test may want etcd to come late.
    pub(crate) fn prepare(wanted: Wanted<'_>) -> Self {
        let folder = tempfile::Builder::new().prefix("pointsman-etcd-").tempdir().expect("a folder");
        let scheme = if wanted.tls { "https" } else { "http" };
        let (tls, server) = if wanted.tls {
            let authority = Authority::new("authority", folder.path());
            let (server, client) = (authority.sign("server"), authority.sign("client"));
            (Some(Tls { authority, client }), Some(server))
        } else {
            (None, None)
        };
        let ports: Vec<(u16, u16)> = (0..wanted.members.max(1)).map(|_| (free_port(), free_port())).collect();
        let peers: Vec<String> =
            ports.iter().enumerate().map(|(at, (_, peer))| format!("m{at}=http://127.0.0.1:{peer}")).collect();
        let members = ports.iter().enumerate().map(|(at, (port, peer))| {
            let url = format!("{scheme}://127.0.0.1:{port}");
            let folder = folder.path().join(format!("m{at}"));
            let mut arguments = vec![
                format!("--name=m{at}"),
                format!("--data-dir={}", folder.join("data").display()),
                format!("--listen-client-urls={url}"),
                format!("--advertise-client-urls={url}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster={}", peers.join(",")),
                // A machine full of tests is slow, but a lost leader must be replaced within our own time limits.
                "--heartbeat-interval=50".to_owned(),
                "--election-timeout=500".to_owned(),
                "--unsafe-no-fsync".to_owned(),
            ];
            if let (Some(tls), Some(server)) = (&tls, &server) {
                arguments.push(format!("--cert-file={}", server.cert.display()));
                arguments.push(format!("--key-file={}", server.key.display()));
                if wanted.client_certificates {
                    arguments.push("--client-cert-auth".to_owned());
                    arguments.push(format!("--trusted-ca-file={}", tls.authority.file.display()));
                }
            }
            arguments.extend(wanted.arguments.iter().map(|&argument| argument.to_owned()));
            Member { port: *port, url, arguments, folder, process: None }
        });
        Self { members: members.collect(), folder, tls }
    }

    /// Waits until a linearizable read succeeds on every member that runs.
    pub(crate) async fn wait_until_it_answers(&mut self) {
        let tls = self.tls.as_ref().map(|tls| {
            let read = |file| std::fs::read(file).expect("a certificate");
            etcd_client::TlsOptions::new()
                .ca_certificate(etcd_client::Certificate::from_pem(read(&tls.authority.file)))
                .identity(etcd_client::Identity::from_pem(read(&tls.client.cert), read(&tls.client.key)))
        });
        for member in self.members.iter_mut().filter(|member| member.process.is_some()) {
            let mut options = ConnectOptions::new().with_timeout(Duration::from_secs(2)).with_require_leader(true);
            if let Some(tls) = &tls {
                options = options.with_tls(tls.clone());
            }
            eventually(&format!("etcd on {}", member.url), Duration::from_secs(20), || {
                member.assert_running();
                let (url, options) = (member.url.clone(), options.clone());
                async move {
                    let mut client = Client::connect([url], Some(options)).await.map_err(|e| e.to_string())?;
                    match client.get("nothing", None).await {
                        // With logins switched on, this too is an answer.
                        Err(etcd_client::Error::GRpcStatus(status))
                            if status.message().contains("user name is empty") =>
                        {
                            Ok(())
                        }
                        answer => answer.map(drop).map_err(|e| e.to_string()),
                    }
                }
            })
            .await;
        }
    }

    /// How to reach all members.
    pub(crate) fn settings(&self) -> EtcdSettings {
        let mut settings = EtcdSettings::new(self.members.iter().map(|member| member.url.clone()));
        settings.ca = self.tls.as_ref().map(|tls| tls.authority.file.clone());
        settings
    }

    /// The first member's URL.
    pub(crate) fn endpoint(&self) -> &str {
        &self.members[0].url
    }

    /// Our store on all members.
    pub(crate) async fn store(&self) -> EtcdStore {
        EtcdStore::connect(self.settings()).await.expect("settings that make sense")
    }

    /// Our store with much patience: for what is not about time, on a machine that may be busy.
    pub(crate) async fn patient_store(&self) -> SharedStore {
        let settings = EtcdSettings { op_timeout: Duration::from_secs(15), ..self.settings() };
        Arc::new(EtcdStore::connect(settings).await.expect("settings that make sense"))
    }

    /// A plain client of the first member, without our code.
    pub(crate) async fn client(&self) -> Client {
        Client::connect([&self.members[0].url], None).await.expect("a client")
    }

    /// Creates `root` and one more user with the same password who may use everything below `prefix`, and switches logins on.
    pub(crate) async fn switch_logins_on(&self, user: &str, password: &str, prefix: &str) {
        use etcd_client::{Permission, PermissionType};
        let mut client = self.client().await;
        client.user_add("root", password, None).await.expect("a user");
        client.user_grant_role("root", "root").await.expect("a role");
        client.user_add(user, password, None).await.expect("a user");
        client.role_add("ours").await.expect("a role");
        let permission = Permission::new(PermissionType::Readwrite, prefix).with_prefix();
        client.role_grant_permission("ours", permission).await.expect("a permission");
        client.user_grant_role(user, "ours").await.expect("a role");
        client.auth_enable().await.expect("logins");
    }
}

impl Member {
    /// Starts it, or starts it again with the data it had.
    pub(crate) fn start(&mut self) {
        std::fs::create_dir_all(&self.folder).expect("a folder");
        self.process = Some(Running::start(&program("etcd"), &self.arguments, &[], &self.folder));
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Loses all its data; it must have been killed before.
    pub(crate) fn wipe(&mut self) {
        assert!(self.process.is_none(), "kill it first");
        std::fs::remove_dir_all(self.folder.join("data")).expect("its data");
    }

    /// Keeps its data as they are in `folder`; it must have been killed before.
    pub(crate) fn back_up(&self, folder: &Path) {
        assert!(self.process.is_none(), "kill it first");
        copy(&self.folder.join("data"), folder);
    }

    /// Has the data again that were kept in `folder`; it must have been killed before.
    pub(crate) fn restore(&mut self, folder: &Path) {
        self.wipe();
        copy(folder, &self.folder.join("data"));
    }

    /// It takes connections and does nothing more, until it is resumed.
    pub(crate) fn pause(&self) {
        self.process.as_ref().expect("it runs").pause();
    }

    /// Goes on where it was paused.
    pub(crate) fn resume(&self) {
        self.process.as_ref().expect("it runs").signal("CONT");
    }

    fn assert_running(&mut self) {
        if let Some(process) = &mut self.process {
            let ended = process.ended();
            assert!(ended.is_none(), "etcd ended at once ({ended:?}):\n{}", process.log());
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let copied = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            copy(&entry.path(), &copied);
        } else {
            std::fs::copy(entry.path(), copied).expect("a copy");
        }
    }
}
