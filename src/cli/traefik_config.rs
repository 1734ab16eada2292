//! `pointsman traefik-config`: the static configuration for Traefik that fits our settings, printed or written.

mod write;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Arg, ArgMatches, Command, value_parser};
use secrecy::ExposeSecret;
use tracing::info;

use self::write::write;
use super::signals::{Asked, Signals};
use super::{Exit, beside, complain, wiring};
use crate::api::{auth, pages};
use crate::child::binary;
use crate::config::{self, Config, EtcdConfig, Problems, TraefikApi};
use crate::telemetry::{LogFormat, LogLevel};
use crate::traefik::static_config::{
    ClientTls, EtcdProvider, FallbackProvider, Password, Private, Source, StaticConfig,
};
use crate::traefik::version::TraefikVersion;

const OPTIONS: &str = "Options of traefik-config";

/// The command's own options.
pub(super) fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).help_heading(OPTIONS)
    };
    Command::new("traefik-config").about("Print the static configuration for Traefik that fits these settings").args([
        option(
            "dir",
            "FOLDER",
            "Instead of printing, write FOLDER/traefik.yaml and FOLDER/dynamic/ with a default certificate; start \
             Traefik by: traefik --configFile FOLDER/traefik.yaml",
        )
        .value_parser(value_parser!(PathBuf)),
        option(
            "private-address",
            "HOST:PORT",
            "Where this Traefik's API listens [default: that of the first --traefik-api]",
        )
        .value_parser(config::check_socket_address),
        option(
            "traefik-version",
            "VERSION",
            "Write for this release [default: what `traefik version` says, else the newest known]",
        )
        .value_parser(value_parser!(TraefikVersion)),
        option("grace-seconds", "NUMBER", "How long Traefik finishes open requests after SIGTERM [default: 10]")
            .value_parser(value_parser!(u32)),
        option(
            "accept-seconds",
            "NUMBER",
            "How long Traefik takes new requests after SIGTERM, before that, until all balancers have heard [default: 0]",
        )
        .value_parser(value_parser!(u32)),
        option(
            "add-files",
            "FOLDER",
            "Copy the .yaml, .yml and .toml files of this folder, of your own, to FOLDER/dynamic/ of --dir",
        )
        .requires("dir")
        .value_parser(value_parser!(PathBuf)),
        option(
            "certificates",
            "WAY",
            "How Traefik gets certificates and keys. named: by the paths of the settings, once. copied: by copies in \
             FOLDER/certificates/ of --dir, which are checked first. followed: the same, and this stays and renews the \
             copies when the files change; what can't be used leaves the old ones in force [default: named]",
        )
        .value_parser(["named", "copied", "followed"]),
        option(
            "etcd-relay",
            "HOST:PORT",
            "Where this Traefik reaches etcd, if a `pointsman etcd-relay` stands beside it, as 127.0.0.1:2379 [default: \
             the members themselves]",
        )
        .value_parser(config::check_socket_address),
        option(
            "traefik-etcd-user",
            "NAME",
            "User of Traefik itself in etcd; it only reads [default: that of --etcd-user]",
        )
        .requires("traefik-etcd-password-file"),
        option("traefik-etcd-password-file", "FILE", "File with that user's password")
            .requires("traefik-etcd-user")
            .value_parser(value_parser!(PathBuf)),
    ])
}

/// How Traefik gets certificates and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certificates {
    /// By the paths of the settings.
    Named,
    /// By copies that were checked.
    Copied,
    /// The same, renewed for as long as this runs.
    Followed,
}

impl Certificates {
    fn of(options: &ArgMatches) -> Self {
        match options.get_one::<String>("certificates").map(String::as_str) {
            Some("copied") => Self::Copied,
            Some("followed") => Self::Followed,
            _ => Self::Named,
        }
    }
}

