//! One conversation with CRIU: `criu swrk`, over a socket that keeps the messages' borders.

use std::ffi::CString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use longshore_linux::{Exit, reap};
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType, recvmsg,
    send, socketpair,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::message::{Kind, Response, go_on, question};
use crate::host::{io_error, wait_and_reap, wait_for_end};
use crate::{Error, Result, Stdio};

/// Where CRIU finds the socket.
const SOCKET: RawFd = 3;
/// Above what CRIU is given.
const HIGH: RawFd = 64;
/// The longest message.
const LONGEST: usize = 64 * 1024;

/// A CRIU that waits for a request. Dropped, it is told so by the closed socket, and waited for.
#[derive(Debug)]
pub(crate) struct Service {
    socket: Option<OwnedFd>,
    pidfd: OwnedFd,
    pid: i32,
}

impl Service {
    /// The number in CRIU of the first of the descriptors that it is passed.
    pub(crate) const PASSED: RawFd = SOCKET + 1;

    /// Starts the program with streams, or with none, and with descriptors from [`Self::PASSED`] on.
    pub(crate) fn start(program: &Path, streams: Option<&Stdio>, passed: &[OwnedFd]) -> Result<Self> {
        let fail = || format!("start {}, which makes and restores checkpoints", program.display());
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(io_error(fail()))?;
        let spawned = spawn(program, streams, [&theirs].into_iter().chain(passed));
        let pid = spawned.map_err(io_error(fail()))?;
        // It is a child that is not reaped: the pid is its own.
        let pidfd = Pid::from_raw(pid).ok_or(Errno::SRCH);
        let pidfd = pidfd.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        Ok(Self {
            socket: Some(ours),
            pidfd: pidfd.map_err(io_error(fail()))?,
            pid,
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Asks a question without options.
    pub(crate) fn answer(program: &Path, kind: Kind) -> Result<Response> {
        Self::start(program, None, &[])?.talk(kind, &question(kind), |_, _| Ok(()))
    }

    /// Sends a request, answers what CRIU tells on the way, and waits for its end.
    pub(crate) fn talk(
        mut self,
        kind: Kind,
        request: &[u8],
        mut on_notification: impl FnMut(&Response, Option<OwnedFd>) -> Result<()>,
    ) -> Result<Response> {
        self.send(request)?;
        let answer = loop {
            let (response, fd) = self.receive()?;
            if !response.success {
                let kind = format!("{kind:?}").to_uppercase();
                let message = Some(response.message.trim()).filter(|message| !message.is_empty());
                return Err(Error::Criu {
                    reason: format!(
                        "criu failed: type {kind} errno {}{}",
                        response.errno,
                        message.map(|message| format!(": {message}")).unwrap_or_default()
                    ),
                });
            }
            if response.kind != Some(Kind::Notify) {
                break response;
            }
            on_notification(&response, fd)?;
            self.send(&go_on())?;
        };
        self.socket = None;
        wait_for_end(&self.pidfd);
        let exit = reap(&self.pidfd);
        // After a memory dump it would wait for the next one, and fails as there is none.
        if kind != Kind::PreDump && !matches!(exit, Ok(Exit::Code(0) | Exit::Unknown) | Err(_)) {
            return Err(Error::Criu {
                reason: format!("criu failed after it had said that all was well: {exit:?}"),
            });
        }
        Ok(answer)
    }

    fn send(&self, message: &[u8]) -> Result<()> {
        let socket = self.socket.as_ref().ok_or(Errno::PIPE);
        socket
            .and_then(|socket| send(socket, message, SendFlags::NOSIGNAL))
            .map(drop)
            .map_err(io_error("talk to criu"))
    }

    fn receive(&self) -> Result<(Response, Option<OwnedFd>)> {
        let socket = self
            .socket
            .as_ref()
            .ok_or(Errno::PIPE)
            .map_err(io_error("talk to criu"))?;
        let mut bytes = vec![0u8; LONGEST];
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let length = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                received => break received.map_err(io_error("listen to criu"))?.bytes,
            }
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if length == 0 {
            return Err(Error::Criu {
                reason: "criu ended without an answer".into(),
            });
        }
        let response = Response::read(&bytes[..length]).ok_or_else(|| Error::Criu {
            reason: "criu's answer is none that this version understands".into(),
        })?;
        Ok((response, fd))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.socket.take().is_some() {
            wait_and_reap(&self.pidfd);
        }
    }
}

/// Runs `PROGRAM swrk 3`; the socket is the first of `passed`.
fn spawn<'a>(
    program: &Path,
    streams: Option<&Stdio>,
    passed: impl Iterator<Item = &'a OwnedFd>,
) -> Result<i32, std::io::Error> {
    let mut actions = PosixSpawnFileActions::init()?;
    // The sources are above the targets, so that no target closes a source.
    let mut kept = Vec::new();
    let mut place = |actions: &mut PosixSpawnFileActions, fd: &OwnedFd, target: RawFd| {
        let high = rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), HIGH)?;
        actions.add_dup2(high.as_raw_fd(), target)?;
        kept.push(high);
        Ok::<_, std::io::Error>(())
    };
    match streams {
        Some(streams) => {
            for (target, fd) in [&streams.stdin, &streams.stdout, &streams.stderr]
                .into_iter()
                .enumerate()
            {
                place(&mut actions, fd, target as RawFd)?;
            }
        }
        None => {
            for target in 0..3 {
                actions.add_open(target, c"/dev/null", OFlag::O_RDWR, Mode::empty())?;
            }
        }
    }
    for (target, fd) in (SOCKET..HIGH).zip(passed) {
        place(&mut actions, fd, target)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&SigSet::all())?;
    let program = CString::new(program.as_os_str().as_bytes())?;
    let socket = CString::new(SOCKET.to_string())?;
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
        .collect();
    let arguments = [program.as_c_str(), c"swrk", socket.as_c_str()];
    let pid = posix_spawnp(&program, &actions, &attributes, &arguments, &environment)?;
    Ok(pid.as_raw())
}
