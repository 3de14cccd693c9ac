//! How the start signal reaches an init process, from this program or another one: a socket in the container's state directory.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, fchmod, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, send, socket_with,
};

use super::record::START_SOCKET;
use crate::Result;
use crate::host::{Answer, io_error};
use crate::init::report::{Message, receive};
use crate::init::{GO, START};

/// A socket's path is at most 108 bytes: the directory goes by its descriptor.
fn address(dir: &OwnedFd, name: &str) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

pub(crate) fn open_dir(dir: &Path) -> Result<OwnedFd, Errno> {
    openat(
        CWD,
        dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn new_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// The listening end of a socket of this name, to which only this user connects.
pub(super) fn listen_in(dir: &Path, name: &str) -> Result<OwnedFd> {
    let bound = (|| {
        let opened = open_dir(dir)?;
        let socket = new_socket()?;
        // What is made of it has its mode.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        bind(&socket, &address(&opened, name)?)?;
        listen(&socket, 1)?;
        Ok::<_, Errno>(socket)
    })();
    bound.map_err(io_error(format!("make the socket {}/{name}", dir.display())))
}

/// Whether an init process listens for its start. Its socket is no proof: whoever starts a container takes it away last, and may be
/// killed before. A listener that is gone refuses the connection.
pub(super) fn is_awaited_in(dir: &Path) -> bool {
    let asked = (|| {
        let opened = open_dir(dir)?;
        // It must not wait for an init that is slow to accept: one that others ask as well has its queue full, and listens.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        connect(&socket, &address(&opened, START_SOCKET)?)
    })();
    !matches!(asked, Err(Errno::NOENT | Errno::CONNREFUSED))
}

/// What came of a start signal.
#[derive(Debug)]
pub(super) enum Started {
    /// The program runs.
    Yes,
    /// A step failed on the way to the program.
    Failed(Message),
}

/// Gives the start signal; `None` when nobody waits for one.
pub(super) fn signal_start(dir: &Path) -> Result<Option<OwnedFd>> {
    let fail = || fail(dir);
    let socket = new_socket().map_err(io_error(fail()))?;
    let opened = match open_dir(dir) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened.map_err(io_error(fail()))?,
    };
    match connect(&socket, &address(&opened, START_SOCKET).map_err(io_error(fail()))?) {
        Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(None),
        connected => connected.map_err(io_error(fail()))?,
    }
    match send(&socket, &[START], SendFlags::NOSIGNAL) {
        Err(Errno::PIPE | Errno::CONNRESET) => return Ok(None),
        sent => sent.map_err(io_error(fail()))?,
    };
    let _ = fs::remove_file(dir.join(START_SOCKET));
    Ok(Some(socket))
}

fn fail(dir: &Path) -> String {
    format!("start over {}/{START_SOCKET}", dir.display())
}

/// Waits until the program runs. `attend` does what the child waits for on the way, and tells whether it waits for an answer.
pub(super) fn follow(
    socket: &OwnedFd,
    dir: &Path,
    mut attend: impl FnMut(Message, Option<OwnedFd>) -> Result<Answer>,
) -> Result<Started> {
    loop {
        match receive(socket) {
            // Closed by the execution of the program.
            Ok(None) | Err(Errno::CONNRESET) => return Ok(Started::Yes),
            Ok(Some((message @ (Message::AtStep(_) | Message::Listener | Message::ListenerAt(_)), fd))) => {
                if let Answer::Go = attend(message, fd)? {
                    // One that is gone is noticed by the next look.
                    let _ = send(socket, &[GO], SendFlags::NOSIGNAL);
                }
            }
            Ok(Some((message, _))) => return Ok(Started::Failed(message)),
            Err(errno) => return Err(errno).map_err(io_error(fail(dir))),
        }
    }
}
