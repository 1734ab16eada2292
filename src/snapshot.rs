//! The snapshot: the routes on local disk, as they were last read from the store.
//!
//! ```text
//! {"format":1,"sha256":"9f86…","snapshot":{"prefix":"pointsman/hub/","epoch":"k3f9","n":7,…,"routes":[{"v":1,…}]}}
//! ```
//!
//! A second opinion for times without a store, never a source of truth: nothing of it is ever written to the store.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::route::RouteTable;
use crate::route::record::{Head, Record};

pub use folder::{Folder, Stored};

mod folder;

/// The version of the format that this program writes; it reads this one only.
const FORMAT: u32 = 1;

/// All routes at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The last record change in it.
    pub head: Head,
    /// The revision of the store that it was read at.
    pub revision: i64,
    /// The highest revision of the store that was ever seen; more than `revision` if the store went back since.
    pub highest_revision: i64,
    /// When it was true.
    pub taken: Timestamp,
    /// The routes.
    pub table: Arc<RouteTable>,
}

/// Whose routes a snapshot holds: another installation's are not for us, even if somebody gives both the same folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The prefix of the records in the store.
    pub prefix: String,
    /// The name of the installation, if it has one.
    pub installation: Option<String>,
}

/// Why a file is no snapshot for us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// No snapshot at all, or not all of one.
    #[error("it is not a whole snapshot: {0}")]
    Json(String),
    /// Written by a version of Pointsman that uses another format.
    #[error("it has format {0}, and this version of Pointsman reads format {FORMAT}")]
    Format(u32),
    /// Its content was changed after it was written.
    #[error("it is damaged: its digest does not fit")]
    Digest,
    /// Another installation's.
    #[error("it holds the routes of {0}")]
    Foreign(String),
    /// A field is refused.
    #[error("its {field} is refused: {reason}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Why.
        reason: String,
    },
}

/// What stands around the body, whose digest it has: from the beginning to the digest, from there to the body, and the end.
const ENVELOPE: [&str; 3] = [r#"{"format":1,"sha256":""#, r#"","snapshot":"#, "}"];

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    prefix: String,
    installation: Option<String>,
    epoch: String,
    n: u64,
    nonce: String,
    revision: i64,
    highest_revision: i64,
    taken: Timestamp,
    #[serde(borrow)]
    routes: Vec<Record<'a>>,
}

impl Snapshot {
    /// What is written to disk.
    ///
    /// # Panics
    ///
    /// Never: a snapshot is made of text, numbers and records, which can always be written.
    #[must_use]
    pub fn encode(&self, owner: &Owner) -> Vec<u8> {
        let body = Body {
            prefix: owner.prefix.clone(),
            installation: owner.installation.clone(),
            epoch: self.head.epoch.clone(),
            n: self.head.n,
            nonce: self.head.nonce.clone(),
            revision: self.revision,
            highest_revision: self.highest_revision,
            taken: self.taken,
            routes: self.table.iter().map(|route| Record::of(route)).collect(),
        };
        let body = serde_json::to_string(&body).expect("a snapshot is made of text, numbers and records");
        let [begin, middle, end] = ENVELOPE;
        [begin, &sha256(&body), middle, &body, end, "\n"].concat().into_bytes()
    }

    /// Reads what was written to disk.
    pub fn decode(bytes: &[u8], owner: &Owner) -> Result<Self, SnapshotError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let json = |e: serde_json::Error| SnapshotError::Json(e.to_string());
        let version: Version = serde_json::from_slice(bytes).map_err(json)?;
        if version.format != FORMAT {
            return Err(SnapshotError::Format(version.format));
        }
        let (digest, body) = open_envelope(bytes).ok_or_else(|| SnapshotError::Json("it ends early".to_owned()))?;
        if digest != sha256(body) {
            return Err(SnapshotError::Digest);
        }
        let body: Body<'_> = serde_json::from_str(body).map_err(json)?;
        let theirs = Owner { prefix: body.prefix, installation: body.installation };
        if theirs != *owner {
            let name = theirs.installation.map(|name| format!(" of the installation {name:?}")).unwrap_or_default();
            return Err(SnapshotError::Foreign(format!("the prefix {:?}{name}", theirs.prefix)));
        }
        let head = format!("1 {} {} {}", body.epoch, body.n, body.nonce);
        let head =
            Head::parse(head.as_bytes()).map_err(|e| SnapshotError::Field { field: "head", reason: e.to_string() })?;
        let routes = body.routes.into_iter().map(Record::into_route);
        let table = routes
            .collect::<Result<RouteTable, _>>()
            .map_err(|e| SnapshotError::Field { field: "route", reason: e.to_string() })?;
        Ok(Self {
            head,
            revision: body.revision,
            highest_revision: body.highest_revision,
            taken: body.taken,
            table: Arc::new(table),
        })
    }
}

/// The digest and the body, each as it is written.
fn open_envelope(bytes: &[u8]) -> Option<(&str, &str)> {
    let [begin, middle, end] = ENVELOPE;
    let text = std::str::from_utf8(bytes).ok()?.trim_end();
    text.strip_prefix(begin)?.strip_suffix(end)?.split_once(middle)
}

fn sha256(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests;
