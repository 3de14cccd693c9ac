use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::{JournalError, Result, io};
use super::line::{self, Entry, Line, Told};
use super::segments::{Segment, list};

/// Where a [`Replay`] begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayFrom {
    /// With the oldest entry that is kept.
    Beginning,
    /// With that of this number, or the oldest that is kept.
    Sequence(u64),
    /// With the first event of that time or later. What was missed about then is told as well.
    Time(SystemTime),
    /// With what comes after the newest entry of this moment.
    Now,
}

/// Reads a journal, also one that others write at this moment.
///
/// It is an iterator that can go on: after `None`, what was written since is told by the next call. It holds one line in memory. Entries that are not there any more,
/// because they were rotated away or are damaged, are told as [`Told::Missed`].
#[derive(Debug)]
pub struct Replay {
    directory: PathBuf,
    /// The number that is expected next; 0 takes whatever comes.
    next: u64,
    since: Option<SystemTime>,
    reading: Option<Reading>,
    /// A newer file was seen; the one being read is finished first.
    newer: Option<Segment>,
    ready: VecDeque<Entry>,
}

#[derive(Debug)]
struct Reading {
    segment: Segment,
    reader: BufReader<File>,
    offset: u64,
}

impl Replay {
    /// Opens the journal in a directory for reading, which need not exist yet.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn open(directory: impl Into<PathBuf>, from: ReplayFrom) -> Result<Self> {
        let mut replay = Self {
            directory: directory.into(),
            next: 0,
            since: None,
            reading: None,
            newer: None,
            ready: VecDeque::new(),
        };
        match from {
            ReplayFrom::Beginning => {}
            ReplayFrom::Sequence(sequence) => replay.next = sequence.max(1),
            ReplayFrom::Time(time) => {
                replay.since = Some(time);
                replay.next = replay.segment_of(time)?;
            }
            ReplayFrom::Now => {
                replay.next = list(&replay.directory)?.last().map_or(0, |segment| segment.first);
                while replay.read()?.is_some() {}
                replay.ready.clear();
            }
        }
        Ok(replay)
    }

    /// The first number of the last file that begins before a time.
    fn segment_of(&self, time: SystemTime) -> Result<u64> {
        let mut first = 0;
        for segment in list(&self.directory)? {
            match first_time(&segment.path)? {
                Some(begins) if begins > time => break,
                _ => first = segment.first,
            }
        }
        Ok(first)
    }

    fn read(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            if self.reading.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some(reading) = &mut self.reading else { continue };
            let path = reading.segment.path.clone();
            match line::read(&mut reading.reader).map_err(io("reading", &path))? {
                Line::Entry(entry, length) => {
                    reading.offset += length;
                    self.take(entry);
                }
                // Its number is missing, which the next entry tells.
                Line::Damaged(length) => reading.offset += length,
                Line::Torn => {
                    let offset = reading.offset;
                    reading
                        .reader
                        .seek(SeekFrom::Start(offset))
                        .map_err(io("reading", &path))?;
                    if !self.turn_page()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn take(&mut self, entry: Entry) {
        if entry.sequence < self.next {
            return;
        }
        if self.next > 0 && entry.sequence > self.next {
            self.ready.push_back(Entry {
                sequence: self.next,
                told: Told::Missed(entry.sequence - self.next),
            });
        }
        self.next = entry.sequence.saturating_add(1);
        let wanted = match (&entry.told, self.since) {
            (Told::Event(event), Some(since)) => event.time >= since,
            _ => true,
        };
        if wanted {
            self.ready.push_back(entry);
        }
    }

    /// Opens the file that holds the next entry, or the oldest after it.
    fn open_next(&mut self) -> Result<bool> {
        let segments = list(&self.directory)?;
        let holding = segments
            .iter()
            .rposition(|segment| segment.first <= self.next.max(1))
            .unwrap_or(0);
        let Some(segment) = segments.into_iter().nth(holding) else {
            return Ok(false);
        };
        self.open_segment(segment)
    }

    fn open_segment(&mut self, segment: Segment) -> Result<bool> {
        let file = match File::open(&segment.path) {
            // Rotated away since it was listed; the next call finds another.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.reading = None;
                return Ok(false);
            }
            file => file.map_err(io("opening", &segment.path))?,
        };
        self.reading = Some(Reading {
            segment,
            reader: BufReader::new(file),
            offset: 0,
        });
        Ok(true)
    }

    /// At the end of a file: goes on to a newer one. What was appended to this one before the newer was begun is read first, so it is looked at once more.
    fn turn_page(&mut self) -> Result<bool> {
        if let Some(newer) = self.newer.take() {
            return self.open_segment(newer);
        }
        let here = self.reading.as_ref().map_or(0, |reading| reading.segment.first);
        self.newer = list(&self.directory)?.into_iter().find(|segment| segment.first > here);
        Ok(self.newer.is_some())
    }
}

impl Iterator for Replay {
    type Item = std::result::Result<Entry, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// The time of the first event of a file.
fn first_time(path: &Path) -> Result<Option<SystemTime>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io("opening", path))?,
    };
    let mut reader = BufReader::new(file);
    loop {
        match line::read(&mut reader).map_err(io("reading", path))? {
            Line::Entry(entry, _) => {
                if let Some(event) = entry.event() {
                    return Ok(Some(event.time));
                }
            }
            Line::Damaged(_) => {}
            Line::Torn => return Ok(None),
        }
    }
}
