//! What must happen somewhere in the state space: a model in which nothing goes wrong proves nothing.

use stateright::{Model, Property};

use crate::calls::{Ask, Phase, Reply};
use crate::model::{Action, Fate, Keys};
use crate::state::{Page, State, Traefik};
use crate::tree::{Edit, Mark};
use crate::{Broken, Protocol};

/// None, for a variant that is to fail.
pub(crate) fn nothing() -> Vec<Property<Protocol>> {
    Vec::new()
}

/// The "sometimes" properties of each group of worlds.
pub(crate) fn calls_and_trees() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("the fast path is taken", |p, s| {
            can(p, s, |a| matches!(a, Action::Commit { fast: Some(_), fate: Fate::Answered, .. }))
        }),
        Property::sometimes("the fast path brings what an earlier commit still owed", |p, s: &State| {
            let behind = s.now().head.n > s.tree_now().mark.n;
            behind && can(p, s, |a| matches!(a, Action::Commit { fast: Some(_), fate: Fate::Answered, .. }))
        }),
        Property::sometimes("a record-only commit leaves the marker behind", |_, s: &State| {
            s.now().head.n > s.tree_now().mark.n
        }),
        Property::sometimes("the marker is two commits behind", |_, s: &State| {
            s.now().head.n > s.tree_now().mark.n + 1
        }),
        Property::sometimes("a projection takes several steps", |p, s| {
            can(
                p,
                s,
                |a| matches!(a, Action::Project { edit, marker, .. } if *edit != Edit::Nothing && marker.n < s.now().head.n),
            )
        }),
        Property::sometimes("a projection runs from an old view", |p, s| {
            can(p, s, |a| matches!(a, Action::Project { view, .. } if view + 1 < s.records.len()))
        }),
        Property::sometimes("the marker moves without a change of the tree", |p, s| {
            can(p, s, |a| matches!(a, Action::Project { edit: Edit::Nothing, .. }))
        }),
        Property::sometimes("a leaf moves into a bucket", |p, s| {
            can(p, s, |a| matches!(a, Action::Project { edit: Edit::Move { inside: true, .. }, .. }))
        }),
        Property::sometimes("a leaf moves out of a bucket", |p, s| {
            can(p, s, |a| matches!(a, Action::Project { edit: Edit::Move { inside: false, .. }, .. }))
        }),
        Property::sometimes("an identical POST changes nothing", |p, s| {
            can(p, s, |a| matches!(a, Action::NoChange { .. }))
        }),
        Property::sometimes("a DELETE finds nothing", |_, s: &State| {
            s.calls.iter().any(|c| c.phase == Phase::Done(Reply::Absent))
        }),
        Property::sometimes("a lost answer is settled as ours", |p, s| {
            can(p, s, |a| matches!(a, Action::Settle { ours: true, .. }))
        }),
        Property::sometimes("a lost answer is settled as somebody else's", |p, s| {
            can(p, s, |a| matches!(a, Action::Settle { ours: false, .. }))
        }),
        Property::sometimes("a transaction is sent again while its first copy is on its way", |p, s| {
            can(p, s, |a| matches!(a, Action::Again { call, .. } if s.calls[*call].straggler.is_some()))
        }),
        Property::sometimes("a transaction arrives after its call failed", |p, s| {
            can(p, s, |a| matches!(a, Action::Straggle { call } if s.calls[*call].phase == Phase::Failed))
        }),
        Property::sometimes("an acknowledged delete stands against an add that failed", |_, s: &State| {
            let failed_add = |c: &crate::calls::Call| matches!(c.ask, Ask::Add { .. }) && c.phase == Phase::Failed;
            let after_it =
                |c: &crate::calls::Call| (0..s.calls.len()).any(|i| c.began_after(i) && failed_add(&s.calls[i]));
            s.calls.iter().any(|c| matches!(c.phase, Phase::Done(Reply::Absent | Reply::Removed)) && after_it(c))
        }),
        Property::sometimes("a call fails after its commit, and others finish its projection", |_, s: &State| {
            s.calls.iter().any(|c| c.phase == Phase::Failed)
                && s.now().head.n > 0
                && s.now().head.n == s.tree_now().mark.n
        }),
        Property::sometimes("the Traefiks show different revisions", |_, s: &State| {
            s.traefiks.first().map(|t| t.shown) != s.traefiks.last().map(|t| t.shown)
        }),
        Property::sometimes("a GET is answered from a mirror", |p, s| {
            can(p, s, |a| matches!(a, Action::ReadMirror { .. }))
        }),
        Property::sometimes("a Traefik shows the old epoch when the new one has begun", |_, s: &State| {
            let old = s.told(&s.traefiks[0]).epoch;
            old > 0 && s.now().head.n > 0 && old < s.now().head.epoch
        }),
    ]
}

