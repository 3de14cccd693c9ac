//! Where a container's output goes: to streams of this program's, or to its monitor.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::{Errno, fcntl_dupfd_cloexec, ioctl_fionbio};
use rustix::pipe::{PipeFlags, pipe_with};

use super::record::ATTACH_SOCKET;
use super::start_socket::listen_in;
use crate::host::{Inputs, io_error};
use crate::init::{LogDuty, Pipes, SEATS};
use crate::io::{Input, Streams, null};
use crate::{LogFile, Result, Stdio};

/// Who takes the output of a container.
pub(super) enum Outlet<T> {
    /// Streams of this program's, which may wait for a terminal.
    Host(Option<Box<dyn Streams>>),
    /// Its monitor.
    Monitor(T),
}

impl Outlet<LogDuty> {
    /// The monitor's part apart.
    pub(super) fn split(self) -> (Outlet<()>, Option<LogDuty>) {
        match self {
            Self::Host(streams) => (Outlet::Host(streams), None),
            Self::Monitor(log) => (Outlet::Monitor(()), Some(log)),
        }
    }
}

/// Opens the streams of a process whose monitor writes its log.
pub(super) fn leave_streams(
    (log, input): &(LogFile, Input),
    terminal: bool,
    dir: &Path,
    inputs: &mut Inputs,
) -> Result<LogDuty> {
    let listener = ours(listen_in(dir, ATTACH_SOCKET)?)?;
    rustix::net::listen(&listener, SEATS as i32).map_err(io_error("listen for those who want to be attached"))?;
    if terminal {
        return LogDuty::open(log, Pipes::default(), listener);
    }
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(io_error("make a pipe"));
    let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
    let (stdin, input) = match input {
        Input::None => (null(OFlags::RDONLY)?, None),
        Input::OfThoseAttached => {
            let (stdin, input) = pipe()?;
            (stdin, Some(ours(input)?))
        }
    };
    inputs.put_streams(Stdio { stdin, stdout, stderr })?;
    let output = [Some(ours(out)?), Some(ours(err)?)];
    LogDuty::open(log, Pipes { input, output }, listener)
}

/// A descriptor for a monitor, which waits for all that it has at once, and so for nothing alone.
fn ours(fd: OwnedFd) -> Result<OwnedFd> {
    let ours = || {
        ioctl_fionbio(&fd, true)?;
        fcntl_dupfd_cloexec(&fd, 3)
    };
    ours().map_err(|errno: Errno| io_error("prepare a descriptor for a container's monitor")(errno))
}
