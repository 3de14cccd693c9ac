use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    WriteTransaction,
};

use super::lock::Lock;
use crate::plan::Lookup;
use crate::{Error, Key, Record, Result, codec};

/// Records by key.
pub(super) const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// Keys by the revision that last wrote them.
pub(super) const CHANGES: TableDefinition<'_, (u64, &[u8]), ()> = TableDefinition::new("changes");
/// Numbers by name: [`SCHEMA`] and [`REVISION`].
pub(super) const FACTS: TableDefinition<'_, &str, u64> = TableDefinition::new("facts");
pub(super) const SCHEMA: &str = "schema";
pub(super) const REVISION: &str = "revision";

/// The version of the tables' layout that this program writes.
///
/// - 1: the first.
/// - 2: records may refer to resources of a program's own, which one that knows version 1 can't read.
pub(super) const SCHEMA_VERSION: u64 = 2;
/// Up to this size a file is read and checked whole whenever it is opened (about 20 ms); a larger one only after a crash.
const CHECK_ALL_UP_TO: u64 = 16 << 20;
/// What redb may keep in memory. The kernel's page cache has the rest.
const CACHE_BYTES: usize = 64 << 20;

/// An open file, and the lock on it.
pub(super) struct Handle {
    path: PathBuf,
    // Before the lock, so that it is closed before the lock is free.
    database: Database,
    _lock: Lock,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Handle {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let lock = Lock::take(path)?;
        let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        if size == 0 {
            create(path)?;
        }
        let handle = Self {
            path: path.into(),
            database: database(path, size)?,
            _lock: lock,
        };
        handle.guarded(|| check_schema(&handle.path, &handle.database))?;
        Ok(handle)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes an error of redb's one of ours.
    pub(super) fn failed(&self, action: &'static str) -> impl Fn(redb::Error) -> Error + '_ {
        move |error| failed(&self.path, action, error)
    }

    pub(super) fn corrupt(&self, reason: impl fmt::Display) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            reason: reason.to_string(),
        }
    }

    /// redb promises no panic only for what it has checked; what a damaged page makes of it here ends here.
    pub(super) fn guarded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        guarded(&self.path, work)
    }

    pub(super) fn begin_read(&self) -> Result<ReadTransaction> {
        self.database
            .begin_read()
            .map_err(|error| self.failed("reading")(error.into()))
    }

    pub(super) fn begin_write(&self) -> Result<WriteTransaction> {
        self.database
            .begin_write()
            .map_err(|error| self.failed("writing")(error.into()))
    }

    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Record> {
        codec::read_record(bytes).map_err(|error| self.corrupt(format!("a record can't be read: {error}")))
    }

    pub(super) fn records(&self, transaction: &ReadTransaction) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>> {
        transaction
            .open_table(RECORDS)
            .map_err(|error| self.failed("reading")(error.into()))
    }

    pub(super) fn revision(&self, transaction: &ReadTransaction) -> Result<u64> {
        let fail = self.failed("reading");
        let facts = transaction.open_table(FACTS).map_err(|e| fail(e.into()))?;
        self.revision_of(&facts)
    }

    pub(super) fn revision_of(&self, facts: &impl ReadableTable<&'static str, u64>) -> Result<u64> {
        let revision = facts
            .get(REVISION)
            .map_err(|error| self.failed("reading")(error.into()))?;
        revision
            .map(|guard| guard.value())
            .ok_or_else(|| self.corrupt("it has no revision"))
    }
}

