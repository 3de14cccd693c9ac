//! What the figures say, in both formats, and the table of them.

use std::fmt::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use longshore_events::{Bus, Event, EventKind, EventSink, Journal, JournalOptions, conformance};
use longshore_metrics::{
    Collection, ContainerMetrics, Ingest, MAX_REGISTRIES, Metrics, Outcome, Pull, Registry, Sampled, Unpack, encode,
    encode_prometheus, register_bus, register_journal,
};
use longshore_runtime::{CpuStats, IoStats, MemoryStats, NetworkStats, PidsStats, Pressure, Stats, Status};

fn pull(registry: &str) -> Pull<'_> {
    let outcome = Outcome::Success;
    Pull {
        registry,
        outcome,
        fetched_bytes: 10,
        cached_bytes: 5,
        retries: 2,
        took: Duration::from_millis(3),
    }
}

/// Figures of which every part is known.
fn full_stats() -> Stats {
    let pressure = Some(Pressure::default());
    let mut cpu = CpuStats::default();
    (cpu.total, cpu.pressure) = (Duration::from_millis(1500), pressure);
    let mut memory = MemoryStats::default();
    (memory.usage, memory.limit, memory.peak, memory.swap, memory.pressure) =
        (u64::MAX, Some(1 << 30), Some(7), Some(0), pressure);
    let mut io = IoStats::default();
    io.pressure = pressure;
    let mut pids = PidsStats::default();
    (pids.current, pids.limit) = (3, Some(100));
    let mut stats = Stats::now();
    (stats.cpu, stats.memory, stats.io, stats.pids) = (Some(cpu), Some(memory), Some(io), Some(pids));
    let mut network = NetworkStats::default();
    (network.rx_bytes, network.tx_bytes) = (9, 8);
    stats.network = [("eth0".to_owned(), network), ("eth1".to_owned(), network)].into();
    stats
}

/// A registry in which everything has a value.
fn everything() -> Registry {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let containers = ContainerMetrics::register(&mut registry, 10);
    register_bus(&mut registry, Bus::new(1));
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(folder.path(), JournalOptions::default()).expect("a journal");
    register_journal(&mut registry, Arc::new(journal));
    for kind in conformance::every_kind() {
        metrics.emit(Event::now("default", kind));
    }
    let (outcome, took) = (Outcome::Failure, Duration::from_millis(20));
    metrics.pulled(&pull("docker.io"));
    metrics.ingested(&Ingest {
        outcome,
        bytes: 1,
        took,
    });
    metrics.unpacked(&Unpack {
        outcome,
        bytes: 1,
        took,
    });
    metrics.verified(3, 1, 100);
    metrics.repaired(1, 0);
    metrics.created(outcome, took);
    metrics.started(outcome, took);
    metrics.executed(outcome, took);
    metrics.restarted(outcome);
    metrics.health_checked(outcome);
    metrics.collected(&Collection {
        outcome,
        removed: 1,
        freed_bytes: 2,
        took,
        longest_pause: took,
    });
    containers.observe("default", "with \"quotes\"\\ and\nlines", full_stats());
    registry
}

fn exit(id: &str, exit_status: u32) -> Event {
    let kind = EventKind::TaskExit {
        container_id: "demo".into(),
        id: id.into(),
        pid: 1,
        exit_status,
        exited_at: SystemTime::UNIX_EPOCH,
    };
    Event::now("default", kind)
}

#[track_caller]
fn says(registry: &Registry, line: &str) {
    let text = encode(registry).expect("encode");
    assert!(text.lines().any(|l| l == line), "no line '{line}' in\n{text}");
}

#[test]
fn metrics_conform_as_a_sink() {
    let sink: Arc<dyn EventSink> = Arc::new(Metrics::register(&mut Registry::default()));
    conformance::event_sink(&sink);
}

