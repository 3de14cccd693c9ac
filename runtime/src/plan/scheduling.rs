//! Where and when a process runs, where its memory is, and what machine it is told that it is on.

use longshore_linux::SchedAttr;
use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, Linux, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality,
    LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType,
    Process, Scheduler,
};

use super::Builder;
use super::op::Op;
use super::paths::{invalid, unsupported};
use crate::Result;

/// The highest CPU or node that a list may name: more than any kernel has.
const HIGHEST: u32 = 8191;

/// The affinity of a process that is executed in a container.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    pub(super) initial: Option<Op>,
    pub(super) last: Option<Op>,
}

impl Affinity {
    /// Reads `execCPUAffinity`, which is for other processes than the container's first (runtime spec, "POSIX process").
    pub(super) fn read(field: &str, affinity: Option<&ExecCPUAffinity>) -> Result<Self> {
        let Some(affinity) = affinity else {
            return Ok(Self::default());
        };
        let read = |name: &str, list: &Option<String>| {
            let list = list.as_deref().filter(|l| !l.is_empty());
            list.map(|l| bits(&format!("{field}.execCPUAffinity.{name}"), l).map(Op::CpuAffinity))
                .transpose()
        };
        Ok(Self {
            initial: read("initial", affinity.initial())?,
            last: read("final", affinity.cpu_affinity_final())?,
        })
    }
}

/// A list of numbers and ranges (`0-3,7`) as bits.
fn bits(field: &str, list: &str) -> Result<Box<[u64]>> {
    let number = |text: &str| {
        let number = text.trim().parse::<u32>().ok().filter(|n| *n <= HIGHEST);
        number.ok_or_else(|| invalid(field, format!("'{text}' is not a number from 0 to {HIGHEST}")))
    };
    let mut words = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(invalid(field, format!("'{part}' ends before it begins")));
        }
        for n in first..=last {
            let word = (n / 64) as usize;
            if words.len() <= word {
                words.resize(word + 1, 0u64);
            }
            words[word] |= 1 << (n % 64);
        }
    }
    Ok(words.into())
}

impl Builder<'_> {
    /// `linux.memoryPolicy` and `linux.personality`, which all processes of a container have.
    pub(super) fn of_all_processes(&mut self, linux: Option<&Linux>) -> Result<()> {
        let Some(linux) = linux else { return Ok(()) };
        let policy = linux.memory_policy().as_ref().map(memory_policy).transpose()?;
        let personality = linux.personality().as_ref().map(personality).transpose()?;
        self.domain = policy.into_iter().chain(personality).collect();
        Ok(())
    }

    /// The steps for a process, as long as it has the right to do them.
    pub(super) fn scheduling(&mut self, field: &str, process: &Process) -> Result<()> {
        if let Some(scheduler) = process.scheduler() {
            let field = format!("{field}.scheduler");
            let op = Op::Scheduler(scheduler_of(&field, scheduler)?);
            self.step(&field, op);
        }
        if let Some(priority) = process.io_priority() {
            let field = format!("{field}.ioPriority");
            let op = io_priority(&field, priority)?;
            self.step(&field, op);
        }
        for (field, op) in std::mem::take(&mut self.domain) {
            self.step(field, op);
        }
        Ok(())
    }
}

fn scheduler_of(field: &str, scheduler: &Scheduler) -> Result<SchedAttr> {
    use LinuxSchedulerPolicy as P;
    let policy = match scheduler.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
        P::SchedIso => return Err(unsupported(format!("{field}.policy"), "no kernel has SCHED_ISO")),
    };
    let priority = scheduler.priority().unwrap_or(0);
    let real_time = matches!(scheduler.policy(), P::SchedFifo | P::SchedRr);
    if priority < 0 || (priority != 0 && !real_time) {
        let reason = "it is for SCHED_FIFO and SCHED_RR, from 1 to 99";
        return Err(invalid(format!("{field}.priority"), reason));
    }
    let times = [
        ("runtime", *scheduler.runtime()),
        ("deadline", *scheduler.deadline()),
        ("period", *scheduler.period()),
    ];
    let deadline = *scheduler.policy() == P::SchedDeadline;
    if let Some((name, _)) = times.iter().find(|(_, t)| !deadline && t.unwrap_or(0) != 0) {
        return Err(invalid(format!("{field}.{name}"), "it is for SCHED_DEADLINE"));
    }
    let flags = scheduler.flags().iter().flatten().map(scheduler_flag);
    let mut attributes = SchedAttr::default();
    attributes.policy = policy;
    attributes.flags = flags.fold(0, |all, one| all | one);
    attributes.nice = scheduler.nice().unwrap_or(0);
    attributes.priority = priority as u32;
    [attributes.runtime, attributes.deadline, attributes.period] = times.map(|(_, t)| t.unwrap_or(0));
    Ok(attributes)
}

