use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use super::arch::{Arch, Numbers, X32_BIT, multiplexed};
use crate::{Error, Result};

/// `SECCOMP_RET_*` with its data.
pub(super) type Action = u32;

pub(super) const KILL_PROCESS: Action = 0x8000_0000;
pub(super) const KILL_THREAD: Action = 0;
pub(super) const TRAP: Action = 0x0003_0000;
pub(super) const ERRNO: Action = 0x0005_0000;
pub(super) const TRACE: Action = 0x7ff0_0000;
pub(super) const NOTIFY: Action = 0x7fc0_0000;
pub(super) const LOG: Action = 0x7ffc_0000;
pub(super) const ALLOW: Action = 0x7fff_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Numbers of calls that arm keeps for itself, far above the others.
const ARM_PRIVATE: u32 = 0x000f_0000;
const ARM_PRIVATE_END: u32 = 0x000f_0800;

/// No call of any ABI, although it has x32's bit.
const NO_CALL: u32 = u32::MAX;

/// A comparison of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) index: u32,
    pub(super) operator: LinuxSeccompOperator,
    pub(super) value: u64,
    /// Only of `SCMP_CMP_MASKED_EQ`.
    pub(super) mask: u64,
    /// Whether only the low 32 bits are compared.
    pub(super) narrow: bool,
}

/// What to do if all tests hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) tests: Vec<Test>,
    pub(super) action: Action,
}

/// What to do about a call: the first rule that matches, else `otherwise`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) rules: Vec<Rule>,
    pub(super) otherwise: Action,
}

impl Decision {
    fn always(action: Action) -> Self {
        Self {
            rules: Vec::new(),
            otherwise: action,
        }
    }
}

/// The decisions of one audit architecture.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) arch: Arch,
    /// First call number of each range and what is decided for it; starts at 0, sorted, neighbours differ.
    pub(super) ranges: Vec<(u32, Decision)>,
}

/// A profile, resolved to numbers.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// The native ABI's first.
    pub(super) sections: Vec<Section>,
    /// Names that no ABI has.
    pub(super) unknown: Vec<String>,
}

impl Policy {
    pub(super) fn new(profile: &LinuxSeccomp, native: Arch) -> Result<Self> {
        let default = action(
            profile.default_action(),
            profile.default_errno_ret(),
            "linux.seccomp.defaultAction",
        )?;
        if default == NOTIFY {
            return Err(Error::InvalidSpec {
                field: "linux.seccomp.defaultAction".into(),
                // The words are runc's: tools look for them.
                reason:
                    "SCMP_ACT_NOTIFY cannot be used as default action: the descriptor could not be handed to the agent"
                        .into(),
            });
        }
        let mut archs = vec![native];
        let asked = profile.architectures().iter().flatten();
        for arch in asked
            .filter_map(|a| Arch::from_spec(*a, native))
            .filter(|a| native.runs(*a))
        {
            if !archs.contains(&arch) {
                archs.push(arch);
            }
        }
        let mut abis: Vec<Abi> = archs.into_iter().map(|arch| Abi::new(arch, default)).collect();
        let all = profile.syscalls().iter().flatten().flat_map(|s| s.names());
        let mut unknown: Vec<String> = all.filter(|name| Numbers::of(name).is_none()).cloned().collect();
        unknown.sort_unstable();
        unknown.dedup();
        for (n, syscall) in profile.syscalls().iter().flatten().enumerate() {
            add(&mut abis, syscall, &format!("linux.seccomp.syscalls[{n}]"), default)?;
        }
        Ok(Self {
            sections: sections(abis, default),
            unknown,
        })
    }

    /// Whether any call goes to an agent.
    pub(super) fn notifies(&self) -> bool {
        let mut decisions = self
            .sections
            .iter()
            .flat_map(|s| &s.ranges)
            .map(|(_, decision)| decision);
        decisions.any(|d| d.otherwise == NOTIFY || d.rules.iter().any(|r| r.action == NOTIFY))
    }

    /// What is decided for a call of the native ABI whatever its arguments are, if that can be said.
    pub(super) fn always(&self, name: &str) -> Option<Action> {
        let section = self.sections.first()?;
        let number = Numbers::of(name)?.on(section.arch)?;
        let after = section.ranges.partition_point(|(start, _)| *start <= number);
        let (_, decision) = section.ranges.get(after.checked_sub(1)?)?;
        decision.rules.is_empty().then_some(decision.otherwise)
    }
}

