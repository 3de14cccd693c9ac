//! Where and when the kernel runs a process, and where its memory is: what rustix has only in part.

use nix::libc;
use rustix::io::Errno;

use crate::raw::syscall;

/// Scheduling attributes, laid out as the kernel's `struct sched_attr` of its first published size (sched_setattr(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)] // the names are those of sched_setattr(2)
pub struct SchedAttr {
    size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets the scheduling attributes of the calling thread (sched_setattr(2)). Async-signal-safe.
///
/// # Errors
/// `EPERM` for what needs `CAP_SYS_NICE`, `EINVAL` for values that do not fit the policy, `EBUSY` for a deadline that can't be kept.
pub fn set_scheduler(attributes: SchedAttr) -> Result<(), Errno> {
    let attributes = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        ..attributes
    };
    // SAFETY: the structure says its own size and outlives the call.
    unsafe { syscall!(libc::SYS_sched_setattr, 0, &raw const attributes, 0) }?;
    Ok(())
}

/// Sets the I/O priority of the calling thread (ioprio_set(2)): the class (1 real time, 2 best effort, 3 idle) and the level in it.
/// Async-signal-safe.
///
/// # Errors
/// `EPERM` for a class that needs a capability, `EINVAL` for a level above 7.
pub fn set_io_priority(class: u8, level: u8) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    let priority = i32::from(class) << 13 | i32::from(level);
    // SAFETY: no memory is passed.
    unsafe { syscall!(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) }?;
    Ok(())
}

/// Sets the CPUs on which the calling thread may run, one bit each (sched_setaffinity(2)). Async-signal-safe.
///
/// # Errors
/// `EINVAL` when none of them is there and allowed by the cpuset.
pub fn set_cpu_affinity(cpus: &[u64]) -> Result<(), Errno> {
    // SAFETY: the kernel reads as many bytes as are passed.
    unsafe { syscall!(libc::SYS_sched_setaffinity, 0, size_of_val(cpus), cpus.as_ptr()) }?;
    Ok(())
}

/// Sets the calling thread's NUMA policy (set_mempolicy(2)): the mode with its flags, and the nodes, one bit each. Async-signal-safe.
///
/// # Errors
/// `EINVAL` for nodes that the mode does not take or that are not there, `ENOSYS` from a kernel without NUMA.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<(), Errno> {
    let (mask, bits) = match nodes {
        [] => (std::ptr::null(), 0),
        // The kernel counts one bit more than there are.
        nodes => (nodes.as_ptr(), nodes.len() * 64 + 1),
    };
    // SAFETY: the kernel reads as many bits as are passed, rounded up to words, less one.
    unsafe { syscall!(libc::SYS_set_mempolicy, mode, mask, bits) }?;
    Ok(())
}

/// Sets the execution domain of the calling thread (personality(2)). Async-signal-safe.
///
/// # Errors
/// None that the kernel documents for the known domains.
pub fn set_personality(domain: u32) -> Result<(), Errno> {
    // SAFETY: no memory is passed.
    unsafe { syscall!(libc::SYS_personality, domain) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each in a thread of its own: they are per thread and can't be taken back.
    fn apart<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(f).join().expect("no panic")
    }

    fn status(name: &str) -> String {
        let text = std::fs::read_to_string("/proc/thread-self/status").expect("readable");
        let line = text.lines().find_map(|l| l.strip_prefix(name)).expect("it is there");
        line.trim().to_owned()
    }

    #[test]
    fn a_thread_is_put_on_its_cpus() {
        let first: u64 = 1
            << status("Cpus_allowed_list:")
                .split(['-', ','])
                .next()
                .map_or(0, |n| n.parse().unwrap_or(0u32));
        let list = apart(move || set_cpu_affinity(&[first]).map(|()| status("Cpus_allowed_list:")));
        assert_eq!(list, Ok(first.trailing_zeros().to_string()));
        assert_eq!(apart(|| set_cpu_affinity(&[0])), Err(Errno::INVAL));
    }

    #[test]
    fn a_thread_is_made_nicer_and_idle() {
        const SCHED_BATCH: u32 = 3;
        let attributes = SchedAttr {
            policy: SCHED_BATCH,
            nice: 7,
            ..SchedAttr::default()
        };
        let (nice, policy) = apart(move || {
            set_scheduler(attributes).expect("anybody may");
            set_io_priority(3, 0).expect("anybody may");
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("readable");
            let fields: Vec<_> = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split_ascii_whitespace()
                .map(str::to_owned)
                .collect();
            (fields[16].clone(), fields[38].clone())
        });
        assert_eq!((&*nice, &*policy), ("7", "3"));
        assert_eq!(
            apart(|| set_io_priority(7, 0)),
            Err(Errno::INVAL),
            "there is no such class"
        );
    }

    #[test]
    fn a_thread_has_a_personality() {
        let text = apart(|| {
            set_personality(8).expect("LINUX32");
            std::fs::read_to_string("/proc/thread-self/personality").expect("readable")
        });
        assert_eq!(text.trim(), "00000008");
    }
}
