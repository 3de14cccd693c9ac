use oci_spec::runtime::Arch as SpecArch;

use super::table::{COLUMNS, SYSCALLS};

/// An ABI of system calls that the compiler has numbers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Arch {
    X86_64,
    /// x86-64's registers with 32-bit pointers.
    X32,
    X86,
    Aarch64,
    Arm,
    Riscv64,
    Ppc64le,
    S390x,
    S390,
}

/// Added to the numbers of x32's calls.
pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    /// This machine's own, if the compiler knows it.
    pub const fn native() -> Option<Self> {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "x86_64") {
            Some(Self::X32)
        } else if cfg!(target_arch = "x86") {
            Some(Self::X86)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else if cfg!(target_arch = "arm") {
            Some(Self::Arm)
        } else if cfg!(target_arch = "riscv64") {
            Some(Self::Riscv64)
        } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
            Some(Self::Ppc64le)
        } else if cfg!(target_arch = "s390x") {
            Some(Self::S390x)
        } else {
            None
        }
    }

    /// The ABI that the runtime spec means; `None` for one that no machine known to this compiler can run.
    pub(super) fn from_spec(arch: SpecArch, native: Self) -> Option<Self> {
        Some(match arch {
            SpecArch::ScmpArchNative => native,
            SpecArch::ScmpArchX86_64 => Self::X86_64,
            SpecArch::ScmpArchX32 => Self::X32,
            SpecArch::ScmpArchX86 => Self::X86,
            SpecArch::ScmpArchAarch64 => Self::Aarch64,
            SpecArch::ScmpArchArm => Self::Arm,
            SpecArch::ScmpArchRiscv64 => Self::Riscv64,
            SpecArch::ScmpArchPpc64le => Self::Ppc64le,
            SpecArch::ScmpArchS390x => Self::S390x,
            SpecArch::ScmpArchS390 => Self::S390,
            _ => return None,
        })
    }

    /// Whether a machine of this ABI can run programs of `other`.
    pub(super) fn runs(self, other: Self) -> bool {
        let family = |arch| match arch {
            Self::X86_64 | Self::X32 | Self::X86 => 0,
            Self::Aarch64 | Self::Arm => 1,
            Self::Riscv64 => 2,
            Self::Ppc64le => 3,
            Self::S390x | Self::S390 => 4,
        };
        family(self) == family(other)
    }

    /// `AUDIT_ARCH_*`, as the filter sees it in `seccomp_data.arch`. x32 shares x86-64's.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
            Self::Ppc64le => 0xc000_0015,
            Self::S390x => 0x8000_0016,
            Self::S390 => 0x0000_0016,
        }
    }

    /// Whether arguments are compared by their low 32 bits only.
    pub(super) fn is_narrow(self) -> bool {
        matches!(self, Self::X32 | Self::X86 | Self::Arm | Self::S390)
    }

    /// Whether the high half of an argument comes first in memory.
    pub(super) fn is_big_endian(self) -> bool {
        matches!(self, Self::S390x | Self::S390)
    }

    /// Whether the socket and System V calls can also be made through `socketcall` and `ipc`.
    pub(super) fn multiplexes(self) -> bool {
        matches!(self, Self::X86 | Self::Ppc64le | Self::S390x | Self::S390)
    }

    fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X32 => 1,
            Self::X86 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
            Self::Riscv64 => 5,
            Self::Ppc64le => 6,
            Self::S390x => 7,
            Self::S390 => 8,
        }
    }
}

/// A call's numbers in all ABIs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers(&'static [i32; COLUMNS]);

impl Numbers {
    /// Looks a name up; `None` if no ABI knows it.
    pub(super) fn of(name: &str) -> Option<Self> {
        let at = SYSCALLS.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
        Some(Self(&SYSCALLS[at].1))
    }

    /// The number in one ABI (x32's with its bit), if that has the call.
    pub(super) fn on(self, arch: Arch) -> Option<u32> {
        let number = u32::try_from(self.0[arch.column()]).ok()?;
        Some(if arch == Arch::X32 { number | X32_BIT } else { number })
    }
}

/// The multiplexer of a call and its number there, for ABIs that [multiplex](Arch::multiplexes).
pub(super) fn multiplexed(name: &str) -> Option<(&'static str, u64)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    if let Some(at) = SOCKET.iter().position(|s| *s == name) {
        return Some(("socketcall", at as u64 + 1));
    }
    IPC.iter().find(|(n, _)| *n == name).map(|(_, number)| ("ipc", *number))
}
