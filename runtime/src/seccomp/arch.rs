use oci_spec::runtime::Arch as SpecArch;

use super::table::{COLUMNS, SYSCALLS};

/// An ABI of system calls that the compiler has numbers for. The names are the runtime spec's (`SCMP_ARCH_*`).
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
    Loongarch64,
    Ppc,
    Ppc64,
    Ppc64le,
    S390x,
    S390,
    /// The o32 ABI.
    Mips,
    Mipsel,
    Mips64,
    Mipsel64,
    Mips64n32,
    Mipsel64n32,
}

/// Which machines run an ABI: those that run any of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    X86,
    Arm,
    Riscv,
    Loongarch,
    Power,
    PowerLittle,
    S390,
    Mips,
    MipsLittle,
}

/// How wide an ABI's arguments are, and which half of one comes first in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    Wide,
    WideBig,
    Narrow,
    NarrowBig,
}

/// What the compiler knows of an ABI.
#[derive(Clone, Copy, Debug)]
struct Facts {
    spec: SpecArch,
    /// `AUDIT_ARCH_*`.
    audit: u32,
    /// Of [`SYSCALLS`].
    column: usize,
    /// What is added to the column's numbers.
    base: u32,
    family: Family,
    words: Words,
    /// Whether `socketcall` and `ipc` are there.
    multiplexes: bool,
}

