//! What every content store can do besides, in terms of the port.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use oci_spec::image::Digest;

use crate::hash::Hasher;
use crate::reader::BlobExt;
use crate::verify;
use crate::{ContentStore, Error, Expected, Info, IngestRequest, IngestStatus, Result};

/// Conveniences on every [`ContentStore`].
#[async_trait]
pub trait ContentStoreExt: ContentStore {
    /// A whole blob in memory, proved again: a manifest, a config.
    ///
    /// # Errors
    /// [`TooLarge`](crate::ErrorKind::TooLarge) when it has more than `limit` bytes,
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when its bytes no longer have its digest, and those of
    /// [`open`](ContentStore::open).
    async fn read(&self, digest: &Digest, limit: u64) -> Result<Bytes> {
        let blob = self.open(digest).await?;
        let size = blob.size().unwrap_or(u64::MAX);
        let too_large = || Error::TooLarge {
            digest: digest.clone(),
            size,
            limit,
        };
        let length = usize::try_from(size)
            .ok()
            .filter(|_| size <= limit)
            .ok_or_else(too_large)?;
        let mut bytes = BytesMut::zeroed(length);
        let mut filled = 0;
        while filled < length {
            match blob.read_at(filled as u64, &mut bytes[filled..]).await? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        let mut hasher = Hasher::new(digest.algorithm())?;
        hasher.update(&bytes);
        undamaged(digest, hasher.finish())?;
        Ok(bytes.freeze())
    }

    /// Stores bytes that are in memory. That they are there already is success.
    ///
    /// # Errors
    /// [`Verification`](crate::ErrorKind::Verification) when they are not what is expected,
    /// [`InUse`](crate::ErrorKind::InUse) when someone else writes under this reference.
    async fn put(&self, reference: &str, bytes: Bytes, expected: Expected) -> Result<Info> {
        let request = IngestRequest {
            reference: reference.into(),
            expected: expected.clone(),
        };
        let stored = async {
            let mut ingest = self.ingest(request).await?;
            if ingest.status().offset > 0 {
                ingest.restart().await?;
            }
            ingest.write(bytes).await?;
            ingest.commit(expected).await
        };
        or_there(self, stored.await).await
    }

    /// Copies a blob from another store, going on where an earlier copy was cut off.
    ///
    /// # Errors
    /// Those of both stores; [`InUse`](crate::ErrorKind::InUse) when someone else copies it.
    async fn copy_from(&self, source: &dyn ContentStore, digest: &Digest) -> Result<Info> {
        let blob = source.open(digest).await?;
        let expected = Expected {
            digest: Some(digest.clone()),
            size: blob.size(),
        };
        let request = IngestRequest {
            reference: format!("copy-{digest}"),
            expected,
        };
        let stored = async {
            let mut ingest = self.ingest(request).await?;
            let mut pieces = blob.stream_range(ingest.status().offset..u64::MAX);
            while let Some(piece) = pieces.next().await {
                ingest.write(piece?).await?;
            }
            ingest.commit(Expected::default()).await
        };
        or_there(self, stored.await).await
    }

    /// Reads a committed blob to its end and proves it again. A [`Verifier`](crate::Verifier) does it for many.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when it is damaged, and those of [`open`](ContentStore::open).
    async fn verify(&self, digest: &Digest) -> Result<()> {
        let blob = self.open(digest).await?;
        let actual = verify::hash(blob, digest.algorithm()).await?;
        undamaged(digest, actual)
    }

    /// Whether a blob is committed.
    ///
    /// # Errors
    /// Those of [`info`](ContentStore::info) but [`NotFound`](crate::ErrorKind::NotFound).
    async fn contains(&self, digest: &Digest) -> Result<bool> {
        match self.info(digest).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The ingests that a caller wants, in the order of their references.
    ///
    /// # Errors
    /// Those of [`ingests`](ContentStore::ingests).
    async fn ingests_where<F>(&self, wanted: F) -> Result<Vec<IngestStatus>>
    where
        F: Fn(&IngestStatus) -> bool + Send,
    {
        let mut ingests = self.ingests().await?;
        ingests.retain(wanted);
        ingests.sort_by(|one, other| one.reference.cmp(&other.reference));
        Ok(ingests)
    }

    /// Aborts the ingests that nobody writes and that got no bytes for `age`, and says which these were.
    ///
    /// # Errors
    /// Those of [`ingests`](ContentStore::ingests) and [`abort`](ContentStore::abort). An ingest that someone took up
    /// or removed meanwhile is none.
    async fn expire_ingests(&self, age: Duration) -> Result<Vec<IngestStatus>> {
        let now = SystemTime::now();
        let mut expired = Vec::new();
        for ingest in self.ingests().await? {
            if now.duration_since(ingest.updated).is_ok_and(|idle| idle >= age) {
                match self.abort(&ingest.reference).await {
                    Ok(()) => expired.push(ingest),
                    Err(Error::InUse(_) | Error::NoSuchIngest(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(expired)
    }
}

impl<S: ContentStore + ?Sized> ContentStoreExt for S {}

async fn or_there<S: ContentStore + ?Sized>(store: &S, stored: Result<Info>) -> Result<Info> {
    match stored {
        Err(Error::AlreadyExists(digest)) => store.info(&digest).await,
        stored => stored,
    }
}

fn undamaged(digest: &Digest, actual: Digest) -> Result<()> {
    if actual == *digest {
        Ok(())
    } else {
        Err(Error::Damaged {
            digest: digest.clone(),
            actual,
        })
    }
}
