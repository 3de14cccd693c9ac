//! Loading the seccomp filter. What comes after it is subject to it.

use std::os::fd::{BorrowedFd, RawFd};

use longshore_linux::load_seccomp_filter;
use rustix::io::Errno;

use super::report::{At, Call, Failure, Message};
use super::{Child, GO};
use crate::plan::op::Slot;
use crate::seccomp::{Filter, Handover};

impl Child<'_> {
    pub(super) fn load_filter(&mut self, filter: &Filter) -> Result<(), Failure> {
        let listener = load_seccomp_filter(&filter.instructions, filter.flags.into()).at(Call::Filter)?;
        match filter.listener {
            None => Ok(()),
            Some(Handover::Send) => {
                // SAFETY: the kernel has just opened it; it is close-on-exec and stays open until then, because the filter may not
                // allow close(2).
                let listener = unsafe { BorrowedFd::borrow_raw(listener) };
                self.slots.send(Message::Listener, listener)
            }
            Some(Handover::Take) => self.have_taken(listener),
        }
    }

    /// Only write(2) and read(2) are used: the filter was looked through for them.
    fn have_taken(&self, listener: RawFd) -> Result<(), Failure> {
        let socket = self.slots.get(Slot::REPORT)?;
        rustix::io::write(socket, &Message::ListenerAt(listener as u32).encode()).at(Call::Listener)?;
        let mut answer = [0u8; 1];
        loop {
            match rustix::io::read(socket, &mut answer[..]) {
                Err(Errno::INTR) => {}
                Ok(1) if answer[0] == GO => return Ok(()),
                Ok(_) => longshore_linux::exit_now(1),
                Err(errno) => return Err(errno).at(Call::Listener),
            }
        }
    }
}
