//! The file: all keys in a redb database, each commit on disk when it returns.
//!
//! Commits are two-phase, so a commit slot that redb has once made the newest is never given up for an older one because
//! of damage: damage is an error. And every opening checks the checksum of every page.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{fmt, fs, io};

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend as _, TableDefinition};
use tracing::{info, warn};

use super::OpenError;
use super::folder::{Folder, Lock, private};
use crate::files;
use crate::store::versions::{Change, FIRST_REVISION, Keys, Versions};
use crate::store::{Event, Revision};

/// Key to the revision of its last change and its value.
const KEYS: TableDefinition<&[u8], (i64, &[u8])> = TableDefinition::new("keys");
/// What is to be known of the whole: `format`, `created_by`, `revision`.
const META: TableDefinition<&str, &str> = TableDefinition::new("meta");

/// The format of these two tables.
const FORMAT: &str = "1";

/// redb's cache. We read everything once and then only write.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// A file of this size, in bytes, is never too large; a larger one is when it is so many times what it holds.
const COMPACT_ABOVE: (u64, u64) = (16 * 1024 * 1024, 4);

/// The file, held by this process.
#[derive(Debug)]
pub(super) struct Disk {
    /// `None` after a write that failed: then it isn't known what the file says.
    database: Option<Database>,
    folder: Folder,
    /// Let go of last.
    lock: Lock,
}

/// What is wrong with a file.
#[derive(Debug)]
enum Fault {
    /// It is not what was written.
    Damaged(String),
    /// It is of another format, and who wrote it.
    Format(String, String),
    /// The disk takes nothing more.
    NoRoom(String),
    /// The system refuses.
    System(String),
}

impl Disk {
    /// Opens the file of a folder, or makes one.
    pub(super) fn open(folder: Folder, lock: Lock) -> Result<(Self, Revision, Keys), OpenError> {
        let exists = folder.database().try_exists();
        let opened = match exists {
            Ok(true) => read_or_view(&folder).and_then(|(database, revision, keys)| match lock.committed() {
                // The one thing that no checksum shows: an older state of the file than there was.
                Some(newest) if newest > revision => {
                    Err(Fault::Damaged(format!("it ends with revision {revision}, and {newest} had been committed")))
                }
                _ => Ok((database, revision, keys)),
            }),
            Ok(false) => {
                create(&folder, FIRST_REVISION, &Keys::new()).map(|new| (Some(new), FIRST_REVISION, Keys::new()))
            }
            Err(error) => Err(error.into()),
        };
        let (database, revision, keys) = opened.map_err(|fault| fault.refusal(&folder))?;
        lock.leave_word(revision);
        let mut disk = Self { database, folder, lock };
        if disk.database.is_some() && disk.is_too_large(&keys) {
            disk.replace(revision, &keys).map_err(|fault| fault.refusal(&disk.folder))?;
        }
        Ok((disk, revision, keys))
    }

