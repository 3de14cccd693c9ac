use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::group::{Group, failed};
use super::host::Home;
use super::limits::{Limits, Missing, Write};
use super::named::Member;
use super::path::{Place, Unit};
use crate::{Error, Result};

mod delegate;
mod enter;
mod freeze;
mod remove;

#[cfg(feature = "systemd")]
pub(crate) use delegate::owner;
pub use enter::{Entry, SubGroup};

/// The groups of one container, each held open from its first use on.
///
/// Dropping it changes nothing: groups live until [`remove`](Self::remove).
#[derive(Debug, Default)]
pub struct Cgroup {
    pub(super) members: Vec<Member>,
    /// Those in hierarchies that are not mounted here.
    pub(super) elsewhere: Vec<Place>,
    pub(super) unit: Option<Arc<Unit>>,
}

impl Cgroup {
    /// Whether there is no group: nothing is limited, counted, frozen or killed by it.
    pub fn is_none(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes the processes of a container's other groups into those that they are not in yet, also the ones that are born meanwhile.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) if one can't be moved.
    pub(crate) fn gather(&self, before: &Self) -> Result<()> {
        let is_new = |m: &&Member| before.members.iter().all(|old| !old.name.is_at(&m.name));
        for member in self.members.iter().filter(is_new) {
            loop {
                let inside = member.group().all_pids()?;
                let outside: Vec<u32> = before.pids()?.into_iter().filter(|pid| !inside.contains(pid)).collect();
                if outside.is_empty() {
                    break;
                }
                for pid in outside {
                    match member.group().write("cgroup.procs", &pid.to_string()) {
                        Ok(()) | Err(Errno::SRCH) => {}
                        Err(errno) => {
                            let action = format!("move process {pid} of the container into the group");
                            return Err(failed(&member.group().path, action, errno));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Changes limits; those that are not given stay.
    ///
    /// # Errors
    /// As [`Manager::create`](super::Manager::create); limits before the failing one have been changed.
    pub fn update(&self, limits: &Limits) -> Result<()> {
        self.write(limits)?;
        if !limits.devices.asked {
            return Ok(());
        }
        let Some(v1) = self.v1("devices") else {
            // v2 replaces a program by another one at once.
            return self.confine_devices(limits);
        };
        // No process may find a device forbidden in between that it may use before and after.
        let present = v1.read("devices.list")?.unwrap_or_default();
        write_devices(v1, &limits.devices.for_v1()?.changes_from(&present))
    }

    /// Restricts the use of devices to what the limits allow, from now on.
    ///
    /// Without root, or in a user namespace, where device nodes can't be made and nothing can be restricted this way, it does nothing.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) or [`PermissionDenied`](crate::ErrorKind::PermissionDenied), naming `linux.resources.devices`.
    pub fn confine_devices(&self, limits: &Limits) -> Result<()> {
        if let Some(v1) = self.v1("devices") {
            return write_devices(v1, &limits.devices.for_v1()?.writes());
        }
        // In a hybrid without the v1 controller this is the v2 group as well: programs need no controller.
        let Some(v2) = self.members.iter().find(|m| m.is_v2()) else {
            let asked = limits.devices.asked && !is_confined_itself();
            return if asked { Err(unenforceable()) } else { Ok(()) };
        };
        match super::devices::attach(v2.group(), &limits.devices) {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && is_confined_itself() => Ok(()),
            result => result.map_err(|source| Error::Cgroup {
                path: v2.group().path.clone(),
                action: "attach the device program for linux.resources.devices".into(),
                source,
            }),
        }
    }

    /// The pids of all processes in the groups and the groups inside them, in this process' PID namespace.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn pids(&self) -> Result<Vec<u32>> {
        let mut pids = BTreeSet::new();
        // All hierarchies have the same processes, unless a container's process was half-way in when it died, or moved itself.
        let v2 = self.members.iter().find(|m| m.is_v2());
        let v1 = self.members.iter().find(|m| !m.is_v2());
        for member in v2.into_iter().chain(v1) {
            member.group().collect_pids(&mut pids)?;
        }
        pids.remove(&0); // Processes outside of our PID namespace.
        Ok(pids.into_iter().collect())
    }

    /// Writes the limits but for devices. A write that depends on a later one (memory before memory and swap, or the other way
    /// round when a limit is raised) is tried again after it.
    pub(super) fn write(&self, limits: &Limits) -> Result<()> {
        self.check_usage(limits)?;
        let mut left: Vec<&Write> = limits.writes.iter().collect();
        loop {
            let mut failures = Vec::new();
            let before = left.len();
            for write in left {
                if let Err(error) = self.write_one(write) {
                    failures.push((write, error));
                }
            }
            if failures.len() == before {
                return failures.into_iter().next().map_or(Ok(()), |(_, error)| Err(error));
            }
            left = failures.into_iter().map(|(write, _)| write).collect();
        }
    }

    fn write_one(&self, write: &Write) -> Result<()> {
        let unsupported = |reason: String| Error::Unsupported {
            field: write.field.clone(),
            reason,
        };
        let member = self.members.iter().find(|m| m.serves(write.home, &write.controller));
        let group = match member {
            Some(member) => member.group(),
            None => {
                return Err(unsupported(format!(
                    "there is no group of the '{}' controller",
                    write.controller
                )));
            }
        };
        for (n, file) in write.files.iter().enumerate() {
            let value = write.value.text(group, n)?;
            match group.write(file, &value) {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    let action = format!("write '{value}' for {}", write.field);
                    return Err(failed(&group.path.join(file), action, errno));
                }
            }
        }
        match write.missing {
            Missing::Fine => Ok(()),
            Missing::Unsupported => {
                let file = write.files.first().map_or("", String::as_str);
                Err(unsupported(format!(
                    "this kernel has no {file} in {}",
                    group.path.display()
                )))
            }
        }
    }

    /// `checkBeforeUpdate`: a memory limit below what is used would only have processes killed.
    fn check_usage(&self, limits: &Limits) -> Result<()> {
        let Some(wanted) = &limits.above_usage else {
            return Ok(());
        };
        for (home, file) in [(Home::V1, "memory.usage_in_bytes"), (Home::V2, "memory.current")] {
            let Some(member) = self.members.iter().find(|m| m.serves(home, "memory")) else {
                continue;
            };
            let used = member.group().read(file)?;
            let Some(used) = used.and_then(|text| text.trim().parse::<i64>().ok()) else {
                continue;
            };
            let limits = [
                ("swap", "memory+swap", wanted.with_swap),
                ("limit", "memory", wanted.limit),
            ];
            for (field, what, limit) in limits {
                if let Some(limit) = limit.filter(|limit| *limit <= used) {
                    return Err(Error::InvalidSpec {
                        field: format!("linux.resources.memory.{field}"),
                        reason: format!(
                            "rejecting {what} limit {limit}: {used} bytes are used (checkBeforeUpdate is set)"
                        ),
                    });
                }
            }
        }
        Ok(())
    }
}

impl Group {
    fn pids_of(&self, file: &str) -> Result<BTreeSet<u32>> {
        let text = match self.read(file) {
            // A threaded group does not list processes.
            Err(Error::Cgroup { source, .. }) if source.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => None,
            text => text?,
        };
        Ok(text
            .unwrap_or_default()
            .lines()
            .filter_map(|l| l.trim().parse().ok())
            .collect())
    }

    fn collect_pids(&self, pids: &mut BTreeSet<u32>) -> Result<()> {
        pids.extend(self.pids_of("cgroup.procs")?);
        for child in self.children()? {
            if let Some(child) = self.find(&child)? {
                child.collect_pids(pids)?;
            }
        }
        Ok(())
    }

    fn all_pids(&self) -> Result<BTreeSet<u32>> {
        let mut pids = BTreeSet::new();
        self.collect_pids(&mut pids)?;
        Ok(pids)
    }

    pub(super) fn is_unused(&self) -> Result<bool> {
        Ok(self.all_pids()?.is_empty())
    }
}

fn write_devices(group: &Group, writes: &[(&'static str, String)]) -> Result<()> {
    for same in writes.chunk_by(|(one, _), (other, _)| one == other) {
        let Some((file, _)) = same.first() else { continue };
        let lines = same.iter().map(|(_, line)| line.as_str());
        group.write_lines(file, lines).map_err(|(line, errno)| {
            let action = match line {
                Some(line) => format!("write '{line}' for linux.resources.devices"),
                None => "open it for linux.resources.devices".to_owned(),
            };
            failed(&group.path.join(file), action, errno)
        })?;
    }
    Ok(())
}

fn unenforceable() -> Error {
    Error::Unsupported {
        field: "linux.resources.devices".into(),
        reason: "the container has no group in v2 or in v1's devices hierarchy that could enforce it".into(),
    }
}

/// Whether this process is without the rights of the machine's root.
fn is_confined_itself() -> bool {
    const WHOLE: &str = "0 0 4294967295";
    let map = std::fs::read_to_string(Path::new("/proc/self/uid_map")).unwrap_or_default();
    let initial = map.split_ascii_whitespace().collect::<Vec<_>>().join(" ") == WHOLE;
    !initial || !rustix::process::geteuid().is_root()
}
