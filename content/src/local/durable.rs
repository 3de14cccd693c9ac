//! Brings a long ingest to disk while it still grows: the commit then has little left to wait for, and after a power
//! loss most of it need not be fetched again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use super::data::DataFile;
use super::record::Checkpoint;

/// A thread that syncs; there is none before it has something to do.
#[derive(Debug)]
pub(crate) struct Syncing {
    data: Arc<DataFile>,
    directory: PathBuf,
    started: Option<(SyncSender<Checkpoint>, JoinHandle<()>)>,
}

/// Hands checkpoints to the thread.
#[derive(Debug)]
pub(crate) struct Handover(SyncSender<Checkpoint>);

impl Syncing {
    pub(crate) fn new(data: Arc<DataFile>, directory: PathBuf) -> Self {
        Self {
            data,
            directory,
            started: None,
        }
    }

    /// Starts the thread if it is not there. `None` when there is no thread to be had.
    pub(crate) fn handover(&mut self) -> Option<Handover> {
        if self.started.is_none() {
            let (work, queue) = sync_channel::<Checkpoint>(1);
            let (data, directory) = (self.data.clone(), self.directory.clone());
            let thread = std::thread::Builder::new()
                .name("longshore-sync".into())
                .stack_size(128 << 10);
            let thread = thread.spawn(move || {
                for checkpoint in queue {
                    // A disk that fails will say so to the commit as well.
                    if let Err(error) = data.sync().and_then(|()| checkpoint.save_durable(&directory)) {
                        tracing::debug!(%error, "no durable checkpoint of an ingest");
                    }
                }
            });
            self.started = Some((work, thread.ok()?));
        }
        self.started.as_ref().map(|(work, _)| Handover(work.clone()))
    }

    /// Waits for the thread to end. All handovers must be gone.
    pub(crate) fn finish(&mut self) {
        if let Some((work, thread)) = self.started.take() {
            drop(work);
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Handover {
    /// Asks for the bytes of this checkpoint to be synced; one that comes while the disk is busy is left out.
    pub(crate) fn offer(&self, checkpoint: Checkpoint) {
        match self.0.try_send(checkpoint) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}
