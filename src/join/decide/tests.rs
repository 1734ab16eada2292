//! Each situation by name, with what is done in it.

use super::*;
use crate::join::note::{Card, Note};
use crate::join::situation::View;

const MEMBERS: &str = "m0=http://m0:1,m1=http://m1:1,m2=http://m2:1";

fn members() -> Members {
    MEMBERS.parse().unwrap()
}

fn entry(at: usize, id: u64, started: bool) -> ClusterMember {
    let client_urls = if started { vec![format!("http://m{at}:2")] } else { Vec::new() };
    ClusterMember { id, name: format!("m{at}"), peer_urls: vec![format!("http://m{at}:1")], client_urls }
}

fn cluster(members: Vec<ClusterMember>) -> Result<Membership, String> {
    Ok(Membership { cluster_id: 7, members, note: None })
}

fn recorded(members: Vec<ClusterMember>) -> Result<Membership, String> {
    let note = Some(serde_json::to_vec(&self::members()).unwrap());
    Ok(Membership { cluster_id: 7, members, note })
}

fn all_started() -> Vec<ClusterMember> {
    vec![entry(0, 10, true), entry(1, 11, true), entry(2, 12, true)]
}

fn silent() -> Seen {
    Seen::Silent("refused".to_owned())
}

fn card(name: &str, holds_data: bool) -> Card {
    Card { name: name.to_owned(), members: members(), holds_data, incarnation: format!("volume-{name}"), agreed: None }
}

fn waiting(name: &str) -> Seen {
    Seen::Waiting(card(name, false))
}

fn running(cluster_id: u64, members: Vec<ClusterMember>) -> Seen {
    Seen::Running(View { cluster_id, members })
}

fn volumes() -> Incarnations {
    ["m0", "m1", "m2"].map(|name| (name.to_owned(), format!("volume-{name}"))).into()
}

