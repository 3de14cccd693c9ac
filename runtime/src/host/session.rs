use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use longshore_linux::{Exit, reap, send_signal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, send};

use super::maps::{MapWriter, write_id_maps};
use super::net_devices::move_net_devices;
use super::{Agent, Answer, Listener, Post, Spawned, holder, io_error, spawner};
use serde_json::Value;

use crate::init::report::{Call, Message, receive};
use crate::init::{Ancestor, GO, HELPER_STEP, MONITOR_STEP};
use crate::plan::op::{Op, Rendezvous};
use crate::plan::{HostFacts, Privilege, Program};
use crate::{Error, Result};

const SIGKILL: i32 = 9;

/// What the child waits for.
#[derive(Debug)]
pub(crate) enum Meeting {
    /// The hooks of the create phase.
    Hooks,
    /// The record of its creation.
    Created,
    /// Somebody to take its terminal.
    Terminal(OwnedFd),
    /// A connection to the seccomp agent.
    Agent,
    /// Its listener handed to the agent.
    Listener(Message, Option<OwnedFd>),
    /// Nothing: it runs its program.
    Gone,
}

/// The talk with a child from its clone until it is created. A session that is dropped before kills the child and waits
/// for its end.
#[derive(Debug)]
#[must_use = "a session that is dropped kills its child"]
pub(crate) struct Session {
    program: Arc<Program>,
    socket: OwnedFd,
    pidfd: Option<OwnedFd>,
    pid: i32,
    ancestor: Ancestor,
    /// The monitor and the way to speak to it. Before the child is known, the monitor is the session's process.
    monitor: Option<(i32, OwnedFd)>,
    post: Option<Post>,
    /// A step at which the child waits while the helper has yet to say who it is.
    held: Option<u32>,
    /// Whether it has come to its last meeting, after which the end of the socket is its program's start.
    ready: bool,
    /// Whether it has said anything.
    heard: bool,
    mappings: holder::Mappings,
}

impl Session {
    pub(crate) fn new(program: Arc<Program>, socket: OwnedFd, spawned: Spawned) -> Self {
        let Spawned {
            pidfd,
            pid,
            ancestor,
            post,
        } = spawned;
        // The words are runc's, for each thing that happens here as well: tools look for them.
        tracing::debug!(pid, namespaces = ?program.unshare, "nsexec container setup: cloned");
        Self {
            program,
            socket,
            pidfd: Some(pidfd),
            pid,
            ancestor,
            monitor: None,
            post,
            held: None,
            ready: false,
            heard: false,
            mappings: holder::Mappings::default(),
        }
    }

