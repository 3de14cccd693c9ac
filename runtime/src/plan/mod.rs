//! Compiles a runtime spec into a [`Program`]: a pure function of the spec, the facts of the host and the options.

mod cgroups;
mod check;
mod devices;
mod display;
mod exec;
mod facts;
mod hooks;
mod labels;
mod mounts;
mod namespaces;
mod net_devices;
pub(crate) mod op;
mod options;
pub(crate) mod paths;
mod process;
mod scheduling;
mod shared;
mod source;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use longshore_linux::{Depth, MountAttr, Namespaces, Propagation};
use oci_spec::runtime::{Process, Spec};

pub(crate) use display::explain;
pub(crate) use exec::{initial_cpus, plan_exec};
pub use facts::{HostFacts, PlanOptions, Privilege, RootEntry};
pub(crate) use hooks::{plan_create_container_hook, plan_start_container_hook, prestart};
use namespaces::NamespacePlan;
pub use op::Program;
use op::{Assembly, HostInput, IdMaps, Old, Op, Rendezvous, Slot, Step};
pub(crate) use options::knows_option;
use paths::{cstring, in_root, invalid};
pub(crate) use process::CAPABILITIES;
use process::Life;
use shared::Root;
pub(crate) use shared::has_its_mounts_in_its_namespace;

use crate::Result;
use crate::seccomp::{Arch, Filter};

const SIGKILL: i32 = 9;
/// The most descriptors that a program is given besides its streams.
const MOST_DESCRIPTORS: u16 = 1024;

/// Compiles a spec: validates all of it, decides everything, lays every string out. Touches nothing.
///
/// # Errors
/// [`InvalidSpec`](crate::Error::InvalidSpec) and [`Unsupported`](crate::Error::Unsupported), with the field.
pub fn plan(spec: &Spec, facts: &HostFacts, options: &PlanOptions) -> Result<Program> {
    check::check(spec, facts)?;
    let mut builder = Builder::new(facts, options);
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| invalid("process", "it is missing"))?;
    let executable = process::executable("process", process)?;
    builder.terminal = process.terminal().unwrap_or(false);
    builder.descriptors()?;
    builder.namespaces(spec.linux().as_ref())?;
    let root = builder.what_root(spec)?;
    builder.seccomp(spec)?;
    builder.of_all_processes(spec.linux().as_ref())?;
    builder.arrive(spec)?;
    match root {
        Root::Made(assembly) => {
            builder.assembly = assembly;
            builder.root(spec)?;
            builder.mount_label(spec.linux().as_ref())?;
            builder.mounts(spec)?;
            builder.devices(spec)?;
            builder.streams(process, Life::Created)?;
            builder.meet_for_hooks();
            builder.close_root(spec)?;
        }
        Root::AsItIs => {
            builder.root_as_it_is();
            builder.streams(process, Life::Joined)?;
            builder.meet_for_hooks();
            builder.sysctls(spec)?;
        }
    }
    builder.process("process", process, &executable, Life::Created)?;
    Ok(builder.finish(executable))
}

/// A program in the making.
struct Builder<'a> {
    facts: &'a HostFacts,
    options: &'a PlanOptions,
    namespaces: NamespacePlan,
    id_maps: Option<IdMaps>,
    join_first: Vec<(Slot, Namespaces)>,
    inputs: Vec<(Slot, HostInput, String)>,
    slots: u16,
    steps: Vec<Step>,
    root_propagation: Option<(Propagation, Depth)>,
    assembly: Assembly,
    /// Which step puts the root over `/`.
    root_step: usize,
    /// Where the root is on the host.
    root_path: Option<PathBuf>,
    /// Mounts that become read-only when all is in them.
    late_read_only: Vec<(String, Slot)>,
    /// Whether it has a null device of its own.
    own_null: bool,
    terminal: bool,
    oom_score_adj: Option<i32>,
    seccomp: Option<Filter>,
    descriptors: Option<(Slot, u16)>,
    /// The host's procfs, if it is needed.
    proc: Option<Slot>,
    /// Steps that every process of the container takes.
    domain: Vec<(&'static str, Op)>,
    /// What a person should know, although it is no error.
    warnings: Vec<String>,
    /// The offsets of a new time namespace.
    time_offsets: Option<(Slot, std::ffi::CString)>,
    net_devices: Vec<op::NetDevice>,
    /// The SELinux label of what is mounted anew.
    mount_label: Option<std::ffi::CString>,
    /// Whether there are hooks of the create phase.
    early_hooks: bool,
    /// Where they look for the root, if it can be put there.
    hooks_root: Option<Slot>,
    /// Whether there are startContainer hooks.
    start_hooks: bool,
}

