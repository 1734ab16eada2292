//! What each step changes.

use crate::calls::{Ask, Call, Phase, Reply, Straggler};
use crate::model::{Action, Fate, Keys};
use crate::state::{Page, Records, State, signature};
use crate::tree::{Edit, Mark, Tree};
use crate::{Broken, Protocol};

impl State {
    pub(crate) fn step(&mut self, protocol: &Protocol, action: Action) {
        match action {
            Action::Commit { call, view, fast, fate } => self.commit(call, view, fast, fate),
            Action::Again { call, fast, fate } => {
                let Phase::Unknown { head, reply } = self.calls[call].phase else { return };
                let keys = fast.then_some(self.keys_now());
                self.send(call, Mark { life: self.back.life, ..head }, keys, reply, fate);
            }
            Action::NoChange { call, view } => self.change_nothing(protocol, call, view),
            Action::Settle { call, ours } => {
                let Phase::Unknown { head, reply } = self.calls[call].phase else { return };
                self.calls[call].phase = if ours { Phase::Waiting { covered_by: head, reply } } else { Phase::New };
            }
            Action::Straggle { call } => {
                let Some(late) = self.calls[call].straggler.take() else { return };
                let keys = late.fast.then_some(self.keys_now());
                self.land(call, Mark { life: self.back.life, ..late.head }, keys);
            }
            Action::Fail { call } => {
                if let Phase::Waiting { covered_by, .. } = self.calls[call].phase {
                    // In an epoch that is over it fails without anybody dying.
                    self.luck.deaths -= u8::from(covered_by.epoch == self.now().head.epoch);
                }
                self.calls[call].phase = Phase::Failed;
            }
            Action::ReadHead { call } => {
                self.begin(call, false);
                self.calls[call].phase = Phase::Reading { head: self.now().head };
            }
            Action::ReadMirror { call, view } => {
                self.begin(call, false);
                let target = self.records[view].routes[self.calls[call].ask.route()].0;
                self.calls[call].phase = Phase::Done(Reply::Target(target));
            }
            Action::Answer { call } => self.answer(call),
            Action::Project { view, layout, edit, marker, .. } => {
                let head = self.records[view].head;
                self.put_tree(&edit, marker, layout);
                self.back.chain = self.back.possible.then_some(head);
            }
            Action::Tamper { route, target } => {
                self.luck.tampers -= 1;
                let mut tree = self.tree_now().clone();
                tree.tamper(route, target);
                self.trees.push(tree);
            }
            Action::Upgrade => {
                let before = self.stage();
                self.upgrade.stage += 1;
                self.upgrade.adopted &= before.adopts;
            }
            Action::Wipe => self.wipe(),
            Action::Backup => {
                let tree = self.tree_now().clone();
                let since = self.records.iter().filter(|records| records.head.n >= tree.mark.n || tree.mark.epoch == 0);
                let records = since.map(|records| Records { nonce: 0, ..records.clone() }).collect();
                self.back.backup = Some((records, tree));
            }
            Action::Restore => self.restore(),
            Action::NewEpoch => self.begin_epoch(protocol.broken),
            Action::Push => self.back.deaf = false,
            Action::Load { .. }
            | Action::Withdraw { .. }
            | Action::Readmit { .. }
            | Action::Restart { .. }
            | Action::Fetch { .. } => self.step_of_traefik(protocol.broken, &action),
        }
    }

