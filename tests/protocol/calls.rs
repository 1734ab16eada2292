//! The hub's calls, and the question whether what they were told can be true.

use crate::tree::Mark;

/// What the hub asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    Add { route: usize, target: u8 },
    Delete { route: usize },
    Get { route: usize },
}

impl Ask {
    pub(crate) fn route(self) -> usize {
        match self {
            Ask::Add { route, .. } | Ask::Delete { route } | Ask::Get { route } => route,
        }
    }

    /// What the call leaves behind on its route.
    pub(crate) fn target(self) -> u8 {
        match self {
            Ask::Add { target, .. } => target,
            Ask::Delete { .. } | Ask::Get { .. } => ABSENT,
        }
    }
}

/// What the hub is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    /// 201.
    Created,
    /// 204.
    Removed,
    /// 404 to a DELETE.
    Absent,
    /// The target in the answer to a GET, 0 for a 404.
    Target(u8),
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Nothing has been done for it. After a lost race a call is here again.
    New,
    /// A transaction was sent for it, and no answer came.
    Unknown { head: Mark, reply: Reply },
    /// A GET that has read the head, and waits for a mirror that has reached it.
    Reading { head: Mark },
    /// Committed, or found to change nothing: waits for the Traefiks.
    Waiting { covered_by: Mark, reply: Reply },
    /// Answered.
    Done(Reply),
    /// The hub was told 503, or the replica died under it. What it asked for may have happened or not.
    Failed,
    /// It began before the store was wiped or went back; nothing is promised about it any more.
    Void,
}

/// A transaction that may still be on its way to etcd after everybody has stopped waiting for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Straggler {
    pub(crate) head: Mark,
    pub(crate) fast: bool,
}

/// One call of the hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    pub(crate) ask: Ask,
    pub(crate) phase: Phase,
    /// The calls (one bit each) that the hub knew to be over when it began this one.
    /// None until it has begun.
    pub(crate) after: Option<u8>,
    pub(crate) straggler: Option<Straggler>,
}

impl Call {
    pub(crate) fn new(ask: Ask) -> Call {
        Call { ask, phase: Phase::New, after: None, straggler: None }
    }

    /// Whether the hub knew that call to be over when it began this one.
    pub(crate) fn began_after(&self, call: usize) -> bool {
        self.after.unwrap_or(0) & (1 << call) != 0
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Done(_) | Phase::Failed | Phase::Void)
    }

    fn reply(&self) -> Option<Reply> {
        match self.phase {
            Phase::Done(reply) => Some(reply),
            _ => None,
        }
    }
}

/// Whether some order of the calls on this route explains every answer given and the target that is seen now.
///
/// That is linearizability: a call that has been answered happened once, between its beginning and its answer;
/// one that has not been answered happened once or not at all. `with_gets` is for the records: a Traefik may
/// show what a GET has not told yet, or the other way round. `start` is the target before any of them.
pub(crate) fn explained(calls: &[Call], route: usize, (start, seen): (u8, u8), with_gets: bool) -> bool {
    let concerned = |call: &Call| {
        call.ask.route() == route
            && call.after.is_some()
            && call.phase != Phase::Void
            && (with_gets || !matches!(call.ask, Ask::Get { .. }))
    };
    let mine = calls.iter().enumerate().filter(|(_, call)| concerned(call)).fold(0, |bits, (i, _)| bits | 1 << i);
    extend(calls, mine, 0, start, seen)
}

/// The target of a route that isn't there.
const ABSENT: u8 = 0;

/// Tries every call that may come next after those in `placed`, which have left `target` behind.
fn extend(calls: &[Call], mine: u8, placed: u8, target: u8, seen: u8) -> bool {
    let each = || calls.iter().enumerate().filter(|(i, _)| mine & (1 << i) != 0);
    let all_answers_placed = each().all(|(i, call)| call.reply().is_none() || placed & (1 << i) != 0);
    if all_answers_placed && target == seen {
        return true;
    }
    each().filter(|(i, _)| placed & (1 << i) == 0).any(|(i, call)| {
        let answered_before =
            each().all(|(j, earlier)| !call.began_after(j) || earlier.reply().is_none() || placed & (1 << j) != 0);
        // A call that failed before another began may have happened, but not after that other one.
        let too_late = each().any(|(j, later)| placed & (1 << j) != 0 && later.began_after(i));
        let (fits, next) = match (call.ask, call.reply()) {
            (Ask::Add { target: new, .. }, _) => (true, new),
            (Ask::Delete { .. }, Some(Reply::Removed)) => (target != ABSENT, ABSENT),
            (Ask::Delete { .. }, Some(_)) => (target == ABSENT, ABSENT),
            (Ask::Delete { .. }, None) => (true, ABSENT),
            (Ask::Get { .. }, Some(told)) => (told == Reply::Target(target), target),
            (Ask::Get { .. }, None) => (true, target),
        };
        answered_before && !too_late && fits && extend(calls, mine, placed | 1 << i, next, seen)
    })
}
