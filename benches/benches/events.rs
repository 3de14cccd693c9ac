//! How many events a second the bus takes, and what an emit costs whoever emits, by what its subscribers do. Prints a table; each figure is the middle one of five runs.
//!
//! `cargo bench -p longshore-benches --bench events`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use longshore::events::{Bus, Event, EventKind, EventSink, Filter, Journal, JournalOptions, Received, Waited};

const SUBSCRIBERS: usize = 8;
const RUNS: usize = 5;
/// One of so many emits is timed by itself: asking the clock costs as much as an emit.
const TIMED: u32 = 64;

fn event() -> Event {
    let kind = EventKind::TaskStart {
        container_id: "web-0123456789abcdef".to_owned(),
        pid: 4711,
    };
    Event::now("default", kind).by("longshore[1] of uid 0")
}

/// What one run showed.
#[derive(Clone, Copy, Debug)]
struct Run {
    per_second: f64,
    p99: Duration,
    received: u64,
    missed: u64,
}

/// Emits so many events as fast as it goes, or so many a second.
fn emit(sink: &dyn EventSink, events: u32, per_second: Option<u32>) -> (f64, Duration) {
    let event = event();
    let (begun, mut times) = (Instant::now(), Vec::new());
    for number in 0..events {
        if let Some(rate) = per_second.filter(|_| number % 100 == 0) {
            let due = Duration::from_secs(1) * number / rate;
            while begun.elapsed() < due {
                thread::yield_now();
            }
        }
        let event = event.clone();
        if number % TIMED == 0 {
            let one = Instant::now();
            sink.emit(event);
            times.push(one.elapsed());
        } else {
            sink.emit(event);
        }
    }
    let took = begun.elapsed();
    times.sort_unstable();
    (f64::from(events) / took.as_secs_f64(), times[times.len() * 99 / 100])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscribers {
    None,
    /// Each on a thread of its own.
    Reading,
    /// They have subscribed and never read.
    Stalled,
    /// They want other events.
    Elsewhere,
}

fn run(subscribers: Subscribers, events: u32, per_second: Option<u32>) -> Run {
    let bus = Bus::new(4096);
    let (counted, counts) = mpsc::channel();
    let end = Arc::new(AtomicBool::new(false));
    let filter = match subscribers {
        Subscribers::Elsewhere => Filter::all().topic("/images/"),
        _ => Filter::all(),
    };
    let wanted = if subscribers == Subscribers::None {
        0
    } else {
        SUBSCRIBERS
    };
    let subscriptions: Vec<_> = (0..wanted).map(|_| bus.subscribe(filter.clone())).collect();
    let mut stalled = Vec::new();
    for mut subscription in subscriptions {
        if subscribers != Subscribers::Reading {
            stalled.push(subscription);
            continue;
        }
        let (counted, end) = (counted.clone(), end.clone());
        thread::spawn(move || {
            let (mut received, mut missed) = (0u64, 0u64);
            loop {
                match subscription.recv_timeout(Duration::from_millis(50)) {
                    Waited::Received(Received::Missed(count)) => missed += count,
                    Waited::Received(_) => received += 1,
                    _ if end.load(Ordering::Acquire) => break,
                    _ => {}
                }
            }
            counted.send((received, missed)).expect("somebody counts");
        });
    }
    drop(counted);
    let (rate, p99) = emit(&bus, events, per_second);
    end.store(true, Ordering::Release);
    let (received, missed) = counts.iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    Run {
        per_second: rate,
        p99,
        received,
        missed,
    }
}

fn row(name: &str, run: impl Fn() -> Run) {
    let mut runs: Vec<Run> = (0..RUNS).map(|_| run()).collect();
    runs.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    let Run {
        per_second,
        p99,
        received,
        missed,
    } = runs[RUNS / 2];
    let (rate, of) = (per_second / 1e6, received + missed);
    println!("{name:<50} {rate:>6.2} M/s   emit p99 {p99:>10.1?}   read {received} of {of}");
}

fn main() {
    let events = 2_000_000;
    row("nobody listens", || run(Subscribers::None, events, None));
    row("8 subscribers of other topics", || {
        run(Subscribers::Elsewhere, events, None)
    });
    row("8 subscribers that do not read", || {
        run(Subscribers::Stalled, events, None)
    });
    row("8 subscribers that read", || run(Subscribers::Reading, events, None));
    row("8 subscribers that read, 1 M/s asked for", || {
        run(Subscribers::Reading, events, Some(1_000_000))
    });
    row("the journal", || {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(folder.path(), JournalOptions::default()).expect("a journal");
        let (per_second, p99) = emit(&journal, 200_000, None);
        journal.flush().expect("written");
        let stats = journal.stats();
        Run {
            per_second,
            p99,
            received: stats.written,
            missed: stats.missed,
        }
    });
}
