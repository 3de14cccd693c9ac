use std::fmt;

use longshore_linux::{AttrChange, Depth, MountAttr, Namespaces, Propagation};

use crate::seccomp::Handover;

use super::Privilege;
use super::op::{
    Assembly, Fallback, FsParam, HostInput, IdMaps, InRoot, Locked, MountOp, NetDevice, Old, Op, Over, Program, Source,
    Target,
};

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(f, "warning {warning}")?;
        }
        for (_, input, field) in &self.inputs {
            writeln!(f, "host   {input:<60} # {field}", input = input.to_string())?;
        }
        for (slot, kind) in &self.join_first {
            writeln!(f, "join   {} (slot {})", Names(*kind), slot.0)?;
        }
        if let Some((_, offsets)) = &self.time_offsets {
            writeln!(
                f,
                "helper unshare time, offsets {:?}",
                offsets.to_string_lossy().trim_end()
            )?;
        }
        writeln!(f, "clone  {}", Names(self.unshare))?;
        if let Some(maps) = &self.id_maps {
            writeln!(f, "maps   {maps}")?;
        }
        if let Some(adjust) = self.oom_score_adj {
            writeln!(f, "host   oom-score {adjust}")?;
        }
        for device in &self.net_devices {
            writeln!(
                f,
                "host   {device:<60} # {field}",
                device = device.to_string(),
                field = device.field
            )?;
        }
        for step in &self.steps {
            writeln!(
                f,
                "child  {op:<60} # {field}",
                op = step.op.to_string(),
                field = step.field
            )?;
        }
        Ok(())
    }
}

struct Names(Namespaces);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter_names().map(|(name, _)| name.to_lowercase()).collect();
        f.write_str(&names.join(" "))
    }
}

impl fmt::Display for HostInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace { path, kind } => write!(f, "open {} namespace {path:?}", Names(*kind)),
            Self::OwnCgroup { mounted, privilege, .. } => {
                let what = if *privilege == Privilege::Full { "copy" } else { "open" };
                write!(f, "{what} own group below {}", mounted.display())
            }
            Self::Mount(source) => write!(f, "make {source}"),
            Self::Proc => f.write_str("open /proc"),
        }
    }
}

impl fmt::Display for NetDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, inside) = (self.name.to_string_lossy(), self.inside.to_string_lossy());
        write!(f, "move network device {name} into the container as {inside}")
    }
}

impl fmt::Display for IdMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, map) in [("users", &self.users), (" groups", &self.groups)] {
            f.write_str(name)?;
            for m in map {
                write!(f, " {}={}+{}", m.inside, m.outside, m.count)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for InRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefixes.last() {
            Some(path) => write!(f, "/{}", path.to_string_lossy()),
            None => f.write_str("/"),
        }
    }
}

fn fmt_params(params: &[FsParam], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for FsParam { key, value } in params {
        write!(f, " {}", key.to_string_lossy())?;
        if let Some(value) = value {
            write!(f, "={}", value.to_string_lossy())?;
        }
    }
    Ok(())
}

/// Propagations in mount(8)'s words.
struct Travels<'a>(&'a [(Propagation, Depth)]);

impl fmt::Display for Travels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(propagation, depth)| {
            let recursive = if *depth == Depth::Tree { "r" } else { "" };
            write!(f, " {recursive}{}", word(*propagation))
        })
    }
}

