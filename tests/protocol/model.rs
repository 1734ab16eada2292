//! The protocol as a state machine: what is in the store, what the Traefiks show, and how far each call is.

use stateright::Property;

use crate::calls::{Ask, Call, Phase, Reply, Straggler, explained};
use crate::tree::{Edit, Tree};
use crate::{Broken, Protocol, World};

/// After an answer every Traefik serves what was answered, or something later.
pub(crate) const ROUTED: &str = "I1 what was answered is routed on every Traefik";
/// Nothing acknowledged is lost, nothing deleted comes back, every answer fits some order of the calls.
pub(crate) const EXPLAINED: &str = "I2 I3 I6 the records explain every answer";
pub(crate) const MARKER_TRUE: &str = "I4 the tree holds every change up to its marker";
pub(crate) const MARKER_RISES: &str = "I5 the marker never falls";
pub(crate) const TREE_RIGHT: &str = "I7 the tree routes as a longest-prefix table does";
pub(crate) const PROGRESS: &str = "I8 every call ends, and the marker reaches the head";

/// One revision of the records. `n` 0 means that there is no head key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Records {
    pub(crate) epoch: u8,
    pub(crate) n: u8,
    /// The call that wrote the head, plus one; 0 once nobody will ask.
    nonce: u8,
    /// The target of each route (0 for none), and the n that wrote it.
    routes: [(u8, u8); 2],
}

impl Records {
    fn marked_by(&self, tree: &Tree) -> bool {
        self.epoch == tree.epoch && self.n == tree.n
    }
}

/// Everything that lasts longer than one step. Replicas keep nothing that isn't here: see the head of `main.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// How often the store was wiped.
    pub(crate) era: u8,
    /// The history of the records, the present last, as far back as anybody may still look.
    pub(crate) records: Vec<Records>,
    /// The history of Traefik's tree, the present last, from the oldest that a Traefik shows.
    pub(crate) trees: Vec<Tree>,
    /// What each Traefik shows: a place in `trees`.
    pub(crate) shown: Vec<usize>,
    pub(crate) calls: Vec<Call>,
    /// Answers of commits that may still get lost, replicas that may still die, wipes that may still happen.
    pub(crate) losses: u8,
    pub(crate) deaths: u8,
    pub(crate) wipes: u8,
    /// The marker was once lower than before within its epoch, or in an older epoch.
    pub(crate) marker_fell: bool,
}

/// What becomes of a transaction that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    /// It happens, but the replica doesn't hear of it.
    AnswerLost,
    /// The replica stops waiting before it has happened; it may happen later.
    Late,
}

/// One step of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// A replica sends the transaction of a call, planned from these revisions; `fast` with Traefik's keys in it.
    Commit {
        call: usize,
        view: usize,
        tree: usize,
        fast: bool,
        fate: Fate,
    },
    /// A call changes nothing, by this revision of the records.
    NoChange {
        call: usize,
        view: usize,
    },
    /// The outcome is unknown, the head hasn't moved: the same transaction again, with the same nonce.
    Again {
        call: usize,
        fast: bool,
        fate: Fate,
    },
    /// The outcome is unknown, the head has moved: was it us?
    Settle {
        call: usize,
        ours: bool,
    },
    /// A transaction that nobody waits for arrives at the store.
    Straggle {
        call: usize,
    },
    /// The deadline passes with the outcome unknown, or the replica dies: the hub sees a failure.
    Fail {
        call: usize,
    },
    /// A GET reads the head, then answers from a mirror that has reached it.
    ReadHead {
        call: usize,
    },
    ReadMirror {
        call: usize,
        view: usize,
    },
    /// Every Traefik shows enough: the hub gets its answer.
    Answer {
        call: usize,
    },
    /// A replica takes one step of a projection, planned from these revisions.
    Project {
        view: usize,
        tree: usize,
        edit: Edit,
        marker: (u8, u8),
    },
    /// A Traefik loads the next revision of its tree.
    Load {
        traefik: usize,
    },
    /// Everything in etcd is lost.
    Wipe,
}

