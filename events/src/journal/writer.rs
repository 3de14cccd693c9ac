//! The thread that writes. It alone touches the files; what it can't keep is counted and told in the journal itself.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::error::{JournalError, Result, io};
use super::line::{self, Entry, Line, Told};
use super::queue::{Queue, Waiting};
use super::segments::{Segment, list};
use super::{JournalOptions, SyncPolicy};
use crate::Event;

/// What is written at once, at most, but for one line.
const PIECE: u64 = 1 << 20;
/// How long it waits after a failure, while events gather in the queue.
const AFTER_A_FAILURE: Duration = Duration::from_millis(50);

/// Figures that others read.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) written: AtomicU64,
    pub(super) missed: AtomicU64,
}

pub(super) struct Writer {
    directory: PathBuf,
    options: JournalOptions,
    /// Held while writing, so that several processes may write one journal.
    lock: File,
    segment: Option<Open>,
    next: u64,
    unsynced: Option<Instant>,
    counters: Arc<Counters>,
}

/// Of what was taken from the queue, what is not kept yet.
#[derive(Debug)]
struct Left {
    events: u64,
    missed: u64,
}

/// Lines that are written together.
struct Piece {
    lines: Vec<u8>,
    next: u64,
    events: u64,
    too_long: u64,
}

impl Piece {
    fn new(next: u64) -> Self {
        Self {
            lines: Vec::new(),
            next,
            events: 0,
            too_long: 0,
        }
    }

    fn add(&mut self, told: Told) {
        let is_event = matches!(told, Told::Event(_));
        let entry = Entry {
            sequence: self.next,
            told,
        };
        match line::write(&entry, &mut self.lines) {
            true => {
                self.next += 1;
                self.events += u64::from(is_event);
            }
            false => self.too_long += 1,
        }
    }
}

#[derive(Debug)]
struct Open {
    segment: Segment,
    file: File,
    /// Where the last whole line ends.
    end: u64,
}

