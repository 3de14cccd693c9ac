use std::fmt::Debug;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use oci_spec::image::Digest;

use crate::Result;

/// A blob that the store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When it was committed.
    pub created: SystemTime,
}

/// What is known of a blob before its bytes arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The digest that the bytes must have; without it the commit decides.
    pub digest: Option<Digest>,
    /// The exact number of bytes.
    pub size: Option<u64>,
}

/// Asks for an ingest: begun if there is none of that reference, resumed if a partial one was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestRequest {
    /// Name of the ingest, unique in the store; by custom `<kind>-<digest>`, e.g. `layer-sha256:…`.
    pub reference: String,
    /// What the bytes are expected to be. A reader can [`follow`](ContentStore::follow) only an ingest that expects a digest.
    pub expected: Expected,
}

/// Where an ingest stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestStatus {
    /// Name of the ingest.
    pub reference: String,
    /// Bytes received so far; writing goes on from here.
    pub offset: u64,
    /// What the bytes are expected to be.
    pub expected: Expected,
    /// When it was begun.
    pub started: SystemTime,
    /// When bytes last arrived.
    pub updated: SystemTime,
}

/// **Port**: where blobs live.
///
/// # Contract
/// - *Atomic*: a blob is visible to [`info`](Self::info), [`open`](Self::open) and [`walk`](Self::walk) whole and verified, or not at all.
/// - *Durable*: once [`Ingest::commit`] has returned, the blob survives `kill -9` and power loss. A crash before that
///   leaves no blob; a partial ingest may be left and is resumed by the next [`ingest`](Self::ingest) of its reference.
/// - *Concurrent*: every method may be called from any task at any time. One reference has one writer; a second gets
///   [`ErrorKind::InUse`](crate::ErrorKind::InUse). Two ingests of one digest under different references may both run; the second commit reports
///   [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists), which a puller takes for success.
/// - *Cancel-safe*: dropping a future of this trait leaves no half state. A commit whose future was dropped is either
///   whole or did not happen; the next [`ingest`](Self::ingest) of the reference waits until that is decided.
///
/// The suite in `conformance` (a feature of that name) tries every sentence of it on any implementation.
#[async_trait]
pub trait ContentStore: Debug + Send + Sync + 'static {
    /// What the store knows of a committed blob.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it is not committed, even if an ingest of it is in flight.
    async fn info(&self, digest: &Digest) -> Result<Info>;

    /// Opens a committed blob.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) as for [`info`](Self::info).
    async fn open(&self, digest: &Digest) -> Result<Arc<dyn Blob>>;

    /// Opens a blob that is committed **or in flight**. Reads of bytes that have not arrived wait for them.
    ///
    /// What a follower reads is unverified until it has read to the end: the read that would return end-of-file is answered
    /// only after the ingest was committed, and fails with [`Abandoned`](crate::ErrorKind::Abandoned) if it never will be.
    /// A writer that was dropped may resume; followers fail at the drop, they do not wait for a successor. They also fail
    /// when the writer [restarts](Ingest::restart), for what they have read is not going to be proved.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when neither a blob nor an ingest with a live writer expects that digest.
    async fn follow(&self, digest: &Digest) -> Result<Arc<dyn Blob>>;

    /// Begins an ingest, or resumes the partial one left under that reference (see [`Ingest::status`] for its offset).
    ///
    /// What was left is gone on with if the two requests do not contradict each other, and is expected to be what both
    /// say; otherwise it is thrown away and the ingest begins at 0. A writer that was just dropped is waited for, so that
    /// nothing it received is lost.
    ///
    /// # Errors
    /// [`InUse`](crate::ErrorKind::InUse) when another writer holds the reference;
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when the expected digest is in the store (what was left under
    /// the reference is thrown away); [`Unsupported`](crate::ErrorKind::Unsupported) for a digest that can't be computed.
    async fn ingest(&self, request: IngestRequest) -> Result<Box<dyn Ingest>>;

    /// Where one ingest stands, live or left over.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is none.
    async fn status(&self, reference: &str) -> Result<IngestStatus>;

    /// All ingests, live or left over.
    async fn ingests(&self) -> Result<Vec<IngestStatus>>;

    /// Throws away a left-over ingest.
    ///
    /// # Errors
    /// [`InUse`](crate::ErrorKind::InUse) while a writer holds it, [`NotFound`](crate::ErrorKind::NotFound) when there is none.
    async fn abort(&self, reference: &str) -> Result<()>;

    /// Every committed blob, in no order. Blobs committed or removed during the walk may be seen or not.
    fn walk(&self) -> BoxStream<'_, Result<Info>>;

    /// Removes a committed blob. Readers that have it open keep it. After a power loss it may be there again, whole.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it is not there.
    async fn remove(&self, digest: &Digest) -> Result<()>;
}

/// A blob open for reading. Any number of readers share one.
#[async_trait]
pub trait Blob: Debug + Send + Sync + 'static {
    /// The address it was opened by.
    fn digest(&self) -> &Digest;

    /// Its length in bytes; `None` while an ingest of unknown length is followed.
    fn size(&self) -> Option<u64>;

    /// Reads at an offset: at least one byte unless `buf` is empty or the blob ends at or before `offset`, when it is 0.
    ///
    /// # Errors
    /// [`Abandoned`](crate::ErrorKind::Abandoned) when the ingest being followed failed.
    async fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// The same for a thread that may block, such as the one that unpacks a layer.
    fn read_at_blocking(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        futures::executor::block_on(self.read_at(offset, buf))
    }
}

/// The only writer of one ingest. Dropping it without a commit leaves a partial ingest, to be resumed or aborted.
#[async_trait]
pub trait Ingest: Debug + Send + 'static {
    /// Where the ingest stands.
    fn status(&self) -> IngestStatus;

    /// Appends bytes; that it returned does not mean that they are on disk. When the future is dropped half-way,
    /// [`status`](Self::status) still tells the truth.
    ///
    /// # Errors
    /// [`Verification`](crate::ErrorKind::Verification) as soon as there are more bytes than expected: none of `data` is
    /// taken. [`StorageFull`](crate::ErrorKind::StorageFull) and other failures to store may be those of an earlier write;
    /// after one only a [`restart`](Self::restart) helps, or to drop the ingest and resume it.
    async fn write(&mut self, data: Bytes) -> Result<()>;

    /// Throws away what was received and starts from offset 0 (the server could not resume).
    async fn restart(&mut self) -> Result<()>;

    /// Proves size and digest and makes the blob durable and visible. `expected` adds to what the request said; the two must agree.
    ///
    /// # Errors
    /// [`Verification`](crate::ErrorKind::Verification) when the bytes are not the promised ones (the ingest is thrown away), or
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when someone else committed the same digest first (the ingest is
    /// thrown away, the blob is there). After any other error it is left over, to be resumed or aborted.
    async fn commit(self: Box<Self>, expected: Expected) -> Result<Info>;

    /// Like [`commit`](Self::commit), but takes the place of a blob that is there under the same digest: that one is damaged.
    ///
    /// The old bytes stay until the new ones are proved, and there is no moment without one of the two. Readers that have the old
    /// blob open keep it. Begin the ingest without a digest, for one that expects a blob that is there is refused.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit) but [`AlreadyExists`](crate::ErrorKind::AlreadyExists).
    async fn replace(self: Box<Self>, expected: Expected) -> Result<Info>;
}
