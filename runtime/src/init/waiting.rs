//! Processes that only wait.

use std::os::fd::{BorrowedFd, RawFd};

#[cfg(feature = "systemd")]
use longshore_linux::set_parent_death_signal;
use longshore_linux::{exit_now, reset_signal_handlers};
use rustix::net::RecvFlags;

use super::close_others;

/// What a process does that only holds a user namespace: it ends when the other end of the socket does, or is killed before.
///
/// # Safety
/// As [`run`](super::run); the descriptor is open.
pub(crate) unsafe fn hold(socket: RawFd) -> ! {
    // SAFETY: the process only waits and ends; other threads of the host do not exist here.
    unsafe {
        reset_signal_handlers();
        close_others(&[socket]);
    }
    // SAFETY: the caller's promise.
    let socket = unsafe { BorrowedFd::borrow_raw(socket) };
    let mut byte = [0u8; 1];
    let _ = rustix::net::recv(socket, &mut byte[..], RecvFlags::empty());
    exit_now(0)
}

/// Waits to be killed, by its parent or with it.
#[cfg(feature = "systemd")]
pub(crate) fn wait_to_be_killed() -> ! {
    if set_parent_death_signal(9).is_err() {
        exit_now(1);
    }
    loop {
        rustix::event::pause();
    }
}
