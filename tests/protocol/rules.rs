//! When a step may be taken: the guards of the transactions, the checks before them, and what each broken variant leaves out.

use crate::calls::{Ask, Phase};
use crate::model::{Action, Fate, Keys};
use crate::state::{Page, Records, State, Traefik};
use crate::tree::{Edit, Mark, Tree};
use crate::{Broken, Protocol};

impl Protocol {
    /// What can happen next for one call.
    pub(crate) fn call_actions(&self, state: &State, call: usize, actions: &mut Vec<Action>) {
        let this = &state.calls[call];
        let waits_its_turn = state.in_turn && state.calls[..call].iter().any(|earlier| earlier.after.is_none());
        match this.phase {
            Phase::New if waits_its_turn => {}
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
            Phase::Reading { head } => {
                // A head that wasn't there yet has been reached by any view since the last wipe, but by none before it.
                let reached = |&view: &usize| match &state.records[view] {
                    records if head.n == 0 => records.head.n == 0 || records.head.epoch == state.era + 1,
                    records => {
                        let lost = state.is_lost(records.head) && self.broken != Broken::GetFromLostMirror;
                        records.head.epoch == head.epoch && records.head.n >= head.n && !lost
                    }
                };
                let views = (0..state.records.len()).filter(reached);
                actions.extend(views.map(|view| Action::ReadMirror { call, view }));
                if head.n > 0 && state.now().head.epoch != head.epoch {
                    actions.push(Action::Fail { call });
                }
            }
            Phase::Unknown { head, .. } => {
                self.unknown_actions(state, call, head, actions);
                actions.push(Action::Fail { call });
            }
            Phase::Waiting { covered_by, .. } => {
                if self.barrier_is_open(state, covered_by) {
                    actions.push(Action::Answer { call });
                }
                if state.luck.deaths > 0 || state.now().head.epoch != covered_by.epoch {
                    actions.push(Action::Fail { call });
                }
            }
            Phase::Done(_) | Phase::Failed | Phase::Void => {}
        }
        if this.straggler.is_some() {
            actions.push(Action::Straggle { call });
        }
    }

    /// The barrier: every live Traefik shows our epoch and at least n. One that has nothing is not live, and one that users
    /// no longer get to may be excused; but somebody has to be left.
    fn barrier_is_open(&self, state: &State, change: Mark) -> bool {
        let covers = |traefik: &&Traefik| {
            state.told(traefik).covers(self.broken, change) && !state.shows_lost(self.broken, traefik)
        };
        // Whoever is on the fallback, or has loaded what the store lost, will load the tree as it is.
        if !state.tree_now().mark.covers(self.broken, change) && self.broken != Broken::BarrierIgnoresTheTree {
            return false;
        }
        let excused = |traefik: &Traefik| match self.broken {
            _ if !state.lag.proceeds => false,
            Broken::ExcusedBeforeWithdrawn => self.is_behind(state, traefik),
            Broken::ExcusedByAnOldLook => traefik.was_out,
            _ => !traefik.ready,
        };
        let mut live =
            state.traefiks.iter().filter(|traefik| traefik.page != Page::Nothing && !excused(traefik)).peekable();
        match self.broken {
            Broken::BarrierAsksOneTraefik => live.any(|traefik| covers(&traefik)),
            _ => live.peek().is_some() && live.all(|traefik| covers(&traefik)),
        }
    }

    /// Whether another Traefik that users get to serves something newer. Of markers from different epochs the one that the
    /// head has is newer, and what the store has lost is not.
    pub(crate) fn is_behind(&self, state: &State, traefik: &Traefik) -> bool {
        let told = state.told(traefik);
        let newer = |than: Mark| match self.broken {
            Broken::WithdrawnByThePast => than.epoch > 0 && !told.covers(self.broken, than),
            _ => (than.epoch, than.n) > (told.epoch, told.n),
        };
        let counts = |other: &Traefik| {
            let is_past = state.told(other).epoch != state.now().head.epoch || state.shows_lost(self.broken, other);
            // A fallback may be ahead of the tree.
            let in_tree = state.tree_now().mark.covers(self.broken, state.told(other))
                || self.broken == Broken::FallbackPutsOthersBehind;
            other.ready && ((!is_past && in_tree) || self.broken == Broken::WithdrawnByThePast)
        };
        let by_the_store = self.broken == Broken::WithdrawnByTheStore && newer(state.tree_now().mark);
        by_the_store || state.traefiks.iter().any(|other| counts(other) && newer(state.told(other)))
    }

