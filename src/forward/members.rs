//! Which of several servers of one kind are well, by what looks at each of them said.
//!
//! One rule: who has not answered for [`PATIENCE`] while another one has is sick. If nobody answers, nobody is sick: to
//! send connections from one to another would help none of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Who has been silent for this long is sick.
pub(super) const PATIENCE: Duration = Duration::from_millis(2500);
/// Who has been silent for this long, which is more than a look or two take, gets no new connections if another one would
/// take them.
const LATE: Duration = Duration::from_millis(1500);
/// A judge who comes later than this was paused, and knows nothing.
const PAUSED: Duration = Duration::from_secs(1);

/// All members, and how each is.
#[derive(Debug)]
pub(super) struct Members {
    addresses: Vec<String>,
    turn: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    each: Vec<Condition>,
    judged: Instant,
    nobody_answers: bool,
}

#[derive(Debug)]
struct Condition {
    heard: Instant,
    has_answered: bool,
    is_sick: bool,
    /// What the last look that failed saw.
    why: String,
    /// Ends the connections that there are.
    cut: CancellationToken,
}

impl Condition {
    fn is_silent(&self, now: Instant, patience: Duration) -> bool {
        now.duration_since(self.heard) >= patience
    }

    fn is_well(&self, now: Instant) -> bool {
        self.has_answered && !self.is_sick && !self.is_silent(now, PATIENCE)
    }

    fn cut(&mut self) {
        std::mem::take(&mut self.cut).cancel();
    }
}

impl Members {
    /// Each as `HOST:PORT`. Nothing is known of them yet.
    pub(super) fn new(addresses: Vec<String>) -> Self {
        let now = Instant::now();
        let unknown = || Condition {
            heard: now,
            has_answered: false,
            is_sick: false,
            why: "it did not answer".to_owned(),
            cut: CancellationToken::new(),
        };
        let each = addresses.iter().map(|_| unknown()).collect();
        let state = State { each, judged: now, nobody_answers: false };
        Self { addresses, turn: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    pub(super) fn count(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn address(&self, at: usize) -> &str {
        &self.addresses[at]
    }

    /// A member has answered.
    pub(super) fn answered(&self, at: usize) {
        let now = Instant::now();
        let mut state = self.state();
        if state.nobody_answers {
            state.nobody_answers = false;
            info!("{} answers; it had been silent as all others", self.addresses[at]);
            // The others may be back as well, and get the time to say so.
            state.each.iter_mut().for_each(|other| other.heard = now);
        }
        let silence = now.duration_since(state.each[at].heard);
        let member = &mut state.each[at];
        if member.is_sick {
            info!("{} answers again after {} s, and gets new connections", self.addresses[at], silence.as_secs());
        }
        (member.heard, member.has_answered, member.is_sick) = (now, true, false);
    }

    /// A look at a member failed, which means nothing yet.
    pub(super) fn failed(&self, at: usize, why: String) {
        self.state().each[at].why = why;
    }

    /// Finds out who is sick, and ends the connections to them.
    pub(super) fn judge(&self) {
        let now = Instant::now();
        let mut state = self.state();
        if now.duration_since(state.judged) >= PAUSED {
            state.each.iter_mut().for_each(|member| member.heard = now);
        }
        state.judged = now;
        if !state.each.iter().any(|member| member.is_well(now)) {
            let is_silence = state.each.iter().all(|member| member.is_silent(now, PATIENCE));
            if is_silence && !state.nobody_answers {
                state.nobody_answers = true;
                warn!("No member answers ({}); connections stay where they are", state.each[0].why);
            }
            return;
        }
        for (member, address) in state.each.iter_mut().zip(&self.addresses) {
            if !member.is_sick && member.is_silent(now, PATIENCE) {
                member.is_sick = true;
                warn!("{address} is sick: {}; its connections are closed, and new ones go to others", member.why);
            }
            // Also those that were opened while it was the only one that accepted any.
            if member.is_sick {
                member.cut();
            }
        }
    }

    /// The members in the order in which a new connection should try them, those that are well by turns.
    pub(super) fn order(&self) -> Vec<usize> {
        let (now, first) = (Instant::now(), self.turn.fetch_add(1, Ordering::Relaxed));
        let state = self.state();
        let mut order: Vec<usize> = (first..first + self.count()).map(|at| at % self.count()).collect();
        order.sort_by_key(|at| {
            let member = &state.each[*at];
            (member.is_sick, member.is_silent(now, LATE), !member.has_answered)
        });
        order
    }

    /// What ends a connection to a member: to be taken before the connection is made.
    pub(super) fn cut(&self, at: usize) -> CancellationToken {
        self.state().each[at].cut.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// Time goes by; these answer each 100 ms, and everybody is judged.
    async fn pass(members: &Members, millis: u64, who_answers: &[usize]) {
        for _ in 0..millis / 100 {
            advance(Duration::from_millis(100)).await;
            for at in who_answers {
                members.answered(*at);
            }
            members.judge();
        }
    }

    fn three() -> Members {
        let members = Members::new(["a:1", "b:1", "c:1"].map(str::to_owned).into());
        for at in 0..3 {
            members.answered(at);
        }
        members
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_while_others_answer_is_sick_until_it_answers() {
        let members = three();
        let (sick, well) = (members.cut(1), members.cut(0));
        pass(&members, 2400, &[0, 2]).await;
        assert!(!sick.is_cancelled());
        pass(&members, 100, &[0, 2]).await;
        assert!(sick.is_cancelled() && !well.is_cancelled());
        assert!((0..3).all(|_| members.order()[2] == 1));
        members.answered(1);
        pass(&members, 5000, &[0, 1, 2]).await;
        assert!((0..3).any(|_| members.order()[0] == 1));
        assert!(!well.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_late_gets_nothing_new() {
        let members = three();
        pass(&members, 1500, &[0, 2]).await;
        assert!((0..3).all(|_| members.order()[2] == 1));
    }

    #[tokio::test(start_paused = true)]
    async fn if_nobody_answers_connections_stay_and_who_comes_back_later_has_time() {
        let members = three();
        let cuts: Vec<_> = (0..3).map(|at| members.cut(at)).collect();
        pass(&members, 20_000, &[]).await;
        pass(&members, 1000, &[0]).await;
        assert!(cuts.iter().all(|cut| !cut.is_cancelled()));
        pass(&members, 1000, &[0, 1]).await;
        pass(&members, 1000, &[0, 1]).await;
        assert!(cuts[2].is_cancelled() && !cuts[1].is_cancelled() && !cuts[0].is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_opened_to_a_sick_one_ends_too() {
        let members = three();
        pass(&members, 3000, &[0]).await;
        let cut = members.cut(1);
        pass(&members, 100, &[0]).await;
        assert!(cut.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_paused_itself_calls_nobody_sick() {
        let members = three();
        let cut = members.cut(1);
        advance(Duration::from_secs(30)).await;
        members.answered(0);
        members.judge();
        assert!(!cut.is_cancelled());
        pass(&members, 2500, &[0]).await;
        assert!(cut.is_cancelled());
    }
}
