use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::arch::{Arch, Numbers};
use super::interpret::{Call, run};
use super::rules::{ALLOW, ERRNO, KILL_PROCESS, KILL_THREAD, LOG, TRACE, TRAP};
use super::table::SYSCALLS;
use super::*;
use crate::ErrorKind;

mod kernel;
mod oracle;
mod properties;

fn profile(value: Value) -> LinuxSeccomp {
    serde_json::from_value(value).expect("a profile")
}

fn compiled(value: Value) -> Filter {
    compile(&profile(value), Arch::X86_64).expect("compiles")
}

fn number(name: &str, arch: Arch) -> u32 {
    Numbers::of(name).and_then(|n| n.on(arch)).expect(name)
}

fn decide(filter: &Filter, arch: Arch, name: &str, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let number = number(name, arch);
    run(
        &filter.instructions,
        &Call {
            arch,
            number,
            args: all,
        },
    )
    .0
}

fn at(filter: &Filter, arch: Arch, number: u32) -> u32 {
    run(
        &filter.instructions,
        &Call {
            arch,
            number,
            args: [0; 6],
        },
    )
    .0
}

#[test]
fn the_table_is_sorted_and_knows_this_machine() {
    assert!(SYSCALLS.windows(2).all(|w| w[0].0 < w[1].0));
    assert_eq!(number("read", Arch::X86_64), 0);
    assert_eq!(number("openat", Arch::Aarch64), 56);
    assert_eq!(number("ioctl", Arch::X32), 0x4000_0000 + 514);
    assert_eq!(number("clone3", Arch::S390x), 435);
    assert!(Numbers::of("no_such_call").is_none());
}

#[test]
fn every_action_returns_what_the_kernel_calls_it() {
    for (action, errno, expected) in [
        ("KILL", None, KILL_THREAD),
        ("KILL_THREAD", None, KILL_THREAD),
        ("KILL_PROCESS", None, KILL_PROCESS),
        ("TRAP", None, TRAP),
        ("ERRNO", None, ERRNO | 1),
        ("ERRNO", Some(38), ERRNO | 38),
        ("TRACE", None, TRACE | 1),
        ("TRACE", Some(7), TRACE | 7),
        ("LOG", None, LOG),
        ("ALLOW", None, ALLOW),
    ] {
        let mut rule = json!({ "names": ["read"], "action": format!("SCMP_ACT_{action}") });
        if let Some(errno) = errno {
            rule["errnoRet"] = errno.into();
        }
        let filter = compiled(json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 99, "syscalls": [rule] }));
        assert_eq!(decide(&filter, Arch::X86_64, "read", &[]), expected, "{action}");
    }
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let rules = json!([{ "names": ["read", "openat2", "from_the_future"], "action": "SCMP_ACT_ALLOW" }]);
    let filter = compiled(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules }));
    let last = number("openat2", Arch::X86_64);
    assert_eq!(at(&filter, Arch::X86_64, last), ALLOW);
    assert_eq!(at(&filter, Arch::X86_64, last - 1), ERRNO | 1);
    assert_eq!(at(&filter, Arch::X86_64, last + 1), ERRNO | 38);
    assert_eq!(at(&filter, Arch::X86_64, 0x3fff_ffff), ERRNO | 38);
    assert_eq!(at(&filter, Arch::X86_64, u32::MAX), ERRNO | 1, "no call at all");

    for lets_pass in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
        let filter = compiled(json!({ "defaultAction": lets_pass, "syscalls": rules }));
        assert_ne!(at(&filter, Arch::X86_64, last + 1), ERRNO | 38, "{lets_pass}");
    }
}

#[test]
fn a_large_filter_is_searched_by_halves() {
    // Every other call, so that no two of them form a range.
    let names: Vec<_> = Arch::X86_64.calls().map(|(name, _)| name).step_by(2).collect();
    let rules = json!([{ "names": names, "action": "SCMP_ACT_ALLOW" }]);
    let filter = compiled(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules }));
    assert!(filter.instructions.len() > 200);
    for (name, number) in Arch::X86_64.calls() {
        let args = [0; 6];
        let call = Call {
            arch: Arch::X86_64,
            number,
            args,
        };
        let (_, steps) = run(&filter.instructions, &call);
        assert!(steps < 18, "{name} takes {steps} of {}", filter.instructions.len());
    }
}

#[test]
fn names_that_no_abi_has_are_told() {
    let filter = compiled(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        { "names": ["read", "from_the_future", "abacus"], "action": "SCMP_ACT_ALLOW" },
        // It is of another ABI.
        { "names": ["riscv_hwprobe", "abacus"], "action": "SCMP_ACT_ALLOW" }] }));
    assert_eq!(*filter.unknown, ["abacus", "from_the_future"]);
}

