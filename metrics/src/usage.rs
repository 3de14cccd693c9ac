//! Rates out of samples: what `docker stats` and `top` show.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_runtime::{ContainerId, ErrorKind, Executor, Pressure, Result, Stats, Status};

/// A number that only grows, and how fast it grew since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Flow {
    /// All there ever was.
    pub total: u64,
    /// In a second; `None` when there was no sample before, or the container was restarted in between.
    pub per_second: Option<f64>,
}

/// The part of the time, from 0 to 1, in which some task of a container waited for a resource. `None` where the kernel does not tell: on v1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stalled {
    /// For a processor.
    pub cpu: Option<f64>,
    /// For memory.
    pub memory: Option<f64>,
    /// For block devices.
    pub io: Option<f64>,
}

/// What a container uses. What no controller tells is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// Processors in use: 1.5 is one and a half. `None` when there was no sample before, or the container was restarted in between.
    pub cpus: Option<f64>,
    /// Bytes of memory without inactive page cache.
    pub memory: Option<u64>,
    /// `None` is no limit.
    pub memory_limit: Option<u64>,
    /// Bytes read from block devices.
    pub read: Option<Flow>,
    /// Bytes written to block devices.
    pub written: Option<Flow>,
    /// Bytes received by all network devices but the loopback.
    pub received: Option<Flow>,
    /// Bytes sent by them.
    pub sent: Option<Flow>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// `None` is no limit.
    pub pids_limit: Option<u64>,
    /// Pressure: since the sample before, or without one the kernel's average of ten seconds.
    pub stalled: Stalled,
}

impl Usage {
    /// What `now` tells, with rates since `before`: an older sample of the same container.
    ///
    /// ```
    /// use std::time::Duration;
    /// use longshore_metrics::Usage;
    /// use longshore_runtime::{CpuStats, Stats};
    ///
    /// let mut before = Stats::now();
    /// before.cpu = Some(CpuStats::default());
    /// let mut now = before.clone();
    /// now.at += Duration::from_secs(2);
    /// now.cpu.get_or_insert_default().total = Duration::from_secs(3);
    /// assert_eq!(Usage::of(&now, Some(&before)).cpus, Some(1.5));
    /// assert_eq!(Usage::of(&now, None).cpus, None);
    /// ```
    pub fn of(now: &Stats, before: Option<&Stats>) -> Self {
        let since = Since {
            before,
            elapsed: before.and_then(|before| now.at.duration_since(before.at).ok()),
        };
        let memory = now.memory.as_ref();
        Self {
            cpus: since.share(now, |stats| Some(stats.cpu.as_ref()?.total)),
            memory: memory.map(|memory| memory.working_set),
            memory_limit: memory.and_then(|memory| memory.limit),
            read: since.flow(now, |stats| Some(stats.io.as_ref()?.read_bytes)),
            written: since.flow(now, |stats| Some(stats.io.as_ref()?.write_bytes)),
            received: since.flow(now, |stats| devices(stats, |device| device.rx_bytes)),
            sent: since.flow(now, |stats| devices(stats, |device| device.tx_bytes)),
            pids: now.pids.as_ref().map(|pids| pids.current),
            pids_limit: now.pids.as_ref().and_then(|pids| pids.limit),
            stalled: Stalled {
                cpu: since.stalled(now, |stats| stats.cpu.as_ref()?.pressure),
                memory: since.stalled(now, |stats| stats.memory.as_ref()?.pressure),
                io: since.stalled(now, |stats| stats.io.as_ref()?.pressure),
            },
        }
    }
}

fn devices(stats: &Stats, figure: fn(&longshore_runtime::NetworkStats) -> u64) -> Option<u64> {
    let devices = (!stats.network.is_empty()).then_some(&stats.network)?;
    Some(devices.values().map(figure).fold(0, u64::saturating_add))
}

/// The sample before, and how long ago it was; no time has passed when the clock was set back.
#[derive(Clone, Copy)]
struct Since<'a> {
    before: Option<&'a Stats>,
    elapsed: Option<Duration>,
}

impl Since<'_> {
    /// How much of the time went into what `read` tells. A figure that shrank began anew.
    fn share(self, now: &Stats, read: impl Fn(&Stats) -> Option<Duration>) -> Option<f64> {
        let grown = read(now)?.checked_sub(read(self.before?)?)?;
        self.per_second(grown.as_secs_f64())
    }

    fn flow(self, now: &Stats, read: impl Fn(&Stats) -> Option<u64>) -> Option<Flow> {
        let total = read(now)?;
        let grown = self.before.and_then(read).and_then(|before| total.checked_sub(before));
        Some(Flow {
            total,
            per_second: grown.and_then(|grown| self.per_second(grown as f64)),
        })
    }

    fn stalled(self, now: &Stats, read: impl Fn(&Stats) -> Option<Pressure>) -> Option<f64> {
        let average = read(now)?.some.avg10 / 100.0;
        let since = self.share(now, |stats| Some(read(stats)?.some.total));
        Some(since.unwrap_or(average).clamp(0.0, 1.0))
    }

    fn per_second(self, grown: f64) -> Option<f64> {
        let elapsed = self.elapsed.filter(|elapsed| !elapsed.is_zero())?;
        Some(grown / elapsed.as_secs_f64())
    }
}

/// Samples containers, and remembers the last sample of each for the rates of the next.
#[derive(Debug, Default)]
pub struct Sampler {
    before: BTreeMap<ContainerId, Stats>,
}

impl Sampler {
    /// One that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a container uses by a sample that was just taken.
    pub fn observe(&mut self, id: &ContainerId, stats: Stats) -> Usage {
        let usage = Usage::of(&stats, self.before.get(id));
        self.before.insert(id.clone(), stats);
        usage
    }

    /// Forgets all containers for which `keep` does not hold.
    pub fn retain(&mut self, keep: impl Fn(&ContainerId) -> bool) {
        self.before.retain(|id, _| keep(id));
    }

    /// What each running or paused container of an executor uses, by id. One that ends meanwhile is left out.
    ///
    /// # Errors
    /// When the containers can't be listed, or the figures of one that lives can't be read.
    pub async fn sample(&mut self, executor: &dyn Executor) -> Result<BTreeMap<ContainerId, Usage>> {
        let mut usage = BTreeMap::new();
        let states = executor.list().await?.into_iter();
        let alive = states.filter(|state| matches!(state.status, Status::Running | Status::Paused));
        let alive: Vec<ContainerId> = alive.map(|state| state.id).collect();
        for (id, stats) in alive.iter().zip(executor.sample(&alive).await) {
            match stats {
                Ok(stats) => drop(usage.insert(id.clone(), self.observe(id, stats))),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::FailedPrecondition) => {}
                Err(error) => match executor.state(id).await {
                    Ok(now) if now.status != Status::Stopped => return Err(error),
                    _ => {}
                },
            }
        }
        self.retain(|id| usage.contains_key(id));
        Ok(usage)
    }
}