    /// The child, in the host's PID namespace.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// The child's pidfd.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        let only = "only into_pidfd takes it, and it takes the session";
        self.pidfd.as_ref().expect(only).as_fd()
    }

    /// The same, for good. The child is nobody's to kill from now on.
    pub(crate) fn into_pidfd(mut self) -> OwnedFd {
        self.pidfd
            .take()
            .expect("only this call takes it, and it takes the session")
    }

    /// The pid of the child's monitor, if it has one.
    pub(crate) fn monitor_pid(&self) -> Option<i32> {
        self.monitor.as_ref().map(|(pid, _)| *pid)
    }

    /// The child's monitor, for good.
    pub(crate) fn take_monitor(&mut self) -> Option<OwnedFd> {
        self.monitor.take().map(|(_, monitor)| monitor)
    }

    /// Hands the container's terminal to its monitor.
    pub(crate) fn leave_terminal(&self, master: &OwnedFd) -> Result<()> {
        let post = self.post.as_ref();
        post.map_or(Ok(()), |post| post.terminal(master.as_fd()))
    }

    /// Whether the child has a monitor.
    pub(crate) fn is_monitored(&self) -> bool {
        self.monitor.is_some()
    }

    /// Leaves the child to its monitor, which puts the container's record in its place and lets the child go on.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let socket = self.socket.as_fd();
        self.post.take().map_or(Ok(()), |post| post.settle(socket))
    }

    /// Lets the child go on from where it waits.
    pub(crate) fn go(&self) -> Result<()> {
        send(&self.socket, &[GO], SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(|errno| self.ended_early(errno))
    }

    /// Waits until the child waits for something that is not this session's own business.
    pub(crate) fn next(&mut self, facts: &HostFacts) -> Result<Meeting> {
        loop {
            let Some((message, fd)) = receive(&self.socket).map_err(|errno| self.ended_early(errno))? else {
                return if self.ready {
                    Ok(Meeting::Gone)
                } else {
                    Err(self.ended_early(Errno::PIPE))
                };
            };
            if !std::mem::replace(&mut self.heard, true) {
                tracing::debug!(pid = self.pid, "child process in init()");
            }
            match message {
                Message::Failed { step, failure } => {
                    if self.ancestor != Ancestor::Host && ![HELPER_STEP, MONITOR_STEP].contains(&step) {
                        // The child was faster than the helper, which still has to say who it is: nobody else can reap it.
                        self.adopt_late();
                    }
                    return Err(self.failed(step, failure));
                }
                Message::Child => {
                    self.adopt(fd)?;
                    if let Some(step) = self.held.take()
                        && let Some(meeting) = self.at_step(step, facts)?
                    {
                        return Ok(meeting);
                    }
                }
                Message::AtStep(step) if self.ancestor != Ancestor::Host => self.held = Some(step),
                // Nobody tells it to the host.
                Message::Settled => return Err(self.out_of_turn()),
                Message::Listener | Message::ListenerAt(_) => return Ok(Meeting::Listener(message, fd)),
                Message::Map(step) => {
                    self.map_ids(step, fd)?;
                    self.go()?;
                }
                Message::Terminal => {
                    return fd.map(Meeting::Terminal).ok_or_else(|| self.ended_early(Errno::PROTO));
                }
                Message::AtStep(step) => {
                    if let Some(meeting) = self.at_step(step, facts)? {
                        return Ok(meeting);
                    }
                }
            }
        }
    }

    /// Maps the owners on a mount that the child has made: who has the filesystem may, and the child may not have it.
    fn map_ids(&mut self, step: u32, mount: Option<OwnedFd>) -> Result<()> {
        let program = Arc::clone(&self.program);
        let asked = program.steps.get(step as usize).and_then(|s| match &s.op {
            Op::Mount(mount) => Some((mount.id_map.as_ref()?, &mount.at, &s.field)),
            _ => None,
        });
        let (Some((ids, at, field)), Some(mount)) = (asked, mount) else {
            return Err(self.ended_early(Errno::PROTO));
        };
        let own;
        let namespace = match &ids.maps {
            Some(maps) => match self.mappings.get(maps) {
                // It was written as if it were the container's.
                Err(Error::Step {
                    field: map,
                    step,
                    source,
                }) => {
                    let field = format!("{field}.{}", map.trim_start_matches("linux."));
                    return Err(Error::Step { field, step, source });
                }
                made => made?,
            },
            None => {
                own = holder::of_process(self.pid)?;
                &own
            }
        };
        longshore_linux::map_mount_ids(mount, ids.depth, namespace).map_err(|errno| {
            let hint = match errno {
                Errno::INVAL => "; the filesystem may not be able to",
                Errno::PERM => "; they may be mapped already",
                _ => "",
            };
            Error::Step {
                field: field.clone(),
                step: format!("map the ids of the mount for {at}{hint}"),
                source: errno.into(),
            }
        })
    }

    /// Has the agent take the child's listener over.
    pub(crate) fn hand_over(
        &self,
        agent: &mut Agent<'_>,
        said: (Message, Option<OwnedFd>),
        state: Value,
    ) -> Result<()> {
        let child = self
            .pidfd
            .as_ref()
            .expect("only into_pidfd takes it, and it takes the session");
        let (message, fd) = said;
        let pid = self.pid;
        match agent.hand_over(
            Listener {
                message,
                fd,
                child,
                pid,
            },
            state,
        )? {
            Answer::Go => self.go(),
            Answer::None => Ok(()),
        }
    }

    /// After [`go`](Self::go) at the last meeting: waits until the child has closed its end, because its program runs or because it
    /// waits for its start.
    pub(crate) fn until_let_go(&self) -> Result<()> {
        let mut bytes = [0u8; Message::SIZE];
        loop {
            match rustix::net::recv(&self.socket, &mut bytes[..], RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Ok((_, 0)) => {
                    tracing::debug!(pid = self.pid, "init: closing the pipe to signal completion");
                    return Ok(());
                }
                Ok((_, length)) => match Message::decode(&bytes[..length.min(Message::SIZE)]) {
                    Some(Message::Failed { step, failure }) => return Err(self.failed(step, failure)),
                    _ => return Err(self.ended_early(Errno::PROTO)),
                },
                Err(errno) => return Err(self.ended_early(errno)),
            }
        }
    }

    fn at_step(&mut self, step: u32, facts: &HostFacts) -> Result<Option<Meeting>> {
        match self.program.steps.get(step as usize).map(|s| &s.op) {
            Some(Op::Meet(Rendezvous::Placed)) => {
                self.place(facts)?;
                self.go()?;
                Ok(None)
            }
            Some(Op::Meet(Rendezvous::NetDevices)) => {
                move_net_devices(&self.program.net_devices, self.pid)?;
                self.go()?;
                Ok(None)
            }
            Some(Op::Meet(Rendezvous::Hooks)) => Ok(Some(Meeting::Hooks)),
            Some(Op::Meet(Rendezvous::Created | Rendezvous::Ready)) => {
                self.ready = true;
                Ok(Some(Meeting::Created))
            }
            Some(Op::Meet(Rendezvous::Agent)) => Ok(Some(Meeting::Agent)),
            _ => Err(self.ended_early(Errno::PROTO)),
        }
    }

    fn place(&self, facts: &HostFacts) -> Result<()> {
        if let Some(adjust) = self.program.oom_score_adj {
            let path = format!("/proc/{}/oom_score_adj", self.pid);
            std::fs::write(&path, adjust.to_string()).map_err(|source| Error::Step {
                field: "process.oomScoreAdj".into(),
                step: format!("write {adjust} to {path}"),
                source,
            })?;
        }
        let Some(maps) = &self.program.id_maps else {
            return Ok(());
        };
        let full = facts.privilege == Privilege::Full;
        let writer = if full || maps.is_single() {
            MapWriter::Ourselves
        } else {
            MapWriter::Helpers
        };
        write_id_maps(self.pid, maps, writer, full)
    }

    /// The helper has cloned the child: from now on it is what this session is about.
    fn adopt(&mut self, fd: Option<OwnedFd>) -> Result<()> {
        let child = fd.ok_or_else(|| self.ended_early(Errno::PROTO))?;
        let pid = pid_of(&child)?;
        if let Some(post) = &self.post {
            post.child(child.as_fd())?;
            self.monitor = self.pidfd.replace(child).map(|monitor| (self.pid, monitor));
        } else if let Some(helper) = self.pidfd.replace(child) {
            wait_and_reap(&helper);
        }
        self.pid = pid;
        self.ancestor = Ancestor::Host;
        Ok(())
    }

    /// The child said what it could not say yet.
    pub(crate) fn out_of_turn(&self) -> Error {
        self.ended_early(Errno::PROTO)
    }

    /// Waits for the helper's word about a child that has spoken already.
    fn adopt_late(&mut self) {
        while let Ok(Some((message, fd))) = receive(&self.socket) {
            if message == Message::Child {
                let _ = self.adopt(fd);
                return;
            }
        }
    }

    /// The child that a helper which has ended has told of, if it has.
    fn told_child(&self) -> Option<OwnedFd> {
        rustix::io::ioctl_fionbio(&self.socket, true).ok()?;
        while let Ok(Some((message, fd))) = receive(&self.socket) {
            if message == Message::Child {
                return fd;
            }
        }
        None
    }

    /// The child went away without a word.
    fn ended_early(&self, errno: Errno) -> Error {
        let how = match self.pidfd.as_ref().map(wait_for_exit) {
            Some(Exit::Signal(signal)) => format!("signal {signal} ended it"),
            Some(Exit::Code(code)) => format!("it exited with {code}"),
            _ => "it ended".to_owned(),
        };
        Error::Step {
            field: "process".into(),
            step: format!("the init process was gone before its program ran: {how}"),
            source: errno.into(),
        }
    }

    fn failed(&self, step: u32, failure: crate::init::report::Failure) -> Error {
        step_error(&self.program, step, failure)
    }
}

