//! Open blobs: objects, and ingests that are followed until their upload is done.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use oci_spec::image::Digest;

use super::store::Inner;
use crate::flight::lock;
use crate::{Blob, Error, Result};

/// What one request asks for at least: a reader that goes on finds the rest here.
const AHEAD: u64 = 1 << 20;

/// A committed blob.
#[derive(Debug)]
pub(super) struct ObjectBlob {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) path: Path,
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// What the last request brought, and where it begins.
    pub(super) window: Mutex<(u64, Bytes)>,
}

impl ObjectBlob {
    /// The bytes at an offset, if the last request brought them.
    fn known(&self, offset: u64) -> Option<Bytes> {
        let window = lock(&self.window);
        let within = usize::try_from(offset.checked_sub(window.0)?).ok()?;
        (within < window.1.len()).then(|| window.1.slice(within..))
    }

    async fn fetch(&self, offset: u64, length: u64) -> Result<Bytes> {
        let end = self.size.min(offset.saturating_add(length.max(AHEAD)));
        let bytes = match self.objects.get_range(&self.path, offset..end).await {
            Err(object_store::Error::NotFound { .. }) => return Err(Error::NotFound(self.digest.clone())),
            fetched => fetched.map_err(|error| Error::Backend(Box::new(error)))?,
        };
        if bytes.is_empty() {
            return Err(Error::Corrupt {
                path: self.path.as_ref().into(),
                reason: "the object is shorter than it was".into(),
            });
        }
        *lock(&self.window) = (offset, bytes.clone());
        Ok(bytes)
    }
}

#[async_trait]
impl Blob for ObjectBlob {
    fn digest(&self) -> &Digest {
        &self.digest
    }

    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    async fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if buf.is_empty() || offset >= self.size {
            return Ok(0);
        }
        let bytes = match self.known(offset) {
            Some(bytes) => bytes,
            None => self.fetch(offset, buf.len() as u64).await?,
        };
        let count = bytes.len().min(buf.len());
        buf[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }
}

/// A blob that is staged, or on its way there. Its end is told when it is uploaded.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) staged: Arc<dyn Blob>,
    pub(super) store: Arc<Inner>,
}

#[async_trait]
impl Blob for Followed {
    fn digest(&self) -> &Digest {
        self.staged.digest()
    }

    fn size(&self) -> Option<u64> {
        self.staged.size()
    }

    async fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let count = self.staged.read_at(offset, buf).await?;
        if count == 0 && !buf.is_empty() {
            self.store.uploaded(self.digest()).await?;
        }
        Ok(count)
    }
}
