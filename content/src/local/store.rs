//! The store itself.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use oci_spec::image::Digest;
use rustix::io::Errno;

use super::begin::{LeftOver, begin};
use super::claim::Claim;
use super::data::DataFile;
use super::ingest::LocalIngest;
use super::layout::Layout;
use super::slots::{Slot, Slots};
use super::{sweep, walk};
use crate::blob::{Committed, Followed};
use crate::blocking::blocking;
use crate::error::IoContext;
use crate::flight::Flights;
use crate::{Blob, ContentStore, Error, Info, Ingest, IngestRequest, IngestStatus, Result};

/// A store on a local filesystem: an OCI image layout that other tools read, with ingests beside the blobs.
///
/// Cheap to clone; clones are one store. Any number of stores and processes may use one directory at the same time:
/// writers exclude each other by flock(2). Only [`follow`](ContentStore::follow) is limited to the ingests of
/// the same store.
///
/// # On disk
/// ```text
/// oci-layout, index.json         created empty, never touched again
/// blobs/<algorithm>/<hex>        committed blobs
/// ingest/<sha256 of reference>/  data, ref (what was asked for), progress and durable (checkpoints of the hash)
/// ```
///
/// # Crashes
/// After `kill -9` a partial ingest resumes at most some 16 MiB before its last byte; after a power loss it resumes at
/// the last byte of which the disk was known to have it. Neither hashes again what it had.
#[derive(Clone)]
pub struct LocalStore(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) flights: Flights<DataFile>,
    slots: Arc<Slots>,
}

impl LocalStore {
    /// Opens the store at `root`, creating what is missing. Left-overs of crashes that can't be resumed are removed.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when `root` holds an `oci-layout` of another kind, otherwise the system's.
    pub async fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = std::path::absolute(root.as_ref()).during("resolving", root.as_ref())?;
        let layout = blocking(move || {
            let layout = Layout::open(&root)?;
            sweep::sweep(&layout)?;
            Ok::<_, Error>(layout)
        })
        .await?;
        Ok(Self(Arc::new(Inner {
            layout,
            flights: Flights::default(),
            slots: Arc::default(),
        })))
    }

    /// Where the store is.
    pub fn root(&self) -> &Path {
        self.0.layout.root()
    }

    /// Waits for the writers that were dropped: each saves how far it came, so that its ingest can be resumed at the
    /// last byte. A program that ends without this resumes at an earlier one.
    pub async fn settle(&self) {
        for slot in self.0.slots.all() {
            if slot.is_closing() {
                slot.freed().await;
            }
        }
    }

    /// Begins or resumes an ingest.
    pub(super) async fn begin(&self, request: IngestRequest) -> Result<LocalIngest> {
        let reservation = loop {
            match self.0.slots.reserve(&request.reference) {
                Ok(reservation) => break reservation,
                Err(slot) if slot.is_closing() => slot.freed().await,
                Err(_) => return Err(Error::InUse(request.reference)),
            }
        };
        let beginning = Beginning(Some(reservation.slot.clone()));
        let ingest = self.with(move |inner| begin(inner, reservation, &request)).await?;
        beginning.done();
        Ok(ingest)
    }

    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&Arc<Inner>) -> T + Send + 'static) -> T {
        let inner = self.0.clone();
        blocking(move || work(&inner)).await
    }
}

