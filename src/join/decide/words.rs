//! The sentences: what was seen, and the one thing to do.

use crate::join::members::Members;
use crate::join::note::Card;
use crate::join::situation::{Seen, Situation};
use crate::store::etcd::{ClusterMember, Membership};

/// The key in etcd that says who its members are.
pub const RECORD_KEY: &str = "pointsman-etcd-join";

pub(super) fn not_a_member(situation: &Situation<'_>) -> String {
    let (me, names) = (situation.me, list(situation.members.names()));
    format!(
        "--name is {me}, and --members has {names}: the number of members can't be changed; scale back to {}",
        situation.members.len()
    )
}

pub(super) fn damaged(situation: &Situation<'_>, why: &str) -> String {
    format!(
        "the data of {} are damaged ({why}), and there is no cluster with a quorum to get them from: {}. If the others don't \
         come back, give these up: {}",
        situation.me,
        silent(situation),
        forget(situation, &[situation.me])
    )
}

pub(super) fn left_out(situation: &Situation<'_>, left_out: &[&str]) -> String {
    format!(
        "the cluster of {} has {} members, and --members lacks {}: the number of members can't be changed; scale back to {} \
         (etcd.replicas in the chart)",
        situation.me,
        situation.note.members.len(),
        list(left_out.iter().copied()),
        situation.note.members.len()
    )
}

pub(super) fn another_cluster(situation: &Situation<'_>) -> String {
    format!(
        "the data of {} are of another cluster than that of the other members; if nobody needs them: {}",
        situation.me,
        forget(situation, &[situation.me])
    )
}

pub(super) fn foreign(situation: &Situation<'_>, cluster: &Membership, foreign: &[&ClusterMember]) -> String {
    let names = foreign.iter().map(|member| match member.name.as_str() {
        "" => member.peer_urls.first().map_or("a nameless one", String::as_str),
        name => name,
    });
    format!(
        "the cluster has {} members, {} among them, which --members lacks: the number of members can't be changed; scale back \
         to {} (etcd.replicas in the chart), or remove the one that is too much with `etcdctl member remove`; --members has {}",
        cluster.members.len(),
        list(names),
        cluster.members.len(),
        list(situation.members.names())
    )
}

pub(super) fn other_members(situation: &Situation<'_>, recorded: &Members) -> String {
    format!(
        "the cluster is to have the members {}, and --members has {}: the number of members can't be changed; scale back to {} \
         (etcd.replicas in the chart)",
        list(recorded.names()),
        list(situation.members.names()),
        recorded.len()
    )
}

pub(super) fn too_few(situation: &Situation<'_>, cluster: &Membership) -> String {
    format!(
        "the cluster has {} members, and --members has {}: the number of members can't be changed; scale back to {} \
         (etcd.replicas in the chart)",
        cluster.members.len(),
        list(situation.members.names()),
        cluster.members.len()
    )
}

pub(super) fn unreadable_record() -> String {
    format!(
        "the key {RECORD_KEY} of this etcd holds something that is not ours; remove it with `etcdctl del {RECORD_KEY}`"
    )
}

pub(super) fn one_after_the_other(late: &[&str]) -> String {
    format!("{} was taken in and has not started yet; one member after the other", list(late.iter().copied()))
}

pub(super) fn told_differently(situation: &Situation<'_>, name: &str, card: &Card) -> String {
    format!(
        "{name} was told of the members {}, and {} of {}; they must be the same everywhere",
        list(card.members.names()),
        situation.me,
        list(situation.members.names())
    )
}

/// There is no cluster that can decide, and `empty` members have no data.
pub(super) fn no_cluster(situation: &Situation<'_>, empty: usize, reason: &str) -> String {
    let holding: Vec<&str> =
        situation.others.iter().filter(|(_, seen)| holds_data(seen)).map(|(name, _)| name.as_str()).collect();
    let rest = situation.members.len() - empty;
    if holding.is_empty() {
        return format!(
            "a new cluster begins when every member has said that it has no data, and not all have: {}",
            silent(situation)
        );
    }
    if rest < situation.members.quorum() {
        let hushed: Vec<&str> = hushed(situation).map(|(name, _)| name).collect();
        let also = if hushed.is_empty() { String::new() } else { format!(", and start {}", list(hushed.into_iter())) };
        return format!(
            "the majority is lost for good: {empty} of {} members have no data, and {} can't go on without them. Give up what \
             is left, the hub brings its routes back: {}{also}",
            situation.members.len(),
            list(holding.iter().copied()),
            forget(situation, &holding)
        );
    }
    format!("the cluster has no quorum that could take this member in ({reason}): {}", silent(situation))
}

fn holds_data(seen: &Seen) -> bool {
    match seen {
        Seen::Running(_) => true,
        Seen::Waiting(card) => card.holds_data,
        Seen::Silent(_) => false,
    }
}

fn hushed<'a>(situation: &'a Situation<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
    situation.others.iter().filter_map(|(name, seen)| match seen {
        Seen::Silent(why) => Some((name.as_str(), why.as_str())),
        _ => None,
    })
}

fn silent(situation: &Situation<'_>) -> String {
    let silent: Vec<String> = hushed(situation).map(|(name, why)| format!("{name} does not answer ({why})")).collect();
    if silent.is_empty() { "wait until the others are ready".to_owned() } else { silent.join("; ") }
}

/// How to give up the data of these members.
fn forget(situation: &Situation<'_>, names: &[&str]) -> String {
    let things = names.iter().map(|name| match situation.claims {
        Some(claims) => format!("pvc/{claims}-{name} pod/{name}"),
        None => format!("pod/{name}"),
    });
    format!("`kubectl delete {}`", things.collect::<Vec<_>>().join(" "))
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
