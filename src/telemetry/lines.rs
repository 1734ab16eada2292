//! Log lines on their way to stderr: a queue with a limit, and a thread that writes.
//!
//! A thread that logs never waits for stderr: a pipe that is full, because its reader hangs or is gone, costs log lines
//! and nothing else. What is dropped is counted, and the log says so when stderr takes lines again.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;

/// What waits for stderr, in bytes: some 5,000 lines.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// How soon a stderr that takes nothing now, but doesn't block either, is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The queue. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// Everything has been written.
    emptied: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines.
    waiting: Vec<u8>,
    /// The thread has taken lines and not written them yet.
    is_writing: bool,
    /// Lines that were dropped, and the log doesn't say so yet.
    unreported: u64,
}

impl Lines {
    /// A queue with a thread that writes to stderr.
    pub(super) fn to_stderr() -> io::Result<Self> {
        // A descriptor of its own: the lock of `io::stderr` would be held for as long as a write blocks.
        let stderr = std::fs::File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let lines = Self::default();
        let queue = lines.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || queue.write_to(stderr))?;
        Ok(lines)
    }

    /// How many lines were dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines are written, for `patience` at most.
    pub(super) fn flush(&self, patience: Duration) {
        let unfinished = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        let _ = self.0.emptied.wait_timeout_while(self.lock(), patience, unfinished);
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + line.len() > WAITING_BYTES_MAX {
            state.unreported += 1;
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.extend_from_slice(line);
        self.0.filled.notify_one();
    }

    /// The thread's work, which never ends.
    fn write_to(&self, mut to: impl Write) {
        let mut lines = Vec::new();
        loop {
            let unreported = {
                let mut state = self.lock();
                state.is_writing = false;
                self.0.emptied.notify_all();
                let is_empty = |state: &mut State| state.waiting.is_empty() && state.unreported == 0;
                state = self.0.filled.wait_while(state, is_empty).unwrap_or_else(PoisonError::into_inner);
                state.is_writing = true;
                lines.clear();
                std::mem::swap(&mut lines, &mut state.waiting);
                std::mem::take(&mut state.unreported)
            };
            if unreported > 0 {
                // Goes into the queue, which is empty now: so it comes after the lines before the gap, before the others.
                warn!(dropped = unreported, "{unreported} log lines were dropped because stderr was not read");
            }
            if write_all(&mut to, &lines).is_err() {
                let lost = lines.split_inclusive(|byte| *byte == b'\n').count();
                self.0.dropped.fetch_add(lost as u64, Ordering::Relaxed);
            }
        }
    }

    /// What waits, as text.
    #[cfg(test)]
    pub(super) fn taken(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.lock().waiting)).unwrap()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes everything, also where stderr is set not to block.
fn write_all(to: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes one line a call, and never fails.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_lines_are_dropped_and_counted_and_never_cut() {
        let lines = Lines::default();
        let line = [b'x'; 1000];
        for _ in 0..2000 {
            lines.push(&line);
        }
        let state = lines.lock();
        assert_eq!((state.waiting.len() % 1000, state.waiting.len() / 1000), (0, WAITING_BYTES_MAX / 1000));
        assert_eq!((lines.dropped(), state.unreported), (2000 - 1048, 2000 - 1048));
    }

    #[test]
    fn a_flush_ends_although_nothing_is_written() {
        let lines = Lines::default();
        lines.flush(Duration::from_secs(60));
        lines.push(b"x\n");
        lines.flush(Duration::from_millis(1));
        assert_eq!(lines.lock().waiting, b"x\n");
    }

    #[test]
    fn a_writer_that_takes_little_and_not_always_gets_everything() {
        struct Slow(Vec<u8>, u32);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 % 3 {
                    0 => Err(ErrorKind::WouldBlock.into()),
                    1 => Err(ErrorKind::Interrupted.into()),
                    _ => {
                        self.0.push(bytes[0]);
                        Ok(1)
                    }
                }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut slow = Slow(Vec::new(), 0);
        write_all(&mut slow, b"abc").unwrap();
        assert_eq!(slow.0, b"abc");
    }
}
