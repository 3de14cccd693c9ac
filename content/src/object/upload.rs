//! From the staging store to the objects, proved once more on the way.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use oci_spec::image::Digest;

use crate::blocking::blocking;
use crate::hash::Hasher;
use crate::{Blob, Error, Result};

/// Bytes of a part; all but the last have as many. The least that S3 takes is 5 MiB.
const PART: usize = 8 << 20;

/// Parts under way at once; each is in memory.
const AT_ONCE: usize = 4;

/// Puts a staged blob there. It becomes visible whole, or not at all.
pub(super) async fn upload(objects: &dyn ObjectStore, path: &Path, digest: &Digest, blob: Arc<dyn Blob>) -> Result<()> {
    let mut parts = Parts {
        blob,
        hasher: Hasher::new(digest.algorithm())?,
        offset: 0,
    };
    let first;
    (parts, first) = parts.next().await?;
    if first.len() < PART {
        parts.prove(digest)?;
        return objects.put(path, first.into()).await.map(drop).map_err(backend);
    }
    let mut upload = objects.put_multipart(path).await.map_err(backend)?;
    match send(upload.as_mut(), parts, first, digest).await {
        Ok(()) => upload.complete().await.map(drop).map_err(backend),
        Err(error) => {
            // Parts without an end are invisible; a bucket's lifecycle rules remove what this does not.
            if let Err(error) = upload.abort().await {
                tracing::debug!(%error, %path, "parts of an upload are left");
            }
            Err(error)
        }
    }
}

async fn send(upload: &mut dyn MultipartUpload, mut parts: Parts, mut part: Bytes, digest: &Digest) -> Result<()> {
    let mut under_way = FuturesUnordered::new();
    while !part.is_empty() {
        under_way.push(upload.put_part(part.into()));
        if under_way.len() == AT_ONCE {
            under_way.try_next().await.map_err(backend)?;
        }
        (parts, part) = parts.next().await?;
    }
    while under_way.try_next().await.map_err(backend)?.is_some() {}
    parts.prove(digest)
}

/// A blob, read and hashed part by part.
struct Parts {
    blob: Arc<dyn Blob>,
    hasher: Hasher,
    offset: u64,
}

impl Parts {
    /// The next part; an empty one at the end.
    async fn next(mut self) -> Result<(Self, Bytes)> {
        let left = self.blob.size().map_or(PART as u64, |size| size - self.offset);
        let length = usize::try_from(left).map_or(PART, |left| left.min(PART));
        blocking(move || {
            let mut part = vec![0; length];
            let mut filled = 0;
            while filled < length {
                match self.blob.read_at_blocking(self.offset, &mut part[filled..])? {
                    0 => break,
                    count => {
                        filled += count;
                        self.offset += count as u64;
                    }
                }
            }
            part.truncate(filled);
            self.hasher.update(&part);
            Ok((self, part.into()))
        })
        .await
    }

    /// What was sent is what was proved.
    fn prove(&self, digest: &Digest) -> Result<()> {
        let actual = self.hasher.clone().finish();
        if actual == *digest {
            return Ok(());
        }
        Err(Error::Damaged {
            digest: digest.clone(),
            actual,
        })
    }
}

pub(super) fn backend(error: object_store::Error) -> Error {
    Error::Backend(Box::new(error))
}
