//! The same profile through libseccomp: both programs must decide alike.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use longshore_linux::SockFilter;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompOperator};
use serde_json::{Value, json};

use super::super::arch::{Arch, Numbers, X32_BIT};
use super::super::interpret::{Call, run};
use super::super::table::SYSCALLS;
use super::{compile, profile};

/// The oracle's program, or why there is none.
fn oracle(dir: &tempfile::TempDir) -> Result<PathBuf, String> {
    let program = dir.path().join("oracle");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/seccomp/tests/oracle.c");
    let cc = Command::new("cc")
        .args([source, "-o"])
        .arg(&program)
        .arg("-lseccomp")
        .output();
    match cc {
        Ok(out) if out.status.success() => Ok(program),
        Ok(out) => Err(format!(
            "libseccomp-dev is missing: {}",
            String::from_utf8_lossy(&out.stderr)
        )),
        Err(error) => Err(format!("no C compiler: {error}")),
    }
}

/// The rules as runc hands them to libseccomp, in the oracle's format.
fn script(profile: &LinuxSeccomp, archs: &[&str]) -> String {
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let mut text = format!("default {default}\n");
    for arch in archs {
        writeln!(text, "arch {arch}").expect("text");
    }
    for rule in profile.syscalls().iter().flatten() {
        let action = rule.action().as_u32(rule.errno_ret());
        if action == default {
            continue;
        }
        let args = rule.args().clone().unwrap_or_default();
        let repeats = (0..6).any(|i| args.iter().filter(|a| a.index() == i).count() > 1);
        let rules: Vec<_> = if repeats {
            args.chunks(1).map(<[_]>::to_vec).collect()
        } else {
            vec![args]
        };
        for name in rule.names() {
            for args in &rules {
                write!(text, "{name} {action} {}", args.len()).expect("text");
                for a in args {
                    let op = a.op() as u32;
                    let b = if a.op() == LinuxSeccompOperator::ScmpCmpMaskedEq {
                        a.value_two().unwrap_or(0)
                    } else {
                        0
                    };
                    write!(text, " {} {op} {} {b}", a.index(), a.value()).expect("text");
                }
                text.push('\n');
            }
        }
    }
    text
}

fn ask(oracle: &PathBuf, script: &str, native: Arch) -> (Vec<SockFilter>, BTreeSet<String>) {
    let mut child = Command::new(oracle)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the oracle starts");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(script.as_bytes())
        .expect("the oracle reads");
    let out = child.wait_with_output().expect("the oracle ends");
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{text}");
    let unknown = text
        .lines()
        .filter_map(|l| l.strip_prefix("UNKNOWN "))
        .map(str::to_owned)
        .collect();
    let big = native.is_big_endian();
    let instruction = |b: &[u8]| {
        let (code, k) = ([b[0], b[1]], [b[4], b[5], b[6], b[7]]);
        let code = if big {
            u16::from_be_bytes(code)
        } else {
            u16::from_le_bytes(code)
        };
        let k = if big {
            u32::from_be_bytes(k)
        } else {
            u32::from_le_bytes(k)
        };
        SockFilter {
            code,
            jt: b[2],
            jf: b[3],
            k,
        }
    };
    (out.stdout.chunks_exact(8).map(instruction).collect(), unknown)
}

/// Every call of the ABI and some numbers besides, with arguments around those that the profiles use.
fn calls(arch: Arch) -> Vec<Call> {
    let base = if arch == Arch::X32 { X32_BIT } else { 0 };
    let mut numbers: BTreeSet<u32> = (base..base + 520)
        .chain([0xf_0001, 0xf_0002, 0xf_0005, 0x3fff_ffff, u32::MAX])
        .collect();
    numbers.extend(SYSCALLS.iter().filter_map(|(name, _)| Numbers::of(name)?.on(arch)));
    let values = [
        0,
        1,
        2,
        8,
        17,
        40,
        0x20000,
        0x7e02_0000,
        0xffff_ffff,
        1 << 32,
        (1 << 32) | 8,
        u64::MAX,
    ];
    let mut calls = Vec::new();
    for number in numbers {
        for a in values {
            for b in [0, 5, u64::MAX] {
                calls.push(Call {
                    arch,
                    number,
                    args: [a, b, a, b, a, b],
                });
            }
        }
    }
    calls
}

