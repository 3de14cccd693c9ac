//! Fetches again what is damaged or missing.

use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use oci_spec::image::Digest;

use crate::reader::BlobExt;
use crate::verify::{Problem, Subject};
use crate::{ContentStore, Error, Expected, Info, IngestRequest, Result};

/// Where good bytes come from: a registry, another store.
///
/// Nothing that it says is believed: the bytes are proved before they take the place of what is there. They are bounded by the size
/// that the subject has; where none is known, a source bounds them by itself.
#[async_trait]
pub trait BlobSource: Debug + Send + Sync {
    /// The bytes of a blob from `offset` on, or from an earlier offset if it can't do better.
    ///
    /// # Errors
    /// Whatever keeps it from that; a failure that is not one of this crate's is an [`Error::Backend`].
    async fn supply(&self, subject: &Subject, offset: u64) -> Result<Supply>;
}

/// Bytes on their way.
pub struct Supply {
    /// Where they begin in the blob: at most what was asked for.
    pub offset: u64,
    /// The bytes.
    pub bytes: BoxStream<'static, Result<Bytes>>,
}

impl Debug for Supply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supply")
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// Another store is a source.
#[async_trait]
impl BlobSource for Arc<dyn ContentStore> {
    async fn supply(&self, subject: &Subject, offset: u64) -> Result<Supply> {
        let bytes = self.open(&subject.digest).await?.stream_range(offset..u64::MAX);
        Ok(Supply { offset, bytes })
    }
}

/// What came of a repair.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Repair {
    /// Blobs that are whole again.
    pub repaired: Vec<Info>,
    /// Those that are not, and why; what was there is there still.
    pub failed: Vec<(Problem, Error)>,
}

/// Fetches what a [`Verifier`](crate::Verifier) found to be damaged or missing, one after the other.
///
/// A damaged blob stays until the good one is proved, and is replaced at once then. A repair that is cut off resumes where it was.
///
/// ```
/// use std::sync::Arc;
/// use longshore_content::{ContentStore, ContentStoreExt, Expected, MemoryStore, Verifier, repair, sha256};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (here, there) = (MemoryStore::new(), MemoryStore::new());
/// there.put("a", "hello".into(), Expected::default()).await?;
///
/// let found = Verifier::new(&here).these([sha256(b"hello").into()]).await;
/// let there: Arc<dyn ContentStore> = Arc::new(there);
/// let repair = repair(&here, found.problems, &there).await;
/// assert_eq!((repair.repaired.len(), repair.failed.len()), (1, 0));
/// assert_eq!(here.read(&sha256(b"hello"), 100).await?, "hello");
/// # Ok(())
/// # }
/// ```
pub async fn repair(
    store: &dyn ContentStore,
    problems: impl IntoIterator<Item = Problem> + Send,
    source: &dyn BlobSource,
) -> Repair {
    let problems: Vec<_> = problems.into_iter().collect();
    let mut done = Repair::default();
    for problem in problems {
        match repair_one(store, &problem.subject, source).await {
            Ok(info) => done.repaired.push(info),
            Err(error) => done.failed.push((problem, error)),
        }
    }
    done
}

async fn repair_one(store: &dyn ContentStore, subject: &Subject, source: &dyn BlobSource) -> Result<Info> {
    // Without the digest, for a blob that is there can't be begun with it.
    let request = IngestRequest {
        reference: reference(&subject.digest),
        expected: Expected {
            digest: None,
            size: subject.size,
        },
    };
    let mut ingest = store.ingest(request).await?;
    let offset = ingest.status().offset;
    let supply = source.supply(subject, offset).await?;
    // What a source sends that can't begin in the middle.
    let mut ahead = offset.saturating_sub(supply.offset);
    let mut bytes = supply.bytes;
    while let Some(piece) = bytes.next().await {
        let mut piece = piece?;
        let known = usize::try_from(ahead).map_or(piece.len(), |ahead| ahead.min(piece.len()));
        ahead -= known as u64;
        piece = piece.slice(known..);
        ingest.write(piece).await?;
    }
    let digest = Some(subject.digest.clone());
    ingest.replace(Expected { digest, size: None }).await
}

/// What the ingest of a repair is called.
fn reference(digest: &Digest) -> String {
    format!("repair-{digest}")
}
