use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::{Drained, Input, Io, OutputGuard, Stdio, Streams};
use crate::host::io_error;
use crate::logs::{Lines, LogWriter};
use crate::{Error, LogFile, OutputStream, Result};

/// How much is read at once.
const PIECE: usize = 16 * 1024;

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
    /// A log without an end: [`log`](Self::log) says the rest.
    pub fn json_lines(path: impl Into<PathBuf>) -> Self {
        Self::log(LogFile::new(path))
    }

    /// Output and errors as records of a log. No input. [`LogReader`](crate::LogReader) reads them.
    ///
    /// A thread of this program carries the output, or the monitor of a container that has one, so that it goes on when this program has ended. Whoever waits for the end of the
    /// container is told when the last of it is written.
    pub fn log(log: LogFile) -> Self {
        Self::log_and_input(log, Input::None)
    }

    /// The same with input of those who are [attached](crate::Executor::attach). Only a monitor hands it on: other containers are refused.
    pub fn log_with_input(log: LogFile) -> Self {
        Self::log_and_input(log, Input::OfThoseAttached)
    }

    fn log_and_input(log: LogFile, input: Input) -> Self {
        let (guard, drained) = Drained::pair();
        Self::custom(Log {
            log,
            input,
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
pub(crate) fn carry(
    name: &str,
    from: OwnedFd,
    guard: Option<OutputGuard>,
    to: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
) -> Result<()> {
    let mut from = File::from(from);
    let run = move || {
        // It goes last: what the carrier still has is written when that is dropped.
        let _guard = guard;
        let mut to = to;
        let mut buffer = [0u8; PIECE];
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
struct Log {
    log: LogFile,
    input: Input,
    guard: OutputGuard,
    drained: Option<Drained>,
}

impl Log {
    fn carrier(&self) -> Result<impl Fn(OutputStream, OwnedFd) -> Result<()>> {
        if self.input == Input::OfThoseAttached {
            return Err(Error::Unsupported {
                field: "the request's io".into(),
                reason: "input of those who are attached is handed on by a container's monitor; make it a detached container, or use Io::pipe or Io::pty".into(),
            });
        }
        let file = Arc::new(Mutex::new(LogWriter::open(&self.log)?));
        let guard = self.guard.clone();
        Ok(move |stream: OutputStream, from| {
            let mut lines = Lines::new(stream, &file);
            carry(stream.name(), from, Some(guard.clone()), move |bytes| {
                Ok(lines.take(bytes)?)
            })
        })
    }
}

impl Streams for Log {
    fn open(self: Box<Self>) -> Result<Stdio> {
        let carry = self.carrier()?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(io_error("make a pipe"));
        let (from_stdout, stdout) = pipe()?;
        let (from_stderr, stderr) = pipe()?;
        carry(OutputStream::Stdout, from_stdout)?;
        carry(OutputStream::Stderr, from_stderr)?;
        Ok(Stdio {
            stdin: super::pipes::null(OFlags::RDONLY)?,
            stdout,
            stderr,
        })
    }

    fn console(self: Box<Self>, master: OwnedFd) -> Result<()> {
        self.carrier()?(OutputStream::Stdout, master)
    }

    fn log(&self) -> Option<(LogFile, Input)> {
        Some((self.log.clone(), self.input))
    }

    fn drained(&mut self) -> Option<Drained> {
        self.drained.take()
    }
}
