use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use oci_spec::image::Digest;

use super::blocks::Blocks;
use super::ingest::{MemoryIngest, Partial};
use crate::blob::{Committed, Followed};
use crate::flight::{Flight, Flights, lock};
use crate::hash::Hasher;
use crate::{Blob, ContentStore, Error, Info, Ingest, IngestRequest, IngestStatus, Result};

/// A store in memory: for tests, and for blobs that need not outlive the program. Durability aside, it keeps the whole
/// contract.
///
/// Cheap to clone; clones are one store.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Inner>);

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) state: Mutex<State>,
    pub(super) flights: Flights<Blocks>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) blobs: HashMap<Digest, Stored>,
    pub(super) ingests: HashMap<String, Slot>,
}

#[derive(Debug)]
pub(super) struct Stored {
    pub(super) size: u64,
    pub(super) created: SystemTime,
    pub(super) blocks: Arc<Blocks>,
}

/// Who has a reference.
#[derive(Debug)]
pub(super) enum Slot {
    /// A writer, whose status is here.
    Live(Arc<Mutex<IngestStatus>>),
    /// Nobody: this was left over.
    Left(Box<Partial>),
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = lock(&self.0.state);
        let (blobs, ingests) = (state.blobs.len(), state.ingests.len());
        f.debug_struct("MemoryStore")
            .field("blobs", &blobs)
            .field("ingests", &ingests)
            .finish()
    }
}

impl State {
    fn info(&self, digest: &Digest) -> Result<Info> {
        let stored = self.blobs.get(digest).ok_or_else(|| Error::NotFound(digest.clone()))?;
        Ok(Info {
            digest: digest.clone(),
            size: stored.size,
            created: stored.created,
        })
    }
}

impl Slot {
    fn status(&self) -> IngestStatus {
        match self {
            Self::Live(status) => lock(status).clone(),
            Self::Left(partial) => partial.status.clone(),
        }
    }
}

#[async_trait]
impl ContentStore for MemoryStore {
    async fn info(&self, digest: &Digest) -> Result<Info> {
        Hasher::new(digest.algorithm())?;
        lock(&self.0.state).info(digest)
    }

    async fn open(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        Hasher::new(digest.algorithm())?;
        let state = lock(&self.0.state);
        let stored = state.blobs.get(digest).ok_or_else(|| Error::NotFound(digest.clone()))?;
        Ok(Arc::new(Committed {
            digest: digest.clone(),
            size: stored.size,
            source: stored.blocks.clone(),
        }))
    }

    async fn follow(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        match self.open(digest).await {
            Err(Error::NotFound(_)) => {}
            opened => return opened,
        }
        match self.0.flights.find(digest) {
            Some(flight) => Ok(Arc::new(Followed {
                digest: digest.clone(),
                flight,
            })),
            // It may have been committed, and left the index, since we looked.
            None => self.open(digest).await,
        }
    }

    async fn ingest(&self, request: IngestRequest) -> Result<Box<dyn Ingest>> {
        let mut state = lock(&self.0.state);
        if let Some(Slot::Live(_)) = state.ingests.get(&request.reference) {
            return Err(Error::InUse(request.reference));
        }
        let mut partial = Partial::new(&request)?;
        if let Some(digest) = &request.expected.digest
            && state.blobs.contains_key(digest)
        {
            state.ingests.remove(&request.reference);
            return Err(Error::AlreadyExists(digest.clone()));
        }
        if let Some(Slot::Left(left)) = state.ingests.remove(&request.reference)
            && let Some(resumed) = left.resume(&request)
        {
            partial = resumed;
        }
        let reference = &request.reference;
        let status = Arc::new(Mutex::new(partial.status.clone()));
        state.ingests.insert(reference.clone(), Slot::Live(status.clone()));
        let Partial {
            status: IngestStatus { offset, expected, .. },
            blocks,
            ..
        } = &partial;
        let flight = Flight::new(reference, blocks.clone(), expected.size, *offset);
        if let Some(digest) = &expected.digest {
            self.0.flights.add(digest, &flight);
        }
        Ok(Box::new(MemoryIngest::new(self.0.clone(), partial, status, flight)))
    }

    async fn status(&self, reference: &str) -> Result<IngestStatus> {
        let state = lock(&self.0.state);
        state
            .ingests
            .get(reference)
            .map(Slot::status)
            .ok_or_else(|| Error::NoSuchIngest(reference.into()))
    }

    async fn ingests(&self) -> Result<Vec<IngestStatus>> {
        Ok(lock(&self.0.state).ingests.values().map(Slot::status).collect())
    }

    async fn abort(&self, reference: &str) -> Result<()> {
        let mut state = lock(&self.0.state);
        match state.ingests.get(reference) {
            None => Err(Error::NoSuchIngest(reference.into())),
            Some(Slot::Live(_)) => Err(Error::InUse(reference.into())),
            Some(Slot::Left(_)) => {
                state.ingests.remove(reference);
                Ok(())
            }
        }
    }

    fn walk(&self) -> BoxStream<'_, Result<Info>> {
        let state = lock(&self.0.state);
        let all: Vec<_> = state.blobs.keys().map(|digest| state.info(digest)).collect();
        stream::iter(all).boxed()
    }

    async fn remove(&self, digest: &Digest) -> Result<()> {
        Hasher::new(digest.algorithm())?;
        lock(&self.0.state)
            .blobs
            .remove(digest)
            .map(drop)
            .ok_or_else(|| Error::NotFound(digest.clone()))
    }
}
