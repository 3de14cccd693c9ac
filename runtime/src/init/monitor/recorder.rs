use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use longshore_linux::realtime;
use rustix::io::Errno;

use super::Seen;
use super::audience::Audience;
use crate::OutputStream;
use crate::logs::{LogWriter, Pieces, Rotating};
use crate::{LogFile, LogFormat, Result};

/// How much is read at once.
const PIECE: usize = 16 * 1024;
/// How much of a stream is read at most after the end of init. More than a pipe holds: what init said is in it, and who may go on without init does not keep the container.
const LAST: usize = 64 << 20;

/// The log that a monitor writes, and where the output comes from. All of it is plain, so that a copy of it can be where it is needed.
#[derive(Debug)]
pub(crate) struct LogDuty {
    file: Rotating,
    format: LogFormat,
    /// The ends of the pipes, 3 or higher. There are none for a terminal, which comes later.
    from: [Option<OwnedFd>; 2],
    /// The other end of the input's pipe, if somebody may type.
    input: Option<OwnedFd>,
    /// Where those come who want to be attached.
    listener: OwnedFd,
}

/// The ends of a container's pipes that are its monitor's, 3 or higher; none where it has a terminal.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    pub(crate) input: Option<OwnedFd>,
    pub(crate) output: [Option<OwnedFd>; 2],
}

impl LogDuty {
    /// Opens the log. The listener is 3 or higher.
    pub(crate) fn open(log: &LogFile, pipes: Pipes, listener: OwnedFd) -> Result<Self> {
        Ok(Self {
            file: Rotating::open(log)?,
            format: log.form(),
            from: pipes.output,
            input: pipes.input,
            listener,
        })
    }

    /// The descriptors that it needs.
    pub(super) fn descriptors(&self) -> [Option<RawFd>; 6] {
        let [directory, file] = self.file.descriptors();
        let number = |fd: &Option<OwnedFd>| fd.as_ref().map(AsRawFd::as_raw_fd);
        let [out, err] = self.from.each_ref().map(number);
        let listener = Some(self.listener.as_raw_fd());
        [Some(directory), Some(file), out, err, number(&self.input), listener]
    }
}

/// A stream on its way into the log.
#[derive(Debug)]
struct Source {
    stream: OutputStream,
    /// None when it has ended.
    from: Option<OwnedFd>,
    pieces: Pieces,
}

/// What brings the output into the log.
#[derive(Debug)]
pub(super) struct Recorder {
    writer: LogWriter,
    sources: [Source; 2],
    pub(super) audience: Audience,
}

/// What came of a look at a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brought {
    Bytes(usize),
    Nothing,
}

impl Recorder {
    pub(super) fn new(duty: LogDuty) -> Self {
        let LogDuty {
            file,
            format,
            from,
            input,
            listener,
        } = duty;
        let [out, err] = from;
        let source = |stream, from| Source {
            stream,
            from,
            pieces: Pieces::new(),
        };
        Self {
            writer: LogWriter::new(file, format),
            sources: [source(OutputStream::Stdout, out), source(OutputStream::Stderr, err)],
            audience: Audience::new(listener, input),
        }
    }

    /// The master side of the container's terminal.
    pub(super) fn take_terminal(&mut self, master: OwnedFd) {
        let [out, _] = &mut self.sources;
        if rustix::io::ioctl_fionbio(&master, true).is_ok() {
            if let Ok(copy) = rustix::io::fcntl_dupfd_cloexec(&master, 3) {
                self.audience.take_terminal(copy);
            }
            out.from = Some(master);
        }
    }

    /// What is to be looked at when it has something, in order.
    pub(super) fn sources(&self) -> [Option<BorrowedFd<'_>>; 2] {
        self.sources
            .each_ref()
            .map(|source| source.from.as_ref().map(AsFd::as_fd))
    }

    /// Does what there is to do.
    pub(super) fn look(&mut self, seen: &Seen) {
        // Whoever comes before output is read is shown it.
        if seen.door {
            self.audience.admit();
        }
        for (source, _) in self.sources.iter_mut().zip(seen.streams).filter(|(_, seen)| *seen) {
            source.bring(&mut self.writer, &mut self.audience);
        }
        if seen.input {
            self.audience.pass_on();
        }
        for (reader, _) in seen.readers.iter().enumerate().filter(|(_, seen)| **seen) {
            self.audience.attend(reader);
        }
    }

    /// Gives back the memory that holds nothing, before a long wait.
    ///
    /// # Safety
    /// It is on the stack or the heap.
    pub(super) unsafe fn rest(&mut self) {
        let Self {
            writer,
            sources: [out, err],
            audience,
        } = self;
        let parts = [writer.spare(), out.pieces.spare(), err.pieces.spare(), audience.spare()];
        for part in parts {
            // SAFETY: the caller's promise.
            unsafe { longshore_linux::let_go_of_contents(part) };
        }
    }

    /// Brings all that the streams have, and ends the log.
    pub(super) fn finish(&mut self) {
        for source in &mut self.sources {
            let mut left = LAST;
            while let Brought::Bytes(length) = source.bring(&mut self.writer, &mut self.audience) {
                left = left.saturating_sub(length);
                if left == 0 {
                    break;
                }
            }
            source.end(&mut self.writer);
        }
        self.audience.finish();
    }
}

impl Source {
    fn bring(&mut self, writer: &mut LogWriter, audience: &mut Audience) -> Brought {
        let Some(from) = &self.from else {
            return Brought::Nothing;
        };
        let mut buffer = [0u8; PIECE];
        match rustix::io::read(from, &mut buffer) {
            Err(Errno::INTR | Errno::AGAIN) => Brought::Nothing,
            // A terminal's master says EIO when the last one of the other side is closed.
            Ok(0) | Err(_) => {
                self.end(writer);
                Brought::Nothing
            }
            Ok(length) => {
                let (stream, at) = (self.stream, realtime());
                // What does not fit on the medium is lost: the container does not wait for it.
                let bytes = buffer.get(..length).unwrap_or_default();
                self.pieces.take(bytes, |piece| {
                    let _ = writer.put(stream, at, piece);
                });
                let _ = writer.flush();
                audience.show(stream, bytes);
                Brought::Bytes(length)
            }
        }
    }

    fn end(&mut self, writer: &mut LogWriter) {
        self.from = None;
        let (stream, at) = (self.stream, realtime());
        self.pieces.finish(|piece| {
            let _ = writer.put(stream, at, piece);
        });
        let _ = writer.flush();
    }
}
