//! Snapshotters on local directories: one implementation of the port, and what differs between them.

use std::fmt::Debug;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use longshore_linux::Mount;
use rustix::fs::{Mode, OFlags};

use crate::store::{Entry, Store};
use crate::{Error, Info, Kind, Labels, Result, Usage, at, usage};

/// What differs between local snapshotters.
pub(crate) trait Layout: Debug + Send + Sync + 'static {
    /// Makes the directories of a new snapshot; `parents` from the topmost.
    fn make(&self, store: &Store, id: u64, kind: Kind, parents: &[u64]) -> Result<()>;

    /// What to mount for it.
    fn mounts(&self, store: &Store, id: u64, kind: Kind, parents: &[u64]) -> Result<Vec<Mount>>;
}

/// The port's methods, with what blocks on tokio's threads for that. Nothing is half done when a future is dropped: the thread goes on.
#[derive(Debug)]
pub(crate) struct Local<L> {
    inner: Arc<Inner<L>>,
}

#[derive(Debug)]
struct Inner<L> {
    store: Store,
    layout: L,
}

impl<L: Layout> Local<L> {
    pub(crate) fn new(store: Store, layout: L) -> Self {
        Self {
            inner: Arc::new(Inner { store, layout }),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.inner.store.root()
    }

    pub(crate) fn stat(&self, key: &str) -> Result<Info> {
        Ok(self.inner.store.get(key)?.info)
    }

    pub(crate) fn walk(&self) -> Vec<Info> {
        self.inner.store.walk()
    }

    pub(crate) async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let (entry, parents) = self.inner.store.with_parents(key)?;
        if entry.info.kind == Kind::Committed {
            return Err(Error::WrongKind {
                key: key.to_owned(),
                actual: Kind::Committed,
                needed: "an active one or a view",
            });
        }
        self.run(move |inner| inner.layout.mounts(&inner.store, entry.id, entry.info.kind, &parents))
            .await
    }

    pub(crate) async fn make(&self, key: &str, parent: Option<&str>, kind: Kind, labels: Labels) -> Result<Vec<Mount>> {
        let (key, parent) = (key.to_owned(), parent.map(str::to_owned));
        let mounts = self
            .run(move |inner| inner.make(&key, parent.as_deref(), kind, labels))
            .await?;
        self.sync_soon();
        Ok(mounts)
    }

    pub(crate) async fn commit(&self, key: &str, name: &str, labels: Labels, usage: Option<Usage>) -> Result<()> {
        let (key, name) = (key.to_owned(), name.to_owned());
        self.run(move |inner| inner.store.commit(&key, &name, labels, usage, |_| inner.sync_files()))
            .await
    }

    pub(crate) async fn remove(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.run(move |inner| {
            let entry = inner.store.forget(&key)?;
            inner.store.remove_dir(entry.id)
        })
        .await?;
        self.sync_soon();
        Ok(())
    }

    pub(crate) async fn usage(&self, key: &str) -> Result<Usage> {
        let entry = self.inner.store.get(key)?;
        if let Some(usage) = entry.usage {
            return Ok(usage);
        }
        self.run(move |inner| inner.usage(&entry)).await
    }

    pub(crate) async fn cleanup(&self) -> Result<()> {
        self.run(|inner| inner.store.cleanup()).await
    }

    /// Has the log made durable in the background; one sync serves all that asked before it began.
    fn sync_soon(&self) {
        if self.inner.store.wants_sync() {
            let inner = Arc::clone(&self.inner);
            tokio::task::spawn_blocking(move || {
                if let Err(error) = inner.store.sync() {
                    tracing::warn!(%error, "the log of snapshots could not be synced");
                }
            });
        }
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Inner<L>) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(answer) => answer,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(error) => Err(Error::Backend(Box::new(error))),
            },
        }
    }
}

impl<L: Layout> Inner<L> {
    fn make(&self, key: &str, parent: Option<&str>, kind: Kind, labels: Labels) -> Result<Vec<Mount>> {
        let pending = self.store.begin(key, parent, kind, labels)?;
        let id = pending.id();
        self.layout.make(&self.store, id, kind, &pending.parents)?;
        let mounts = self.layout.mounts(&self.store, id, kind, &pending.parents)?;
        pending.publish()?;
        Ok(mounts)
    }

    /// Counts a snapshot's own files. What a committed one takes never changes, so that is kept.
    fn usage(&self, entry: &Entry) -> Result<Usage> {
        let name = format!("{}/fs", entry.id);
        let dir = match at::open_below(self.store.dirs(), entry.id.to_string().as_bytes(), at::DIRECTORY) {
            Ok(dir) => dir,
            // A view on others' directories has none of its own.
            Err(rustix::io::Errno::NOENT) => return Ok(Usage::default()),
            Err(errno) => return Err(at::failed("opening", self.store.path(entry.id, ""))(errno)),
        };
        let usage = usage::count(&dir, b"fs").map_err(at::failed("counting", self.store.path(entry.id, &name)))?;
        if entry.info.kind == Kind::Committed {
            self.store.keep_usage(&entry.info.key, entry.id, usage)?;
        }
        Ok(usage)
    }

