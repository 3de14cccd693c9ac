use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use oci_spec::image::Digest;

use super::blocks::Blocks;
use super::store::{Inner, Slot, Stored};
use crate::blob::Source;
use crate::expect::{check_digests, check_room, check_sizes, merge};
use crate::flight::{Flight, Outcome, lock};
use crate::hash::Hasher;
use crate::{Error, Expected, Info, Ingest, IngestRequest, IngestStatus, Result};

/// The bytes of an ingest, and what is known of them.
#[derive(Clone, Debug)]
pub(super) struct Partial {
    pub(super) status: IngestStatus,
    pub(super) blocks: Arc<Blocks>,
    hasher: Hasher,
}

impl Partial {
    pub(super) fn new(request: &IngestRequest) -> Result<Self> {
        let now = SystemTime::now();
        let IngestRequest { reference, expected } = request.clone();
        Ok(Self {
            hasher: Hasher::expecting(expected.digest.as_ref())?,
            status: IngestStatus {
                reference,
                offset: 0,
                expected,
                started: now,
                updated: now,
            },
            blocks: Arc::default(),
        })
    }

    /// Itself, if it is a part of what is asked for now.
    pub(super) fn resume(mut self, request: &IngestRequest) -> Option<Self> {
        self.status.expected = merge(&self.status, &self.hasher, &request.expected)?;
        Some(self)
    }
}

/// The writer of an ingest in memory.
#[derive(Debug)]
pub(super) struct MemoryIngest {
    store: Arc<Inner>,
    partial: Partial,
    /// What others see of the status.
    status: Arc<Mutex<IngestStatus>>,
    flight: Arc<Flight<Blocks>>,
    committed: bool,
}

impl MemoryIngest {
    pub(super) fn new(
        store: Arc<Inner>,
        partial: Partial,
        status: Arc<Mutex<IngestStatus>>,
        flight: Arc<Flight<Blocks>>,
    ) -> Self {
        Self {
            store,
            partial,
            status,
            flight,
            committed: false,
        }
    }

    fn land(&self, outcome: Outcome) {
        self.flight.finish(outcome);
        if let Some(digest) = &self.partial.status.expected.digest {
            self.store.flights.remove(digest, &self.flight);
        }
    }

    fn publish(&self) {
        lock(&self.status).clone_from(&self.partial.status);
    }

    fn prove(&self, expected: &Expected) -> Result<Digest> {
        let status = &self.partial.status;
        check_sizes(status, expected)?;
        check_digests(status, expected, &self.partial.hasher, |hasher| {
            let mut buffer = vec![0; 64 << 10];
            let mut offset = 0;
            while offset < status.offset {
                let count = self.partial.blocks.read(offset, &mut buffer)?;
                hasher.update(&buffer[..count]);
                offset += count as u64;
            }
            Ok(())
        })
    }

    fn store(&self, digest: Digest, existing: Existing) -> Result<Info> {
        let mut state = lock(&self.store.state);
        if existing == Existing::Keep && state.blobs.contains_key(&digest) {
            return Err(Error::AlreadyExists(digest));
        }
        let (size, created) = (self.partial.status.offset, SystemTime::now());
        state.blobs.insert(
            digest.clone(),
            Stored {
                size,
                created,
                blocks: self.partial.blocks.clone(),
            },
        );
        Ok(Info { digest, size, created })
    }

    fn end(&mut self, expected: &Expected, existing: Existing) -> Result<Info> {
        let committed = self.prove(expected).and_then(|digest| self.store(digest, existing));
        self.committed = true;
        self.land(match &committed {
            Ok(_) | Err(Error::AlreadyExists(_)) => Outcome::Committed,
            Err(_) => Outcome::Abandoned,
        });
        lock(&self.store.state).ingests.remove(&self.partial.status.reference);
        committed
    }
}

/// What a commit does with a blob that is there under the same digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existing {
    Keep,
    Replace,
}

#[async_trait]
impl Ingest for MemoryIngest {
    fn status(&self) -> IngestStatus {
        self.partial.status.clone()
    }

    async fn write(&mut self, data: Bytes) -> Result<()> {
        let status = &self.partial.status;
        check_room(&status.reference, &status.expected, status.offset, data.len())?;
        self.partial.hasher.update(&data);
        self.partial.blocks.append(&data);
        self.partial.status.offset += data.len() as u64;
        self.partial.status.updated = SystemTime::now();
        self.publish();
        self.flight.advance(self.partial.status.offset);
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.land(Outcome::Abandoned);
        let expected = self.partial.status.expected.clone();
        self.partial.hasher = Hasher::expecting(expected.digest.as_ref())?;
        self.partial.blocks = Arc::default();
        self.partial.status.offset = 0;
        self.publish();
        self.flight = Flight::new(
            &self.partial.status.reference,
            self.partial.blocks.clone(),
            expected.size,
            0,
        );
        if let Some(digest) = &expected.digest {
            self.store.flights.add(digest, &self.flight);
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>, expected: Expected) -> Result<Info> {
        self.end(&expected, Existing::Keep)
    }

    async fn replace(mut self: Box<Self>, expected: Expected) -> Result<Info> {
        self.end(&expected, Existing::Replace)
    }
}

impl Drop for MemoryIngest {
    fn drop(&mut self) {
        if !self.committed {
            self.land(Outcome::Abandoned);
            let reference = self.partial.status.reference.clone();
            lock(&self.store.state)
                .ingests
                .insert(reference, Slot::Left(Box::new(self.partial.clone())));
        }
    }
}
