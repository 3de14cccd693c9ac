//! The table of what is shown of each container.

use std::time::Duration;

use longshore_runtime::{NetworkStats, Pressure, Stats};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// One figure: how it is named, and how it is read. Its unit is the end of its name.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) unit: Option<Unit>,
    pub(crate) kind: MetricType,
    pub(crate) read: fn(&Stats) -> Option<Value>,
}

/// A whole number where it is one, so that bytes are not rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Whole(u64),
    Real(f64),
}

type Read = fn(&Stats) -> Option<Value>;

fn counter(name: &'static str, unit: Option<Unit>, help: &'static str, read: Read) -> Figure {
    Figure {
        name,
        help,
        unit,
        kind: MetricType::Counter,
        read,
    }
}

fn gauge(name: &'static str, unit: Option<Unit>, help: &'static str, read: Read) -> Figure {
    Figure {
        name,
        help,
        unit,
        kind: MetricType::Gauge,
        read,
    }
}

fn seconds(time: Duration) -> Option<Value> {
    Some(Value::Real(time.as_secs_f64()))
}

fn whole(number: u64) -> Option<Value> {
    Some(Value::Whole(number))
}

fn some(pressure: Option<Pressure>) -> Option<Value> {
    seconds(pressure?.some.total)
}

fn full(pressure: Option<Pressure>) -> Option<Value> {
    seconds(pressure?.full.total)
}

/// Added up over the devices: what devices there are the container decides, so they are no label.
fn devices(stats: &Stats, figure: fn(&NetworkStats) -> u64) -> Option<Value> {
    if stats.network.is_empty() {
        return None;
    }
    whole(stats.network.values().map(figure).fold(0, u64::saturating_add))
}

/// All of them, in the order in which they are shown.
pub(crate) fn figures() -> Vec<Figure> {
    let (time, bytes) = (|| Some(Unit::Seconds), || Some(Unit::Bytes));
    vec![
        counter("cpu", time(), "Processor time used.", |s| {
            seconds(s.cpu.as_ref()?.total)
        }),
        counter("cpu_user", time(), "Processor time used in user mode.", |s| {
            seconds(s.cpu.as_ref()?.user)
        }),
        counter("cpu_system", time(), "Processor time used in the kernel.", |s| {
            seconds(s.cpu.as_ref()?.system)
        }),
        counter("cpu_periods", None, "Periods of the processor quota.", |s| {
            whole(s.cpu.as_ref()?.periods)
        }),
        counter(
            "cpu_throttled_periods",
            None,
            "Periods in which the quota ran out.",
            |s| whole(s.cpu.as_ref()?.throttled_periods),
        ),
        counter(
            "cpu_throttled",
            time(),
            "Time that tasks were held back by the quota.",
            |s| seconds(s.cpu.as_ref()?.throttled),
        ),
        counter(
            "cpu_stalled",
            time(),
            "Time in which some task waited for a processor.",
            |s| some(s.cpu.as_ref()?.pressure),
        ),
        gauge("memory_usage", bytes(), "Memory charged, with page cache.", |s| {
            whole(s.memory.as_ref()?.usage)
        }),
        gauge(
            "memory_working_set",
            bytes(),
            "Memory charged without inactive page cache.",
            |s| whole(s.memory.as_ref()?.working_set),
        ),
        gauge("memory_limit", bytes(), "Memory limit; absent without one.", |s| {
            whole(s.memory.as_ref()?.limit?)
        }),
        gauge("memory_peak", bytes(), "Most memory ever charged.", |s| {
            whole(s.memory.as_ref()?.peak?)
        }),
        gauge("memory_swap", bytes(), "Swap used.", |s| {
            whole(s.memory.as_ref()?.swap?)
        }),
        counter(
            "memory_oom_kills",
            None,
            "Processes killed for the memory limit.",
            |s| whole(s.memory.as_ref()?.oom_kills),
        ),
        counter(
            "memory_stalled",
            time(),
            "Time in which some task waited for memory.",
            |s| some(s.memory.as_ref()?.pressure),
        ),
        counter(
            "memory_stalled_fully",
            time(),
            "Time in which all tasks waited for memory.",
            |s| full(s.memory.as_ref()?.pressure),
        ),
        counter("io_read", bytes(), "Bytes read from block devices.", |s| {
            whole(s.io.as_ref()?.read_bytes)
        }),
        counter("io_written", bytes(), "Bytes written to block devices.", |s| {
            whole(s.io.as_ref()?.write_bytes)
        }),
        counter("io_reads", None, "Reads from block devices.", |s| {
            whole(s.io.as_ref()?.reads)
        }),
        counter("io_writes", None, "Writes to block devices.", |s| {
            whole(s.io.as_ref()?.writes)
        }),
        counter(
            "io_stalled",
            time(),
            "Time in which some task waited for block devices.",
            |s| some(s.io.as_ref()?.pressure),
        ),
        counter(
            "io_stalled_fully",
            time(),
            "Time in which all tasks waited for block devices.",
            |s| full(s.io.as_ref()?.pressure),
        ),
        gauge("pids", None, "Processes and threads.", |s| {
            whole(s.pids.as_ref()?.current)
        }),
        gauge(
            "pids_limit",
            None,
            "Limit of processes and threads; absent without one.",
            |s| whole(s.pids.as_ref()?.limit?),
        ),
        counter(
            "network_received",
            bytes(),
            "Bytes that its network devices received; absent without one but the loopback, and in the host's network.",
            |s| devices(s, |device| device.rx_bytes),
        ),
        counter("network_sent", bytes(), "Bytes that its network devices sent.", |s| {
            devices(s, |device| device.tx_bytes)
        }),
        counter(
            "network_received_packets",
            None,
            "Packets that its network devices received.",
            |s| devices(s, |device| device.rx_packets),
        ),
        counter(
            "network_sent_packets",
            None,
            "Packets that its network devices sent.",
            |s| devices(s, |device| device.tx_packets),
        ),
        counter(
            "network_errors",
            None,
            "Packets that its network devices lost by errors, in either direction.",
            |s| devices(s, |device| device.rx_errors.saturating_add(device.tx_errors)),
        ),
        counter(
            "network_dropped",
            None,
            "Packets that its network devices dropped, in either direction.",
            |s| devices(s, |device| device.rx_dropped.saturating_add(device.tx_dropped)),
        ),
    ]
}