impl stateright::Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let start = |world: &World| State {
            era: 0,
            records: vec![Records::default()],
            trees: vec![Tree::default()],
            shown: vec![0; world.traefiks],
            calls: world.script.iter().copied().map(Call::new).collect(),
            losses: world.losses,
            deaths: world.deaths,
            wipes: world.wipes,
            marker_fell: false,
        };
        self.worlds.iter().map(start).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for call in 0..state.calls.len() {
            self.call_actions(state, call, actions);
        }
        self.project_actions(state, actions);
        for traefik in 0..state.shown.len() {
            if state.shown[traefik] + 1 < state.trees.len() {
                actions.push(Action::Load { traefik });
            }
        }
        if state.wipes > 0 && state.now().n > 0 {
            actions.push(Action::Wipe);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.step(self, action);
        state.forget(self);
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        // A replica with an old view and one with a new one may undo each other's steps for as long as the old view lasts,
        // and a Traefik may sleep through all of it.
        state.trees.len() <= self.longest_history
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(ROUTED, |_, state: &State| {
                state.shown.iter().all(|&i| state.shows_the_answered(&state.trees[i]))
            }),
            Property::always(EXPLAINED, |_, state: &State| {
                (0..2).all(|route| explained(&state.calls, route, state.now().routes[route].0, true))
            }),
            Property::always(MARKER_TRUE, |_, state: &State| state.marker_is_true()),
            Property::always(MARKER_RISES, |_, state: &State| !state.marker_fell),
            Property::always(TREE_RIGHT, |_, state: &State| state.tree_now().routes_rightly()),
            Property::eventually(PROGRESS, |_, state: &State| {
                state.calls.iter().all(Call::is_over) && state.now().marked_by(state.tree_now())
            }),
        ];
        if self.broken == Broken::Nothing {
            all.extend(crate::coverage::all());
        }
        all
    }
}

impl State {
    pub(crate) fn now(&self) -> &Records {
        self.records.last().expect("the present is never forgotten")
    }

    pub(crate) fn tree_now(&self) -> &Tree {
        self.trees.last().expect("the present is never forgotten")
    }

    fn shows_the_answered(&self, tree: &Tree) -> bool {
        let answered = |route| {
            let mut calls = self.calls.iter().filter(|call| call.ask.route() == route);
            calls.any(|call| matches!(call.phase, Phase::Done(reply) if !matches!(reply, Reply::Target(_))))
        };
        // After a wipe Traefik goes on with its old tree until something is answered again: nothing is promised about it.
        (0..2).all(|route| (self.era > 0 && !answered(route)) || explained(&self.calls, route, tree.leaf[route], false))
    }

    fn marker_is_true(&self) -> bool {
        let tree = self.tree_now();
        let counts = |records: &&Records| records.n == 0 || records.epoch == tree.epoch;
        tree.epoch == 0
            || (0..2).all(|route| {
                let mut since = self.records.iter().filter(counts).filter(|records| records.n >= tree.n);
                since.any(|records| records.routes[route].0 == tree.leaf[route])
            })
    }

    /// Records that the hub begins a call, with what it knows to be over by then.
    fn begin(&mut self, call: usize, changes: bool) {
        let over = |other: &Call| match other.phase {
            Phase::Done(_) => true,
            // Only what writes the head shuts the door behind calls that failed.
            Phase::Failed => changes,
            _ => false,
        };
        if self.calls[call].after.is_none() {
            let bits = self.calls.iter().enumerate().filter(|(_, other)| over(other)).map(|(i, _)| 1 << i);
            self.calls[call].after = Some(bits.fold(0, |all, bit: u8| all | bit));
        }
    }

