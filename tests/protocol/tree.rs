//! Traefik's tree, small: two nested routes and one bucket, and what Traefik answers from it.
//!
//! The routes are `/user/jane/` ([`JANE`]) and, below it, `/user/jane/lab/` ([`LAB`]); the bucket is `/user/j`.
//! A leaf is one edit here, though it is four keys in etcd: keys of one route never part, for they share a transaction.
//! A bucket is wished for when both routes are there and jane's target is odd. That is a whim, and meant as one:
//! it makes the bucket come and go while both routes live, which is when the order of the moves matters.

use crate::Broken;

/// The shorter route, `/user/jane/`.
pub(crate) const JANE: usize = 0;
/// The longer route, `/user/jane/lab/`.
pub(crate) const LAB: usize = 1;
/// What a request gets when no route of ours covers it: the hub, by the catch-all.
pub(crate) const HUB: u8 = 0;
/// What a request gets from a tree that is wrong: Traefik's 404.
const NOT_FOUND: u8 = 255;

/// What a head or a marker says. Epoch 0 means that there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) epoch: u8,
    pub(crate) n: u8,
    /// How often the store had gone back when this head was written. It stands for the nonce: a number that is given a second
    /// time, after the store went back, has another one.
    pub(crate) life: u8,
}

impl Mark {
    /// Whether a tree with this marker holds that change.
    pub(crate) fn covers(self, broken: Broken, change: Mark) -> bool {
        (self.epoch == change.epoch || broken == Broken::BarrierIgnoresEpoch) && self.n >= change.n
    }
}

/// One revision of Traefik's tree, as one Range reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tree {
    /// Its marker: every record change up to that head is in the tree.
    pub(crate) mark: Mark,
    /// The layout that the marker names, 0 where only one is about.
    pub(crate) layout: u8,
    /// What a route's leaf was before a foreign hand changed it.
    pub(crate) foreign: [Option<u8>; 2],
    /// It was written after the backup was made. The marker has a nonce of its own in each transaction, so that a tree that the
    /// store has lost can be told from one that it had again.
    pub(crate) after_backup: bool,
    /// The target of each route's leaf, 0 for none.
    pub(crate) leaf: [u8; 2],
    /// Whether the leaf hangs below the bucket, or beside it below the root.
    inside: [bool; 2],
    bucket: bool,
    /// Whether the list of the catch-all's parents names the bucket.
    covered: bool,
}

/// A change of the tree that happens in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Edit {
    /// The marker alone.
    Nothing,
    Put {
        route: usize,
        target: u8,
        inside: bool,
    },
    Drop {
        route: usize,
    },
    OpenBucket {
        covered: bool,
    },
    Move {
        route: usize,
        inside: bool,
    },
    CloseBucket {
        covered: bool,
    },
}

impl Tree {
    /// The leaf edits that lead from this tree to these targets, in no order that matters.
    pub(crate) fn missing(&self, wanted: [u8; 2]) -> Vec<Edit> {
        (0..2).filter(|&route| self.leaf[route] != wanted[route]).map(|route| self.edit(route, wanted[route])).collect()
    }

    /// The edit that gives one route its target, or takes its leaf away.
    pub(crate) fn edit(&self, route: usize, target: u8) -> Edit {
        match (target, self.leaf[route]) {
            (0, _) => Edit::Drop { route },
            (_, 0) => Edit::Put { route, target, inside: self.place(route) },
            _ => Edit::Put { route, target, inside: self.inside[route] },
        }
    }

    /// Where a new leaf goes: beside the leaf above it, else into the longest bucket there is.
    fn place(&self, route: usize) -> bool {
        if route == LAB && self.leaf[JANE] != 0 { self.inside[JANE] } else { self.bucket }
    }

