use nix::libc;
use rustix::io::Errno;

use crate::raw::syscall;

const LAST_SIGNAL: i32 = 64;

/// A set of signals as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalMask(u64);

impl SignalMask {
    /// No signal.
    pub const NONE: Self = Self(0);
    /// All that can be blocked, glibc's own among them.
    pub const ALL: Self = Self(!0);
}

/// Replaces the calling thread's mask of blocked signals and returns the old one. Async-signal-safe; unlike
/// pthread_sigmask(3) it covers the signals that libc keeps for itself.
///
/// # Errors
/// None that the kernel documents for these arguments.
pub fn set_signal_mask(mask: SignalMask) -> Result<SignalMask, Errno> {
    let mut old = 0u64;
    // SAFETY: both sets are eight bytes, which is the size that is passed, and outlive the call.
    unsafe {
        syscall!(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask.0,
            &raw mut old,
            size_of::<u64>()
        )
    }?;
    Ok(SignalMask(old))
}

/// Gives every signal its default action, as a new program expects it; an ignored signal would stay ignored across
/// execve(2).
///
/// # Safety
/// Only for a child that will execute a program: it takes the handlers of the whole process away.
pub unsafe fn reset_signal_handlers() {
    // The kernel's `struct sigaction` with SIG_DFL is all zeroes on every architecture; 64 bytes hold the largest.
    let default = [0u64; 8];
    for signal in (1..=LAST_SIGNAL).filter(|s| ![libc::SIGKILL, libc::SIGSTOP].contains(s)) {
        // SAFETY: `default` is at least as large as the kernel reads; no old action is asked for.
        let _ = unsafe {
            syscall!(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>()
            )
        };
    }
}