/// The rules of one ABI while they are gathered.
#[derive(Debug)]
struct Abi {
    arch: Arch,
    default: Action,
    calls: BTreeMap<u32, Decision>,
    /// The highest number that the profile names, leaving arm's private calls out.
    last: Option<u32>,
}

impl Abi {
    fn new(arch: Arch, default: Action) -> Self {
        Self {
            arch,
            default,
            calls: BTreeMap::new(),
            last: None,
        }
    }

    fn names(&mut self, number: u32) {
        if self.arch != Arch::Arm || number < ARM_PRIVATE {
            self.last = self.last.max(Some(number));
        }
    }

    fn add(&mut self, number: u32, tests: &[Test], action: Action) {
        let default = self.default;
        let narrow = self.arch.is_narrow();
        let rule = || Rule {
            tests: tests.iter().map(|t| Test { narrow, ..*t }).collect(),
            action,
        };
        match self.calls.get_mut(&number) {
            Some(decision) if decision.rules.is_empty() => {}
            Some(decision) if !tests.is_empty() => decision.rules.push(rule()),
            Some(decision) => *decision = Decision::always(action),
            None if tests.is_empty() => drop(self.calls.insert(number, Decision::always(action))),
            None => drop(self.calls.insert(
                number,
                Decision {
                    rules: vec![rule()],
                    otherwise: default,
                },
            )),
        }
    }

    /// What is decided for calls that the profile doesn't name but a profile of its age could have.
    fn newer(&self) -> Action {
        match self.default {
            ALLOW | LOG => self.default,
            default if default & 0xffff_0000 == TRACE => default,
            _ => ERRNO | ENOSYS,
        }
    }

    /// The ranges of this ABI's numbers from `base` on.
    fn ranges(&self, base: u32) -> Vec<(u32, Decision)> {
        let mut ranges = vec![(base, Decision::always(self.default))];
        for (number, decision) in &self.calls {
            ranges.push((*number, decision.clone()));
            ranges.push((number + 1, Decision::always(self.default)));
        }
        if let Some(last) = self.last {
            if matches!(self.arch, Arch::S390x | Arch::S390) && !self.calls.contains_key(&0) {
                // What the kernel makes of a number that it does not know and that does not fit into the instruction.
                let zero = [(0, Decision::always(self.newer())), (1, Decision::always(self.default))];
                ranges.splice(1..1, zero);
            }
            // Nothing but arm's private calls is above the last one.
            let at = ranges.partition_point(|(start, _)| *start <= last + 1);
            ranges.insert(at, (last + 1, Decision::always(self.newer())));
            if self.arch == Arch::Arm {
                ranges.push((ARM_PRIVATE_END, Decision::always(self.newer())));
                ranges.insert(at + 1, (ARM_PRIVATE, Decision::always(self.default)));
            }
        }
        ranges
    }
}

/// Adds the rules of one entry of `syscalls` to every ABI.
fn add(abis: &mut [Abi], syscall: &LinuxSyscall, field: &str, default: Action) -> Result<()> {
    let action = action(syscall.action(), syscall.errno_ret(), &format!("{field}.action"))?;
    if action == NOTIFY && syscall.names().iter().any(|name| name == "write") {
        return Err(Error::InvalidSpec {
            field: format!("{field}.names"),
            // The words are runc's: tools look for them.
            reason:
                "SCMP_ACT_NOTIFY cannot be used for the write syscall: the descriptor may have to be handed over by it"
                    .into(),
        });
    }
    let alternatives = alternatives(syscall.args().as_deref().unwrap_or_default(), field)?;
    for name in syscall.names() {
        let numbers = Numbers::of(name);
        let multiplexed = multiplexed(name);
        for abi in abis.iter_mut() {
            let direct = numbers.and_then(|n| n.on(abi.arch));
            let through = multiplexed.filter(|_| abi.arch.multiplexes());
            let through = through.and_then(|(call, id)| Some((Numbers::of(call)?.on(abi.arch)?, id)));
            for number in direct.iter().chain(through.iter().map(|(number, _)| number)) {
                abi.names(*number);
            }
            if action == default {
                continue; // It says nothing new, and must not stand in the way of rules that do.
            }
            for tests in &alternatives {
                if let Some(number) = direct {
                    abi.add(number, tests, action);
                }
                if let Some((number, id)) = through {
                    abi.add(number, &through_multiplexer(tests, id), action);
                }
            }
        }
    }
    Ok(())
}

