//! When a step may be taken: the guards of the transactions, the checks before them, and what each broken variant leaves out.

use crate::calls::{Ask, Phase};
use crate::model::{Action, Fate, Records, State};
use crate::tree::Edit;
use crate::{Broken, Protocol};

impl Protocol {
    /// What can happen next for one call.
    pub(crate) fn call_actions(&self, state: &State, call: usize, actions: &mut Vec<Action>) {
        let this = &state.calls[call];
        match this.phase {
            Phase::New if matches!(this.ask, Ask::Get { .. }) => {
                actions.push(Action::ReadHead { call });
                if self.broken == Broken::GetFromMirrorAlone {
                    actions.extend((0..state.records.len()).map(|view| Action::ReadMirror { call, view }));
                }
            }
            Phase::New => {
                self.no_change_actions(state, call, actions);
                self.commit_actions(state, call, actions);
            }
            Phase::Reading { epoch, n } => {
                // A head that wasn't there yet has been reached by any view since the last wipe, but by none before it.
                let reached = |&view: &usize| match &state.records[view] {
                    records if n == 0 => records.n == 0 || records.epoch == state.era + 1,
                    records => records.epoch == epoch && records.n >= n,
                };
                let views = (0..state.records.len()).filter(reached);
                actions.extend(views.map(|view| Action::ReadMirror { call, view }));
            }
            Phase::Unknown { epoch, n, .. } => {
                self.unknown_actions(state, call, (epoch, n), actions);
                actions.push(Action::Fail { call });
            }
            Phase::Waiting { epoch, n, .. } => {
                if self.barrier_is_open(state, epoch, n) {
                    actions.push(Action::Answer { call });
                }
                if state.deaths > 0 {
                    actions.push(Action::Fail { call });
                }
            }
            Phase::Done(_) | Phase::Failed | Phase::Void => {}
        }
        if this.straggler.is_some() {
            actions.push(Action::Straggle { call });
        }
    }

    /// The barrier: every live Traefik shows our epoch and at least n.
    fn barrier_is_open(&self, state: &State, epoch: u8, n: u8) -> bool {
        let covers = |&shown: &usize| {
            let tree = &state.trees[shown];
            (tree.epoch == epoch || self.broken == Broken::BarrierIgnoresEpoch) && tree.n >= n
        };
        match self.broken {
            Broken::BarrierAsksOneTraefik => state.shown.iter().any(covers),
            _ => state.shown.iter().all(covers),
        }
    }

    /// An identical POST writes nothing. A DELETE always writes the head, so that nothing from before comes in after it.
    fn is_free(&self, records: &Records, ask: Ask) -> bool {
        let writes_head = matches!(ask, Ask::Delete { .. }) && self.broken != Broken::NotFoundWritesNothing;
        records.n > 0 && records.has(ask) && !writes_head
    }

    /// A call that finds what it asks for: validated by a linearizable read of the head, so the view is the present.
    fn no_change_actions(&self, state: &State, call: usize, actions: &mut Vec<Action>) {
        let ask = state.calls[call].ask;
        let views = match self.broken {
            Broken::NoChangeSkipsHeadRead => 0..state.records.len(),
            _ => state.records.len() - 1..state.records.len(),
        };
        let free = |&view: &usize| self.is_free(&state.records[view], ask);
        actions.extend(views.filter(free).map(|view| Action::NoChange { call, view }));
    }

    /// A transaction from any view: with its guards in place, only a view of the present gets through.
    fn commit_actions(&self, state: &State, call: usize, actions: &mut Vec<Action>) {
        let ask = state.calls[call].ask;
        let guarded = |view: usize| view + 1 == state.records.len();
        let wide = |view: &usize| guarded(*view) || self.broken == Broken::RecordsWithoutHeadGuard;
        for view in (0..state.records.len()).filter(wide) {
            let records = &state.records[view];
            if self.is_free(records, ask) {
                continue;
            }
            for fate in fates(state) {
                actions.push(Action::Commit { call, view, tree: 0, fast: false, fate });
                for tree in self.tree_views(state, Broken::FastPathWithoutMarkerGuard) {
                    if self.fits_one_transaction(state, ask, records, tree) {
                        actions.push(Action::Commit { call, view, tree, fast: true, fate });
                    }
                }
            }
        }
    }