    /// An identical POST writes nothing. A DELETE always writes the head, so that nothing from before comes in after it.
    fn is_free(&self, records: &Records, ask: Ask) -> bool {
        let writes_head = matches!(ask, Ask::Delete { .. }) && self.broken != Broken::NotFoundWritesNothing;
        records.head.n > 0 && records.has(ask) && !writes_head
    }

    /// A call that finds what it asks for: validated by a linearizable read of the head, so the view is the present.
    fn no_change_actions(&self, state: &State, call: usize, actions: &mut Vec<Action>) {
        let ask = state.calls[call].ask;
        let any = self.broken == Broken::NoChangeSkipsHeadRead;
        let views = (0..state.records.len()).filter(|&view| any || self.is_guarded(state, view));
        let free = |&view: &usize| self.is_free(&state.records[view], ask);
        actions.extend(views.filter(free).map(|view| Action::NoChange { call, view }));
    }

    /// A transaction from any view: with its guards in place, only a view of the present gets through.
    fn commit_actions(&self, state: &State, call: usize, actions: &mut Vec<Action>) {
        let ask = state.calls[call].ask;
        let wide = |view: &usize| self.is_guarded(state, *view) || self.broken == Broken::RecordsWithoutHeadGuard;
        for view in (0..state.records.len()).filter(wide) {
            let records = &state.records[view];
            if self.is_free(records, ask) {
                continue;
            }
            for fate in fates(state) {
                actions.push(Action::Commit { call, view, fast: None, fate });
                for tree in self.tree_views(state, Broken::FastPathWithoutMarkerGuard) {
                    for layout in state.layouts().filter(|&layout| self.may_take(state, layout, &state.trees[tree])) {
                        let there = &state.trees[tree];
                        if self.fits_one_transaction(ask, records, there) {
                            let fast = Some(Keys { tree, layout, blind: false });
                            actions.push(Action::Commit { call, view, fast, fate });
                        }
                        let tampered = there.foreign != [None; 2];
                        if tampered && self.fits_one_transaction(ask, records, &there.before_tampering()) {
                            let fast = Some(Keys { tree, layout, blind: true });
                            actions.push(Action::Commit { call, view, fast, fate });
                        }
                    }
                }
            }
        }
    }

    /// Whether a transaction, or a check, that compares the head holds when this was seen: it must be the present.
    fn is_guarded(&self, state: &State, view: usize) -> bool {
        // After the store went back a revision is given a second time. That it comes out even takes some other writes.
        let coincides = || state.records[view].is_at(state.now().head) && state.back.life > 0;
        view + 1 == state.records.len() || (self.broken == Broken::HeadGuardByRevision && coincides())
    }

    /// The condition of the fast path: with it the tree is complete, whatever was missing before.
    fn fits_one_transaction(&self, ask: Ask, records: &Records, tree: &Tree) -> bool {
        tree.missing(records.wanted_after(ask)).len() <= 1 || self.broken == Broken::FastPathBringsOnlyItsOwn
    }

    /// The revisions of the tree that a transaction may be planned from: the present, when the marker is guarded.
    fn tree_views(&self, state: &State, unguarded: Broken) -> std::ops::Range<usize> {
        let now = state.trees.len() - 1;
        if self.broken == unguarded { 0..now + 1 } else { now..now + 1 }
    }

