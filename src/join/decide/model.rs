//! Members that start, are killed, lose their volumes and don't hear each other, in any order; what must never happen, and
//! what must have happened once nothing is broken any more.
//!
//! Of etcd the model has what counts here: a directory has the number of a member and of a cluster; a cluster decides while
//! a majority of its members run on directories that have kept every promise.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::join::note::{Card, Note};
use crate::join::situation::View;

#[derive(Debug, Clone)]
enum Event {
    /// The member takes its next step, hearing only some of the others.
    Step { at: usize, deaf_to: BTreeSet<usize> },
    /// The pod ends, and begins again.
    Kill(usize),
    /// The same, with a new volume.
    Lose(usize),
}

#[derive(Debug, Clone, Default)]
struct Pod {
    note: Option<Note>,
    directory: Option<Identity>,
    /// What etcd will be started with.
    prepared: Option<Start>,
    running: bool,
}

#[derive(Debug, Clone, Default)]
struct Cluster {
    /// Number, at which URL, whether it has ever run.
    entries: Vec<(u64, usize, bool)>,
    recorded: bool,
}

struct World {
    members: Members,
    pods: Vec<Pod>,
    clusters: BTreeMap<u64, Cluster>,
    /// Every number that ever had a directory, by cluster.
    used: BTreeSet<(u64, u64)>,
    next: u64,
}

