use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::Serialize;

use super::{Drained, Io, OutputGuard, Stdio, Streams};
use crate::Result;
use crate::host::io_error;

/// The longest piece of a line in one JSON record, as Docker has it.
const LONGEST_PIECE: usize = 16 * 1024;

impl Io {
    /// Output and errors appended to one file, which is made with mode 0640; no input.
    ///
    /// The container writes into the file itself: nothing is lost when the host ends.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::custom(PlainFile { path: path.into() })
    }

    /// Output and errors as JSON lines, as Docker's `json-file` driver writes them:
    /// `{"log":"hello\n","stream":"stdout","time":"2025-01-01T00:00:00Z"}`. No input.
    ///
    /// A thread of this program carries the output; a detached container that outlives it gets a broken pipe.
    pub fn json_lines(path: impl Into<PathBuf>) -> Self {
        let (guard, drained) = Drained::pair();
        Self::custom(JsonLines {
            path: path.into(),
            guard,
            drained: Some(drained),
        })
    }
}

fn open_log(path: &Path) -> Result<File> {
    File::options()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .map_err(io_error(format!("open the log {}", path.display())))
}

/// A thread that reads to the end and hands on what it reads.
pub(super) fn carry(
    name: &str,
    from: OwnedFd,
    guard: Option<OutputGuard>,
    mut to: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
) -> Result<()> {
    let mut from = File::from(from);
    let run = move || {
        let _guard = guard;
        let mut buffer = [0u8; LONGEST_PIECE];
        loop {
            match from.read(&mut buffer) {
                // A terminal's master says EIO when the last one of the other side is closed.
                Ok(0) => break,
                Err(e) if e.kind() != io::ErrorKind::Interrupted => break,
                Err(_) => {}
                // A medium that fails must not stop the container: what does not fit is lost.
                Ok(length) => drop(to(&buffer[..length])),
            }
        }
    };
    let thread = std::thread::Builder::new().name(format!("longshore-{name}"));
    thread
        .spawn(run)
        .map(drop)
        .map_err(io_error("start a thread that carries output"))
}

#[derive(Debug)]
struct PlainFile {
    path: PathBuf,
}

impl Streams for PlainFile {
    fn open(self: Box<Self>) -> Result<Stdio> {
        let file = open_log(&self.path)?;
        let stderr = file.try_clone().map_err(io_error("duplicate a descriptor"))?.into();
        Ok(Stdio {
            stdin: super::pipes::null(OFlags::RDONLY)?,
            stdout: file.into(),
            stderr,
        })
    }

    fn console(self: Box<Self>, master: OwnedFd) -> Result<()> {
        let mut file = open_log(&self.path)?;
        carry("file", master, None, move |bytes| file.write_all(bytes))
    }
}

#[derive(Debug)]
struct JsonLines {
    path: PathBuf,
    guard: OutputGuard,
    drained: Option<Drained>,
}

impl Streams for JsonLines {
    fn open(self: Box<Self>) -> Result<Stdio> {
        let file = Arc::new(Mutex::new(open_log(&self.path)?));
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(io_error("make a pipe"));
        let (from_stdout, stdout) = pipe()?;
        let (from_stderr, stderr) = pipe()?;
        carry_lines("stdout", from_stdout, &file, self.guard.clone())?;
        carry_lines("stderr", from_stderr, &file, self.guard)?;
        Ok(Stdio {
            stdin: super::pipes::null(OFlags::RDONLY)?,
            stdout,
            stderr,
        })
    }

    fn console(self: Box<Self>, master: OwnedFd) -> Result<()> {
        let file = Arc::new(Mutex::new(open_log(&self.path)?));
        carry_lines("stdout", master, &file, self.guard)
    }

    fn drained(&mut self) -> Option<Drained> {
        self.drained.take()
    }
}

