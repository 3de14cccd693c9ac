//! The default seccomp profile.

mod table;

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// The namespace flags of clone(2): what an ordinary container must not make more of.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// The domains of personality(2) that are harmless: LINUX, LINUX32, each with `UNAME26`, and the question which is set.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// A family of architectures with calls of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machine {
    X86,
    Arm,
    Riscv,
    S390,
    Ppc,
}

/// The architecture that this program was built for.
pub fn native_arch() -> Arch {
    if cfg!(target_arch = "x86_64") {
        Arch::ScmpArchX86_64
    } else if cfg!(target_arch = "x86") {
        Arch::ScmpArchX86
    } else if cfg!(target_arch = "aarch64") {
        Arch::ScmpArchAarch64
    } else if cfg!(target_arch = "arm") {
        Arch::ScmpArchArm
    } else if cfg!(target_arch = "riscv64") {
        Arch::ScmpArchRiscv64
    } else if cfg!(target_arch = "s390x") {
        Arch::ScmpArchS390x
    } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
        Arch::ScmpArchPpc64le
    } else if cfg!(target_arch = "loongarch64") {
        Arch::ScmpArchLoongarch64
    } else {
        Arch::ScmpArchNative
    }
}

/// The profile that a container of `arch` with these capabilities in its bounding set gets unless its options say
/// otherwise: what Docker's default profile allows, and EPERM for the rest.
///
/// - `clone` may not make namespaces without `CAP_SYS_ADMIN`; `clone3`, whose flags a filter can't see, says ENOSYS
///   then, so that the C library falls back on `clone`.
/// - `socket` may not be of the families `AF_ALG` (kernel crypto; a long line of kernel bugs) and `AF_VSOCK` (which
///   no namespace confines).
/// - Programs of the architecture's 32-bit relatives are filtered by the same rules.
pub fn default_profile(arch: Arch, capabilities: &Capabilities) -> LinuxSeccomp {
    let admin = capabilities.contains(&Capability::SysAdmin);
    let mut rules = vec![allow(unconditional(arch, capabilities), Vec::new())];
    rules.extend(sockets());
    rules.extend(PERSONALITIES.map(|domain| {
        allow(
            ["personality"],
            vec![argument(0, LinuxSeccompOperator::ScmpCmpEq, domain)],
        )
    }));
    if !admin {
        rules.extend(clones(arch));
    }
    let mut profile = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .syscalls(rules)
        .build()
        .expect("every field has a default");
    profile.set_architectures(Some(architectures(arch)));
    profile
}

/// The names that need no look at the arguments, in order and once each.
fn unconditional(arch: Arch, capabilities: &Capabilities) -> BTreeSet<&'static str> {
    let machine = machine(arch);
    let always = table::ALWAYS.split_ascii_whitespace();
    let by_architecture = table::BY_ARCHITECTURE
        .iter()
        .filter(|(machines, _)| machine.is_some_and(|machine| machines.contains(&machine)))
        .flat_map(|(_, names)| names.split_ascii_whitespace());
    let by_capability = table::BY_CAPABILITY
        .iter()
        .filter(|(capability, _)| capabilities.contains(capability))
        .flat_map(|(_, names)| names.split_ascii_whitespace());
    always.chain(by_architecture).chain(by_capability).collect()
}

fn sockets() -> [LinuxSyscall; 3] {
    [
        allow(["socket"], vec![argument(0, LinuxSeccompOperator::ScmpCmpLt, AF_ALG)]),
        allow(
            ["socket"],
            vec![argument(0, LinuxSeccompOperator::ScmpCmpEq, AF_ALG + 1)],
        ),
        allow(["socket"], vec![argument(0, LinuxSeccompOperator::ScmpCmpGt, AF_VSOCK)]),
    ]
}

/// `clone` with no namespace flag (its second argument on s390), and no `clone3`.
fn clones(arch: Arch) -> [LinuxSyscall; 2] {
    let index = usize::from(machine(arch) == Some(Machine::S390));
    let no_namespace = LinuxSeccompArgBuilder::default()
        .index(index)
        .value(CLONE_NAMESPACES)
        .value_two(0u64)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()
        .expect("every field has a default");
    let mut clone3 = allow(["clone3"], Vec::new());
    clone3.set_action(LinuxSeccompAction::ScmpActErrno);
    clone3.set_errno_ret(Some(ENOSYS));
    [allow(["clone"], vec![no_namespace]), clone3]
}

fn architectures(arch: Arch) -> Vec<Arch> {
    match arch {
        Arch::ScmpArchX86_64 => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        Arch::ScmpArchAarch64 => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        Arch::ScmpArchS390x => vec![Arch::ScmpArchS390x, Arch::ScmpArchS390],
        other => vec![other],
    }
}

fn machine(arch: Arch) -> Option<Machine> {
    match arch {
        Arch::ScmpArchX86 | Arch::ScmpArchX86_64 | Arch::ScmpArchX32 => Some(Machine::X86),
        Arch::ScmpArchArm | Arch::ScmpArchAarch64 => Some(Machine::Arm),
        Arch::ScmpArchRiscv64 => Some(Machine::Riscv),
        Arch::ScmpArchS390 | Arch::ScmpArchS390x => Some(Machine::S390),
        Arch::ScmpArchPpc64le => Some(Machine::Ppc),
        _ => None,
    }
}

fn allow(names: impl IntoIterator<Item = &'static str>, arguments: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscallBuilder::default()
        .names(names.into_iter().map(str::to_owned).collect::<Vec<_>>())
        .action(LinuxSeccompAction::ScmpActAllow)
        .build()
        .expect("every field has a default");
    rule.set_args((!arguments.is_empty()).then_some(arguments));
    rule
}

fn argument(index: usize, op: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(value)
        .op(op)
        .build()
        .expect("every field has a default")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
