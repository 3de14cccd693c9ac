//! Many blobs that become durable together.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use oci_spec::image::Digest;
use tokio::sync::oneshot;

use super::commit::rename_to_new;
use super::data::DataFile;
use super::ingest::LocalIngest;
use super::layout::sync_directory;
use super::record::Checkpoint;
use super::store::LocalStore;
use super::writer::Writer;
use crate::blob::Committed;
use crate::blocking::blocking;
use crate::error::IoContext;
use crate::flight::{Outcome, lock};
use crate::{Blob, ContentStore, Error, Expected, Info, Ingest, IngestRequest, IngestStatus, Result};

/// From so many blobs on, one syncfs(2) is asked for instead of as many fdatasync(2).
const SYNC_ALL: usize = 3;

/// A [`LocalStore`] whose commits become durable, and visible to others, together: see [`LocalStore::batch`].
#[derive(Clone, Debug)]
pub struct LocalBatch {
    store: LocalStore,
    staged: Arc<Mutex<HashMap<Digest, Staged>>>,
}

/// An ingest that is complete and proved, but not yet a blob. It still holds its directory and its reference.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) info: Info,
    pub(crate) writer: Box<Writer>,
}

impl LocalStore {
    /// Begins a batch: a view of this store for one pull, say. What is committed through it can be read through it at once, and is a blob for
    /// everybody, durable, when [`finish`](LocalBatch::finish) has returned. Many blobs then cost one sync of the filesystem and one of a directory, instead
    /// of both for each.
    ///
    /// What followers of an ingest wait for at the end is the proof. Dropped or killed before its end, a batch leaves complete partial ingests, and the next
    /// ingest of each has nothing left to write.
    ///
    /// ```
    /// use longshore_content::{ContentStoreExt, Expected, LocalStore, sha256};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// let store = LocalStore::open(directory.path()).await?;
    /// let batch = store.batch();
    /// for layer in ["one", "two", "three"] {
    ///     batch.put(&format!("layer-{layer}"), layer.into(), Expected::default()).await?;
    /// }
    /// assert!(batch.contains(&sha256(b"one")).await? && !store.contains(&sha256(b"one")).await?);
    /// assert_eq!(batch.finish().await?.len(), 3);
    /// assert!(store.contains(&sha256(b"one")).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self) -> LocalBatch {
        LocalBatch {
            store: self.clone(),
            staged: Arc::default(),
        }
    }
}

impl LocalBatch {
    /// Makes all that was committed until now durable, and blobs of the store. The batch can be used again.
    ///
    /// # Errors
    /// The system's. What is not a blob then is left over as a complete partial ingest.
    pub async fn finish(&self) -> Result<Vec<Info>> {
        let staged: Vec<Staged> = lock(&self.staged).drain().map(|(_, staged)| staged).collect();
        self.publish(staged).await
    }

    async fn publish(&self, staged: Vec<Staged>) -> Result<Vec<Info>> {
        let root = self.store.root().to_owned();
        blocking(move || {
            if staged.len() < SYNC_ALL {
                staged.iter().try_for_each(|staged| staged.writer.data.sync())?;
            } else {
                let directory = File::open(&root).during("opening", &root)?;
                rustix::fs::syncfs(&directory).during("syncing the filesystem of", &root)?;
            }
            let named = staged.iter().map(|staged| staged.writer.name(&staged.info.digest));
            let directories = named.collect::<Result<BTreeSet<_>>>()?;
            directories.iter().try_for_each(|directory| sync_directory(directory))?;
            Ok(staged.into_iter().map(Staged::done).collect())
        })
        .await
    }

    fn staged(&self, digest: &Digest) -> Option<(Info, Arc<DataFile>)> {
        let staged = lock(&self.staged);
        let found = staged.get(digest)?;
        Some((found.info.clone(), found.writer.data.clone()))
    }

    /// The digest that was committed under a reference.
    fn of_reference(&self, reference: &str) -> Option<Digest> {
        let staged = lock(&self.staged);
        let mut all = staged.iter();
        all.find_map(|(digest, staged)| (staged.writer.air.shared.reference == reference).then(|| digest.clone()))
    }
}

