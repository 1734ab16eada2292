//! The administrator's certificates, as our Traefik sees them: copies that belong together, renewed when the files change.
//!
//! Traefik reads a certificate only when the file that names it changes, and may find a new certificate beside an old
//! key. So it gets copies, which are checked first, and the file that names them is written again after them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{error, info};

use super::super::wiring;
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

/// The files of the administrator's, and where their copies go.
pub(in crate::cli) struct Files {
    config: Config,
    /// Holds the copies; Traefik doesn't watch it.
    copies: PathBuf,
    /// Traefik reads every file of it; the administrator may put some there.
    dynamic: PathBuf,
    own: Own,
    /// How the files looked when they were copied last.
    installed: Mutex<Stamp>,
}

impl Files {
    /// Copies everything for the first time.
    pub(super) fn install(config: &Config, folder: &Path, own: Own) -> Result<Self, String> {
        let make = |name: &str| folder::create(&folder.join(name)).map_err(|error| error.to_string());
        let (copies, dynamic) = (make("certificates")?, make("dynamic")?);
        let installed = Mutex::new(Stamp::of([]));
        let files = Self { config: config.clone(), copies, dynamic, own, installed };
        files.copy()?;
        Ok(files)
    }

    /// The names of the entry points for users.
    pub(super) fn entry_points(&self) -> &[String] {
        &self.own.entry_points
    }

    /// What Traefik watches.
    pub(super) fn dynamic_folder(&self) -> &Path {
        &self.dynamic
    }

    /// Copies everything again, now. What can't be used leaves the old in force.
    pub(in crate::cli) fn reload(&self) {
        match self.copy() {
            Ok(()) => info!("Certificates and keys were read again for Traefik"),
            Err(reason) => error!("The old certificates and keys stay in force for Traefik: {reason}"),
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
        let place = |setting: &str| self.copies.join(format!("{setting}.pem"));
        for (setting, path) in &sources {
            let bytes = read(path, BYTES_MAX)
                .map_err(|error| format!("--{setting}: {} can't be read: {error}", path.display()))?;
            folder::replace(&place(setting), bytes, SECRET_MODE).map_err(|error| error.to_string())?;
        }
        let pair = match &self.config.public.tls {
            Some(tls) => Pair { certificate: tls.cert.clone(), key: tls.key.clone(), kept: true },
            None => folder::default_certificate(&self.copies, SystemClock.now()).map_err(|error| error.to_string())?,
        };
        let seen_by_traefik = |path: &Path| {
            let copy = sources.iter().find(|(_, source)| *source == path).map(|(setting, _)| place(setting));
            copy.unwrap_or_else(|| path.to_owned()).display().to_string()
        };
        let mut file = wiring::dynamic_file(&self.config, &pair, seen_by_traefik);
        file.own = Some(self.own.clone());
        let path = self.dynamic.join("pointsman.yaml");
        folder::replace(&path, file.to_yaml(), SECRET_MODE).map_err(|error| error.to_string())?;
        *self.installed.lock().unwrap_or_else(PoisonError::into_inner) = before;
        Ok(())
    }
}
