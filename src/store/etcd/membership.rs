//! The members of a cluster, and how they are changed: for a member that joins, and so from outside of it.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Error, Txn, TxnOp};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::endpoint::Endpoint;
use super::fault::Fault;
use super::header_of;
use super::pool::Pool;
use super::settings::EtcdSettings;
use crate::store::StoreError;

/// A member, as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ClusterMember {
    /// Different for every member that ever was.
    pub id: u64,
    /// Its name; empty until it has started, if it was added to a cluster that was there.
    #[serde(default)]
    pub name: String,
    /// Where the others reach it.
    #[serde(default, rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started for the first time.
    #[serde(default, rename = "clientURLs")]
    pub client_urls: Vec<String>,
}

/// A cluster that has a quorum, as of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The same for all its members, and for no other cluster.
    pub cluster_id: u64,
    /// All members.
    pub members: Vec<ClusterMember>,
    /// What the cluster's own keys hold under the key that was asked for.
    pub note: Option<Vec<u8>>,
}

/// The way to a cluster's members and their list.
#[derive(Debug)]
pub struct Cluster {
    pool: Pool,
    note_key: &'static str,
}

impl Cluster {
    /// Reads the files that the settings name; nothing is connected to yet. `note_key` is read with every look at the
    /// members.
    pub fn new(settings: &EtcdSettings, note_key: &'static str) -> Result<Self, StoreError> {
        Ok(Self { pool: Pool::new(settings)?, note_key })
    }

    /// What the first endpoint says that has a quorum behind it. It takes one time limit at most.
    pub async fn look(&self) -> Result<Membership, StoreError> {
        self.first().await.map(|(_, membership)| membership)
    }

    /// Removes a member.
    pub async fn remove(&self, id: u64) -> Result<(), StoreError> {
        let call = async |client: &Client| client.cluster_client().member_remove(id).await.map(drop);
        self.change(call).await
    }

    /// Adds a member that votes, and gives the number that it has from now on.
    pub async fn add(&self, peer_url: &str) -> Result<u64, StoreError> {
        let call = async |client: &Client| {
            let added = client.cluster_client().member_add([peer_url.to_owned()], None).await?;
            Ok(added.member().map(etcd_client::Member::id))
        };
        let added = self.change(call).await?;
        added.ok_or_else(|| StoreError::Unavailable("etcd did not say which member it has added".to_owned()))
    }

    /// Writes the note, unless there is one.
    pub async fn write_note(&self, value: &[u8]) -> Result<(), StoreError> {
        let txn = Txn::new().when([Compare::mod_revision(self.note_key, CompareOp::Equal, 0)]).and_then([TxnOp::put(
            self.note_key,
            value,
            None,
        )]);
        let call = async |client: &Client| client.kv_client().txn(txn.clone()).await.map(drop);
        self.change(call).await
    }

    /// Asks one member once; it may have happened when the answer says that it failed.
    async fn change<T>(&self, call: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, StoreError> {
        let (at, _) = self.first().await?;
        let (endpoint, patience) = (&self.pool.endpoints()[at], self.pool.patience());
        let client = endpoint.without_leader().await?;
        match timeout(patience, Box::pin(call(&client))).await {
            Ok(answer) => answer.map_err(|error| Fault::new(endpoint.url(), &error).error),
            Err(_) => Err(Fault::silence(endpoint.url(), patience).error),
        }
    }

    async fn first(&self) -> Result<(usize, Membership), StoreError> {
        let mut asked = JoinSet::new();
        for (at, endpoint) in self.pool.endpoints().iter().enumerate() {
            let (endpoint, key, patience) = (endpoint.clone(), self.note_key, self.pool.patience());
            asked.spawn(async move { (at, ask(&endpoint, key, patience).await) });
        }
        let mut failure = None;
        while let Some(answered) = asked.join_next().await {
            match answered {
                Ok((at, Ok(membership))) => return Ok((at, membership)),
                Ok((_, Err(error))) => failure = Some(error),
                Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| StoreError::Unavailable("there is no endpoint".to_owned())))
    }
}

/// The list itself is told by every member from what it knows itself, which may be old. So a read goes before it that only
/// a member with a quorum can answer, and that waits until this one is up to date.
async fn ask(endpoint: &Arc<Endpoint>, key: &'static str, patience: Duration) -> Result<Membership, StoreError> {
    let failed = |error: Error| Fault::new(endpoint.url(), &error).error;
    let look = async {
        let client = endpoint.without_leader().await?;
        let read = client.kv_client().get(key, None).await.map_err(failed)?;
        let list = client.cluster_client().member_list().await.map_err(failed)?;
        let members = list.members().iter().map(|member| ClusterMember {
            id: member.id(),
            name: member.name().to_owned(),
            peer_urls: member.peer_urls().to_vec(),
            client_urls: member.client_urls().to_vec(),
        });
        Ok(Membership {
            cluster_id: header_of(list.header())?.cluster_id(),
            members: members.collect(),
            note: read.kvs().first().map(|entry| entry.value().to_vec()),
        })
    };
    timeout(patience, Box::pin(look)).await.map_err(|_| Fault::silence(endpoint.url(), patience).error)?
}
