//! The judgement: from a situation to the next step. Nothing else of this room decides anything.

use super::members::Members;
use super::note::{Incarnations, token};
use super::situation::{Directory, Seen, Situation};
use super::wal::Identity;
use crate::store::etcd::{ClusterMember, Membership};

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
mod words;

pub use words::RECORD_KEY;

/// The next step. After each but the first and the last the situation is looked at anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// etcd may start.
    Start(Start),
    /// The data directory is of no use to anybody: remove it, for this reason.
    Discard(String),
    /// Write into the cluster who its members are, before the first of them is replaced.
    Record,
    /// Take this entry of ours, whose data are lost, off the cluster's list.
    Remove(u64),
    /// Have ourselves taken in.
    Add,
    /// Note and tell that all members are empty, with these volumes.
    Agree(Incarnations),
    /// Nothing can be done yet, for this reason.
    Wait(String),
    /// Nothing can be done, until an administrator has done something.
    Refuse(String),
}

/// How etcd starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With the data that are there.
    AsItIs,
    /// As one of the members of a new cluster with this token.
    New(String),
    /// Empty, as one of these members of a cluster that is there.
    Joining(Members),
}

/// What to do next.
#[must_use]
pub fn decide(situation: &Situation<'_>) -> Step {
    let Some(url) = situation.members.url(situation.me) else {
        return Step::Refuse(words::not_a_member(situation));
    };
    match (&situation.directory, &situation.cluster) {
        (Directory::Of(identity), cluster) => go_on(situation, *identity, cluster.as_ref().ok()),
        (Directory::Damaged(why), Ok(_)) => {
            Step::Discard(format!("the data of this member are damaged ({why}), and the others have a quorum"))
        }
        (Directory::Damaged(why), Err(_)) => Step::Wait(words::damaged(situation, why)),
        (Directory::Empty, Ok(cluster)) => join(situation, url, cluster),
        (Directory::Empty, Err(reason)) => begin(situation, url, reason),
    }
}

/// With data. To start with them is never wrong: etcd itself ends if the cluster knows this member no more.
fn go_on(situation: &Situation<'_>, own: Identity, cluster: Option<&Membership>) -> Step {
    let left_out: Vec<&str> =
        situation.note.members.names().filter(|name| situation.members.url(name).is_none()).collect();
    if !left_out.is_empty() {
        return Step::Refuse(words::left_out(situation, &left_out));
    }
    match cluster {
        Some(cluster) if cluster.cluster_id != own.cluster_id => Step::Refuse(words::another_cluster(situation)),
        Some(cluster) if cluster.members.iter().all(|member| member.id != own.member_id) => Step::Discard(format!(
            "the cluster has gone on without this member ({:x}), so its data are of no use any more",
            own.member_id
        )),
        // Whoever is alone among silent members may just have no network yet.
        None if !situation.patient && !situation.others.is_empty() && nobody_heard(situation) => {
            Step::Wait("looking whether the others know this member; with no answer it starts with its data".to_owned())
        }
        _ => Step::Start(Start::AsItIs),
    }
}

/// Empty, beside a cluster that can decide.
fn join(situation: &Situation<'_>, url: &str, cluster: &Membership) -> Step {
    let members = situation.members;
    let known = |member: &ClusterMember| member.peer_urls.iter().find_map(|url| members.name_of(url));
    let foreign: Vec<&ClusterMember> = cluster.members.iter().filter(|member| known(member).is_none()).collect();
    if !foreign.is_empty() {
        return Step::Refuse(words::foreign(situation, cluster, &foreign));
    }
    let recorded = match &cluster.note {
        None => false,
        Some(note) => match serde_json::from_slice::<Members>(note) {
            Ok(recorded) if recorded == *members => true,
            Ok(recorded) => return Step::Refuse(words::other_members(situation, &recorded)),
            Err(_) => return Step::Refuse(words::unreadable_record()),
        },
    };
    let ours = cluster.members.iter().find(|member| is_at(member, url));
    if let Some(start) = first_start(situation, url, cluster.cluster_id, &cluster.members) {
        return Step::Start(start);
    }
    let is_there = |name: &&str| cluster.members.iter().any(|member| known(member) == Some(*name));
    let missing: Vec<&str> = members.names().filter(|name| *name != situation.me && !is_there(name)).collect();
    if !recorded && !missing.is_empty() {
        return Step::Refuse(words::too_few(situation, cluster));
    }
    // One after the other: the one that was taken in last counts for the quorum, and isn't there yet. But if we are such a
    // one ourselves, and lost, somebody may wait for us in turn.
    let is_late = |member: &ClusterMember| member.client_urls.is_empty();
    let late: Vec<&str> = cluster.members.iter().filter(|member| is_late(member)).filter_map(known).collect();
    if !late.is_empty() && !ours.is_some_and(is_late) {
        return Step::Wait(words::one_after_the_other(&late));
    }
    match ours {
        _ if !recorded => Step::Record,
        Some(ours) => Step::Remove(ours.id),
        None => Step::Add,
    }
}

