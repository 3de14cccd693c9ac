//! Writers: they write to the staging store, and upload what it has proved.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use oci_spec::image::Digest;

use super::live::Writing;
use super::store::{Existing, Inner};
use crate::{Error, Expected, Info, Ingest, IngestStatus, Result};

#[derive(Debug)]
pub(super) struct ObjectIngest {
    pub(super) staged: Box<dyn Ingest>,
    pub(super) store: Arc<Inner>,
    /// While it is there, followers of the digest it expects wait for the upload.
    pub(super) writing: Option<Writing>,
}

impl ObjectIngest {
    async fn land(store: &Arc<Inner>, staged: Result<Info>, existing: Existing) -> Result<Info> {
        let digest: Digest = match staged {
            Ok(info) => info.digest,
            // Somebody else's proof is as good.
            Err(Error::AlreadyExists(digest)) => digest,
            Err(error) => return Err(error),
        };
        store.land(&digest, existing).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Ingest for ObjectIngest {
    fn status(&self) -> IngestStatus {
        self.staged.status()
    }

    async fn write(&mut self, data: Bytes) -> Result<()> {
        self.staged.write(data).await
    }

    async fn restart(&mut self) -> Result<()> {
        self.staged.restart().await
    }

    async fn commit(self: Box<Self>, expected: Expected) -> Result<Info> {
        let Self {
            staged,
            store,
            writing: _writing,
        } = *self;
        let proved = staged.commit(expected).await;
        Self::land(&store, proved, Existing::Keep).await
    }

    async fn replace(self: Box<Self>, expected: Expected) -> Result<Info> {
        let Self {
            staged,
            store,
            writing: _writing,
        } = *self;
        let proved = staged.replace(expected).await;
        Self::land(&store, proved, Existing::Replace).await
    }
}
