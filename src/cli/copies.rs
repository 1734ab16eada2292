//! The administrator's certificates, as a Traefik beside us sees them: copies that belong together, renewed when the files change.
//!
//! Traefik reads a certificate only when the file that names it changes, and may find a new certificate beside an old
//! key. So it gets copies, which are checked first, and the file that names them is written again after them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{error, info, warn};

use super::wiring;
use crate::api::listen::tls::check_pair;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::files::{Stamp, read};
use crate::lifecycle::compute;
use crate::traefik::dynamic_file::Own;
use crate::traefik::folder::{self, Kept, PUBLIC_MODE, Pair, SECRET_MODE};

/// How often the files are looked at. A change is used once it has stood for as long: the second file may still come.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often it is looked whether the copies are still there.
const RESTORE_INTERVAL: Duration = Duration::from_millis(500);

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
    /// What was written.
    kept: Kept,
    /// Something was written that Traefik may not have noticed: it doesn't see what comes into a folder that was removed and
    /// made again.
    unseen: AtomicBool,
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
        let (installed, kept, unseen) = (Mutex::new(Stamp::of([])), Kept::default(), AtomicBool::new(false));
        Ok(Self { config: config.clone(), certificates, dynamic, own, installed, kept, unseen })
    }

    /// What Traefik watches.
    pub(super) fn dynamic_folder(&self) -> &Path {
        &self.dynamic
    }

    fn dynamic_file(&self) -> PathBuf {
        self.dynamic.join(DYNAMIC_FILE)
    }

    /// Writes one more file for Traefik, and keeps it with the others.
    pub(super) fn add(&self, path: &Path, text: &str) -> Result<(), String> {
        self.kept.replace(path, text, SECRET_MODE).map_err(|error| error.to_string())
    }

    /// Before a Traefik is started: it will find all files, and has seen everything then.
    pub(super) fn prepare_start(&self) {
        self.restore();
        self.unseen.store(false, Ordering::Relaxed);
    }

    /// Writes those of Traefik's files again that are missing, as they were.
    fn restore(&self) {
        match self.kept.restore() {
            Ok(missing) if missing.is_empty() => {}
            Ok(missing) => {
                self.unseen.store(true, Ordering::Relaxed);
                let missing: Vec<_> = missing.iter().map(|path| path.display().to_string()).collect();
                warn!("Files of Traefik's were removed; they are written again as they were: {}", missing.join(", "));
            }
            Err(error) => error!(%error, "Files of Traefik's were removed, and can't be written again: {error}"),
        }
    }

    /// Copies everything again, now. What can't be used leaves the old in force.
    pub(super) fn reload(&self) {
        // Else a default certificate that was removed would be made anew.
        self.restore();
        match self.copy() {
            Ok(()) => info!("Certificates and keys were read again for Traefik"),
            Err(reason) => stay(&reason),
        }
    }

    /// Copies what has changed, and writes again what is missing, for ever. `read_again` asks Traefik to read everything
    /// again, and says whether it could.
    pub(super) async fn watch(self: Arc<Self>, read_again: impl Fn() -> bool) {
        tokio::join!(self.clone().follow(), self.guard(read_again));
    }

    async fn guard(self: Arc<Self>, read_again: impl Fn() -> bool) {
        loop {
            sleep(RESTORE_INTERVAL).await;
            let copies = self.clone();
            compute(true, move || copies.restore()).await;
            if self.unseen.load(Ordering::Relaxed) && read_again() {
                self.unseen.store(false, Ordering::Relaxed);
            }
        }
    }

    async fn follow(self: Arc<Self>) {
        let mut last = None;
        loop {
            let copies = self.clone();
            last = Some(compute(true, move || copies.poll(last)).await);
            sleep(INTERVAL).await;
        }
    }

    /// Copies the files if they have changed and then stood as they were at the last look. Returns how they look now.
    fn poll(&self, last: Option<Stamp>) -> Stamp {
        let now = self.stamp();
        let is_new = now != *self.installed.lock().unwrap_or_else(PoisonError::into_inner);
        if is_new && last.is_some_and(|last| last == now) {
            self.reload();
            // Also what can't be used isn't tried again until it changes.
            now.clone_into(&mut self.installed.lock().unwrap_or_else(PoisonError::into_inner));
        }
        now
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
            self.kept.replace(&place(setting), bytes, SECRET_MODE).map_err(|error| error.to_string())?;
        }
        let pair = match &self.config.public.tls {
            Some(tls) => Pair { certificate: tls.cert.clone(), key: tls.key.clone(), kept: true },
            None => self.default_pair().map_err(|error| error.to_string())?,
        };
        let seen_by_traefik = |path: &Path| {
            let copy = sources.iter().find(|(_, source)| *source == path).map(|(setting, _)| place(setting));
            copy.unwrap_or_else(|| path.to_owned()).display().to_string()
        };
        let mut file = wiring::dynamic_file(&self.config, &pair, seen_by_traefik);
        file.own.clone_from(&self.own);
        self.kept.replace(&self.dynamic_file(), file.to_yaml(), SECRET_MODE).map_err(|error| error.to_string())?;
        self.unseen.store(true, Ordering::Relaxed);
        *self.installed.lock().unwrap_or_else(PoisonError::into_inner) = before;
        Ok(())
    }

    fn default_pair(&self) -> Result<Pair, folder::FolderError> {
        let pair = folder::default_certificate(&self.certificates, SystemClock.now())?;
        self.kept.keep(&pair.certificate, PUBLIC_MODE)?;
        self.kept.keep(&pair.key, SECRET_MODE)?;
        Ok(pair)
    }
}

fn stay(reason: &str) {
    error!("The old certificates and keys stay in force for Traefik: {reason}");
}