    fn step_of_traefik(&mut self, broken: Broken, action: &Action) {
        match *action {
            Action::Load { traefik } => {
                let now = self.trees.len() - 1;
                let this = &mut self.traefiks[traefik];
                match this.page {
                    Page::Tree | Page::Stuck(_) => this.shown += 1,
                    Page::Fallback(_, leaf) if broken == Broken::FallbackStaysInFront => {
                        (this.shown, this.page) = (now, Page::Stuck(leaf));
                    }
                    Page::Nothing | Page::Fallback(..) => (this.shown, this.page) = (now, Page::Tree),
                }
            }
            Action::Withdraw { traefik } => {
                let this = &self.traefiks[traefik];
                self.lag.newest_was_withdrawn |= this.page == Page::Tree && this.shown + 1 == self.trees.len();
                self.traefiks[traefik].ready = false;
                self.traefiks[traefik].was_out = broken == Broken::ExcusedByAnOldLook;
            }
            Action::Readmit { traefik } => self.traefiks[traefik].ready = true,
            Action::Restart { traefik } => {
                self.luck.restarts -= 1;
                self.lag.restarted = true;
                self.traefiks[traefik].page = Page::Nothing;
                // Where there is a probe, it has to pass it.
                self.traefiks[traefik].ready = !self.lag.proceeds;
            }
            Action::Fetch { traefik, view } => {
                let records = &self.records[view];
                let page = Page::Fallback(records.head, records.wanted());
                let before = std::mem::replace(&mut self.traefiks[traefik].page, page);
                self.marker_fell |= matches!(before, Page::Fallback(mark, _) if records.head < mark);
            }
            _ => {}
        }
    }

    /// Records that the hub begins a call, with what it knows to be over by then.
    fn begin(&mut self, call: usize, changes: bool) {
        let over = |other: &Call| match other.phase {
            Phase::Done(_) => true,
            // Only what writes the head shuts the door behind calls that failed.
            Phase::Failed => changes,
            _ => false,
        };
        if self.calls[call].after.is_none() {
            let bits = self.calls.iter().enumerate().filter(|(_, other)| over(other)).map(|(i, _)| 1 << i);
            self.calls[call].after = Some(bits.fold(0, |all, bit: u8| all | bit));
        }
    }

    fn commit(&mut self, call: usize, view: usize, fast: Option<Keys>, fate: Fate) {
        let base = self.records[view].clone();
        self.begin(call, true);
        let reply = match self.calls[call].ask {
            Ask::Delete { route } if base.routes[route].0 == 0 => Reply::Absent,
            Ask::Delete { .. } => Reply::Removed,
            _ => Reply::Created,
        };
        let epoch = if base.head.n == 0 { self.era + 1 } else { base.head.epoch };
        self.send(call, Mark { epoch, n: base.head.n + 1, life: self.back.life }, fast, reply, fate);
    }

    fn change_nothing(&mut self, protocol: &Protocol, call: usize, view: usize) {
        self.begin(call, matches!(self.calls[call].ask, Ask::Delete { .. }));
        let records = &self.records[view];
        let (covered_by, reply) = match self.calls[call].ask {
            Ask::Add { route, .. } => (Mark { n: records.routes[route].1, ..records.head }, Reply::Created),
            _ => (records.head, Reply::Absent),
        };
        let unanswered = protocol.broken != Broken::NoChangeSkipsBarrier;
        self.calls[call].phase = if unanswered { Phase::Waiting { covered_by, reply } } else { Phase::Done(reply) };
    }

    fn answer(&mut self, call: usize) {
        let Phase::Waiting { covered_by, reply } = self.calls[call].phase else { return };
        self.calls[call].phase = Phase::Done(reply);
        let excused = self.lag.proceeds && self.traefiks.iter().any(|traefik| !traefik.ready);
        let fallback = self.luck.restarts > 0 || self.traefiks.iter().any(|traefik| traefik.page != Page::Tree);
        if excused || fallback {
            self.lag.floor = self.lag.floor.max(covered_by);
        }
    }

    fn send(&mut self, call: usize, head: Mark, fast: Option<Keys>, reply: Reply, fate: Fate) {
        match fate {
            Fate::Answered => self.calls[call].phase = Phase::Waiting { covered_by: head, reply },
            Fate::AnswerLost | Fate::Late => {
                self.luck.losses -= 1;
                self.calls[call].phase = Phase::Unknown { head, reply };
            }
        }
        if fate == Fate::Late {
            self.calls[call].straggler = Some(Straggler { head, fast: fast.is_some() });
        } else {
            self.land(call, head, fast);
        }
    }