/// Added to the numbers of x32's calls.
pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::X86_64,
        Self::X32,
        Self::X86,
        Self::Aarch64,
        Self::Arm,
        Self::Riscv64,
        Self::Loongarch64,
        Self::Ppc,
        Self::Ppc64,
        Self::Ppc64le,
        Self::S390x,
        Self::S390,
        Self::Mips,
        Self::Mipsel,
        Self::Mips64,
        Self::Mipsel64,
        Self::Mips64n32,
        Self::Mipsel64n32,
    ];

    #[rustfmt::skip]
    const fn facts(self) -> Facts {
        use {Family as F, SpecArch as S, Words as W};
        const fn facts(spec: S, audit: u32, column: usize, base: u32, family: F, words: W, multiplexes: bool) -> Facts {
            Facts { spec, audit, column, base, family, words, multiplexes }
        }
        match self {
            Self::X86_64      => facts(S::ScmpArchX86_64,      0xc000_003e,  0,       0, F::X86,         W::Wide,      false),
            Self::X32         => facts(S::ScmpArchX32,         0xc000_003e,  1, X32_BIT, F::X86,         W::Narrow,    false),
            Self::X86         => facts(S::ScmpArchX86,         0x4000_0003,  2,       0, F::X86,         W::Narrow,    true),
            Self::Aarch64     => facts(S::ScmpArchAarch64,     0xc000_00b7,  3,       0, F::Arm,         W::Wide,      false),
            Self::Arm         => facts(S::ScmpArchArm,         0x4000_0028,  4,       0, F::Arm,         W::Narrow,    false),
            Self::Riscv64     => facts(S::ScmpArchRiscv64,     0xc000_00f3,  5,       0, F::Riscv,       W::Wide,      false),
            Self::Loongarch64 => facts(S::ScmpArchLoongarch64, 0xc000_0102,  6,       0, F::Loongarch,   W::Wide,      false),
            Self::Ppc         => facts(S::ScmpArchPpc,         0x0000_0014,  7,       0, F::Power,       W::NarrowBig, true),
            Self::Ppc64       => facts(S::ScmpArchPpc64,       0x8000_0015,  8,       0, F::Power,       W::WideBig,   true),
            Self::Ppc64le     => facts(S::ScmpArchPpc64le,     0xc000_0015,  8,       0, F::PowerLittle, W::Wide,      true),
            Self::S390x       => facts(S::ScmpArchS390x,       0x8000_0016,  9,       0, F::S390,        W::WideBig,   true),
            Self::S390        => facts(S::ScmpArchS390,        0x0000_0016, 10,       0, F::S390,        W::NarrowBig, true),
            Self::Mips        => facts(S::ScmpArchMips,        0x0000_0008, 11,    4000, F::Mips,        W::NarrowBig, true),
            Self::Mipsel      => facts(S::ScmpArchMipsel,      0x4000_0008, 11,    4000, F::MipsLittle,  W::Narrow,    true),
            Self::Mips64      => facts(S::ScmpArchMips64,      0x8000_0008, 12,    5000, F::Mips,        W::WideBig,   false),
            Self::Mipsel64    => facts(S::ScmpArchMipsel64,    0xc000_0008, 12,    5000, F::MipsLittle,  W::Wide,      false),
            Self::Mips64n32   => facts(S::ScmpArchMips64n32,   0xa000_0008, 13,    6000, F::Mips,        W::NarrowBig, false),
            Self::Mipsel64n32 => facts(S::ScmpArchMipsel64n32, 0xe000_0008, 13,    6000, F::MipsLittle,  W::Narrow,    false),
        }
    }

    /// This machine's own, if the compiler knows it.
    pub const fn native() -> Option<Self> {
        const BIG: bool = cfg!(target_endian = "big");
        const SHORT: bool = cfg!(target_pointer_width = "32");
        if cfg!(target_arch = "x86_64") {
            Some(if SHORT { Self::X32 } else { Self::X86_64 })
        } else if cfg!(target_arch = "x86") {
            Some(Self::X86)
        } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
            Some(Self::Aarch64)
        } else if cfg!(all(target_arch = "arm", target_endian = "little")) {
            Some(Self::Arm)
        } else if cfg!(target_arch = "riscv64") {
            Some(Self::Riscv64)
        } else if cfg!(target_arch = "loongarch64") {
            Some(Self::Loongarch64)
        } else if cfg!(target_arch = "powerpc64") {
            Some(if BIG { Self::Ppc64 } else { Self::Ppc64le })
        } else if cfg!(target_arch = "powerpc") {
            Some(Self::Ppc)
        } else if cfg!(target_arch = "s390x") {
            Some(Self::S390x)
        } else if cfg!(target_arch = "mips64") {
            Some(match (BIG, SHORT) {
                (true, false) => Self::Mips64,
                (false, false) => Self::Mipsel64,
                (true, true) => Self::Mips64n32,
                (false, true) => Self::Mipsel64n32,
            })
        } else if cfg!(target_arch = "mips") {
            Some(if BIG { Self::Mips } else { Self::Mipsel })
        } else {
            None
        }
    }

    /// The ABI that the runtime spec means; `None` for one that no machine known to this compiler can run.
    pub(super) fn from_spec(arch: SpecArch, native: Self) -> Option<Self> {
        if arch == SpecArch::ScmpArchNative {
            return Some(native);
        }
        Self::ALL.into_iter().find(|known| known.facts().spec == arch)
    }

    /// What the runtime spec calls it.
    pub const fn to_spec(self) -> SpecArch {
        self.facts().spec
    }

    /// Whether a machine of this ABI can run programs of `other`.
    pub(super) fn runs(self, other: Self) -> bool {
        self.facts().family == other.facts().family
    }

    /// The names and numbers of its system calls, sorted by name.
    pub fn calls(self) -> impl Iterator<Item = (&'static str, u32)> {
        let number = move |name| Numbers::of(name)?.on(self);
        SYSCALLS
            .iter()
            .filter_map(move |(name, _)| Some((*name, number(name)?)))
    }

    /// `AUDIT_ARCH_*`, as the filter sees it in `seccomp_data.arch`. x32 shares x86-64's.
    pub(super) fn audit(self) -> u32 {
        self.facts().audit
    }

    /// The lowest number of its calls.
    pub(super) fn base(self) -> u32 {
        self.facts().base
    }

    /// Whether arguments are compared by their low 32 bits only.
    pub(super) fn is_narrow(self) -> bool {
        matches!(self.facts().words, Words::Narrow | Words::NarrowBig)
    }

    /// Whether the high half of an argument comes first in memory.
    pub(super) fn is_big_endian(self) -> bool {
        matches!(self.facts().words, Words::WideBig | Words::NarrowBig)
    }

    /// Whether the socket and System V calls can also be made through `socketcall` and `ipc`.
    pub(super) fn multiplexes(self) -> bool {
        self.facts().multiplexes
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

    /// The number in one ABI, if that has the call.
    pub(super) fn on(self, arch: Arch) -> Option<u32> {
        let number = u32::try_from(self.0[arch.facts().column]).ok()?;
        Some(number + arch.base())
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