    fn step(&mut self, protocol: &Protocol, action: Action) {
        match action {
            Action::Commit { call, view, tree, fast, fate } => {
                let base = self.records[view].clone();
                self.begin(call, true);
                let reply = match self.calls[call].ask {
                    Ask::Delete { route } if base.routes[route].0 == 0 => Reply::Absent,
                    Ask::Delete { .. } => Reply::Removed,
                    _ => Reply::Created,
                };
                let epoch = if base.n == 0 { self.era + 1 } else { base.epoch };
                self.send(call, (epoch, base.n + 1), fast.then_some(tree), reply, fate);
            }
            Action::Again { call, fast, fate } => {
                let Phase::Unknown { epoch, n, reply } = self.calls[call].phase else { return };
                self.send(call, (epoch, n), fast.then_some(self.trees.len() - 1), reply, fate);
            }
            Action::NoChange { call, view } => {
                self.begin(call, matches!(self.calls[call].ask, Ask::Delete { .. }));
                let records = &self.records[view];
                let (epoch, head) = (records.epoch, records.n);
                let (n, reply) = match self.calls[call].ask {
                    Ask::Add { route, .. } => (records.routes[route].1, Reply::Created),
                    _ => (head, Reply::Absent),
                };
                let unanswered = protocol.broken != Broken::NoChangeSkipsBarrier;
                self.calls[call].phase =
                    if unanswered { Phase::Waiting { epoch, n, reply } } else { Phase::Done(reply) };
            }
            Action::Settle { call, ours } => {
                let Phase::Unknown { epoch, n, reply } = self.calls[call].phase else { return };
                self.calls[call].phase = if ours { Phase::Waiting { epoch, n, reply } } else { Phase::New };
            }
            Action::Straggle { call } => {
                let Some(late) = self.calls[call].straggler.take() else { return };
                self.land(call, (late.epoch, late.n), late.fast.then_some(self.trees.len() - 1));
            }
            Action::Fail { call } => {
                if matches!(self.calls[call].phase, Phase::Waiting { .. }) {
                    self.deaths -= 1;
                }
                self.calls[call].phase = Phase::Failed;
            }
            Action::ReadHead { call } => {
                self.begin(call, false);
                self.calls[call].phase = Phase::Reading { epoch: self.now().epoch, n: self.now().n };
            }
            Action::ReadMirror { call, view } => {
                self.begin(call, false);
                let target = self.records[view].routes[self.calls[call].ask.route()].0;
                self.calls[call].phase = Phase::Done(Reply::Target(target));
            }
            Action::Answer { call } => {
                let Phase::Waiting { reply, .. } = self.calls[call].phase else { return };
                self.calls[call].phase = Phase::Done(reply);
            }
            Action::Project { edit, marker, .. } => self.put_tree(&edit, marker),
            Action::Load { traefik } => self.shown[traefik] += 1,
            Action::Wipe => self.wipe(),
        }
    }

    fn send(&mut self, call: usize, head: (u8, u8), fast: Option<usize>, reply: Reply, fate: Fate) {
        let (epoch, n) = head;
        match fate {
            Fate::Answered => self.calls[call].phase = Phase::Waiting { epoch, n, reply },
            Fate::AnswerLost | Fate::Late => {
                self.losses -= 1;
                self.calls[call].phase = Phase::Unknown { epoch, n, reply };
            }
        }
        if fate == Fate::Late {
            self.calls[call].straggler = Some(Straggler { epoch, n, fast: fast.is_some() });
        } else {
            self.land(call, head, fast);
        }
    }

    /// What a transaction does in the store. Whether its guards hold was the question before.
    fn land(&mut self, call: usize, (epoch, n): (u8, u8), fast: Option<usize>) {
        let ask = self.calls[call].ask;
        let mut records = Records { epoch, n, nonce: signature(call), ..self.now().clone() };
        records.routes[ask.route()] = if ask.target() == 0 { (0, 0) } else { (ask.target(), n) };
        let wanted = records.wanted();
        self.records.push(records);
        if let Some(view) = fast {
            let missing = self.trees[view].missing(wanted);
            let ours = self.trees[view].edit(ask.route(), ask.target());
            let edit = if missing.contains(&ours) { ours } else { missing.into_iter().next().unwrap_or(Edit::Nothing) };
            self.put_tree(&edit, (epoch, n));
        }
    }

