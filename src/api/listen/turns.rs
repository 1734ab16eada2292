//! Turns at computing, for clients that have not shown a valid token: a thousand of them wait in a queue, instead of before
//! every step of the others.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::LazyLock;
use std::task::ready;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

/// Queues of the whole process. In each, half of the processors' worth of work has its turn at once.
#[derive(Debug, Clone, Copy)]
pub(super) enum Queue {
    /// The handshake and the first call of a connection. A hub opens one for each call.
    First,
    /// All calls after it, which a client may send as fast as it likes.
    Later,
}

static FIRST: LazyLock<Semaphore> = LazyLock::new(turns);
static LATER: LazyLock<Semaphore> = LazyLock::new(turns);

fn turns() -> Semaphore {
    let processors = available_parallelism().map_or(1, usize::from);
    Semaphore::new((processors / 2).max(1))
}

impl Queue {
    /// Lets `work` compute only while it has a turn, until `is_trusted` says that it needs none. While it waits, for a client
    /// that may never go on, others have the turn.
    pub(super) async fn run<F: Future>(self, is_trusted: impl Fn() -> bool, work: F) -> F::Output {
        let turns = match self {
            Self::First => &FIRST,
            Self::Later => &LATER,
        };
        by(turns, is_trusted, work).await
    }
}

async fn by<F: Future>(turns: &Semaphore, is_trusted: impl Fn() -> bool, work: F) -> F::Output {
    let (mut work, mut turn) = (pin!(work), pin!(turns.acquire()));
    poll_fn(|cx| {
        if is_trusted() {
            return work.as_mut().poll(cx);
        }
        let taken = ready!(turn.as_mut().poll(cx));
        let polled = work.as_mut().poll(cx);
        drop(taken);
        turn.set(turns.acquire());
        polled
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;

    use tokio::task::{JoinSet, yield_now};

    use super::*;

    async fn polled_once<F: Future>(work: F) -> Poll<F::Output> {
        let mut work = pin!(work);
        poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await
    }

    #[tokio::test]
    async fn a_turn_is_given_back_while_work_waits() {
        let turns = Semaphore::new(1);
        let stuck = by(&turns, || false, pending::<()>());
        let mut stuck = pin!(stuck);
        assert!(polled_once(stuck.as_mut()).await.is_pending());
        assert_eq!(by(&turns, || false, async { 7 }).await, 7, "a client that never goes on holds up no other");
    }

    #[tokio::test]
    async fn trusted_work_needs_no_turn() {
        let turns = Semaphore::new(1);
        let _taken = turns.acquire().await.expect("open");
        assert!(polled_once(by(&turns, || false, async { 7 })).await.is_pending());
        assert_eq!(polled_once(by(&turns, || true, async { 7 })).await, Poll::Ready(7));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_more_than_the_turns_compute_at_once() {
        let (turns, computing) = (Arc::new(Semaphore::new(2)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..100 {
            let (turns, computing) = (turns.clone(), computing.clone());
            tasks.spawn(async move {
                let work = async {
                    for _ in 0..10 {
                        assert!(computing.fetch_add(1, Ordering::SeqCst) < 2, "too many compute");
                        std::thread::yield_now();
                        computing.fetch_sub(1, Ordering::SeqCst);
                        yield_now().await;
                    }
                };
                by(&turns, || false, work).await;
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no panic");
        }
    }
}
