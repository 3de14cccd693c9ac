//! What is told of a push.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use longshore_content::Blob;
use oci_spec::image::{Descriptor, Digest};

/// **Port**: is told of a push's progress.
///
/// # Contract
/// Called from the push's futures, for several blobs at the same time; must neither block nor panic, and changes nothing.
pub trait PushProgress: Debug + Send + Sync + 'static {
    /// Something happened.
    fn event(&self, event: PushEvent<'_>);
}

/// What happens in a push. For each blob and manifest: `Started`, any number of `Bytes`, then one of `Present`, `Mounted` and `Sent`, unless the push fails.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum PushEvent<'a> {
    /// What is going to be pushed is known.
    Planned {
        /// All blobs and manifests, each once.
        blobs: &'a [Descriptor],
    },
    /// It is the blob's turn.
    Started {
        /// The blob.
        blob: &'a Descriptor,
    },
    /// Bytes were handed to the connection. After a cut the offset may be a smaller one than before.
    Bytes {
        /// The blob.
        blob: &'a Descriptor,
        /// How many bytes of it.
        offset: u64,
    },
    /// The other side has it already.
    Present {
        /// The blob.
        blob: &'a Descriptor,
    },
    /// The other side took it over from another repository.
    Mounted {
        /// The blob.
        blob: &'a Descriptor,
    },
    /// The other side has acknowledged it.
    Sent {
        /// The blob.
        blob: &'a Descriptor,
    },
}

/// A blob that tells how far it was read.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) inner: Arc<dyn Blob>,
    pub(super) descriptor: Descriptor,
    pub(super) progress: Arc<dyn PushProgress>,
}

impl Told {
    fn tell(&self, offset: u64, count: usize) {
        self.progress.event(PushEvent::Bytes {
            blob: &self.descriptor,
            offset: offset + count as u64,
        });
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Blob for Told {
    fn digest(&self) -> &Digest {
        self.inner.digest()
    }

    fn size(&self) -> Option<u64> {
        self.inner.size()
    }

    async fn read_at(&self, offset: u64, buf: &mut [u8]) -> longshore_content::Result<usize> {
        let count = self.inner.read_at(offset, buf).await?;
        self.tell(offset, count);
        Ok(count)
    }

    fn read_at_blocking(&self, offset: u64, buf: &mut [u8]) -> longshore_content::Result<usize> {
        let count = self.inner.read_at_blocking(offset, buf)?;
        self.tell(offset, count);
        Ok(count)
    }
}
