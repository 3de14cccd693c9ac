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

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    All,
    Brief,
}

impl Cgroup {
    /// What the container uses. What no group tells is `None`, or empty.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = self.stats_in(Detail::All)?;
        stats.cpuset = self.cpuset()?;
        stats.hugetlb = self.hugetlb()?;
        stats.rdma = self.rdma()?;
        stats.misc = self.misc()?;
        Ok(stats)
    }

    /// The same without what takes long to read and nobody watches all the time: single processors, the kernel's own memory and its table of memory, cpusets,
    /// huge pages, RDMA and other resources.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn brief_stats(&self) -> Result<Stats> {
        self.stats_in(Detail::Brief)
    }

    fn stats_in(&self, detail: Detail) -> Result<Stats> {
        let mut stats = Stats::now();
        stats.cpu = self.cpu(detail)?;
        stats.memory = self.memory(detail)?;
        stats.io = self.io()?;
        stats.pids = self.pid_counts()?;
        Ok(stats)
    }

    /// How many processes the kernel has killed in the group for want of memory.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn oom_kills(&self) -> Result<u64> {
        if let Some(v1) = self.v1("memory") {
            let [kills] = v1.values("memory.oom_control", ["oom_kill"])?;
            return Ok(kills);
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
        let v2 = self.members.iter().find(|m| m.is_v2()).map(Member::group);
        let told = v2.map(|v2| v2.figures(file, parse::pressure)).transpose()?;
        Ok(told.flatten().flatten())
    }
}

/// The kills that `memory.events` counts.
pub(super) fn oom_kills_in(events: &str) -> u64 {
    Table::parse(events).get("oom_kill")
}

impl Group {
    fn table(&self, file: &str) -> Result<Table> {
        Ok(self.figures(file, Table::parse)?.unwrap_or_default())
    }

    /// Some values of a file of `key value` lines; 0 for those that it has not.
    fn values<const N: usize>(&self, file: &str, keys: [&str; N]) -> Result<[u64; N]> {
        Ok(self.figures(file, |text| parse::values(text, keys))?.unwrap_or([0; N]))
    }

    fn number(&self, file: &str) -> Result<Option<u64>> {
        let number = self.figures(file, |text| text.trim().parse().ok())?;
        Ok(number.flatten())
    }
}
