//! The administrator's certificates, as a Traefik beside us sees them: copies that belong together, renewed when the files change.
//!
//! Traefik reads a certificate only when the file that names it changes, and may find a new certificate beside an old
//! key. So it gets copies, which are checked first, and the file that names them is written again after them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{error, info};

use super::wiring;
use crate::api::files::{Stamp, read};
use crate::api::listen::tls::check_pair;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::traefik::dynamic_file::Own;
use crate::traefik::folder::{self, Pair, SECRET_MODE};

/// How often the files are looked at. A change is used once it has stood for as long: the second file may still come.
const INTERVAL: Duration = Duration::from_secs(2);

/// Bundles of authorities may be long.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The name of the file that names them.
pub(super) const DYNAMIC_FILE: &str = "pointsman.yaml";

/// The files of the administrator's, and where their copies go.
pub(super) struct Copies {
    config: Config,
    /// Holds the copies; Traefik doesn't watch it.
    certificates: PathBuf,
    /// Traefik reads every file of it; the administrator may put some there.
    dynamic: PathBuf,
    /// The doors of a Traefik that we start ourselves.
    own: Option<Own>,
    /// How the files looked when they were copied last.
    installed: Mutex<Stamp>,
}

impl Copies {
    /// Copies everything for the first time, into folders below this one.
    pub(super) fn install(config: &Config, folder: &Path, own: Option<Own>) -> Result<Self, String> {
        let copies = Self::into(config, folder, own)?;
        copies.copy()?;
        Ok(copies)
    }

    /// The same where copies may be there already: what can't be used leaves them in force.
    pub(super) fn take_over(config: &Config, folder: &Path) -> Result<Self, String> {
        let copies = Self::into(config, folder, None)?;
        match copies.copy() {
            Err(reason) if !copies.dynamic_file().is_file() => return Err(reason),
            Err(reason) => stay(&reason),
            Ok(()) => {}
        }
        Ok(copies)
    }

    fn into(config: &Config, folder: &Path, own: Option<Own>) -> Result<Self, String> {
        let make = |name: &str| folder::create(&folder.join(name)).map_err(|error| error.to_string());
        let (certificates, dynamic) = (make("certificates")?, make("dynamic")?);
        Ok(Self { config: config.clone(), certificates, dynamic, own, installed: Mutex::new(Stamp::of([])) })
    }

    /// What Traefik watches.
    pub(super) fn dynamic_folder(&self) -> &Path {
        &self.dynamic
    }

    fn dynamic_file(&self) -> PathBuf {
        self.dynamic.join(DYNAMIC_FILE)
    }

    /// Copies everything again, now. What can't be used leaves the old in force.
    pub(super) fn reload(&self) {
        match self.copy() {
            Ok(()) => info!("Certificates and keys were read again for Traefik"),
            Err(reason) => stay(&reason),
        }
    }

    /// Copies what has changed, for ever.
    pub(super) async fn watch(&self) {
        let mut last = self.stamp();
        loop {
            sleep(INTERVAL).await;
            let now = self.stamp();
            let is_new = now != *self.installed.lock().unwrap_or_else(PoisonError::into_inner);
            if is_new && now == last {
                self.reload();
                // Also what can't be used isn't tried again until it changes.
                *self.installed.lock().unwrap_or_else(PoisonError::into_inner) = now.clone();
            }
            last = now;
        }
    }

    fn stamp(&self) -> Stamp {
        Stamp::of(self.sources().into_iter().map(|(_, path)| path))
    }

    /// The files, each with the setting that names it.
    fn sources(&self) -> Vec<(&'static str, &Path)> {
        let mut found: Vec<(&str, &Path)> = Vec::new();
        if let Some(tls) = &self.config.public.tls {
            found.extend([("ssl-cert", tls.cert.as_path()), ("ssl-key", tls.key.as_path())]);
            found.extend(tls.ca.as_deref().map(|path| ("ssl-ca", path)));
        }
        let servers = &self.config.servers;
        if let Some((cert, key)) = &servers.client_pair {
            found.extend([("client-ssl-cert", cert.as_path()), ("client-ssl-key", key.as_path())]);
        }
        found.extend(servers.ca.as_deref().map(|path| ("client-ssl-ca", path)));
        found.extend(servers.extra_ca.as_deref().map(|path| ("extra-ca", path)));
        found
    }

    fn copy(&self) -> Result<(), String> {
        let before = self.stamp();
        if let Some(tls) = &self.config.public.tls {
            check_pair("--ssl", &tls.cert, &tls.key).map_err(|error| error.to_string())?;
        }
        if let Some((cert, key)) = &self.config.servers.client_pair {
            check_pair("--client-ssl", cert, key).map_err(|error| error.to_string())?;
        }
        let sources = self.sources();
        let place = |setting: &str| self.certificates.join(format!("{setting}.pem"));
        for (setting, path) in &sources {
            let bytes = read(path, BYTES_MAX)
                .map_err(|error| format!("--{setting}: {} can't be read: {error}", path.display()))?;
            folder::replace(&place(setting), bytes, SECRET_MODE).map_err(|error| error.to_string())?;
        }
        let pair = match &self.config.public.tls {
            Some(tls) => Pair { certificate: tls.cert.clone(), key: tls.key.clone(), kept: true },
            None => {
                folder::default_certificate(&self.certificates, SystemClock.now()).map_err(|error| error.to_string())?
            }
        };
        let seen_by_traefik = |path: &Path| {
            let copy = sources.iter().find(|(_, source)| *source == path).map(|(setting, _)| place(setting));
            copy.unwrap_or_else(|| path.to_owned()).display().to_string()
        };
        let mut file = wiring::dynamic_file(&self.config, &pair, seen_by_traefik);
        file.own.clone_from(&self.own);
        folder::replace(&self.dynamic_file(), file.to_yaml(), SECRET_MODE).map_err(|error| error.to_string())?;
        *self.installed.lock().unwrap_or_else(PoisonError::into_inner) = before;
        Ok(())
    }
}

fn stay(reason: &str) {
    error!("The old certificates and keys stay in force for Traefik: {reason}");
}
