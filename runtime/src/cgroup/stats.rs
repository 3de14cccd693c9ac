use std::time::Duration;

use super::control::Cgroup;
use super::group::Group;
use super::host::Home;
use crate::{CpuStats, IoStats, MemoryStats, PidsStats, Pressure, PressureLine, Result, Stats};

/// v1 says "no limit" with the largest number of pages that fits: whatever is above this is none.
const V1_UNLIMITED: u64 = 1 << 60;

/// What `/proc` and v1's `cpuacct.stat` count in (`USER_HZ`, fixed by the kernel's ABI).
const TICKS: u64 = 100;

impl Cgroup {
    /// What the container uses. What no group tells is `None`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::now();
        stats.cpu = self.cpu()?;
        stats.memory = self.memory()?;
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
            return Ok(v1.table("memory.oom_control")?.get("oom_kill"));
        }
        match self.v2_with("memory.events") {
            Some(v2) => Ok(v2.table("memory.events")?.get("oom_kill")),
            None => Ok(0),
        }
    }

    fn v1(&self, controller: &str) -> Option<&Group> {
        self.members
            .iter()
            .find(|m| m.serves(Home::V1, controller))
            .map(|m| &m.group)
    }

    fn v2_with(&self, file: &str) -> Option<&Group> {
        self.members
            .iter()
            .find(|m| m.serves(Home::V2, ""))
            .map(|m| &m.group)
            .filter(|g| g.has(file))
    }

    fn pressure(&self, file: &str) -> Result<Option<Pressure>> {
        match self.v2_with(file) {
            Some(v2) => Ok(v2.read(file)?.and_then(|text| pressure(&text))),
            None => Ok(None),
        }
    }

    fn cpu(&self) -> Result<Option<CpuStats>> {
        let mut cpu = CpuStats::default();
        if let Some(acct) = self.v1("cpuacct") {
            cpu.total = Duration::from_nanos(acct.number("cpuacct.usage")?.unwrap_or(0));
            let times = acct.table("cpuacct.stat")?;
            let ticks = |t: u64| Duration::from_millis(t.saturating_mul(1000 / TICKS));
            (cpu.user, cpu.system) = (ticks(times.get("user")), ticks(times.get("system")));
            if let Some(group) = self.v1("cpu") {
                let times = group.table("cpu.stat")?;
                (cpu.periods, cpu.throttled_periods) = (times.get("nr_periods"), times.get("nr_throttled"));
                cpu.throttled = Duration::from_nanos(times.get("throttled_time"));
            }
        } else if let Some(v2) = self.v2_with("cpu.stat") {
            let times = v2.table("cpu.stat")?;
            let micros = |key| Duration::from_micros(times.get(key));
            (cpu.total, cpu.user, cpu.system) = (micros("usage_usec"), micros("user_usec"), micros("system_usec"));
            (cpu.periods, cpu.throttled_periods) = (times.get("nr_periods"), times.get("nr_throttled"));
            cpu.throttled = micros("throttled_usec");
        } else {
            return Ok(None);
        }
        cpu.pressure = self.pressure("cpu.pressure")?;
        Ok(Some(cpu))
    }

    fn memory(&self) -> Result<Option<MemoryStats>> {
        let mut memory = MemoryStats::default();
        if let Some(v1) = self.v1("memory") {
            memory.usage = v1.number("memory.usage_in_bytes")?.unwrap_or(0);
            let inactive = v1.table("memory.stat")?.get("total_inactive_file");
            memory.working_set = memory.usage.saturating_sub(inactive);
            memory.limit = v1.number("memory.limit_in_bytes")?.filter(|l| *l < V1_UNLIMITED);
            memory.peak = v1.number("memory.max_usage_in_bytes")?;
            let with_swap = v1.number("memory.memsw.usage_in_bytes")?;
            memory.swap = with_swap.map(|all| all.saturating_sub(memory.usage));
        } else if let Some(v2) = self.v2_with("memory.current") {
            memory.usage = v2.number("memory.current")?.unwrap_or(0);
            let inactive = v2.table("memory.stat")?.get("inactive_file");
            memory.working_set = memory.usage.saturating_sub(inactive);
            memory.limit = v2.number("memory.max")?; // `max` is no number.
            memory.peak = v2.number("memory.peak")?;
            memory.swap = v2.number("memory.swap.current")?;
        } else {
            return Ok(None);
        }
        memory.oom_kills = self.oom_kills()?;
        memory.pressure = self.pressure("memory.pressure")?;
        Ok(Some(memory))
    }

    fn io(&self) -> Result<Option<IoStats>> {
        let mut io = IoStats::default();
        if let Some(v1) = self.v1("blkio") {
            let file = |a: &'static str, b: &'static str| if v1.has(a) { a } else { b };
            let bytes = file(
                "blkio.throttle.io_service_bytes_recursive",
                "blkio.io_service_bytes_recursive",
            );
            let calls = file("blkio.throttle.io_serviced_recursive", "blkio.io_serviced_recursive");
            (io.read_bytes, io.write_bytes) = v1_io(&v1.read(bytes)?.unwrap_or_default());
            (io.reads, io.writes) = v1_io(&v1.read(calls)?.unwrap_or_default());
        } else if let Some(v2) = self.v2_with("io.stat") {
            io = v2_io(&v2.read("io.stat")?.unwrap_or_default());
        } else {
            return Ok(None);
        }
        io.pressure = self.pressure("io.pressure")?;
        Ok(Some(io))
    }

    fn pid_counts(&self) -> Result<Option<PidsStats>> {
        let Some(group) = self.v1("pids").or_else(|| self.v2_with("pids.current")) else {
            return Ok(None);
        };
        let (current, limit) = (group.number("pids.current")?.unwrap_or(0), group.number("pids.max")?);
        let mut pids = PidsStats::default();
        (pids.current, pids.limit) = (current, limit);
        Ok(Some(pids))
    }
}

