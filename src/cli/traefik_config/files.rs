//! The folder that `traefik-config --dir` writes: static configuration, default certificate, and what names it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use jiff::ToSpan as _;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

use crate::clock::{Clock as _, SystemClock};
use crate::traefik::static_config::{Password, StaticConfig, certificate_yaml};

/// Nobody but the owner: the folder holds a private key, and perhaps a password.
const FOLDER_MODE: u32 = 0o700;
const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

/// How long the default certificate is good. Browsers don't trust it anyway; it only saves Traefik the making of one.
const CERTIFICATE_YEARS: i32 = 10;

/// Writes everything, and says what it wrote. A certificate that is there is kept.
pub(super) fn write(dir: &Path, mut plan: StaticConfig) -> anyhow::Result<String> {
    let folder = dir.join("dynamic");
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder)?;
    // Traefik resolves relative paths against its own working folder.
    let (dir, folder) = (dir.canonicalize()?, folder.canonicalize()?);
    let (certificate, key) = (folder.join("default.crt"), folder.join("default.key"));
    let kept = match (certificate.exists(), key.exists()) {
        (true, true) => true,
        (false, false) => {
            let today = SystemClock.now().to_zoned(TimeZone::UTC).date();
            let (certificate_pem, key_pem) = self_signed(today)?;
            replace(&key, &key_pem, SECRET_MODE)?;
            replace(&certificate, &certificate_pem, PUBLIC_MODE)?;
            false
        }
        (there, _) => {
            let (one, other) = if there { (&certificate, &key) } else { (&key, &certificate) };
            bail!(
                "{} is there but {} isn't; put it back, or remove the first to get a new pair",
                one.display(),
                other.display()
            );
        }
    };
    let names = certificate_yaml(&certificate.display().to_string(), &key.display().to_string());
    replace(&folder.join("certificate.yaml"), &names, PUBLIC_MODE)?;
    plan.dynamic_folder = Some(folder.display().to_string());
    let has_password = plan.etcd.login.as_ref().is_some_and(|(_, password)| *password != Password::Placeholder);
    let main = dir.join("traefik.yaml");
    replace(&main, &plan.to_yaml(), if has_password { SECRET_MODE } else { PUBLIC_MODE })?;
    Ok(format!(
        "Wrote {main} for Traefik {version}; {certificate} {done}.\nStart Traefik as their owner: traefik --configFile {main}\n",
        main = main.display(),
        version = plan.version,
        certificate = certificate.display(),
        done = if kept { "was there and is kept" } else { "is new" },
    ))
}

/// A certificate and its key, in PEM.
fn self_signed(today: Date) -> anyhow::Result<(String, String)> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "Pointsman default certificate");
    params.distinguished_name = name;
    // A day early, for clocks that are slow.
    let (year, month, day) = numbers(today.checked_sub(1.day())?)?;
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = numbers(today.checked_add(CERTIFICATE_YEARS.years())?)?;
    params.not_after = date_time_ymd(year, month, day);
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn numbers(date: Date) -> anyhow::Result<(i32, u8, u8)> {
    Ok((date.year().into(), u8::try_from(date.month())?, u8::try_from(date.day())?))
}

/// Puts a whole file in the place of another, so that nobody ever reads half of one.
fn replace(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut name = path.file_name().context("a file needs a name")?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)
        .and_then(|mut file: File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written.with_context(|| path.display().to_string())
}
