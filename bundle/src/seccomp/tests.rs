use super::*;
use crate::{DEFAULT_CAPABILITIES, all_capabilities};

fn defaults() -> Capabilities {
    DEFAULT_CAPABILITIES.into_iter().collect()
}

fn profile(arch: Arch, more: &[Capability]) -> LinuxSeccomp {
    let capabilities = defaults().into_iter().chain(more.iter().copied()).collect();
    default_profile(arch, &capabilities)
}

fn rules_of<'a>(profile: &'a LinuxSeccomp, name: &str) -> Vec<&'a LinuxSyscall> {
    let rules = profile.syscalls().as_ref().expect("rules");
    rules
        .iter()
        .filter(|rule| rule.names().iter().any(|known| known == name))
        .collect()
}

/// What the profile answers, by the words of the OCI runtime spec: the first rule whose arguments all fit.
fn answer(profile: &LinuxSeccomp, name: &str, args: &[u64]) -> (LinuxSeccompAction, Option<u32>) {
    let fits = |rule: &&&LinuxSyscall| {
        rule.args().iter().flatten().all(|arg| {
            let actual = args[arg.index()];
            match arg.op() {
                LinuxSeccompOperator::ScmpCmpLt => actual < arg.value(),
                LinuxSeccompOperator::ScmpCmpEq => actual == arg.value(),
                LinuxSeccompOperator::ScmpCmpGt => actual > arg.value(),
                LinuxSeccompOperator::ScmpCmpMaskedEq => actual & arg.value() == arg.value_two().unwrap_or(0),
                other => panic!("{other} is not used"),
            }
        })
    };
    let rules = rules_of(profile, name);
    match rules.iter().find(fits) {
        Some(rule) => (rule.action(), rule.errno_ret()),
        None => (profile.default_action(), profile.default_errno_ret()),
    }
}

const ALLOWED: (LinuxSeccompAction, Option<u32>) = (LinuxSeccompAction::ScmpActAllow, None);
const DENIED: (LinuxSeccompAction, Option<u32>) = (LinuxSeccompAction::ScmpActErrno, Some(1));
const UNKNOWN: (LinuxSeccompAction, Option<u32>) = (LinuxSeccompAction::ScmpActErrno, Some(38));

#[test]
fn ordinary_calls_pass_and_dangerous_ones_do_not() {
    let profile = profile(Arch::ScmpArchX86_64, &[]);
    for name in [
        "read",
        "write",
        "execve",
        "openat2",
        "futex",
        "clone",
        "chroot",
        "ptrace",
        "rseq",
        "arch_prctl",
        "modify_ldt",
    ] {
        assert_eq!(answer(&profile, name, &[0; 6]), ALLOWED, "{name}");
    }
    for name in [
        "mount",
        "umount2",
        "unshare",
        "setns",
        "pivot_root",
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "perf_event_open",
        "kexec_load",
        "reboot",
        "swapon",
        "init_module",
        "open_by_handle_at",
        "userfaultfd",
        "iopl",
        "settimeofday",
        "move_mount",
        "fsopen",
        "quotactl",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "syslog",
        "acct",
        "kcmp",
        "nfsservctl",
        "lookup_dcookie",
        "mbind",
    ] {
        assert_eq!(answer(&profile, name, &[0; 6]), DENIED, "{name}");
    }
}

#[test]
fn clone_makes_no_namespaces_without_the_right_to() {
    let profile = profile(Arch::ScmpArchX86_64, &[]);
    let sigchld_thread_vfork = 0x11 | 0x10000 | 0x4000;
    assert_eq!(answer(&profile, "clone", &[sigchld_thread_vfork, 0]), ALLOWED);
    for namespace in [
        0x0002_0000,
        0x0200_0000,
        0x0400_0000,
        0x0800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000,
    ] {
        assert_eq!(
            answer(&profile, "clone", &[sigchld_thread_vfork | namespace, 0]),
            DENIED,
            "{namespace:x}"
        );
    }
    assert_eq!(answer(&profile, "clone3", &[0; 6]), UNKNOWN);
    let admin = super::tests::profile(Arch::ScmpArchX86_64, &[Capability::SysAdmin]);
    assert_eq!(answer(&admin, "clone", &[0x1000_0000, 0]), ALLOWED);
    assert_eq!(answer(&admin, "clone3", &[0; 6]), ALLOWED);
}

#[test]
fn on_s390_the_flags_of_clone_are_the_second_argument() {
    let profile = profile(Arch::ScmpArchS390x, &[]);
    assert_eq!(answer(&profile, "clone", &[0x1000_0000, 0x11]), ALLOWED);
    assert_eq!(answer(&profile, "clone", &[0, 0x1000_0000]), DENIED);
}

#[test]
fn sockets_of_two_families_are_refused() {
    let profile = profile(Arch::ScmpArchX86_64, &[]);
    for family in [0, 1, 2, 10, 16, 17, 37, 39, 41, 44, 45] {
        assert_eq!(answer(&profile, "socket", &[family, 1, 0]), ALLOWED, "{family}");
    }
    for family in [AF_ALG, AF_VSOCK] {
        assert_eq!(answer(&profile, "socket", &[family, 1, 0]), DENIED, "{family}");
    }
}