    /// The condition of the fast path: with it the tree is complete, whatever was missing before.
    fn fits_one_transaction(&self, state: &State, ask: Ask, records: &Records, tree: usize) -> bool {
        let missing = state.trees[tree].missing(records.wanted_after(ask));
        missing.len() <= 1 || self.broken == Broken::FastPathBringsOnlyItsOwn
    }

    /// The revisions of the tree that a transaction may be planned from: the present, when the marker is guarded.
    fn tree_views(&self, state: &State, unguarded: Broken) -> std::ops::Range<usize> {
        let now = state.trees.len() - 1;
        if self.broken == unguarded { 0..now + 1 } else { now..now + 1 }
    }

    /// After a commit without an answer: ask the head.
    fn unknown_actions(&self, state: &State, call: usize, (epoch, n): (u8, u8), actions: &mut Vec<Action>) {
        let now = state.now();
        let moved = now.n >= n || (now.n > 0 && now.epoch != epoch);
        match self.broken {
            // Every doubt is settled as "it didn't happen".
            Broken::DoubtMeansAgain => return actions.push(Action::Settle { call, ours: false }),
            // Every number that is taken is taken by us.
            Broken::DoubtMeansDone if moved => return actions.push(Action::Settle { call, ours: true }),
            _ => {}
        }
        if !moved {
            for fate in fates(state) {
                actions.push(Action::Again { call, fast: false, fate });
                if self.fits_one_transaction(state, state.calls[call].ask, now, state.trees.len() - 1) {
                    actions.push(Action::Again { call, fast: true, fate });
                }
            }
            return;
        }
        // A history that was cut off by a relist says neither yes nor no: then only Fail is left.
        if state.records.iter().any(|records| records.is_at(epoch, n)) {
            let ours = state.records.iter().any(|records| records.written_by(call, epoch, n));
            actions.push(Action::Settle { call, ours });
        }
    }

    /// One step of a projection, by any replica, from any view of the records that the preconditions admit.
    pub(crate) fn project_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let someone_waits = || state.calls.iter().any(|call| matches!(call.phase, Phase::Waiting { .. }));
        if self.broken == Broken::OnlyTheCommitterProjects && !someone_waits() {
            return;
        }
        for tree in self.tree_views(state, Broken::ProjectionWithoutMarkerGuard) {
            for view in 0..state.records.len() {
                if self.may_project(state, view, tree) {
                    self.steps(&state.records[view], state, (view, tree), actions);
                }
            }
        }
    }

    fn may_project(&self, state: &State, view: usize, tree: usize) -> bool {
        let (records, tree) = (&state.records[view], &state.trees[tree]);
        if records.n == 0 {
            return false;
        }
        if records.epoch == tree.epoch {
            return records.n >= tree.n || self.broken == Broken::ProjectionFromOldRecords;
        }
        // Epochs can't be compared, so the transaction guards the head as well: the view must be the present.
        view + 1 == state.records.len() || self.broken == Broken::NewEpochWithoutHeadGuard
    }

    /// Phase A: one leaf at a time (the limit of operations is that small), in any order, the marker with the last one.
    /// Phase B: the buckets.
    fn steps(&self, records: &Records, state: &State, from: (usize, usize), actions: &mut Vec<Action>) {
        let (view, tree) = from;
        let there = &state.trees[tree];
        let done = (records.epoch, records.n);
        let missing = there.missing(records.wanted());
        let marker = match missing.len() {
            0 | 1 => done,
            _ if self.broken == Broken::MarkerBeforeTheLastStep => done,
            _ if there.epoch == records.epoch => (there.epoch, there.n),
            _ => (records.epoch, 0),
        };
        let mut push = |edit: Edit| actions.push(Action::Project { view, tree, edit, marker });
        if missing.is_empty() {
            if (there.epoch, there.n) != done {
                push(Edit::Nothing);
            } else if let Some(edit) = there.rebalance(self.broken) {
                push(edit);
            }
        }
        missing.into_iter().for_each(push);
    }
}

fn fates(state: &State) -> impl Iterator<Item = Fate> + use<> {
    let lossy = state.losses > 0;
    [Fate::Answered, Fate::AnswerLost, Fate::Late].into_iter().filter(move |&fate| lossy || fate == Fate::Answered)
}
