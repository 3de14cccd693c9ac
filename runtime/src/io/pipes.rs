use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pipe::{PipeFlags, pipe_with};

use super::{Io, Stdio, Streams, no_terminal};
use crate::Result;
use crate::host::io_error;

/// The host's ends of a container's pipes. Each [`File`] blocks; reading ends when the container's ends are closed.
#[derive(Debug)]
#[allow(missing_docs)] // the fields are the three streams
pub struct PipeEnds {
    pub stdin: File,
    pub stdout: File,
    pub stderr: File,
}

impl Io {
    /// No input, and output that is thrown away.
    pub fn null() -> Self {
        Self::custom(Null)
    }

    /// The host program's own streams.
    pub fn inherit() -> Self {
        Self::custom(Inherit)
    }

    /// Three pipes, and the host's ends of them. A reader must keep up, or the container waits.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when the process has no descriptors left.
    pub fn pipe() -> Result<(Self, PipeEnds)> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(io_error("make a pipe"));
        let (stdin, to_stdin) = pipe()?;
        let (from_stdout, stdout) = pipe()?;
        let (from_stderr, stderr) = pipe()?;
        let ends = PipeEnds {
            stdin: to_stdin.into(),
            stdout: from_stdout.into(),
            stderr: from_stderr.into(),
        };
        Ok((Self::stdio(Stdio { stdin, stdout, stderr }), ends))
    }

    /// Descriptors that are open already.
    pub fn stdio(stdio: Stdio) -> Self {
        Self::custom(Given(stdio))
    }
}

/// Opens the null device.
pub(crate) fn null(flags: OFlags) -> Result<OwnedFd> {
    openat(CWD, c"/dev/null", flags | OFlags::CLOEXEC, Mode::empty()).map_err(io_error("open /dev/null"))
}

#[derive(Debug)]
struct Null;

impl Streams for Null {
    fn open(self: Box<Self>) -> Result<Stdio> {
        Ok(Stdio {
            stdin: null(OFlags::RDONLY)?,
            stdout: null(OFlags::WRONLY)?,
            stderr: null(OFlags::WRONLY)?,
        })
    }

    fn console(self: Box<Self>, master: OwnedFd) -> Result<()> {
        // Somebody must read, or the program stops when the terminal's buffer is full.
        super::files::carry("null", master, None, |_| Ok(()))
    }
}

#[derive(Debug)]
struct Inherit;

impl Streams for Inherit {
    fn open(self: Box<Self>) -> Result<Stdio> {
        let copy = |fd: std::os::fd::BorrowedFd<'_>| {
            rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(io_error("duplicate a standard stream"))
        };
        Ok(Stdio {
            stdin: copy(rustix::stdio::stdin())?,
            stdout: copy(rustix::stdio::stdout())?,
            stderr: copy(rustix::stdio::stderr())?,
        })
    }

    fn console(self: Box<Self>, _master: OwnedFd) -> Result<()> {
        Err(no_terminal("inherited streams"))
    }
}

#[derive(Debug)]
struct Given(Stdio);

impl Streams for Given {
    fn open(self: Box<Self>) -> Result<Stdio> {
        Ok(self.0)
    }

    fn console(self: Box<Self>, _master: OwnedFd) -> Result<()> {
        Err(no_terminal("pipes"))
    }
}