/// Makes a file that is whole from the moment it is there: redb writes several times before a new one is one.
fn create(path: &Path) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    let io = |action| {
        move |source: std::io::Error| Error::Io {
            action,
            path: path.into(),
            source: source.into(),
        }
    };
    match std::fs::remove_file(new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io("removing an unfinished file beside")(error));
        }
        _ => {}
    }
    let made = database(new, 0)?;
    guarded(new, || check_schema(new, &made))?;
    drop(made);
    std::fs::rename(new, path).map_err(io("putting into its place"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(directory.unwrap_or(Path::new(".")))
        .and_then(|directory| directory.sync_all())
        .map_err(io("syncing the directory of"))
}

/// Opens a file of so many bytes, or begins one of none.
fn database(path: &Path, size: u64) -> Result<Database> {
    let open = || {
        Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open((1..=CHECK_ALL_UP_TO).contains(&size))
            .create(path)
    };
    guarded(path, || open().map_err(|error| failed(path, "opening", error)))
}

/// Makes the tables of a new file, and refuses a file of another version.
fn check_schema(path: &Path, database: &Database) -> Result<()> {
    let fail = |action| move |error: redb::Error| failed(path, action, error);
    let transaction = database.begin_write().map_err(|e| fail("writing")(e.into()))?;
    let version = {
        let fail = fail("opening a table of");
        transaction.open_table(RECORDS).map_err(|e| fail(e.into()))?;
        transaction.open_table(CHANGES).map_err(|e| fail(e.into()))?;
        let mut facts = transaction.open_table(FACTS).map_err(|e| fail(e.into()))?;
        let version = facts
            .get(SCHEMA)
            .map_err(|e| fail(e.into()))?
            .map(|guard| guard.value());
        match version {
            None => {
                facts.insert(SCHEMA, SCHEMA_VERSION).map_err(|e| fail(e.into()))?;
                facts.insert(REVISION, 0).map_err(|e| fail(e.into()))?;
            }
            // What 1 wrote is read as it is; the number keeps older programs from what is written from now on.
            Some(1) => drop(facts.insert(SCHEMA, SCHEMA_VERSION).map_err(|e| fail(e.into()))?),
            Some(_) => {}
        }
        version
    };
    match version {
        // A reopened file is not written, so that looking at it costs no commit.
        Some(SCHEMA_VERSION) => transaction.abort().map_err(|e| fail("reading")(e.into())),
        None => transaction
            .commit()
            .map_err(|e| fail("creating the tables of")(e.into())),
        Some(1) => {
            tracing::info!(path = %path.display(), "the metadata file is brought to version {SCHEMA_VERSION}");
            transaction.commit().map_err(|e| fail("bringing up to date")(e.into()))
        }
        Some(other) => Err(Error::Corrupt {
            path: path.into(),
            reason: format!(
                "it is of version {other} and this program knows up to {SCHEMA_VERSION}; use the version that wrote it, or newer"
            ),
        }),
    }
}

/// A table of records as the state that a batch is applied to.
pub(super) struct InTable<'a, T> {
    pub(super) handle: &'a Handle,
    pub(super) table: &'a T,
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Lookup for InTable<'_, T> {
    fn lookup(&self, key: &Key) -> Result<Option<Record>> {
        let bytes = self.table.get(codec::key(key).as_slice());
        let bytes = bytes.map_err(|error| self.handle.failed("reading")(error.into()))?;
        bytes.map(|bytes| self.handle.decode(bytes.value())).transpose()
    }
}

fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::Corrupt {
            path: path.into(),
            reason: "it is damaged so that the database could not go on".into(),
        })
    })
}

fn failed(path: &Path, action: &'static str, error: impl Into<redb::Error>) -> Error {
    let corrupt = |reason: String| Error::Corrupt {
        path: path.into(),
        reason,
    };
    match error.into() {
        redb::Error::DatabaseAlreadyOpen => Error::Locked {
            path: path.into(),
            holder: None,
        },
        redb::Error::Corrupted(reason) => corrupt(format!("it is damaged: {reason}")),
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            corrupt("it is no metadata file".into())
        }
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            corrupt("it was cut short".into())
        }
        redb::Error::UpgradeRequired(version) => {
            corrupt(format!("its file format is of version {version}, which is too old"))
        }
        redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableIsMultimap(_) => corrupt("its tables are of another program".into()),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => Error::Closed { path: path.into() },
        redb::Error::Io(error) => Error::Io {
            action,
            path: path.into(),
            source: error.into(),
        },
        other => Error::Io {
            action,
            path: path.into(),
            source: other.into(),
        },
    }
}

/// Storage errors come from iterators.
pub(super) fn storage(handle: &Handle) -> impl Fn(StorageError) -> Error + '_ {
    |error| handle.failed("reading")(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, MetadataStoreExt, RedbStore};

    fn set_version(path: &Path, version: u64) {
        let database = Database::open(path).expect("open");
        let transaction = database.begin_write().expect("begin");
        transaction
            .open_table(FACTS)
            .expect("a table")
            .insert(SCHEMA, version)
            .expect("insert");
        transaction.commit().expect("commit");
    }

    fn version(path: &Path) -> u64 {
        let database = Database::open(path).expect("open");
        let facts = database
            .begin_read()
            .expect("begin")
            .open_table(FACTS)
            .expect("a table");
        facts.get(SCHEMA).expect("get").expect("a version").value()
    }

    #[tokio::test]
    async fn an_older_file_is_brought_up_to_date_and_a_newer_one_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("metadata.redb");
        let store = RedbStore::open(&path).await.expect("open");
        store.create_lease("ns", "l", None).await.expect("put");
        drop(store);
        set_version(&path, 1);
        let store = RedbStore::open(&path).await.expect("an older file is opened");
        assert_eq!(
            store.leases("ns").await.expect("leases").len(),
            1,
            "with all that is in it"
        );
        drop(store);
        assert_eq!(version(&path), SCHEMA_VERSION);

        set_version(&path, SCHEMA_VERSION + 1);
        let error = RedbStore::open(&path).await.expect_err("a newer file");
        let said = error.to_string();
        assert!(
            error.kind() == ErrorKind::Corrupt && said.contains("of version 3"),
            "{said}"
        );
        assert_eq!(version(&path), SCHEMA_VERSION + 1, "it is left as it was");
    }
}
