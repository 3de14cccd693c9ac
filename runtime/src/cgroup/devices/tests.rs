use oci_spec::runtime::LinuxDeviceCgroup;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ErrorKind;

fn compile(rules: Value) -> Result<Devices> {
    let rules: Vec<LinuxDeviceCgroup> = serde_json::from_value(rules).expect("rules");
    Devices::compile(Some(&rules))
}

/// A plain reading: each access is decided by the last rule that speaks of it.
fn allowed(devices: &Devices, kind: Kind, major: u32, minor: u32, access: u32) -> bool {
    [MAKE, READ, WRITE]
        .into_iter()
        .filter(|bit| access & bit != 0)
        .all(|bit| {
            let speaks = |r: &&Rule| {
                r.kind == kind
                    && r.major.is_none_or(|n| n == major)
                    && r.minor.is_none_or(|n| n == minor)
                    && r.access & bit != 0
            };
            devices
                .rules
                .iter()
                .rev()
                .find(speaks)
                .map_or(devices.otherwise, |r| r.allow)
        })
}

/// Runs the program as the kernel would, on the words of `struct bpf_cgroup_dev_ctx`.
fn run(program: &[longshore_linux::EbpfInstruction], context: [u32; 3]) -> bool {
    let mut registers = [0u64; 11];
    let mut at = 0usize;
    loop {
        let i = program[at];
        at += 1;
        let (destination, source) = (usize::from(i.destination()), usize::from(i.source()));
        let jump = |holds: bool| {
            if holds {
                usize::try_from(i.offset()).expect("forward")
            } else {
                0
            }
        };
        let immediate = i64::from(i.immediate()) as u64;
        match i.code() {
            0x61 => registers[destination] = context[usize::try_from(i.offset()).expect("inside") / 4].into(),
            0xb7 => registers[destination] = immediate,
            0xbf => registers[destination] = registers[source],
            0x57 => registers[destination] &= immediate,
            0x77 => registers[destination] >>= immediate,
            0x15 => at += jump(registers[destination] == immediate),
            0x55 => at += jump(registers[destination] != immediate),
            0x95 => return registers[0] != 0,
            code => panic!("instruction {code:#x}"),
        }
    }
}

fn asks(devices: &Devices, kind: Kind, major: u32, minor: u32, access: u32) -> bool {
    let word = if kind == Kind::Block { 1 } else { 2 };
    run(&program(devices), [access << 16 | word, major, minor])
}

#[test]
fn the_usual_rules_allow_what_every_container_needs() {
    let devices = compile(json!([{ "allow": false, "access": "rwm" }])).expect("valid");
    assert!(asks(&devices, Kind::Char, 1, 3, READ | WRITE), "null");
    assert!(asks(&devices, Kind::Char, 136, 77, ALL), "pts");
    assert!(asks(&devices, Kind::Block, 8, 0, MAKE), "a node");
    assert!(!asks(&devices, Kind::Block, 8, 0, READ), "a disk");
    assert!(!asks(&devices, Kind::Char, 1, 1, READ | MAKE), "memory");
    assert_eq!(Devices::compile(None).expect("valid").rules, devices.rules);
}

#[test]
fn v1_gets_a_reset_and_the_exceptions() {
    let devices = compile(json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw" },
        { "allow": true, "type": "b", "major": 8, "access": "r" },
        { "allow": false, "type": "c", "major": 10, "minor": 200, "access": "w" },
    ]));
    let writes = devices.expect("valid").for_v1().expect("v1 can").writes();
    assert_eq!(writes[0], ("devices.deny", "a".to_owned()));
    assert!(
        writes.contains(&("devices.allow", "c 10:200 r".to_owned())),
        "{writes:?}"
    );
    assert!(writes.contains(&("devices.allow", "b 8:* r".to_owned())), "{writes:?}");
    assert!(writes.contains(&("devices.allow", "c *:* m".to_owned())), "{writes:?}");
    // In the listed order, and before those of every container.
    assert_eq!((writes[1].1.as_str(), writes[2].1.as_str()), ("c 10:200 r", "b 8:* r"));

    let all = compile(json!([{ "allow": true }]))
        .expect("valid")
        .for_v1()
        .expect("v1 can");
    assert_eq!(all.writes(), [("devices.allow", "a".to_owned())]);
}

