//! Being attached to a container that another program may have made: its output as it comes, and input for it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with};

use crate::host::io_error;
use crate::{OutputStream, Result};

/// The most input that goes in one piece.
pub(crate) const LONGEST_INPUT: usize = 4096;
/// The most output that comes in one piece.
const LONGEST_OUTPUT: usize = 64 * 1024;

/// What those who are attached and the monitor say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Output(OutputStream, &'a [u8]),
    Missed(u64),
    Input(&'a [u8]),
    CloseInput,
    Size { rows: u16, columns: u16 },
}

impl<'a> Frame<'a> {
    pub(crate) const MISSED: u8 = b'm';
    const INPUT: u8 = b'i';
    const CLOSE: u8 = b'c';
    const SIZE: u8 = b's';

    /// The kind of a frame of output.
    pub(crate) fn of_output(stream: OutputStream) -> u8 {
        match stream {
            OutputStream::Stdout => b'o',
            OutputStream::Stderr => b'e',
        }
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        Some(match *kind {
            b'o' => Self::Output(OutputStream::Stdout, rest),
            b'e' => Self::Output(OutputStream::Stderr, rest),
            Self::MISSED => Self::Missed(u64::from_ne_bytes(rest.try_into().ok()?)),
            Self::INPUT => Self::Input(rest),
            Self::CLOSE => Self::CloseInput,
            Self::SIZE => {
                let size: [u8; 4] = rest.try_into().ok()?;
                let [a, b, c, d] = size;
                Self::Size {
                    rows: u16::from_ne_bytes([a, b]),
                    columns: u16::from_ne_bytes([c, d]),
                }
            }
            _ => return None,
        })
    }
}

/// What comes over an [`Attachment`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shown {
    /// Output of the container's. That of a terminal comes as [`Stdout`](OutputStream::Stdout).
    Output(OutputStream, Vec<u8>),
    /// So many bytes were left out here, because this reader was slow: a container never waits for one. They are in its log.
    Missed(u64),
}

/// The connection to a container's monitor: [`Executor::attach`](crate::Executor::attach). Dropping it detaches, and the container goes on.
///
/// Any thread may use it; what it reads goes to one of them.
#[derive(Debug)]
pub struct Attachment {
    socket: OwnedFd,
}

impl Attachment {
    /// Connects to the socket in a container's state directory; none when nobody listens.
    pub(crate) fn connect(directory: &Path, name: &str) -> Result<Option<Self>> {
        let connected = (|| {
            let directory = crate::local::open_directory(directory)?;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
            let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
            connect(&socket, &rustix::net::SocketAddrUnix::new(path)?)?;
            Ok::<_, Errno>(socket)
        })();
        match connected {
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            connected => connected
                .map(|socket| Some(Self { socket }))
                .map_err(io_error(format!("connect to {}/{name}", directory.display()))),
        }
    }

    /// Waits for what comes next; `None` when the container has ended. Blocks.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn next(&self) -> Result<Option<Shown>> {
        let mut buffer = vec![0u8; 1 + LONGEST_OUTPUT];
        loop {
            let length = match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(None),
                received => received.map_err(io_error("read what a container says"))?.1,
            };
            match Frame::decode(&buffer[..length]) {
                Some(Frame::Output(stream, bytes)) => return Ok(Some(Shown::Output(stream, bytes.to_vec()))),
                Some(Frame::Missed(bytes)) => return Ok(Some(Shown::Missed(bytes))),
                _ => {}
            }
        }
    }

    /// Hands input to the container. Blocks while it takes none.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), also when it has ended. Input that a container does not want, or has been [closed](Self::close_input) for, is no error and lost.
    pub fn input(&self, bytes: &[u8]) -> Result<()> {
        bytes
            .chunks(LONGEST_INPUT)
            .try_for_each(|piece| self.send(Frame::INPUT, piece))
    }

    /// Ends the input of a container without a terminal, for everybody.
    ///
    /// # Errors
    /// As [`input`](Self::input).
    pub fn close_input(&self) -> Result<()> {
        self.send(Frame::CLOSE, &[])
    }

    /// Tells the container's terminal its size. Nothing for one without.
    ///
    /// # Errors
    /// As [`input`](Self::input).
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let ([a, b], [c, d]) = (rows.to_ne_bytes(), columns.to_ne_bytes());
        self.send(Frame::SIZE, &[a, b, c, d])
    }

    /// Detaches: whoever waits in [`next`](Self::next) is told that there is nothing more.
    pub fn detach(&self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    fn send(&self, kind: u8, bytes: &[u8]) -> Result<()> {
        let mut frame = vec![kind];
        frame.extend_from_slice(bytes);
        loop {
            match send(&self.socket, &frame, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                sent => return sent.map(drop).map_err(io_error("talk to a container's monitor")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_others_are_nothing() {
        for bytes in [&b""[..], b"x", b"m123", b"s123", b"s12345"] {
            assert_eq!(Frame::decode(bytes), None);
        }
        assert_eq!(Frame::decode(b"i"), Some(Frame::Input(b"")));
    }
}
