//! What a container may use: memory, processor time, processes, devices.

use std::path::PathBuf;

use oci_spec::runtime::{
    Linux, LinuxCpu, LinuxDevice, LinuxDeviceCgroup, LinuxMemory, LinuxPids, LinuxResources, User,
};

use super::device::{Device, all_rules, default_rules};
use super::{SpecBuilder, confinement};
use crate::{Error, Result};

/// The period that a share of processor time is given in, in microseconds, as in Docker.
const CPU_PERIOD: u64 = 100_000;
/// The least that the kernel takes for quota and period, and the most for the period, in microseconds.
const CPU_LEAST: u64 = 1_000;
const CPU_PERIOD_MOST: u64 = 1_000_000;
/// With less, a container can't even be started (Docker's limit too).
const MEMORY_LEAST: u64 = 6 << 20;

/// How much memory and swap a container may use together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwapLimit {
    /// Memory and swap together, in bytes. Equal to the memory limit, it means no swap.
    Total(u64),
    /// As much swap as there is.
    Unlimited,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    memory: Option<u64>,
    reservation: Option<u64>,
    swap: Option<SwapLimit>,
    cpus: Option<f64>,
    quota: Option<(i64, u64)>,
    shares: Option<u64>,
    cpuset: Option<String>,
    mems: Option<String>,
    pids: Option<u32>,
    devices: Vec<Device>,
    rules: Vec<LinuxDeviceCgroup>,
    cgroups_path: Option<PathBuf>,
}

impl SpecBuilder {
    /// The most memory, in bytes. At least 6 MiB. Default: no limit.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.resources.memory = Some(bytes);
        self
    }

    /// How far memory is taken back to when the host is short of it, in bytes.
    pub fn memory_reservation(mut self, bytes: u64) -> Self {
        self.resources.reservation = Some(bytes);
        self
    }

    /// The most memory and swap. Default: the kernel's, which is as much swap as there is.
    pub fn memory_swap(mut self, limit: SwapLimit) -> Self {
        self.resources.swap = Some(limit);
        self
    }

    /// The most processor time, in processors: 1.5 is one and a half. Default: no limit.
    pub fn cpus(mut self, cpus: f64) -> Self {
        self.resources.cpus = Some(cpus);
        self
    }

    /// The most processor time, as microseconds in each period of microseconds; a quota of -1 is no limit.
    pub fn cpu_quota(mut self, quota: i64, period: u64) -> Self {
        self.resources.quota = Some((quota, period));
        self
    }

    /// The weight against other containers when processors are short; 1024 is usual.
    pub fn cpu_shares(mut self, shares: u64) -> Self {
        self.resources.shares = Some(shares);
        self
    }

    /// The processors it may run on, as `0-3,7`.
    pub fn cpuset_cpus(mut self, cpus: impl Into<String>) -> Self {
        self.resources.cpuset = Some(cpus.into());
        self
    }

    /// The memory nodes it may use, as `0-1`.
    pub fn cpuset_mems(mut self, nodes: impl Into<String>) -> Self {
        self.resources.mems = Some(nodes.into());
        self
    }

    /// The most processes and threads. Default: no limit.
    pub fn pids_limit(mut self, limit: u32) -> Self {
        self.resources.pids = Some(limit);
        self
    }

    /// Gives a device.
    pub fn device(mut self, device: Device) -> Self {
        self.resources.devices.push(device);
        self
    }

    /// Gives several devices.
    pub fn devices(mut self, devices: impl IntoIterator<Item = Device>) -> Self {
        self.resources.devices.extend(devices);
        self
    }

    /// A further rule of the device cgroup, after the default ones.
    pub fn device_rule(mut self, rule: LinuxDeviceCgroup) -> Self {
        self.resources.rules.push(rule);
        self
    }

    /// The container's cgroup, as the executor reads it: a path below the hierarchy, or `slice:prefix:name` for
    /// systemd. Default: the executor chooses.
    pub fn cgroups_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.resources.cgroups_path = Some(path.into());
        self
    }
}

impl Options {
    pub(super) fn apply(&self, linux: &mut Linux, confinement: &confinement::Options, process: &User) -> Result<()> {
        let mut resources = LinuxResources::default();
        let (nodes, rules) = self.device_lists(confinement, process)?;
        resources.set_devices(Some(rules));
        resources.set_memory(self.memory_limits()?);
        resources.set_cpu(self.cpu_limits()?);
        resources.set_pids(self.pids_limits()?);
        linux.set_resources(Some(resources));
        linux.set_devices((!nodes.is_empty()).then_some(nodes));
        linux.set_cgroups_path(self.cgroups_path.clone());
        Ok(())
    }

