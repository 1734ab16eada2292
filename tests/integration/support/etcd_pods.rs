//! Members of a bundled etcd as a `StatefulSet` runs them: each has a volume, `pointsman etcd-join` as its init container, and
//! then etcd with the file that that wrote.

use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use tempfile::TempDir;

use super::process::{Running, free_port, program};
use super::wait::eventually;

/// etcd of a busy machine, which has no need to survive a power cut.
const MORE: &str = r#"{"heartbeat-interval": 50, "election-timeout": 500, "unsafe-no-fsync": true}"#;

/// All pods of one set.
pub(crate) struct Pods {
    pub(crate) pods: Vec<Pod>,
    _folder: TempDir,
}

/// One of them.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) peer_url: String,
    pub(crate) client_url: String,
    folder: PathBuf,
    etcd: Option<Running>,
}

impl Pods {
    /// So many, with empty volumes; nothing runs.
    pub(crate) fn prepare(count: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("pointsman-pods-").tempdir().expect("a folder");
        let pods = (0..count).map(|at| {
            let name = format!("etcd-{at}");
            let url = || format!("http://127.0.0.1:{}", free_port());
            let pod = Pod { folder: folder.path().join(&name), name, peer_url: url(), client_url: url(), etcd: None };
            std::fs::create_dir_all(pod.volume()).expect("a folder");
            pod
        });
        Self { pods: pods.collect(), _folder: folder }
    }

    /// So many, that form a cluster.
    pub(crate) async fn start(count: usize) -> Self {
        let mut pods = Self::prepare(count);
        pods.start_all().await;
        pods
    }

    /// Starts all that don't run, at the same time, and waits until they answer.
    pub(crate) async fn start_all(&mut self) {
        let waiting: Vec<usize> = (0..self.pods.len()).filter(|at| self.pods[*at].etcd.is_none()).collect();
        let mut joins: Vec<Running> = waiting.iter().map(|at| self.join(*at, &[])).collect();
        for join in &mut joins {
            let code = join.end(Duration::from_secs(60)).await;
            assert_eq!(code, 0, "{}", join.log());
        }
        for at in waiting {
            self.pods[at].start_etcd();
        }
        self.wait_until_all_answer().await;
    }

    /// The init container of one pod, and then, when it has ended well, etcd; waits until that answers.
    pub(crate) async fn start_one(&mut self, at: usize) -> String {
        let mut join = self.join(at, &[]);
        let code = join.end(Duration::from_secs(60)).await;
        assert_eq!(code, 0, "{}", join.log());
        self.pods[at].start_etcd();
        self.wait_until_all_answer().await;
        join.log()
    }

    /// The init container, which is told of all members.
    pub(crate) fn join(&self, at: usize, more: &[&str]) -> Running {
        let endpoints = self.pods.iter().map(|pod| pod.client_url.clone()).collect::<Vec<_>>().join(",");
        self.join_told(at, &self.members(), &endpoints, more)
    }

    /// The init container, which is told of these members, and to ask at these endpoints.
    pub(crate) fn join_told(&self, at: usize, members: &str, endpoints: &str, more: &[&str]) -> Running {
        let pod = &self.pods[at];
        let volume = pod.volume().display().to_string();
        let mut arguments = vec![
            "etcd-join",
            "--name",
            &pod.name,
            "--members",
            members,
            "--client-url",
            &pod.client_url,
            "--etcd-endpoints",
            endpoints,
            "--dir",
            &volume,
            "--listen-ip",
            "127.0.0.1",
            "--etcd-config",
            MORE,
            "--claims",
            "data",
        ];
        arguments.extend(more);
        Running::start(Path::new(env!("CARGO_BIN_EXE_pointsman")), &arguments, &[], &pod.folder)
    }

    /// As `--members` wants them.
    pub(crate) fn members(&self) -> String {
        self.pods.iter().map(|pod| format!("{}={}", pod.name, pod.peer_url)).collect::<Vec<_>>().join(",")
    }

