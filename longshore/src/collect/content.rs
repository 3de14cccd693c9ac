use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use longshore_content::{ContentStore, ContentStoreExt, ErrorKind};
use longshore_metadata::{Collectible, Edge, Found, Removed, Resource, StoreError};
use oci_spec::image::Digest;

use super::documents;

/// A blob that is larger is no manifest, index or config.
const DOCUMENT_LIMIT: u64 = 8 << 20;
/// Blobs that are read at once.
const AT_ONCE: usize = 16;

/// The blobs of a content store.
#[derive(Debug)]
pub(super) struct Blobs {
    pub(super) content: Arc<dyn ContentStore>,
    pub(super) snapshotter: String,
}

impl Blobs {
    async fn edges_of(&self, resource: &Resource) -> Result<Vec<Edge>, StoreError> {
        let Some(digest) = digest_of(resource) else {
            return Ok(Vec::new());
        };
        let blob = match self.content.open(&digest).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            blob => blob?,
        };
        // Most blobs are layers, which one byte tells.
        let mut first = [0];
        let is_json =
            blob.read_at(0, &mut first).await? == 1 && matches!(first[0], b'{' | b' ' | b'\n' | b'\r' | b'\t');
        if !is_json || blob.size().is_none_or(|size| size > DOCUMENT_LIMIT) {
            return Ok(Vec::new());
        }
        match self.content.read(&digest, DOCUMENT_LIMIT).await {
            Ok(bytes) => Ok(documents::edges(&bytes, &self.snapshotter)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The digest, if a resource is a blob with a name that can be one.
fn digest_of(resource: &Resource) -> Option<Digest> {
    match resource {
        Resource::Content(digest) => digest.parse().ok(),
        _ => None,
    }
}

#[async_trait]
impl Collectible for Blobs {
    fn name(&self) -> &str {
        "blobs"
    }

    fn owns(&self, resource: &Resource) -> bool {
        matches!(resource, Resource::Content(_))
    }

    fn list(&self) -> BoxStream<'_, Result<Found, StoreError>> {
        let found = |info: longshore_content::Info| Found {
            resource: Resource::Content(info.digest.to_string()),
            changed: info.created,
        };
        self.content.walk().map_ok(found).map_err(StoreError::from).boxed()
    }

    async fn edges(&self, resources: &[Resource]) -> Result<Vec<Vec<Edge>>, StoreError> {
        let asked = resources.iter().map(|resource| self.edges_of(resource));
        // Boxed: the compiler can't prove the borrow general enough otherwise.
        let asked: Vec<futures::future::BoxFuture<'_, _>> = asked.map(|edges| Box::pin(edges) as _).collect();
        stream::iter(asked).buffered(AT_ONCE).try_collect().await
    }

    async fn size(&self, resource: &Resource) -> Result<u64, StoreError> {
        match digest_of(resource) {
            Some(digest) => match self.content.info(&digest).await {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
                info => Ok(info?.size),
            },
            None => Ok(0),
        }
    }

    async fn remove(&self, resource: &Resource) -> Result<Removed, StoreError> {
        if let Some(digest) = digest_of(resource) {
            match self.content.remove(&digest).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // It is another's to collect.
                Err(error) if error.kind() == ErrorKind::ReadOnly => return Ok(Removed::InUse),
                removed => removed?,
            }
        }
        Ok(Removed::Gone)
    }
}

/// Ingests that got no bytes for a while.
#[derive(Debug)]
pub(super) struct Ingests {
    pub(super) content: Arc<dyn ContentStore>,
    pub(super) age: Duration,
}

#[async_trait]
impl Collectible for Ingests {
    fn name(&self) -> &str {
        "partial ingests"
    }

    fn owns(&self, resource: &Resource) -> bool {
        matches!(resource, Resource::Ingest(_))
    }

    fn list(&self) -> BoxStream<'_, Result<Found, StoreError>> {
        let idle = |updated: SystemTime| {
            let now = SystemTime::now();
            now.duration_since(updated).is_ok_and(|idle| idle >= self.age)
        };
        let listed = async move {
            let ingests = self.content.ingests().await?.into_iter();
            let old = ingests.filter(|ingest| idle(ingest.updated)).map(|ingest| {
                Ok::<_, StoreError>(Found {
                    resource: Resource::Ingest(ingest.reference),
                    changed: ingest.updated,
                })
            });
            Ok::<_, StoreError>(stream::iter(old.collect::<Vec<_>>()))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn edges(&self, resources: &[Resource]) -> Result<Vec<Vec<Edge>>, StoreError> {
        Ok(vec![Vec::new(); resources.len()])
    }

    async fn size(&self, resource: &Resource) -> Result<u64, StoreError> {
        let Resource::Ingest(reference) = resource else {
            return Ok(0);
        };
        match self.content.status(reference).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            status => Ok(status?.offset),
        }
    }

    async fn remove(&self, resource: &Resource) -> Result<Removed, StoreError> {
        let Resource::Ingest(reference) = resource else {
            return Ok(Removed::Gone);
        };
        match self.content.abort(reference).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Removed::Gone),
            Err(error) if error.kind() == ErrorKind::InUse => Ok(Removed::InUse),
            aborted => Ok(aborted.map(|()| Removed::Gone)?),
        }
    }
}
