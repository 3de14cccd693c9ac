//! The writer's handle: takes bytes from async code and hands them to the ingest's thread.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::batch::{StageReply, Staged};
use super::data::DataFile;
use super::record::{from_nanos, to_nanos};
use super::slots::Slot;
use crate::expect::check_room;
use crate::flight::{Flight, Outcome, lock};
use crate::{Error, Expected, Info, Ingest, IngestStatus, Result};

/// Bytes that may wait for the thread.
pub(crate) const BUDGET: usize = 2 << 20;

/// The largest piece that is handed over at once.
const PIECE: usize = 512 << 10;

/// What the handle and the thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) reference: String,
    pub(crate) path: PathBuf,
    pub(crate) expected: Expected,
    pub(crate) started: SystemTime,
    pub(crate) budget: Semaphore,
    pub(crate) flight: Mutex<Arc<Flight<DataFile>>>,
    accepted: AtomicU64,
    updated: AtomicU64,
    failure: Mutex<Option<Failure>>,
}

/// Why the thread can't go on; kept in parts, because an error can't be handed out twice.
#[derive(Clone, Debug)]
struct Failure {
    action: &'static str,
    path: PathBuf,
    kind: io::ErrorKind,
    errno: Option<i32>,
}

impl Shared {
    pub(crate) fn new(path: PathBuf, status: IngestStatus, flight: Arc<Flight<DataFile>>) -> Self {
        Self {
            reference: status.reference,
            path,
            expected: status.expected,
            started: status.started,
            budget: Semaphore::new(BUDGET),
            flight: Mutex::new(flight),
            accepted: AtomicU64::new(status.offset),
            updated: AtomicU64::new(to_nanos(status.updated)),
            failure: Mutex::new(None),
        }
    }

    pub(crate) fn status(&self) -> IngestStatus {
        IngestStatus {
            reference: self.reference.clone(),
            offset: self.offset(),
            expected: self.expected.clone(),
            started: self.started,
            updated: from_nanos(self.updated.load(Ordering::Relaxed)),
        }
    }

    fn offset(&self) -> u64 {
        match *lock(&self.failure) {
            // What was accepted after it is not stored.
            Some(_) => lock(&self.flight).available(),
            None => self.accepted.load(Ordering::Acquire),
        }
    }

    /// Keeps why the bytes can't be stored: from now on every write fails, and so do the followers.
    pub(crate) fn fail(&self, error: &Error) {
        let failure = match error {
            Error::Io { action, path, source } => Failure {
                action,
                path: path.clone(),
                kind: source.kind(),
                errno: source.raw_os_error(),
            },
            _ => Failure {
                action: "writing",
                path: self.path.clone(),
                kind: io::ErrorKind::Other,
                errno: None,
            },
        };
        lock(&self.failure).get_or_insert(failure);
        lock(&self.flight).finish(Outcome::Abandoned);
    }

    pub(crate) fn recover(&self) {
        *lock(&self.failure) = None;
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        lock(&self.failure).clone().map(|failure| Error::Io {
            action: failure.action,
            path: failure.path,
            source: failure
                .errno
                .map_or_else(|| failure.kind.into(), io::Error::from_raw_os_error),
        })
    }

    fn accept(&self, count: u64) {
        self.accepted.fetch_add(count, Ordering::AcqRel);
        self.updated.store(to_nanos(SystemTime::now()), Ordering::Relaxed);
    }

    /// The thread ended before its handle: it panicked, which is a fault of this crate.
    fn lost(&self) -> Error {
        self.failure().unwrap_or_else(|| Error::Io {
            action: "writing",
            path: self.path.clone(),
            source: io::Error::other("the thread that writes it has ended"),
        })
    }
}

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Command {
    Append(Bytes),
    Restart(oneshot::Sender<Result<()>>),
    Commit(Expected, Existing, oneshot::Sender<Result<Info>>),
    Stage(Expected, StageReply),
}

/// What a commit does with a blob that is there under the same digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It stays, and the commit is told.
    Keep,
    /// It is damaged, and gives way.
    Replace,
}

/// The handle.
#[derive(Debug)]
pub(crate) struct LocalIngest {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) slot: Arc<Slot>,
    /// A commit was asked for: whatever becomes of the handle, the thread brings it to its end.
    committing: bool,
    /// The reference is not to be free soon: a batch holds it.
    staged: bool,
}

impl LocalIngest {
    pub(crate) fn new(shared: Arc<Shared>, commands: mpsc::UnboundedSender<Command>, slot: Arc<Slot>) -> Self {
        Self {
            shared,
            commands,
            slot,
            committing: false,
            staged: false,
        }
    }

    async fn hand_over(&self, piece: Bytes) -> Result<()> {
        let length = u32::try_from(piece.len()).expect("a piece is at most 512 KiB");
        let permit = self
            .shared
            .budget
            .acquire_many(length)
            .await
            .map_err(|_| self.shared.lost())?;
        if let Some(failure) = self.shared.failure() {
            return Err(failure);
        }
        // The thread gives the permits back when it has written the piece.
        permit.forget();
        self.commands
            .send(Command::Append(piece))
            .map_err(|_| self.shared.lost())?;
        self.shared.accept(u64::from(length));
        Ok(())
    }

    async fn end(&mut self, expected: Expected, existing: Existing) -> Result<Info> {
        let (reply, answer) = oneshot::channel();
        self.committing = true;
        self.commands
            .send(Command::Commit(expected, existing, reply))
            .map_err(|_| self.shared.lost())?;
        answer.await.map_err(|_| self.shared.lost())?
    }

    /// Proves the bytes, for a batch to make a blob of them.
    pub(crate) async fn stage(&mut self, expected: Expected) -> Result<Staged> {
        let (reply, answer) = oneshot::channel();
        self.committing = true;
        self.commands
            .send(Command::Stage(expected, reply))
            .map_err(|_| self.shared.lost())?;
        let staged = answer.await.map_err(|_| self.shared.lost())??;
        self.staged = true;
        Ok(staged)
    }
}

#[async_trait]
impl Ingest for LocalIngest {
    fn status(&self) -> IngestStatus {
        self.shared.status()
    }

    async fn write(&mut self, mut data: Bytes) -> Result<()> {
        let shared = &self.shared;
        check_room(&shared.reference, &shared.expected, shared.offset(), data.len())?;
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            self.hand_over(piece).await?;
        }
        self.shared.failure().map_or(Ok(()), Err)
    }

    async fn restart(&mut self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::Restart(reply))
            .map_err(|_| self.shared.lost())?;
        // From here on the thread starts over, whether or not anybody waits for it.
        self.shared.accepted.store(0, Ordering::Release);
        answer.await.map_err(|_| self.shared.lost())?
    }

    async fn commit(mut self: Box<Self>, expected: Expected) -> Result<Info> {
        self.end(expected, Existing::Keep).await
    }

    async fn replace(mut self: Box<Self>, expected: Expected) -> Result<Info> {
        self.end(expected, Existing::Replace).await
    }
}

impl Drop for LocalIngest {
    fn drop(&mut self) {
        if !self.staged {
            self.slot.close();
        }
        if !self.committing {
            lock(&self.shared.flight).finish(Outcome::Abandoned);
        }
    }
}
