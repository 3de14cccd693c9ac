use super::super::control::Cgroup;
use super::super::group::Group;
use super::Detail;
use crate::{MemoryStats, MemoryUse, Result};

/// v1 says "no limit" with the largest number of pages that fits: whatever is above this is none.
pub(super) const V1_UNLIMITED: u64 = 1 << 60;

impl Cgroup {
    pub(super) fn memory(&self, detail: Detail) -> Result<Option<MemoryStats>> {
        let mut memory = if let Some(v1) = self.v1("memory") {
            of_v1(v1, detail)?
        } else if let Some(v2) = self.v2_with("memory.current")? {
            of_v2(v2, detail)?
        } else {
            return Ok(None);
        };
        memory.oom_kills = self.oom_kills()?;
        memory.pressure = self.pressure("memory.pressure")?;
        Ok(Some(memory))
    }
}

fn of_v1(group: &Group, detail: Detail) -> Result<MemoryStats> {
    if detail == Detail::Brief {
        return brief_of_v1(group);
    }
    let all = v1_use(group, "memory")?.unwrap_or_default();
    let details = group.table("memory.stat")?;
    let with_swap = v1_use(group, "memory.memsw")?;
    Ok(MemoryStats {
        usage: all.usage,
        working_set: all.usage.saturating_sub(details.get("total_inactive_file")),
        limit: all.limit,
        peak: all.peak,
        swap: with_swap.map(|both| both.usage.saturating_sub(all.usage)),
        failures: all.failures,
        cache: details.get("cache"),
        with_swap,
        kernel: v1_use(group, "memory.kmem")?,
        kernel_tcp: v1_use(group, "memory.kmem.tcp")?,
        details: details.0,
        ..MemoryStats::default()
    })
}

fn brief_of_v1(group: &Group) -> Result<MemoryStats> {
    let usage = group.number("memory.usage_in_bytes")?.unwrap_or(0);
    let [inactive, cache] = group.values("memory.stat", ["total_inactive_file", "cache"])?;
    let limit = group.number("memory.limit_in_bytes")?;
    let with_swap = group.number("memory.memsw.usage_in_bytes")?;
    Ok(MemoryStats {
        usage,
        working_set: usage.saturating_sub(inactive),
        limit: limit.filter(|limit| *limit < V1_UNLIMITED),
        peak: group.number("memory.max_usage_in_bytes")?,
        swap: with_swap.map(|both| both.saturating_sub(usage)),
        failures: group.number("memory.failcnt")?.unwrap_or(0),
        cache,
        ..MemoryStats::default()
    })
}

fn v1_use(group: &Group, kind: &str) -> Result<Option<MemoryUse>> {
    let Some(usage) = group.number(&format!("{kind}.usage_in_bytes"))? else {
        return Ok(None);
    };
    let limit = group.number(&format!("{kind}.limit_in_bytes"))?;
    Ok(Some(MemoryUse {
        usage,
        limit: limit.filter(|l| *l < V1_UNLIMITED),
        peak: group.number(&format!("{kind}.max_usage_in_bytes"))?,
        failures: group.number(&format!("{kind}.failcnt"))?.unwrap_or(0),
    }))
}

fn of_v2(group: &Group, detail: Detail) -> Result<MemoryStats> {
    if detail == Detail::Brief {
        return brief_of_v2(group);
    }
    let usage = group.number("memory.current")?.unwrap_or(0);
    let limit = group.number("memory.max")?; // `max` is no number.
    let details = group.table("memory.stat")?;
    let swap = group.number("memory.swap.current")?;
    let with_swap = match swap {
        // The sum, as v1 has it. There is no telling when both together were most.
        Some(swap) => Some(MemoryUse {
            usage: usage.saturating_add(swap),
            limit: group
                .number("memory.swap.max")?
                .map(|most| most.saturating_add(limit.unwrap_or(u64::MAX)))
                .filter(|most| *most != u64::MAX),
            peak: None,
            failures: group.table("memory.swap.events")?.get("max"),
        }),
        None => None,
    };
    Ok(MemoryStats {
        usage,
        working_set: usage.saturating_sub(details.get("inactive_file")),
        limit,
        peak: group.number("memory.peak")?,
        swap,
        failures: group.table("memory.events")?.get("max"),
        cache: details.get("file"),
        with_swap,
        details: details.0,
        ..MemoryStats::default()
    })
}

fn brief_of_v2(group: &Group) -> Result<MemoryStats> {
    let usage = group.number("memory.current")?.unwrap_or(0);
    let [inactive, cache] = group.values("memory.stat", ["inactive_file", "file"])?;
    let [failures] = group.values("memory.events", ["max"])?;
    Ok(MemoryStats {
        usage,
        working_set: usage.saturating_sub(inactive),
        limit: group.number("memory.max")?, // `max` is no number.
        peak: group.number("memory.peak")?,
        swap: group.number("memory.swap.current")?,
        failures,
        cache,
        ..MemoryStats::default()
    })
}
