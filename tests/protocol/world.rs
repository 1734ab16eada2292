//! The worlds that are searched: what the hub asks for, and how much may go wrong meanwhile.

use crate::calls::Ask;
use crate::tree::{JANE, LAB};

pub(crate) const ADD: Ask = Ask::Add { route: JANE, target: 1 };
pub(crate) const CHANGE: Ask = Ask::Add { route: JANE, target: 2 };
pub(crate) const DELETE: Ask = Ask::Delete { route: JANE };
pub(crate) const GET: Ask = Ask::Get { route: JANE };
pub(crate) const ADD_LAB: Ask = Ask::Add { route: LAB, target: 5 };
pub(crate) const DELETE_LAB: Ask = Ask::Delete { route: LAB };

/// How often each thing may still go wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Luck {
    /// Commits that stay without an answer.
    pub(crate) losses: u8,
    /// Replicas that die after a commit.
    pub(crate) deaths: u8,
    pub(crate) wipes: u8,
    /// Times that the store goes back to what it was.
    pub(crate) restores: u8,
    /// Traefiks that restart, and can't reach the store at first.
    pub(crate) restarts: u8,
    /// Keys of the tree that a foreign hand changes.
    pub(crate) tampers: u8,
}

/// Which replicas are alive at one stage of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stage {
    /// Some of layout 1, some of layout 2.
    pub(crate) older: bool,
    pub(crate) newer: bool,
    /// Those of layout 1 were told to take the tree over.
    pub(crate) adopts: bool,
}

const OLD: Stage = Stage { older: true, newer: false, adopts: false };
const BOTH: Stage = Stage { older: true, newer: true, adopts: false };
const NEW: Stage = Stage { older: false, newer: true, adopts: false };
const ROLLING_BACK: Stage = Stage { older: true, newer: true, adopts: true };
const ROLLED_BACK: Stage = Stage { older: true, newer: false, adopts: true };

/// A rolling upgrade.
pub(crate) const ONE_WAY: &[Stage] = &[OLD, BOTH, NEW];
/// And a rolling rollback.
pub(crate) const THERE_AND_BACK: &[Stage] = &[OLD, BOTH, NEW, ROLLING_BACK, ROLLED_BACK];
/// An upgrade that is given up half way.
pub(crate) const HALF_WAY: &[Stage] = &[OLD, BOTH, OLD, ROLLED_BACK];
/// One layout for ever.
pub(crate) const NO_UPGRADE: &[Stage] = &[OLD];

/// What the hub asks for, and how much may go wrong meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) script: Vec<Ask>,
    pub(crate) traefiks: usize,
    pub(crate) luck: Luck,
    /// Whether laggards are withdrawn, and then not waited for.
    pub(crate) proceeds: bool,
    pub(crate) upgrade: &'static [Stage],
    /// The hub begins its calls in this order. They still overlap.
    pub(crate) in_turn: bool,
}

pub(crate) fn world<const CALLS: usize>(
    script: [Ask; CALLS],
    traefiks: usize,
    [losses, deaths, wipes]: [u8; 3],
) -> World {
    let luck = Luck { losses, deaths, wipes, ..Luck::default() };
    World { script: script.to_vec(), traefiks, luck, proceeds: false, upgrade: NO_UPGRADE, in_turn: false }
}

impl World {
    pub(crate) fn going_back(mut self) -> World {
        self.luck.restores = 1;
        self
    }

    pub(crate) fn in_turn(mut self) -> World {
        self.in_turn = true;
        self
    }

    pub(crate) fn proceeding(mut self) -> World {
        self.proceeds = true;
        self
    }

    pub(crate) fn restarting(mut self) -> World {
        self.luck.restarts = 1;
        self
    }

    pub(crate) fn tampered(mut self) -> World {
        self.luck.tampers = 1;
        self
    }

    pub(crate) fn upgraded(mut self, upgrade: &'static [Stage]) -> World {
        self.upgrade = upgrade;
        self
    }
}

/// One store that may be wiped: who wins, who is told what, and what comes late; projections of several steps, buckets.
pub(crate) fn calls_and_trees() -> Vec<World> {
    vec![
        world([ADD, CHANGE, DELETE], 2, [1, 1, 0]),
        world([ADD, DELETE, ADD], 2, [2, 0, 0]),
        world([ADD, DELETE, DELETE], 2, [1, 1, 0]),
        world([ADD, CHANGE, GET], 2, [1, 0, 0]),
        world([ADD, DELETE, GET], 2, [1, 0, 0]),
        // Two routes, one below the other.
        world([ADD, ADD_LAB, CHANGE], 2, [0, 0, 0]),
        world([ADD, ADD_LAB, DELETE_LAB], 2, [0, 1, 0]),
        world([ADD, ADD_LAB, DELETE], 1, [1, 0, 0]),
        // The store loses everything.
        world([ADD, DELETE, CHANGE], 2, [1, 0, 1]),
        world([ADD, ADD_LAB, ADD], 2, [0, 0, 1]),
    ]
}

pub(crate) fn going_back() -> Vec<World> {
    vec![
        world([ADD, CHANGE, DELETE], 2, [0, 0, 0]).going_back(),
        world([ADD, DELETE, ADD], 1, [1, 0, 0]).going_back(),
        world([ADD, CHANGE, GET], 1, [0, 0, 0]).going_back(),
        world([ADD, ADD_LAB, DELETE], 1, [0, 0, 0]).going_back(),
        world([ADD, DELETE, CHANGE], 1, [0, 0, 1]).going_back(),
    ]
}

pub(crate) fn laggards() -> Vec<World> {
    vec![
        world([ADD, CHANGE, DELETE], 2, [0, 0, 0]).proceeding(),
        world([ADD, CHANGE], 3, [0, 0, 0]).proceeding(),
        world([ADD, CHANGE], 2, [0, 0, 1]).proceeding(),
        world([ADD, CHANGE, DELETE], 2, [0, 0, 0]).proceeding().going_back(),
        world([ADD, CHANGE, DELETE], 2, [0, 0, 0]).proceeding().restarting(),
        world([ADD, ADD_LAB], 2, [0, 1, 0]).proceeding(),
    ]
}

pub(crate) fn fallback() -> Vec<World> {
    vec![
        world([ADD, CHANGE, DELETE], 1, [0, 1, 0]).restarting(),
        world([ADD, DELETE], 2, [0, 0, 0]).restarting(),
        world([ADD, ADD_LAB], 2, [0, 1, 0]).restarting(),
    ]
}

pub(crate) fn layouts() -> Vec<World> {
    vec![
        world([ADD, DELETE], 2, [1, 0, 0]).upgraded(THERE_AND_BACK),
        world([ADD, ADD_LAB], 1, [0, 0, 0]).upgraded(THERE_AND_BACK),
        world([ADD, CHANGE, DELETE], 1, [0, 0, 0]).upgraded(HALF_WAY),
    ]
}

pub(crate) fn foreign_hands() -> Vec<World> {
    vec![world([ADD, ADD_LAB, DELETE], 1, [0, 0, 0]).tampered()]
}
