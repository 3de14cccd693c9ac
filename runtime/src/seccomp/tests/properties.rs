//! Random profiles and calls: the program must decide as a plain reading of the profile does.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator as Op, LinuxSyscall};
use proptest::prelude::*;
use serde_json::json;

use super::super::arch::{Arch, Numbers};
use super::super::interpret::{Call, run};
use super::{compile, profile};

pub(super) const NAMES: [&str; 12] = [
    "read",
    "write",
    "openat",
    "clone",
    "clone3",
    "ioctl",
    "mmap",
    "personality",
    "prctl",
    "futex",
    "statx",
    "no_such_call",
];
const OPS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
pub(super) const ACTIONS: [&str; 5] = ["ALLOW", "ERRNO", "LOG", "TRAP", "KILL_PROCESS"];

/// Values near each other and near the borders of the halves.
pub(super) fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..4,
        Just(u64::from(u32::MAX)),
        Just(1 << 32),
        (0u64..3, 0u64..3).prop_map(|(high, low)| high << 32 | low),
        Just(u64::MAX),
        any::<u64>(),
    ]
}

fn arg() -> impl Strategy<Value = serde_json::Value> {
    (0u32..6, value(), value(), 0..OPS.len()).prop_map(|(index, value, two, op)| {
        json!({ "index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{}", OPS[op]) })
    })
}

pub(super) fn rule() -> impl Strategy<Value = serde_json::Value> {
    (
        prop::collection::vec(0..NAMES.len(), 1..3),
        0..ACTIONS.len(),
        prop::collection::vec(arg(), 0..3),
    )
        .prop_map(|(names, action, args)| {
            let names: Vec<_> = names.into_iter().map(|n| NAMES[n]).collect();
            json!({ "names": names, "action": format!("SCMP_ACT_{}", ACTIONS[action]), "args": args })
        })
}

fn holds(arg: &LinuxSeccompArg, args: &[u64; 6], arch: Arch) -> bool {
    let cut = |v: u64| if arch.is_narrow() { v & 0xffff_ffff } else { v };
    let (is, value) = (cut(args[arg.index()]), cut(arg.value()));
    match arg.op() {
        Op::ScmpCmpNe => is != value,
        Op::ScmpCmpLt => is < value,
        Op::ScmpCmpLe => is <= value,
        Op::ScmpCmpEq => is == value,
        Op::ScmpCmpGe => is >= value,
        Op::ScmpCmpGt => is > value,
        Op::ScmpCmpMaskedEq => is & value == cut(arg.value_two().unwrap_or(0)) & value,
    }
}

fn matches(rule: &LinuxSyscall, call: &Call) -> bool {
    let args = rule.args().clone().unwrap_or_default();
    let repeats = (0..6).any(|i| args.iter().filter(|a| a.index() == i).count() > 1);
    let mut each = args.iter().map(|a| holds(a, &call.args, call.arch));
    if repeats { each.any(|h| h) } else { each.all(|h| h) }
}

/// The plain reading. `ENOSYS` is the default's own errno here, so that the age of the profile makes no difference.
fn judge(profile: &LinuxSeccomp, call: &Call) -> u32 {
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let rules: Vec<_> = profile
        .syscalls()
        .iter()
        .flatten()
        .filter(|r| r.action().as_u32(r.errno_ret()) != default)
        .filter(|r| {
            r.names()
                .iter()
                .any(|n| Numbers::of(n).and_then(|n| n.on(call.arch)) == Some(call.number))
        })
        .collect();
    let broad = rules.iter().find(|r| r.args().as_ref().is_none_or(Vec::is_empty));
    let rule = broad.or_else(|| rules.iter().find(|r| matches(r, call)));
    rule.map_or(default, |r| r.action().as_u32(r.errno_ret()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_program_decides_as_the_profile_reads(
        rules in prop::collection::vec(rule(), 0..8),
        native in prop::sample::select(vec![Arch::X86_64, Arch::Aarch64, Arch::S390x, Arch::Riscv64, Arch::Ppc64le]),
        calls in prop::collection::vec((0..NAMES.len(), prop::array::uniform6(value()), 0..3usize), 40),
    ) {
        let archs = ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_S390"];
        let profile = profile(json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": archs, "syscalls": rules }));
        let filter = compile(&profile, native).expect("compiles");
        let abis = match native {
            Arch::X86_64 => vec![Arch::X86_64, Arch::X86, Arch::X32],
            Arch::Aarch64 => vec![Arch::Aarch64, Arch::Arm],
            Arch::S390x => vec![Arch::S390x, Arch::S390],
            one => vec![one],
        };
        for (name, args, abi) in calls {
            let arch = abis[abi % abis.len()];
            let Some(number) = Numbers::of(NAMES[name]).and_then(|n| n.on(arch)) else { continue };
            let call = Call { arch, number, args };
            let (got, steps) = run(&filter.instructions, &call);
            prop_assert_eq!(got, judge(&profile, &call), "{:?} by {:?}", call, profile);
            prop_assert!(steps < 120);
        }
    }
}
