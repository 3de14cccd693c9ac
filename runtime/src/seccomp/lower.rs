use longshore_linux::SockFilter;
use oci_spec::runtime::LinuxSeccompOperator as Operator;

use super::arch::Arch;
use super::assemble::{AND, Assembler, JUMP_EQ, JUMP_GE, JUMP_GT, LOAD, Label, RETURN, To};
use super::rules::{Decision, KILL_THREAD, Policy, Test};

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// The program of a policy.
pub(super) fn program(policy: &Policy) -> Vec<SockFilter> {
    let mut asm = Assembler::default();
    asm.plain(LOAD, ARCH);
    for section in &policy.sections {
        let next = asm.label();
        asm.branch(JUMP_EQ, section.arch.audit(), To::Next, To::Label(next));
        asm.plain(LOAD, NUMBER);
        search(&mut asm, &section.ranges, section.arch);
        asm.bind(next);
    }
    asm.plain(RETURN, KILL_THREAD);
    asm.finish()
}

/// Finds the range of the number in the accumulator.
fn search(asm: &mut Assembler, ranges: &[(u32, Decision)], arch: Arch) {
    if let [(_, decision)] = ranges {
        return decide(asm, decision, arch);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let upper = asm.label();
    asm.branch(JUMP_GE, high[0].0, To::Label(upper), To::Next);
    search(asm, low, arch);
    asm.bind(upper);
    search(asm, high, arch);
}

fn decide(asm: &mut Assembler, decision: &Decision, arch: Arch) {
    for rule in &decision.rules {
        let fails = asm.label();
        for test in &rule.tests {
            compare(asm, test, arch, fails);
        }
        asm.plain(RETURN, rule.action);
        asm.bind(fails);
    }
    asm.plain(RETURN, decision.otherwise);
}

/// Goes on if the test holds, else to `fails`.
fn compare(asm: &mut Assembler, test: &Test, arch: Arch, fails: Label) {
    if test.narrow {
        low(asm, test, arch, fails);
    } else {
        let holds = asm.label();
        high(asm, test, arch, holds, fails);
        low(asm, test, arch, fails);
        asm.bind(holds);
    }
}

/// Decides by the high half of the argument, or goes on if that leaves it to the low half.
fn high(asm: &mut Assembler, test: &Test, arch: Arch, holds: Label, fails: Label) {
    let value = (test.value >> 32) as u32;
    let (holds, fails) = (To::Label(holds), To::Label(fails));
    asm.plain(LOAD, ARGS + 8 * test.index + if arch.is_big_endian() { 0 } else { 4 });
    match test.operator {
        Operator::ScmpCmpEq => asm.branch(JUMP_EQ, value, To::Next, fails),
        Operator::ScmpCmpNe => asm.branch(JUMP_EQ, value, To::Next, holds),
        Operator::ScmpCmpGt | Operator::ScmpCmpGe => {
            asm.branch(JUMP_GT, value, holds, To::Next);
            asm.branch(JUMP_EQ, value, To::Next, fails);
        }
        Operator::ScmpCmpLt | Operator::ScmpCmpLe => {
            asm.branch(JUMP_GT, value, fails, To::Next);
            asm.branch(JUMP_EQ, value, To::Next, holds);
        }
        Operator::ScmpCmpMaskedEq => {
            asm.plain(AND, (test.mask >> 32) as u32);
            asm.branch(JUMP_EQ, value, To::Next, fails);
        }
    }
}

/// Decides by the low half.
fn low(asm: &mut Assembler, test: &Test, arch: Arch, fails: Label) {
    let fails = To::Label(fails);
    asm.plain(LOAD, ARGS + 8 * test.index + if arch.is_big_endian() { 4 } else { 0 });
    let (code, yes, no) = match test.operator {
        Operator::ScmpCmpEq => (JUMP_EQ, To::Next, fails),
        Operator::ScmpCmpNe => (JUMP_EQ, fails, To::Next),
        Operator::ScmpCmpGt => (JUMP_GT, To::Next, fails),
        Operator::ScmpCmpLe => (JUMP_GT, fails, To::Next),
        Operator::ScmpCmpGe => (JUMP_GE, To::Next, fails),
        Operator::ScmpCmpLt => (JUMP_GE, fails, To::Next),
        Operator::ScmpCmpMaskedEq => {
            asm.plain(AND, test.mask as u32);
            (JUMP_EQ, To::Next, fails)
        }
    };
    asm.branch(code, test.value as u32, yes, no);
}
