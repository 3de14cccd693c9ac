//! Open blobs, over any source of bytes: committed ones, and ingests that are followed.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use oci_spec::image::Digest;

use crate::blocking::blocking;
use crate::flight::Flight;
use crate::{Blob, Result};

/// Where the bytes of a blob are.
pub(crate) trait Source: Debug + Send + Sync + 'static {
    /// Reads at an offset; 0 at the end. May block.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// Reads what is in memory; `None` when only a blocking read can tell.
    fn read_now(&self, offset: u64, buf: &mut [u8]) -> Option<Result<usize>>;
}

/// A committed blob.
#[derive(Debug)]
pub(crate) struct Committed<S> {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) source: Arc<S>,
}

#[async_trait]
impl<S: Source> Blob for Committed<S> {
    fn digest(&self) -> &Digest {
        &self.digest
    }

    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    async fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let readable = self.size.saturating_sub(offset);
        read(&self.source, offset, within(buf, readable)).await
    }

    fn read_at_blocking(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let readable = self.size.saturating_sub(offset);
        self.source.read(offset, within(buf, readable))
    }
}

/// A blob in flight.
#[derive(Debug)]
pub(crate) struct Followed<S> {
    pub(crate) digest: Digest,
    pub(crate) flight: Arc<Flight<S>>,
}

#[async_trait]
impl<S: Source> Blob for Followed<S> {
    fn digest(&self) -> &Digest {
        &self.digest
    }

    fn size(&self) -> Option<u64> {
        self.flight.size()
    }

    async fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let readable = self.flight.wait(offset).await?;
        read(&self.flight.source, offset, within(buf, readable)).await
    }

    fn read_at_blocking(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let readable = self.flight.wait_blocking(offset)?;
        self.flight.source.read(offset, within(buf, readable))
    }
}

fn within(buf: &mut [u8], readable: u64) -> &mut [u8] {
    let length = usize::try_from(readable).map_or(buf.len(), |readable| readable.min(buf.len()));
    &mut buf[..length]
}

/// From memory if it is there, else by a blocking thread with a buffer of its own (ours is only borrowed).
async fn read<S: Source>(source: &Arc<S>, offset: u64, buf: &mut [u8]) -> Result<usize> {
    if buf.is_empty() {
        return Ok(0);
    }
    if let Some(answer) = source.read_now(offset, buf) {
        return answer;
    }
    let (source, length) = (source.clone(), buf.len());
    let bytes = blocking(move || {
        let mut bytes = vec![0; length];
        let count = source.read(offset, &mut bytes)?;
        bytes.truncate(count);
        Ok::<_, crate::Error>(bytes)
    })
    .await?;
    buf[..bytes.len()].copy_from_slice(&bytes);
    Ok(bytes.len())
}
