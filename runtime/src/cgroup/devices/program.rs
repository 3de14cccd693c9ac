use longshore_linux::EbpfInstruction as Instruction;

use super::{ALL, Devices, Kind, Rule};

// Registers: the result, what is left of the asked access, the device, and one to calculate with.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const ACCESS: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

// Operations (linux/bpf.h, linux/bpf_common.h).
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_DEV_*`.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

/// The eBPF program that decides as the rules do: the last rule that speaks of an access decides about it, so they are
/// tried from the last one on until nothing of what is asked for is undecided.
pub(in super::super) fn program(devices: &Devices) -> Vec<Instruction> {
    let mut program = vec![
        load(ACCESS, 0),
        Instruction::new(MOVE_REGISTER, KIND, ACCESS, 0, 0),
        Instruction::new(AND, KIND, 0, 0, 0xffff),
        Instruction::new(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in devices.rules.iter().rev() {
        program.extend(one(rule));
    }
    program.extend(answer(devices.otherwise));
    program
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction::new(LOAD_WORD, register, CONTEXT, offset, 0)
}

fn answer(allow: bool) -> [Instruction; 2] {
    [
        Instruction::new(MOVE, RESULT, 0, 0, i32::from(allow)),
        Instruction::new(EXIT, 0, 0, 0, 0),
    ]
}

fn one(rule: &Rule) -> Vec<Instruction> {
    let mut decide = Vec::new();
    if rule.allow {
        if rule.access != ALL {
            decide.push(Instruction::new(AND, ACCESS, 0, 0, (ALL & !rule.access) as i32));
            decide.push(Instruction::new(JUMP_UNLESS_EQUAL, ACCESS, 0, 2, 0));
        }
    } else {
        decide.push(Instruction::new(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0));
        decide.push(Instruction::new(AND, SCRATCH, 0, 0, rule.access as i32));
        decide.push(Instruction::new(JUMP_IF_EQUAL, SCRATCH, 0, 2, 0));
    }
    decide.extend(answer(rule.allow));

    let kind = if rule.kind == Kind::Block { BLOCK } else { CHAR };
    let mut tests = vec![(KIND, kind)];
    tests.extend(rule.major.map(|n| (MAJOR, n as i32)));
    tests.extend(rule.minor.map(|n| (MINOR, n as i32)));
    let whole = tests.len() + decide.len();
    let mut code = Vec::with_capacity(whole);
    for (n, (register, value)) in tests.into_iter().enumerate() {
        let next = i16::try_from(whole - n - 1).expect("a rule is a dozen instructions");
        code.push(Instruction::new(JUMP_UNLESS_EQUAL, register, 0, next, value));
    }
    code.extend(decide);
    code
}
