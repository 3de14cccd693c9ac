mod cpu;
mod io;
mod memory;
mod other;
mod parse;
use super::control::Cgroup;
use super::group::Group;
use super::host::Home;
use super::named::Member;
use crate::{Pressure, Result, Stats};
use parse::Table;
#[cfg(feature = "fuzzing")]
pub(crate) use parse::read_all;

impl Cgroup {
    /// What the container uses. What no group tells is `None`, or empty.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::now();
        stats.cpu = self.cpu()?;
        stats.cpuset = self.cpuset()?;
        stats.memory = self.memory()?;
        stats.io = self.io()?;
        stats.pids = self.pid_counts()?;
        stats.hugetlb = self.hugetlb()?;
        stats.rdma = self.rdma()?;
        stats.misc = self.misc()?;
        Ok(stats)
    }

    /// How many processes the kernel has killed in the group for want of memory.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn oom_kills(&self) -> Result<u64> {
        if let Some(v1) = self.v1("memory") {
            return Ok(v1.table("memory.oom_control")?.get("oom_kill"));
        }
        match self.v2_with("memory.events")? {
            Some(v2) => Ok(v2.table("memory.events")?.get("oom_kill")),
            None => Ok(0),
        }
    }

    pub(super) fn v1(&self, controller: &str) -> Option<&Group> {
        self.v1_member(controller).map(Member::group)
    }

    pub(super) fn v1_member(&self, controller: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.serves(Home::V1, controller))
    }

    /// The v2 group, if it has a file.
    pub(super) fn v2_with(&self, file: &str) -> Result<Option<&Group>> {
        let v2 = self.members.iter().find(|m| m.is_v2()).map(Member::group);
        match v2 {
            Some(group) if group.has(file)? => Ok(Some(group)),
            _ => Ok(None),
        }
    }

    fn pressure(&self, file: &str) -> Result<Option<Pressure>> {
        match self.v2_with(file)? {
            Some(v2) => Ok(v2.read(file)?.and_then(|text| parse::pressure(&text))),
            None => Ok(None),
        }
    }
}

/// The kills that `memory.events` counts.
pub(super) fn oom_kills_in(events: &str) -> u64 {
    Table::parse(events).get("oom_kill")
}

impl Group {
    fn table(&self, file: &str) -> Result<Table> {
        Ok(Table::parse(&self.read(file)?.unwrap_or_default()))
    }

    fn number(&self, file: &str) -> Result<Option<u64>> {
        Ok(self.read(file)?.and_then(|text| text.trim().parse().ok()))
    }
}
