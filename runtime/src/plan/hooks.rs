//! Hooks (runtime spec, "POSIX-platform Hooks"): where the child waits for them, and the programs of those that run in the container's
//! namespaces.

use std::path::Path;

use longshore_linux::{CStringArray, Namespaces};
use oci_spec::runtime::{Hook, Hooks, Spec};

use super::exec::plan_exec;
use super::op::{Executable, Home, HostInput, Op, Program, Rendezvous, When};
use super::paths::{cpath, cstring, invalid, on_host, unsupported};
use super::{Builder, HostFacts, PlanOptions, Privilege, SIGKILL};
use crate::Result;

/// The specification deprecates them, and containers still have them.
#[allow(deprecated)]
pub(crate) fn prestart(hooks: &Hooks) -> &Option<Vec<Hook>> {
    hooks.prestart()
}

fn some(hooks: &Option<Vec<Hook>>) -> bool {
    hooks.as_ref().is_some_and(|h| !h.is_empty())
}

/// Looks at every hook before anything is made.
pub(super) fn check(hooks: &Hooks, privilege: Privilege) -> Result<()> {
    let kinds = [
        ("prestart", prestart(hooks)),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (kind, list) in kinds {
        for (i, hook) in list.iter().flatten().enumerate() {
            let field = format!("hooks.{kind}[{i}]");
            if !hook.path().is_absolute() {
                let path = hook.path().display();
                return Err(invalid(
                    format!("{field}.path"),
                    format!("'{path}' is not an absolute path"),
                ));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return Err(invalid(
                    format!("{field}.timeout"),
                    "it must be greater than 0; leave it out for none",
                ));
            }
            executable(&field, hook)?;
        }
    }
    if privilege == Privilege::None && some(hooks.start_container()) {
        return Err(unsupported(
            "hooks.startContainer",
            "who waits for its start can't be entered by an ordinary user; run as root or use createContainer",
        ));
    }
    Ok(())
}

/// The hook's file, arguments and environment, which is empty if it has none: the host's is none of a hook's business.
fn executable(field: &str, hook: &Hook) -> Result<Executable> {
    let path = cpath(&format!("{field}.path"), hook.path())?;
    let strings = |name: &str, list: &Option<Vec<String>>| {
        let list = list.iter().flatten().enumerate();
        list.map(|(i, text)| cstring(&format!("{field}.{name}[{i}]"), text.as_str()))
            .collect::<Result<Vec<_>>>()
    };
    let mut args = strings("args", hook.args())?;
    if args.is_empty() {
        args.push(path.clone());
    }
    Ok(Executable {
        candidates: vec![path],
        args: CStringArray::new(args),
        env: CStringArray::new(strings("env", hook.env())?),
        home: Home::AsGiven,
    })
}

impl Builder<'_> {
    /// Before the ids change: the place on the host where hooks look for the container's root.
    pub(super) fn open_hooks_root(&mut self, spec: &Spec) -> Result<()> {
        let Some(hooks) = spec.hooks() else { return Ok(()) };
        self.start_hooks = some(hooks.start_container());
        self.early_hooks = some(prestart(hooks)) || some(hooks.create_runtime()) || some(hooks.create_container());
        self.refuse_early_hooks(spec)?;
        let Some(root) = spec.root() else { return Ok(()) };
        let path = on_host(&self.options.bundle, root.path());
        if self.early_hooks && path != Path::new("/") && self.namespaces.new.contains(Namespaces::MOUNT) {
            let slot = self.slot();
            let path = cpath("root.path", &path)?;
            self.step("root.path", Op::OpenPlace { slot, path });
            self.hooks_root = Some(slot);
        }
        Ok(())
    }

    /// When the root is assembled and not yet the root: hooks find it where `root.path` says, in the container's mount namespace. Where that is
    /// shared, they find there what everybody does, without the container's mounts.
    pub(super) fn meet_for_hooks(&mut self) {
        if !self.early_hooks {
            return;
        }
        if let Some(slot) = self.hooks_root.take() {
            let old = self.old_tree();
            self.step("root.path", Op::MoveRoot { onto: slot, old });
        }
        // Who made the namespaces of an ordinary user may enter them only if their process can be looked at. There is no other
        // process of the container yet.
        let ordinary = self.facts.privilege == Privilege::None;
        if ordinary {
            self.step("hooks", Op::Dumpable);
        }
        self.step("hooks", Op::Meet(Rendezvous::Hooks));
        if ordinary {
            self.step("hooks", Op::Undumpable);
        }
    }
}

/// Compiles a createContainer hook: found where the runtime's namespace has it, and run in all namespaces of the process in
/// [`Slot::INIT`](super::op::Slot::INIT), in the directory of the root that is being assembled, as their root.
pub(crate) fn plan_create_container_hook(
    field: &str,
    hook: &Hook,
    spec: &Spec,
    facts: &HostFacts,
    options: &PlanOptions,
) -> Result<Program> {
    let mut builder = Builder::new(facts, options);
    builder.namespaces(spec.linux().as_ref())?;
    builder.step(field, Op::ParentDeathSignal(SIGKILL));
    builder.step(field, Op::JoinCgroups);
    builder.join_init_namespaces();
    builder.step(field, Op::Undumpable);
    builder.step(field, Op::NewSession);
    if let Some(root) = spec.root() {
        let path = cpath("root.path", &on_host(&options.bundle, root.path()))?;
        let when = When::AsUser;
        builder.step("root.path", Op::Chdir { path, when });
    }
    builder.become_root_of_joined();
    builder.step(field, Op::Stdio);
    builder.step(field, Op::Meet(Rendezvous::Ready));
    builder.step(field, Op::CloseOnExec { from: 3 });
    builder.step(field, Op::Execute);
    Ok(builder.finish(executable(field, hook)?).joining_only())
}

/// Compiles a startContainer hook: another process of the container, with the rights of its own one. Without an environment of its own it
/// has that of the container's process (as with runc).
pub(crate) fn plan_start_container_hook(
    field: &str,
    hook: &Hook,
    spec: &Spec,
    facts: &HostFacts,
    options: &PlanOptions,
) -> Result<Program> {
    let process = spec.process().as_ref();
    let mut process = process.ok_or_else(|| invalid("process", "it is missing"))?.clone();
    process.set_terminal(None);
    let mut program = plan_exec(spec, &process, facts, options)?;
    let of_hook = executable(field, hook)?;
    program.executable = match hook.env() {
        Some(_) => of_hook,
        None => Executable {
            env: program.executable.env,
            home: program.executable.home,
            ..of_hook
        },
    };
    Ok(program)
}

impl Program {
    /// The same with nothing to make: whoever runs it joins the namespaces of the process in [`Slot::INIT`](super::op::Slot::INIT).
    pub(super) fn joining_only(mut self) -> Self {
        self.unshare = longshore_linux::Namespaces::empty();
        self.id_maps = None;
        self.time_offsets = None;
        self.inputs.retain(|(_, input, _)| *input == HostInput::Proc);
        self
    }
}
