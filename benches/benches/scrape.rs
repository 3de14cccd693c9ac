//! A scrape of an engine with many running containers, and what they cost this program: memory, descriptors, threads. Needs root.
//!
//! `cargo bench -p longshore-benches --bench scrape -- 1000`.

use std::fs;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use longshore::metrics::Sampler;
use longshore::{Container, DeleteMode, Engine, Io, Lifetime};
use longshore_examples::quickstart::serve_host_image;
use longshore_testing::require_root;
use rustix::process::{Resource, getrlimit, setrlimit};

/// How many are made or ended at once.
const AT_ONCE: usize = 4;

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0)
}

fn entries(path: &str) -> usize {
    fs::read_dir(path).map_or(0, |entries| entries.count())
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    if let Err(why) = require_root() {
        println!("SKIPPED: {why}");
        return;
    }
    // Each container takes a descriptor or two.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the hard limit");
    let many = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(1000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(scrape(many));
}

async fn scrape(many: usize) {
    let folder = tempfile::Builder::new()
        .prefix("longshore-scrape")
        .tempdir()
        .expect("a folder");
    let registry = serve_host_image().await.expect("a registry");
    let engine = Engine::open(folder.path()).await.expect("an engine");
    let name = format!("{}/demo/host:latest", registry.host());
    let image = &engine.pull(name).await.expect("pulled");
    drop(registry);

    let make = async |number: usize| {
        let builder = engine
            .container(format!("c{number}"))
            .image(image)
            .args(["/bin/sleep", "100000"]);
        let builder = builder.spec(|spec| spec.memory(64 << 20).pids_limit(32));
        let container = builder
            .io(Io::null())
            .lifetime(Lifetime::Detached)
            .create()
            .await
            .expect("created");
        container.start().await.expect("started");
        container
    };
    // What the first ones make grow is there once.
    let mut containers: Vec<Container> = stream::iter(0..20.min(many)).then(&make).collect().await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    let before = (resident(), entries("/proc/self/fd"), entries("/proc/self/task"));
    let begun = Instant::now();
    let rest = stream::iter(containers.len()..many)
        .map(&make)
        .buffer_unordered(AT_ONCE);
    containers.extend(rest.collect::<Vec<_>>().await);
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(11)).await;
    let more = (many - 20.min(many)).max(1);
    println!(
        "{many} containers; {:.0} created and started a second",
        more as f64 / took.as_secs_f64()
    );
    let kib = (resident() - before.0) as f64 / more as f64;
    let descriptors = (entries("/proc/self/fd") - before.1) as f64 / more as f64;
    println!("resident for each                 {kib:>8.1} KiB   (wanted: under 16)");
    println!("descriptors for each              {descriptors:>8.1}");
    println!(
        "threads                           {:>8} more",
        entries("/proc/self/task").saturating_sub(before.2)
    );

    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..7 {
        let begun = Instant::now();
        bytes = engine.metrics().await.expect("metrics").len();
        times.push(begun.elapsed());
    }
    println!(
        "scrape                            {:>8.1?}       (wanted: under 150 ms for 1,000)   {bytes} bytes",
        middle(times)
    );
    let mut times = Vec::new();
    for _ in 0..7 {
        let begun = Instant::now();
        engine.senses.text();
        times.push(begun.elapsed());
    }
    println!("  of which writing the text       {:>8.1?}", middle(times));
    let (mut sampler, mut times) = (Sampler::new(), Vec::new());
    for _ in 0..7 {
        let begun = Instant::now();
        sampler.sample(&*engine.executor).await.expect("sampled");
        times.push(begun.elapsed());
    }
    println!("one look of `top`                 {:>8.1?}", middle(times));

    let ends = stream::iter(&containers).map(async |container| {
        container.delete(DeleteMode::Force).await.expect("deleted");
    });
    ends.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}
