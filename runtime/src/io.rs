use std::fmt::Debug;
use std::os::fd::OwnedFd;

use crate::Result;

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
/// Exactly one of the two methods is called, once, before the container's program runs: [`open`](Self::open) for a process without a terminal, [`console`](Self::console)
/// for one with. What reads or feeds the other ends is the implementation's own business (a thread of its own, say) and never stops the container
/// longer than the medium takes; it ends when the container's ends are closed.
pub trait Streams: Debug + Send + 'static {
    /// Opens the container's ends.
    fn open(self: Box<Self>) -> Result<Stdio>;

    /// Takes the master side of the container's terminal.
    fn console(self: Box<Self>, master: OwnedFd) -> Result<()>;
}

/// Where a container's streams go: one of ours, or the user's own.
#[derive(Debug)]
pub struct Io(Box<dyn Streams>);

impl Io {
    /// The user's own streams.
    pub fn custom(streams: impl Streams) -> Self {
        Self(Box::new(streams))
    }

    /// The implementation inside.
    pub fn into_streams(self) -> Box<dyn Streams> {
        self.0
    }
}
