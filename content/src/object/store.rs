//! The store itself.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use oci_spec::image::Digest;

use super::blob::{Followed, ObjectBlob};
use super::ingest::ObjectIngest;
use super::live::Live;
use super::upload::{backend, upload};
use crate::hash::Hasher;
use crate::{Blob, ContentStore, Error, ErrorKind, Info, Ingest, IngestRequest, IngestStatus, Result};

/// A store over the objects of an [`object_store`] (S3, GCS, Azure, a directory), which many machines share. Needs the feature `object-store`.
///
/// Blobs are objects called `<prefix>/blobs/<algorithm>/<hex>`. Bytes on their way are in a *staging* store, which belongs to this machine alone,
/// a [`LocalStore`](crate::LocalStore) say: there an ingest resumes, is followed and is proved. A commit uploads what was proved, in parts that are invisible until the
/// last one is there, hashing it once more; it returns when the objects' side has acknowledged it. So durability is what that side gives: a
/// `LocalFileSystem` needs `with_fsync(true)`.
///
/// # What differs from other stores
/// - A reader of a blob that is removed gets [`NotFound`](ErrorKind::NotFound): objects are not kept for those that have them open.
/// - Machines do not know of each other's ingests. Two may upload one blob at the same time, which does no harm.
/// - Reading goes in requests of 1 MiB or more; one that jumps about pays for it.
///
/// The features of a cloud are those of `object_store`: depend on it, and enable `aws-base`, `reqwest` and `ring`, for example.
///
/// ```
/// use std::sync::Arc;
/// use longshore_content::object_store::memory::InMemory;
/// use longshore_content::{ContentStore, ContentStoreExt, Expected, MemoryStore, ObjectStoreContent, sha256};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bucket = Arc::new(InMemory::new());
/// let here = ObjectStoreContent::new(bucket.clone(), Arc::new(MemoryStore::new()));
/// let there = ObjectStoreContent::new(bucket, Arc::new(MemoryStore::new()));
///
/// here.put("a", "hello".into(), Expected::default()).await?;
/// assert_eq!(there.read(&sha256(b"hello"), 100).await?, "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ObjectStoreContent(Arc<Inner>);

#[derive(Clone, Debug)]
pub(super) struct Inner {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    staging: Arc<dyn ContentStore>,
    live: Arc<Live>,
}

/// What an upload does with an object that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    Keep,
    Replace,
}

impl ObjectStoreContent {
    /// A store over these objects. `staging` must be of this store alone.
    pub fn new(objects: Arc<dyn ObjectStore>, staging: Arc<dyn ContentStore>) -> Self {
        Self(Arc::new(Inner {
            objects,
            prefix: Path::default(),
            staging,
            live: Arc::default(),
        }))
    }

    /// Keeps everything under this prefix (`team/images`). To be called before the store is used.
    pub fn with_prefix(self, prefix: &str) -> Self {
        let inner = Arc::unwrap_or_clone(self.0);
        Self(Arc::new(Inner {
            prefix: Path::from(prefix),
            ..inner
        }))
    }

