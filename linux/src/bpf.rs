//! BPF: the instructions of its classic form, which seccomp(2) takes, and bpf(2) as far as cgroups need it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;

/// One instruction of classic BPF, laid out as the kernel's `struct sock_filter`: an array of them is what
/// seccomp(2) takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SockFilter {
    /// Class, mode, size and operation.
    pub code: u16,
    /// How many instructions to skip if a comparison holds.
    pub jt: u8,
    /// How many to skip if it does not.
    pub jf: u8,
    /// The operand: a constant, an offset or a distance.
    pub k: u32,
}

/// One instruction of eBPF, laid out as the kernel's `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EbpfInstruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl EbpfInstruction {
    /// An instruction with its destination and source register (0 to 10), offset and immediate operand.
    pub const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        let registers = if cfg!(target_endian = "big") {
            destination << 4 | source & 15
        } else {
            source << 4 | destination & 15
        };
        Self {
            code,
            registers,
            offset,
            immediate,
        }
    }

    /// Class, mode and operation.
    pub const fn code(self) -> u8 {
        self.code
    }

    /// The register that is written or compared.
    pub const fn destination(self) -> u8 {
        if cfg!(target_endian = "big") {
            self.registers >> 4
        } else {
            self.registers & 15
        }
    }

    /// The register that is read.
    pub const fn source(self) -> u8 {
        if cfg!(target_endian = "big") {
            self.registers & 15
        } else {
            self.registers >> 4
        }
    }

    /// How far a jump goes, or where in memory a load is from.
    pub const fn offset(self) -> i16 {
        self.offset
    }

    /// The operand that is part of the instruction.
    pub const fn immediate(self) -> i32 {
        self.immediate
    }
}

// bpf(2): commands, types and flags.
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// The most programs that the kernel attaches to a group.
const MAX_PROGRAMS: usize = 64;

/// bpf(2) with one of its argument structures.
///
/// # Safety
/// `attributes` must be the structure of `command`, and every address in it must be valid for what the command does with it.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    let attributes: *mut T = attributes;
    // SAFETY: the caller vouches for the structure; its size is passed with it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(RawFd::try_from(result).expect("descriptors are small"))
}

#[repr(C, align(8))]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE` (bpf(2), `BPF_PROG_LOAD`): it decides whether the processes of a group may
/// use a device. Needs `CAP_BPF` and `CAP_NET_ADMIN`, or `CAP_SYS_ADMIN`, in the initial user namespace.
///
/// # Errors
/// The kernel's: `EPERM` without the right, `EINVAL` or `EACCES` for a program that its verifier does not accept.
pub fn load_device_program(program: &[EbpfInstruction]) -> io::Result<OwnedFd> {
    let count = u32::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut attributes = LoadAttributes {
        program_type: TYPE_CGROUP_DEVICE,
        count,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    // The verifier gives up with EAGAIN when a signal is pending.
    for _ in 0..5 {
        // SAFETY: the structure is that of BPF_PROG_LOAD; `program` and the license outlive the call, and no log is asked for.
        match unsafe { bpf(PROG_LOAD, &mut attributes) } {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            // SAFETY: the kernel has just made this descriptor for us, close-on-exec as all of bpf(2)'s.
            result => return result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

#[repr(C, align(8))]
#[derive(Default)]
struct AttachAttributes {
    target: i32,
    program: i32,
    attach_type: u32,
    flags: u32,
    replaced: i32,
    /// The kernel wants every byte of the structure that it does not know to be zero, also what would be padding.
    rest: u32,
}

/// Attaches a device program to a v2 group, in place of `replaced` if given (in one step, Linux 5.6), else besides those that are there.
///
/// # Errors
/// The kernel's: `EPERM` without the right, `ENOENT` if `replaced` is not attached.
pub fn attach_device_program(group: impl AsFd, program: impl AsFd, replaced: Option<&OwnedFd>) -> io::Result<()> {
    let mut attributes = AttachAttributes {
        target: group.as_fd().as_raw_fd(),
        program: program.as_fd().as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replaced: replaced.map_or(0, AsRawFd::as_raw_fd),
        ..AttachAttributes::default()
    };
    // SAFETY: the structure is that of BPF_PROG_ATTACH and holds no address.
    unsafe { bpf(PROG_ATTACH, &mut attributes) }.map(drop)
}

/// Detaches a device program from a v2 group.
///
/// # Errors
/// The kernel's: `ENOENT` if it is not attached.
pub fn detach_device_program(group: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attributes = AttachAttributes {
        target: group.as_fd().as_raw_fd(),
        program: program.as_fd().as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        ..AttachAttributes::default()
    };
    // SAFETY: the structure is that of BPF_PROG_DETACH and holds no address.
    unsafe { bpf(PROG_DETACH, &mut attributes) }.map(drop)
}

#[repr(C, align(8))]
#[derive(Default)]
struct QueryAttributes {
    target: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    rest: u32,
}

#[repr(C, align(8))]
#[derive(Default)]
struct IdAttributes {
    id: u32,
    next: u32,
    flags: u32,
    rest: u32,
}

/// The device programs that are attached to a v2 group itself. One that is gone by the time it is opened is left out.
///
/// # Errors
/// The kernel's: `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` from a kernel without `CONFIG_CGROUP_BPF`.
pub fn device_programs(group: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attributes = QueryAttributes {
        target: group.as_fd().as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        ..QueryAttributes::default()
    };
    // SAFETY: the structure is that of BPF_PROG_QUERY, and `ids` has room for as many as it says.
    unsafe { bpf(PROG_QUERY, &mut attributes) }?;
    let mut programs = Vec::new();
    for id in ids.into_iter().take(attributes.count as usize) {
        let mut by_id = IdAttributes {
            id,
            ..IdAttributes::default()
        };
        // SAFETY: the structure is that of BPF_PROG_GET_FD_BY_ID and holds no address.
        match unsafe { bpf(PROG_GET_FD_BY_ID, &mut by_id) } {
            // SAFETY: the kernel has just made this descriptor for us, close-on-exec as all of bpf(2)'s.
            Ok(fd) => programs.push(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}
