//! What there is: the store with its past, the Traefiks, the calls, and what else may go wrong.

use crate::calls::{Ask, Call, Phase, Reply, explained};
use crate::tree::{Mark, Tree};
use crate::world::{Luck, Stage, World};
use crate::{Broken, Protocol};

/// One revision of the records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Records {
    /// `n` 0 means that there is no head key.
    pub(crate) head: Mark,
    /// The call that wrote the head, plus one; 0 once nobody will ask.
    pub(crate) nonce: u8,
    /// The target of each route (0 for none), and the n that wrote it.
    pub(crate) routes: [(u8, u8); 2],
}

/// Where a Traefik has its routes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Page {
    /// Traefik's tree in the store.
    Tree,
    /// It was restarted and has none.
    Nothing,
    /// It was restarted and has what a replica gave it: a marker and the targets.
    Fallback(Mark, [u8; 2]),
    /// It has the tree, and goes on with the fallback all the same. Only a broken variant gets here.
    Stuck([u8; 2]),
}

/// One Traefik.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Traefik {
    /// A place in `trees`.
    pub(crate) shown: usize,
    pub(crate) page: Page,
    /// Users get to it.
    pub(crate) ready: bool,
    /// Somebody has seen it withdrawn. Only a broken variant remembers.
    pub(crate) was_out: bool,
}

/// Everything that lasts longer than one step. Replicas keep nothing that isn't here: see the head of `main.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// How many epochs are over.
    pub(crate) era: u8,
    /// The history of the records, the present last, as far back as anybody may still look.
    pub(crate) records: Vec<Records>,
    /// The history of Traefik's tree, the present last, from the oldest that a Traefik shows.
    pub(crate) trees: Vec<Tree>,
    pub(crate) traefiks: Vec<Traefik>,
    pub(crate) calls: Vec<Call>,
    pub(crate) in_turn: bool,
    pub(crate) luck: Luck,
    /// The marker was once lower than before within its epoch, or in an older epoch; or a Traefik's fallback was.
    pub(crate) marker_fell: bool,
    pub(crate) back: Back,
    pub(crate) lag: Lag,
    pub(crate) upgrade: Upgrade,
}

/// What Traefiks that lag add.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Lag {
    /// Whether they are withdrawn, and then not waited for.
    pub(crate) proceeds: bool,
    /// The last change that was answered without one of them.
    pub(crate) floor: Mark,
    /// A Traefik was withdrawn that showed the newest tree.
    pub(crate) newest_was_withdrawn: bool,
    /// Some Traefik was restarted.
    pub(crate) restarted: bool,
}

/// What a store that may go back to what it was adds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Back {
    /// Whether this is such a store.
    pub(crate) possible: bool,
    /// What somebody kept: the tree, and the records from those that the tree stands for to the last ones.
    pub(crate) backup: Option<(Vec<Records>, Tree)>,
    /// How often it has gone back, and to which head.
    pub(crate) life: u8,
    pub(crate) to: Mark,
    /// What each route had then.
    pub(crate) start: [u8; 2],
    /// Some mirror or snapshot may know of a head that was lost.
    pub(crate) known: bool,
    /// The Traefiks wait for a revision that the store has yet to reach a second time.
    pub(crate) deaf: bool,
    /// The head from which a projection is under way: it compared the head with its first step only.
    pub(crate) chain: Option<Mark>,
}

/// A rolling upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Upgrade {
    pub(crate) stages: &'static [Stage],
    pub(crate) stage: usize,
    /// The tree was taken over at first sight already, by those that may adopt it.
    pub(crate) adopted: bool,
    /// How often the tree changed hands.
    pub(crate) handovers: usize,
}

impl State {
    pub(crate) fn new(world: &World) -> State {
        let traefik = Traefik { shown: 0, page: Page::Tree, ready: true, was_out: false };
        State {
            era: 0,
            records: vec![Records::default()],
            trees: vec![Tree::default()],
            traefiks: vec![traefik; world.traefiks],
            calls: world.script.iter().copied().map(Call::new).collect(),
            in_turn: world.in_turn,
            luck: world.luck,
            marker_fell: false,
            back: Back { possible: world.luck.restores > 0, ..Back::default() },
            lag: Lag { proceeds: world.proceeds, ..Lag::default() },
            upgrade: Upgrade { stages: world.upgrade, stage: 0, adopted: false, handovers: 0 },
        }
    }