/// Empty, and nobody can decide: are all the others empty, too?
fn begin(situation: &Situation<'_>, url: &str, reason: &str) -> Step {
    let others = &situation.others;
    let mut cards = Vec::new();
    for (name, seen) in others {
        match seen {
            Seen::Waiting(card) if card.members != *situation.members => {
                return Step::Wait(words::told_differently(situation, name, card));
            }
            Seen::Waiting(card) if !card.holds_data => cards.push((name, card)),
            _ => {}
        }
    }
    if cards.len() == others.len() {
        let own = (situation.me.to_owned(), situation.note.incarnation.clone());
        let volumes = cards.iter().map(|(name, card)| ((*name).clone(), card.incarnation.clone()));
        let volumes: Incarnations = volumes.chain([own]).collect();
        return if situation.note.agreed.as_ref() != Some(&volumes) {
            Step::Agree(volumes)
        } else if cards.iter().all(|(_, card)| card.agreed.as_ref() == Some(&volumes)) {
            Step::Start(Start::New(token(&volumes)))
        } else {
            Step::Wait("all members are empty; they agree on a new cluster".to_owned())
        };
    }
    // Somebody has gone ahead, which nobody does before all have agreed; or has taken us in, and needs us for a quorum.
    let views = others.values().filter_map(|seen| match seen {
        Seen::Running(view) if nobody_has_met_us(situation, url) => Some(view),
        _ => None,
    });
    let mut starts = views.filter_map(|view| first_start(situation, url, view.cluster_id, &view.members));
    match starts.next() {
        Some(start) => Step::Start(start),
        None => Step::Wait(words::no_cluster(situation, cards.len() + 1, reason)),
    }
}

/// How our etcd starts for the first time under a number that a cluster has for it already. Only our own note proves that
/// none has ever run under that number.
fn first_start(situation: &Situation<'_>, url: &str, cluster_id: u64, members: &[ClusterMember]) -> Option<Start> {
    let ours = members.iter().find(|member| is_at(member, url))?;
    if !ours.client_urls.is_empty() {
        return None;
    }
    if situation.note.added == Some(ours.id) {
        let named = members.iter().map(|member| {
            let url = member.peer_urls.first()?;
            Some((situation.members.name_of(url)?, url.as_str()))
        });
        return named.collect::<Option<Members>>().map(Start::Joining);
    }
    agreed_token(situation, cluster_id).map(Start::New)
}

fn is_at(member: &ClusterMember, url: &str) -> bool {
    member.peer_urls.iter().any(|known| known == url)
}

/// The token of the cluster with this number, if it is the one on which we have agreed, with the volume that we have now.
fn agreed_token(situation: &Situation<'_>, cluster_id: u64) -> Option<String> {
    let agreed = situation.note.agreed.as_ref()?;
    let token = token(agreed);
    let ours = agreed.get(situation.me) == Some(&situation.note.incarnation);
    (ours && situation.members.cluster_id(&token) == cluster_id).then_some(token)
}

/// No etcd that runs has seen one of ours.
fn nobody_has_met_us(situation: &Situation<'_>, url: &str) -> bool {
    let has_met = |member: &ClusterMember| !member.client_urls.is_empty() && is_at(member, url);
    !situation.others.values().any(|seen| matches!(seen, Seen::Running(view) if view.members.iter().any(has_met)))
}

fn nobody_heard(situation: &Situation<'_>) -> bool {
    situation.others.values().all(|seen| matches!(seen, Seen::Silent(_)))
}
