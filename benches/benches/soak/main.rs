//! The whole engine for a long time: containers start, run others' processes, are paused, end and are deleted, images are pulled, removed and collected, in random order and several at
//! once. Each minute all containers end and the program looks at itself: memory, descriptors, threads. In the end it judges whether these have grown.
//!
//! `cargo bench -p longshore-benches --bench soak -- 30m` (or `90s`, `2h`); needs root.

mod figures;
mod random;
mod work;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use longshore::Engine;
use longshore::events::{EventSink, Journal, JournalOptions};
use longshore_examples::quickstart::serve_host_image;
use longshore_testing::{Leftovers, require_root};

use figures::Figures;
use random::Random;
use work::{Tally, Worker};

/// How many do things at once.
const WORKERS: u64 = 4;
/// The time between two looks.
const ROUND: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if let Err(why) = require_root() {
        println!("SKIPPED: {why}");
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let Some(time) = words
        .first()
        .map_or(Some(Duration::from_secs(120)), |word| duration(word))
    else {
        println!("'{}' is no time; write 30m, 90s or 2h", words[0]);
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    match runtime.expect("a runtime").block_on(soak(time)) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn duration(word: &str) -> Option<Duration> {
    let (number, unit) = word.split_at_checked(word.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_secs(number * seconds))
}

/// Whether all stayed as it was.
async fn soak(time: Duration) -> bool {
    let folder = tempfile::Builder::new()
        .prefix("longshore-soak")
        .tempdir()
        .expect("a folder");
    let registry = serve_host_image().await.expect("a registry");
    let name = format!("{}/demo/host:latest", registry.host());
    let options = JournalOptions::default().file_bytes(1 << 20).keep_bytes(4 << 20);
    let journal = Arc::new(Journal::open(folder.path().join("events"), options).expect("a journal"));
    let engine = Engine {
        sinks: vec![journal.clone() as Arc<dyn EventSink>],
        ..Engine::open(folder.path().join("root")).await.expect("an engine")
    };
    let seed = u64::from(std::process::id());
    println!("seed {seed}, {WORKERS} workers, {} s", time.as_secs());
    let mut workers: Vec<Worker> = (0..WORKERS)
        .map(|number| Worker::new(number, engine.clone(), name.clone(), Random::new(seed ^ (number << 32))))
        .collect();

    let (begun, mut total, mut looks) = (Instant::now(), Tally::default(), Vec::new());
    let marker = format!("/longshore-soak/{seed}-");
    let before = Leftovers::now(&marker);
    let round = ROUND.min(time / 10);
    while begun.elapsed() < time {
        let (worked, tally) = work_for(round, workers).await;
        workers = worked;
        total += tally;
        registry.clear_requests();
        journal.flush().expect("a journal that writes");
        looks.push(Figures::now());
        println!(
            "{:>6} s  {}  {total}",
            begun.elapsed().as_secs(),
            looks[looks.len() - 1]
        );
    }
    engine.collect().await.expect("a last collection");
    let left = before.since(&marker);
    left.iter().for_each(|left| println!("left behind: {left}"));
    let containers = engine.containers().await.expect("a list").len();
    println!("{containers} containers left, {} errors", total.errors.len());
    total
        .errors
        .iter()
        .for_each(|(error, count)| println!("{count} x {error}"));
    let flat = figures::judge(&looks);
    flat && left.is_empty() && containers == 0 && total.errors.is_empty()
}

/// Lets all of them work for a while, and then end what they have running.
async fn work_for(time: Duration, workers: Vec<Worker>) -> (Vec<Worker>, Tally) {
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = workers.into_iter().map(|mut worker| {
        let stop = stop.clone();
        tokio::spawn(async move {
            let mut tally = Tally::default();
            while !stop.load(Ordering::Relaxed) {
                worker.step(&mut tally).await;
            }
            worker.end_all(&mut tally).await;
            (worker, tally)
        })
    });
    let tasks: Vec<_> = tasks.collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let (mut workers, mut total) = (Vec::new(), Tally::default());
    for task in tasks {
        let (worker, tally) = task.await.expect("a worker that does not panic");
        workers.push(worker);
        total += tally;
    }
    (workers, total)
}

/// What was done, by name.
type Counts = BTreeMap<&'static str, u64>;
