//! The kernel as the judge: a child loads a filter and makes calls, which the interpreter must have foretold.
#![allow(unsafe_code)] // of the child, between fork and exit

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Command;

use longshore_linux::{exit_now, load_seccomp_filter};
use nix::libc;
use serde_json::json;

use super::super::arch::Arch;
use super::super::interpret::{Call, run};
use super::super::rules::ERRNO;
use super::{compile, number, profile};

/// The errnos that a child gets for calls under a filter.
fn really(filter: &super::Filter, calls: &[Call]) -> Vec<u32> {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let (instructions, flags) = (filter.instructions.clone(), filter.flags);
    let made = calls.to_vec();
    let mut command = Command::new("/bin/true");
    let work = move || {
        rustix::thread::set_no_new_privs(true)?;
        load_seccomp_filter(&instructions, flags.into())?;
        for call in &made {
            let a = call.args;
            // SAFETY: the filter lets none of these calls be made.
            let returned = unsafe { libc::syscall(call.number.into(), a[0], a[1], a[2], a[3], a[4], a[5]) };
            let errno = if returned == -1 {
                std::io::Error::last_os_error().raw_os_error().unwrap_or(0) as u32
            } else {
                0
            };
            rustix::io::write(&writer, &errno.to_ne_bytes())?;
        }
        exit_now(0)
    };
    // SAFETY: the closure makes system calls only; it allocates nothing and takes no lock.
    let child = unsafe { command.pre_exec(work) }.spawn();
    // It has the other end of the pipe.
    drop(command);
    let mut bytes = Vec::new();
    assert!(child.expect("a child").wait().expect("it ends").success());
    reader.read_to_end(&mut bytes).expect("readable");
    bytes
        .chunks_exact(4)
        .map(|b| u32::from_ne_bytes(b.try_into().expect("four bytes")))
        .collect()
}

#[test]
fn the_kernel_decides_as_the_interpreter() {
    let Some(native) = Arch::native() else {
        return longshore_testing::skip("the compiler does not know this machine's ABI");
    };
    let operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let values = [0u64, 1, 7, 8, 9, 0xffff_ffff, 1 << 32, (1 << 32) | 8, 1 << 63, u64::MAX];
    let names = ["mkdirat", "unlinkat", "fchdir", "dup3", "chroot", "kill", "setns"];
    let rules: Vec<_> = operators
        .iter()
        .zip(names)
        .enumerate()
        .flat_map(|(n, (operator, name))| {
            let rule = move |errno: usize, value: u64, index: u32| {
                json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
                    "args": [{ "index": index, "value": value, "valueTwo": 8, "op": format!("SCMP_CMP_{operator}") }] })
            };
            [
                rule(200 + n, 8, 0),
                rule(300 + n, (1 << 32) | 8, 1),
                rule(400 + n, 0xffff_ffff, 5),
            ]
        })
        .chain([json!({ "names": ["write", "exit_group", "close", "rt_sigreturn"], "action": "SCMP_ACT_ALLOW" })])
        .collect();
    let whole = json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 99, "syscalls": rules });
    let filter = compile(&profile(whole), native).expect("compiles");
    let mut calls = Vec::new();
    for name in names {
        for (i, a) in values.iter().enumerate() {
            for (j, b) in values.iter().enumerate() {
                let args = [*a, *b, 0, 0, 0, values[(i + j) % values.len()]];
                calls.push(Call {
                    arch: native,
                    number: number(name, native),
                    args,
                });
            }
        }
    }
    calls.extend([1000, 0x3fff_ffff].map(|number| Call {
        arch: native,
        number,
        args: [0; 6],
    }));
    let foretold: Vec<u32> = calls.iter().map(|call| run(&filter.instructions, call).0).collect();
    assert!(
        foretold.iter().all(|f| f & 0xffff_0000 == ERRNO),
        "no call is really made"
    );
    let foretold: Vec<u32> = foretold.into_iter().map(|f| f & 0xffff).collect();
    assert!(foretold.contains(&38) && foretold.contains(&99) && foretold.contains(&406));
    assert_eq!(really(&filter, &calls), foretold);
}