    /// Writes the change after what `before` holds. When this returns it is on disk, or the error is a sentence, and a
    /// later call begins with bringing the file to what `before` holds then.
    pub(super) fn write(&mut self, change: &Change, before: &Versions) -> Result<(), String> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.recover(before).map_err(|fault| self.sentence(&fault))?,
        };
        let written = contained(move || {
            let written = write_change(&database, change);
            written.map(|()| database)
        });
        self.database = Some(written.map_err(|fault| self.sentence(&fault))?);
        self.lock.leave_word(change.revision);
        Ok(())
    }

    /// The file again, after a failed write: as it is, if it holds what memory holds, else written anew.
    fn recover(&self, before: &Versions) -> Result<Database, Fault> {
        // A copy, so that nobody who reads has to wait for the disk.
        let (revision, keys) = before.inspect(|revision, keys| (revision, keys.clone()));
        match read(&self.folder) {
            Ok((database, at, found)) if at == revision && found == keys => return Ok(database),
            Ok(_) => info!("A commit that failed has got as far as the disk; it is taken back"),
            Err(fault) => {
                warn!("{} after a failed write: {fault}; it is written anew", self.folder.database().display());
            }
        }
        create(&self.folder, revision, &keys)
    }

    fn is_too_large(&self, keys: &Keys) -> bool {
        let size = fs::metadata(self.folder.database()).map_or(0, |file| file.len());
        let content: usize = keys.iter().map(|(key, (value, _))| key.len() + value.len()).sum();
        size > COMPACT_ABOVE.0 && size / COMPACT_ABOVE.1 > content as u64
    }

    /// Writes the file anew without its holes. Where there is no room for that the old one does as well.
    fn replace(&mut self, revision: Revision, keys: &Keys) -> Result<(), Fault> {
        self.database = None;
        let new = create(&self.folder, revision, keys);
        let database = match new {
            Ok(new) => new,
            Err(fault) => {
                warn!(
                    "{} is larger than it needs to be, and can't be written anew: {fault}",
                    self.folder.database().display()
                );
                read(&self.folder)?.0
            }
        };
        self.database = Some(database);
        Ok(())
    }

    fn sentence(&self, fault: &Fault) -> String {
        format!("{} can't be written: {fault}", self.folder.database().display())
    }
}

/// Opens and checks the file, and reads all of it.
fn read(folder: &Folder) -> Result<(Database, Revision, Keys), Fault> {
    let file = private().read(true).write(true).open(folder.database())?;
    if file.metadata()?.len() == 0 {
        return Err(Fault::Damaged("it is empty".to_owned()));
    }
    // Whoever put it there may have died before its name was durable.
    folder.sync()?;
    contained(|| {
        let database = open(folder, file)?;
        let (revision, keys) = read_all(&database)?;
        Ok((database, revision, keys))
    })
}

/// The same; on a disk that takes nothing more without the database, for to open one writes to its file. Everything in it is
/// known then, and the first write opens it again.
fn read_or_view(folder: &Folder) -> Result<(Option<Database>, Revision, Keys), Fault> {
    let fault = match read(folder) {
        Ok((database, revision, keys)) => return Ok((Some(database), revision, keys)),
        Err(fault @ Fault::NoRoom(_)) => fault,
        Err(other) => return Err(other),
    };
    warn!("{} can be read and not written: {fault}; make room, and it is", folder.database().display());
    contained(|| {
        let copy = InMemoryBackend::new();
        let bytes = fs::read(folder.database())?;
        copy.set_len(bytes.len() as u64)?;
        copy.write(0, &bytes)?;
        let (revision, keys) = read_all(&builder().create_with_backend(copy)?)?;
        Ok((None, revision, keys))
    })
}

/// Makes a file with these keys under another name, and then puts it in the place of the one there may be: so there is
/// never a file that is half made.
fn create(folder: &Folder, revision: Revision, keys: &Keys) -> Result<Database, Fault> {
    let path = folder.successor();
    let made = contained(|| {
        let file = private().read(true).write(true).create(true).truncate(true).open(&path)?;
        let database = open(folder, file)?;
        write_all(&database, revision, keys)?;
        files::put(&path, &folder.database())?;
        Ok(database)
    });
    if made.is_err() {
        // Half a file would only keep the space from the next try.
        let _ = fs::remove_file(&path);
    }
    made
}

