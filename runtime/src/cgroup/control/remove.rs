use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::super::group::{Group, failed};
use super::super::named::Member;
use super::{Cgroup, freeze::wait_for_event};
use crate::Result;

/// How long processes that were killed may take to be gone.
const LEAVING: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Removes the groups and what the container made inside them. Groups that are gone already are no error.
    ///
    /// Processes must have been killed: it waits up to ten seconds for those that are on their way out, and kills none.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) if processes stay; what could be removed is.
    pub fn remove(&self) -> Result<()> {
        let mut result = Ok(());
        #[cfg(feature = "systemd")]
        if let Some(unit) = &self.unit {
            result = super::super::systemd::stop(unit);
        }
        let end = Instant::now() + LEAVING;
        for member in &self.members {
            let removed = member.remove(end);
            if removed.is_err() && result.is_ok() {
                result = removed;
            }
        }
        result
    }
}

impl Member {
    fn remove(&self, end: Instant) -> Result<()> {
        // Another one of the same name is not ours to remove.
        if self.name.open().dir().is_err_and(|errno| errno == Errno::NOENT) {
            return Ok(());
        }
        let (Some(parent), Some(name)) = (self.name.path.parent(), self.name.path.file_name()) else {
            return Ok(());
        };
        let root = &self.name.tree.root;
        let opened = (!parent.as_os_str().is_empty()).then(|| root.open_as(parent, None));
        let above = opened.as_ref().unwrap_or(root);
        let mut pause = Duration::from_micros(50);
        loop {
            match above.unmake(name) {
                Ok(()) | Err(Errno::NOENT) => break,
                Err(Errno::BUSY | Errno::NOTEMPTY | Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(failed(&self.group().path, "remove the group", errno)),
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let pids = self.group().pids_of("cgroup.procs").unwrap_or_default();
                let action = format!("remove the group: processes {pids:?} are still in it; kill them first");
                return Err(failed(&self.group().path, action, Errno::BUSY));
            }
            if remove_inside(self.group())? {
                continue;
            }
            if self.is_v2() {
                wait_for_event(self.group(), "populated", false, left.min(Duration::from_millis(100)))?;
            } else {
                // v1 tells nobody when a group is empty.
                std::thread::sleep(pause);
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Removes the groups inside, depth first, and tells whether there was one that could be removed.
fn remove_inside(group: &Group) -> Result<bool> {
    let mut removed = false;
    for name in group.children().unwrap_or_default() {
        if group.unmake(name.as_os_str()).is_ok() {
            removed = true;
        } else if let Some(child) = group.find(&name)?
            && remove_inside(&child)?
        {
            removed = true;
        }
    }
    Ok(removed)
}