pub(crate) fn going_back() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("a call is answered in the old epoch of a store that went back", |_, s: &State| {
            answered_since(s) && s.now().head.epoch == s.back.to.epoch
        }),
        Property::sometimes("a call is answered in the new epoch of a store that went back", |_, s: &State| {
            answered_since(s) && s.now().head.epoch > s.back.to.epoch
        }),
        Property::sometimes("a Traefik shows a lost tree with the number of the head", |_, s: &State| {
            let head = s.now().head;
            let same = |t: &Traefik| (s.told(t).epoch, s.told(t).n) == (head.epoch, head.n);
            head.n > s.back.to.n && s.traefiks.iter().any(|t| same(t) && s.shows_lost(Broken::Nothing, t))
        }),
        Property::sometimes("a transaction from before arrives when the store went back", |p, s: &State| {
            s.back.life > 0 && can(p, s, |a| matches!(a, Action::Straggle { .. }))
        }),
        Property::sometimes("a transaction from before is sent again when the store went back", |p, s: &State| {
            s.back.life > 0 && can(p, s, |a| matches!(a, Action::Again { .. }))
        }),
        Property::sometimes("an identical POST finds what the store has again", |p, s: &State| {
            s.back.life > 0 && can(p, s, |a| matches!(a, Action::NoChange { .. }))
        }),
        Property::sometimes("a projection goes on though the head has moved", |p, s: &State| {
            let chain = s.back.chain.is_some();
            chain && can(p, s, |a| matches!(a, Action::Project { view, .. } if view + 1 < s.records.len()))
        }),
        Property::sometimes("an epoch that was over comes back", |_, s: &State| {
            s.back.life > 0 && s.now().head.n > 0 && s.now().head.epoch <= s.era
        }),
        Property::sometimes("nothing but the revision tells a Traefik that the store went back", |_, s: &State| {
            s.back.deaf && !s.back.known && s.traefiks.iter().all(|t| !s.shows_lost(Broken::Nothing, t))
        }),
    ]
}

pub(crate) fn laggards() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("a call is answered without a Traefik", |_, s: &State| {
            s.traefiks.iter().any(|t| lags(s, t))
        }),
        Property::sometimes("a Traefik has come nearer, and has to stay away", |_, s: &State| {
            s.traefiks.iter().any(|t| lags(s, t) && s.told(t).n > 0)
        }),
        Property::sometimes("a Traefik comes back", |p, s: &State| {
            s.lag.floor.n > 0 && can(p, s, |a| matches!(a, Action::Readmit { .. }))
        }),
        Property::sometimes("a Traefik comes back while it is behind again", |p, s: &State| {
            let behind = |i: usize| s.told(&s.traefiks[i]).n < s.tree_now().mark.n;
            s.lag.floor.n > 0 && can(p, s, |a| matches!(a, Action::Readmit { traefik } if behind(*traefik)))
        }),
        Property::sometimes("a Traefik comes back old, as those that had more are gone", |_, s: &State| {
            let old = |t: &Traefik| t.ready && t.page == Page::Tree && s.told(t).n < s.lag.floor.n;
            s.lag.proceeds && s.lag.restarted && s.traefiks.iter().any(old)
        }),
        Property::sometimes("the one that was withdrawn is ahead of the others", |_, s: &State| {
            let most = s.traefiks.iter().filter(|t| t.ready).map(|t| s.told(t).n).max();
            s.traefiks.iter().any(|t| !t.ready && Some(s.told(t).n) > most)
        }),
    ]
}