/// What `m0` does with an empty volume, after `change`.
fn step_after(change: impl FnOnce(&mut Situation<'_>)) -> Step {
    let members = members();
    let mut situation = Situation {
        me: "m0",
        members: &members,
        directory: Directory::Empty,
        note: Note::new("volume-m0".to_owned()),
        others: [("m1".to_owned(), silent()), ("m2".to_owned(), silent())].into(),
        cluster: Err("nobody".to_owned()),
        patient: true,
        claims: Some("data"),
    };
    change(&mut situation);
    decide(&situation)
}

fn step(directory: Directory, others: [Seen; 2], cluster: Result<Membership, String>) -> Step {
    step_after(|situation| {
        situation.directory = directory;
        situation.others = ["m1", "m2"].map(str::to_owned).into_iter().zip(others).collect();
        situation.cluster = cluster;
    })
}

fn waits(step: &Step, text: &str) {
    assert!(matches!(step, Step::Wait(told) if told.contains(text)), "{step:?}");
}

fn refuses(step: &Step, text: &str) {
    assert!(matches!(step, Step::Refuse(told) if told.contains(text)), "{step:?}");
}

fn ours(member_id: u64, cluster_id: u64) -> Directory {
    Directory::Of(Identity { member_id, cluster_id })
}

#[test]
fn with_data_it_goes_on_unless_a_quorum_says_otherwise() {
    let both = || [silent(), silent()];
    assert_eq!(step(ours(10, 7), both(), cluster(all_started())), Step::Start(Start::AsItIs));
    assert_eq!(step(ours(10, 7), both(), Err("nobody".to_owned())), Step::Start(Start::AsItIs));
    assert!(matches!(step(ours(9, 7), both(), cluster(all_started())), Step::Discard(_)));
    refuses(&step(ours(10, 8), both(), cluster(all_started())), "kubectl delete pvc/data-m0 pod/m0");
    // Others without a quorum prove nothing.
    let without = [running(7, vec![entry(1, 11, true)]), waiting("m2")];
    assert_eq!(step(ours(9, 7), without, Err("nobody".to_owned())), Step::Start(Start::AsItIs));
}

#[test]
fn with_data_and_among_silence_it_looks_around_first() {
    let early = |others: [Seen; 2]| {
        step_after(|situation| {
            situation.directory = ours(10, 7);
            situation.patient = false;
            situation.others = ["m1", "m2"].map(str::to_owned).into_iter().zip(others).collect();
        })
    };
    waits(&early([silent(), silent()]), "looking whether");
    assert_eq!(early([silent(), waiting("m2")]), Step::Start(Start::AsItIs));
}

#[test]
fn fewer_members_than_there_were_are_refused() {
    let step = step_after(|situation| {
        situation.directory = ours(10, 7);
        situation.note.members = format!("{MEMBERS},m3=http://m3:1,m4=http://m4:1").parse().unwrap();
    });
    refuses(&step, "has 5 members, and --members lacks m3, m4");
}

#[test]
fn damaged_data_are_replaced_only_by_those_of_a_quorum() {
    let damaged = || Directory::Damaged("bits fell off".to_owned());
    assert!(matches!(step(damaged(), [silent(), silent()], cluster(all_started())), Step::Discard(_)));
    waits(&step(damaged(), [waiting("m1"), waiting("m2")], Err("nobody".to_owned())), "bits fell off");
}

#[test]
fn a_lost_member_is_recorded_removed_added_and_started() {
    let none = || [silent(), silent()];
    let without_us = || vec![entry(1, 11, true), entry(2, 12, true)];
    assert_eq!(step(Directory::Empty, none(), cluster(all_started())), Step::Record);
    assert_eq!(step(Directory::Empty, none(), recorded(all_started())), Step::Remove(10));
    assert_eq!(step(Directory::Empty, none(), cluster(without_us())), Step::Record);
    assert_eq!(step(Directory::Empty, none(), recorded(without_us())), Step::Add);
    let added = || vec![entry(0, 13, false), entry(1, 11, true), entry(2, 12, true)];
    // Not by our note: somebody may have used it.
    assert_eq!(step(Directory::Empty, none(), recorded(added())), Step::Remove(13));
    let noted = |id| {
        step_after(|situation| {
            situation.cluster = recorded(added());
            situation.note.added = Some(id);
        })
    };
    assert_eq!(noted(13), Step::Start(Start::Joining(members())));
    assert_eq!(noted(14), Step::Remove(13));
}

#[test]
fn an_entry_that_has_started_is_removed_whatever_is_noted() {
    let step = step_after(|situation| {
        situation.note.added = Some(10);
        situation.note.agreed = Some(volumes());
        situation.cluster = recorded(all_started())
            .map(|cluster| Membership { cluster_id: members().cluster_id(&token(&volumes())), ..cluster });
    });
    assert_eq!(step, Step::Remove(10));
}

#[test]
fn one_after_the_other() {
    let another = || vec![entry(0, 10, true), entry(1, 14, false), entry(2, 12, true)];
    waits(
        &step(Directory::Empty, [silent(), silent()], recorded(another())),
        "m1 was taken in and has not started yet",
    );
    waits(&step(Directory::Empty, [silent(), silent()], recorded(another()[1..].to_vec())), "m1 was taken in");
    // If both are so, neither waits for the other.
    let both = vec![entry(0, 13, false), entry(1, 14, false), entry(2, 12, true)];
    assert_eq!(step(Directory::Empty, [silent(), silent()], recorded(both)), Step::Remove(13));
}

#[test]
fn other_members_than_those_of_the_cluster_are_refused() {
    let none = || [silent(), silent()];
    refuses(&step(Directory::Empty, none(), cluster(vec![entry(1, 11, true)])), "the cluster has 1 members");
    let four = [all_started(), vec![entry(3, 13, true)]].concat();
    refuses(&step(Directory::Empty, none(), cluster(four)), "m3 among them, which --members lacks");
    let note = |note: &[u8]| cluster(all_started()).map(|cluster| Membership { note: Some(note.to_vec()), ..cluster });
    refuses(&step(Directory::Empty, none(), note(br#"{"m0":"http://m0:1"}"#)), "scale back to 1");
    refuses(&step(Directory::Empty, none(), note(b"what?")), "etcdctl del pointsman-etcd-join");
    // Two are being replaced, and the cluster knows who belongs to it.
    assert_eq!(step(Directory::Empty, none(), recorded(vec![entry(1, 11, true)])), Step::Add);
    refuses(&step_after(|situation| situation.me = "m3"), "--name is m3");
}

#[test]
fn a_new_cluster_takes_the_word_of_every_member() {
    let none = || Err("nobody".to_owned());
    waits(&step(Directory::Empty, [silent(), waiting("m2")], none()), "m1 does not answer (refused)");
    assert_eq!(step(Directory::Empty, [waiting("m1"), waiting("m2")], none()), Step::Agree(volumes()));
    let agreed = |m1: Option<Incarnations>, m2: Option<Incarnations>, own: Incarnations| {
        step_after(|situation| {
            situation.note.agreed = Some(own);
            for (name, agreed) in [("m1", m1), ("m2", m2)] {
                situation.others.insert(name.to_owned(), Seen::Waiting(Card { agreed, ..card(name, false) }));
            }
        })
    };
    let begins = Step::Start(Start::New(token(&volumes())));
    assert_eq!(agreed(Some(volumes()), Some(volumes()), volumes()), begins);
    waits(&agreed(Some(volumes()), None, volumes()), "they agree");
    let mut before = volumes();
    before.insert("m1".to_owned(), "the volume before".to_owned());
    waits(&agreed(Some(volumes()), Some(before.clone()), volumes()), "they agree");
    assert_eq!(agreed(Some(volumes()), Some(volumes()), before), Step::Agree(volumes()));
}

#[test]
fn who_has_agreed_follows_who_has_gone_ahead() {
    let id = members().cluster_id(&token(&volumes()));
    let followed = |cluster_id, started, volume: &str| {
        step_after(|situation| {
            situation.note.agreed = Some(volumes());
            volume.clone_into(&mut situation.note.incarnation);
            let view = vec![entry(0, 10, started), entry(1, 11, false), entry(2, 12, false)];
            situation.others.insert("m1".to_owned(), running(cluster_id, view));
        })
    };
    assert_eq!(followed(id, false, "volume-m0"), Step::Start(Start::New(token(&volumes()))));
    assert!(matches!(followed(id, true, "volume-m0"), Step::Wait(_)), "an etcd of ours has run");
    assert!(matches!(followed(id + 1, false, "volume-m0"), Step::Wait(_)), "another cluster");
    assert!(matches!(followed(id, false, "another volume"), Step::Wait(_)), "another volume");
}

#[test]
fn who_was_taken_in_starts_also_when_the_quorum_waits_for_it() {
    let taken_in = |added, started| {
        step_after(|situation| {
            situation.note.added = Some(added);
            let view = vec![entry(0, 13, started), entry(1, 11, true), entry(2, 12, true)];
            situation.others.insert("m1".to_owned(), running(7, view));
            situation.others.insert("m2".to_owned(), waiting("m2"));
        })
    };
    assert_eq!(taken_in(13, false), Step::Start(Start::Joining(members())));
    assert!(matches!(taken_in(13, true), Step::Wait(_)));
    assert!(matches!(taken_in(12, false), Step::Wait(_)));
}

#[test]
fn a_lost_majority_is_said() {
    let none = || Err("nobody".to_owned());
    let alone = || running(7, all_started());
    waits(&step(Directory::Empty, [waiting("m1"), alone()], none()), "kubectl delete pvc/data-m2 pod/m2`");
    waits(&step(Directory::Empty, [silent(), alone()], none()), "no quorum that could take this member in");
    let holding = Seen::Waiting(card("m2", true));
    waits(&step(Directory::Empty, [waiting("m1"), holding], none()), "the majority is lost for good: 2 of 3");
    let step = step_after(|situation| {
        situation.claims = None;
        situation.others.insert("m1".to_owned(), waiting("m1"));
        situation.others.insert("m2".to_owned(), alone());
    });
    waits(&step, "`kubectl delete pod/m2`");
}

#[test]
fn members_that_were_told_differently_wait() {
    let other = Card { members: "m0=http://m0:1,m1=http://m1:1".parse().unwrap(), ..card("m1", false) };
    waits(
        &step(Directory::Empty, [Seen::Waiting(other), waiting("m2")], Err("nobody".to_owned())),
        "m1 was told of the members m0, m1",
    );
}
