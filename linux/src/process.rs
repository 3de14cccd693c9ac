use std::ffi::{CStr, c_char};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::libc;
use rustix::io::Errno;

use crate::raw::syscall;

/// Pointers to strings, closed by a null: what execve(2) takes. Laid out before a clone, used after it.
#[derive(Debug)]
pub struct CStringArray {
    strings: Box<[std::ffi::CString]>,
    /// Nobody writes through them: execve(2) only reads. Atomic, so that one can be exchanged in a value that is shared.
    pointers: Box<[AtomicPtr<c_char>]>,
}

impl CStringArray {
    /// Lays the strings out.
    pub fn new(strings: Vec<std::ffi::CString>) -> Self {
        let strings = strings.into_boxed_slice();
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]);
        let pointers = pointers.map(|p| AtomicPtr::new(p.cast_mut())).collect();
        Self { strings, pointers }
    }

    /// The strings.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.strings.iter().map(|s| s.as_c_str())
    }
}

impl Clone for CStringArray {
    fn clone(&self) -> Self {
        Self::new(self.strings.to_vec())
    }
}

/// Executes a program (execve(2)); returns only the reason why not. Async-signal-safe.
pub fn execve(path: &CStr, args: &CStringArray, env: &CStringArray) -> Errno {
    // SAFETY: the path and both arrays end in a null and outlive the call.
    let refused = unsafe {
        syscall!(
            libc::SYS_execve,
            path.as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr()
        )
    };
    refused.err().unwrap_or(Errno::NOEXEC)
}

/// The same with the last string of the environment replaced for this call, for one that is known only late. Async-signal-safe.
pub fn execve_replacing_last(path: &CStr, args: &CStringArray, env: &CStringArray, last: &CStr) -> Errno {
    // Before the null at the end.
    let Some(place) = env.strings.len().checked_sub(1).and_then(|i| env.pointers.get(i)) else {
        return execve(path, args, env);
    };
    let before = place.swap(last.as_ptr().cast_mut(), Ordering::Relaxed);
    let refused = execve(path, args, env);
    place.store(before, Ordering::Relaxed);
    refused
}

/// Ends the process without running any handler (exit_group(2)). Async-signal-safe.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(code.into()) }
}

/// Closes all descriptors from `first` to `last`, both included (close_range(2)).
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
///
/// # Safety
/// Nobody may use these descriptors any more: for a child that has its own table and will execute a program.
pub unsafe fn close_range(first: RawFd, last: RawFd) -> Result<(), Errno> {
    // SAFETY: no memory is passed; the descriptors' owners are the caller's business.
    unsafe { syscall!(libc::SYS_close_range, first as u32, last as u32, 0) }?;
    Ok(())
}

/// Marks all descriptors from `first` on close-on-exec.
///
/// # Errors
/// `EINVAL` before Linux 5.11.
pub fn close_on_exec_from(first: RawFd) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: no memory is passed, and a flag that the house sets everywhere is no surprise to an owner.
    unsafe { syscall!(libc::SYS_close_range, first as u32, u32::MAX, CLOSE_RANGE_CLOEXEC) }?;
    Ok(())
}

/// Duplicates `from` onto the number `to`, which stays open across execve(2); also when both are the same.
///
/// # Errors
/// `EBADF`.
///
/// # Safety
/// What `to` was before is closed, whoever owned it.
pub unsafe fn duplicate_onto(from: RawFd, to: RawFd) -> Result<(), Errno> {
    if from == to {
        // SAFETY: no memory is passed.
        unsafe { syscall!(libc::SYS_fcntl, to, libc::F_SETFD, 0) }?;
    } else {
        // SAFETY: no memory is passed.
        unsafe { syscall!(libc::SYS_dup3, from, to, 0) }?;
    }
    Ok(())
}

/// Asks for a signal when the *thread* that cloned the caller ends; 0 is none (prctl(2), `PR_SET_PDEATHSIG`).
///
/// # Errors
/// `EINVAL` for what is not a signal.
pub fn set_parent_death_signal(signal: i32) -> Result<(), Errno> {
    // SAFETY: no memory is passed.
    unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) }?;
    Ok(())
}