#[test]
fn containers_are_counted_by_state_and_exit() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let emit = |kind| metrics.emit(Event::now("default", kind));
    emit(EventKind::TaskCreate {
        container_id: "demo".into(),
        bundle: "/b".into(),
        pid: 1,
    });
    says(&registry, r#"longshore_containers{state="created"} 1"#);
    emit(EventKind::TaskStart {
        container_id: "demo".into(),
        pid: 1,
    });
    metrics.emit(exit("exec", 1));
    says(&registry, r#"longshore_containers{state="created"} 0"#);
    says(&registry, r#"longshore_containers{state="running"} 1"#);
    metrics.emit(exit("demo", 137));
    says(&registry, r#"longshore_container_exits_total{status="signal"} 1"#);
    says(&registry, r#"longshore_containers{state="stopped"} 1"#);
    emit(EventKind::TaskDelete {
        container_id: "demo".into(),
        pid: 1,
        exit_status: 137,
        exited_at: SystemTime::UNIX_EPOCH,
    });
    says(&registry, r#"longshore_containers{state="stopped"} 0"#);
    says(&registry, r#"longshore_events_total{topic="/tasks/exit"} 2"#);
    metrics.container_state("other", "demo", Some(Status::Running));
    says(&registry, r#"longshore_containers{state="running"} 1"#);
    metrics.retain_states(|namespace, _| namespace == "other");
    says(&registry, r#"longshore_containers{state="running"} 1"#);
    metrics.retain_states(|_, _| false);
    says(&registry, r#"longshore_containers{state="running"} 0"#);
}

#[test]
fn labels_are_bounded() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    (0..MAX_REGISTRIES + 10).for_each(|number| metrics.pulled(&pull(&format!("r{number}.example"))));
    says(&registry, r#"longshore_pull_bytes_total{registry="other"} 100"#);
    says(&registry, r#"longshore_pull_retries_total{registry="other"} 20"#);
    says(&registry, r#"longshore_pull_bytes_total{registry="r0.example"} 10"#);
}

#[test]
fn containers_are_bounded_and_forgotten() {
    let mut registry = Registry::default();
    let containers = ContainerMetrics::register(&mut registry, 2);
    for id in ["a", "b"] {
        assert_eq!(containers.observe("ns", id, full_stats()), Sampled::Kept);
    }
    assert_eq!(containers.observe("ns", "c", full_stats()), Sampled::Dropped);
    assert_eq!(containers.observe("ns", "a", full_stats()), Sampled::Kept);
    says(&registry, "longshore_container_samples_dropped_total 1");
    says(
        &registry,
        r#"longshore_container_cpu_seconds_total{container_id="a",namespace="ns"} 1.5"#,
    );
    says(
        &registry,
        r#"longshore_container_memory_usage_bytes{container_id="b",namespace="ns"} 18446744073709551615"#,
    );
    // How many devices there are the container decides; it gets no more series by them.
    says(
        &registry,
        r#"longshore_container_network_received_bytes_total{container_id="a",namespace="ns"} 18"#,
    );
    containers.forget("ns", "a");
    assert_eq!(containers.observe("ns", "c", Stats::now()), Sampled::Kept);
    containers.retain(|_, id| id == "c");
    assert!(
        !encode(&registry).expect("encode").contains("container_id"),
        "what is not known is not shown"
    );
}

#[test]
fn the_table_in_the_docs_is_true() {
    let text = encode_prometheus(&everything()).expect("encode");
    let mut table = "# Metrics\n\nGenerated by this crate's tests from what it exports (`BLESS=1 cargo test -p longshore-metrics` writes it anew).\n\n\
        | name | type | meaning | labels |\n|---|---|---|---|\n"
        .to_owned();
    let mut help = "";
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').expect("a help text").1;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let sample = lines.peek().expect("a sample");
            let labels: Vec<_> = sample
                .split(['{', ','])
                .skip(1)
                .filter_map(|part| Some(part.split_once("=\"")?.0))
                .filter(|label| *label != "le")
                .map(|label| format!("`{label}`"))
                .collect();
            writeln!(table, "| `{name}` | {kind} | {help} | {} |", labels.join(", "))
                .expect("a string takes everything");
        }
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/METRICS.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(file, &table).expect("write the table");
    }
    assert_eq!(
        std::fs::read_to_string(file).unwrap_or_default(),
        table,
        "METRICS.md is not up to date; run with BLESS=1"
    );
}

#[test]
fn promtool_finds_nothing_to_say() {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        longshore_testing::skip("promtool is not installed (Debian's package prometheus has it)");
        return;
    };
    let text = encode_prometheus(&everything()).expect("encode");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), text.as_bytes()).expect("feed promtool");
    let output = child.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
}