#[test]
fn personalities_are_the_harmless_ones() {
    let profile = profile(Arch::ScmpArchX86_64, &[]);
    for domain in PERSONALITIES {
        assert_eq!(answer(&profile, "personality", &[domain]), ALLOWED, "{domain:x}");
    }
    // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC
    for domain in [0x40000, 0x400000] {
        assert_eq!(answer(&profile, "personality", &[domain]), DENIED, "{domain:x}");
    }
}

#[test]
fn capabilities_bring_their_calls() {
    let cases = [
        (Capability::SysAdmin, "mount"),
        (Capability::SysAdmin, "bpf"),
        (Capability::SysBoot, "reboot"),
        (Capability::SysModule, "init_module"),
        (Capability::SysPacct, "acct"),
        (Capability::SysPtrace, "kcmp"),
        (Capability::SysRawio, "iopl"),
        (Capability::SysTime, "clock_settime"),
        (Capability::SysTtyConfig, "vhangup"),
        (Capability::SysNice, "mbind"),
        (Capability::Syslog, "syslog"),
        (Capability::Bpf, "bpf"),
        (Capability::Perfmon, "perf_event_open"),
        (Capability::DacReadSearch, "open_by_handle_at"),
    ];
    for (capability, name) in cases {
        assert_eq!(
            answer(&profile(Arch::ScmpArchX86_64, &[]), name, &[0; 6]),
            DENIED,
            "{name}"
        );
        assert_eq!(
            answer(&profile(Arch::ScmpArchX86_64, &[capability]), name, &[0; 6]),
            ALLOWED,
            "{name}"
        );
    }
    let none = default_profile(Arch::ScmpArchX86_64, &Capabilities::new());
    assert_eq!(answer(&none, "chroot", &[0; 6]), DENIED);
}

#[test]
fn architectures_have_their_own_calls_and_relatives() {
    let relatives = |arch| profile(arch, &[]).architectures().clone().expect("architectures");
    assert_eq!(
        relatives(Arch::ScmpArchX86_64),
        [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    );
    assert_eq!(
        relatives(Arch::ScmpArchAarch64),
        [Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    );
    assert_eq!(relatives(Arch::ScmpArchRiscv64), [Arch::ScmpArchRiscv64]);
    let arm = profile(Arch::ScmpArchAarch64, &[]);
    assert_eq!(answer(&arm, "set_tls", &[0; 6]), ALLOWED);
    assert_eq!(answer(&arm, "modify_ldt", &[0; 6]), DENIED);
    assert_eq!(answer(&profile(Arch::ScmpArchX86_64, &[]), "set_tls", &[0; 6]), DENIED);
}

#[test]
fn names_are_there_once_and_in_order() {
    let profile = default_profile(Arch::ScmpArchX86_64, &all_capabilities());
    let names = profile.syscalls().as_ref().expect("rules")[0].names().clone();
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(names, sorted);
    assert!(names.len() > 380, "{}", names.len());
}

/// Against podman's profile as Debian installs it: what that allows to everyone and ours does not is named here, with
/// its reason.
#[test]
fn podman_allows_no_more_than_is_known() {
    const PATH: &str = "/usr/share/containers/seccomp.json";
    let Ok(text) = std::fs::read(PATH) else {
        longshore_testing::skip(&format!("{PATH} is not installed"));
        return;
    };
    let theirs: serde_json::Value = serde_json::from_slice(&text).expect("json");
    // Of namespaces and mounts, which Docker leaves to CAP_SYS_ADMIN; of NUMA nodes, which it leaves to CAP_SYS_NICE;
    // of the host; and of calls that i386 had before 1998.
    let known = "fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root setns umount umount2 unshare \
                 get_mempolicy mbind set_mempolicy keyctl pidfd_getfd reboot syslog \
                 readdir sigaction signal sigpending sigsuspend syscall timerfd";
    let known: Vec<&str> = known.split_ascii_whitespace().collect();
    let ours = profile(Arch::ScmpArchX86_64, &[]);
    let mut surplus = Vec::new();
    for rule in theirs["syscalls"].as_array().expect("rules") {
        let plain = rule["action"] == "SCMP_ACT_ALLOW" && rule["args"].as_array().is_none_or(Vec::is_empty);
        let for_all = ["includes", "excludes"]
            .iter()
            .all(|key| rule[*key].as_object().is_none_or(|o| o.is_empty()));
        if plain && for_all {
            let names = rule["names"]
                .as_array()
                .expect("names")
                .iter()
                .filter_map(|name| name.as_str());
            surplus.extend(
                names
                    .filter(|name| rules_of(&ours, name).is_empty() && !known.contains(name))
                    .map(str::to_owned),
            );
        }
    }
    assert!(surplus.is_empty(), "{surplus:?}");
}
