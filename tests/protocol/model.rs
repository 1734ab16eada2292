//! The protocol as a state machine: the steps that somebody may take, and what must hold after each.

use stateright::{Model, Property};

use crate::Protocol;
use crate::state::{Page, State, Traefik};
use crate::tree::{Edit, Mark};

/// After an answer every Traefik that users get to serves what was answered, or something later.
pub(crate) const ROUTED: &str = "I1 what was answered is routed on every Traefik";
/// Nothing acknowledged is lost, nothing deleted comes back, every answer fits some order of the calls.
pub(crate) const EXPLAINED: &str = "I2 I3 I6 the records explain every answer";
pub(crate) const MARKER_TRUE: &str = "I4 the tree holds every change up to its marker";
pub(crate) const MARKER_RISES: &str = "I5 the marker never falls";
pub(crate) const TREE_RIGHT: &str = "I7 the tree routes as a longest-prefix table does";
pub(crate) const PROGRESS: &str = "I8 every call ends, the tree reaches the records, and every Traefik comes back";
pub(crate) const SOMEBODY_SERVES: &str = "I9 not all Traefiks are withdrawn, nor one that shows the newest tree";
pub(crate) const NO_FIGHT: &str = "I10 the tree changes hands once for each change of the replicas";

/// What becomes of a transaction that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    /// It happens, but the replica doesn't hear of it.
    AnswerLost,
    /// The replica stops waiting before it has happened; it may happen later.
    Late,
}

/// Traefik's keys in a commit: planned from this revision of the tree, by a replica of this layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) tree: usize,
    pub(crate) layout: u8,
    /// The replica hasn't heard of what a foreign hand has done to it.
    pub(crate) blind: bool,
}

/// One step of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// A replica sends the transaction of a call, planned from this revision of the records; `fast` with Traefik's keys in it.
    Commit {
        call: usize,
        view: usize,
        fast: Option<Keys>,
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
        layout: u8,
        edit: Edit,
        marker: Mark,
    },
    /// A Traefik loads the next revision of its tree.
    Load {
        traefik: usize,
    },
    /// Everything in etcd is lost.
    Wipe,
    /// Somebody makes a backup of the store. Somebody brings it back.
    Backup,
    Restore,
    /// A replica that knows of a lost head begins a new epoch.
    NewEpoch,
    /// The store's revision is pushed past the one that the Traefiks wait for.
    Push,
    /// A Traefik that is behind another one fails its probe: users no longer get to it.
    Withdraw {
        traefik: usize,
    },
    /// It passes its probe again.
    Readmit {
        traefik: usize,
    },
    /// A Traefik restarts, and does not reach the store yet.
    Restart {
        traefik: usize,
    },
    /// It is given the fallback, made from this revision of the records: somebody's mirror or snapshot.
    Fetch {
        traefik: usize,
        view: usize,
    },
    /// Replicas of another layout start or stop.
    Upgrade,
    /// A foreign hand changes the leaf of a route.
    Tamper {
        route: usize,
        target: u8,
    },
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.worlds.iter().map(State::new).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for call in 0..state.calls.len() {
            self.call_actions(state, call, actions);
        }
        self.project_actions(state, actions);
        for traefik in 0..state.traefiks.len() {
            self.traefik_actions(state, traefik, actions);
        }
        self.trouble_actions(state, actions);
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
                state.traefiks.iter().all(|traefik| state.keeps_promises(traefik))
            }),
            Property::always(EXPLAINED, |_, state: &State| {
                (0..2).all(|route| state.explains(route, state.now().routes[route].0, true))
            }),
            Property::always(MARKER_TRUE, |_, state: &State| state.marker_is_true()),
            Property::always(MARKER_RISES, |_, state: &State| !state.marker_fell),
            Property::always(TREE_RIGHT, |_, state: &State| {
                state.tree_now().foreign != [None; 2] || state.tree_now().routes_rightly()
            }),
            Property::always(PROGRESS, |protocol: &Protocol, state: &State| {
                state.is_settled() || protocol.goes_on(state)
            }),
            Property::always(SOMEBODY_SERVES, |protocol: &Protocol, state: &State| {
                // A Traefik that has restarted has to pass its probe first, and in between there may be nobody.
                let may = |traefik: &Traefik| {
                    traefik.ready || (state.lag.restarted && protocol.may_come_back(state, traefik))
                };
                let somebody = state.traefiks.iter().any(|traefik| traefik.page != Page::Tree || may(traefik));
                somebody && !state.lag.newest_was_withdrawn
            }),
            Property::always(NO_FIGHT, |_, state: &State| state.upgrade.handovers <= state.upgrade.stage),
        ];
        all.extend((self.sights)());
        all
    }
}

impl Protocol {
    /// Whether there is a step that leads on. Leaving doesn't, nor does coming back as long as there is more to load.
    fn goes_on(&self, state: &State) -> bool {
        let loaded = |traefik: usize| state.traefiks[traefik].shown + 1 == state.trees.len();
        let leads_on = |action: &Action| match *action {
            Action::Withdraw { .. } => false,
            Action::Readmit { traefik } => loaded(traefik),
            _ => true,
        };
        let mut actions = Vec::new();
        self.actions(state, &mut actions);
        actions.iter().any(leads_on)
    }
}
