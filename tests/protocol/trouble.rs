//! What may happen around the calls: Traefiks that lag, restart and come back, a store that is wiped or goes back, upgrades,
//! foreign hands.

use crate::model::Action;
use crate::state::{Page, State, Traefik};
use crate::{Broken, Protocol};

impl Protocol {
    /// What one Traefik may do, or have done to it.
    pub(crate) fn traefik_actions(&self, state: &State, traefik: usize, actions: &mut Vec<Action>) {
        let this = &state.traefiks[traefik];
        let loads = match this.page {
            Page::Tree | Page::Stuck(_) => this.shown + 1 < state.trees.len() && !state.back.deaf,
            // It reads the tree from the beginning, whatever it would have waited for before.
            Page::Nothing | Page::Fallback(..) => state.tree_now().mark.epoch > 0,
        };
        if loads {
            actions.push(Action::Load { traefik });
        }
        if state.luck.restarts > 0 && this.page == Page::Tree {
            actions.push(Action::Restart { traefik });
        }
        if matches!(this.page, Page::Nothing | Page::Fallback(..)) {
            let views = (0..state.records.len()).filter(|&view| self.may_give(state, view, this.page));
            actions.extend(views.map(|view| Action::Fetch { traefik, view }));
        }
        if state.lag.proceeds && this.ready && self.is_behind(state, this) {
            actions.push(Action::Withdraw { traefik });
        }
        if state.lag.proceeds && !this.ready && self.may_come_back(state, this) {
            actions.push(Action::Readmit { traefik });
        }
    }

    /// Whatever was answered without it has to be there. Being less behind is not enough.
    pub(crate) fn may_come_back(&self, state: &State, traefik: &Traefik) -> bool {
        let (told, floor, epoch) = (state.told(traefik), state.lag.floor, state.tree_now().mark.epoch);
        if traefik.page == Page::Nothing {
            return false;
        }
        // Of an epoch that is over nothing has to be there; but a tree of that epoch does not do either.
        let is_over = (floor.epoch != epoch && told.epoch == epoch) || state.is_lost(floor);
        let is_over = match self.broken {
            Broken::FloorForEver => false,
            Broken::FloorEndsTooEarly => floor.epoch != state.now().head.epoch,
            _ => is_over,
        };
        if floor.n == 0 || is_over {
            return true;
        }
        // Old routes are better than none; and then it is waited for again.
        let has_it = |other: &Traefik| other != traefik && state.told(other).covers(self.broken, floor);
        if state.lag.restarted && !state.traefiks.iter().any(has_it) {
            return true;
        }
        let nearly = self.broken == Broken::BackBeforeCaughtUp && told.n + 1 >= floor.n;
        let caught_up = told.covers(self.broken, floor) && !state.shows_lost(self.broken, traefik);
        caught_up || nearly
    }

    /// Whether a replica whose mirror or snapshot this is hands out a fallback made from it: not if a Traefik is seen to serve
    /// something newer.
    fn may_give(&self, state: &State, view: usize, page: Page) -> bool {
        let records = &state.records[view];
        let same = matches!(page, Page::Fallback(mark, _) if mark == records.head);
        let newer = |mark: crate::tree::Mark| mark.epoch == records.head.epoch && mark.n > records.head.n;
        let any_newer = state.traefiks.iter().any(|traefik| newer(state.told(traefik)));
        records.head.n > 0 && !same && (!any_newer || self.broken == Broken::FallbackGoesBack)
    }

    /// What may happen to the store, and to those who write to it.
    pub(crate) fn trouble_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let now = state.now().head;
        if state.luck.wipes > 0 && now.n > 0 {
            actions.push(Action::Wipe);
        }
        if state.luck.restores > 0 {
            match &state.back.backup {
                None if now.n > 0 => actions.push(Action::Backup),
                // A store that hasn't moved can't go back.
                Some((records, tree))
                    if records.last().is_some_and(|last| last.head != now) || tree != state.tree_now() =>
                {
                    actions.push(Action::Restore);
                }
                _ => {}
            }
        }
        if state.back.life > 0 {
            let lost = state.traefiks.iter().any(|traefik| state.shows_lost(self.broken, traefik));
            if now.n > 0 && now.epoch == state.back.to.epoch && (state.back.known || lost) {
                actions.push(Action::NewEpoch);
            }
            let behind = state.traefiks.iter().any(|traefik| traefik.shown + 1 < state.trees.len());
            if state.back.deaf && behind && self.broken != Broken::NobodyPushes {
                actions.push(Action::Push);
            }
        }
        if state.upgrade.stage + 1 < state.upgrade.stages.len() {
            actions.push(Action::Upgrade);
        }
        if state.luck.tampers > 0 && state.tree_now().mark.epoch > 0 {
            for route in 0..2 {
                let there = state.tree_now().leaf[route];
                let others = [0, FOREIGN].into_iter().filter(|&target| target != there);
                actions.extend(others.map(|target| Action::Tamper { route, target }));
            }
        }
    }
}

/// A target that no call asks for.
const FOREIGN: u8 = 9;
