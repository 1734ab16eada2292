//! The records: can each of them be read, and does nothing else lie among them?

use super::{advice, named};
use crate::cli::check::report::Report;
use crate::route::record::{self, RecordKeys};
use crate::store::Store;

/// Reads all of them.
pub(super) async fn check(store: &dyn Store, keys: &RecordKeys, part: &str, report: &mut Report) {
    let listing = match store.list(keys.prefix()).await {
        Ok(listing) => listing,
        Err(error) => return report.problem(part, advice(&error)),
    };
    let (mut unreadable, mut foreign) = (Vec::new(), Vec::new());
    for entry in listing.entries {
        if keys.spec(&entry.key).is_some() {
            if let Err(error) = record::decode(keys, &entry.key, &entry.value) {
                unreadable.push(format!("{} ({error})", entry.key));
            }
        } else if entry.key != keys.head() && entry.key != keys.installation() {
            foreign.push(entry.key);
        }
    }
    if !unreadable.is_empty() {
        report.problem(
            part,
            format_args!(
                "records that can't be read, so that their routes stay as they were: {}; add each route again, or delete it",
                named(&unreadable)
            ),
        );
    }
    if !foreign.is_empty() {
        let (prefix, named) = (keys.prefix(), named(&foreign));
        report.warning(part, format_args!("keys that are none of ours lie below '{prefix}': {named}; remove them"));
    }
}
