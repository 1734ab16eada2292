//! How the members of etcd are, as `pointsman check` wants to know it.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{AlarmAction, AlarmType, Client};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::endpoint::Endpoint;
use super::fault::Fault;
use super::header_of;
use super::pool::Pool;
use super::settings::EtcdSettings;
use crate::store::StoreError;

/// What all endpoints say, in the order of the settings.
#[derive(Debug, Clone)]
pub struct ClusterStatus {
    /// Each endpoint.
    pub endpoints: Vec<EndpointStatus>,
    /// The alarms of the whole cluster, from the first endpoint that tells them.
    pub alarms: Result<Vec<Alarm>, StoreError>,
}

/// What one endpoint says.
#[derive(Debug, Clone)]
pub struct EndpointStatus {
    /// As in the settings.
    pub url: String,
    /// The member behind it.
    pub member: Result<MemberStatus, StoreError>,
}

/// A member of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// etcd's version, such as 3.5.16.
    pub version: String,
    /// The same for all members of one cluster.
    pub cluster_id: u64,
    /// Different for every member.
    pub member_id: u64,
    /// The member's view of who leads; 0 is nobody: then there is no quorum.
    pub leader_id: u64,
    /// The size of its database on disk.
    pub database_bytes: u64,
    /// Not a voter yet.
    pub is_learner: bool,
    /// What the member itself complains about.
    pub errors: Vec<String>,
}

impl MemberStatus {
    /// This member leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader_id == self.member_id
    }
}

/// Something that stops etcd from working as it should until an administrator has dealt with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// The member that raised it.
    pub member_id: u64,
    /// `NOSPACE` or `CORRUPT`.
    pub kind: String,
}

pub(super) async fn ask(settings: &EtcdSettings, pool: &Pool) -> ClusterStatus {
    let mut tasks = JoinSet::new();
    for (at, endpoint) in pool.endpoints().iter().enumerate() {
        let (endpoint, patience) = (endpoint.clone(), settings.op_timeout);
        tasks.spawn(async move { (at, ask_one(&endpoint, patience).await) });
    }
    let mut answers = tasks.join_all().await;
    answers.sort_by_key(|(at, _)| *at);
    let mut alarms = None;
    let mut endpoints = Vec::new();
    for ((_, answer), endpoint) in answers.into_iter().zip(pool.endpoints()) {
        let (member, told) = match answer {
            Ok((member, told)) => (Ok(member), told),
            Err(error) => (Err(error.clone()), Err(error)),
        };
        if !matches!(alarms, Some(Ok(_))) {
            alarms = Some(told);
        }
        endpoints.push(EndpointStatus { url: endpoint.url().to_owned(), member });
    }
    let nobody = || Err(StoreError::Unavailable("there is no endpoint".to_owned()));
    ClusterStatus { endpoints, alarms: alarms.unwrap_or_else(nobody) }
}

type Told = (MemberStatus, Result<Vec<Alarm>, StoreError>);

async fn ask_one(endpoint: &Arc<Endpoint>, patience: Duration) -> Result<Told, StoreError> {
    let silence = || Fault::silence(endpoint.url(), patience).error;
    let failed = |error: etcd_client::Error| Fault::new(endpoint.url(), &error).error;
    let member = async {
        let mut client = endpoint.without_leader().await?;
        let status = client.status().await.map_err(failed)?;
        let header = header_of(status.header())?;
        let member = MemberStatus {
            version: status.version().to_owned(),
            cluster_id: header.cluster_id(),
            member_id: header.member_id(),
            leader_id: status.leader(),
            database_bytes: status.db_size().try_into().unwrap_or(0),
            is_learner: status.is_learner(),
            errors: status.errors().to_vec(),
        };
        Ok((client, member))
    };
    let (client, member) = timeout(patience, Box::pin(member)).await.map_err(|_| silence())??;
    // The alarms need a quorum, so their silence is not the member's.
    let alarms = timeout(patience, Box::pin(alarms(client))).await.map_err(|_| silence());
    Ok((member, alarms.and_then(|alarms| alarms.map_err(failed))))
}

async fn alarms(mut client: Box<Client>) -> Result<Vec<Alarm>, etcd_client::Error> {
    let told = client.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    let alarms = told.alarms().iter().map(|alarm| {
        let kind = match alarm.alarm() {
            AlarmType::Nospace => "NOSPACE".to_owned(),
            AlarmType::Corrupt => "CORRUPT".to_owned(),
            AlarmType::None => "unknown".to_owned(),
        };
        Alarm { member_id: alarm.member_id(), kind }
    });
    Ok(alarms.collect())
}