    /// The next step towards the bucket we wish for, when all leaves are as they should be.
    pub(crate) fn rebalance(&self, broken: Broken) -> Option<Edit> {
        let both = self.leaf[JANE] != 0 && self.leaf[LAB] != 0;
        let (down, up) = match broken {
            Broken::LongerLeafMovesFirst => ([LAB, JANE], [JANE, LAB]),
            _ => ([JANE, LAB], [LAB, JANE]),
        };
        if both && self.leaf[JANE] % 2 == 1 {
            if !self.bucket {
                return Some(Edit::OpenBucket { covered: broken != Broken::BucketWithoutCatchAll });
            }
            return down.into_iter().find(|&r| !self.inside[r]).map(|route| Edit::Move { route, inside: true });
        }
        if !self.bucket {
            return None;
        }
        let close = Edit::CloseBucket { covered: broken == Broken::CatchAllNamesMissingBucket };
        let move_out = up.into_iter().find(|&r| self.leaf[r] != 0 && self.inside[r]);
        match move_out {
            Some(route) if broken != Broken::BucketClosedOverLeaves => Some(Edit::Move { route, inside: false }),
            _ => Some(close),
        }
    }

    /// Does what a transaction did, whatever the tree was that it was planned from.
    pub(crate) fn apply(&mut self, edit: &Edit) {
        match *edit {
            Edit::Nothing => {}
            Edit::Put { route, target, inside } => {
                self.foreign[route] = None;
                self.leaf[route] = target;
                self.inside[route] = inside;
            }
            Edit::Drop { route } => {
                self.foreign[route] = None;
                self.leaf[route] = 0;
                self.inside[route] = false;
            }
            Edit::OpenBucket { covered } => {
                self.bucket = true;
                self.covered = covered;
            }
            Edit::Move { route, inside } => self.inside[route] = inside,
            Edit::CloseBucket { covered } => {
                self.bucket = false;
                self.covered = covered;
            }
        }
    }

    /// Forgets the buckets: how a tree routes is looked at while it is the newest.
    pub(crate) fn flatten(&mut self) {
        (self.inside, self.bucket, self.covered, self.layout) = ([false; 2], false, false, 0);
    }

    pub(crate) fn shows_the_same(&self, other: &Tree) -> bool {
        let told = |tree: &Tree| (tree.mark, tree.leaf, tree.foreign, tree.after_backup);
        told(self) == told(other)
    }

    /// A foreign hand takes a leaf away, or points it elsewhere. It knows nothing of the marker.
    pub(crate) fn tamper(&mut self, route: usize, target: u8) {
        self.foreign[route] = Some(self.leaf[route]);
        self.leaf[route] = target;
        self.inside[route] &= target != 0;
    }

    /// The tree in a mirror that has not heard of a foreign hand yet.
    pub(crate) fn before_tampering(&self) -> Tree {
        let leaf = |route: usize| self.foreign[route].unwrap_or(self.leaf[route]);
        Tree { leaf: [leaf(0), leaf(1)], foreign: [None; 2], ..self.clone() }
    }

    /// Whether Traefik answers from this tree what a plain longest-prefix table with the same routes answers.
    pub(crate) fn routes_rightly(&self) -> bool {
        let jane = self.leaf[JANE];
        let lab = if self.leaf[LAB] == 0 { jane } else { self.leaf[LAB] };
        self.answer(0) == HUB && self.answer(1) == jane && self.answer(2) == lab
    }

    /// Traefik's answer to a request under the bucket's prefix that `depth` of our two routes cover.
    fn answer(&self, depth: usize) -> u8 {
        // A leaf whose parent is missing is switched off; so is a catch-all that names a missing bucket, everywhere.
        let leaf_at = |inside: bool| {
            (0..depth).rev().find(|&r| self.leaf[r] != 0 && self.inside[r] == inside).map(|r| self.leaf[r])
        };
        let catch_all = self.bucket || !self.covered;
        if let Some(target) = leaf_at(false) {
            return target;
        }
        // A bucket without any usable child is skipped; one that has any, but none that matches, answers 404.
        let usable = (0..2).any(|r| self.leaf[r] != 0 && self.inside[r]) || (self.covered && catch_all);
        if self.bucket && usable {
            return leaf_at(true).or((self.covered && catch_all).then_some(HUB)).unwrap_or(NOT_FOUND);
        }
        if catch_all { HUB } else { NOT_FOUND }
    }
}