    /// Makes all files of the snapshots durable: one call for the whole filesystem, many times cheaper than one for each file.
    fn sync_files(&self) -> Result<()> {
        rustix::fs::syncfs(self.store.dirs()).map_err(at::failed("syncing", self.store.root()))
    }
}

/// Makes the directory of a snapshot and its root `fs`, whose owner, mode and attributes are those of its parent's.
pub(crate) fn make_root(store: &Store, id: u64, parent: Option<u64>) -> Result<()> {
    let path = store.path(id, "fs");
    let failed = |action| at::failed(action, &path);
    let dir_name = id.to_string();
    rustix::fs::mkdirat(store.dirs(), &dir_name, Mode::RWXU).map_err(failed("creating the directory of"))?;
    let fs_name = format!("{id}/fs");
    rustix::fs::mkdirat(store.dirs(), &fs_name, Mode::RWXU).map_err(failed("creating"))?;
    let fs = at::open_below(store.dirs(), fs_name.as_bytes(), at::DIRECTORY).map_err(failed("opening"))?;
    let Some(parent) = parent else {
        return rustix::fs::fchmod(&fs, Mode::from_raw_mode(0o755)).map_err(failed("setting the mode of"));
    };
    let parent_name = format!("{parent}/fs");
    let above = at::open_below(store.dirs(), parent_name.as_bytes(), OFlags::PATH | OFlags::DIRECTORY)
        .map_err(at::failed("opening the parent", store.path(parent, "fs")))?;
    let stat = rustix::fs::fstat(&above).map_err(failed("reading the parent of"))?;
    let own = rustix::fs::fstat(&fs).map_err(failed("reading"))?;
    if (stat.st_uid, stat.st_gid) != (own.st_uid, own.st_gid) {
        let (uid, gid) = at::owner(&stat);
        rustix::fs::fchown(&fs, uid, gid).map_err(failed("setting the owner of"))?;
    }
    let xattrs = at::xattrs(store.dirs().as_fd(), parent_name.as_bytes()).map_err(failed("reading the parent of"))?;
    at::set_xattrs_of(&fs, &xattrs).map_err(failed("setting attributes of"))?;
    rustix::fs::fchmod(&fs, Mode::from_raw_mode(stat.st_mode)).map_err(failed("setting the mode of"))
}

/// Forwards the port to the field that implements it.
macro_rules! snapshotter {
    ($type:ty, $name:literal) => {
        #[async_trait::async_trait]
        impl crate::Snapshotter for $type {
            fn name(&self) -> &str {
                $name
            }
            async fn stat(&self, key: &str) -> crate::Result<crate::Info> {
                self.0.stat(key)
            }
            async fn prepare(
                &self,
                key: &str,
                parent: Option<&str>,
                labels: crate::Labels,
            ) -> crate::Result<Vec<longshore_linux::Mount>> {
                self.0.make(key, parent, crate::Kind::Active, labels).await
            }
            async fn view(
                &self,
                key: &str,
                parent: Option<&str>,
                labels: crate::Labels,
            ) -> crate::Result<Vec<longshore_linux::Mount>> {
                self.0.make(key, parent, crate::Kind::View, labels).await
            }
            async fn mounts(&self, key: &str) -> crate::Result<Vec<longshore_linux::Mount>> {
                self.0.mounts(key).await
            }
            async fn commit(&self, key: &str, name: &str, labels: crate::Labels) -> crate::Result<()> {
                self.0.commit(key, name, labels, None).await
            }
            async fn commit_counted(
                &self,
                key: &str,
                name: &str,
                labels: crate::Labels,
                usage: Option<crate::Usage>,
            ) -> crate::Result<()> {
                self.0.commit(key, name, labels, usage).await
            }
            async fn remove(&self, key: &str) -> crate::Result<()> {
                self.0.remove(key).await
            }
            async fn usage(&self, key: &str) -> crate::Result<crate::Usage> {
                self.0.usage(key).await
            }
            async fn walk(&self) -> crate::Result<Vec<crate::Info>> {
                Ok(self.0.walk())
            }
            async fn cleanup(&self) -> crate::Result<()> {
                self.0.cleanup().await
            }
        }
    };
}
pub(crate) use snapshotter;

/// Opens a snapshotter on a thread where blocking is allowed.
pub(crate) async fn open<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Error::Backend(Box::new(error))),
        },
    }
}
