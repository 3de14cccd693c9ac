use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use bitflags::bitflags;
use nix::libc;
use rustix::io::Errno;
use rustix::process::Pid;

use crate::raw::syscall;

bitflags! {
    /// What a new process does not share with its parent (clone(2), the `CLONE_NEW*` flags).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Namespaces: u64 {
        /// Monotonic and boot clocks.
        const TIME = 0x80;
        /// Mounts.
        const MOUNT = 0x0002_0000;
        /// Root of the cgroup tree.
        const CGROUP = 0x0200_0000;
        /// Host name and NIS domain.
        const UTS = 0x0400_0000;
        /// System V IPC and POSIX message queues.
        const IPC = 0x0800_0000;
        /// User and group ids, capabilities, keys.
        const USER = 0x1000_0000;
        /// Process ids.
        const PID = 0x2000_0000;
        /// Network devices, addresses, sockets.
        const NETWORK = 0x4000_0000;
    }
}

/// Whose child the new process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChildOf {
    /// The caller's.
    #[default]
    Caller,
    /// The caller's parent's (`CLONE_PARENT`): the caller can end at once.
    CallersParent,
}

/// How to clone.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CloneOptions<'a> {
    /// New namespaces.
    pub namespaces: Namespaces,
    /// The cgroup v2 directory in which the child is born (`CLONE_INTO_CGROUP`).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whose child it is.
    pub child_of: ChildOf,
}

impl CloneOptions<'_> {
    /// Options with these new namespaces.
    pub fn new(namespaces: Namespaces) -> Self {
        Self {
            namespaces,
            ..Self::default()
        }
    }
}

/// On which side of the clone the caller is.
#[derive(Debug)]
pub enum Cloned {
    /// In the process that called.
    Parent {
        /// The child, in the caller's PID namespace.
        pid: Pid,
        /// The child again, as something that cannot be mistaken for a later process.
        pidfd: OwnedFd,
    },
    /// In the new process.
    Child,
}

/// The libc crate's constant is too narrow for its value.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The kernel's `struct clone_args`, as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Clones the calling thread into a process with a copy of the memory (clone3(2), as fork does).
///
/// The child's end raises no signal and is not seen by a `wait` for any child until it executes a program: it is nobody's
/// business but that of the pidfd's holder.
///
/// # Errors
/// Those of clone3(2): `EPERM` without the privilege for a namespace, `EAGAIN` and `ENOSPC` at limits.
///
/// # Safety
/// The child has one thread, whatever the parent has: locks may be held for ever, the allocator's among them. Until it
/// executes or exits it must not allocate, lock or unwind, and call only what signal-safety(7) allows.
pub unsafe fn clone3(options: CloneOptions<'_>) -> Result<Cloned, Errno> {
    let mut pidfd: libc::c_int = -1;
    let mut flags = options.namespaces.bits() | libc::CLONE_PIDFD as u64;
    if options.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    if options.child_of == ChildOf::CallersParent {
        flags |= libc::CLONE_PARENT as u64;
    }
    let args = CloneArgs {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        cgroup: options.cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    // SAFETY: the structure lives through the call and has the size that is passed; without CLONE_VM the child has its own
    // copy of this stack. What the child may do is the caller's promise.
    match unsafe { syscall!(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) }? {
        0 => Ok(Cloned::Child),
        pid => Ok(Cloned::Parent {
            pid: Pid::from_raw(pid as i32).expect("clone3 returns a positive pid in the parent"),
            // SAFETY: with CLONE_PIDFD the kernel stored a descriptor that is ours alone.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}