/// A file of `key value` lines.
#[derive(Debug)]
struct Table(String);

impl Table {
    fn get(&self, key: &str) -> u64 {
        let value = self.0.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
        value.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
    }
}

impl Group {
    fn table(&self, file: &str) -> Result<Table> {
        Ok(Table(self.read(file)?.unwrap_or_default()))
    }

    fn number(&self, file: &str) -> Result<Option<u64>> {
        Ok(self.read(file)?.and_then(|text| text.trim().parse().ok()))
    }
}

/// Sums of reads and writes over all devices: lines of `8:0 Read 4096`.
fn v1_io(text: &str) -> (u64, u64) {
    let (mut reads, mut writes) = (0u64, 0u64);
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [_, what, number] = words[..]
            && let Ok(number) = number.parse::<u64>()
        {
            match what {
                "Read" => reads = reads.saturating_add(number),
                "Write" => writes = writes.saturating_add(number),
                _ => {}
            }
        }
    }
    (reads, writes)
}

/// Sums over all devices: lines of `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 ...`.
fn v2_io(text: &str) -> IoStats {
    let mut io = IoStats::default();
    for word in text.split_ascii_whitespace() {
        let Some((key, number)) = word
            .split_once('=')
            .and_then(|(k, n)| Some((k, n.parse::<u64>().ok()?)))
        else {
            continue;
        };
        let sum = match key {
            "rbytes" => &mut io.read_bytes,
            "wbytes" => &mut io.write_bytes,
            "rios" => &mut io.reads,
            "wios" => &mut io.writes,
            _ => continue,
        };
        *sum = sum.saturating_add(number);
    }
    io
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
fn pressure(text: &str) -> Option<Pressure> {
    let line = |kind: &str| {
        let words = text.lines().find_map(|l| l.strip_prefix(kind))?;
        let value = |key: &str| {
            words
                .split_ascii_whitespace()
                .find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
        };
        let share = |key| value(key)?.parse::<f64>().ok();
        Some(PressureLine {
            avg10: share("avg10")?,
            avg60: share("avg60")?,
            avg300: share("avg300")?,
            total: Duration::from_micros(value("total")?.parse().ok()?),
        })
    };
    // Older kernels have no `full` line for the processor.
    Some(Pressure {
        some: line("some ")?,
        full: line("full ").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_files_are_read() {
        let text =
            "some avg10=1.50 avg60=0.00 avg300=0.25 total=2500\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let both = pressure(text).expect("valid");
        assert_eq!(both.some.avg10, 1.5);
        assert_eq!(both.some.total, Duration::from_micros(2500));
        assert_eq!(both.full.total, Duration::from_micros(7));
        assert_eq!(
            pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=1")
                .expect("valid")
                .full,
            PressureLine::default()
        );
        for odd in [
            "",
            "some",
            "some avg10=x avg60=0 avg300=0 total=0",
            "full avg10=0 avg60=0 avg300=0 total=0",
        ] {
            assert_eq!(pressure(odd), None, "{odd}");
        }
    }

    #[test]
    fn devices_are_summed() {
        assert_eq!(
            v1_io("8:0 Read 4096\n8:0 Write 1\n8:0 Sync 9\n8:16 Read 4\n8:16 Total 5\nTotal 99\n"),
            (4100, 1)
        );
        let io = v2_io("8:0 rbytes=10 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:16 rbytes=1 wios=1 odd rbytes=x\n");
        assert_eq!((io.read_bytes, io.write_bytes, io.reads, io.writes), (11, 2, 3, 5));
    }

    #[test]
    fn tables_want_the_whole_key() {
        let table = Table("oom_kill_disable 1\noom_kill 3\nodd\n".into());
        assert_eq!(table.get("oom_kill"), 3);
        assert_eq!(table.get("under_oom"), 0);
    }
}
