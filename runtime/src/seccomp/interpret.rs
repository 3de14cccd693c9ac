//! Runs a filter as the kernel would: the tests' judge.

use longshore_linux::SockFilter;

use super::arch::Arch;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) arch: Arch,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch.audit(),
            16..64 if offset.is_multiple_of(4) => {
                let arg = self.args[(offset as usize - 16) / 8];
                let high = (offset % 8 == 4) != self.arch.is_big_endian();
                if high { (arg >> 32) as u32 } else { arg as u32 }
            }
            _ => panic!("load from {offset}"),
        }
    }
}

/// What the filter returns, and after how many instructions.
pub(super) fn run(program: &[SockFilter], call: &Call) -> (u32, usize) {
    let (mut a, mut at, mut steps) = (0u32, 0usize, 0usize);
    loop {
        let i = program[at];
        at += 1;
        steps += 1;
        let branch = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            0x20 => a = call.word(i.k),
            0x54 => a &= i.k,
            0x05 => at += i.k as usize,
            0x15 => at += branch(a == i.k),
            0x25 => at += branch(a > i.k),
            0x35 => at += branch(a >= i.k),
            0x45 => at += branch(a & i.k != 0),
            0x06 => return (i.k, steps),
            code => panic!("instruction {code:#x}"),
        }
    }
}