#[test]
fn no_call_at_all_does_not_exist_where_x32_has_no_say() {
    let rules = json!([{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }]);
    let decide = |native, archs: &[&str]| {
        let profile = profile(json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": archs, "syscalls": rules }));
        at(&compile(&profile, native).expect("compiles"), native, u32::MAX)
    };
    assert_eq!(
        decide(Arch::X86_64, &[]),
        ERRNO | 1,
        "the default, as libseccomp has it"
    );
    assert_eq!(decide(Arch::X86_64, &["SCMP_ARCH_X32"]), ERRNO | 38);
    assert_eq!(decide(Arch::Aarch64, &[]), ERRNO | 38);
}

#[test]
fn s390_has_zero_for_what_the_kernel_does_not_know() {
    let rules = json!([{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }]);
    let decide = |default: &str| {
        let profile =
            profile(json!({ "defaultAction": default, "architectures": ["SCMP_ARCH_S390"], "syscalls": rules }));
        let filter = compile(&profile, Arch::S390x).expect("compiles");
        [Arch::S390x, Arch::S390].map(|arch| at(&filter, arch, 0))
    };
    assert_eq!(decide("SCMP_ACT_ERRNO"), [ERRNO | 38; 2]);
    assert_eq!(decide("SCMP_ACT_LOG"), [LOG; 2]);
}

#[test]
fn mips_numbers_begin_at_their_abi() {
    assert_eq!(number("read", Arch::Mips), 4003);
    assert_eq!(number("read", Arch::Mipsel64), 5000);
    assert_eq!(number("read", Arch::Mips64n32), 6000);
    let rules = json!([{ "names": ["read", "socket"], "action": "SCMP_ACT_ALLOW" }]);
    let profile = profile(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules,
        "architectures": ["SCMP_ARCH_MIPS", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPS64N32"] }));
    let filter = compile(&profile, Arch::Mips64).expect("compiles");
    for arch in [Arch::Mips64, Arch::Mips64n32, Arch::Mips] {
        assert_eq!(decide(&filter, arch, "read", &[]), ALLOW, "{arch:?}");
        assert_eq!(at(&filter, arch, 3), ERRNO | 1, "{arch:?}: a number of no call");
    }
    assert_eq!(decide(&filter, Arch::Mips, "socketcall", &[1]), ALLOW);
    assert_eq!(decide(&filter, Arch::Mips, "socketcall", &[2]), ERRNO | 1);
    assert_eq!(
        decide(&filter, Arch::Mipsel, "read", &[]),
        KILL_THREAD,
        "the other byte order is another machine"
    );
}

#[test]
fn arm_keeps_its_private_calls_apart() {
    let rules = json!([{ "names": ["read", "set_tls"], "action": "SCMP_ACT_ALLOW" }]);
    let spec =
        profile(json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_ARM"], "syscalls": rules }));
    let filter = compile(&spec, Arch::Aarch64).expect("compiles");
    assert_eq!(decide(&filter, Arch::Arm, "set_tls", &[]), ALLOW);
    assert_eq!(decide(&filter, Arch::Arm, "cacheflush", &[]), ERRNO | 1);
    assert_eq!(at(&filter, Arch::Arm, 1000), ERRNO | 38);
    assert_eq!(at(&filter, Arch::Arm, 0x000f_0800), ERRNO | 38);
}

#[test]
fn other_abis_are_killed_unless_asked_for() {
    let rules = json!([{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }]);
    let filter = compiled(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules }));
    assert_eq!(decide(&filter, Arch::X86_64, "read", &[]), ALLOW);
    assert_eq!(decide(&filter, Arch::X32, "read", &[]), KILL_THREAD);
    assert_eq!(decide(&filter, Arch::X86, "read", &[]), KILL_THREAD);
    assert_eq!(decide(&filter, Arch::Aarch64, "read", &[]), KILL_THREAD);

    // The native ABI need not be named, and foreign ones are no error.
    let archs = ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_MIPS", "SCMP_ARCH_AARCH64"];
    let filter = compiled(json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": archs, "syscalls": rules }));
    for arch in [Arch::X86_64, Arch::X32, Arch::X86] {
        assert_eq!(decide(&filter, arch, "read", &[]), ALLOW, "{arch:?}");
        assert_eq!(at(&filter, arch, number("read", arch) + 1), ERRNO | 38, "{arch:?}");
    }
    assert_eq!(decide(&filter, Arch::Aarch64, "read", &[]), KILL_THREAD);
}

#[test]
fn a_rule_without_arguments_decides_its_call() {
    let narrow = json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
        "args": [{ "index": 0, "value": 3, "op": "SCMP_CMP_EQ" }] });
    let broad = json!({ "names": ["read"], "action": "SCMP_ACT_ALLOW" });
    for rules in [json!([narrow, broad]), json!([broad, narrow])] {
        let filter = compiled(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules }));
        assert_eq!(decide(&filter, Arch::X86_64, "read", &[3]), ALLOW);
    }
}

