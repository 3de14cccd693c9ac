//! Signals of a foreground command: they are for the container. This is a program, so it may block and take them; a library may not.

use std::os::fd::OwnedFd;

use anyhow::Context;
use longshore_linux::send_signal;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::console::Resizer;
use crate::log::Log;

/// Signals that a fault of this very program raises; they are not for the container.
const FAULTS: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGSYS,
];

/// All signals of this process, as a queue to read.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks all signals, to read them. Before the first thread is started, which inherits that.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let mut all = SigSet::all();
        for fault in FAULTS {
            all.remove(fault);
        }
        all.thread_block().context("block signals")?;
        Ok(Self(
            SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC).context("make a signalfd")?,
        ))
    }

    /// Passes signals on to a process, resizes its terminal, and reaps orphans, until the process ends.
    pub(crate) fn serve(&self, pid: u32, resizer: Option<&Resizer>, log: &Log) -> anyhow::Result<()> {
        let pid = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("the process has no pid")?;
        // It is our child and not reaped yet, so that the pid is still its own; none means that it has ended already.
        let Ok(target) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(());
        };
        let server = Server {
            pid,
            target,
            resizer,
            log,
        };
        loop {
            let mut fds = [
                PollFd::new(&server.target, PollFlags::IN),
                PollFd::new(&self.0, PollFlags::IN),
            ];
            retry_on_intr(|| poll(&mut fds, None)).context("wait for the process and for signals")?;
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            if let Ok(Some(signal)) = self.0.read_signal() {
                server.handle(signal.ssi_signo);
            }
        }
    }
}

#[derive(Debug)]
struct Server<'a> {
    pid: Pid,
    target: OwnedFd,
    resizer: Option<&'a Resizer>,
    log: &'a Log,
}

impl Server<'_> {
    fn handle(&self, number: u32) {
        let Ok(signal) = i32::try_from(number) else { return };
        match Signal::try_from(signal) {
            Ok(Signal::SIGCHLD) => self.reap_strangers(),
            Ok(Signal::SIGWINCH) if self.resizer.is_some() => self.resizer.into_iter().for_each(Resizer::resize),
            _ => {
                self.log
                    .debug(|| format!("forwarding signal {signal} to {}", self.pid.as_raw_pid()));
                // One that has ended in this moment needs no signal.
                let _ = send_signal(&self.target, signal);
            }
        }
    }

    /// Reaps what a subreaper inherits: processes that lost their parent. The container's own is left to the executor.
    fn reap_strangers(&self) {
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        while let Ok(child) = waitid(Id::All, ended | WaitPidFlag::WNOWAIT) {
            let Some(pid) = child.pid().filter(|pid| pid.as_raw() != self.pid.as_raw_pid()) else {
                return;
            };
            if waitid(Id::Pid(pid), ended).is_err() {
                return;
            }
            self.log.debug(|| format!("process {pid} exited"));
        }
    }
}
