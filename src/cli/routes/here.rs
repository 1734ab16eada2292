//! Where the routes of the settings are: in etcd, in a folder, or in the hands of the Pointsman that holds the folder.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::client::{Address, ApiClient, Tls};
use crate::cli::wiring;
use crate::config::{Config, Listen, StoreConfig};
use crate::store::SharedStore;
use crate::store::embedded::{self, EmbeddedSettings, EmbeddedStore, Held, OpenError};
use crate::store::etcd::{EtcdSettings, EtcdStore};

/// Whole tables take longer than a single call of the API may.
const ETCD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the routes are wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Purpose {
    /// To be read. Nothing is made that isn't there.
    Read,
    /// To be changed.
    Write,
}

/// How the routes of the settings can be reached.
pub(in crate::cli) enum Here {
    /// In the store itself: etcd, which takes any number of writers, or a folder that nobody else has.
    Store(SharedStore),
    /// Through the Pointsman that holds the folder.
    Api(ApiClient),
}

/// Finds them. The error is a sentence for the administrator.
pub(in crate::cli) async fn open(config: &Config, tls: &Tls, purpose: Purpose) -> Result<Here, String> {
    match &config.store {
        StoreConfig::Etcd(etcd) => {
            let settings = EtcdSettings { op_timeout: ETCD_TIMEOUT, ..wiring::etcd_settings(etcd) };
            let store = EtcdStore::connect(settings).await.map_err(|error| error.to_string())?;
            Ok(Here::Store(Arc::new(store)))
        }
        StoreConfig::OneMachine { folder, .. } => {
            match embedded::look(folder).ok().flatten().map(|seen| seen.held) {
                Some(Held::By(pid)) => return holder(config, tls, folder, pid, purpose).await,
                // Of a folder that we may not enter the Pointsman behind the API tells all the same, if there is one.
                Some(Held::Unknown) => {
                    return match holder(config, tls, folder, None, purpose).await {
                        Ok(here) => Ok(here),
                        Err(unheard) => Err(wiring::is_ours_alone(config, "data-dir", folder).err().unwrap_or(unheard)),
                    };
                }
                Some(Held::No) | None => wiring::is_ours_alone(config, "data-dir", folder)?,
            }
            if purpose == Purpose::Read && !embedded::is_there(folder) {
                return Err(format!(
                    "there are no routes in {}, for no Pointsman has kept any there; correct --data-dir, or name a running proxy by \
                     --from",
                    folder.display()
                ));
            }
            let settings =
                EmbeddedSettings { predecessor_patience: Duration::ZERO, ..EmbeddedSettings::new(folder.clone()) };
            match EmbeddedStore::open(settings).await {
                Ok(store) => Ok(Here::Store(Arc::new(store))),
                Err(OpenError::Held { pid, .. }) => holder(config, tls, folder, pid, purpose).await,
                Err(error) => Err(error.to_string()),
            }
        }
    }
}

/// Whether there is no folder yet, so that nothing can be in it.
pub(in crate::cli) fn is_new(config: &Config) -> bool {
    matches!(&config.store, StoreConfig::OneMachine { folder, .. } if !embedded::is_there(folder))
}

/// The Pointsman that has the folder, if it answers where the settings say.
async fn holder(config: &Config, tls: &Tls, folder: &Path, pid: Option<u32>, purpose: Purpose) -> Result<Here, String> {
    let tokens = config.auth.tokens().map_err(|problems| problems.to_string())?;
    let address = api_address(config);
    let client = ApiClient::new(&address, &api_trust(config, tls), tokens)?;
    let found = match client.is_pointsman().await {
        Ok(true) => return Ok(Here::Api(client)),
        Ok(false) => format!("what answers at {address} is no Pointsman"),
        Err(reason) => reason,
    };
    let flag = if purpose == Purpose::Read { "--from" } else { "--to" };
    let pid = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    Err(format!(
        "{} is in use by a running Pointsman{pid}, whose API was not found: {found}. Name its API by {flag} http://HOST:PORT, or \
         stop it first",
        folder.display()
    ))
}

/// Where our API is reached from this machine.
pub(in crate::cli) fn api_address(config: &Config) -> Address {
    match &config.api.listen {
        Listen::Unix(path) => Address::Unix(path.clone()),
        Listen::Tcp { ip, port } => Address::Url(local_url(config.api.tls.is_some(), ip, *port)),
    }
}

/// What TLS needs to reach our own API: its certificate is in the settings.
pub(in crate::cli) fn api_trust(config: &Config, tls: &Tls) -> Tls {
    match &config.api.tls {
        Some(own) if tls.ca.is_none() => Tls { pinned: Some(own.cert.clone()), ..tls.clone() },
        _ => tls.clone(),
    }
}

/// Where a listener of ours is reached from this machine.
pub(in crate::cli) fn local_url(https: bool, ip: &str, port: u16) -> String {
    let scheme = if https { "https" } else { "http" };
    match ip {
        "" | "0.0.0.0" => format!("{scheme}://127.0.0.1:{port}"),
        "::" => format!("{scheme}://[::1]:{port}"),
        ip if ip.contains(':') => format!("{scheme}://[{ip}]:{port}"),
        ip => format!("{scheme}://{ip}:{port}"),
    }
}