impl std::fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalStore")
            .field("root", &self.root())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn info(&self, digest: &Digest) -> Result<Info> {
        let path = self.layout.blob(digest)?;
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => walk::info(digest.clone(), &metadata).during("reading", path),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).during("reading", path),
            _ => Err(Error::NotFound(digest.clone())),
        }
    }

    fn open(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        let path = self.layout.blob(digest)?;
        match DataFile::open(path.clone()) {
            Ok((source, metadata)) if metadata.is_file() => Ok(Arc::new(Committed {
                digest: digest.clone(),
                size: metadata.size(),
                source: Arc::new(source),
            })),
            Err(error) if !is_absent(&error) => Err(error).during("opening", path),
            _ => Err(Error::NotFound(digest.clone())),
        }
    }

    fn follow(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        match self.open(digest) {
            Err(Error::NotFound(_)) => {}
            opened => return opened,
        }
        match self.flights.find(digest) {
            Some(flight) => Ok(Arc::new(Followed {
                digest: digest.clone(),
                flight,
            })),
            // It may have been committed, and left the index, since we looked.
            None => self.open(digest),
        }
    }

    fn status(&self, reference: &str) -> Result<IngestStatus> {
        LeftOver::load(&self.layout.ingest(reference))
            .map(|left| left.status)
            .ok_or_else(|| Error::NoSuchIngest(reference.into()))
    }

    fn ingests(&self) -> Result<Vec<IngestStatus>> {
        let path = self.layout.ingests();
        let entries = fs::read_dir(&path).during("listing", &path)?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.during("listing", &path)?;
            found.extend(LeftOver::load(&entry.path()).map(|left| left.status));
        }
        Ok(found)
    }

    fn remove(&self, digest: &Digest) -> Result<()> {
        let path = self.layout.blob(digest)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::NotFound(digest.clone())),
            removed => removed.during("removing", path),
        }
    }
}

#[async_trait]
impl ContentStore for LocalStore {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        let digest = digest.clone();
        self.with(move |inner| inner.info(&digest)).await
    }

    async fn open(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        let digest = digest.clone();
        self.with(move |inner| inner.open(&digest)).await
    }

    async fn follow(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        let digest = digest.clone();
        self.with(move |inner| inner.follow(&digest)).await
    }

    async fn ingest(&self, request: IngestRequest) -> Result<Box<dyn Ingest>> {
        Ok(Box::new(self.begin(request).await?))
    }

    async fn status(&self, reference: &str) -> Result<IngestStatus> {
        if let Some(slot) = self.0.slots.settled(reference).await
            && let Some(writer) = slot.writer()
        {
            return Ok(writer.status());
        }
        let reference = reference.to_owned();
        self.with(move |inner| inner.status(&reference)).await
    }

    async fn ingests(&self) -> Result<Vec<IngestStatus>> {
        let live: Vec<_> = self
            .0
            .slots
            .all()
            .iter()
            .filter_map(|slot| slot.writer().map(|writer| writer.status()))
            .collect();
        let mut found = self.with(|inner| inner.ingests()).await?;
        found.retain(|left| live.iter().all(|writer| writer.reference != left.reference));
        found.extend(live);
        Ok(found)
    }

    async fn abort(&self, reference: &str) -> Result<()> {
        if self.0.slots.settled(reference).await.is_some() {
            return Err(Error::InUse(reference.into()));
        }
        let Ok(reservation) = self.0.slots.reserve(reference) else {
            return Err(Error::InUse(reference.into()));
        };
        // From here on whoever comes waits for the end, as for a writer that is closing.
        reservation.slot.close();
        let reference = reference.to_owned();
        self.with(move |inner| {
            let path = inner.layout.ingest(&reference);
            let claim = Claim::take_existing(&path, &reference)?.ok_or(Error::NoSuchIngest(reference))?;
            let removed = claim.remove();
            drop(reservation);
            removed
        })
        .await
    }

    fn walk(&self) -> BoxStream<'_, Result<Info>> {
        walk::walk(self.root().join("blobs"))
    }

    async fn remove(&self, digest: &Digest) -> Result<()> {
        let digest = digest.clone();
        self.with(move |inner| inner.remove(&digest)).await
    }
}

/// Nothing there, or a symbolic link, which is never a blob of ours.
fn is_absent(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// When the future that begins an ingest is dropped, its blocking part still runs: others wait for it, as for a
/// writer that is closing.
struct Beginning(Option<Arc<Slot>>);

impl Beginning {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        if let Some(slot) = &self.0 {
            slot.close();
        }
    }
}
