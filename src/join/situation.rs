//! What a member knows before it decides.

use std::collections::BTreeMap;

use super::members::Members;
use super::note::{Card, Note};
use super::wal::Identity;
use crate::store::etcd::{ClusterMember, Membership};

/// What is in the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directory {
    /// Nothing that etcd could go on with, and nothing that it ever promised anybody.
    Empty,
    /// The data of this member.
    Of(Identity),
    /// Data that etcd can't use, and why.
    Damaged(String),
}

/// What another member has shown of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing, and why.
    Silent(String),
    /// It waits as we do.
    Waiting(Card),
    /// Its etcd runs, with a quorum or without.
    Running(View),
}

/// What an etcd says of its cluster without asking the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The number of its cluster.
    pub cluster_id: u64,
    /// The members that it knows of.
    pub members: Vec<ClusterMember>,
}

/// All that a member knows before it decides.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// Its name.
    pub me: &'a str,
    /// Who there should be.
    pub members: &'a Members,
    /// What is on its volume.
    pub directory: Directory,
    /// What it has noted there.
    pub note: Note,
    /// Every other member.
    pub others: BTreeMap<String, Seen>,
    /// The cluster, if it has a quorum; otherwise why it can't be asked.
    pub cluster: Result<Membership, String>,
    /// The others have been asked for long enough to believe that they are away.
    pub patient: bool,
    /// What the names of volume claims begin with, before `-` and the member's name; `None`: volumes end with their pods.
    pub claims: Option<&'a str>,
}