fn open(folder: &Folder, file: fs::File) -> Result<Database, Fault> {
    Ok(builder().create_with_backend(folder.backend(file)?)?)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

fn read_all(database: &Database) -> Result<(Revision, Keys), Fault> {
    let txn = database.begin_read()?;
    let meta = txn.open_table(META)?;
    let fact = |name: &str| -> Result<String, Fault> {
        let found = meta.get(name)?.map(|value| value.value().to_owned());
        found.ok_or_else(|| Fault::Damaged(format!("it doesn't say its {name}")))
    };
    let format = fact("format")?;
    if format != FORMAT {
        return Err(Fault::Format(format, fact("created_by")?));
    }
    let revision = fact("revision")?;
    let revision = revision.parse().map_err(|_| Fault::Damaged(format!("its revision is {revision}")))?;
    let mut keys = Keys::new();
    for entry in txn.open_table(KEYS)?.iter()? {
        let (key, value) = entry?;
        let (at, value) = value.value();
        let key = String::from_utf8(key.value().to_vec());
        let key = key.map_err(|_| Fault::Damaged("a key is no text".to_owned()))?;
        if at > revision {
            return Err(Fault::Damaged(format!("{key} is of revision {at}, and the whole of {revision}")));
        }
        keys.insert(key, (value.to_vec(), at));
    }
    Ok((revision, keys))
}

fn write_all(database: &Database, revision: Revision, keys: &Keys) -> Result<(), Fault> {
    let mut txn = database.begin_write()?;
    txn.set_two_phase_commit(true);
    {
        let mut meta = txn.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("created_by", concat!("pointsman ", env!("CARGO_PKG_VERSION")))?;
        meta.insert("revision", &*revision.to_string())?;
        let mut table = txn.open_table(KEYS)?;
        for (key, (value, at)) in keys {
            table.insert(key.as_bytes(), (*at, &**value))?;
        }
    }
    txn.commit()?;
    Ok(())
}

fn write_change(database: &Database, change: &Change) -> Result<(), Fault> {
    let mut txn = database.begin_write()?;
    txn.set_two_phase_commit(true);
    {
        let mut table = txn.open_table(KEYS)?;
        for event in &change.events {
            match event {
                Event::Put(entry) => table.insert(entry.key.as_bytes(), (entry.mod_revision, &*entry.value))?,
                Event::Delete { key, .. } => table.remove(key.as_bytes())?,
            };
        }
        let mut meta = txn.open_table(META)?;
        meta.insert("revision", &*change.revision.to_string())?;
    }
    txn.commit()?;
    Ok(())
}

/// Runs what may panic where a file is damaged; the panic is then an error like any other.
fn contained<T>(run: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Fault::Damaged(text.unwrap_or("it can't be read").to_owned()))
    })
}

impl Folder {
    #[cfg(not(test))]
    fn backend(&self, file: fs::File) -> Result<redb::backends::FileBackend, DatabaseError> {
        let _ = self;
        redb::backends::FileBackend::new(file)
    }

    #[cfg(test)]
    fn backend(&self, file: fs::File) -> Result<super::faults::FaultyBackend, DatabaseError> {
        Ok(self.faults.over(redb::backends::FileBackend::new(file)?))
    }
}

impl Fault {
    fn refusal(self, folder: &Folder) -> OpenError {
        let file = folder.database();
        match self {
            Self::Damaged(why) => OpenError::Damaged { file, why },
            Self::Format(found, written_by) => OpenError::Format { file, found, ours: FORMAT, written_by },
            Self::System(why) | Self::NoRoom(why) => {
                OpenError::Folder { folder: folder.path().to_owned(), why: format!("{}: {why}", file.display()) }
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(why) => write!(f, "it is damaged ({why})"),
            Self::Format(found, _) => write!(f, "it has the format {found}"),
            Self::System(why) | Self::NoRoom(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Both are redb's: a file that is none of its own, and one that ends too early.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged(error.to_string()),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NoRoom(error.to_string())
            }
            _ => Self::System(error.to_string()),
        }
    }
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            redb::Error::Corrupted(why) => Self::Damaged(why),
            redb::Error::DatabaseAlreadyOpen => Self::System("another program has it open".to_owned()),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// redb has an error type for each kind of call, and one for all.
macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}

from_redb!(redb::CommitError, redb::StorageError, redb::TableError, redb::TransactionError, DatabaseError);