fn carry_lines(stream: &'static str, from: OwnedFd, file: &Arc<Mutex<File>>, guard: OutputGuard) -> Result<()> {
    let mut lines = Lines {
        stream,
        file: Arc::clone(file),
        pending: Vec::new(),
    };
    carry(stream, from, Some(guard), move |bytes| lines.take(bytes))
}

/// Cuts a stream into lines, and writes each as a record. What is left without an end of line is written when the stream ends.
struct Lines {
    stream: &'static str,
    file: Arc<Mutex<File>>,
    pending: Vec<u8>,
}

#[derive(Serialize)]
struct Record<'a> {
    log: &'a str,
    stream: &'a str,
    time: String,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut records = Vec::new();
        self.pending.extend_from_slice(bytes);
        let mut rest = self.pending.as_slice();
        while let Some(end) = rest.iter().take(LONGEST_PIECE).position(|b| *b == b'\n') {
            let (line, after) = rest.split_at(end + 1);
            record(self.stream, line, &mut records)?;
            rest = after;
        }
        while rest.len() >= LONGEST_PIECE {
            let (piece, after) = rest.split_at(whole_characters(&rest[..LONGEST_PIECE]));
            record(self.stream, piece, &mut records)?;
            rest = after;
        }
        self.pending = rest.to_vec();
        self.write(&records)
    }

    /// One write for each read, so that records of the two streams never mix.
    fn write(&self, records: &[u8]) -> io::Result<()> {
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(records)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let mut records = Vec::new();
        if !self.pending.is_empty() && record(self.stream, &self.pending, &mut records).is_ok() {
            let _ = self.write(&records);
        }
    }
}

/// How much of the bytes can be cut off without cutting a character.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => e.valid_up_to(),
        _ => bytes.len(),
    }
}

fn record(stream: &str, line: &[u8], records: &mut Vec<u8>) -> io::Result<()> {
    let log = String::from_utf8_lossy(line);
    let time = timestamp(SystemTime::now());
    serde_json::to_writer(
        &mut *records,
        &Record {
            log: &log,
            stream,
            time,
        },
    )?;
    records.push(b'\n');
    Ok(())
}

/// RFC 3339 in UTC with nanoseconds.
fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z",
        since.subsec_nanos()
    )
}

/// The date of a day since 1970-01-01, by the Gregorian calendar's 400-year cycle, counted from the first of March.
fn civil(days: u64) -> (u64, u64, u64) {
    const CYCLE: u64 = 146_097;
    let shifted = days + 719_468;
    let (cycle, of_cycle) = (shifted / CYCLE, shifted % CYCLE);
    let year_of_cycle = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / (CYCLE - 1)) / 365;
    let of_year = of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (cycle * 400 + year_of_cycle + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_the_utc_date() {
        let at = |seconds| timestamp(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56.000000000Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59.000000000Z");
    }

    #[test]
    fn lines_become_records_whatever_the_pieces_they_come_in() {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let file = Arc::new(Mutex::new(log.reopen().expect("it opens")));
        let mut lines = Lines {
            stream: "stdout",
            file,
            pending: Vec::new(),
        };
        for piece in [&b"one\ntw"[..], b"o\n", b"thr\xc3", b"\xa9e"] {
            lines.take(piece).expect("it is written");
        }
        drop(lines);
        let text = std::fs::read_to_string(log.path()).expect("it is there");
        let logs: Vec<String> = text
            .lines()
            .map(|l| {
                serde_json::from_str::<serde_json::Value>(l).expect("JSON")["log"]
                    .as_str()
                    .expect("text")
                    .to_owned()
            })
            .collect();
        assert_eq!(logs, ["one\n", "two\n", "thr\u{e9}e"]);
    }

    #[test]
    fn a_line_without_end_is_cut_between_characters() {
        let mut line = vec![b'x'; LONGEST_PIECE - 1];
        line.extend_from_slice("é".as_bytes());
        assert_eq!(whole_characters(&line[..LONGEST_PIECE]), LONGEST_PIECE - 1);
    }
}
