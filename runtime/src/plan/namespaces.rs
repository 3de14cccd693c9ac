use std::collections::BTreeMap;

use longshore_linux::Namespaces;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::Builder;
use super::op::{HostInput, IdMapping, IdMaps, Op, Slot};
use super::paths::{cpath, cstring, invalid, unsupported};
use crate::Result;
use crate::plan::Privilege;

/// What becomes of each namespace.
#[derive(Debug, Default)]
pub(super) struct NamespacePlan {
    pub(super) new: Namespaces,
    pub(super) joined: Vec<(Slot, Namespaces, String)>,
}

impl NamespacePlan {
    /// Whether the container has one of its own or another's, not the host's.
    pub(super) fn has(&self, kind: Namespaces) -> bool {
        self.new.contains(kind) || self.joined.iter().any(|(_, k, _)| *k == kind)
    }
}

fn kind_of(typ: LinuxNamespaceType) -> Namespaces {
    match typ {
        LinuxNamespaceType::Mount => Namespaces::MOUNT,
        LinuxNamespaceType::Cgroup => Namespaces::CGROUP,
        LinuxNamespaceType::Uts => Namespaces::UTS,
        LinuxNamespaceType::Ipc => Namespaces::IPC,
        LinuxNamespaceType::User => Namespaces::USER,
        LinuxNamespaceType::Pid => Namespaces::PID,
        LinuxNamespaceType::Network => Namespaces::NETWORK,
        LinuxNamespaceType::Time => Namespaces::TIME,
    }
}

impl Builder<'_> {
    /// Reads `linux.namespaces`.
    pub(super) fn namespaces(&mut self, linux: Option<&Linux>) -> Result<()> {
        let mut plan = NamespacePlan::default();
        let list = linux.and_then(|l| l.namespaces().as_ref());
        for (i, namespace) in list.into_iter().flatten().enumerate() {
            let field = format!("linux.namespaces[{i}]");
            let kind = kind_of(namespace.typ());
            if plan.has(kind) {
                return Err(invalid(
                    field,
                    format!("the {} namespace is listed twice", namespace.typ()),
                ));
            }
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    let path = cpath(&field, path)?;
                    let slot = self.input(HostInput::Namespace { path, kind }, &field);
                    plan.joined.push((slot, kind, field));
                }
                _ => plan.new |= kind,
            }
        }
        if self.facts.privilege == Privilege::None && !plan.has(Namespaces::USER) {
            return Err(unsupported(
                "linux.namespaces",
                "a container without a user namespace needs CAP_SYS_ADMIN; run as root or add {\"type\": \"user\"}",
            ));
        }
        self.namespaces = plan;
        self.time_offsets(linux)?;
        self.id_maps(linux)
    }

    /// `linux.timeOffsets`, which are written before the first process enters a new time namespace.
    fn time_offsets(&mut self, linux: Option<&Linux>) -> Result<()> {
        let offsets = linux.and_then(|l| l.time_offsets().as_ref()).filter(|o| !o.is_empty());
        let Some(offsets) = offsets else { return Ok(()) };
        let field = "linux.timeOffsets";
        if !self.namespaces.new.contains(Namespaces::TIME) {
            return Err(invalid(field, "it needs a new time namespace in linux.namespaces"));
        }
        if self.facts.privilege == Privilege::None {
            return Err(unsupported(
                field,
                "an ordinary user may not set them; run as root or leave it out",
            ));
        }
        let mut lines = String::new();
        for (clock, offset) in offsets.iter().collect::<BTreeMap<_, _>>() {
            if !["monotonic", "boottime"].contains(&clock.as_str()) {
                let reason = "the clocks with an offset are monotonic and boottime";
                return Err(invalid(format!("{field}.{clock}"), reason));
            }
            let nanoseconds = offset.nanosecs().unwrap_or(0);
            if nanoseconds >= 1_000_000_000 {
                let reason = format!("{nanoseconds} is a second or more");
                return Err(invalid(format!("{field}.{clock}.nanosecs"), reason));
            }
            lines += &format!("{clock} {} {nanoseconds}\n", offset.secs().unwrap_or(0));
        }
        let slot = self.host_proc(field);
        self.time_offsets = Some((slot, cstring(field, lines)?));
        Ok(())
    }

    fn id_maps(&mut self, linux: Option<&Linux>) -> Result<()> {
        let users = linux.and_then(|l| l.uid_mappings().as_deref()).unwrap_or_default();
        let groups = linux.and_then(|l| l.gid_mappings().as_deref()).unwrap_or_default();
        if !self.namespaces.new.contains(Namespaces::USER) {
            if users.is_empty() && groups.is_empty() || self.namespaces.has(Namespaces::USER) {
                return Ok(());
            }
            return Err(invalid(
                "linux.uidMappings",
                "there are id mappings, and no user namespace in linux.namespaces",
            ));
        }
        let read = |mappings: &[LinuxIdMapping], own: u32| match mappings {
            [] if self.facts.privilege == Privilege::None => vec![IdMapping {
                inside: 0,
                outside: own,
                count: 1,
            }],
            _ => ranges(mappings),
        };
        let maps = IdMaps {
            users: read(users, self.facts.uid),
            groups: read(groups, self.facts.gid),
        };
        check_map("linux.uidMappings", &maps.users)?;
        check_map("linux.gidMappings", &maps.groups)?;
        self.id_maps = Some(maps);
        Ok(())
    }

    /// The steps that put the child into its namespaces.
    pub(super) fn enter_namespaces(&mut self) {
        let new_user = self.namespaces.new.contains(Namespaces::USER);
        let joined = std::mem::take(&mut self.namespaces.joined);
        // Root of a user namespace may not enter those that belong to another: whoever may do so before.
        let full = self.facts.privilege == Privilege::Full;
        let others_first = full && joined.iter().any(|(_, kind, _)| *kind == Namespaces::USER);
        for (slot, kind, field) in &joined {
            let first = new_user || others_first || kind.intersects(Namespaces::USER | Namespaces::PID);
            if first {
                self.join_first.push((*slot, *kind));
            } else {
                self.step(
                    field,
                    Op::SetNs {
                        slot: *slot,
                        kind: *kind,
                    },
                );
            }
        }
        self.namespaces.joined = joined;
        // An ordinary user gets the privilege over the others from the user namespace; root would lose it there.
        self.join_first.sort_by_key(|(_, kind)| match *kind {
            Namespaces::USER if full => 3,
            Namespaces::USER => 0,
            Namespaces::PID => 2,
            _ => 1,
        });
        if self.namespaces.has(Namespaces::USER) {
            let groups = self.may_set_groups();
            self.step("linux.namespaces", Op::BecomeRoot { groups });
        }
        if self.namespaces.new.contains(Namespaces::CGROUP) {
            self.step("linux.namespaces", Op::Unshare(Namespaces::CGROUP));
        }
    }

    /// Whether setgroups(2) is allowed: not in a user namespace whose map an ordinary user wrote himself.
    pub(super) fn may_set_groups(&self) -> bool {
        match &self.id_maps {
            Some(maps) => self.facts.privilege == Privilege::Full || !maps.is_single(),
            None => true,
        }
    }
}

