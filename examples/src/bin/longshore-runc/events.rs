//! `events`: what a container uses, in runc's form and order of keys, and when it runs out of memory.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use longshore_runtime::cgroup::{Host, Mode, OomNews};
use longshore_runtime::{
    CpuStats, CpusetStats, Executor, HugetlbStats, IoEntry, IoStats, MemoryStats, MemoryUse, PidsStats, Pressure,
    PressureLine, Stats, Status,
};
use serde::Serialize;

use crate::args::Arguments;
use crate::block_on;
use crate::failure::{Failure, Outcome};
use crate::global::Global;

/// `longshore-runc events`
pub(crate) fn events(global: &Global, arguments: &Arguments) -> Outcome {
    let interval = match arguments.value("interval") {
        None => Duration::from_secs(5),
        Some(given) => duration(given).ok_or_else(|| Failure::new(format!("invalid duration \"{given}\"")))?,
    };
    if interval.is_zero() {
        return Err(Failure::new("duration interval must be greater than 0"));
    }
    let unlimited = unlimited();
    block_on(async {
        let (executor, id) = global.executor_of(arguments.id())?;
        if executor.state(&id).await?.status == Status::Stopped {
            return Err(Failure::new(format!("container with id {id} is not running")));
        }
        if arguments.is_on("stats") {
            let stats = executor.stats(&id).await?;
            print(&Event::stats(id.as_str(), Data::new(stats, unlimited)))?;
            return Ok(0);
        }
        let mut watch = executor.watch_oom(&id)?;
        let mut next = Instant::now() + interval;
        loop {
            // Nothing else runs in this program, so that it may block here.
            match watch.next(next.saturating_duration_since(Instant::now()))? {
                OomNews::OutOfMemory => print(&Event::oom(id.as_str()))?,
                OomNews::Ended => return Ok(0),
                _ => {
                    next += interval;
                    match executor.stats(&id).await {
                        Ok(stats) => print(&Event::stats(id.as_str(), Data::new(stats, unlimited)))?,
                        // It is deleted in this moment.
                        Err(error) => global.log.warn(&crate::failure::text(&error.into())),
                    }
                }
            }
        }
    })
}

fn print(event: &Event<'_>) -> anyhow::Result<()> {
    let line = serde_json::to_string(event)? + "\n";
    std::io::stdout().lock().write_all(line.as_bytes())?;
    Ok(())
}

/// How the kernel writes that there is no limit: v2 says `max`, which Go reads as the largest number; v1 has the largest number of whole
/// pages (of 4 KiB; what reads it only sees that it is more than any machine has).
fn unlimited() -> u64 {
    match Host::detect().map(|host| host.mode()) {
        Ok(Mode::Unified) | Err(_) => u64::MAX,
        Ok(_) => i64::MAX as u64 & !0xfff,
    }
}

/// A time in Go's form: `1s`, `100ms`, `1m30s`, `1.5h`.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        seconds += number
            * match &rest[..end] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (!text.is_empty())
        .then(|| Duration::try_from_secs_f64(seconds).ok())
        .flatten()
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A line of output.
#[derive(Debug, Serialize)]
struct Event<'a> {
    r#type: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

impl<'a> Event<'a> {
    fn stats(id: &'a str, data: Data) -> Self {
        Self {
            r#type: "stats",
            id,
            data: Some(data),
        }
    }