/// The error of a step, with the field that asked for it.
pub(crate) fn step_error(program: &Program, step: u32, failure: crate::init::report::Failure) -> Error {
    if step == MONITOR_STEP {
        return io_error(spawner::cloning(program))(failure.errno);
    }
    let source = failure.errno.into();
    if step == HELPER_STEP && failure.call == Call::TimeOffsets {
        return Error::Step {
            field: "linux.timeOffsets".into(),
            step: failure.call.text().to_owned(),
            source,
        };
    }
    if step == HELPER_STEP {
        return Error::Step {
            field: "linux.namespaces".into(),
            step: format!("join a namespace: {}", failure.call.text()),
            source,
        };
    }
    match program.steps.get(step as usize) {
        Some(s) => Error::Step {
            field: s.field.clone(),
            step: crate::plan::explain(program, &s.op, failure),
            source,
        },
        None => Error::Step {
            field: "process".into(),
            step: failure.call.text().to_owned(),
            source,
        },
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(pidfd) = self.pidfd.take() else { return };
        // A monitor that is let go of kills what it knows of and ends.
        let monitored = self.post.take().is_some();
        if self.ancestor != Ancestor::Host {
            // It waits for nothing, and ends by itself unless somebody has frozen it.
            let patience = rustix::event::Timespec { tv_sec: 2, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience));
            if !monitored {
                let _ = send_signal(&pidfd, SIGKILL);
            }
            wait_and_reap(&pidfd);
            // What it has cloned is told by now, and only we can reap it.
            if let Some(child) = self.told_child() {
                let _ = send_signal(&child, SIGKILL);
                wait_and_reap(&child);
            }
            return;
        }
        let _ = send_signal(&pidfd, SIGKILL);
        wait_and_reap(&pidfd);
        if let Some((_, monitor)) = &self.monitor {
            wait_and_reap(monitor);
        }
    }
}