impl IdMaps {
    /// Whether each is one id: what an ordinary user may write without help.
    pub(crate) fn is_single(&self) -> bool {
        let single = |m: &[IdMapping]| matches!(m, [IdMapping { count: 1, .. }]);
        single(&self.users) && single(&self.groups)
    }
}

impl IdMapping {
    /// Whether an id inside is mapped at all.
    pub(crate) fn covers(&self, inside: u32) -> bool {
        inside >= self.inside && inside - self.inside < self.count
    }
}

pub(super) fn ranges(mappings: &[LinuxIdMapping]) -> Vec<IdMapping> {
    let range = |m: &LinuxIdMapping| IdMapping {
        inside: m.container_id(),
        outside: m.host_id(),
        count: m.size(),
    };
    mappings.iter().map(range).collect()
}

fn check_map(field: &str, map: &[IdMapping]) -> Result<()> {
    if map.is_empty() {
        return Err(invalid(field, "a new user namespace needs at least one mapping"));
    }
    if !map.iter().any(|m| m.covers(0)) {
        return Err(invalid(
            field,
            "id 0 is not mapped; something must be root of the namespace",
        ));
    }
    check_ranges(field, map)
}

/// Whether each range is one.
pub(super) fn check_ranges(field: &str, map: &[IdMapping]) -> Result<()> {
    for (i, mapping) in map.iter().enumerate() {
        let overflows = |start: u32| start.checked_add(mapping.count).is_none();
        if mapping.count == 0 {
            return Err(invalid(format!("{field}[{i}].size"), "it is 0"));
        }
        if overflows(mapping.inside) || overflows(mapping.outside) {
            return Err(invalid(format!("{field}[{i}]"), "it goes beyond the last id"));
        }
    }
    Ok(())
}
