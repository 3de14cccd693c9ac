use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use rustix::io::Errno;

use crate::raw::syscall;

/// What is known of the end of a process that a pidfd names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It has not ended.
    Running,
    /// It ended by itself, with this code.
    Code(u8),
    /// A signal ended it.
    Signal(i32),
    /// It ended and the kernel does not tell us how: it was not our child, or somebody else waited for it.
    Unknown,
}

impl Exit {
    /// The convention of shells: the code, or 128 and the signal. Unknown is 255, as containerd has it.
    pub fn shell_code(self) -> Option<u32> {
        match self {
            Self::Running => None,
            Self::Code(code) => Some(code.into()),
            Self::Signal(signal) => Some(128 + signal as u32),
            Self::Unknown => Some(255),
        }
    }
}

/// Reaps the process if it has ended and is a child of ours, else asks the pidfd itself (Linux 6.15 keeps the exit
/// there). Does not block.
///
/// # Errors
/// Those of waitid(2) other than `ECHILD`.
pub fn reap(pidfd: impl AsFd) -> Result<Exit, Errno> {
    let fd = pidfd.as_fd();
    // SAFETY: all zeroes is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    // SAFETY: `info` outlives the call; the usage pointer may be null.
    let waited = unsafe {
        syscall!(
            libc::SYS_waitid,
            libc::P_PIDFD,
            fd.as_raw_fd(),
            &raw mut info,
            options,
            std::ptr::null_mut::<libc::rusage>()
        )
    };
    match waited {
        Ok(_) => {
            // SAFETY: waitid fills the SIGCHLD member, or leaves zeroes when nothing has ended.
            let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
            Ok(match info.si_code {
                _ if pid == 0 => Exit::Running,
                libc::CLD_EXITED => Exit::Code(status as u8),
                _ => Exit::Signal(status),
            })
        }
        Err(Errno::CHILD) => Ok(recorded_exit(fd)),
        Err(errno) => Err(errno),
    }
}

/// Whether the process has ended, reaped or not. Does not reap it.
pub fn has_ended(pidfd: impl AsFd) -> bool {
    let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(rustix::event::poll(&mut poll, Some(&now)), Ok(0))
}

/// Sends a signal, which may be a real-time one or 0.
///
/// # Errors
/// `ESRCH` when it has ended, `EPERM`, `EINVAL`.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> Result<(), Errno> {
    // SAFETY: no memory is passed.
    unsafe {
        syscall!(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0
        )
    }?;
    Ok(())
}

/// The kernel's `struct pidfd_info`, first published size (Linux 6.13).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)` of 64 bytes.
const PIDFD_GET_INFO: u64 = 0xc040_ff0b;

/// How a process that was reaped by somebody else ended.
fn recorded_exit(pidfd: std::os::fd::BorrowedFd<'_>) -> Exit {
    if !has_ended(pidfd) {
        return Exit::Running;
    }
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the request carries the structure's size and the structure outlives the call.
    let told = unsafe { syscall!(libc::SYS_ioctl, pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if told.is_err() || info.mask & PIDFD_INFO_EXIT == 0 {
        return Exit::Unknown;
    }
    match info.exit_code & 0x7f {
        0 => Exit::Code((info.exit_code >> 8) as u8),
        signal => Exit::Signal(signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    fn ended(command: &str) -> (std::process::Child, std::os::fd::OwnedFd) {
        let child = std::process::Command::new("/bin/sh")
            .args(["-c", command])
            .spawn()
            .expect("sh starts");
        let pid = Pid::from_raw(child.id() as i32).expect("a pid");
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd");
        let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut poll, None).expect("it ends");
        (child, pidfd)
    }

    #[test]
    fn an_ended_child_is_reaped_with_its_code_or_signal() {
        let (_child, pidfd) = ended("exit 7");
        assert!(has_ended(&pidfd));
        assert_eq!(reap(&pidfd), Ok(Exit::Code(7)));
        let (_child, pidfd) = ended("kill -TERM $$");
        assert_eq!(reap(&pidfd), Ok(Exit::Signal(15)));
    }

    #[test]
    fn a_child_that_another_has_reaped_is_told_by_the_pidfd_or_unknown() {
        let (mut child, pidfd) = ended("exit 9");
        child.wait().expect("reaped by std");
        let exit = reap(&pidfd).expect("an answer");
        assert!(matches!(exit, Exit::Code(9) | Exit::Unknown), "{exit:?}");
    }

    #[test]
    fn a_child_that_runs_is_running() {
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("60")
            .spawn()
            .expect("sleep starts");
        let pid = Pid::from_raw(child.id() as i32).expect("a pid");
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd");
        assert_eq!(reap(&pidfd), Ok(Exit::Running));
        send_signal(&pidfd, 9).expect("a signal is sent");
        assert!(!child.wait().expect("it ends").success());
    }
}