    /// Traefik's keys by whoever has written the tree so far.
    fn keys_now(&self) -> Keys {
        Keys { tree: self.trees.len() - 1, layout: self.tree_now().layout, blind: false }
    }

    /// What a transaction does in the store. Whether its guards hold was the question before.
    fn land(&mut self, call: usize, head: Mark, fast: Option<Keys>) {
        let ask = self.calls[call].ask;
        let mut records = Records { head, nonce: signature(call), ..self.now().clone() };
        records.routes[ask.route()] = if ask.target() == 0 { (0, 0) } else { (ask.target(), head.n) };
        let wanted = records.wanted();
        self.records.push(records);
        if let Some(keys) = fast {
            let there = &self.trees[keys.tree];
            let there = if keys.blind { there.before_tampering() } else { there.clone() };
            let missing = there.missing(wanted);
            let ours = there.edit(ask.route(), ask.target());
            let edit = if missing.contains(&ours) { ours } else { missing.into_iter().next().unwrap_or(Edit::Nothing) };
            self.put_tree(&edit, head, keys.layout);
        }
    }

    fn put_tree(&mut self, edit: &Edit, mark: Mark, layout: u8) {
        let mut tree = self.tree_now().clone();
        self.marker_fell |= (mark.epoch, mark.n) < (tree.mark.epoch, tree.mark.n);
        if tree.layout != 0 && tree.layout != layout {
            self.upgrade.handovers += 1;
            self.upgrade.adopted |= layout < tree.layout;
        }
        tree.apply(edit);
        (tree.mark, tree.layout) = (mark, layout);
        tree.after_backup = self.back.backup.is_some();
        self.trees.push(tree);
        self.back.chain = None;
    }

    fn wipe(&mut self) {
        self.luck.wipes -= 1;
        self.era += 1;
        (self.back.start, self.back.chain) = ([0; 2], None);
        self.records.push(Records::default());
        self.trees.push(Tree::default());
        for call in &mut self.calls {
            call.straggler = None;
            if call.phase != Phase::New {
                call.phase = Phase::Void;
            }
        }
    }

    /// The store is what it was. Mirrors and Traefiks are as they are.
    fn restore(&mut self) {
        let Some((records, tree)) = self.back.backup.take() else { return };
        self.luck.restores -= 1;
        let lost = self.now().head;
        self.records.extend(records);
        let to = self.now().head;
        self.back.known = lost != to;
        self.back.start = self.now().wanted();
        (self.back.life, self.back.to, self.back.deaf, self.back.chain) = (self.back.life + 1, to, true, None);
        // What no Traefik has loaded by now, none will.
        let seen = self.traefiks.iter().map(|traefik| traefik.shown).max().unwrap_or(0);
        self.trees.truncate(seen + 1);
        self.trees.push(tree);
        for call in &mut self.calls {
            // What compares the very head that is back may still happen, and somebody may still wait for it.
            let holds = |head: Mark| head.epoch == to.epoch && head.n == to.n + 1;
            call.straggler = call.straggler.filter(|late| holds(late.head));
            match call.phase {
                Phase::New => {}
                Phase::Unknown { head, .. } if holds(head) => {}
                Phase::Failed if call.straggler.is_some() => {}
                _ => call.phase = Phase::Void,
            }
        }
    }

    fn begin_epoch(&mut self, broken: Broken) {
        self.era += 1;
        // It goes on counting: the records keep the numbers that they have.
        let n = if broken == Broken::NewEpochCountsAnew { 1 } else { self.now().head.n + 1 };
        let head = Mark { epoch: self.era + 1, n, life: self.back.life };
        self.records.push(Records { head, nonce: 0, ..self.now().clone() });
        self.back.deaf &= broken == Broken::NobodyPushes;
    }
}