impl<'a> Builder<'a> {
    fn new(facts: &'a HostFacts, options: &'a PlanOptions) -> Self {
        Self {
            facts,
            options,
            namespaces: NamespacePlan::default(),
            id_maps: None,
            join_first: Vec::new(),
            inputs: Vec::new(),
            slots: Slot::FIRST_FREE,
            steps: Vec::new(),
            root_propagation: None,
            assembly: Assembly::default(),
            root_step: 0,
            root_path: None,
            late_read_only: Vec::new(),
            own_null: false,
            terminal: false,
            oom_score_adj: None,
            seccomp: None,
            descriptors: None,
            proc: None,
            domain: Vec::new(),
            warnings: Vec::new(),
            time_offsets: None,
            net_devices: Vec::new(),
            mount_label: None,
            early_hooks: false,
            hooks_root: None,
            start_hooks: false,
        }
    }

    fn step(&mut self, field: &str, op: Op) {
        self.steps.push(Step {
            field: field.to_owned(),
            op,
        });
    }

    /// Further descriptors for the program. They take their places before anything else is opened: the child's own are above.
    fn descriptors(&mut self) -> Result<()> {
        let field = "the request's descriptors";
        let count = u16::try_from(self.options.descriptors)
            .ok()
            .filter(|count| *count <= MOST_DESCRIPTORS);
        let count = count.ok_or_else(|| invalid(field, format!("there are more than {MOST_DESCRIPTORS}")))?;
        if count > 0 {
            let first = Slot(self.slots);
            self.slots += count;
            self.descriptors = Some((first, count));
            self.step(field, Op::Descriptors { first, count });
        }
        Ok(())
    }

    /// A slot that the host fills before the clone.
    fn input(&mut self, input: HostInput, field: &str) -> Slot {
        let slot = self.slot();
        self.inputs.push((slot, input, field.to_owned()));
        slot
    }

    /// A slot that a step fills.
    fn slot(&mut self) -> Slot {
        let slot = Slot(self.slots);
        self.slots += 1;
        slot
    }

