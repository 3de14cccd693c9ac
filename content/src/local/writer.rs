//! The thread of one ingest: writes, hashes, commits, and puts things in order when its handle is gone.
//!
//! A thread, not tasks: what it was told to do it brings to an end, whatever future is dropped meanwhile, and the
//! executor's threads never wait for a disk.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::begin;
use super::claim::Claim;
use super::data::DataFile;
use super::durable::Syncing;
use super::hashing::Hashing;
use super::ingest::{Command, Shared};
use super::record::Checkpoint;
use super::slots::Reservation;
use super::store::Inner;
use crate::flight::{Flight, Outcome, lock};
use crate::hash::Hasher;
use crate::{Error, Result};

/// Bytes that are written by one system call, at most.
const BATCH: usize = 512 << 10;

/// Bytes between two checkpoints: what a killed process fetches again at most.
const CHECKPOINT: u64 = 16 << 20;

/// The state of the thread.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) data: Arc<DataFile>,
    pub(crate) hashing: Hashing,
    pub(crate) syncing: Syncing,
    pub(crate) written: u64,
    pub(crate) checkpointed: u64,
    pub(crate) air: Airborne,
    /// Gone when a commit or a failed verification removed the directory.
    pub(crate) claim: Option<Claim>,
    /// The last to be dropped: whoever waits for it finds the rest in order.
    pub(crate) _reservation: Reservation,
}

/// The flight's entry in the index; followers and the handle hear of the end when this is dropped, even by a panic.
#[derive(Debug)]
pub(crate) struct Airborne {
    pub(crate) store: Arc<Inner>,
    pub(crate) shared: Arc<Shared>,
}

impl Airborne {
    pub(crate) fn flight(&self) -> Arc<Flight<DataFile>> {
        lock(&self.shared.flight).clone()
    }

    /// Lets followers find it.
    pub(crate) fn announce(&self) {
        if let Some(digest) = &self.shared.expected.digest {
            self.store.flights.add(digest, &self.flight());
        }
    }

    /// Ends it for those that follow, and hides it from those to come.
    pub(crate) fn land(&self, outcome: Outcome) {
        let flight = self.flight();
        flight.finish(outcome);
        if let Some(digest) = &self.shared.expected.digest {
            self.store.flights.remove(digest, &flight);
        }
    }
}

impl Drop for Airborne {
    fn drop(&mut self) {
        self.land(Outcome::Abandoned);
        self.shared.budget.close();
    }
}

impl Writer {
    /// Starts the thread. It ends with the handle.
    pub(crate) fn start(self) -> Result<()> {
        let path = self.air.shared.path.clone();
        let thread = std::thread::Builder::new()
            .name("longshore-ingest".into())
            .stack_size(256 << 10);
        thread.spawn(move || self.run()).map_err(|source| Error::Io {
            action: "starting a thread for",
            path,
            source,
        })?;
        Ok(())
    }

    fn run(mut self) {
        let mut put_back = None;
        loop {
            match put_back.take().or_else(|| self.commands.blocking_recv()) {
                Some(Command::Append(piece)) => {
                    let (batch, other) = self.gather(piece);
                    put_back = other;
                    self.append(&batch);
                }
                Some(Command::Restart(reply)) => {
                    let restarted = self.restart();
                    let _ = reply.send(restarted);
                }
                Some(Command::Commit(expected, existing, reply)) => {
                    let done = self.commit(&expected, existing);
                    // The reference is free by the time that the caller hears of it.
                    drop(self);
                    let _ = reply.send(done);
                    return;
                }
                Some(Command::Stage(expected, reply)) => {
                    let staged = self.stage(&expected);
                    let _ = reply.send(staged);
                    return;
                }
                None => return self.park(),
            }
        }
    }

    /// What has come in meanwhile, so that many small pieces become one write.
    fn gather(&mut self, first: Bytes) -> (Vec<Bytes>, Option<Command>) {
        let mut length = first.len();
        let mut batch = vec![first];
        while length < BATCH {
            match self.commands.try_recv() {
                Ok(Command::Append(piece)) => {
                    length += piece.len();
                    batch.push(piece);
                }
                Ok(other) => return (batch, Some(other)),
                Err(_) => break,
            }
        }
        (batch, None)
    }

    /// Stores a batch. After a failure nothing more is stored until a restart; the pieces are let go.
    fn append(&mut self, batch: &[Bytes]) {
        let length: usize = batch.iter().map(Bytes::len).sum();
        if self.air.shared.failure().is_none() {
            // Handed over first: the hash runs while the kernel copies.
            self.hashing.take(batch);
            match self.data.write_at(batch, self.written) {
                Ok(()) => {
                    self.written += length as u64;
                    self.air.flight().advance(self.written);
                    self.checkpoint();
                }
                Err(error) => self.air.shared.fail(&error),
            }
        }
        self.air.shared.budget.add_permits(length);
    }

    fn checkpoint(&mut self) {
        if self.written - self.checkpointed < CHECKPOINT {
            return;
        }
        self.checkpointed = self.written;
        let (offset, directory) = (self.written, self.air.shared.path.clone());
        let syncing = self.syncing.handover();
        self.hashing.look(move |hasher| {
            let checkpoint = Checkpoint::new(offset, hasher);
            // Without it a killed process fetches more again; that is all.
            if let Err(error) = checkpoint.clone().save_volatile(&directory) {
                tracing::debug!(%error, "no checkpoint of an ingest");
            }
            if let Some(syncing) = syncing {
                syncing.offer(checkpoint);
            }
        });
    }

    /// Waits for the helping threads, and returns the hash of all that was written.
    pub(crate) fn rest(&mut self) -> Hasher {
        let hasher = self.hashing.finish();
        self.syncing.finish();
        hasher
    }

    /// Starts over in a new file, for followers may still read the old one.
    fn restart(&mut self) -> Result<()> {
        self.air.land(Outcome::Abandoned);
        self.rest();
        let restarted = self.renew();
        match &restarted {
            Ok(()) => self.air.shared.recover(),
            Err(error) => self.air.shared.fail(error),
        }
        restarted
    }

    fn renew(&mut self) -> Result<()> {
        let shared = self.air.shared.clone();
        let claim = self
            .claim
            .as_ref()
            .expect("only a commit removes the claim, and it ends the thread");
        self.data = Arc::new(begin::start_over(claim)?);
        self.hashing = Hashing::new(Hasher::expecting(shared.expected.digest.as_ref())?);
        self.syncing = Syncing::new(self.data.clone(), shared.path.clone());
        (self.written, self.checkpointed) = (0, 0);
        *lock(&shared.flight) = Flight::new(&shared.reference, self.data.clone(), shared.expected.size, 0);
        self.air.announce();
        Ok(())
    }

    /// The handle is gone: leaves what is needed to go on later.
    fn park(mut self) {
        self.air.land(Outcome::Abandoned);
        let hasher = self.rest();
        if self.air.shared.failure().is_some() {
            // The hash has seen bytes that the file has not; an earlier checkpoint still holds.
            return;
        }
        let saved = self
            .data
            .sync()
            .and_then(|()| Checkpoint::new(self.written, &hasher).save_durable(&self.air.shared.path));
        if let Err(error) = saved {
            tracing::debug!(%error, reference = self.air.shared.reference, "a partial ingest resumes from an earlier byte");
        }
    }
}
