//! A private store over shared ones that it only reads.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use oci_spec::image::Digest;

use crate::{Blob, ContentStore, ContentStoreExt, Error, ErrorKind, Info, Ingest, IngestRequest, IngestStatus, Result};

/// A private store over shared ones that it only reads: a machine's golden images under what a user pulls, one cache for many build jobs.
///
/// What a shared store has is not ingested again. Everything new goes to the private store, and so do repairs: a good copy in the private store hides a
/// damaged one in a shared store.
///
/// A blob that only a shared store has can't be removed ([`ReadOnly`](ErrorKind::ReadOnly)). One that both have is removed from the private store,
/// and is there still. An ingest that does not say which digest it expects may store again what a shared store has.
///
/// ```
/// use std::sync::Arc;
/// use longshore_content::{ContentStore, ContentStoreExt, ErrorKind, Expected, LayeredStore, MemoryStore, sha256};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (private, shared) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
/// shared.put("a", "golden".into(), Expected::default()).await?;
///
/// let store = LayeredStore::new(private.clone(), [shared as Arc<dyn ContentStore>]);
/// assert_eq!(store.read(&sha256(b"golden"), 100).await?, "golden");
/// assert_eq!(store.remove(&sha256(b"golden")).await.unwrap_err().kind(), ErrorKind::ReadOnly);
///
/// store.put("b", "mine".into(), Expected::default()).await?;
/// assert!(private.contains(&sha256(b"mine")).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LayeredStore {
    private: Arc<dyn ContentStore>,
    shared: Vec<Arc<dyn ContentStore>>,
}

impl LayeredStore {
    /// Puts a private store over shared ones, which are asked in this order.
    pub fn new(private: Arc<dyn ContentStore>, shared: impl IntoIterator<Item = Arc<dyn ContentStore>>) -> Self {
        Self {
            private,
            shared: shared.into_iter().collect(),
        }
    }

    /// The store that is written to.
    pub fn private(&self) -> &Arc<dyn ContentStore> {
        &self.private
    }

    /// The stores that are only read.
    pub fn shared(&self) -> &[Arc<dyn ContentStore>] {
        &self.shared
    }

    /// Whether one of the shared stores has a blob.
    async fn is_shared(&self, digest: &Digest) -> Result<bool> {
        for store in &self.shared {
            if store.contains(digest).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a store above the shared one of that number has a blob.
    async fn is_above(&self, number: usize, digest: &Digest) -> Result<bool> {
        for store in std::iter::once(&self.private).chain(&self.shared[..number]) {
            if store.contains(digest).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContentStore for LayeredStore {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        let mut found = self.private.info(digest).await;
        for store in &self.shared {
            match found {
                Err(Error::NotFound(_)) => found = store.info(digest).await,
                _ => break,
            }
        }
        found
    }

    async fn open(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        let mut found = self.private.open(digest).await;
        for store in &self.shared {
            match found {
                Err(Error::NotFound(_)) => found = store.open(digest).await,
                _ => break,
            }
        }
        found
    }

    async fn follow(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        // What is there whole is better than what may come to nothing.
        match self.open(digest).await {
            Err(Error::NotFound(_)) => self.private.follow(digest).await,
            opened => opened,
        }
    }

    async fn ingest(&self, request: IngestRequest) -> Result<Box<dyn Ingest>> {
        if let Some(digest) = &request.expected.digest
            && self.is_shared(digest).await?
        {
            // What was left under the reference is of no more use. The private store throws it away when it has the blob itself.
            match self.private.abort(&request.reference).await {
                Err(error) if error.kind() == ErrorKind::InUse => return Err(error),
                _ => return Err(Error::AlreadyExists(digest.clone())),
            }
        }
        self.private.ingest(request).await
    }

    async fn status(&self, reference: &str) -> Result<IngestStatus> {
        self.private.status(reference).await
    }

    async fn ingests(&self) -> Result<Vec<IngestStatus>> {
        self.private.ingests().await
    }

    async fn abort(&self, reference: &str) -> Result<()> {
        self.private.abort(reference).await
    }

    fn walk(&self) -> BoxStream<'_, Result<Info>> {
        let shared = stream::iter(self.shared.iter().enumerate()).flat_map(move |(number, store)| {
            store.walk().filter_map(move |info| async move {
                // Each blob once: those above were told by the stores above.
                match info {
                    Ok(info) => match self.is_above(number, &info.digest).await {
                        Ok(true) => None,
                        Ok(false) => Some(Ok(info)),
                        Err(error) => Some(Err(error)),
                    },
                    failed => Some(failed),
                }
            })
        });
        self.private.walk().chain(shared).boxed()
    }

    async fn remove(&self, digest: &Digest) -> Result<()> {
        match self.private.remove(digest).await {
            Err(Error::NotFound(_)) if self.is_shared(digest).await? => Err(Error::ReadOnly(digest.clone())),
            removed => removed,
        }
    }
}
