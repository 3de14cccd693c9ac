//! A content store whose new blobs are held by a lease from before they are there.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use longshore_content::{
    Blob, ContentStore, Error, Expected, Hasher, Info, Ingest, IngestRequest, IngestStatus, Result,
};
use longshore_metadata::Resource;
use oci_spec::image::{Digest, DigestAlgorithm};

use crate::image::Holder;

/// For those who store without knowing of leases.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) inner: Arc<dyn ContentStore>,
    pub(crate) holder: Arc<Holder>,
}

async fn hold(holder: &Holder, digest: &Digest) -> Result<()> {
    let resource = Resource::Content(digest.to_string());
    let held = holder.hold(&[resource]).await;
    held.map_err(|error| Error::Backend(Box::new(error)))
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContentStore for Held {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        self.inner.info(digest).await
    }

    async fn open(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        self.inner.open(digest).await
    }

    async fn follow(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        self.inner.follow(digest).await
    }

    async fn ingest(&self, request: IngestRequest) -> Result<Box<dyn Ingest>> {
        let hasher = match &request.expected.digest {
            // One that is there already is held, too.
            Some(digest) => {
                hold(&self.holder, digest).await?;
                None
            }
            None => Some(Hasher::new(&DigestAlgorithm::Sha256)?),
        };
        let mut inner = self.inner.ingest(request).await?;
        if hasher.is_some() && inner.status().offset > 0 {
            // What came before we did not see.
            inner.restart().await?;
        }
        Ok(Box::new(HeldIngest {
            inner,
            hasher,
            holder: self.holder.clone(),
        }))
    }

    async fn status(&self, reference: &str) -> Result<IngestStatus> {
        self.inner.status(reference).await
    }

    async fn ingests(&self) -> Result<Vec<IngestStatus>> {
        self.inner.ingests().await
    }

    async fn abort(&self, reference: &str) -> Result<()> {
        self.inner.abort(reference).await
    }

    fn walk(&self) -> BoxStream<'_, Result<Info>> {
        self.inner.walk()
    }

    async fn remove(&self, digest: &Digest) -> Result<()> {
        self.inner.remove(digest).await
    }
}

/// An ingest whose digest, when nobody told it, is computed to be held.
#[derive(Debug)]
struct HeldIngest {
    inner: Box<dyn Ingest>,
    hasher: Option<Hasher>,
    holder: Arc<Holder>,
}

impl HeldIngest {
    async fn held(self: Box<Self>) -> Result<Box<dyn Ingest>> {
        let Self { inner, hasher, holder } = *self;
        if let Some(hasher) = hasher {
            hold(&holder, &hasher.finish()).await?;
        }
        Ok(inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Ingest for HeldIngest {
    fn status(&self) -> IngestStatus {
        self.inner.status()
    }

    async fn write(&mut self, data: Bytes) -> Result<()> {
        let before = self.inner.status().offset;
        let written = self.inner.write(data.clone()).await;
        if let Some(hasher) = &mut self.hasher {
            let taken = self.inner.status().offset.saturating_sub(before);
            let taken = usize::try_from(taken).map_or(data.len(), |taken| taken.min(data.len()));
            hasher.update(&data[..taken]);
        }
        written
    }

    async fn restart(&mut self) -> Result<()> {
        self.inner.restart().await?;
        if self.hasher.is_some() {
            self.hasher = Some(Hasher::new(&DigestAlgorithm::Sha256)?);
        }
        Ok(())
    }

    async fn commit(self: Box<Self>, expected: Expected) -> Result<Info> {
        self.held().await?.commit(expected).await
    }

    async fn replace(self: Box<Self>, expected: Expected) -> Result<Info> {
        self.held().await?.replace(expected).await
    }
}