impl Staged {
    /// Removes what is left of the ingest, and lets go of its reference.
    fn done(mut self) -> Info {
        self.writer.throw_away(&Ok(self.info.clone()));
        self.info
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContentStore for LocalBatch {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        match self.staged(digest) {
            Some((info, _)) => Ok(info),
            None => self.store.info(digest).await,
        }
    }

    async fn open(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        match self.staged(digest) {
            Some((info, source)) => Ok(Arc::new(Committed {
                digest: info.digest,
                size: info.size,
                source,
            })),
            None => self.store.open(digest).await,
        }
    }

    async fn follow(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        match self.open(digest).await {
            Err(Error::NotFound(_)) => {}
            opened => return opened,
        }
        match self.store.follow(digest).await {
            // It may have been staged since we looked.
            Err(Error::NotFound(_)) => self.open(digest).await,
            followed => followed,
        }
    }

    async fn ingest(&self, request: IngestRequest) -> Result<Box<dyn Ingest>> {
        if let Some(digest) = &request.expected.digest
            && self.staged(digest).is_some()
        {
            return Err(Error::AlreadyExists(digest.clone()));
        }
        // A reference is free again when what came under it is a blob.
        if let Some(digest) = self.of_reference(&request.reference) {
            let staged = lock(&self.staged).remove(&digest);
            self.publish(staged.into_iter().collect()).await?;
        }
        let ingest = self.store.begin(request).await?;
        Ok(Box::new(BatchIngest {
            ingest,
            batch: self.clone(),
        }))
    }

    async fn status(&self, reference: &str) -> Result<IngestStatus> {
        match self.of_reference(reference) {
            Some(_) => Err(Error::NoSuchIngest(reference.into())),
            None => self.store.status(reference).await,
        }
    }

    async fn ingests(&self) -> Result<Vec<IngestStatus>> {
        let mut ingests = self.store.ingests().await?;
        ingests.retain(|ingest| self.of_reference(&ingest.reference).is_none());
        Ok(ingests)
    }

    async fn abort(&self, reference: &str) -> Result<()> {
        match self.of_reference(reference) {
            Some(_) => Err(Error::NoSuchIngest(reference.into())),
            None => self.store.abort(reference).await,
        }
    }

    fn walk(&self) -> BoxStream<'_, Result<Info>> {
        let staged: Vec<_> = lock(&self.staged)
            .values()
            .map(|staged| Ok(staged.info.clone()))
            .collect();
        stream::iter(staged).chain(self.store.walk()).boxed()
    }

    async fn remove(&self, digest: &Digest) -> Result<()> {
        let staged = lock(&self.staged).remove(digest);
        match staged {
            Some(staged) => {
                blocking(move || staged.done()).await;
                Ok(())
            }
            None => self.store.remove(digest).await,
        }
    }
}

/// A writer whose commit ends with the proof.
#[derive(Debug)]
struct BatchIngest {
    ingest: LocalIngest,
    batch: LocalBatch,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Ingest for BatchIngest {
    fn status(&self) -> IngestStatus {
        self.ingest.status()
    }

    async fn write(&mut self, data: Bytes) -> Result<()> {
        self.ingest.write(data).await
    }

    async fn restart(&mut self) -> Result<()> {
        self.ingest.restart().await
    }

    async fn commit(mut self: Box<Self>, expected: Expected) -> Result<Info> {
        let staged = self.ingest.stage(expected).await?;
        let info = staged.info.clone();
        let second = {
            let mut all = lock(&self.batch.staged);
            match all.contains_key(&info.digest) {
                true => Some(staged),
                false => {
                    all.insert(info.digest.clone(), staged);
                    None
                }
            }
        };
        match second {
            None => Ok(info),
            Some(second) => {
                blocking(move || second.done()).await;
                Err(Error::AlreadyExists(info.digest))
            }
        }
    }

    async fn replace(self: Box<Self>, expected: Expected) -> Result<Info> {
        // At once: what is damaged should not wait for the end of a batch.
        let Self { ingest, batch } = *self;
        let info = Box::new(ingest).replace(expected).await?;
        let staged = lock(&batch.staged).remove(&info.digest);
        if let Some(staged) = staged {
            blocking(move || staged.done()).await;
        }
        Ok(info)
    }
}

/// What the thread answers when it has staged.
pub(crate) type StageReply = oneshot::Sender<Result<Staged>>;

impl Writer {
    /// Proves the bytes, and leaves them where they are. Afterwards followers know the outcome.
    pub(crate) fn stage(mut self, expected: &Expected) -> Result<Staged> {
        let hasher = self.rest();
        if let Some(failure) = self.air.shared.failure() {
            return Err(failure);
        }
        let staged = self.prove(&hasher, expected).and_then(|digest| self.unnamed(digest));
        if staged.is_err() {
            self.landed(&staged);
        }
        let info = staged?;
        self.air.land(Outcome::Committed);
        // Without it a killed process fetches it again; that is all.
        if let Err(error) = Checkpoint::new(self.written, &hasher).save_volatile(&self.air.shared.path) {
            tracing::debug!(%error, "no checkpoint of a staged ingest");
        }
        let writer = Box::new(self);
        Ok(Staged { info, writer })
    }

    fn unnamed(&self, digest: Digest) -> Result<Info> {
        if fs::symlink_metadata(self.air.store.layout.blob(&digest)?).is_ok() {
            return Err(Error::AlreadyExists(digest));
        }
        self.info(digest)
    }

    /// Gives the bytes their name, which is not durable yet, and returns its directory. That somebody was faster is as good.
    fn name(&self, digest: &Digest) -> Result<PathBuf> {
        let blob = self.air.store.layout.blob(digest)?;
        let directory = self.directory(digest)?;
        match rename_to_new(&self.air.shared.path.join("data"), &blob) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(directory),
            named => named.during("renaming an ingest to", blob).map(|()| directory),
        }
    }
}