    fn oom(id: &'a str) -> Self {
        Self {
            r#type: "oom",
            id,
            data: None,
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct Data {
    cpu: Cpu,
    cpuset: Cpuset,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<String, Hugetlb>,
    /// Nothing of it is known.
    intel_rdt: serde_json::Map<String, serde_json::Value>,
    /// Interfaces that the runtime made, and it makes none.
    network_interfaces: Option<()>,
}

impl Data {
    fn new(stats: Stats, unlimited: u64) -> Self {
        let huge = stats
            .hugetlb
            .into_iter()
            .map(|(size, stats)| (size, Hugetlb::from(stats)));
        Self {
            cpu: stats.cpu.map(Cpu::from).unwrap_or_default(),
            cpuset: stats.cpuset.map(Cpuset::from).unwrap_or_default(),
            memory: stats
                .memory
                .map(|memory| Memory::new(memory, unlimited))
                .unwrap_or_default(),
            pids: stats.pids.map(Pids::from).unwrap_or_default(),
            blkio: stats.io.map(Blkio::from).unwrap_or_default(),
            hugetlb: huge.collect(),
            ..Self::default()
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    #[serde(skip_serializing_if = "is_default")]
    usage: Usage,
    #[serde(skip_serializing_if = "is_default")]
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Usage {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_time: u64,
}

impl From<CpuStats> for Cpu {
    fn from(cpu: CpuStats) -> Self {
        let each = |times: Vec<Duration>| times.into_iter().map(nanos).collect();
        Self {
            usage: Usage {
                total: nanos(cpu.total),
                percpu: each(cpu.per_cpu),
                percpu_kernel: each(cpu.per_cpu_system),
                percpu_user: each(cpu.per_cpu_user),
                kernel: nanos(cpu.system),
                user: nanos(cpu.user),
            },
            throttling: Throttling {
                periods: cpu.periods,
                throttled_periods: cpu.throttled_periods,
                throttled_time: nanos(cpu.throttled),
            },
            psi: cpu.pressure.map(Psi::from),
        }
    }
}

#[derive(Debug, Serialize)]
struct Psi {
    some: PsiLine,
    full: PsiLine,
}

impl From<Pressure> for Psi {
    fn from(pressure: Pressure) -> Self {
        Self {
            some: pressure.some.into(),
            full: pressure.full.into(),
        }
    }
}

#[derive(Debug, Serialize)]
struct PsiLine {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    /// In microseconds.
    total: u64,
}

impl From<PressureLine> for PsiLine {
    fn from(line: PressureLine) -> Self {
        Self {
            avg10: line.avg10,
            avg60: line.avg60,
            avg300: line.avg300,
            total: u64::try_from(line.total.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

impl From<CpusetStats> for Cpuset {
    fn from(set: CpusetStats) -> Self {
        Self {
            cpus: set.cpus,
            cpu_exclusive: set.cpu_exclusive,
            mems: set.mems,
            mem_hardwall: set.mem_hardwall,
            mem_exclusive: set.mem_exclusive,
            memory_migrate: set.memory_migrate,
            memory_spread_page: set.memory_spread_page,
            memory_spread_slab: set.memory_spread_slab,
            memory_pressure: set.memory_pressure,
            sched_load_balance: set.sched_load_balance,
            sched_relax_domain_level: set.sched_relax_domain_level,
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
    #[serde(skip_serializing_if = "is_default")]
    usage: Entry,
    #[serde(skip_serializing_if = "is_default")]
    swap: Entry,
    #[serde(skip_serializing_if = "is_default")]
    kernel: Entry,
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_default")]
    kernel_tcp: Entry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Entry {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

impl Memory {
    fn new(memory: MemoryStats, unlimited: u64) -> Self {
        let entry = |kind: Option<MemoryUse>| {
            let kind = kind.map(|kind| Entry {
                limit: kind.limit.unwrap_or(unlimited),
                usage: kind.usage,
                max: kind.peak.unwrap_or(0),
                failcnt: kind.failures,
            });
            kind.unwrap_or_default()
        };
        Self {
            cache: memory.cache,
            usage: Entry {
                limit: memory.limit.unwrap_or(unlimited),
                usage: memory.usage,
                max: memory.peak.unwrap_or(0),
                failcnt: memory.failures,
            },
            swap: entry(memory.with_swap),
            kernel: entry(memory.kernel),
            kernel_tcp: entry(memory.kernel_tcp),
            raw: memory.details,
            psi: memory.pressure.map(Psi::from),
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

impl From<PidsStats> for Pids {
    fn from(pids: PidsStats) -> Self {
        Self {
            current: pids.current,
            limit: pids.limit.unwrap_or(0),
        }
    }
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_queue_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Serialize)]
struct BlkioEntry {
    #[serde(skip_serializing_if = "is_zero")]
    major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    op: String,
    #[serde(skip_serializing_if = "is_zero")]
    value: u64,
}

impl From<IoStats> for Blkio {
    fn from(io: IoStats) -> Self {
        let table = |entries: Vec<IoEntry>| {
            let one = |entry: IoEntry| BlkioEntry {
                major: entry.major,
                minor: entry.minor,
                op: entry.operation,
                value: entry.value,
            };
            entries.into_iter().map(one).collect()
        };
        Self {
            io_service_bytes_recursive: table(io.tables.bytes),
            io_serviced_recursive: table(io.tables.operations),
            io_queue_recursive: table(io.tables.queued),
            io_service_time_recursive: table(io.tables.service_time),
            io_wait_time_recursive: table(io.tables.wait_time),
            io_merged_recursive: table(io.tables.merged),
            io_time_recursive: table(io.tables.time),
            sectors_recursive: table(io.tables.sectors),
            psi: io.pressure.map(Psi::from),
        }
    }
}

#[derive(Debug, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

impl From<HugetlbStats> for Hugetlb {
    fn from(huge: HugetlbStats) -> Self {
        Self {
            usage: huge.usage,
            max: huge.peak.unwrap_or(0),
            failcnt: huge.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("1s", 1000),
            ("100ms", 100),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "-1s", "1x", "s", "1s2"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn the_form_and_the_order_of_the_keys_are_runcs() {
        let event = Event::stats("x", Data::new(Stats::now(), u64::MAX));
        let expected = concat!(
            r#"{"type":"stats","id":"x","data":{"cpu":{},"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"#,
            r#""memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"#,
            r#""sched_relax_domain_level":0},"memory":{},"pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}}"#,
        );
        assert_eq!(serde_json::to_string(&event).expect("JSON"), expected);
        let event = serde_json::to_string(&Event::oom("x")).expect("JSON");
        assert_eq!(event, r#"{"type":"oom","id":"x"}"#);
    }
}
