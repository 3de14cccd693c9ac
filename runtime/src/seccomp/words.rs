use oci_spec::runtime::{LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator};

/// A flag of a profile.
pub(crate) type Flag = LinuxSeccompFilterFlag;

pub(super) const LOG: u32 = 1 << 1;
pub(super) const SPEC_ALLOW: u32 = 1 << 2;
pub(super) const NEW_LISTENER: u32 = 1 << 3;
pub(super) const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The flags of profiles and what seccomp(2) gets for them. `TSYNC` has no work to do: the process that loads a filter has one thread.
pub(crate) const FLAGS: [(Flag, u32); 4] = [
    (Flag::SeccompFilterFlagTsync, 0),
    (Flag::SeccompFilterFlagSpecAllow, SPEC_ALLOW),
    (Flag::SeccompFilterFlagLog, LOG),
    (Flag::SeccompFilterFlagWaitKillableRecv, WAIT_KILLABLE_RECV),
];

/// The actions, by name.
pub(crate) const ACTIONS: [LinuxSeccompAction; 9] = [
    LinuxSeccompAction::ScmpActAllow,
    LinuxSeccompAction::ScmpActErrno,
    LinuxSeccompAction::ScmpActKill,
    LinuxSeccompAction::ScmpActKillProcess,
    LinuxSeccompAction::ScmpActKillThread,
    LinuxSeccompAction::ScmpActLog,
    LinuxSeccompAction::ScmpActNotify,
    LinuxSeccompAction::ScmpActTrace,
    LinuxSeccompAction::ScmpActTrap,
];

/// The comparisons, by name.
pub(crate) const OPERATORS: [LinuxSeccompOperator; 7] = [
    LinuxSeccompOperator::ScmpCmpEq,
    LinuxSeccompOperator::ScmpCmpGe,
    LinuxSeccompOperator::ScmpCmpGt,
    LinuxSeccompOperator::ScmpCmpLe,
    LinuxSeccompOperator::ScmpCmpLt,
    LinuxSeccompOperator::ScmpCmpMaskedEq,
    LinuxSeccompOperator::ScmpCmpNe,
];

/// The flags that this machine's kernel knows.
pub(crate) fn supported_flags() -> Vec<Flag> {
    let known = |bit: u32| {
        // It goes with a listener only.
        let with = if bit == WAIT_KILLABLE_RECV { NEW_LISTENER } else { 0 };
        longshore_linux::knows_seccomp_flags((bit | with).into())
    };
    FLAGS
        .into_iter()
        .filter(|(_, bit)| known(*bit))
        .map(|(flag, _)| flag)
        .collect()
}
