//! A disk that fails when a test says so, and that remembers what it was asked, so that its power can be cut.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::StorageBackend;
use redb::backends::FileBackend;

/// Which calls fail from now on; shared by all files that are opened through one folder.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults(Arc<Plan>);

#[derive(Debug, Default)]
struct Plan {
    /// Whether anything fails at all.
    armed: AtomicBool,
    /// So many writing calls succeed before.
    countdown: AtomicI64,
    /// What was done since [`Faults::record`].
    done: Mutex<Option<Vec<Done>>>,
}

/// A writing call that has succeeded.
#[derive(Debug, Clone)]
pub(super) enum Done {
    Write(usize, Vec<u8>),
    Length(usize),
    Sync,
}

impl Faults {
    /// Lets so many writing calls (of data, of the length, and fsync) succeed, and none after them.
    pub(super) fn fail_after(&self, calls: i64) {
        self.0.countdown.store(calls, Ordering::SeqCst);
        self.0.armed.store(true, Ordering::SeqCst);
    }

    /// Everything succeeds again. Says whether anything has failed.
    pub(super) fn mend(&self) -> bool {
        self.0.armed.store(false, Ordering::SeqCst);
        self.0.countdown.load(Ordering::SeqCst) < 0
    }

    /// Remembers from now on what is done.
    pub(super) fn record(&self) {
        *self.0.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    }

    /// What was done since.
    pub(super) fn done(&self) -> Vec<Done> {
        self.0.done.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }

    fn note(&self, done: impl FnOnce() -> Done) {
        if let Some(all) = &mut *self.0.done.lock().unwrap_or_else(PoisonError::into_inner) {
            all.push(done());
        }
    }

    pub(super) fn over(&self, file: FileBackend) -> FaultyBackend {
        FaultyBackend { file, faults: self.clone() }
    }

    fn check(&self) -> io::Result<()> {
        if self.0.armed.load(Ordering::SeqCst) && self.0.countdown.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

/// A file whose writing calls fail as planned.
#[derive(Debug)]
pub(super) struct FaultyBackend {
    file: FileBackend,
    faults: Faults,
}

impl StorageBackend for FaultyBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.check()?;
        self.file.set_len(len)?;
        self.faults.note(|| Done::Length(usize::try_from(len).expect("small")));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        // An fsync that fails may well have written everything.
        self.file.sync_data()?;
        self.faults.check()?;
        self.faults.note(|| Done::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.faults.check().is_err() {
            // A full disk takes a part.
            self.file.write(offset, &data[..data.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write(offset, data)?;
        self.faults.note(|| Done::Write(usize::try_from(offset).expect("small"), data.to_vec()));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
