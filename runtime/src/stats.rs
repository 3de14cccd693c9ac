use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// What a container uses, read from its cgroup. A part that the kernel or its controllers do not tell is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct Stats {
    pub at: SystemTime,
    pub cpu: Option<CpuStats>,
    /// Told by v1 only.
    pub cpuset: Option<CpusetStats>,
    pub memory: Option<MemoryStats>,
    pub io: Option<IoStats>,
    pub pids: Option<PidsStats>,
    /// By page size, as the kernel writes it (`2MB`).
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// By device.
    pub rdma: BTreeMap<String, RdmaStats>,
    /// By the name of the resource.
    pub misc: BTreeMap<String, MiscStats>,
    /// By device, in the container's own network namespace; the loopback is left out. Empty where it has that of the host program.
    pub network: BTreeMap<String, NetworkStats>,
}

impl Stats {
    /// Figures of this moment, none known yet.
    pub fn now() -> Self {
        Self {
            at: SystemTime::now(),
            cpu: None,
            cpuset: None,
            memory: None,
            io: None,
            pids: None,
            hugetlb: BTreeMap::new(),
            rdma: BTreeMap::new(),
            misc: BTreeMap::new(),
            network: BTreeMap::new(),
        }
    }
}

/// Processor time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct CpuStats {
    pub total: Duration,
    pub user: Duration,
    pub system: Duration,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled: Duration,
    /// Periods in which saved-up time was used.
    pub bursts: u64,
    /// Time used above the quota.
    pub burst: Duration,
    /// `total` by processor, if the kernel tells (v1).
    pub per_cpu: Vec<Duration>,
    /// `user` by processor, if the kernel tells (v1).
    pub per_cpu_user: Vec<Duration>,
    /// `system` by processor, if the kernel tells (v1).
    pub per_cpu_system: Vec<Duration>,
    pub pressure: Option<Pressure>,
}

/// Processors and memory nodes, and the flags of v1's cpuset (cpuset(7)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct CpusetStats {
    pub cpus: Vec<u16>,
    pub mems: Vec<u16>,
    pub cpu_exclusive: u64,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct MemoryStats {
    pub usage: u64,
    /// Usage without inactive page cache: what `docker stats` shows.
    pub working_set: u64,
    /// `None` is no limit.
    pub limit: Option<u64>,
    pub peak: Option<u64>,
    pub swap: Option<u64>,
    /// How often the limit was hit.
    pub failures: u64,
    /// Page cache.
    pub cache: u64,
    /// Memory and swap together.
    pub with_swap: Option<MemoryUse>,
    /// Of the kernel for the container (v1).
    pub kernel: Option<MemoryUse>,
    /// Of the kernel for TCP (v1).
    pub kernel_tcp: Option<MemoryUse>,
    /// The kernel's `memory.stat`, as it is.
    pub details: BTreeMap<String, u64>,
    pub oom_kills: u64,
    pub pressure: Option<Pressure>,
}

/// One kind of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct MemoryUse {
    pub usage: u64,
    /// `None` is no limit.
    pub limit: Option<u64>,
    pub peak: Option<u64>,
    /// How often the limit was hit.
    pub failures: u64,
}

/// Block devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct IoStats {
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
    /// What the kernel tells by device. Empty where it tells nothing.
    pub tables: IoTables,
    pub pressure: Option<Pressure>,
}

/// Figures by device, groups inside included. All but the first two need the BFQ scheduler and v1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct IoTables {
    pub bytes: Vec<IoEntry>,
    pub operations: Vec<IoEntry>,
    pub queued: Vec<IoEntry>,
    pub service_time: Vec<IoEntry>,
    pub wait_time: Vec<IoEntry>,
    pub merged: Vec<IoEntry>,
    pub time: Vec<IoEntry>,
    pub sectors: Vec<IoEntry>,
}

/// A figure of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct IoEntry {
    pub major: u64,
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard` or `Total`; empty where it is about all.
    pub operation: String,
    pub value: u64,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct PidsStats {
    pub current: u64,
    /// `None` is no limit.
    pub limit: Option<u64>,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct HugetlbStats {
    pub usage: u64,
    /// `None` is no limit.
    pub limit: Option<u64>,
    pub peak: Option<u64>,
    /// How often the limit was hit.
    pub failures: u64,
}

/// Handles and objects of one RDMA device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct RdmaStats {
    pub handles: u64,
    pub objects: u64,
    /// `None` is no limit.
    pub handle_limit: Option<u64>,
    /// `None` is no limit.
    pub object_limit: Option<u64>,
}

/// One resource of the `misc` controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct MiscStats {
    pub usage: u64,
    /// `None` is no limit.
    pub limit: Option<u64>,
    /// How often the limit was hit.
    pub failures: u64,
}

/// One network device: what came in (`rx`) and what went out (`tx`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct NetworkStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// Pressure stall information of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Pressure {
    pub some: PressureLine,
    pub full: PressureLine,
}

/// One line of a pressure file: share of time stalled in percent, and the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PressureLine {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: Duration,
}
