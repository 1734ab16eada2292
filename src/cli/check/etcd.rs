//! etcd: is every member there and new enough, may we write, and what lies below our prefixes?

mod members;
mod records;

use super::report::Report;
use super::traefik::InStore;
use crate::cli::wiring;
use crate::config::{Config, EtcdConfig};
use crate::route::record::{Head, RecordKeys};
use crate::store::etcd::EtcdStore;
use crate::store::{Commit, Guard, Op, Store, StoreError, Txn};
use crate::traefik::fixed::MARKER_KEY;
use crate::traefik::marker::{LAYOUT, Marker};
use crate::traefik::tree::Tree;

/// Keys that are named one by one.
const NAMED_MAX: usize = 5;

/// A revision that no key ever has.
const NEVER: i64 = i64::MAX;

/// Looks at the members, our rights and the contents; says what Traefik should be serving.
pub(super) async fn check(config: &Config, etcd: &EtcdConfig, report: &mut Report) -> InStore {
    let store = match EtcdStore::connect(wiring::etcd_settings(etcd)).await {
        Ok(store) => store,
        Err(error) => {
            report.problem("etcd", error);
            return InStore::Unknown;
        }
    };
    if members::check(&store.status().await, config.traefik.strict_versions, report) {
        contents(&store, config, report).await
    } else {
        InStore::Unknown
    }
}

/// Our rights, and what lies below our prefixes.
async fn contents(store: &dyn Store, config: &Config, report: &mut Report) -> InStore {
    let part = "etcd";
    let records = RecordKeys::new(config.prefix());
    let root_key = &config.traefik.root_key;
    let marker_key = format!("{root_key}/{MARKER_KEY}");
    let mut good = true;
    for (key, flag) in [(records.head(), "--etcd-prefix"), (marker_key, "--traefik-root-key")] {
        good &= may_write(store, &key, flag, part, report).await;
    }
    if !good {
        return InStore::Unknown;
    }
    match store.get(&records.head()).await {
        Ok(read) => match read.entry.map(|entry| Head::parse(&entry.value)) {
            None => report.ok(part, format_args!("no routes were ever written below '{}'", records.prefix())),
            Some(Ok(head)) => report.ok(part, format_args!("holds our routes, up to change {}", head.n)),
            Some(Err(error)) => report.problem(
                part,
                format_args!(
                    "{}: {error}; another version of Pointsman wrote it, or something else did",
                    records.head()
                ),
            ),
        },
        Err(error) => report.problem(part, advice(&error)),
    }
    if let Some(quarrel) = quarrel(store, config, &records).await {
        report.problem(part, quarrel);
    }
    records::check(store, &records, part, report).await;
    // Traefik lists by the raw text, so a key such as `traefik2/x` concerns it as well.
    match store.list(root_key).await {
        Ok(listing) => {
            let (mut tree, mut foreign) = (Tree::default(), Vec::new());
            let prefix = format!("{root_key}/");
            for entry in &listing.entries {
                match entry.key.strip_prefix(&prefix) {
                    Some(key) => tree.put(key, &String::from_utf8_lossy(&entry.value), entry.mod_revision),
                    None => foreign.push(entry.key.clone()),
                }
            }
            foreign.extend(tree.foreign.keys().map(|key| format!("{prefix}{key}")));
            foreign_keys(&foreign, root_key, part, report);
            tree.marker.map_or(InStore::Nothing, |marker| {
                layout(&marker, config, part, report);
                InStore::Marker(marker)
            })
        }
        Err(error) => {
            report.problem(part, advice(&error));
            InStore::Unknown
        }
    }
}

/// Why the routes are not ours to change, if they are somebody else's.
async fn quarrel(store: &dyn Store, config: &Config, keys: &RecordKeys) -> Option<String> {
    let found = store.get(&keys.installation()).await.ok()?.entry?;
    wiring::owner(config)?.quarrel(keys.prefix(), &found.key, &found.value)
}

/// etcd checks the rights for a transaction before its conditions, so one that can't happen tells whether it may.
async fn may_write(store: &dyn Store, key: &str, flag: &str, part: &str, report: &mut Report) -> bool {
    let never = Guard::at(key, NEVER);
    let txn = Txn { guards: vec![never], ops: vec![Op::Put { key: key.to_owned(), value: Vec::new() }] };
    match store.commit(txn).await {
        Ok(Commit::Conflict(_)) => {
            report.ok(part, format_args!("we may write {key}"));
            true
        }
        Ok(Commit::Done(_)) => {
            report.problem(part, format_args!("a transaction that must not happen did, on {key}; this is no etcd"));
            false
        }
        Err(StoreError::Refused(why)) => {
            report.problem(
                part,
                format_args!("we may not write {key} ({why}); correct --etcd-user and its role, or {flag}"),
            );
            false
        }
        Err(error) => {
            report.problem(part, advice(&error));
            false
        }
    }
}

fn foreign_keys(foreign: &[String], root_key: &str, part: &str, report: &mut Report) {
    if foreign.is_empty() {
        return report.ok(part, format_args!("nothing but our keys lies below '{root_key}'"));
    }
    let named = named(foreign);
    report.warning(
        part,
        format_args!(
            "keys that are none of ours lie below Traefik's root key '{root_key}': {named}; one that Traefik can't \
             read stops every change, so remove them, or start pointsman with --own-root-key, or choose another \
             --traefik-root-key"
        ),
    );
}

/// Some of the keys, for a sentence.
fn named(keys: &[String]) -> String {
    let named = keys.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match keys.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn layout(stored: &Marker, config: &Config, part: &str, report: &mut Report) {
    let ours = wiring::control_settings(config, wiring::tree_settings(config)).digest();
    if stored.layout < LAYOUT {
        report.warning(
            part,
            format_args!(
                "Traefik's keys have layout {}, of an older version: a pointsman of this version writes layout {LAYOUT} over them",
                stored.layout
            ),
        );
    } else if stored.layout > LAYOUT {
        report.warning(
            part,
            format_args!(
                "Traefik's keys have layout {}, and this version writes layout {LAYOUT}: it leaves them alone unless \
                 --adopt-layout is given",
                stored.layout
            ),
        );
    } else if stored.digest != ours {
        report.warning(
            part,
            "Traefik's keys were written with other settings than these (--entry-point, --host-routing or --pages-url): \
             a pointsman with these leaves them alone unless --adopt-layout is given",
        );
    }
}

/// An error, and what to do about it.
fn advice(error: &StoreError) -> String {
    match error {
        // Some errors say already which setting to look at.
        StoreError::Unavailable(why) | StoreError::Refused(why) if why.contains("--etcd-") => error.to_string(),
        StoreError::Unavailable(_) => format!("{error}; start it, or correct --etcd-endpoints"),
        StoreError::Refused(_) => format!("{error}; look at --etcd-user, --etcd-password-file and the user's role"),
        StoreError::Compacted(_) => error.to_string(),
    }
}
