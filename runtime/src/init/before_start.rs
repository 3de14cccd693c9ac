//! Waiting for the start, and for the end before it.
//!
//! The first process of a PID namespace gets no signal that it does nothing about, but for `SIGKILL` (pid_namespaces(7)); so a container that is created
//! and not started could not be asked to end. Up to its start those signals are blocked, and it waits with a descriptor that gives them: a blocked
//! signal is kept, and there is no handler whose code would have to be safe in a copy of somebody else's process.

use std::os::fd::{AsFd, BorrowedFd};

use longshore_linux::{SignalMask, exit_now, next_signal, set_signal_mask, signal_descriptor};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::report::{At, Call, Failure};
use crate::plan::Program;
use crate::plan::op::Op;

/// What a shell adds to a signal's number.
const ENDED_BY_SIGNAL: i32 = 128;

/// What is blocked from the clone on: nothing in a process that such signals end by themselves.
pub(super) fn mask_until_start(program: &Program) -> SignalMask {
    let waits = program.steps.iter().any(|step| matches!(step.op, Op::AwaitStart));
    if waits && rustix::process::getpid().is_init() {
        SignalMask::ENDING
    } else {
        SignalMask::NONE
    }
}

/// A new program finds nothing blocked.
pub(super) fn unblock() -> Result<(), Failure> {
    set_signal_mask(SignalMask::NONE).map(drop).at(Call::Signals)
}

/// Waits until there is something to read. A signal that ends other processes ends this one too.
pub(super) fn until_readable(waited_for: BorrowedFd<'_>) -> Result<(), Failure> {
    if !rustix::process::getpid().is_init() {
        return Ok(());
    }
    // Where the limit of open files leaves no place, it waits without. The descriptor's place is free again for the connection.
    match signal_descriptor(SignalMask::ENDING) {
        Ok(signals) => until_readable_or_ended(waited_for, signals.as_fd()),
        Err(_) => Ok(()),
    }
}

fn until_readable_or_ended(waited_for: BorrowedFd<'_>, signals: BorrowedFd<'_>) -> Result<(), Failure> {
    loop {
        let mut both = [
            PollFd::new(&waited_for, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        match poll(&mut both, None) {
            Err(Errno::INTR) => continue,
            answer => answer.map(drop).at(Call::Accept)?,
        }
        if !both[1].revents().is_empty() {
            let signal = next_signal(signals).at(Call::Signals)?;
            exit_now((ENDED_BY_SIGNAL + signal) as u8);
        }
        if !both[0].revents().is_empty() {
            return Ok(());
        }
    }
}