pub(crate) fn fallback() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("a call is answered by a Traefik on the fallback", |p, s: &State| {
            !marks(s).is_empty() && can(p, s, |a| matches!(a, Action::Answer { .. }))
        }),
        Property::sometimes("the fallback is ahead of the tree", |_, s: &State| {
            marks(s).iter().any(|mark| mark.n > s.tree_now().mark.n)
        }),
        Property::sometimes("the fallback is older than what was answered", |_, s: &State| {
            marks(s).iter().any(|mark| mark.n < s.lag.floor.n)
        }),
        Property::sometimes("the fallback is given up for a newer tree", |p, s: &State| {
            let older = marks(s).iter().any(|mark| mark.n < s.tree_now().mark.n);
            older && can(p, s, |a| matches!(a, Action::Load { .. }))
        }),
        Property::sometimes("the fallback is renewed", |p, s: &State| {
            let renews = |i: usize| matches!(s.traefiks[i].page, Page::Fallback(..));
            can(p, s, |a| matches!(a, Action::Fetch { traefik, .. } if renews(*traefik)))
        }),
    ]
}

pub(crate) fn layouts() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("the newer layout takes the tree over", |p, s: &State| {
            s.tree_now().layout == 1 && can(p, s, |a| matches!(a, Action::Project { layout: 2, .. }))
        }),
        Property::sometimes("the newer layout takes the tree over on the fast path", |p, s: &State| {
            let newer = |a: &Action| matches!(a, Action::Commit { fast: Some(Keys { layout: 2, .. }), .. });
            s.tree_now().layout == 1 && can(p, s, newer)
        }),
        Property::sometimes("only the older layout is left, and writes records only", |_, s: &State| {
            let orphaned = s.tree_now().layout == 2 && !s.stage().newer && !s.stage().adopts;
            orphaned && s.now().head.n > s.tree_now().mark.n
        }),
        Property::sometimes("the tree is adopted, and taken back", |_, s: &State| {
            s.upgrade.handovers == 3 && s.tree_now().layout == 2
        }),
        Property::sometimes("the tree is adopted once more when nobody else is left", |_, s: &State| {
            s.upgrade.handovers == 4
        }),
    ]
}

pub(crate) fn foreign_hands() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("a commit goes past a foreign change that it hasn't heard of", |p, s| {
            can(p, s, |a| matches!(a, Action::Commit { fast: Some(Keys { blind: true, .. }), .. }))
        }),
        Property::sometimes("a foreign change is mended when the marker is at the head", |p, s: &State| {
            let tampered = s.tree_now().foreign != [None; 2] && s.now().head == s.tree_now().mark;
            tampered && can(p, s, |a| matches!(a, Action::Project { edit, .. } if *edit != Edit::Nothing))
        }),
        Property::sometimes("a Traefik still shows a foreign change that has been mended", |_, s: &State| {
            let mended = s.tree_now().foreign == [None; 2];
            mended && s.traefiks.iter().any(|t| s.trees[t.shown].foreign != [None; 2])
        }),
    ]
}

/// Calls from before the store went back are void, so those that are done have been answered since.
fn answered_since(state: &State) -> bool {
    state.back.life > 0 && state.calls.iter().any(|call| matches!(call.phase, Phase::Done(_)))
}

/// Whether this Traefik is not there for users, and lacks what has been answered without it.
fn lags(state: &State, traefik: &Traefik) -> bool {
    !traefik.ready && state.told(traefik).n < state.lag.floor.n
}

/// The markers of the Traefiks on the fallback.
fn marks(state: &State) -> Vec<Mark> {
    let pages = state.traefiks.iter().map(|traefik| traefik.page);
    pages.filter_map(|page| if let Page::Fallback(mark, _) = page { Some(mark) } else { None }).collect()
}

fn can(protocol: &Protocol, state: &State, wanted: impl Fn(&Action) -> bool) -> bool {
    let mut actions = Vec::new();
    protocol.actions(state, &mut actions);
    actions.iter().any(wanted)
}
