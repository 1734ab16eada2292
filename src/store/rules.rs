//! What every store refuses, said in one place, so that a test against memory finds what etcd would refuse.

use std::collections::BTreeSet;

use super::{Guard, Op, StoreError, Txn, TxnLimits};

/// What etcd takes unless it is told otherwise: `--max-txn-ops 128`, and 1.5 MiB a request, of which we use a part.
pub const DEFAULT_LIMITS: TxnLimits = TxnLimits { ops_max: 128, bytes_max: 1024 * 1024 };

/// Refuses a transaction that etcd would refuse, or that is larger than `limits`.
pub fn check_txn(txn: &Txn, limits: TxnLimits) -> Result<(), StoreError> {
    // etcd counts operations and comparisons apart.
    let compared = txn.guards.len() + txn.guards.iter().filter(|guard| guard.value.is_some()).count();
    for (what, count) in [("operations", txn.ops.len()), ("guards", compared)] {
        if count > limits.ops_max {
            return refuse(format!("a transaction of {count} {what}, and the limit is {}", limits.ops_max));
        }
    }
    let bytes = txn.ops.iter().map(op_bytes).sum::<usize>() + txn.guards.iter().map(guard_bytes).sum::<usize>();
    if bytes > limits.bytes_max {
        return refuse(format!("a transaction of {bytes} bytes, and the limit is {}", limits.bytes_max));
    }
    for guard in &txn.guards {
        check_key(&guard.key)?;
    }
    check_overlaps(&txn.ops)
}

/// Refuses the empty key: etcd has none.
pub fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() { refuse("an empty key".to_owned()) } else { Ok(()) }
}

fn check_overlaps(ops: &[Op]) -> Result<(), StoreError> {
    let mut puts = BTreeSet::new();
    for op in ops {
        match op {
            Op::Put { key, .. } => {
                check_key(key)?;
                if !puts.insert(key.as_str()) {
                    return refuse(format!("the key {key} is put twice in one transaction"));
                }
            }
            Op::Delete { key } => check_key(key)?,
            Op::DeletePrefix { .. } => {}
        }
    }
    for op in ops {
        let clash = match op {
            Op::Put { .. } => None,
            Op::Delete { key } => puts.get(key.as_str()),
            Op::DeletePrefix { prefix } => {
                puts.range(prefix.as_str()..).next().filter(|key| key.starts_with(prefix.as_str()))
            }
        };
        if let Some(key) = clash {
            return refuse(format!("the key {key} is both put and deleted in one transaction"));
        }
    }
    Ok(())
}

fn guard_bytes(guard: &Guard) -> usize {
    guard.key.len() + guard.value.as_ref().map_or(0, Vec::len)
}

fn op_bytes(op: &Op) -> usize {
    match op {
        Op::Put { key, value } => key.len() + value.len(),
        Op::Delete { key } => key.len(),
        Op::DeletePrefix { prefix } => prefix.len(),
    }
}

fn refuse<T>(why: String) -> Result<T, StoreError> {
    Err(StoreError::Refused(why))
}