impl World {
    fn new(count: usize) -> Self {
        let members = (0..count).map(|at| format!("m{at}=http://m{at}:1")).collect::<Vec<_>>().join(",");
        Self {
            members: members.parse().unwrap(),
            pods: vec![Pod::default(); count],
            clusters: BTreeMap::new(),
            used: BTreeSet::new(),
            next: 100,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The cluster and the members of it that run.
    fn decides(&self, cluster_id: u64, heard: impl Fn(usize) -> bool) -> bool {
        let cluster = &self.clusters[&cluster_id];
        let run = cluster.entries.iter().filter(|(id, at, _)| {
            let pod = &self.pods[*at];
            heard(*at) && pod.running && pod.directory == Some(Identity { member_id: *id, cluster_id })
        });
        run.count() > cluster.entries.len() / 2
    }

    /// It could decide again, if all with data would run.
    fn could_decide(&self, cluster_id: u64) -> bool {
        let cluster = &self.clusters[&cluster_id];
        let there = cluster
            .entries
            .iter()
            .filter(|(id, at, _)| self.pods[*at].directory == Some(Identity { member_id: *id, cluster_id }));
        there.count() > cluster.entries.len() / 2
    }

    fn list(&self, cluster_id: u64) -> Vec<ClusterMember> {
        let entries = self.clusters[&cluster_id].entries.iter();
        let member = |(id, at, started): &(u64, usize, bool)| ClusterMember {
            id: *id,
            name: String::new(),
            peer_urls: vec![format!("http://m{at}:1")],
            client_urls: if *started { vec![String::new()] } else { Vec::new() },
        };
        entries.map(member).collect()
    }

    fn seen(&self, at: usize) -> Seen {
        let pod = &self.pods[at];
        match (&pod.note, pod.directory) {
            (_, Some(identity)) if pod.running => {
                Seen::Running(View { cluster_id: identity.cluster_id, members: self.list(identity.cluster_id) })
            }
            (Some(note), directory) if pod.prepared.is_none() => Seen::Waiting(Card {
                name: format!("m{at}"),
                members: self.members.clone(),
                holds_data: directory.is_some(),
                incarnation: note.incarnation.clone(),
                agreed: note.agreed.clone(),
            }),
            _ => Seen::Silent("away".to_owned()),
        }
    }

    fn event(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Kill(at) => {
                let pod = &mut self.pods[*at];
                (pod.running, pod.prepared) = (false, None);
            }
            Event::Lose(at) => self.pods[*at] = Pod::default(),
            Event::Step { at, deaf_to } => self.step(*at, deaf_to)?,
        }
        Ok(())
    }

    fn step(&mut self, at: usize, deaf_to: &BTreeSet<usize>) -> Result<(), TestCaseError> {
        if self.pods[at].running {
            return Ok(());
        }
        if let Some(start) = self.pods[at].prepared.clone() {
            return self.start_etcd(at, &start);
        }
        if self.pods[at].note.is_none() {
            let name = format!("volume-{}", self.fresh());
            self.pods[at].note = Some(Note::new(name));
        }
        let hears = |other: usize| other != at && !deaf_to.contains(&other);
        let others = (0..self.pods.len()).filter(|other| *other != at).map(|other| {
            let seen = if hears(other) { self.seen(other) } else { Seen::Silent("deaf".to_owned()) };
            (format!("m{other}"), seen)
        });
        // Whoever is heard and has a quorum with those that it hears itself, which is all.
        let cluster = self.clusters.keys().copied().find(|id| {
            let asked =
                self.clusters[id].entries.iter().any(|(_, other, _)| hears(*other) && self.pods[*other].running);
            asked && self.decides(*id, |_| true)
        });
        let me = format!("m{at}");
        let step = decide(&Situation {
            me: &me,
            members: &self.members,
            directory: self.pods[at].directory.map_or(Directory::Empty, Directory::Of),
            note: self.pods[at].note.clone().unwrap(),
            others: others.collect(),
            cluster: cluster.map_or(Err("no quorum".to_owned()), |cluster_id| {
                let cluster = &self.clusters[&cluster_id];
                let note = cluster.recorded.then(|| serde_json::to_vec(&self.members).unwrap());
                Ok(Membership { cluster_id, members: self.list(cluster_id), note })
            }),
            patient: true,
            claims: None,
        });
        self.take(at, step, cluster)
    }

    fn take(&mut self, at: usize, step: Step, cluster: Option<u64>) -> Result<(), TestCaseError> {
        let fresh = self.fresh();
        let note = self.pods[at].note.as_mut().unwrap();
        match step {
            Step::Start(start) => {
                if start == Start::AsItIs {
                    *note = Note::new(format!("volume-{fresh}"));
                }
                self.pods[at].prepared = Some(start);
            }
            Step::Discard(_) => {
                *note = Note::new(format!("volume-{fresh}"));
                self.pods[at].directory = None;
            }
            Step::Agree(volumes) => note.agreed = Some(volumes),
            Step::Record => self.clusters.get_mut(&cluster.unwrap()).unwrap().recorded = true,
            Step::Remove(id) => {
                let entries = &mut self.clusters.get_mut(&cluster.unwrap()).unwrap().entries;
                prop_assert!(entries.iter().any(|(known, of, _)| (*known, *of) == (id, at)), "a stranger's entry");
                entries.retain(|(known, ..)| *known != id);
            }
            Step::Add => {
                note.added = Some(fresh);
                self.clusters.get_mut(&cluster.unwrap()).unwrap().entries.push((fresh, at, false));
            }
            Step::Wait(_) => {}
            Step::Refuse(why) => prop_assert!(false, "refused: {}", why),
        }
        Ok(())
    }

    fn start_etcd(&mut self, at: usize, start: &Start) -> Result<(), TestCaseError> {
        let identity = match start {
            Start::AsItIs => self.pods[at].directory,
            Start::New(token) => {
                let cluster_id = self.members.cluster_id(token);
                if !self.clusters.contains_key(&cluster_id) {
                    let elsewhere = |pod: &Pod| {
                        pod.directory.is_some() || matches!(&pod.prepared, Some(Start::New(other)) if other != token)
                    };
                    prop_assert!(!self.pods.iter().any(elsewhere), "a second cluster beside {:?}", self.pods);
                    let entries = (0..self.pods.len()).map(|at| (at as u64, at, false)).collect();
                    self.clusters.insert(cluster_id, Cluster { entries, recorded: false });
                }
                self.first_start(at, Identity { member_id: at as u64, cluster_id })?
            }
            Start::Joining(_) => {
                let note = self.pods[at].note.as_ref().unwrap();
                let found = self.clusters.iter().find_map(|(cluster_id, cluster)| {
                    let entry = cluster.entries.iter().find(|(id, ..)| Some(*id) == note.added)?;
                    Some(Identity { member_id: entry.0, cluster_id: *cluster_id })
                });
                match found {
                    Some(identity) => self.first_start(at, identity)?,
                    None => None,
                }
            }
        };
        let Some(identity) = identity else { return Ok(()) };
        self.pods[at].directory = Some(identity);
        self.pods[at].running = true;
        self.publish();
        Ok(())
    }

    /// A number gets its first directory: it must be the only one that it ever gets.
    fn first_start(&mut self, at: usize, identity: Identity) -> Result<Option<Identity>, TestCaseError> {
        let entries = &self.clusters[&identity.cluster_id].entries;
        if !entries.iter().any(|(id, of, _)| (*id, *of) == (identity.member_id, at)) {
            return Ok(None);
        }
        prop_assert!(
            self.used.insert((identity.cluster_id, identity.member_id)),
            "m{} forgets what it has promised as {:?}",
            at,
            identity
        );
        Ok(Some(identity))
    }

    /// Whoever runs with a quorum has its addresses written down.
    fn publish(&mut self) {
        let ids: Vec<u64> = self.clusters.keys().copied().collect();
        for cluster_id in ids.into_iter().filter(|id| self.decides(*id, |_| true)).collect::<Vec<_>>() {
            let pods = &self.pods;
            for (id, at, started) in &mut self.clusters.get_mut(&cluster_id).unwrap().entries {
                *started |= pods[*at].running && pods[*at].directory == Some(Identity { member_id: *id, cluster_id });
            }
        }
    }

    /// From now on nothing breaks. In the end all run in one cluster, unless a majority was lost.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..40 {
            for at in 0..self.pods.len() {
                self.step(at, &BTreeSet::new())?;
                self.publish();
            }
        }
        let whole = |(id, cluster): (&u64, &Cluster)| {
            cluster.entries.len() == self.pods.len()
                && cluster.entries.iter().all(|(member_id, at, _)| {
                    let identity = Identity { member_id: *member_id, cluster_id: *id };
                    self.pods[*at].running && self.pods[*at].directory == Some(identity)
                })
        };
        let all = self.clusters.iter().any(whole);
        let lost = self.pods.iter().any(|pod| pod.directory.is_some())
            && self.clusters.keys().all(|id| !self.decides(*id, |_| true));
        prop_assert!(all || lost, "neither together nor lost: {:?} {:?}", self.pods, self.clusters);
        if lost {
            prop_assert!(self.clusters.keys().all(|id| !self.could_decide(*id)), "not lost: {:?}", self.clusters);
            // Whoever has data is told to give them up; then it must end well.
            for pod in self.pods.iter_mut().filter(|pod| pod.directory.is_some()) {
                *pod = Pod::default();
            }
            self.settle()?;
        }
        Ok(())
    }
}

fn events(count: usize) -> impl Strategy<Value = Vec<Event>> {
    let at = 0..count;
    let deaf = proptest::collection::btree_set(0..count, 0..count);
    let step = prop_oneof![
        8 => at.clone().prop_map(|at| Event::Step { at, deaf_to: BTreeSet::new() }),
        2 => (at.clone(), deaf).prop_map(|(at, deaf_to)| Event::Step { at, deaf_to }),
    ];
    let event = prop_oneof![20 => step, 2 => at.clone().prop_map(Event::Kill), 1 => at.prop_map(Event::Lose)];
    proptest::collection::vec(event, 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn there_is_one_cluster_at_most_and_no_number_forgets(
        (count, events) in proptest::sample::select(vec![1_usize, 3, 3, 5]).prop_flat_map(|count| (Just(count), events(count)))
    ) {
        let mut world = World::new(count);
        for event in &events {
            world.event(event)?;
            world.publish();
        }
        world.settle()?;
    }
}
