//! A member of a bundled etcd, before its etcd starts: does it go on with its data, join the others anew, or begin a new
//! cluster with them? `docs/etcd-members.md` says for users what happens when.
//!
//! `decide` is the whole of the judgement, and pure: from a `situation` to one step. Around it `run` looks, and does the
//! step: by `home` on the volume, by `peers` at the other members, by `store::etcd` at the cluster. What a member notes on
//! its volume and tells the others while it waits is in `note`; `members` knows who there should be, `wal` whose a data
//! directory is, `config_file` what etcd is told.
//!
//! Three things are never done. A cluster is begun only when every member has said that it is empty, so there is never a
//! second one. No number of a member is used again after its directory was lost, for it has promised things that the next
//! directory wouldn't know. And no data are removed but those of a member that a living cluster has gone on without.

pub mod config_file;
pub mod decide;
pub mod home;
pub mod members;
pub mod note;
pub mod peers;
pub mod run;
pub mod situation;
pub mod wal;
