use std::os::fd::{FromRawFd, OwnedFd, RawFd};

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
    /// Those that end a process that does nothing about them, but for `SIGKILL`: to ask it to end, and for its own errors.
    pub const ENDING: Self = Self::of(&[
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGSEGV,
        libc::SIGSYS,
        libc::SIGTERM,
    ]);

    const fn of(signals: &[i32]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < signals.len() {
            bits |= 1 << (signals[i] - 1);
            i += 1;
        }
        Self(bits)
    }
}

/// A descriptor from which the signals of a mask are read, one by one; they must be blocked (signalfd(2)). Close-on-exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn signal_descriptor(mask: SignalMask) -> Result<OwnedFd, Errno> {
    // SAFETY: the set is eight bytes, which is the size that is passed, and outlives the call.
    let fd = unsafe {
        syscall!(
            libc::SYS_signalfd4,
            -1,
            &raw const mask.0,
            size_of::<u64>(),
            libc::SFD_CLOEXEC
        )
    }?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Takes the next signal from such a descriptor; waits for one if there is none.
///
/// # Errors
/// `EINTR`, and `EINVAL` for a descriptor of something else.
pub fn next_signal(descriptor: impl std::os::fd::AsFd) -> Result<i32, Errno> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    let read = rustix::io::read(descriptor, &mut info[..])?;
    // Its first field is the number.
    match info.first_chunk() {
        Some(number) if read == info.len() => Ok(u32::from_ne_bytes(*number) as i32),
        _ => Err(Errno::INVAL),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_blocked_is_read_from_its_descriptor() {
        // The mask is this thread's, and so is the signal.
        let before = set_signal_mask(SignalMask::ENDING).expect("the mask is set");
        let descriptor = signal_descriptor(SignalMask::ENDING).expect("a descriptor");
        // SAFETY: it is blocked, so that no handler runs and nothing ends.
        assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
        assert_eq!(next_signal(&descriptor), Ok(libc::SIGTERM));
        set_signal_mask(before).expect("the mask is set back");
    }

    #[test]
    fn another_descriptor_gives_no_signals() {
        let null = std::fs::File::open("/dev/null").expect("there is one");
        assert_eq!(next_signal(&null), Err(Errno::INVAL));
    }
}