fn wait_for_exit(pidfd: &OwnedFd) -> Exit {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    // The socket is closed, so that the end is near; a second is more than enough to learn how.
    let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
    let _ = poll(&mut fds, Some(&second));
    // A monitor reaps its child, and only then does the kernel tell others.
    let told = || reap(pidfd).ok().filter(|exit| *exit != Exit::Unknown);
    let again = || {
        std::thread::sleep(std::time::Duration::from_millis(2));
        told()
    };
    told()
        .or_else(|| (0..50).find_map(|_| again()))
        .unwrap_or(Exit::Unknown)
}

/// Waits for the end of a process.
pub(crate) fn wait_for_end(pidfd: impl AsFd) {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    while poll(&mut fds, None) == Err(Errno::INTR) {}
}

/// Waits for the end of a child and reaps it.
pub(crate) fn wait_and_reap(pidfd: impl AsFd) {
    wait_for_end(&pidfd);
    let _ = reap(&pidfd);
}

/// The process of a pidfd, as this process's /proc numbers it.
fn pid_of(pidfd: &OwnedFd) -> Result<i32> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(&path).map_err(io_error(format!("read {path}")))?;
    let pid = text.lines().find_map(|l| l.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|pid| *pid > 0).ok_or_else(|| Error::Corrupt {
        path: path.into(),
        reason: "it names no process".into(),
    })
}
