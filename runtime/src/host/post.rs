use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};

use super::io_error;
use crate::Result;
use crate::init::report::Message;

/// The host's end of the way to a monitor. Dropped before the container is [settled](Self::settle), it makes the monitor kill the container and end.
#[derive(Debug)]
pub(crate) struct Post(OwnedFd);

impl Post {
    /// The host's end and the monitor's, which is 3 or higher.
    pub(super) fn new() -> Result<(Self, OwnedFd)> {
        let fail = || io_error("make a socket pair to talk to a container's monitor");
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(fail())?;
        let theirs = rustix::io::fcntl_dupfd_cloexec(&theirs, 3).map_err(fail())?;
        Ok((Self(ours), theirs))
    }

    /// Tells the monitor who its child is: one that was cloned by a helper it can't know.
    pub(super) fn child(&self, pidfd: BorrowedFd<'_>) -> Result<()> {
        self.say(Message::Child, &[pidfd])
    }

    /// Hands the monitor the container's terminal, whose output it is to record.
    pub(super) fn terminal(&self, master: BorrowedFd<'_>) -> Result<()> {
        self.say(Message::Terminal, &[master])
    }

    /// Tells the monitor that the container's record is ready: it puts that in its place and lets the child, which is at the other end of `talk`, go on. From now on
    /// the container does not depend on this program.
    pub(super) fn settle(self, talk: BorrowedFd<'_>) -> Result<()> {
        self.say(Message::Settled, &[talk])
    }

    fn say(&self, message: Message, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let bytes = message.encode();
        let mut space = [std::mem::MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(fds));
        loop {
            let parts = [std::io::IoSlice::new(&bytes)];
            match sendmsg(self.0.as_fd(), &parts, &mut control, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                sent => return sent.map(drop).map_err(io_error("talk to a container's monitor")),
            }
        }
    }
}
