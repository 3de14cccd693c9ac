use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use futures::channel::oneshot;
use rustix::termios::{Winsize, tcsetwinsize};

use super::{Io, Stdio, Streams};
use crate::host::io_error;
use crate::{Error, Result};

impl Io {
    /// A terminal, whose other side comes out of [`Terminal::master`] when the container is created. The process must ask
    /// for it (`process.terminal` of the spec).
    pub fn pty() -> (Self, Terminal) {
        let (sender, receiver) = oneshot::channel();
        (Self::custom(Pty(sender)), Terminal(receiver))
    }
}

/// The host's side of a terminal that is still to come.
#[derive(Debug)]
pub struct Terminal(oneshot::Receiver<OwnedFd>);

impl Terminal {
    /// The master side, once the container is created: what is written is typed, what is read is shown. Reading fails with `EIO`
    /// when the container has closed its side.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when the container was never created, or has no terminal.
    pub async fn master(self) -> Result<File> {
        let master = self.0.await.map_err(|_| Error::Io {
            action: "take the terminal of a container".into(),
            source: std::io::Error::other("the container was not created with a terminal"),
        })?;
        Ok(master.into())
    }

    /// Tells a terminal its size, and its programs by `SIGWINCH`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it is not a terminal.
    pub fn resize(master: impl AsFd, rows: u16, columns: u16) -> Result<()> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(master, size).map_err(io_error("set the size of a terminal"))
    }
}

#[derive(Debug)]
struct Pty(oneshot::Sender<OwnedFd>);

impl Streams for Pty {
    fn open(self: Box<Self>) -> Result<Stdio> {
        Err(Error::InvalidSpec {
            field: "process.terminal".into(),
            reason: "the streams are a terminal and the process asks for none; set it to true".into(),
        })
    }

    fn console(self: Box<Self>, master: OwnedFd) -> Result<()> {
        // One who does not want it any more has hung up.
        let _ = self.0.send(master);
        Ok(())
    }
}