#[test]
fn v1_refuses_an_exception_from_an_exception() {
    let rules = json!([
        { "allow": false },
        { "allow": true, "type": "c", "major": 10, "access": "rw" },
        { "allow": false, "type": "c", "major": 10, "minor": 200, "access": "w" },
    ]);
    let devices = compile(rules).expect("valid");
    let error = devices.for_v1().expect_err("v1 can't");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("c 10:* rw"), "{error}");
    // v2 can.
    assert!(asks(&devices, Kind::Char, 10, 1, WRITE));
    assert!(asks(&devices, Kind::Char, 10, 200, READ));
    assert!(!asks(&devices, Kind::Char, 10, 200, READ | WRITE));
}

#[test]
fn what_is_no_rule_is_named() {
    for (rule, field) in [
        (json!({ "allow": true, "access": "rx" }), "access"),
        (json!({ "allow": true, "major": -2 }), "major"),
        (json!({ "allow": true, "minor": 4294967296u64 }), "minor"),
        (json!({ "allow": true, "type": "p" }), "type"),
    ] {
        let error = compile(json!([rule])).expect_err("refused");
        assert!(
            error
                .to_string()
                .starts_with(&format!("linux.resources.devices[0].{field}: ")),
            "{error}"
        );
    }
}

fn rule() -> impl Strategy<Value = Value> {
    let number = || prop_oneof![Just(None), (0i64..3).prop_map(Some)];
    (any::<bool>(), prop::sample::select(vec!["a", "b", "c", "u"]), number(), number(), prop::sample::select(vec!["r", "w", "m", "rw", "rwm", ""]))
        .prop_map(|(allow, kind, major, minor, access)| {
            json!({ "allow": allow, "type": kind, "major": major, "minor": minor, "access": access })
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn program_and_v1_decide_as_the_rules_read(rules in prop::collection::vec(rule(), 0..7)) {
        let mut devices = compile(Value::from(rules)).expect("valid");
        devices.rules.truncate(devices.rules.len() - ALWAYS.len()); // They would hide most of what is to be seen.
        let v1 = devices.for_v1();
        for kind in [Kind::Block, Kind::Char] {
            for number in 0..9 {
                let (major, minor) = (number / 3, number % 3);
                for access in 1..=ALL {
                    let expected = allowed(&devices, kind, major, minor, access);
                    prop_assert_eq!(asks(&devices, kind, major, minor, access), expected);
                    // v1 looks for one exception that covers the whole access, so only single ones compare.
                    if let (Ok(v1), true) = (&v1, access.is_power_of_two()) {
                        prop_assert_eq!(v1.allows(kind, major, minor, access), expected);
                    }
                }
            }
        }
    }
}

#[test]
fn v1_rules_change_without_a_moment_in_between() {
    let state = |rules| compile(rules).expect("valid").for_v1().expect("v1 can");
    let old = state(json!([{ "allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm" }]));
    let list: String = old.writes()[1..].iter().map(|(_, line)| format!("{line}\n")).collect();
    assert_eq!(old.changes_from(&list), []);
    let new = state(json!([
        { "allow": true, "type": "c", "major": 10, "minor": 200, "access": "r" },
        { "allow": true, "type": "b", "major": 8, "access": "rwa" },
    ]));
    assert_eq!(
        new.changes_from(&list),
        [
            ("devices.allow", "b 8:* rw".to_owned()),
            ("devices.deny", "c 10:200 wm".to_owned())
        ]
    );
    // All is allowed now: nothing is known, and nothing was forbidden.
    assert_eq!(new.changes_from("a *:* rwm\n"), new.writes());
    let most = state(
        json!([{ "allow": true, "access": "rwm" }, { "allow": false, "type": "c", "major": 1, "minor": 11, "access": "r" }]),
    );
    assert_eq!(most.changes_from(&list), most.writes());
}