fn scheduler_flag(flag: &LinuxSchedulerFlag) -> u64 {
    use LinuxSchedulerFlag as F;
    match flag {
        F::SchedResetOnFork => 0x01,
        F::SchedFlagReclaim => 0x02,
        F::SchedFlagDLOverrun => 0x04,
        F::SchedFlagKeepPolicy => 0x08,
        F::SchedFlagKeepParams => 0x10,
        F::SchedFlagUtilClampMin => 0x20,
        F::SchedFlagUtilClampMax => 0x40,
    }
}

fn io_priority(field: &str, priority: &LinuxIOPriority) -> Result<Op> {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = u8::try_from(priority.priority()).ok().filter(|level| *level <= 7);
    let level = level.ok_or_else(|| {
        let given = priority.priority();
        invalid(format!("{field}.priority"), format!("{given} is not from 0 to 7"))
    })?;
    Ok(Op::IoPriority { class, level })
}

fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<(&'static str, Op)> {
    use MemoryPolicyModeType as M;
    let mode = match policy.mode() {
        M::MpolDefault => 0,
        M::MpolPreferred => 1,
        M::MpolBind => 2,
        M::MpolInterleave => 3,
        M::MpolLocal => 4,
        M::MpolPreferredMany => 5,
        M::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    };
    let flags = policy.flags().iter().flatten().map(flag).fold(0, |all, one| all | one);
    let nodes = match policy.nodes().as_deref() {
        None | Some("") => Box::default(),
        Some(nodes) => bits("linux.memoryPolicy.nodes", nodes)?,
    };
    let count: u32 = nodes.iter().map(|word| word.count_ones()).sum();
    if matches!(policy.mode(), M::MpolDefault | M::MpolLocal) && count != 0 {
        let reason = format!("{} mode requires 0 nodes but got {count}", policy.mode());
        return Err(invalid("linux.memoryPolicy.nodes", reason));
    }
    let mode = mode | flags;
    Ok(("linux.memoryPolicy", Op::MemoryPolicy { mode, nodes }))
}

fn personality(personality: &LinuxPersonality) -> Result<(&'static str, Op)> {
    if personality.flags().as_ref().is_some_and(|f| !f.is_empty()) {
        let reason = "the specification has no values for it; leave it out";
        return Err(unsupported("linux.personality.flags", reason));
    }
    let domain = match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    };
    Ok(("linux.personality", Op::Personality(domain)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bits() {
        let read = |list| bits("f", list).map(|words| words.into_vec());
        assert_eq!(read("0-3,7").expect("a list"), [0x8f]);
        assert_eq!(read("64, 127").expect("a list"), [0, 1 | 1 << 63]);
        for wrong in ["", "3-1", "-1", "1,,2", "8192", "a", "0-99999999999"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mode_without_nodes_is_given_none() {
        let read = |mode: &str, nodes: &str| {
            let policy = serde_json::json!({ "mode": mode, "nodes": nodes });
            memory_policy(&serde_json::from_value(policy).expect("a policy")).map_err(|e| e.to_string())
        };
        for mode in ["MPOL_DEFAULT", "MPOL_LOCAL"] {
            assert!(read(mode, "").is_ok());
            let told = read(mode, "0-7").expect_err("refused");
            assert!(told.contains("mode requires 0 nodes but got 8"), "{told}");
        }
        assert!(read("MPOL_BIND", "0-7").is_ok());
    }
}