    /// Uploads what is proved but was never uploaded, because the program was killed in between. Without this the next ingest of the
    /// same digest does it.
    ///
    /// # Errors
    /// Those of both stores.
    pub async fn recover(&self) -> Result<Vec<Info>> {
        let staged: Vec<Info> = self.0.staging.walk().try_collect().await?;
        let mut uploaded = Vec::new();
        for info in staged {
            match self.0.land(&info.digest, Existing::Keep).await {
                Ok(info) => uploaded.push(info),
                Err(Error::AlreadyExists(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(uploaded)
    }
}

impl Inner {
    fn path(&self, digest: &Digest) -> Result<Path> {
        // Only digests that this crate computes have one: their text is hex of a known length.
        Hasher::new(digest.algorithm())?;
        let parts = ["blobs", digest.algorithm().as_ref(), digest.digest()];
        Ok(self.prefix.parts().chain(parts.map(Into::into)).collect())
    }

    async fn head(&self, digest: &Digest) -> Result<ObjectMeta> {
        match self.objects.head(&self.path(digest)?).await {
            Err(object_store::Error::NotFound { .. }) => Err(Error::NotFound(digest.clone())),
            answer => answer.map_err(backend),
        }
    }

    async fn info(&self, digest: &Digest) -> Result<Info> {
        self.head(digest).await.map(|object| info(digest.clone(), &object))
    }

    async fn has(&self, digest: &Digest) -> Result<bool> {
        match self.head(digest).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn open(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        let object = self.head(digest).await?;
        Ok(Arc::new(ObjectBlob {
            objects: self.objects.clone(),
            path: self.path(digest)?,
            digest: digest.clone(),
            size: object.size,
            window: Mutex::default(),
        }))
    }

    /// Uploads a staged blob.
    pub(super) async fn land(&self, digest: &Digest, existing: Existing) -> Result<Info> {
        let writing = self.live.begin(digest);
        let _turn = writing.turn().await;
        let there = existing == Existing::Keep && self.has(digest).await?;
        if !there {
            let staged = self.staging.open(digest).await?;
            upload(self.objects.as_ref(), &self.path(digest)?, digest, staged).await?;
        }
        let info = self.info(digest).await?;
        if let Err(error) = self.staging.remove(digest).await
            && error.kind() != ErrorKind::NotFound
        {
            tracing::debug!(%error, %digest, "an uploaded blob is staged still");
        }
        if there {
            return Err(Error::AlreadyExists(digest.clone()));
        }
        Ok(info)
    }

    /// Waits until a blob is there, or nobody brings it any more.
    pub(super) async fn uploaded(&self, digest: &Digest) -> Result<()> {
        loop {
            let mut changed = std::pin::pin!(self.live.changed());
            changed.as_mut().enable();
            let written = self.live.is_written(digest);
            if self.has(digest).await? {
                return Ok(());
            }
            if !written {
                return Err(Error::Abandoned(digest.to_string()));
            }
            changed.await;
        }
    }
}

fn info(digest: Digest, object: &ObjectMeta) -> Info {
    Info {
        digest,
        size: object.size,
        created: object.last_modified.into(),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContentStore for ObjectStoreContent {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        self.0.info(digest).await
    }

    async fn open(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        self.0.open(digest).await
    }

    async fn follow(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        match self.0.open(digest).await {
            Err(Error::NotFound(_)) => {}
            opened => return opened,
        }
        if self.0.live.is_written(digest)
            && let Ok(staged) = self.0.staging.follow(digest).await
        {
            let store = self.0.clone();
            return Ok(Arc::new(Followed { staged, store }));
        }
        // It may have been uploaded since we looked.
        self.0.open(digest).await
    }

    async fn ingest(&self, request: IngestRequest) -> Result<Box<dyn Ingest>> {
        let store = &self.0;
        if let Some(digest) = &request.expected.digest
            && store.has(digest).await?
        {
            // What was left under the reference is of no more use.
            return match store.staging.abort(&request.reference).await {
                Err(error) if error.kind() == ErrorKind::InUse => Err(error),
                _ => Err(Error::AlreadyExists(digest.clone())),
            };
        }
        let staged = match store.staging.ingest(request).await {
            // Proved, but its upload was cut off.
            Err(Error::AlreadyExists(digest)) => {
                return match store.land(&digest, Existing::Keep).await {
                    Ok(_) => Err(Error::AlreadyExists(digest)),
                    Err(error) => Err(error),
                };
            }
            begun => begun?,
        };
        let writing = staged.status().expected.digest.map(|digest| store.live.begin(&digest));
        Ok(Box::new(ObjectIngest {
            staged,
            store: store.clone(),
            writing,
        }))
    }

    async fn status(&self, reference: &str) -> Result<IngestStatus> {
        self.0.staging.status(reference).await
    }

    async fn ingests(&self) -> Result<Vec<IngestStatus>> {
        self.0.staging.ingests().await
    }

    async fn abort(&self, reference: &str) -> Result<()> {
        self.0.staging.abort(reference).await
    }

    fn walk(&self) -> BoxStream<'_, Result<Info>> {
        let blobs: Path = self.0.prefix.parts().chain(["blobs".into()]).collect();
        let listed = self.0.objects.list(Some(&blobs)).map_err(backend);
        let found = listed.try_filter_map(move |object| {
            // Names that are not digests are not ours.
            let digest = object.location.prefix_match(&blobs).and_then(|parts| {
                let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
                Digest::try_from(parts.join(":")).ok()
            });
            let ours = digest.filter(|digest| Hasher::new(digest.algorithm()).is_ok());
            std::future::ready(Ok(ours.map(|digest| info(digest, &object))))
        });
        found.boxed()
    }

    async fn remove(&self, digest: &Digest) -> Result<()> {
        // Most clouds take the removal of nothing for success.
        self.0.head(digest).await?;
        match self.0.objects.delete(&self.0.path(digest)?).await {
            Err(object_store::Error::NotFound { .. }) => Err(Error::NotFound(digest.clone())),
            removed => removed.map_err(backend),
        }
    }
}
