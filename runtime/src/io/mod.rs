mod drained;
mod files;
mod pipes;
mod terminal;

use std::fmt::Debug;
use std::os::fd::OwnedFd;

pub use drained::{Drained, OutputGuard};
#[cfg(feature = "journald")]
pub(crate) use files::carry;
pub use pipes::PipeEnds;
pub(crate) use pipes::null;
pub use terminal::Terminal;

use crate::{Error, LogFile, Result};

/// The container's ends of its three streams.
#[derive(Debug)]
#[allow(missing_docs)] // the fields are the three streams
pub struct Stdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// **Port**: where a container's streams go.
///
/// # Contract
/// Exactly one of [`open`](Self::open) and [`console`](Self::console) is called, once, before the container's program runs: the first for a process without a
/// terminal, the second for one with. What reads or feeds the other ends is the implementation's own business (a thread of its own, say) and never stops the container
/// longer than the medium takes; it ends when the container's ends are closed.
pub trait Streams: Debug + Send + 'static {
    /// Opens the container's ends.
    fn open(self: Box<Self>) -> Result<Stdio>;

    /// Takes the master side of the container's terminal.
    fn console(self: Box<Self>, master: OwnedFd) -> Result<()>;

    /// The log that this is, if it is nothing else, and what its input is. The streams of a container that has a monitor are then the monitor's, without this program, and so
    /// without a call of the others here.
    fn log(&self) -> Option<(LogFile, Input)> {
        None
    }

    /// What tells that all output has reached its medium, for an implementation that carries it there itself. Asked for
    /// once, before the other two; [`Executor::wait`](crate::Executor::wait) waits for it.
    fn drained(&mut self) -> Option<Drained> {
        None
    }
}

/// What the input of a container is whose output goes into a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// None: it is at its end.
    #[default]
    None,
    /// What those type who are [attached](crate::Executor::attach). It ends when one of them says so, not when they leave.
    OfThoseAttached,
}

/// Where a container's streams go: one of ours, or the user's own.
///
/// Each of ours serves a process with a terminal as well, when that makes sense: [`file`](Self::file) and
/// [`json_lines`](Self::json_lines) record what it shows, [`inherit`](Self::inherit) does not (a terminal must be connected by somebody: [`pty`](Self::pty)).
#[derive(Debug)]
pub struct Io(Box<dyn Streams>);

impl Io {
    /// The user's own streams.
    pub fn custom(streams: impl Streams) -> Self {
        Self(Box::new(streams))
    }

    /// The log that it is, if it is nothing else.
    pub(crate) fn log_file(&self) -> Option<(LogFile, Input)> {
        self.0.log()
    }

    /// The implementation inside.
    pub fn into_streams(self) -> Box<dyn Streams> {
        self.0
    }
}

/// The error for streams that can't serve a terminal.
fn no_terminal(what: &str) -> Error {
    Error::Unsupported {
        field: "process.terminal".into(),
        reason: format!("{what} can't serve a terminal; use Io::pty or leave the field out"),
    }
}