/// Drops a capability from the bounding set (prctl(2), `PR_CAPBSET_DROP`).
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`, `EINVAL` for a number that the kernel does not know.
pub fn drop_bounding_capability(number: u32) -> Result<(), Errno> {
    // SAFETY: no memory is passed.
    unsafe { syscall!(libc::SYS_prctl, libc::PR_CAPBSET_DROP, number, 0, 0, 0) }?;
    Ok(())
}

/// Empties the ambient set, then raises the capabilities of `set` in it (prctl(2), `PR_CAP_AMBIENT`).
///
/// # Errors
/// `EPERM` for one that is not permitted and inheritable.
pub fn set_ambient_capabilities(set: u64) -> Result<(), Errno> {
    // SAFETY: no memory is passed.
    unsafe {
        syscall!(
            libc::SYS_prctl,
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0
        )
    }?;
    for number in (0..64).filter(|n| set & (1 << n) != 0) {
        // SAFETY: no memory is passed.
        unsafe {
            syscall!(
                libc::SYS_prctl,
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                number,
                0,
                0
            )
        }?;
    }
    Ok(())
}

/// Capability sets of a thread, as bits by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of capabilities(7)
pub struct CapabilitySets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// The header and data of capset(2), version 3.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Sets the calling thread's capabilities (capset(2)).
///
/// # Errors
/// `EPERM` for one that is not permitted.
pub fn set_capabilities(sets: CapabilitySets) -> Result<(), Errno> {
    let header = [CAPABILITY_VERSION_3, 0];
    let data = [
        sets.effective as u32,
        sets.permitted as u32,
        sets.inheritable as u32,
        (sets.effective >> 32) as u32,
        (sets.permitted >> 32) as u32,
        (sets.inheritable >> 32) as u32,
    ];
    // SAFETY: version 3 reads a header of two words and two data structures of three words each.
    unsafe { syscall!(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }?;
    Ok(())
}

/// The calling thread's capabilities (capget(2)).
///
/// # Errors
/// None for the calling thread.
pub fn capabilities() -> Result<CapabilitySets, Errno> {
    let header = [CAPABILITY_VERSION_3, 0];
    let mut data = [0u32; 6];
    // SAFETY: version 3 reads a header of two words and writes two data structures of three words each.
    unsafe { syscall!(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) }?;
    let wide = |low: usize| u64::from(data[low]) | u64::from(data[low + 3]) << 32;
    Ok(CapabilitySets {
        effective: wide(0),
        permitted: wide(1),
        inheritable: wide(2),
    })
}

/// Sets a resource limit of the calling process (prlimit(2)), by the kernel's number of the resource.
///
/// # Errors
/// `EPERM` for a hard limit above the present one without `CAP_SYS_RESOURCE`; `EINVAL` when soft is above hard.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = [soft, hard];
    // SAFETY: the new limit is two 64-bit words that outlive the call; the old one is not asked for.
    unsafe {
        syscall!(
            libc::SYS_prlimit64,
            0,
            resource,
            limit.as_ptr(),
            std::ptr::null_mut::<u64>()
        )
    }?;
    Ok(())
}

/// Makes the terminal the controlling one of the calling session (ioctl_tty(2), `TIOCSCTTY`).
///
/// # Errors
/// `EPERM` for a process that leads no session or has one already.
pub fn set_controlling_terminal(terminal: impl std::os::fd::AsFd) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    // SAFETY: no memory is passed.
    unsafe { syscall!(libc::SYS_ioctl, terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }?;
    Ok(())
}

/// Loads a seccomp filter for the calling thread (seccomp(2)). Async-signal-safe. Returns the listener's descriptor number with
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`, else 0.
///
/// # Errors
/// `EACCES` without `CAP_SYS_ADMIN` or no_new_privs, `EINVAL` for a filter or flag that the kernel does not take.
pub fn load_seccomp_filter(filter: &[crate::SockFilter], flags: u64) -> Result<RawFd, Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel copies `len` instructions of eight bytes, which is what the slice has.
    let fd = unsafe {
        syscall!(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program
        )
    }?;
    Ok(fd as RawFd)
}

