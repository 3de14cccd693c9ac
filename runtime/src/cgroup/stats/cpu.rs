use std::time::Duration;

use super::super::control::Cgroup;
use super::super::group::Group;
use super::{Detail, parse};
use crate::{CpuStats, CpusetStats, Result};

/// What `/proc` and v1's `cpuacct.stat` count in (`USER_HZ`, fixed by the kernel's ABI).
const TICKS: u64 = 100;

impl Cgroup {
    pub(super) fn cpu(&self, detail: Detail) -> Result<Option<CpuStats>> {
        let mut cpu = CpuStats::default();
        if let Some(acct) = self.v1("cpuacct") {
            account(acct, detail, &mut cpu)?;
            if let Some(group) = self.v1("cpu") {
                let times = group.table("cpu.stat")?;
                (cpu.periods, cpu.throttled_periods) = (times.get("nr_periods"), times.get("nr_throttled"));
                cpu.throttled = Duration::from_nanos(times.get("throttled_time"));
                (cpu.bursts, cpu.burst) = (times.get("nr_bursts"), Duration::from_nanos(times.get("burst_time")));
            }
        } else if let Some(v2) = self.v2_with("cpu.stat")? {
            let times = v2.table("cpu.stat")?;
            let micros = |key| Duration::from_micros(times.get(key));
            (cpu.total, cpu.user, cpu.system) = (micros("usage_usec"), micros("user_usec"), micros("system_usec"));
            (cpu.periods, cpu.throttled_periods) = (times.get("nr_periods"), times.get("nr_throttled"));
            cpu.throttled = micros("throttled_usec");
            (cpu.bursts, cpu.burst) = (times.get("nr_bursts"), micros("burst_usec"));
        } else {
            return Ok(None);
        }
        cpu.pressure = self.pressure("cpu.pressure")?;
        Ok(Some(cpu))
    }

    pub(super) fn cpuset(&self) -> Result<Option<CpusetStats>> {
        let Some(group) = self.v1("cpuset") else {
            return Ok(None);
        };
        let list = |file| Ok::<_, crate::Error>(parse::list(&group.read(file)?.unwrap_or_default()));
        let number = |file| Ok::<_, crate::Error>(group.number(file)?.unwrap_or(0));
        let level = group.read("cpuset.sched_relax_domain_level")?;
        Ok(Some(CpusetStats {
            cpus: list("cpuset.cpus")?,
            mems: list("cpuset.mems")?,
            cpu_exclusive: number("cpuset.cpu_exclusive")?,
            mem_hardwall: number("cpuset.mem_hardwall")?,
            mem_exclusive: number("cpuset.mem_exclusive")?,
            memory_migrate: number("cpuset.memory_migrate")?,
            memory_spread_page: number("cpuset.memory_spread_page")?,
            memory_spread_slab: number("cpuset.memory_spread_slab")?,
            memory_pressure: number("cpuset.memory_pressure")?,
            sched_load_balance: number("cpuset.sched_load_balance")?,
            sched_relax_domain_level: level.and_then(|l| l.trim().parse().ok()).unwrap_or(0),
        }))
    }
}

fn account(acct: &Group, detail: Detail, cpu: &mut CpuStats) -> Result<()> {
    cpu.total = Duration::from_nanos(acct.number("cpuacct.usage")?.unwrap_or(0));
    let [user, system] = acct.values("cpuacct.stat", ["user", "system"])?;
    let ticks = |t: u64| Duration::from_millis(t.saturating_mul(1000 / TICKS));
    (cpu.user, cpu.system) = (ticks(user), ticks(system));
    if detail == Detail::Brief {
        return Ok(());
    }
    cpu.per_cpu = parse::nanoseconds(&acct.read("cpuacct.usage_percpu")?.unwrap_or_default());
    (cpu.per_cpu_user, cpu.per_cpu_system) = parse::usage_all(&acct.read("cpuacct.usage_all")?.unwrap_or_default());
    Ok(())
}
