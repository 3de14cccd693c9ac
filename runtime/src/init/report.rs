//! What the child and the host say to each other: fixed-size messages over a socket that keeps their borders.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Calls that can fail, so that an error says which of a step's calls it was.
macro_rules! calls {
    ($($name:ident = $text:literal,)*) => {
        /// Which call of a step failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub(crate) enum Call { $($name,)* }

        impl Call {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $text),)*];
        }
    };
}

calls! {
    Protocol = "talk to the host",
    Accept = "wait for the start",
    Signals = "prepare for signals",
    Write = "write",
    Open = "open",
    OpenSource = "open the source",
    OpenTarget = "open the mount point",
    MakeTarget = "make the mount point",
    NotItself = "check the mount point: it must be mounted on ordinary directory, where no symbolic link leads",
    CoversRoot = "refuse a mount point that is the root itself",
    NotProc = "refuse what is no procfs, and would lie over /proc",
    CoversProc = "refuse a mount point that leads into /proc",
    FsOpen = "open the filesystem type",
    FsOption = "set a filesystem option",
    FsCreate = "make the filesystem",
    FsChange = "change the filesystem",
    FsMount = "make the mount",
    Mount = "mount",
    Attribute = "set mount attributes",
    Locked = "set mount attributes other than the source's, which are locked in a user namespace",
    CopyUp = "copy what the tmpfs covers",
    Label = "label the mount",
    Attach = "attach the mount",
    MakeNode = "make the node",
    Owner = "set the owner",
    MakeLink = "make the link",
    MakeDirectory = "make the directory",
    NoLink = "open the mount point, which must be no symbolic link",
    OtherDevice = "find the device that is asked for at the same path on the host",
    Null = "open the container's own null device",
    NotADevice = "find the device that it is named after",
    SetNs = "enter the namespace",
    Unshare = "make the namespace",
    SetGroups = "set supplementary groups",
    SetGroup = "set the group",
    SetUser = "set the user",
    Capabilities = "set capabilities",
    Ambient = "set ambient capabilities",
    Bounding = "drop a capability from the bounding set",
    Prctl = "set a process attribute",
    Session = "make a session",
    Terminal = "open a terminal",
    Controlling = "take the controlling terminal",
    Duplicate = "place a stream",
    PivotRoot = "change the root",
    HideOld = "hide the old root's procfs and sysfs",
    Unmount = "detach the old root",
    Chdir = "enter the directory",
    Outside = "make sure that the directory is inside the root",
    Name = "set the name",
    Limit = "set the limit",
    Filter = "load the filter",
    Listener = "hand the listener over",
    Find = "find the program",
    Execute = "execute",
    CloseRange = "mark descriptors close-on-exec",
    Clone = "clone into the joined namespaces",
    HostFile = "refuse to execute the host program's own file",
    TimeOffsets = "set the offsets of the clocks",
    Keyring = "join the session keyring",
    Scheduling = "set how it is scheduled",
}

impl Call {
    fn from_number(number: u32) -> Self {
        Self::ALL.get(number as usize).map_or(Self::Protocol, |(call, _)| *call)
    }

    /// What was being done, for an error's text.
    pub(crate) fn text(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// A call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) call: Call,
    pub(crate) errno: Errno,
}

/// Names the call of a system call's error.
pub(crate) trait At<T> {
    fn at(self, call: Call) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, call: Call) -> Result<T, Failure> {
        self.map_err(|errno| Failure { call, errno })
    }
}

/// What the child says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// It waits at this step for the host.
    AtStep(u32),
    /// A step failed.
    Failed { step: u32, failure: Failure },
    /// The terminal's master side comes with the message.
    Terminal,
    /// The child's pidfd comes with the message: it was cloned by a helper.
    Child,
    /// The seccomp listener comes with the message.
    Listener,
    /// The seccomp listener has this number in the child, which waits until it is taken.
    ListenerAt(u32),
    /// A mount comes with the message, whose ids the host is to map as this step says.
    Map(u32),
    /// The host's word to a monitor: the container's record is ready. The host's end of the child's socket comes with it.
    Settled,
}

impl Message {
    pub(crate) const SIZE: usize = 16;

    pub(crate) fn encode(self) -> [u8; Self::SIZE] {
        let words: [u32; 4] = match self {
            Self::AtStep(step) => [1, step, 0, 0],
            Self::Failed { step, failure } => [2, step, failure.call as u32, failure.errno.raw_os_error() as u32],
            Self::Terminal => [3, 0, 0, 0],
            Self::Child => [4, 0, 0, 0],
            Self::Listener => [5, 0, 0, 0],
            Self::ListenerAt(number) => [6, number, 0, 0],
            Self::Map(step) => [7, step, 0, 0],
            Self::Settled => [8, 0, 0, 0],
        };
        let mut bytes = [0; Self::SIZE];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = [0u32; 4];
        if bytes.len() != Self::SIZE {
            return None;
        }
        for (word, from) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(from.try_into().ok()?);
        }
        Some(match words[0] {
            1 => Self::AtStep(words[1]),
            2 => Self::Failed {
                step: words[1],
                failure: Failure {
                    call: Call::from_number(words[2]),
                    errno: Errno::from_raw_os_error((words[3] as i32).clamp(1, 4095)),
                },
            },
            3 => Self::Terminal,
            4 => Self::Child,
            5 => Self::Listener,
            6 => Self::ListenerAt(words[1]),
            7 => Self::Map(words[1]),
            8 => Self::Settled,
            _ => return None,
        })
    }
}

/// A message of a child and what came with it; `None` when it has closed its end. Allocates nothing.
pub(crate) fn receive(socket: impl AsFd) -> Result<Option<(Message, Option<OwnedFd>)>, Errno> {
    let mut bytes = [0u8; Message::SIZE];
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(received) => break received.bytes,
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let fd = control.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let message = Message::decode(&bytes[..length]).ok_or(Errno::PROTO)?;
    Ok(Some((message, fd)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let failure = Failure {
            call: Call::Execute,
            errno: Errno::NOENT,
        };
        for message in [
            Message::AtStep(7),
            Message::Failed { step: 3, failure },
            Message::Terminal,
            Message::Child,
            Message::Listener,
            Message::ListenerAt(9),
            Message::Map(4),
            Message::Settled,
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        assert_eq!(Message::decode(&[0; 16]), None);
        assert_eq!(Message::decode(&[1; 3]), None);
    }

    #[test]
    fn every_call_is_found_by_its_number() {
        for (i, (call, text)) in Call::ALL.iter().enumerate() {
            assert_eq!(Call::from_number(i as u32), *call);
            assert_eq!(call.text(), *text);
        }
    }
}