    fn seccomp(&mut self, spec: &Spec) -> Result<()> {
        let Some(profile) = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()) else {
            return Ok(());
        };
        let native = Arch::native().ok_or_else(|| {
            paths::unsupported("linux.seccomp", "the filter compiler does not know this machine's ABI")
        })?;
        self.seccomp = Some(self.options.filters.compile(profile, native)?);
        Ok(())
    }

    /// From the clone to a child that is in its namespaces, alone and named.
    fn arrive(&mut self, spec: &Spec) -> Result<()> {
        self.step("process", Op::ParentDeathSignal(SIGKILL));
        self.step("linux.cgroupsPath", Op::JoinCgroups);
        self.step("linux.resources.cpu.cpus", Op::AnyCpu);
        let adjusted = spec.process().as_ref().is_some_and(|p| p.oom_score_adj().is_some());
        if self.id_maps.is_some() || adjusted || !self.join_first.is_empty() {
            self.step("linux.uidMappings", Op::Meet(Rendezvous::Placed));
        }
        self.open_hooks_root(spec)?;
        self.enter_namespaces();
        self.net_devices(spec.linux().as_ref())?;
        if let Some(process) = spec.process() {
            self.keyring(process)?;
        }
        self.step("process", Op::Undumpable);
        self.step("process", Op::NewSession);
        for (field, name, op) in [
            ("hostname", spec.hostname(), Op::Hostname as fn(_) -> _),
            ("domainname", spec.domainname(), Op::Domainname as fn(_) -> _),
        ] {
            let Some(name) = name.as_ref().filter(|n| !n.is_empty()) else {
                continue;
            };
            if !self.namespaces.has(Namespaces::UTS) {
                return Err(invalid(field, "it needs a UTS namespace in linux.namespaces"));
            }
            if name.len() > 64 {
                return Err(invalid(field, "it is longer than 64 bytes"));
            }
            self.step(field, op(cstring(field, name.as_str())?));
        }
        Ok(())
    }

    fn streams(&mut self, process: &Process, life: Life) -> Result<()> {
        if self.terminal {
            let size = process.console_size();
            let bounded = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
            let (rows, columns) = size.map_or((0, 0), |s| (bounded(s.height()), bounded(s.width())));
            let uid = process.user().uid();
            self.step("process.terminal", Op::Terminal { rows, columns, uid });
        }
        if self.terminal && life == Life::Created {
            let at = in_root("process.terminal", std::path::Path::new("/dev/console"))?;
            self.step("process.terminal", Op::Console(at));
        }
        self.step("process", Op::Stdio);
        Ok(())
    }

    /// Closes what the container must not write or see, and makes the root the root.
    fn close_root(&mut self, spec: &Spec) -> Result<()> {
        let linux = spec.linux().as_ref();
        let cwd = spec.process().as_ref().map(|p| p.cwd().clone()).unwrap_or_default();
        self.step("process.cwd", Op::Directory(in_root("process.cwd", &cwd)?));
        self.sysctls(spec)?;
        for (field, slot) in std::mem::take(&mut self.late_read_only) {
            self.step(&field, Op::Close(slot));
        }
        for (i, path) in linux
            .and_then(|l| l.readonly_paths().as_ref())
            .into_iter()
            .flatten()
            .enumerate()
        {
            let field = format!("linux.readonlyPaths[{i}]");
            let at = in_root(&field, path.as_ref())?;
            self.step(&field, Op::ReadOnlyPath(at));
        }
        let mut masked = std::collections::BTreeSet::new();
        for (i, path) in linux
            .and_then(|l| l.masked_paths().as_ref())
            .into_iter()
            .flatten()
            .enumerate()
        {
            let field = format!("linux.maskedPaths[{i}]");
            let at = in_root(&field, path.as_ref())?;
            if masked.insert(at.whole().to_owned()) {
                let label = self.mount_label.clone();
                self.step(&field, Op::Mask { at, label });
            }
        }
        if spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false) {
            self.step(
                "root.readonly",
                Op::RootAttr {
                    set: MountAttr::RDONLY,
                    propagation: None,
                    depth: Depth::Mount,
                },
            );
        }
        let old = self.old_tree();
        let enter = match (self.assembly, self.options.root_entry) {
            (Assembly::Apart, _) => Op::ChangeRoot,
            (Assembly::OverOld, RootEntry::Pivot) => Op::PivotRoot(old),
            (Assembly::OverOld, RootEntry::Move) => Op::EnterByMove,
        };
        self.step("root.path", enter);
        if self.own_null {
            self.step("process", Op::OwnNull);
        }
        // The others are what it is already.
        if let Some((propagation @ (Propagation::Shared | Propagation::Unbindable), depth)) = self.root_propagation {
            let op = Op::RootAttr {
                set: MountAttr::empty(),
                propagation: Some(propagation),
                depth,
            };
            self.step("linux.rootfsPropagation", op);
        }
        Ok(())
    }

    fn sysctls(&mut self, spec: &Spec) -> Result<()> {
        let linux = spec.linux().as_ref();
        let mut sysctls: Vec<_> = linux.and_then(|l| l.sysctl().as_ref()).into_iter().flatten().collect();
        sysctls.sort();
        sysctls
            .into_iter()
            .try_for_each(|(name, value)| self.sysctl(name, value))
    }

    /// Unless all of the inherited tree is cut off from the host already, what is done to it would reach the host.
    fn old_tree(&self) -> Old {
        match self.root_propagation {
            None | Some((Propagation::Private | Propagation::Slave, Depth::Tree)) => Old::Apart,
            Some(_) => Old::CutOff,
        }
    }

    fn sysctl(&mut self, name: &str, value: &str) -> Result<()> {
        let field = format!("linux.sysctl.{name}");
        let (namespace, needed) = match name.split('.').next().unwrap_or_default() {
            "net" => (Namespaces::NETWORK, "network"),
            "fs" if name.starts_with("fs.mqueue.") => (Namespaces::IPC, "ipc"),
            "kernel" if name == "kernel.domainname" || name == "kernel.hostname" => (Namespaces::UTS, "uts"),
            "kernel" if is_ipc_sysctl(name) => (Namespaces::IPC, "ipc"),
            _ => return Err(invalid(field, "it is not of a namespace, and would change the host")),
        };
        if !self.namespaces.has(namespace) {
            return Err(invalid(
                field,
                format!("it needs a {needed} namespace in linux.namespaces"),
            ));
        }
        // A dot divides; a slash in the name stands for a dot of the file's name, as sysctl(8) has it.
        let path: String = name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect();
        if path
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
        {
            return Err(invalid(field, "it is not the name of a sysctl"));
        }
        let op = Op::Sysctl {
            name: cstring(&field, format!("sys/{path}"))?,
            value: cstring(&field, value)?,
        };
        self.step(&field, op);
        Ok(())
    }

    fn finish(self, executable: op::Executable) -> Program {
        // Its offsets are written in between.
        let by_helper = match self.time_offsets {
            Some(_) => Namespaces::TIME,
            None => Namespaces::empty(),
        };
        Program {
            unshare: self.namespaces.new - Namespaces::CGROUP - by_helper,
            join_first: self.join_first,
            id_maps: self.id_maps,
            oom_score_adj: self.oom_score_adj,
            inputs: self.inputs,
            slots: self.slots,
            steps: self.steps,
            executable,
            terminal: self.terminal,
            descriptors: self.descriptors,
            time_offsets: self.time_offsets,
            net_devices: self.net_devices,
            warnings: self.warnings,
        }
    }
}

fn is_ipc_sysctl(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    NAMES.contains(&name)
}
