//! A look at each member of etcd by itself: does it do its work, which takes a quorum?

use std::time::Duration;

use tokio::time::timeout;

use super::fault::Fault;
use super::pool::{Pool, probe};
use super::settings::EtcdSettings;
use crate::store::StoreError;

/// Looks at the members one by one.
#[derive(Debug)]
pub struct Looks {
    pool: Pool,
}

impl Looks {
    /// Reads the files that the settings name. Nothing is connected to yet.
    pub fn new(settings: &EtcdSettings) -> Result<Self, StoreError> {
        Ok(Self { pool: Pool::new(settings)? })
    }

    /// The members as `HOST:PORT`, in the order of the settings.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let bare = |url: &str| url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/').to_owned();
        self.pool.endpoints().iter().map(|endpoint| bare(endpoint.url())).collect()
    }

    /// Reads through this member in a way that only one with a quorum can answer. A refusal is an answer. A connection on
    /// which nothing came for `patience` is not used again.
    pub async fn look(&self, at: usize, patience: Duration) -> Result<(), StoreError> {
        let endpoint = &self.pool.endpoints()[at];
        let number = endpoint.number();
        match timeout(patience, endpoint.call(&probe())).await {
            Ok(Ok(()) | Err(Fault { error: StoreError::Refused(_), .. })) => Ok(()),
            Ok(Err(fault)) => Err(fault.error),
            Err(_) => {
                endpoint.discard(number);
                Err(Fault::silence(endpoint.url(), patience).error)
            }
        }
    }
}