#[test]
fn arguments_of_one_rule_must_all_match_unless_they_repeat() {
    let rule = |second: u32| {
        json!([{ "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": second, "value": 2, "op": "SCMP_CMP_EQ" }] }])
    };
    let both = compiled(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rule(1) }));
    assert_eq!(decide(&both, Arch::X86_64, "socket", &[1, 2]), ALLOW);
    assert_eq!(decide(&both, Arch::X86_64, "socket", &[1, 3]), ERRNO | 1);
    let either = compiled(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rule(0) }));
    assert_eq!(decide(&either, Arch::X86_64, "socket", &[1]), ALLOW);
    assert_eq!(decide(&either, Arch::X86_64, "socket", &[2]), ALLOW);
    assert_eq!(decide(&either, Arch::X86_64, "socket", &[3]), ERRNO | 1);
}

#[test]
fn what_cannot_be_compiled_names_its_field() {
    let refused = |value| {
        let error = compile(&profile(value), Arch::X86_64).expect_err("refused");
        (error.kind(), error.to_string())
    };
    let (kind, text) = refused(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }] }] }));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(text.starts_with("linux.seccomp.syscalls[0].args[0].index:"), "{text}");
    let (kind, text) = refused(json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 70000 }));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(text.starts_with("linux.seccomp.defaultAction:"), "{text}");
    let (kind, text) = refused(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(text.starts_with("linux.seccomp.listenerPath:"), "{text}");
    let (_, text) = refused(json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x" }));
    assert!(text.starts_with("linux.seccomp.listenerMetadata:"), "{text}");
    let args: Vec<Value> = (0..3000)
        .map(|n| json!({ "index": 0, "value": n, "op": "SCMP_CMP_EQ" }))
        .collect();
    let (kind, text) = refused(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": args }] }));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(text.contains("4096"), "{text}");
}

#[test]
fn flags_are_the_kernels_bits() {
    let flags = |flags: Value, action: &str| {
        let mut profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent",
            "syscalls": [{ "names": ["mkdir"], "action": action }] });
        if !flags.is_null() {
            profile["flags"] = flags;
        }
        compiled(profile).flags
    };
    let all = json!([
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ]);
    // As runc: no list is the default of it, and TSYNC is for programs with threads.
    assert_eq!(flags(Value::Null, "SCMP_ACT_ERRNO"), 4);
    assert_eq!(flags(json!([]), "SCMP_ACT_ERRNO"), 0);
    assert_eq!(flags(all.clone(), "SCMP_ACT_ERRNO"), 2 | 4);
    assert_eq!(flags(all, "SCMP_ACT_NOTIFY"), 2 | 4 | 8 | 32);
    assert_eq!(flags(json!([]), "SCMP_ACT_NOTIFY"), 8);
}

#[test]
fn a_listener_leaves_by_a_call_that_passes() {
    let handover = |rules: Value| {
        let profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/agent", "syscalls": rules });
        super::compile(&super::tests::profile(profile), Arch::X86_64).map(|f| f.listener)
    };
    let rule = |names: &[&str], action: &str| json!({ "names": names, "action": format!("SCMP_ACT_{action}") });
    let agent = rule(&["mkdir"], "NOTIFY");
    let send = handover(json!([agent, rule(&["sendmsg"], "ALLOW")]));
    assert_eq!(send.expect("compiles"), Some(Handover::Send));
    for read in ["ALLOW", "LOG", "NOTIFY"] {
        let take = handover(json!([agent, rule(&["write"], "ALLOW"), rule(&["read"], read)]));
        assert_eq!(take.expect("compiles"), Some(Handover::Take), "{read}");
    }
    let only_some = json!({ "names": ["sendmsg"], "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 0, "value": 3, "op": "SCMP_CMP_EQ" }] });
    for none in [
        json!([agent]),
        json!([agent, rule(&["write"], "ALLOW")]),
        json!([agent, only_some]),
    ] {
        let error = handover(none).expect_err("no way out");
        assert!(error.to_string().starts_with("linux.seccomp.syscalls:"), "{error}");
    }
    assert_eq!(handover(json!([rule(&["mkdir"], "ALLOW")])).expect("compiles"), None);
}