impl fmt::Display for MountOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mount {} on {}{}", self.source, self.at, Change(self.attr.change))?;
        match self.attr.locked {
            Some(Locked::ByKernel(less)) => write!(f, " or{}", Change(less))?,
            Some(Locked::ByUs { .. }) => f.write_str(" as far as not locked")?,
            None => {}
        }
        if let Some(label) = &self.label {
            write!(f, " label {}", label.to_string_lossy())?;
        }
        if !self.tree_attr.is_empty() {
            write!(f, " tree:{}", Change(self.tree_attr))?;
        }
        write!(f, "{}", Travels(&self.propagation))?;
        if let Some(ids) = &self.id_map {
            let recursive = if ids.depth == Depth::Tree { "r" } else { "" };
            match &ids.maps {
                Some(maps) => write!(f, " {recursive}idmap {maps}")?,
                None => write!(f, " {recursive}idmap as the user namespace")?,
            }
        }
        match self.target {
            Target::Tmpfs => f.write_str(" mode of what is there")?,
            Target::Within(slot) => write!(f, " in slot {}", slot.0)?,
            _ => {}
        }
        if self.copy_up {
            f.write_str(" with a copy of what is there")?;
        }
        self.keep.map_or(Ok(()), |slot| write!(f, " keep in slot {}", slot.0))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fs {
                fs_type,
                params,
                fallback,
            } => {
                write!(f, "{}", fs_type.to_string_lossy())?;
                fmt_params(params, f)?;
                match fallback {
                    Some(Fallback::ReadOnly(path)) => write!(f, " or rbind {path:?} read-only"),
                    Some(Fallback::Tree(path)) => write!(f, " or rbind {path:?}"),
                    Some(Fallback::Detached(slot)) => write!(f, " or slot {}", slot.0),
                    None => Ok(()),
                }
            }
            Self::Legacy {
                fs_type,
                source,
                flags,
                data,
                names,
            } => {
                let (fs_type, source, data) = (
                    fs_type.to_string_lossy(),
                    source.to_string_lossy(),
                    data.to_string_lossy(),
                );
                write!(f, "{fs_type} (by mount(2), flags {flags:#x}) {source} {data}")?;
                names
                    .iter()
                    .try_for_each(|short| write!(f, " {}={:?}", short.name.to_string_lossy(), short.path))
            }
            Self::Bind {
                path,
                depth: Depth::Mount,
            } => write!(f, "bind {path:?}"),
            Self::Bind {
                path,
                depth: Depth::Tree,
            } => write!(f, "rbind {path:?}"),
            Self::Inside { at, depth } => {
                let word = if *depth == Depth::Tree { "rbind" } else { "bind" };
                write!(f, "{word} {at} of the root")
            }
            Self::Detached(slot) => write!(f, "slot {}", slot.0),
            Self::Opened { slot, depth } => {
                let word = if *depth == Depth::Tree { "rbind" } else { "bind" };
                write!(f, "{word} slot {}", slot.0)
            }
            Self::Named(slot) => write!(f, "bind what slot {} is of", slot.0),
            Self::There { params: None } => f.write_str("what is there, again"),
            Self::There { params: Some(params) } => {
                f.write_str("the filesystem there, again")?;
                fmt_params(params, f)
            }
        }
    }
}

/// The attributes in mount(8)'s words.
struct Change(AttrChange);

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, _) in (self.0.set - MountAttr::ATIME)
            .iter_names()
            .chain((self.0.set & MountAttr::ATIME).iter_names())
        {
            write!(f, " {}", name.to_lowercase())?;
        }
        for (name, _) in self.0.clear.iter_names() {
            write!(f, " !{}", name.to_lowercase())?;
        }
        Ok(())
    }
}

fn word(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Unbindable => "unbindable",
        Propagation::Private => "private",
        Propagation::Slave => "slave",
        Propagation::Shared => "shared",
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meet(rendezvous) => write!(f, "meet host: {}", format!("{rendezvous:?}").to_lowercase()),
            Self::ParentDeathSignal(0) => f.write_str("outlive the host"),
            Self::ParentDeathSignal(signal) => write!(f, "die with the host (signal {signal})"),
            Self::Undumpable => f.write_str("undumpable"),
            Self::Dumpable => f.write_str("dumpable"),
            Self::OpenPlace { slot, path } => write!(f, "open {path:?} (slot {})", slot.0),
            Self::MoveRoot { onto, .. } => write!(f, "move the root onto slot {}", onto.0),
            Self::BecomeRoot { .. } => f.write_str("become root of the user namespace"),
            Self::JoinCgroups => f.write_str("join cgroups"),
            Self::OpenRoot => f.write_str("open the root"),
            Self::ChangeRoot => f.write_str("change root, for this process only"),
            Self::Unshare(kinds) => write!(f, "unshare {}", Names(*kinds)),
            Self::SetNs { slot, kind } => write!(f, "join {} (slot {})", Names(*kind), slot.0),
            Self::NewSession => f.write_str("new session"),
            Self::Propagate { propagation, depth } => write!(f, "make /{}", Travels(&[(*propagation, *depth)])),
            Self::Open { slot, path, .. } => write!(f, "open {path:?} (slot {})", slot.0),
            Self::Root {
                assembly,
                source,
                attr,
                propagation,
            } => {
                let apart = if *assembly == Assembly::Apart { ", apart" } else { "" };
                write!(f, "root {source}{}{}{apart}", Change(*attr), Travels(propagation))
            }
            Self::Mount(m) => write!(f, "{m}"),
            Self::Node(n) => write!(
                f,
                "node {} {:o} {}:{} owner {}:{}",
                n.at, n.mode, n.major, n.minor, n.uid, n.gid
            ),
            Self::BindNode(n) => write!(f, "bind node {:?} {}:{} on {}", n.host, n.major, n.minor, n.at),
            Self::Symlink { at, target, over } => {
                let arrow = if *over == Over::Keep { "->" } else { "=>" };
                write!(f, "link {at} {arrow} {}", target.to_string_lossy())
            }
            Self::Terminal { rows, columns, uid } => write!(f, "open terminal {rows}x{columns} owner {uid}"),
            Self::Console(at) => write!(f, "bind terminal on {at}"),
            Self::Stdio => f.write_str("place streams"),
            Self::Descriptors { count, .. } => write!(f, "place {count} further descriptors"),
            other => other.fmt_later(f),
        }
    }
}

