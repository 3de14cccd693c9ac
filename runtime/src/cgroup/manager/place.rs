use std::os::fd::OwnedFd;

use super::super::host::Hierarchy;
use super::super::{Cgroup, Location, Mode, Place, Unit};
use super::Manager;
use crate::Result;

impl Manager {
    /// Finds the groups of a unit, whoever made them.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn find_unit(&self, unit: &Unit) -> Result<Cgroup> {
        let place = |h: &Hierarchy| Place {
            mount: h.mount_point.clone(),
            path: unit.group.clone(),
            inode: None,
        };
        self.open(&Location {
            places: self.host.hierarchies.iter().map(place).collect(),
            unit: Some(unit.clone()),
        })
    }

    /// Where v2 is all there is: the group that a process is in, if it can be opened. A container's init may have gone to a group of its own.
    pub(crate) fn unified_group_of(&self, pid: i32) -> Option<OwnedFd> {
        if self.host.mode() != Mode::Unified {
            return None;
        }
        let at = self.host.hierarchies.iter().position(Hierarchy::is_v2)?;
        let text = std::fs::read(format!("/proc/{pid}/cgroup")).ok()?;
        let path = self.host.hierarchies[at].group_in(&text)?;
        // Who is in the root is in no group; nobody but root could enter it, and nothing would be limited by it.
        if path.as_os_str().is_empty() {
            return None;
        }
        self.trees[at].root.find(&path).ok()??.into_dir().ok()
    }
}
