//! Notes: what a replica without the lease knows beyond the checkpoint, and tells in a key of its own.

use std::collections::{BTreeMap, HashMap};

use tokio::time::timeout;
use tracing::debug;

use super::{Chunk, Keeper, Op, STOP_PATIENCE, Txn, chunk_of};
use crate::route::{RouteSpec, RouteTable};

/// So many routes fit in a note; the others have their turn when these are in the checkpoint.
const NOTED_MAX: usize = 10_000;

impl Keeper {
    /// Tells what we know beyond the checkpoint, for we don't have the lease and can't write it there.
    pub(in crate::activity) async fn note(&self, table: &RouteTable, names: &HashMap<RouteSpec, Box<str>>) {
        let routes = self.untold(table, names);
        if routes.is_empty() || !self.is_loaded() {
            return;
        }
        let chunk = Chunk { routes, ..Chunk::default() };
        let put = Op::Put { key: self.note_key.clone(), value: chunk.encode().into_bytes() };
        match self.store.commit(Txn { guards: Vec::new(), ops: vec![put] }).await {
            Ok(_) => drop(self.lock().notes.insert(self.note_key.clone(), chunk.routes)),
            Err(error) => debug!(%error, "Uses of routes can't be told to the other replicas: {error}; trying again"),
        }
    }

    /// The same, now, for we stop.
    pub(in crate::activity) async fn note_last(&self, table: &RouteTable, names: &HashMap<RouteSpec, Box<str>>) {
        let _ = timeout(STOP_PATIENCE, self.note(table, names)).await;
    }

    /// What nobody has been told; with what stands in our note, if there is any of it, for that is written anew.
    fn untold(&self, table: &RouteTable, names: &HashMap<RouteSpec, Box<str>>) -> BTreeMap<Box<str>, i64> {
        // The same order as elsewhere: first ours, then that of what is known.
        let kept = self.lock();
        let known = self.activity.read();
        let beyond = |notes: &dyn Fn(&str) -> bool| {
            let mut found = BTreeMap::new();
            for route in table.iter() {
                let Some(name) = names.get(&route.spec) else { continue };
                let Some(at_ms) = known.last.get(name) else { continue };
                let in_chunk = kept.chunks[chunk_of(name)].chunk.routes.get(name);
                let in_notes =
                    kept.notes.iter().filter(|(key, _)| notes(key)).filter_map(|(_, routes)| routes.get(name));
                // A route was used at its POST; all know that from its record.
                let told = in_notes.chain(in_chunk).copied().fold(route.created.as_millisecond(), i64::max);
                if *at_ms > told && found.len() < NOTED_MAX {
                    found.insert(name.clone(), *at_ms);
                }
            }
            found
        };
        if beyond(&|_| true).is_empty() { BTreeMap::new() } else { beyond(&|key| key != self.note_key) }
    }
}
