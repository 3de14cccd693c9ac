use std::collections::BTreeMap;

use super::super::control::Cgroup;
use super::super::group::{Group, failed};
use super::memory::V1_UNLIMITED;
use super::parse;
use crate::{HugetlbStats, MiscStats, PidsStats, RdmaStats, Result};

impl Cgroup {
    pub(super) fn pid_counts(&self) -> Result<Option<PidsStats>> {
        let Some(group) = self.either("pids", "pids.current")? else {
            return Ok(None);
        };
        let (current, limit) = (group.number("pids.current")?.unwrap_or(0), group.number("pids.max")?);
        Ok(Some(PidsStats { current, limit }))
    }

    pub(super) fn hugetlb(&self) -> Result<BTreeMap<String, HugetlbStats>> {
        let mut all = BTreeMap::new();
        let (group, end) = match (self.v1("hugetlb"), self.v2_with("cgroup.procs")?) {
            (Some(v1), _) => (v1, ".usage_in_bytes"),
            (None, Some(v2)) => (v2, ".current"),
            _ => return Ok(all),
        };
        for size in group.huge_pages(end)? {
            let file = |what: &str| format!("hugetlb.{size}.{what}");
            let stats = if end == ".current" {
                HugetlbStats {
                    usage: group.number(&file("current"))?.unwrap_or(0),
                    limit: group.number(&file("max"))?,
                    peak: None,
                    failures: group.table(&file("events"))?.get("max"),
                }
            } else {
                HugetlbStats {
                    usage: group.number(&file("usage_in_bytes"))?.unwrap_or(0),
                    limit: group.number(&file("limit_in_bytes"))?.filter(|l| *l < V1_UNLIMITED),
                    peak: group.number(&file("max_usage_in_bytes"))?,
                    failures: group.number(&file("failcnt"))?.unwrap_or(0),
                }
            };
            all.insert(size, stats);
        }
        Ok(all)
    }

    pub(super) fn rdma(&self) -> Result<BTreeMap<String, RdmaStats>> {
        let Some(group) = self.either("rdma", "rdma.current")? else {
            return Ok(BTreeMap::new());
        };
        let text = |file| Ok::<_, crate::Error>(group.read(file)?.unwrap_or_default());
        Ok(parse::rdma(&text("rdma.current")?, &text("rdma.max")?))
    }

    pub(super) fn misc(&self) -> Result<BTreeMap<String, MiscStats>> {
        let Some(group) = self.either("misc", "misc.current")? else {
            return Ok(BTreeMap::new());
        };
        let (current, limits) = (group.table("misc.current")?, group.table("misc.max")?);
        let events = group.table("misc.events")?;
        let one = |(name, usage): (String, u64)| {
            let stats = MiscStats {
                usage,
                limit: limits.0.get(&name).copied(),
                failures: events.get(&format!("{name}.max")),
            };
            (name, stats)
        };
        Ok(current.0.into_iter().map(one).collect())
    }
}

impl Cgroup {
    /// The group of a v1 controller, or that of v2 if it has a file.
    fn either(&self, controller: &str, file: &str) -> Result<Option<&Group>> {
        match self.v1(controller) {
            Some(v1) => Ok(Some(v1)),
            None => self.v2_with(file),
        }
    }
}

impl Group {
    /// The page sizes that the group has files of: `2MB` for `hugetlb.2MB.current`.
    fn huge_pages(&self, end: &str) -> Result<Vec<String>> {
        let fault = |e| failed(&self.path, "list the files", e);
        let mut sizes = Vec::new();
        for entry in self.entries().map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let name = entry.file_name().to_string_lossy();
            let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(end));
            sizes.extend(size.filter(|s| !s.contains('.')).map(str::to_owned));
        }
        Ok(sizes)
    }
}
