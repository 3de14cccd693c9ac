//! What the writer of an ingest and the readers that follow it share.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use oci_spec::image::Digest;
use tokio::sync::Notify;

use crate::{Error, Result};

/// Locks whatever a panicking thread left behind: each critical section of this crate leaves its data whole.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One run of one ingest, from offset 0 or a resumed offset to its end. A restart is a new flight, because what a
/// follower read of the old one is never going to be proved.
#[derive(Debug)]
pub(crate) struct Flight<S> {
    /// What the ingest is called, for errors.
    pub(crate) reference: String,
    /// Where the bytes are.
    pub(crate) source: Arc<S>,
    /// The size the blob will have, if it was promised.
    pub(crate) expected_size: Option<u64>,
    progress: Mutex<Progress>,
    blocked: Condvar,
    waiting: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    available: u64,
    outcome: Option<Outcome>,
}

/// How a flight ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Proved, durable and visible.
    Committed,
    /// Dropped, restarted, or found to be something else than promised.
    Abandoned,
}

impl<S> Flight<S> {
    pub(crate) fn new(reference: &str, source: Arc<S>, expected_size: Option<u64>, available: u64) -> Arc<Self> {
        Arc::new(Self {
            reference: reference.into(),
            source,
            expected_size,
            progress: Mutex::new(Progress {
                available,
                outcome: None,
            }),
            blocked: Condvar::new(),
            waiting: Notify::new(),
        })
    }

    /// Tells followers that bytes up to `available` can be read from the source.
    pub(crate) fn advance(&self, available: u64) {
        lock(&self.progress).available = available;
        self.wake();
    }

    /// Tells followers how it ended. The first outcome stays.
    pub(crate) fn finish(&self, outcome: Outcome) {
        lock(&self.progress).outcome.get_or_insert(outcome);
        self.wake();
    }

    /// Bytes that can be read now.
    pub(crate) fn available(&self) -> u64 {
        lock(&self.progress).available
    }

    /// Nobody should begin to follow it.
    pub(crate) fn is_abandoned(&self) -> bool {
        lock(&self.progress).outcome == Some(Outcome::Abandoned)
    }

    /// The size, once it is certain or promised.
    pub(crate) fn size(&self) -> Option<u64> {
        let progress = *lock(&self.progress);
        match progress.outcome {
            Some(Outcome::Committed) => Some(progress.available),
            _ => self.expected_size,
        }
    }

    /// Waits until a read at `offset` can be answered, and says how many bytes it may read: 0 at the proved end.
    pub(crate) fn wait_blocking(&self, offset: u64) -> Result<u64> {
        let mut progress = lock(&self.progress);
        loop {
            if let Some(answer) = self.answer(*progress, offset) {
                return answer;
            }
            progress = self.blocked.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The same without blocking the thread.
    pub(crate) async fn wait(&self, offset: u64) -> Result<u64> {
        loop {
            let mut changed = std::pin::pin!(self.waiting.notified());
            // Registered before the look, so that a change between the look and the wait is not missed.
            changed.as_mut().enable();
            let progress = *lock(&self.progress);
            if let Some(answer) = self.answer(progress, offset) {
                return answer;
            }
            changed.await;
        }
    }

    fn answer(&self, progress: Progress, offset: u64) -> Option<Result<u64>> {
        match progress.outcome {
            Some(Outcome::Abandoned) => Some(Err(Error::Abandoned(self.reference.clone()))),
            _ if offset < progress.available => Some(Ok(progress.available - offset)),
            Some(Outcome::Committed) => Some(Ok(0)),
            None => None,
        }
    }

    fn wake(&self) {
        self.blocked.notify_all();
        self.waiting.notify_waiters();
    }
}

/// The flights that expect a digest, for [`follow`](crate::ContentStore::follow) to find.
#[derive(Debug)]
pub(crate) struct Flights<S>(Mutex<HashMap<Digest, Vec<Arc<Flight<S>>>>>);

impl<S> Default for Flights<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S> Flights<S> {
    pub(crate) fn add(&self, digest: &Digest, flight: &Arc<Flight<S>>) {
        lock(&self.0).entry(digest.clone()).or_default().push(flight.clone());
    }

    pub(crate) fn remove(&self, digest: &Digest, flight: &Arc<Flight<S>>) {
        let mut flights = lock(&self.0);
        if let Some(of_digest) = flights.get_mut(digest) {
            of_digest.retain(|other| !Arc::ptr_eq(other, flight));
            if of_digest.is_empty() {
                flights.remove(digest);
            }
        }
    }

    /// Of several, the one that is furthest.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<Flight<S>>> {
        lock(&self.0)
            .get(digest)?
            .iter()
            .filter(|flight| !flight.is_abandoned())
            .max_by_key(|flight| flight.available())
            .cloned()
    }
}