fn compare(oracle: &PathBuf, rules: &Value, native: Arch, abis: &[(Arch, &str)]) {
    let spec: Vec<String> = abis
        .iter()
        .map(|(_, name)| format!("SCMP_ARCH_{}", name.to_uppercase()))
        .collect();
    let names: Vec<&str> = abis.iter().map(|(_, name)| *name).collect();
    let whole =
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": spec, "syscalls": rules });
    let (theirs, unknown) = ask(oracle, &script(&profile(whole.clone()), &names), native);
    let mut known = whole;
    for rule in known["syscalls"].as_array_mut().expect("rules") {
        rule["names"]
            .as_array_mut()
            .expect("names")
            .retain(|n| !unknown.contains(n.as_str().expect("name")));
    }
    let ours = compile(&profile(known), native).expect("compiles").instructions;
    let mut different = BTreeSet::new();
    for (arch, _) in abis {
        for call in calls(*arch) {
            let (we, they) = (run(&ours, &call).0, run(&theirs, &call).0);
            // On a little-endian machine libseccomp writes most return values of big-endian programs little-endian.
            let swapped = arch.is_big_endian() && we == they.swap_bytes();
            if we != they && !swapped {
                different.insert(format!(
                    "{arch:?} {:#x} args {:x?}: {we:#x}, libseccomp {they:#x}",
                    call.number,
                    &call.args[..2]
                ));
            }
        }
    }
    assert!(
        different.is_empty(),
        "{} calls: {:#?}",
        different.len(),
        different.iter().step_by(1 + different.len() / 40).collect::<Vec<_>>()
    );
}

#[test]
fn libseccomp_decides_alike() {
    let dir = tempfile::tempdir().expect("a directory");
    let oracle = match oracle(&dir) {
        Ok(oracle) => oracle,
        Err(why) => return eprintln!("SKIPPED: {why}"),
    };
    let all: Vec<&str> = SYSCALLS
        .iter()
        .map(|(name, _)| *name)
        .filter(|n| !n.starts_with(['i', 's']))
        .collect();
    let some = json!([
        { "names": all, "action": "SCMP_ACT_ALLOW" },
        { "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 40, "op": "SCMP_CMP_NE" }] },
        { "names": ["semop", "shmat", "send", "setsockopt", "sendmmsg"], "action": "SCMP_ACT_ALLOW" },
        { "names": ["splice"], "action": "SCMP_ACT_LOG", "args": [
            { "index": 0, "value": 4294967304u64, "op": "SCMP_CMP_GE" }, { "index": 1, "value": 5, "op": "SCMP_CMP_LE" }] },
        { "names": ["statx"], "action": "SCMP_ACT_TRAP", "args": [{ "index": 2, "value": 8, "op": "SCMP_CMP_GT" }] },
        { "names": ["setuid"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 2, "value": 4294967296u64, "op": "SCMP_CMP_LT" }] },
        { "names": ["sysinfo"], "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 0, "value": 2114060288, "valueTwo": 131072, "op": "SCMP_CMP_MASKED_EQ" }] },
        { "names": ["setns"], "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] },
        { "names": ["setns"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 1, "value": 5, "op": "SCMP_CMP_EQ" }] },
        { "names": ["sync"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
        { "names": ["swapon"], "action": "SCMP_ACT_KILL_PROCESS" },
        { "names": ["swapon"], "action": "SCMP_ACT_ALLOW" },
    ]);
    compare(
        &oracle,
        &some,
        Arch::X86_64,
        &[(Arch::X86_64, "x86_64"), (Arch::X86, "x86"), (Arch::X32, "x32")],
    );
    compare(&oracle, &some, Arch::X86_64, &[(Arch::X86_64, "x86_64")]);
    compare(
        &oracle,
        &some,
        Arch::Aarch64,
        &[(Arch::Aarch64, "aarch64"), (Arch::Arm, "arm")],
    );
    compare(&oracle, &some, Arch::Riscv64, &[(Arch::Riscv64, "riscv64")]);
    compare(&oracle, &some, Arch::Ppc64le, &[(Arch::Ppc64le, "ppc64le")]);
    compare(
        &oracle,
        &some,
        Arch::S390x,
        &[(Arch::S390x, "s390x"), (Arch::S390, "s390")],
    );
}
