//! The other members, asked where they listen for each other: a member that waits answers with its card, an etcd with the
//! members that it knows of, whether it has a quorum or not.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::members::Members;
use super::situation::{Seen, View};
use crate::causes::innermost;

/// Where a member that waits shows its card; etcd has nothing there.
pub const CARD_PATH: &str = "/pointsman/etcd-join";

/// Where etcd tells its members, to members.
const MEMBERS_PATH: &str = "/members";

const CLUSTER_ID: &str = "x-etcd-cluster-id";

/// How long an answer may take, the connection included.
const PATIENCE: Duration = Duration::from_secs(2);

/// The largest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// Asks the others.
#[derive(Debug, Clone)]
pub struct Peers {
    client: Client,
    urls: BTreeMap<String, String>,
}

impl Peers {
    /// All members but `me`.
    pub fn new(members: &Members, me: &str) -> Result<Self, String> {
        let client = Client::builder().timeout(PATIENCE).connect_timeout(PATIENCE).no_proxy().pool_max_idle_per_host(0);
        let client = client.build().map_err(|error| format!("no HTTP client can be made: {error}"))?;
        let others = members.iter().filter(|(name, _)| *name != me);
        Ok(Self { client, urls: others.map(|(name, url)| (name.to_owned(), url.to_owned())).collect() })
    }

    /// What each of them shows, all asked at once.
    pub async fn ask(&self) -> BTreeMap<String, Seen> {
        let mut asked = JoinSet::new();
        for (name, url) in self.urls.clone() {
            let client = self.client.clone();
            asked.spawn(async move {
                let seen = ask(&client, &name, &url).await;
                (name, seen.unwrap_or_else(Seen::Silent))
            });
        }
        asked.join_all().await.into_iter().collect()
    }
}

async fn ask(client: &Client, name: &str, url: &str) -> Result<Seen, String> {
    let answer = get(client, &format!("{url}{CARD_PATH}")).await?;
    if answer.status() == StatusCode::OK {
        let card: super::note::Card = read(answer).await?;
        return if card.name == name {
            Ok(Seen::Waiting(card))
        } else {
            Err(format!("{} answers at {url}", card.name))
        };
    }
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        return Err("it has just started".to_owned());
    }
    let answer = get(client, &format!("{url}{MEMBERS_PATH}")).await?;
    let cluster_id = answer.headers().get(CLUSTER_ID).and_then(|id| id.to_str().ok());
    let Some(cluster_id) = cluster_id.and_then(|id| u64::from_str_radix(id, 16).ok()) else {
        return Err(format!("no etcd answers at {url}"));
    };
    Ok(Seen::Running(View { cluster_id, members: read(answer).await? }))
}

async fn get(client: &Client, url: &str) -> Result<Response, String> {
    client.get(url).send().await.map_err(|error| describe(&error))
}

async fn read<T: DeserializeOwned>(mut answer: Response) -> Result<T, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| describe(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_MAX {
            return Err("its answer is too long".to_owned());
        }
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("its answer can't be read: {error}"))
}

/// Why there is no answer, in words that an administrator can use.
fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() { format!("no answer within {} s", PATIENCE.as_secs()) } else { innermost(error) }
}
