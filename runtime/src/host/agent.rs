//! The seccomp agent, which answers for system calls that a filter hands to it.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{LinuxSeccomp, Spec};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, sendmsg, socket_with, sockopt,
};
use rustix::process::PidfdGetfdFlags;
use serde_json::{Value, json};

use crate::init::report::Message;
use crate::{Error, Result};

/// How long an agent may keep a start waiting, for the connection and for each part that is sent.
const PATIENCE: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;

/// What becomes of a child's talk about its listener.
#[derive(Debug)]
#[must_use]
pub(crate) enum Answer {
    /// The child waits to be let on.
    Go,
    /// It does not wait.
    None,
}

/// The agent of a start, from the connection to the state that is sent over it (runtime spec, "The Container Process State").
#[derive(Debug)]
pub(crate) struct Agent<'a> {
    profile: Option<&'a LinuxSeccomp>,
    bundle: &'a Path,
    connection: Option<OwnedFd>,
}

impl<'a> Agent<'a> {
    /// The agent that the spec names, if it does. A path that is not absolute starts at the bundle.
    pub(crate) fn of(spec: &'a Spec, bundle: &'a Path) -> Self {
        Self {
            profile: spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()),
            bundle,
            connection: None,
        }
    }

    /// Connects, before the filter is loaded: without an agent nothing is to run.
    pub(crate) fn connect(&mut self) -> Result<()> {
        let path = self.path();
        let connection = (|| {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
            connect(&socket, &address(&path)?)?;
            Ok(socket)
        })();
        // The words are runc's: tools look for them.
        self.connection = Some(connection.map_err(failed(format!(
            "failed to connect with seccomp agent {}",
            path.display()
        )))?);
        Ok(())
    }

    /// Sends the listener that a child tells of, with what the agent needs to know.
    ///
    /// The child may run its program before this returns, and calls that go to the agent wait for it. If this fails, it ends the child first:
    /// with the listener closed, those calls would fail and the program would go on.
    pub(crate) fn hand_over(&mut self, listener: Listener<'_>, state: Value) -> Result<Answer> {
        let path = self.path();
        let fail = || format!("send the seccomp listener to the agent {}", path.display());
        let (fd, answer) = match listener.message {
            Message::ListenerAt(number) => {
                let taken = rustix::process::pidfd_getfd(listener.child, number as i32, PidfdGetfdFlags::empty());
                (
                    taken.map_err(failed("take the seccomp listener from the container".into()))?,
                    Answer::Go,
                )
            }
            _ => (listener.fd.ok_or(Errno::PROTO).map_err(failed(fail()))?, Answer::None),
        };
        let connection = self.connection.take().ok_or(Errno::NOTCONN).map_err(failed(fail()))?;
        let mut process = json!({
            "ociVersion": state["ociVersion"],
            "fds": ["seccompFd"],
            "pid": listener.pid,
            "state": state,
        });
        if let Some(metadata) = self.profile.and_then(|p| p.listener_metadata().as_ref()) {
            process["metadata"] = metadata.as_str().into();
        }
        let sent = send_all(&connection, process.to_string().as_bytes(), &fd);
        if sent.is_err() {
            let _ = longshore_linux::send_signal(listener.child, SIGKILL);
        }
        sent.map(|()| answer).map_err(failed(fail()))
    }

    fn path(&self) -> PathBuf {
        let path = self
            .profile
            .and_then(|p| p.listener_path().as_deref())
            .unwrap_or(Path::new(""));
        if path.as_os_str().as_bytes().starts_with(b"@") {
            return path.to_path_buf();
        }
        self.bundle.join(path)
    }
}

/// A listener that a child has made.
#[derive(Debug)]
pub(crate) struct Listener<'a> {
    pub(crate) message: Message,
    /// What came with the message.
    pub(crate) fd: Option<OwnedFd>,
    pub(crate) child: &'a OwnedFd,
    pub(crate) pid: i32,
}

fn failed(step: String) -> impl FnOnce(Errno) -> Error {
    |errno| Error::Step {
        field: "linux.seccomp.listenerPath".into(),
        step,
        source: errno.into(),
    }
}

/// `@name` is of the abstract namespace, as Go's programs have it.
fn address(path: &Path) -> Result<SocketAddrUnix, Errno> {
    match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
        name => SocketAddrUnix::new(name),
    }
}

/// The descriptor goes with the first bytes.
fn send_all(socket: &OwnedFd, bytes: &[u8], fd: &OwnedFd) -> Result<(), Errno> {
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let mut left = bytes;
    while !left.is_empty() {
        match sendmsg(socket, &[IoSlice::new(left)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => {
                left = &left[sent?..];
                control.clear();
            }
        }
    }
    Ok(())
}
