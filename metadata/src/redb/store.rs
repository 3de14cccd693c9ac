use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::database::{Handle, InTable, storage};
use super::lock::Lock;
use super::view::RedbView;
use super::writer::Writer;
use crate::plan::Lookup;
use crate::{Batch, Error, Key, Kind, MetadataStore, Record, Result, View, codec};

/// Records in one file, on redb: copy-on-write trees with a checksum for each page, so that a crash at any moment leaves the last committed state.
///
/// One process has the file open at a time; `<file>.lock` beside it says which.
///
/// Batches are written by a thread of the store's own. [`get`](MetadataStore::get) reads on the thread that calls it: that takes microseconds (redb's cache or the
/// kernel's), less than a change of threads would. Lists and views read on tokio's blocking threads, so they need its runtime.
///
/// Dropping the store waits for the batches that were handed over. After a write that failed (a full disk, say) the store may answer
/// with [`Closed`](Error::Closed) until it is opened again; what was acknowledged is there.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use longshore_metadata::{ErrorKind, MetadataStoreExt, RedbStore};
///
/// let dir = tempfile::tempdir()?;
/// let store = RedbStore::open(dir.path().join("metadata.redb")).await?;
/// store.create_lease("default", "pull-1", None).await?;
/// let second = RedbStore::open(dir.path().join("metadata.redb")).await;
/// assert_eq!(second.expect_err("one process, one store").kind(), ErrorKind::Locked);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct RedbStore {
    writer: Writer,
    handle: Arc<Handle>,
}

impl RedbStore {
    /// Opens the file, or creates it; its directory must exist.
    ///
    /// A file of up to 16 MiB is read and checked whole; a larger one when it was not closed cleanly.
    ///
    /// # Errors
    /// [`Locked`](crate::ErrorKind::Locked) with the holder's process id; [`Corrupt`](crate::ErrorKind::Corrupt) for a file that is damaged, of another program or of a newer version.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        blocking(path.clone(), move || {
            let handle = Arc::new(Handle::open(&path)?);
            let writer = Writer::start(Arc::clone(&handle))?;
            Ok(Self { writer, handle })
        })
        .await
    }

    /// Renames a file that is damaged, so that an empty one can take its place; tells its new name. Nothing of it is lost for whoever can repair it.
    ///
    /// # Errors
    /// [`Locked`](crate::ErrorKind::Locked) when a process has it open, and when the system refuses.
    pub async fn set_aside(path: impl Into<PathBuf>) -> Result<PathBuf> {
        let path = path.into();
        blocking(path.clone(), move || {
            let _lock = Lock::take(&path)?;
            let since = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default();
            let mut aside = path.clone().into_os_string();
            aside.push(format!(".damaged-{}", since.as_millis()));
            let aside = PathBuf::from(aside);
            std::fs::rename(&path, &aside).map_err(|source| Error::Io {
                action: "setting aside",
                path,
                source: source.into(),
            })?;
            Ok(aside)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Handle>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let handle = Arc::clone(&self.handle);
        blocking(handle.path().into(), move || handle.guarded(|| work(&handle))).await
    }
}

/// Runs on a thread where blocking is fine.
pub(super) async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::Closed { path }))
}

#[async_trait]
impl MetadataStore for RedbStore {
    async fn apply(&self, batch: Batch) -> Result<u64> {
        self.writer.send(batch).await.unwrap_or_else(|_| {
            Err(Error::Closed {
                path: self.handle.path().into(),
            })
        })
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.handle.guarded(|| {
            let transaction = self.handle.begin_read()?;
            let state = InTable {
                handle: &self.handle,
                table: &self.handle.records(&transaction)?,
            };
            state.lookup(key)
        })
    }

    async fn list(&self, namespace: &str, kind: Kind) -> Result<Vec<Record>> {
        let (start, end) = (codec::prefix(namespace, kind), codec::end_of_kind(namespace, kind));
        self.blocking(move |handle| {
            let table = handle.records(&handle.begin_read()?)?;
            let range = table.range(start.as_slice()..end.as_slice()).map_err(storage(handle))?;
            range
                .map(|entry| handle.decode(entry.map_err(storage(handle))?.1.value()))
                .collect()
        })
        .await
    }

    async fn namespaces(&self) -> Result<Vec<String>> {
        let declared = self.list("", Kind::Namespace).await?;
        let mut names = self.blocking(|handle| used_namespaces(handle)).await?;
        names.extend(declared.into_iter().map(|record| record.key.id));
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    async fn view(&self) -> Result<Box<dyn View>> {
        let view = self.handle.guarded(|| RedbView::new(Arc::clone(&self.handle)))?;
        Ok(Box::new(view))
    }
}

/// The namespaces of all keys but the empty one, found by jumping from one to the next.
fn used_namespaces(handle: &Handle) -> Result<Vec<String>> {
    let table = handle.records(&handle.begin_read()?)?;
    let mut names = Vec::new();
    let mut from = codec::end_of("");
    loop {
        let rest = (Bound::Included(from.as_slice()), Bound::Unbounded);
        let Some(entry) = table.range::<&[u8]>(rest).map_err(storage(handle))?.next() else {
            return Ok(names);
        };
        let (key, _) = entry.map_err(storage(handle))?;
        let name = codec::namespace_of(key.value()).ok_or_else(|| handle.corrupt("a key can't be read"))?;
        from = codec::end_of(name);
        names.push(name.to_owned());
    }
}