    pub(crate) fn now(&self) -> &Records {
        self.records.last().expect("the present is never forgotten")
    }

    pub(crate) fn tree_now(&self) -> &Tree {
        self.trees.last().expect("the present is never forgotten")
    }

    /// The marker that a Traefik tells when asked: that of the tree, if it has loaded one.
    pub(crate) fn told(&self, traefik: &Traefik) -> Mark {
        match traefik.page {
            Page::Tree | Page::Stuck(_) => self.trees[traefik.shown].mark,
            Page::Nothing => Mark::default(),
            Page::Fallback(mark, _) => mark,
        }
    }

    /// Whether the store has gone back behind this head, so that the same number may be another head now.
    pub(crate) fn is_lost(&self, mark: Mark) -> bool {
        let kept = mark.epoch == self.back.to.epoch && mark.n <= self.back.to.n;
        mark.epoch > 0 && mark.life < self.back.life && !kept
    }

    /// Whether a Traefik shows a tree that the store has lost since. The nonce in the marker tells.
    pub(crate) fn shows_lost(&self, broken: Broken, traefik: &Traefik) -> bool {
        let lost = self.back.life > 0 && self.trees[traefik.shown].after_backup;
        match broken {
            Broken::MarkerWithoutNonce => false,
            // The head's nonce tells heads apart, but not the trees that were made from one head.
            Broken::MarkerWithHeadsNonce => lost && self.is_lost(self.trees[traefik.shown].mark),
            _ => lost,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.upgrade.stages[self.upgrade.stage]
    }

    /// The layouts of the replicas that are alive.
    pub(crate) fn layouts(&self) -> impl Iterator<Item = u8> + use<> {
        let stage = self.stage();
        // Where there is only one, it isn't told apart.
        let first = u8::from(self.upgrade.stages.len() > 1);
        [(first, stage.older), (2, stage.newer)].into_iter().filter(|(_, alive)| *alive).map(|(layout, _)| layout)
    }
}

/// The invariants.
impl State {
    /// I1, for one Traefik.
    pub(crate) fn keeps_promises(&self, traefik: &Traefik) -> bool {
        let tree = &self.trees[traefik.shown];
        match traefik.page {
            _ if !traefik.ready => true,
            // If all that had it are gone, it may be old, as long as nobody takes it for new.
            _ if self.lag.proceeds
                && self.lag.restarted
                && !self.told(traefik).covers(Broken::Nothing, self.lag.floor) =>
            {
                true
            }
            // What a foreign hand has done, nobody has promised; it has to be mended.
            Page::Tree if tree.foreign != [None; 2] => true,
            Page::Tree => self.shows_the_answered(tree.leaf),
            Page::Nothing => true,
            // It may be old, as long as nobody takes it for new.
            Page::Fallback(mark, leaf) => {
                !mark.covers(Broken::Nothing, self.lag.floor) || self.shows_the_answered(leaf)
            }
            Page::Stuck(leaf) => self.shows_the_answered(leaf),
        }
    }

    fn shows_the_answered(&self, leaf: [u8; 2]) -> bool {
        let answered = |route| {
            let mut calls = self.calls.iter().filter(|call| call.ask.route() == route);
            calls.any(|call| matches!(call.phase, Phase::Done(reply) if !matches!(reply, Reply::Target(_))))
        };
        // After a loss Traefik goes on with its old tree until something is answered again: nothing is promised about it.
        let promised = |route| answered(route) || (self.era == 0 && self.back.life == 0);
        (0..2).all(|route| !promised(route) || self.explains(route, leaf[route], false))
    }

    pub(crate) fn explains(&self, route: usize, seen: u8, with_gets: bool) -> bool {
        explained(&self.calls, route, (self.back.start[route], seen), with_gets)
    }

    pub(crate) fn marker_is_true(&self) -> bool {
        let tree = self.tree_now();
        let counts = |records: &&Records| {
            records.head.n == 0 || (records.head.epoch == tree.mark.epoch && !self.is_lost(records.head))
        };
        // At 0 of an epoch that took over another one's records, the marker doesn't claim anything yet.
        let claims = tree.mark.epoch > 0 && (tree.mark.n > 0 || self.back.life == 0);
        !claims
            || (0..2).filter(|&route| tree.foreign[route].is_none()).all(|route| {
                let mut since = self.records.iter().filter(counts).filter(|records| records.head.n >= tree.mark.n);
                since.any(|records| records.routes[route].0 == tree.leaf[route])
            })
    }

