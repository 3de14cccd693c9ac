//! The one way into the kernel for calls that nix and rustix lack.
//!
//! `libc::syscall` is nothing but the trap and `errno`: no allocation, no lock, so that it may be called in the child of
//! a program with threads.

use nix::libc::{self, c_long};
use rustix::io::Errno;

/// The result of a system call, from what `libc::syscall` returned.
pub(crate) fn check(returned: c_long) -> Result<u64, Errno> {
    if returned == -1 {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        Err(Errno::from_raw_os_error(errno))
    } else {
        Ok(returned as u64)
    }
}

/// Calls the kernel with up to six arguments.
macro_rules! syscall {
    ($nr:expr $(, $arg:expr)* $(,)?) => {
        $crate::raw::check(nix::libc::syscall($nr $(, $arg)*))
    };
}
pub(crate) use syscall;
