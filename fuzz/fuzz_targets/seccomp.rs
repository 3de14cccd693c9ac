//! A seccomp profile of any content: the program is one that the kernel takes, and it decides by what the profile names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_linux::SockFilter;
use longshore_runtime::seccomp::{Arch, compile};
use oci_spec::runtime::LinuxSeccomp;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const BRANCHES: [u16; 3] = [0x15, 0x25, 0x35];
/// The default of the compiler for what is not of its machine, and for calls newer than a profile.
const KILL: u32 = 0;
const ENOSYS: u32 = 0x0005_0000 | 38;

fuzz_target!(|input: (u8, [u32; 16], &[u8])| {
    let (machine, words, bytes) = input;
    let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(bytes) else {
        return;
    };
    let native = Arch::ALL[usize::from(machine) % Arch::ALL.len()];
    let Ok(filter) = compile(&profile, native) else {
        return;
    };
    check(&filter.instructions);
    let decided = run(&filter.instructions, &words);
    let rules = profile.syscalls().iter().flatten();
    let named = rules.map(|rule| rule.action().as_u32(rule.errno_ret()));
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    assert!(
        named.chain([default, KILL, ENOSYS]).any(|action| action == decided),
        "{decided:#x} is nothing that {profile:?} names"
    );
});

/// What the kernel looks for before it takes a program (`bpf_check_classic`, `seccomp_check_filter`).
fn check(program: &[SockFilter]) {
    assert!((1..=4096).contains(&program.len()));
    for (at, i) in program.iter().enumerate() {
        let inside = |distance: u32| assert!(at + 1 + (distance as usize) < program.len(), "{at} jumps out");
        match i.code {
            LOAD => assert!(i.k % 4 == 0 && i.k < 64, "{at} loads from {}", i.k),
            AND | RETURN => {}
            JUMP => inside(i.k),
            code if BRANCHES.contains(&code) => {
                inside(i.jt.into());
                inside(i.jf.into());
            }
            code => panic!("{at} has the code {code:#x}"),
        }
    }
    assert_eq!(program.last().map(|i| i.code), Some(RETURN));
}

fn run(program: &[SockFilter], data: &[u32; 16]) -> u32 {
    let (mut a, mut at) = (0, 0);
    loop {
        let i = program[at];
        at += 1;
        let branch = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            LOAD => a = data[i.k as usize / 4],
            AND => a &= i.k,
            JUMP => at += i.k as usize,
            0x15 => at += branch(a == i.k),
            0x25 => at += branch(a > i.k),
            0x35 => at += branch(a >= i.k),
            _ => return i.k,
        }
    }
}
