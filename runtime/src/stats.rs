use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// What a container uses, read from its cgroup. A part that the kernel or its controllers do not tell is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct Stats {
    pub at: SystemTime,
    pub cpu: Option<CpuStats>,
    pub memory: Option<MemoryStats>,
    pub io: Option<IoStats>,
    pub pids: Option<PidsStats>,
}

impl Stats {
    /// Figures of this moment, none known yet.
    pub fn now() -> Self {
        Self {
            at: SystemTime::now(),
            cpu: None,
            memory: None,
            io: None,
            pids: None,
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
    pub pressure: Option<Pressure>,
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
    pub oom_kills: u64,
    pub pressure: Option<Pressure>,
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
    pub pressure: Option<Pressure>,
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
