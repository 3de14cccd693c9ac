//! Rates out of samples whose every figure is known.

use std::time::Duration;

use longshore_metrics::{Sampler, Stalled, Usage};
use longshore_runtime::{
    ContainerId, CpuStats, IoStats, MemoryStats, NetworkStats, PidsStats, Pressure, PressureLine, Stats,
};

fn pressure(average: f64, total: u64) -> Option<Pressure> {
    let some = PressureLine {
        avg10: average,
        total: Duration::from_millis(total),
        ..PressureLine::default()
    };
    let full = PressureLine::default();
    Some(Pressure { some, full })
}

fn network(received: u64, sent: u64) -> NetworkStats {
    let mut network = NetworkStats::default();
    (network.rx_bytes, network.tx_bytes) = (received, sent);
    network
}

/// As v1 tells it: no pressure.
fn v1(cpu: u64, read: u64) -> Stats {
    let (mut cpus, mut memory, mut io, mut pids) = (
        CpuStats::default(),
        MemoryStats::default(),
        IoStats::default(),
        PidsStats::default(),
    );
    cpus.total = Duration::from_millis(cpu);
    (memory.usage, memory.working_set, memory.limit) = (90, 70, Some(100));
    (io.read_bytes, io.write_bytes) = (read, 7);
    (pids.current, pids.limit) = (3, None);
    let mut stats = Stats::now();
    (stats.cpu, stats.memory, stats.io, stats.pids) = (Some(cpus), Some(memory), Some(io), Some(pids));
    stats.network.insert("eth0".to_owned(), network(1000, 10));
    stats.network.insert("eth1".to_owned(), network(24, 1));
    stats
}

/// As v2 does: with pressure.
fn v2(cpu: u64, read: u64, stalled: u64) -> Stats {
    let mut stats = v1(cpu, read);
    stats.cpu.as_mut().expect("there").pressure = pressure(50.0, stalled);
    stats.memory.as_mut().expect("there").pressure = pressure(25.0, 0);
    stats.io.as_mut().expect("there").pressure = pressure(0.0, 0);
    stats
}

fn later(mut stats: Stats, than: &Stats, millis: u64) -> Stats {
    stats.at = than.at + Duration::from_millis(millis);
    stats
}

#[test]
fn of_one_sample_there_are_totals_and_no_rates() {
    let usage = Usage::of(&v1(1500, 4096), None);
    assert_eq!(
        (usage.cpus, usage.memory, usage.memory_limit),
        (None, Some(70), Some(100))
    );
    assert_eq!((usage.pids, usage.pids_limit), (Some(3), None));
    let read = usage.read.expect("told");
    assert_eq!((read.total, read.per_second), (4096, None));
    assert_eq!(usage.received.expect("told").total, 1024, "all devices together");
    assert_eq!(usage.sent.expect("told").total, 11);
    assert_eq!(usage.stalled, Stalled::default(), "v1 does not tell");
    assert_eq!(
        Usage::of(&Stats::now(), None),
        Usage::default(),
        "no controller, no figure"
    );
}

#[test]
fn of_two_samples_there_are_rates() {
    let before = v1(1500, 4096);
    let mut now = later(v1(4500, 5096), &before, 2000);
    now.network.insert("eth0".to_owned(), network(5000, 10));
    let usage = Usage::of(&now, Some(&before));
    assert_eq!(usage.cpus, Some(1.5), "3 s of 2 s");
    assert_eq!(usage.read.expect("told").per_second, Some(500.0));
    assert_eq!(usage.written.expect("told").per_second, Some(0.0));
    assert_eq!(usage.received.expect("told").per_second, Some(2000.0));
    assert_eq!(usage.stalled, Stalled::default(), "v1 does not tell");
}

#[test]
fn pressure_is_of_the_time_between_or_the_kernels_average() {
    let before = v2(0, 0, 1000);
    let first = Usage::of(&before, None).stalled;
    assert_eq!((first.cpu, first.memory, first.io), (Some(0.5), Some(0.25), Some(0.0)));
    let now = Usage::of(&later(v2(0, 0, 1500), &before, 2000), Some(&before)).stalled;
    assert_eq!((now.cpu, now.memory, now.io), (Some(0.25), Some(0.0), Some(0.0)));
}

#[test]
fn a_restart_and_a_clock_that_is_set_back_give_no_rates() {
    let before = v1(1500, 4096);
    let restarted = Usage::of(&later(v1(10, 5), &before, 1000), Some(&before));
    assert_eq!((restarted.cpus, restarted.read.expect("told").per_second), (None, None));
    let mut back = v1(2000, 5000);
    back.at = before.at - Duration::from_secs(3600);
    let usage = Usage::of(&back, Some(&before));
    assert_eq!((usage.cpus, usage.read.expect("told").per_second), (None, None));
    assert_eq!(Usage::of(&before, Some(&before)).cpus, None, "no time passed");
}

#[test]
fn a_sampler_keeps_containers_apart_and_forgets() {
    let (a, b) = (
        ContainerId::new("a").expect("an id"),
        ContainerId::new("b").expect("an id"),
    );
    let mut sampler = Sampler::new();
    let first = v1(0, 0);
    assert_eq!(sampler.observe(&a, first.clone()).cpus, None);
    let second = later(v1(500, 0), &first, 1000);
    assert_eq!(
        sampler.observe(&b, second.clone()).cpus,
        None,
        "another container's sample is no past"
    );
    assert_eq!(sampler.observe(&a, second.clone()).cpus, Some(0.5));
    sampler.retain(|id| *id == b);
    assert_eq!(
        sampler.observe(&a, later(v1(900, 0), &second, 1000)).cpus,
        None,
        "it was forgotten"
    );
}