/// Prints or writes it; with certificates to follow, until a signal comes.
pub(super) async fn run(config: &Config, options: &ArgMatches) -> Exit {
    let plan = match plan(config, options) {
        Ok(plan) => plan,
        Err(problems) => {
            complain(&format!("pointsman: no configuration for Traefik can be written: {problems}"));
            return Exit::Configuration;
        }
    };
    if !is_supported(plan.version) && config.traefik.strict_versions {
        return Exit::Configuration;
    }
    if config.pages.url.is_some() && plan.fallback.is_none() {
        complain(
            "pointsman: mind that a Traefik with this configuration has no routes if it starts while etcd is away; with \
             the API's token (CONFIGPROXY_AUTH_TOKEN or --token-file) traefik-config adds what it takes",
        );
    }
    if Certificates::of(options) == Certificates::Followed {
        return beside::run(config, follow(config, options, plan)).await;
    }
    let done = match options.get_one::<PathBuf>("dir") {
        Some(dir) => write(dir, plan, config, options).map(|(text, _)| text),
        None => Ok(plan.to_yaml()),
    };
    match done.and_then(|text| io::stdout().write_all(text.as_bytes()).context("stdout can't be written")) {
        Ok(()) => Exit::Success,
        Err(error) => {
            complain(&format!("pointsman: {error:#}"));
            Exit::Failure
        }
    }
}

fn is_supported(version: TraefikVersion) -> bool {
    let floor = TraefikVersion::FLOOR;
    if version < floor {
        complain(&format!(
            "pointsman: Traefik {version} is older than {floor}, the oldest that is supported; update it"
        ));
    }
    version >= floor
}

/// Writes everything, then renews the copies of certificates until a signal to stop comes.
async fn follow(config: &Config, options: &ArgMatches, plan: StaticConfig) -> Result<(), beside::Failed> {
    let failed = |reason: String| (Exit::Failure, reason);
    let mut signals = Signals::listen().map_err(|error| failed(error.to_string()))?;
    let Some(dir) = options.get_one::<PathBuf>("dir") else { return Ok(()) };
    let (text, copies) = write(dir, plan, config, options).map_err(|error| failed(format!("{error:#}")))?;
    info!("{}", text.trim_end());
    let Some(copies) = copies.map(Arc::new) else { return Ok(()) };
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Reload => copies.reload(),
                Asked::Stop(name) => {
                    info!(signal = name, "Got {name}; stopping");
                    return Ok(());
                }
            },
            () = copies.clone().watch(|| true) => {}
        }
    }
}

/// From our settings to Traefik's.
fn plan(config: &Config, options: &ArgMatches) -> Result<StaticConfig, Problems> {
    let mut problems = Problems::none();
    let Some(etcd) = config.etcd() else {
        problems.add(
            "without etcd Pointsman starts and configures Traefik by itself; to let your own Traefik read from etcd, add \
             --etcd-endpoints",
        );
        return Err(problems);
    };
    let version = options.get_one("traefik-version").copied().or_else(|| binary::version(&binary::find(None).ok()?));
    let private_address = options.get_one::<String>("private-address").cloned();
    let plan = StaticConfig {
        version: version.unwrap_or(TraefikVersion::NEWEST_KNOWN),
        entry_points: entry_points(config, &mut problems),
        public: wiring::public_entry_points(config),
        private: Private::Open(private_address.unwrap_or_else(|| api_address(&config.traefik.apis[0], &mut problems))),
        accept: Duration::from_secs(options.get_one("accept-seconds").copied().map_or(0, u32::into)),
        grace: Duration::from_secs(options.get_one("grace-seconds").copied().map_or(10, u32::into)),
        source: Source::Etcd(provider(config, etcd, options, &mut problems)),
        fallback: fallback(config, &mut problems),
        dynamic_folder: None,
        // Never DEBUG: Traefik would print its configuration, with keys.
        log_level: config.log.level.max(LogLevel::Info).to_string().to_uppercase(),
        log_json: config.log.format == LogFormat::Json,
    };
    if !options.contains_id("dir") && Certificates::of(options) != Certificates::Named {
        problems.add("--certificates: copies need a place; say where by --dir FOLDER");
    }
    if !options.contains_id("dir") && wiring::needs_dynamic_file(config) {
        problems.add(
            "certificates for users, and how servers are reached, stand in a second file; write both with --dir FOLDER",
        );
    }
    let mut addresses: Vec<&String> = plan.entry_points.iter().map(|(_, address)| address).collect();
    let (Private::Open(private) | Private::Keyed(private)) = &plan.private;
    addresses.push(private);
    addresses.extend(plan.public.redirect.iter().map(|(address, _)| address));
    addresses.sort();
    if let Some([twice, ..]) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
        problems.add(format!("two entry points have the address {twice}; give each its own"));
    }
    problems.or(plan)
}

