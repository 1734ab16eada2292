//! What `traefik-config` writes: a folder with everything that Traefik reads beside its routes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::ArgMatches;

use super::Certificates;
use crate::cli::copies::{Copies, DYNAMIC_FILE};
use crate::cli::wiring;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, ServerTls};
use crate::traefik::folder::{self, PUBLIC_MODE, SECRET_MODE};
use crate::traefik::static_config::{EtcdProvider, Password, Source, StaticConfig};

/// Writes the folder, and says what it wrote. A certificate that is there is kept. Copies are returned, to be renewed.
pub(super) fn write(
    dir: &Path,
    plan: StaticConfig,
    config: &Config,
    options: &ArgMatches,
) -> anyhow::Result<(String, Option<Copies>)> {
    write_in(dir, plan, config, options).context(format!("{} can't be written", dir.display()))
}

fn write_in(
    dir: &Path,
    mut plan: StaticConfig,
    config: &Config,
    options: &ArgMatches,
) -> anyhow::Result<(String, Option<Copies>)> {
    let folder = folder::create(&dir.join("dynamic"))?;
    // Traefik resolves relative paths against its own working folder.
    let dir = dir.canonicalize()?;
    if let Some(own) = options.get_one::<PathBuf>("add-files") {
        add_files(own, &folder)?;
    }
    let (copies, certificate) = match (Certificates::of(options), &config.public.tls) {
        (Certificates::Named, tls) => (None, name_certificates(config, tls.as_ref(), &folder)?),
        (_, tls) => {
            let copies = Copies::take_over(config, &dir).map_err(anyhow::Error::msg)?;
            let shown = tls.as_ref().map_or("the default certificate".to_owned(), |tls| tls.cert.display().to_string());
            (Some(copies), format!("{shown} is copied"))
        }
    };
    plan.dynamic_folder = Some(folder.display().to_string());
    let has_password = matches!(
        &plan.source,
        Source::Etcd(EtcdProvider { login: Some((_, password)), .. }) if *password != Password::Placeholder
    );
    let main = dir.join("traefik.yaml");
    let has_secret = has_password || plan.fallback.is_some();
    folder::replace(&main, plan.to_yaml(), if has_secret { SECRET_MODE } else { PUBLIC_MODE })?;
    let text = format!(
        "Wrote {main} for Traefik {version}; {certificate}.\nStart Traefik as their owner: traefik --configFile {main}\n",
        main = main.display(),
        version = plan.version,
    );
    Ok((text, copies))
}

/// Writes the file that names the certificate for users, and says what became of that.
fn name_certificates(config: &Config, tls: Option<&ServerTls>, folder: &Path) -> anyhow::Result<String> {
    let pair = match tls {
        Some(tls) => folder::Pair {
            certificate: std::path::absolute(&tls.cert)?,
            key: std::path::absolute(&tls.key)?,
            kept: true,
        },
        None => folder::default_certificate(folder, SystemClock.now())?,
    };
    let file = wiring::dynamic_file(config, &pair, wiring::absolute);
    folder::replace(&folder.join(DYNAMIC_FILE), file.to_yaml(), PUBLIC_MODE)?;
    let done = if pair.kept { "was there and is kept" } else { "is new" };
    Ok(format!("{} {done}", pair.certificate.display()))
}

/// Copies files of the administrator's for Traefik's file provider. A mounted folder holds links, and links to folders.
fn add_files(from: &Path, folder: &Path) -> anyhow::Result<()> {
    let cannot = || format!("--add-files: {} can't be read", from.display());
    for entry in std::fs::read_dir(from).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let is_read = path.extension().is_some_and(|kind| ["yaml", "yml", "toml"].map(OsStr::new).contains(&kind));
        if !is_read || !path.is_file() {
            continue;
        }
        let name = path.file_name().unwrap_or_default();
        if name == DYNAMIC_FILE {
            bail!("--add-files: {} has the name of our own file; rename it", path.display());
        }
        let text = std::fs::read(&path).with_context(|| format!("--add-files: {} can't be read", path.display()))?;
        folder::replace(&folder.join(name), text, SECRET_MODE)?;
    }
    Ok(())
}