impl Op {
    /// The operations from the finished root to the program.
    fn fmt_later(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl { name, value } => write!(f, "write {value:?} to proc {}", name.to_string_lossy()),
            Self::Mask { at, .. } => write!(f, "mask {at}"),
            Self::ReadOnlyPath(at) => write!(f, "read-only {at}"),
            Self::Directory(at) => write!(f, "directory {at}"),
            Self::Close(slot) => write!(f, "read-only mount (slot {})", slot.0),
            Self::LetGo(slot) => write!(f, "let go of slot {}", slot.0),
            Self::RootAttr {
                set,
                propagation,
                depth,
            } => {
                let change = AttrChange {
                    set: *set,
                    ..AttrChange::default()
                };
                let travels = propagation.map(|p| [(p, *depth)]);
                let travels = travels.as_ref().map_or(&[][..], |t| t);
                write!(f, "root attributes{}{}", Change(change), Travels(travels))
            }
            Self::EnterByMove => f.write_str("move root, hide the old one's procfs and sysfs"),
            Self::OwnNull => f.write_str("the container's own null device for streams"),
            Self::PivotRoot(Old::Apart) => f.write_str("pivot root"),
            Self::PivotRoot(Old::CutOff) => f.write_str("pivot root, cut the old one off from the host"),
            Self::Hostname(name) => write!(f, "hostname {}", name.to_string_lossy()),
            Self::Domainname(name) => write!(f, "domainname {}", name.to_string_lossy()),
            Self::Rlimit { resource, soft, hard } => write!(f, "rlimit {resource} {soft} {hard}"),
            Self::Keyring { name, .. } => write!(f, "join keyring {}", name.to_string_lossy()),
            Self::Attribute { attribute, value, .. } => write!(f, "write {value:?} to attribute {attribute:?}"),
            Self::Scheduler(a) => write!(
                f,
                "scheduler {} flags {:#x} nice {} priority {} runtime {} deadline {} period {}",
                a.policy, a.flags, a.nice, a.priority, a.runtime, a.deadline, a.period
            ),
            Self::IoPriority { class, level } => write!(f, "I/O priority class {class} level {level}"),
            Self::CpuAffinity(cpus) => write!(f, "run on CPUs {cpus:x?}"),
            Self::AnyCpu => f.write_str("run on any CPU of the cgroup"),
            Self::MemoryPolicy { mode, nodes } => write!(f, "memory policy {mode:#x} nodes {nodes:x?}"),
            Self::Personality(domain) => write!(f, "personality {domain:#x}"),
            Self::Home { uid } => write!(f, "find the home of user {uid}"),
            Self::Umask(mask) => write!(f, "umask {mask:04o}"),
            Self::Groups(gids) => write!(f, "groups {gids:?}"),
            Self::User { uid, gid } => write!(f, "user {uid}:{gid}"),
            Self::KeepCapabilities => f.write_str("keep capabilities"),
            Self::Bounding { drop } => write!(f, "bounding set: drop {drop:?}"),
            Self::Capabilities { sets, ambient } => write!(
                f,
                "capabilities effective {:#x} permitted {:#x} inheritable {:#x} ambient {ambient:#x}",
                sets.effective, sets.permitted, sets.inheritable
            ),
            Self::NoNewPrivileges => f.write_str("no new privileges"),
            Self::Chdir { path, when } => write!(f, "chdir {path:?} ({when:?})"),
            Self::Seccomp(filter) => {
                let (length, flags) = (filter.instructions.len(), filter.flags);
                write!(f, "seccomp {length} instructions, flags {flags:#x}")?;
                match filter.listener {
                    Some(Handover::Send) => f.write_str(", send the listener"),
                    Some(Handover::Take) => f.write_str(", have the listener taken"),
                    None => Ok(()),
                }
            }
            Self::FindProgram => f.write_str("find program"),
            Self::AwaitStart => f.write_str("await start"),
            Self::CloseOnExec { from } => write!(f, "close on exec from {from}"),
            Self::Execute => f.write_str("execute"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// What a failed step was doing, for a person.
pub(crate) fn explain(program: &Program, op: &Op, failure: crate::init::report::Failure) -> String {
    use crate::init::report::Call;
    use rustix::io::Errno;
    let name = program
        .executable
        .args
        .iter()
        .next()
        .map(|a| a.to_string_lossy().into_owned())
        .unwrap_or_default();
    match (op, failure.call, failure.errno) {
        (Op::FindProgram | Op::Execute, Call::Find | Call::Execute, errno) => {
            // The words are runc's: tools look for them.
            let what = match errno {
                Errno::NOENT if !name.contains('/') => "executable file not found in $PATH".to_owned(),
                _ => format!("stat {name}"),
            };
            if failure.call == Call::Execute {
                format!("exec {name:?}")
            } else {
                format!("exec: {name:?}: {what}")
            }
        }
        (op, call, _) => format!("{op}: {}", call.text()),
    }
}