    /// After a commit without an answer: ask the head.
    fn unknown_actions(&self, state: &State, call: usize, head: Mark, actions: &mut Vec<Action>) {
        let now = state.now();
        let moved = now.head.n >= head.n || (now.head.n > 0 && now.head.epoch != head.epoch);
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
                if self.fits_one_transaction(state.calls[call].ask, now, state.tree_now()) {
                    actions.push(Action::Again { call, fast: true, fate });
                }
            }
            return;
        }
        // A history that was cut off by a relist says neither yes nor no: then only Fail is left.
        let remembered = |records: &&Records| !state.is_lost(records.head) || self.broken == Broken::LostHeadsSettle;
        let mut heads = state.records.iter().filter(remembered);
        if heads.clone().any(|records| records.is_at(head)) {
            let ours = heads.any(|records| records.written_by(call, head));
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
                for layout in state.layouts() {
                    if self.may_project(state, view, tree) && self.may_take(state, layout, &state.trees[tree]) {
                        self.steps(&state.records[view], state, (view, tree, layout), actions);
                    }
                }
            }
        }
    }

    fn may_project(&self, state: &State, view: usize, tree: usize) -> bool {
        let (records, tree) = (&state.records[view], &state.trees[tree]);
        if records.head.n == 0 {
            return false;
        }
        let present = view + 1 == state.records.len();
        if records.head.epoch == tree.mark.epoch {
            // The first step compares the head, or a mirror from before the store went back could lay what was lost over the
            // tree. In a store that never goes back this is not asked for here: any view may project, which is more.
            let headed = present || !state.back.possible || state.back.chain == Some(records.head);
            return (records.head.n >= tree.mark.n || self.broken == Broken::ProjectionFromOldRecords)
                && (headed || self.broken == Broken::ProjectionWithoutHeadGuard);
        }
        // Epochs can't be compared, so the view must be the present for that reason already.
        present || self.broken == Broken::NewEpochWithoutHeadGuard
    }

    /// Phase A: one leaf at a time (the limit of operations is that small), in any order, the marker with the last one.
    /// Phase B: the buckets.
    fn steps(&self, records: &Records, state: &State, from: (usize, usize, u8), actions: &mut Vec<Action>) {
        let (view, tree, layout) = from;
        let there = &state.trees[tree];
        let done = records.head;
        let in_hand = there.mark == done && (there.layout == layout || there.layout == 0);
        let missing = match self.broken {
            Broken::ForeignKeysStay if in_hand => Vec::new(),
            _ => there.missing(records.wanted()),
        };
        let marker = match missing.len() {
            0 | 1 => done,
            _ if self.broken == Broken::MarkerBeforeTheLastStep => done,
            _ if there.mark.epoch == done.epoch => there.mark,
            _ => Mark { n: 0, ..done },
        };
        let mut push = |edit: Edit| actions.push(Action::Project { view, tree, layout, edit, marker });
        if missing.is_empty() {
            if !in_hand {
                push(Edit::Nothing);
            } else if let Some(edit) = there.rebalance(self.broken) {
                push(edit);
            }
        }
        missing.into_iter().for_each(push);
    }

    /// Whether a replica of this layout may change a tree that was written by one of that layout.
    fn may_take(&self, state: &State, layout: u8, tree: &Tree) -> bool {
        match layout.cmp(&tree.layout) {
            _ if tree.layout == 0 => true,
            std::cmp::Ordering::Equal => true,
            std::cmp::Ordering::Greater => self.broken != Broken::NewerLayoutLooksOn,
            std::cmp::Ordering::Less => {
                // Told to adopt it, it does so once; and again only when nobody is left who keeps it up to date.
                let stage = state.stage();
                let orphaned = !stage.newer && tree.mark != state.now().head;
                let adopts = !state.upgrade.adopted || orphaned || self.broken == Broken::AdoptsAlways;
                (stage.adopts && adopts) || self.broken == Broken::OlderLayoutWritesOn
            }
        }
    }
}

fn fates(state: &State) -> impl Iterator<Item = Fate> + use<> {
    let lossy = state.luck.losses > 0;
    [Fate::Answered, Fate::AnswerLost, Fate::Late].into_iter().filter(move |&fate| lossy || fate == Fate::Answered)
}