fn entry_points(config: &Config, problems: &mut Problems) -> Vec<(String, String)> {
    let first = wiring::address(&config.public.listen);
    let mut defaults = std::iter::once(first);
    let mut found = Vec::new();
    for entry_point in &config.traefik.entry_points {
        match entry_point.address.clone().or_else(|| defaults.next()) {
            Some(address) => found.push((entry_point.name.clone(), address)),
            None => problems.add(format!(
                "--entry-point: '{name}' needs an address; write --entry-point {name}=HOST:PORT",
                name = entry_point.name
            )),
        }
    }
    found
}

/// Where the Traefik behind an API address has to listen for it.
fn api_address(api: &TraefikApi, problems: &mut Problems) -> String {
    match api {
        TraefikApi::Dns { port, .. } => format!(":{port}"),
        TraefikApi::Url(url) if url.scheme() == "http" && url.path() == "/" => {
            format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(80))
        }
        TraefikApi::Url(url) => {
            problems.add(format!(
                "--traefik-api: {url} is the address of something in front of Traefik's API; say where the API itself \
                 listens, as --private-address 127.0.0.1:8099"
            ));
            String::new()
        }
    }
}

/// Where the Traefik asks that has no routes from etcd. Its key follows from the first token.
fn fallback(config: &Config, problems: &mut Problems) -> Option<FallbackProvider> {
    let url = config.pages.url.as_ref()?;
    let tokens = config.auth.tokens().map_err(|more| problems.add(more.to_string())).ok()?;
    let key = auth::fallback_key(tokens.first()?);
    Some(FallbackProvider {
        endpoint: format!("{}{}", url.as_str().trim_end_matches('/'), pages::fallback::PATH),
        key_header: pages::fallback::KEY_HEADER,
        key: key.expose_secret().to_owned(),
    })
}

fn provider(config: &Config, etcd: &EtcdConfig, options: &ArgMatches, problems: &mut Problems) -> EtcdProvider {
    let EtcdConfig { endpoints, user, password_file, ca, cert, key, .. } = etcd;
    let user = options.get_one("traefik-etcd-user").or(user.as_ref());
    let file = options.get_one("traefik-etcd-password-file").or(password_file.as_ref());
    let login = user.zip(file).map(|(user, file)| {
        // A password is written into a file that only its owner may read, and never printed.
        let password = if options.contains_id("dir") { password(file, problems) } else { Password::Placeholder };
        (user.clone(), password)
    });
    let path = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
    let tls = endpoints
        .iter()
        .any(|endpoint| endpoint.starts_with("https://"))
        .then(|| ClientTls { ca: ca.as_ref().map(path), pair: cert.as_ref().map(path).zip(key.as_ref().map(path)) });
    let bare = |endpoint: &String| endpoint.split_once("://").map_or(endpoint.clone(), |(_, rest)| rest.to_owned());
    let relay = options.get_one::<String>("etcd-relay");
    EtcdProvider {
        endpoints: relay.map_or_else(|| endpoints.iter().map(bare).collect(), |relay| vec![relay.clone()]),
        root_key: config.traefik.root_key.clone(),
        login,
        tls,
    }
}

fn password(file: &Path, problems: &mut Problems) -> Password {
    match config::secrets::password(file) {
        Ok(password) => Password::Text(password.expose_secret().to_owned()),
        Err(error) => {
            problems.add(format!("{} {error}", file.display()));
            Password::Placeholder
        }
    }
}