    /// The first limit that was asked for, by the name of its option.
    pub(super) fn first_limit(&self) -> Option<&'static str> {
        let memory = self.memory.is_some() || self.reservation.is_some() || self.swap.is_some();
        let cpu = self.cpus.is_some() || self.quota.is_some() || self.shares.is_some();
        let limits = [
            (memory, "a memory limit"),
            (cpu, "a processor limit"),
            (self.cpuset.is_some() || self.mems.is_some(), "a cpuset"),
            (self.pids.is_some(), "a limit of processes"),
            (self.cgroups_path.is_some(), "a cgroup path"),
        ];
        limits.into_iter().find_map(|(asked, name)| asked.then_some(name))
    }

    fn device_lists(
        &self,
        confinement: &confinement::Options,
        process: &User,
    ) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>)> {
        let mut rules = if confinement.is_privileged() {
            all_rules()
        } else {
            default_rules()
        };
        let mut nodes: Vec<LinuxDevice> = Vec::new();
        for device in &self.devices {
            let (node, rule) = device.checked(process)?;
            nodes.retain(|known| known.path() != node.path());
            nodes.push(node);
            if !confinement.is_privileged() {
                rules.extend(rule);
            }
        }
        rules.extend(self.rules.iter().cloned());
        Ok((nodes, rules))
    }

    fn memory_limits(&self) -> Result<Option<LinuxMemory>> {
        let mut memory = LinuxMemory::default();
        if let Some(limit) = self.memory {
            if limit < MEMORY_LEAST {
                return Err(Error::option(
                    "memory",
                    limit.to_string(),
                    format!("it is at least {MEMORY_LEAST} bytes"),
                ));
            }
            memory.set_limit(Some(signed("memory", limit)?));
        }
        if let Some(reservation) = self.reservation {
            if self.memory.is_some_and(|limit| reservation > limit) {
                return Err(Error::option(
                    "memory reservation",
                    reservation.to_string(),
                    "it is above the memory limit",
                ));
            }
            memory.set_reservation(Some(signed("memory reservation", reservation)?));
        }
        match (self.swap, self.memory) {
            (None, _) => {}
            (Some(_), None) => return Err(Error::option("memory swap", "", "it needs a memory limit")),
            (Some(SwapLimit::Total(total)), Some(limit)) if total < limit => {
                return Err(Error::option(
                    "memory swap",
                    total.to_string(),
                    "it includes the memory limit and can't be below it",
                ));
            }
            (Some(SwapLimit::Total(total)), Some(_)) => memory.set_swap(Some(signed("memory swap", total)?)).discard(),
            (Some(SwapLimit::Unlimited), Some(_)) => memory.set_swap(Some(-1)).discard(),
        }
        Ok((memory != LinuxMemory::default()).then_some(memory))
    }

    fn cpu_limits(&self) -> Result<Option<LinuxCpu>> {
        let mut cpu = LinuxCpu::default();
        if let Some((quota, period)) = self.cpu_time()? {
            cpu.set_quota(Some(quota));
            cpu.set_period(Some(period));
        }
        if let Some(shares) = self.shares {
            if shares < 2 {
                return Err(Error::option("cpu shares", shares.to_string(), "the least is 2"));
            }
            cpu.set_shares(Some(shares));
        }
        cpu.set_cpus(checked_list("cpuset cpus", self.cpuset.as_deref())?);
        cpu.set_mems(checked_list("cpuset mems", self.mems.as_deref())?);
        Ok((cpu != LinuxCpu::default()).then_some(cpu))
    }

    fn cpu_time(&self) -> Result<Option<(i64, u64)>> {
        let (quota, period) = match (self.cpus, self.quota) {
            (None, None) => return Ok(None),
            (Some(cpus), Some(_)) => {
                return Err(Error::option(
                    "cpus",
                    cpus.to_string(),
                    "it is another way to say the quota; give one of them",
                ));
            }
            (Some(cpus), None) => {
                if !(0.01..=1_000_000.0).contains(&cpus) {
                    return Err(Error::option("cpus", cpus.to_string(), "the least is 0.01"));
                }
                ((cpus * CPU_PERIOD as f64).round() as i64, CPU_PERIOD)
            }
            (None, Some((quota, period))) => (quota, period),
        };
        if !(CPU_LEAST..=CPU_PERIOD_MOST).contains(&period) {
            return Err(Error::option(
                "cpu period",
                period.to_string(),
                "it goes from 1000 to 1000000 microseconds",
            ));
        }
        if quota != -1 && quota < CPU_LEAST as i64 {
            return Err(Error::option(
                "cpu quota",
                quota.to_string(),
                "it is -1, or at least 1000 microseconds",
            ));
        }
        Ok(Some((quota, period)))
    }

    fn pids_limits(&self) -> Result<Option<LinuxPids>> {
        let Some(limit) = self.pids else { return Ok(None) };
        if limit == 0 {
            return Err(Error::option("pids limit", "0", "the least is 1"));
        }
        let mut pids = LinuxPids::default();
        pids.set_limit(i64::from(limit));
        Ok(Some(pids))
    }
}

/// A setter returns the value that it was called on; here that is of no interest.
trait Discard {
    fn discard(self);
}

impl<T> Discard for &mut T {
    fn discard(self) {}
}

fn signed(option: &'static str, bytes: u64) -> Result<i64> {
    i64::try_from(bytes).map_err(|_| Error::option(option, bytes.to_string(), "it is beyond what the kernel counts"))
}

/// A list of numbers and ranges (cpuset(7), "List format").
fn checked_list(option: &'static str, list: Option<&str>) -> Result<Option<String>> {
    let Some(list) = list else { return Ok(None) };
    let number = |text: &str| {
        text.parse::<u32>()
            .ok()
            .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let fits = list.split(',').all(|part| match part.split_once('-') {
        Some((first, last)) => matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last),
        None => number(part).is_some(),
    });
    if fits {
        Ok(Some(list.to_owned()))
    } else {
        Err(Error::option(option, list, "it is a list like 0-3,7"))
    }
}
