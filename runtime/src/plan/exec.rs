use longshore_linux::Namespaces;
use oci_spec::runtime::{Process, Spec};

use super::op::{Assembly, Op, Program, Rendezvous, Slot};
use super::process::{Life, executable};
use super::scheduling::Affinity;
use super::shared::Root;
use super::{Builder, HostFacts, PlanOptions, SIGKILL};
use crate::Result;

const INITIAL_CPUS: &str = "process.execCPUAffinity.initial";

/// Compiles another process for a container of `spec`, whose init process is in [`Slot::INIT`]. What `process` leaves out is
/// the container's own.
pub(crate) fn plan_exec(spec: &Spec, process: &Process, facts: &HostFacts, options: &PlanOptions) -> Result<Program> {
    let process = with_defaults(spec, process);
    let mut builder = Builder::new(facts, options);
    let executable = executable("process", &process)?;
    builder.terminal = process.terminal().unwrap_or(false);
    builder.descriptors()?;
    builder.namespaces(spec.linux().as_ref())?;
    builder.seccomp(spec)?;
    builder.of_all_processes(spec.linux().as_ref())?;
    let affinity = Affinity::read("process", process.exec_cpu_affinity().as_ref())?;
    builder.step("process", Op::ParentDeathSignal(SIGKILL));
    let is_given = affinity.initial.is_some() || affinity.last.is_some();
    if let Some(op) = affinity.initial {
        builder.step(INITIAL_CPUS, op);
    }
    builder.step("linux.cgroupsPath", Op::JoinCgroups);
    if !is_given {
        builder.step("linux.resources.cpu.cpus", Op::AnyCpu);
    }
    if let Some(op) = affinity.last {
        builder.step("process.execCPUAffinity.final", op);
    }
    builder.step("process", Op::Meet(Rendezvous::Placed));
    builder.join_init();
    builder.keyring(&process)?;
    builder.step("process", Op::Undumpable);
    builder.step("process", Op::NewSession);
    match builder.what_root(spec)? {
        // No namespace leads to such a root.
        Root::Made(Assembly::Apart) => builder.step("root.path", Op::ChangeRoot),
        Root::Made(Assembly::OverOld) | Root::AsItIs => builder.step("process", Op::OpenRoot),
    }
    builder.streams(&process, Life::Joined)?;
    builder.process("process", &process, &executable, Life::Joined)?;
    Ok(builder.finish(executable).joining_only())
}

impl Builder<'_> {
    /// Enters all namespaces of the container's init process at once.
    fn join_init(&mut self) {
        self.join_init_namespaces();
        self.become_root_of_joined();
    }

    /// The namespaces of the container that are not the host's.
    fn all_namespaces(&self) -> Namespaces {
        let joined = self.namespaces.joined.iter();
        let all = joined.fold(self.namespaces.new, |all, (_, kind, _)| all | *kind);
        all | self.options.also
    }

    /// The same, still as who it was.
    pub(super) fn join_init_namespaces(&mut self) {
        let all = self.all_namespaces();
        if all.is_empty() {
            return;
        }
        if all.contains(Namespaces::PID) {
            self.join_first.push((Slot::INIT, all));
        } else {
            self.step(
                "linux.namespaces",
                Op::SetNs {
                    slot: Slot::INIT,
                    kind: all,
                },
            );
        }
    }

    pub(super) fn become_root_of_joined(&mut self) {
        if self.all_namespaces().contains(Namespaces::USER) {
            let groups = self.may_set_groups();
            self.step("linux.namespaces", Op::BecomeRoot { groups });
        }
    }
}

/// The CPUs that a process of this program begins on, if it is told: one bit each.
pub(crate) fn initial_cpus(program: &Program) -> Option<&[u64]> {
    program.steps.iter().find_map(|step| match &step.op {
        Op::CpuAffinity(cpus) if step.field == INITIAL_CPUS => Some(&cpus[..]),
        _ => None,
    })
}

/// The process, with what it leaves out taken from the container's.
fn with_defaults(spec: &Spec, process: &Process) -> Process {
    let mut process = process.clone();
    let Some(container) = spec.process() else {
        return process;
    };
    if process.capabilities().is_none() {
        process.set_capabilities(container.capabilities().clone());
    }
    if process.no_new_privileges().is_none() {
        process.set_no_new_privileges(container.no_new_privileges());
    }
    if process.rlimits().is_none() {
        process.set_rlimits(container.rlimits().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(container.oom_score_adj());
    }
    if process.apparmor_profile().is_none() {
        process.set_apparmor_profile(container.apparmor_profile().clone());
    }
    if process.selinux_label().is_none() {
        process.set_selinux_label(container.selinux_label().clone());
    }
    process
}
