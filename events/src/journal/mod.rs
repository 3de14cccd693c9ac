//! Events on disk.

mod crc;
mod error;
mod line;
mod queue;
mod replay;
mod segments;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::{Event, EventSink};

use self::error::{Result, io};
use self::queue::Queue;
use self::writer::{Counters, Writer};

pub use error::{JournalError, JournalErrorKind};
pub use line::{Entry, Told};
pub use replay::{Replay, ReplayFrom};

/// When what was written is made to survive a loss of power. The end of the process it survives anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// After each batch: whatever waits while the disk syncs is the next batch, so many events share a sync.
    Always,
    /// So often.
    Every(Duration),
    /// When the kernel likes, and at a [`flush`](Journal::flush).
    Never,
}

/// How a journal is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalOptions {
    /// Events that may wait to be written, before some are missed.
    pub capacity: usize,
    /// The size from which on a new file is begun.
    pub file_bytes: u64,
    /// What full files may take together before the oldest goes.
    pub keep_bytes: u64,
    /// How long a full file is kept at most; `None` is for ever. Looked at when a new one is begun.
    pub keep_for: Option<Duration>,
    /// When it is synced.
    pub sync: SyncPolicy,
}

impl Default for JournalOptions {
    /// Room for 65536 events, files of 16 MiB of which 256 MiB are kept, of any age, synced after each batch.
    fn default() -> Self {
        Self {
            capacity: 1 << 16,
            file_bytes: 16 << 20,
            keep_bytes: 256 << 20,
            keep_for: None,
            sync: SyncPolicy::Always,
        }
    }
}

impl JournalOptions {
    /// Begins a new file from this size on.
    #[must_use]
    pub fn file_bytes(mut self, bytes: u64) -> Self {
        self.file_bytes = bytes;
        self
    }

    /// Keeps so much of full files.
    #[must_use]
    pub fn keep_bytes(mut self, bytes: u64) -> Self {
        self.keep_bytes = bytes;
        self
    }

    /// Keeps full files for so long.
    #[must_use]
    pub fn keep_for(mut self, time: Duration) -> Self {
        self.keep_for = Some(time);
        self
    }

    /// Lets so many events wait.
    #[must_use]
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events;
        self
    }

    /// Syncs so.
    #[must_use]
    pub fn sync(mut self, sync: SyncPolicy) -> Self {
        self.sync = sync;
        self
    }
}

/// Figures of a [`Journal`], of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalStats {
    /// Events that were written.
    pub written: u64,
    /// Events that were not kept: the queue was full, or the disk.
    pub missed: u64,
    /// Events that wait to be written.
    pub queued: usize,
}

/// Events in files, to be read again from a number or a time: an audit trail.
///
/// A directory of files of lines, each a checksum and one JSON object with the number of the entry, which people and other programs can read. A thread of its own writes them;
/// [`emit`](EventSink::emit) hands an event to it and returns. What it can't keep, because too much waits or the disk is full, is counted, and told in the journal where it would have been.
///
/// What a crash tore off is cut at the next open; all before it is there. Several processes may write one journal: each batch is appended under a lock on the file `lock`.
///
/// Dropping it writes what waits. To read it, see [`Replay`].
///
/// ```
/// use longshore_events::{Event, EventKind, EventSink, Journal, JournalOptions, Replay, ReplayFrom};
///
/// # let folder = tempfile::tempdir()?;
/// # let directory = folder.path().join("events");
/// let journal = Journal::open(&directory, JournalOptions::default())?;
/// journal.emit(Event::now("default", EventKind::TaskOom { container_id: "demo".into() }));
/// let last = journal.flush()?; // on disk now
///
/// let entry = Replay::open(&directory, ReplayFrom::Sequence(last))?.next().expect("an entry")?;
/// assert_eq!(entry.event().map(Event::topic), Some("/tasks/oom"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens the journal in a directory, or begins one. Blocks while another process appends a batch.
    ///
    /// # Errors
    /// When the directory can't be made, read or written.
    pub fn open(directory: impl Into<PathBuf>, options: JournalOptions) -> Result<Self> {
        let directory = directory.into();
        let queue = Arc::new(Queue::new(options.capacity));
        let counters = Arc::new(Counters::default());
        let writer = Writer::open(directory.clone(), options, counters.clone())?;
        let thread = std::thread::Builder::new().name("longshore-events".into()).spawn({
            let queue = queue.clone();
            move || writer.run(&queue)
        });
        Ok(Self {
            thread: Some(thread.map_err(io("starting a thread for", &directory))?),
            directory,
            queue,
            counters,
        })
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Waits until what was emitted before is on disk, whatever [`SyncPolicy`] says, and returns the number of the last entry. Blocks: in async code, on a thread that may.
    ///
    /// # Errors
    /// When it can't be written now. What could not be kept at any time is in [`stats`](Self::stats), and in the journal once it can be written again.
    pub fn flush(&self) -> Result<u64> {
        let (answer, done) = mpsc::sync_channel(1);
        self.queue.flush(answer);
        let closed = || JournalError::Closed {
            path: self.directory.clone(),
        };
        done.recv().unwrap_or_else(|_| Err(closed()))
    }

    /// Reads it from somewhere on.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn replay(&self, from: ReplayFrom) -> Result<Replay> {
        Replay::open(&self.directory, from)
    }

    /// How it is doing.
    pub fn stats(&self) -> JournalStats {
        JournalStats {
            written: self.counters.written.load(Ordering::Relaxed),
            missed: self.counters.missed.load(Ordering::Relaxed),
            queued: self.queue.len(),
        }
    }
}

impl EventSink for Journal {
    fn emit(&self, event: Event) {
        if !self.queue.push(event) {
            self.counters.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