    /// Waits until each that runs answers a question that takes a quorum.
    pub(crate) async fn wait_until_all_answer(&mut self) {
        for pod in self.pods.iter_mut().filter(|pod| pod.etcd.is_some()) {
            eventually(&pod.name.clone(), Duration::from_secs(30), || {
                let etcd = pod.etcd.as_mut().expect("it runs");
                let ended = etcd.ended();
                assert!(ended.is_none(), "etcd ended ({ended:?}):\n{}", etcd.log());
                let url = pod.client_url.clone();
                async move { get(&url, "nothing").await.map(drop) }
            })
            .await;
        }
    }

    /// The members that this pod's etcd knows: name, number, whether it has ever started.
    pub(crate) async fn list(&self, at: usize) -> Vec<(String, u64, bool)> {
        let client = self.pods[at].client().await;
        let list = client.cluster_client().member_list().await.expect("a list");
        let members = list.members().iter();
        let mut members: Vec<_> =
            members.map(|member| (member.name().to_owned(), member.id(), !member.client_urls().is_empty())).collect();
        members.sort();
        members
    }

    /// The number of a pod's entry, which has its name a moment after it has started.
    pub(crate) async fn id_of(&self, asked: usize, at: usize) -> u64 {
        let name = &self.pods[at].name;
        eventually(name, Duration::from_secs(10), || async {
            let list = self.list(asked).await;
            let found = list.iter().find(|(known, ..)| known == name).map(|(_, id, _)| *id);
            found.ok_or_else(|| format!("{list:?}"))
        })
        .await
    }

    /// All that run are of one cluster, which has just these members.
    pub(crate) async fn assert_one_cluster(&self) {
        let mut ids = Vec::new();
        for (at, pod) in self.pods.iter().enumerate() {
            let wanted: Vec<String> = self.pods.iter().map(|pod| pod.name.clone()).collect();
            eventually(&format!("all members, as {} knows them", pod.name), Duration::from_secs(10), || async {
                let names: Vec<String> = self.list(at).await.into_iter().map(|(name, ..)| name).collect();
                if names == wanted { Ok(()) } else { Err(format!("{names:?}")) }
            })
            .await;
            let status = pod.client().await.status().await.expect("its status");
            ids.push(status.header().map(etcd_client::ResponseHeader::cluster_id));
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "{ids:?}");
    }
}

impl Pod {
    /// The folder that outlives the pod, if it is a claim.
    pub(crate) fn volume(&self) -> PathBuf {
        self.folder.join("volume")
    }

    /// Whether the init container has let etcd start.
    pub(crate) fn may_start(&self) -> bool {
        self.volume().join("etcd.json").exists()
    }

    pub(crate) fn start_etcd(&mut self) {
        let file = format!("--config-file={}", self.volume().join("etcd.json").display());
        self.etcd = Some(Running::start(&program("etcd"), &[file], &[], &self.folder));
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.etcd.take().expect("it runs").kill();
    }

    /// Loses the volume; it must have been killed before.
    pub(crate) fn lose_volume(&mut self) {
        assert!(self.etcd.is_none(), "kill it first");
        std::fs::remove_dir_all(self.volume()).expect("its volume");
        std::fs::create_dir_all(self.volume()).expect("a folder");
    }

    pub(crate) async fn client(&self) -> Client {
        client(&self.client_url).await
    }

    /// What this member says, after it has asked a quorum.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<String>, String> {
        get(&self.client_url, key).await
    }

    pub(crate) async fn put(&self, key: &str, value: &str) {
        self.client().await.put(key, value, None).await.expect("a write");
    }
}

async fn client(url: &str) -> Client {
    let options = ConnectOptions::new().with_timeout(Duration::from_secs(5)).with_require_leader(true);
    Client::connect([url], Some(options)).await.expect("a client")
}

async fn get(url: &str, key: &str) -> Result<Option<String>, String> {
    let answer = client(url).await.get(key, None).await.map_err(|error| error.to_string())?;
    Ok(answer.kvs().first().map(|entry| entry.value_str().expect("text").to_owned()))
}
