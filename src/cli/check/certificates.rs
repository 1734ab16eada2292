//! The certificates that settings name: does each fit its key, and is it good today?

use std::path::Path;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::report::Report;
use super::validity::validity;
use crate::api::listen::tls::check_pair;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;

/// A certificate with so few days left should have been renewed by now.
const SOON_DAYS: i64 = 14;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Looks at each pair.
pub(super) fn check(config: &Config, report: &mut Report) {
    let now = SystemClock.now();
    let mut pairs: Vec<(&str, &Path, &Path)> = Vec::new();
    for (flags, tls) in [("--ssl", &config.public.tls), ("--api-ssl", &config.api.tls)] {
        pairs.extend(tls.as_ref().map(|tls| (flags, tls.cert.as_path(), tls.key.as_path())));
    }
    let client = config.servers.client_pair.as_ref();
    pairs.extend(client.map(|(cert, key)| ("--client-ssl", cert.as_path(), key.as_path())));
    for (flags, cert, key) in pairs {
        let part = format!("certificate {}", cert.display());
        match check_pair(flags, cert, key) {
            Ok(()) => dates(cert, now, &part, report),
            Err(error) => report.problem(&part, error),
        }
    }
}

fn dates(cert: &Path, now: Timestamp, part: &str, report: &mut Report) {
    // The first one is the server's own; those that come after it are its authorities'.
    let first = CertificateDer::pem_file_iter(cert).ok().and_then(|mut all| all.next()?.ok());
    let Some((from, until)) = first.and_then(|der| validity(&der)) else {
        return report.warning(part, "it can't be seen until when it is good");
    };
    let day = |time: Timestamp| time.strftime("%Y-%m-%d").to_string();
    let left = (until.as_second() - now.as_second()) / DAY_SECONDS;
    if until < now {
        report.problem(part, format_args!("it expired on {}; renew it: browsers and hubs refuse it", day(until)));
    } else if from > now {
        report
            .problem(part, format_args!("it is not good before {}; wait, or look at this machine's clock", day(from)));
    } else if left < SOON_DAYS {
        report.warning(part, format_args!("it expires on {}, in {left} days; renew it", day(until)));
    } else {
        report.ok(part, format_args!("fits its key and is good until {}", day(until)));
    }
}
