//! What must happen somewhere in the state space: a model in which nothing goes wrong proves nothing.

use stateright::{Model, Property};

use crate::Protocol;
use crate::calls::{Ask, Phase, Reply};
use crate::model::{Action, Fate};
use crate::state::State;
use crate::tree::Edit;

/// The "sometimes" properties.
pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("the fast path is taken", |p, s| {
            can(p, s, |a| matches!(a, Action::Commit { fast: Some(_), fate: Fate::Answered, .. }))
        }),
        Property::sometimes("the fast path brings what an earlier commit still owed", |p, s: &State| {
            let behind = s.now().head.n > s.tree_now().mark.n;
            behind && can(p, s, |a| matches!(a, Action::Commit { fast: Some(_), fate: Fate::Answered, .. }))
        }),
        Property::sometimes("a record-only commit leaves the marker behind", |_, s: &State| s.now().head.n > s.tree_now().mark.n),
        Property::sometimes("the marker is two commits behind", |_, s: &State| s.now().head.n > s.tree_now().mark.n + 1),
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
            s.calls.iter().any(|c| c.phase == Phase::Failed) && s.now().head.n > 0 && s.now().head.n == s.tree_now().mark.n
        }),
        Property::sometimes("the Traefiks show different revisions", |_, s: &State| s.traefiks.first().map(|t| t.shown) != s.traefiks.last().map(|t| t.shown)),
        Property::sometimes("a GET is answered from a mirror", |p, s| {
            can(p, s, |a| matches!(a, Action::ReadMirror { .. }))
        }),
        Property::sometimes("a Traefik shows the old epoch when the new one has begun", |_, s: &State| {
            let old = s.told(&s.traefiks[0]).epoch;
            old > 0 && s.now().head.n > 0 && old < s.now().head.epoch
        }),
    ]
}

fn can(protocol: &Protocol, state: &State, wanted: impl Fn(&Action) -> bool) -> bool {
    let mut actions = Vec::new();
    protocol.actions(state, &mut actions);
    actions.iter().any(wanted)
}