/// Whether the kernel takes these flags for a seccomp filter (seccomp(2), `SECCOMP_SET_MODE_FILTER`). Loads none.
pub fn knows_seccomp_flags(flags: u64) -> bool {
    // SAFETY: the kernel looks at the flags first, and then finds no filter at the null pointer.
    let refused = unsafe {
        syscall!(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::null::<libc::sock_fprog>()
        )
    };
    refused == Err(Errno::FAULT)
}

/// Length of the calling process's working directory's path, or `ENOENT` when it can't be reached from its root
/// (`(unreachable)` in getcwd(2)). Async-signal-safe: unlike getcwd(3) it never walks the tree.
///
/// # Errors
/// `ENOENT` for a directory that is unlinked or outside the root.
pub fn verify_cwd_inside_root() -> Result<(), Errno> {
    let mut buffer = [0u8; 4096];
    // SAFETY: the kernel writes at most the length that is passed.
    unsafe { syscall!(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) }?;
    if buffer[0] == b'/' { Ok(()) } else { Err(Errno::NOENT) }
}

/// Whether the caller, by its effective ids, may execute the file (faccessat2(2), `X_OK`).
///
/// # Errors
/// `ENOENT`, `EACCES`, `ENOSYS` before Linux 5.8.
pub fn may_execute(path: &CStr) -> Result<(), Errno> {
    // SAFETY: the path ends in a null and outlives the call.
    unsafe {
        syscall!(
            libc::SYS_faccessat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::X_OK,
            libc::AT_EACCESS
        )
    }?;
    Ok(())
}

/// Sets the user ids (real, effective, saved) of the calling thread (setresuid(2)), not of the whole process as libc's does.
///
/// # Errors
/// `EPERM`, and `EINVAL` for an id that the user namespace does not map.
pub fn set_user(uid: u32) -> Result<(), Errno> {
    // SAFETY: no memory is passed.
    unsafe { syscall!(libc::SYS_setresuid, uid, uid, uid) }?;
    Ok(())
}

/// Sets the group ids of the calling thread (setresgid(2)).
///
/// # Errors
/// As [`set_user`].
pub fn set_group(gid: u32) -> Result<(), Errno> {
    // SAFETY: no memory is passed.
    unsafe { syscall!(libc::SYS_setresgid, gid, gid, gid) }?;
    Ok(())
}

/// Sets the supplementary groups of the calling thread (setgroups(2)).
///
/// # Errors
/// `EPERM` also in a user namespace that may not.
pub fn set_groups(gids: &[u32]) -> Result<(), Errno> {
    // SAFETY: the kernel reads as many ids as the slice has.
    unsafe { syscall!(libc::SYS_setgroups, gids.len(), gids.as_ptr()) }?;
    Ok(())
}

/// Moves the calling thread into a namespace, or into those of a process when `namespace` is a pidfd (setns(2)).
///
/// # Errors
/// `EPERM`, `EINVAL` for one of another kind.
pub fn set_namespace(namespace: impl std::os::fd::AsFd, kinds: crate::Namespaces) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    // SAFETY: no memory is passed.
    unsafe { syscall!(libc::SYS_setns, namespace.as_fd().as_raw_fd(), kinds.bits()) }?;
    Ok(())
}

/// Gives the calling thread new namespaces (unshare(2)).
///
/// # Errors
/// `EPERM`, `ENOSPC` at a limit.
pub fn unshare(kinds: crate::Namespaces) -> Result<(), Errno> {
    // SAFETY: no memory is passed, and no descriptor table is unshared.
    unsafe { syscall!(libc::SYS_unshare, kinds.bits()) }?;
    Ok(())
}

/// The time since 1970 (clock_gettime(2), `CLOCK_REALTIME`). Async-signal-safe, and nothing but a system call.
pub fn realtime() -> std::time::Duration {
    let mut now = [0i64; 2];
    // SAFETY: the kernel writes two words, for which there is room; on the targets of ours a time has 64 bits.
    let told = unsafe { syscall!(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, now.as_mut_ptr()) };
    match (told, u64::try_from(now[0]), u32::try_from(now[1])) {
        (Ok(_), Ok(seconds), Ok(nanoseconds)) => std::time::Duration::new(seconds, nanoseconds),
        _ => std::time::Duration::ZERO,
    }
}