/// The same rule for a call made through a multiplexer, whose first argument says which call.
fn through_multiplexer(tests: &[Test], id: u64) -> Vec<Test> {
    let call = Test {
        index: 0,
        operator: LinuxSeccompOperator::ScmpCmpEq,
        value: id,
        mask: 0,
        narrow: false,
    };
    std::iter::once(call)
        .chain(tests.iter().copied().filter(|t| t.index != 0))
        .collect()
}

/// The lists of tests of which any may match: one, unless two arguments have the same index.
fn alternatives(args: &[LinuxSeccompArg], field: &str) -> Result<Vec<Vec<Test>>> {
    let mut tests = Vec::with_capacity(args.len());
    for (n, arg) in args.iter().enumerate() {
        if arg.index() > 5 {
            return Err(Error::InvalidSpec {
                field: format!("{field}.args[{n}].index"),
                reason: format!("is {}, and a system call has the arguments 0 to 5", arg.index()),
            });
        }
        let masked = arg.op() == LinuxSeccompOperator::ScmpCmpMaskedEq;
        let (mask, value) = if masked {
            (arg.value(), arg.value_two().unwrap_or(0))
        } else {
            (0, arg.value())
        };
        tests.push(Test {
            index: arg.index() as u32,
            operator: arg.op(),
            value: if masked { value & mask } else { value },
            mask,
            narrow: false,
        });
    }
    let repeats = tests
        .iter()
        .enumerate()
        .any(|(n, t)| tests[..n].iter().any(|u| u.index == t.index));
    Ok(if repeats {
        tests.into_iter().map(|t| vec![t]).collect()
    } else {
        vec![tests]
    })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>, field: &str) -> Result<Action> {
    let data = || match errno.unwrap_or(EPERM) {
        data @ 0..=0xffff => Ok(data),
        data => Err(Error::InvalidSpec {
            field: field.to_owned(),
            reason: format!("errnoRet is {data}, and the most is 65535"),
        }),
    };
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => TRAP,
        LinuxSeccompAction::ScmpActErrno => ERRNO | data()?,
        LinuxSeccompAction::ScmpActTrace => TRACE | data()?,
        LinuxSeccompAction::ScmpActLog => LOG,
        LinuxSeccompAction::ScmpActAllow => ALLOW,
        LinuxSeccompAction::ScmpActNotify => NOTIFY,
    })
}

/// Joins the ABIs that share an audit architecture, and closes each section's ends.
fn sections(abis: Vec<Abi>, default: Action) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for abi in &abis {
        let arch = abi.arch;
        if sections.iter().any(|s| s.arch.audit() == arch.audit()) {
            continue;
        }
        let mut ranges;
        if arch.audit() == Arch::X86_64.audit() {
            let of = |arch, base| match abis.iter().find(|a| a.arch == arch) {
                Some(abi) => abi.ranges(base),
                None => vec![(base, Decision::always(KILL_THREAD))],
            };
            ranges = of(Arch::X86_64, 0);
            ranges.extend(of(Arch::X32, X32_BIT));
            if abis.iter().all(|abi| abi.arch != Arch::X32) {
                ranges.push((NO_CALL, Decision::always(default)));
            }
        } else {
            ranges = abi.ranges(0);
        }
        sections.push(Section {
            arch,
            ranges: tidy(ranges),
        });
    }
    sections
}

/// Of several ranges with the same start the last one counts; neighbours that decide the same are one.
fn tidy(ranges: Vec<(u32, Decision)>) -> Vec<(u32, Decision)> {
    let mut tidy: Vec<(u32, Decision)> = Vec::with_capacity(ranges.len());
    for (start, decision) in ranges {
        if tidy.last().is_some_and(|(last, _)| *last == start) {
            tidy.pop();
        }
        if tidy.last().is_none_or(|(_, last)| *last != decision) {
            tidy.push((start, decision));
        }
    }
    tidy
}