    fn put_tree(&mut self, edit: &Edit, (epoch, n): (u8, u8)) {
        let mut tree = self.tree_now().clone();
        self.marker_fell |= (epoch, n) < (tree.epoch, tree.n);
        tree.apply(edit);
        (tree.epoch, tree.n) = (epoch, n);
        self.trees.push(tree);
    }

    fn wipe(&mut self) {
        self.wipes -= 1;
        self.era += 1;
        self.records.push(Records::default());
        self.trees.push(Tree::default());
        for call in &mut self.calls {
            call.straggler = None;
            if call.phase != Phase::New {
                call.phase = Phase::Void;
            }
        }
    }

    /// Drops what can make no difference any more, so that states that are the same look the same.
    fn forget(&mut self, protocol: &Protocol) {
        let (now, tree) = (self.now().clone(), self.tree_now().clone());
        for call in &mut self.calls {
            if protocol.broken != Broken::RecordsWithoutHeadGuard {
                call.straggler = call.straggler.filter(|late| {
                    now.n + 1 == late.n
                        && (now.n == 0 || now.epoch == late.epoch)
                        && (!late.fast || tree.missing(now.wanted_after(call.ask)).len() <= 1)
                });
            }
        }
        let asked = |nonce: u8| {
            self.calls
                .iter()
                .enumerate()
                .any(|(i, call)| signature(i) == nonce && matches!(call.phase, Phase::Unknown { .. }))
        };
        let forgotten: Vec<bool> = self.records.iter().map(|records| !asked(records.nonce)).collect();
        for (records, forgotten) in self.records.iter_mut().zip(forgotten) {
            if forgotten {
                records.nonce = 0;
            }
        }
        self.shown.sort_unstable();
        if !protocol.broken.looks_back() {
            let last = self.records.len() - 1;
            let mut i = 0;
            self.records.retain(|records| {
                i += 1;
                let in_view = (records.n == 0 || records.epoch == tree.epoch) && records.n >= tree.n;
                i > last || in_view || records.nonce != 0
            });
            self.forget_trees();
        }
    }
}

impl State {
    /// Keeps of the past trees what a Traefik that shows them is asked: the marker and the leaves.
    fn forget_trees(&mut self) {
        let now = self.trees.len() - 1;
        self.trees[..now].iter_mut().for_each(Tree::flatten);
        for i in (0..now).rev() {
            let same = self.trees[i].shows_the_same(&self.trees[i + 1]);
            if same || i < self.shown[0] {
                self.trees.remove(i);
                self.shown.iter_mut().filter(|shown| **shown > i).for_each(|shown| *shown -= 1);
            }
        }
    }
}

/// How a call signs the head it writes.
pub(crate) fn signature(call: usize) -> u8 {
    u8::try_from(call + 1).expect("there are few calls")
}

impl Records {
    pub(crate) fn written_by(&self, call: usize, epoch: u8, n: u8) -> bool {
        self.epoch == epoch && self.n == n && self.nonce == signature(call)
    }

    pub(crate) fn is_at(&self, epoch: u8, n: u8) -> bool {
        self.epoch == epoch && self.n == n
    }

    /// Whether the call asks for what is there already.
    pub(crate) fn has(&self, ask: Ask) -> bool {
        match ask {
            Ask::Add { route, target } => self.routes[route].0 == target,
            Ask::Delete { route } => self.routes[route].0 == 0,
            Ask::Get { .. } => false,
        }
    }

    /// What the leaves should be.
    pub(crate) fn wanted(&self) -> [u8; 2] {
        self.routes.map(|(target, _)| target)
    }

    /// What they should be when the call is done.
    pub(crate) fn wanted_after(&self, ask: Ask) -> [u8; 2] {
        let mut wanted = self.wanted();
        wanted[ask.route()] = ask.target();
        wanted
    }
}