    pub(crate) fn is_settled(&self) -> bool {
        let (now, tree) = (self.now(), self.tree_now());
        let tree_done = now.head == tree.mark && tree.missing(now.wanted()).is_empty();
        self.calls.iter().all(Call::is_over) && tree_done && self.traefiks.iter().all(|traefik| traefik.ready)
    }
}

/// How a call signs the head it writes.
pub(crate) fn signature(call: usize) -> u8 {
    u8::try_from(call + 1).expect("there are few calls")
}

impl Records {
    pub(crate) fn written_by(&self, call: usize, head: Mark) -> bool {
        self.is_at(head) && self.nonce == signature(call)
    }

    /// Whether this has the head of that number, whoever wrote it.
    pub(crate) fn is_at(&self, head: Mark) -> bool {
        self.head.epoch == head.epoch && self.head.n == head.n
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

impl State {
    /// Drops what can make no difference any more, so that states that are the same look the same.
    pub(crate) fn forget(&mut self, protocol: &Protocol) {
        self.forget_stragglers(protocol);
        let asked = |nonce: u8| {
            let asks = |call: &Call| matches!(call.phase, Phase::Unknown { .. });
            self.calls.iter().enumerate().any(|(i, call)| signature(i) == nonce && asks(call))
        };
        let forgotten: Vec<bool> = self.records.iter().map(|records| !asked(records.nonce)).collect();
        for (records, forgotten) in self.records.iter_mut().zip(forgotten) {
            if forgotten {
                records.nonce = 0;
            }
        }
        let now = self.trees.len() - 1;
        for traefik in
            self.traefiks.iter_mut().filter(|traefik| matches!(traefik.page, Page::Nothing | Page::Fallback(..)))
        {
            traefik.shown = now;
        }
        self.traefiks.sort_unstable();
        let (tree, broken) = (self.tree_now(), protocol.broken);
        let over = |chain: Mark| tree.mark == chain && tree.rebalance(broken).is_none();
        self.back.chain = self.back.chain.filter(|&chain| !over(chain));
        if self.luck.restores == 0 {
            self.back.backup = None;
        }
        let wanted = self.now().wanted();
        let tree = self.trees.last_mut().expect("the present is never forgotten");
        (0..2).filter(|&route| tree.leaf[route] == wanted[route]).for_each(|route| tree.foreign[route] = None);
        if !protocol.broken.looks_back() {
            self.forget_records();
            self.forget_trees();
        }
    }

    fn forget_stragglers(&mut self, protocol: &Protocol) {
        let (now, tree) = (self.now().clone(), self.tree_now().clone());
        if protocol.broken == Broken::RecordsWithoutHeadGuard {
            return;
        }
        for call in &mut self.calls {
            call.straggler = call.straggler.filter(|late| {
                now.head.n + 1 == late.head.n
                    && (now.head.n == 0 || now.head.epoch == late.head.epoch)
                    && (!late.fast || tree.missing(now.wanted_after(call.ask)).len() <= 1)
            });
        }
    }

    /// Keeps the views that somebody may still act from: projections, GETs, those who look for their commit, and a fallback.
    fn forget_records(&mut self) {
        let fallback = self.luck.restarts > 0 || self.traefiks.iter().any(|traefik| traefik.page != Page::Tree);
        let (last, mark) = (self.records.len() - 1, self.tree_now().mark);
        let lost: Vec<bool> = self.records.iter().map(|records| self.is_lost(records.head)).collect();
        let mut i = 0;
        self.records.retain(|records| {
            i += 1;
            let in_view = (records.head.n == 0 || records.head.epoch == mark.epoch) && records.head.n >= mark.n;
            let useful = in_view || fallback || records.nonce != 0;
            i > last || (useful && !lost[i - 1])
        });
    }

    /// Keeps of the past trees what a Traefik that shows them is asked: the marker and the leaves.
    fn forget_trees(&mut self) {
        let now = self.trees.len() - 1;
        self.trees[..now].iter_mut().for_each(Tree::flatten);
        for i in (0..now).rev() {
            let same = self.trees[i].shows_the_same(&self.trees[i + 1]);
            if same || i < self.traefiks[0].shown {
                self.trees.remove(i);
                for traefik in self.traefiks.iter_mut().filter(|traefik| traefik.shown > i) {
                    traefik.shown -= 1;
                }
            }
        }
    }
}