impl Writer {
    pub(super) fn open(directory: PathBuf, options: JournalOptions, counters: Arc<Counters>) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&directory).map_err(io("creating", &directory))?;
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io("opening", &path))?;
        let mut writer = Self {
            directory,
            options,
            lock,
            segment: None,
            next: 1,
            unsynced: None,
            counters,
        };
        // What a crash tore is cut off here, before anybody reads it.
        writer.locked(Self::catch_up)?;
        Ok(writer)
    }

    fn locked<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.lock
            .lock()
            .map_err(io("locking the journal in", &self.directory))?;
        let outcome = work(self);
        // Closing the file would unlock it too; there is nothing to do about an error.
        let _ = self.lock.unlock();
        outcome
    }

    /// Writes until the queue is closed.
    pub(super) fn run(mut self, queue: &Queue) {
        loop {
            let patience = match (self.options.sync, self.unsynced) {
                (SyncPolicy::Every(period), Some(since)) => Some(period.saturating_sub(since.elapsed())),
                _ => None,
            };
            let waiting = queue.take(patience);
            let closed = waiting.closed;
            self.write(queue, waiting);
            if closed {
                return;
            }
        }
    }

    /// Writes what waits and answers who waits for it.
    fn write(&mut self, queue: &Queue, waiting: Waiting) {
        let Waiting {
            events,
            missed,
            flushes,
            closed,
        } = waiting;
        let mut left = Left {
            events: events.len() as u64,
            missed,
        };
        let outcome = match left.events + left.missed {
            0 => Ok(()),
            _ => self.locked(|writer| writer.append(events.into(), &mut left)),
        };
        if outcome.is_err() {
            queue.give_back(left.events + left.missed);
            self.counters.missed.fetch_add(left.events, Ordering::Relaxed);
            // A disk that is full is asked again in a while, not at once: what was given back would wake this thread for ever.
            std::thread::sleep(AFTER_A_FAILURE);
        }
        let asked = closed || !flushes.is_empty();
        let outcome = outcome.and_then(|()| if asked { self.sync() } else { self.sync_when_due() });
        if let Err(error) = &outcome {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "the event journal could not be written"
            );
        }
        let mut outcome = outcome.map(|()| self.next - 1);
        for answer in flushes {
            let one = match &outcome {
                Ok(sequence) => Ok(*sequence),
                // The first gets the cause, the others that there is one.
                Err(_) => std::mem::replace(
                    &mut outcome,
                    Err(JournalError::Closed {
                        path: self.directory.clone(),
                    }),
                ),
            };
            // Whoever asked may have gone.
            let _ = answer.send(one);
        }
    }

    /// Appends all of it, in pieces that fit into a file. `left` tells what is not kept yet, also after an error.
    fn append(&mut self, events: Vec<Event>, left: &mut Left) -> Result<()> {
        self.catch_up()?;
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() || left.missed > 0 {
            self.rotate()?;
            let room = self.options.file_bytes.saturating_sub(self.end()).min(PIECE);
            let mut piece = Piece::new(self.next);
            if left.missed > 0 {
                piece.add(Told::Missed(left.missed));
            }
            while piece.lines.len() as u64 <= room
                && let Some(event) = events.next()
            {
                piece.add(Told::Event(event));
            }
            self.put(&piece)?;
            self.next = piece.next;
            self.counters.written.fetch_add(piece.events, Ordering::Relaxed);
            self.counters.missed.fetch_add(piece.too_long, Ordering::Relaxed);
            left.events -= piece.events + piece.too_long;
            left.missed = piece.too_long;
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.segment.as_ref().map_or(0, |open| open.end)
    }

    fn put(&mut self, piece: &Piece) -> Result<()> {
        let open = self.segment.as_mut().expect("rotate leaves one open");
        let put = open.file.write_all(&piece.lines);
        if put.is_err() {
            // Half a piece is none: the next line must not begin in the middle of one.
            let _ = open.file.set_len(open.end);
            let _ = open.file.seek(SeekFrom::Start(open.end));
        }
        put.map_err(io("writing", &open.segment.path))?;
        open.end += piece.lines.len() as u64;
        self.unsynced.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn sync_when_due(&mut self) -> Result<()> {
        match (self.options.sync, self.unsynced) {
            (SyncPolicy::Every(period), Some(since)) if since.elapsed() < period => Ok(()),
            (SyncPolicy::Never, _) => Ok(()),
            _ => self.sync(),
        }
    }

    fn sync(&mut self) -> Result<()> {
        // After a failure the kernel has forgotten what it could not write; to ask again would only be told that all is well.
        let written = self.unsynced.take();
        if let Some(open) = self.segment.as_ref().filter(|_| written.is_some()) {
            open.file.sync_data().map_err(io("syncing", &open.segment.path))?;
        }
        Ok(())
    }

    /// Finds where to go on: other processes may have written, and a crash may have torn the last line.
    fn catch_up(&mut self) -> Result<()> {
        let Some(last) = list(&self.directory)?.pop() else {
            self.segment = None;
            return Ok(());
        };
        let known = self.segment.take().filter(|open| open.segment == last);
        let mut open = match known {
            Some(open) => open,
            None => {
                self.next = last.first;
                let file = OpenOptions::new().read(true).write(true).open(&last.path);
                Open {
                    file: file.map_err(io("opening", &last.path))?,
                    segment: last,
                    end: 0,
                }
            }
        };
        let length = open
            .file
            .metadata()
            .map_err(io("looking at", &open.segment.path))?
            .len();
        if length != open.end {
            self.read_on(&mut open, length)?;
        }
        self.segment = Some(open);
        Ok(())
    }

    /// Reads from the last known end to the last whole line, and cuts off what of `length` is after it.
    fn read_on(&mut self, open: &mut Open, length: u64) -> Result<()> {
        let failed = |doing| io(doing, &open.segment.path);
        open.file.seek(SeekFrom::Start(open.end)).map_err(failed("reading"))?;
        let mut reader = BufReader::new(&open.file);
        loop {
            match line::read(&mut reader).map_err(failed("reading"))? {
                Line::Entry(entry, length) => {
                    self.next = self.next.max(entry.sequence.saturating_add(1));
                    open.end += length;
                }
                Line::Damaged(length) => open.end += length,
                Line::Torn => break,
            }
        }
        // Setting a length makes a file new, though it had that length: only what is torn is to be.
        if length != open.end {
            open.file
                .set_len(open.end)
                .map_err(failed("cutting off what was torn from"))?;
        }
        open.file.seek(SeekFrom::Start(open.end)).map_err(failed("reading"))?;
        Ok(())
    }

    /// Begins a new file when there is none or the last one is full, and removes those that are too many or too old.
    fn rotate(&mut self) -> Result<()> {
        if self
            .segment
            .as_ref()
            .is_some_and(|open| open.end < self.options.file_bytes)
        {
            return Ok(());
        }
        self.sync()?;
        let segment = Segment::new(&self.directory, self.next);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&segment.path)
            .map_err(io("creating", &segment.path))?;
        self.segment = Some(Open { segment, file, end: 0 });
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(io("syncing", &self.directory))?;
        self.remove_old()
    }

    fn remove_old(&self) -> Result<()> {
        let mut segments = list(&self.directory)?;
        // The newest is the one being written.
        segments.pop();
        let mut kept = 0;
        for segment in segments.into_iter().rev() {
            let Ok(metadata) = segment.path.metadata() else {
                continue;
            };
            kept += metadata.len();
            let age = metadata
                .modified()
                .ok()
                .and_then(|changed| SystemTime::now().duration_since(changed).ok());
            let too_old = self
                .options
                .keep_for
                .is_some_and(|most| age.unwrap_or(Duration::ZERO) > most);
            if too_old || kept > self.options.keep_bytes {
                std::fs::remove_file(&segment.path).map_err(io("removing", &segment.path))?;
            }
        }
        Ok(())
    }
}
