//! Many containers alive at once, each supervised: how fast they start, what each costs this program, and how soon a program that is started anew finds them. Needs root.
//!
//! `cargo bench -p longshore-benches --bench supervised -- 1000`.

#[path = "../executor/bundle.rs"]
#[allow(dead_code)] // another bench's, which uses more of it
mod bundle;
mod crun;
mod heap;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use longshore::runtime::{Executor, LinuxExecutor};
use longshore::{Container, DeleteMode, Engine, Io, Lifetime, RestartPolicy, Status, Supervision};
use longshore_examples::quickstart::serve_host_image;
use longshore_testing::require_root;
use rustix::process::{Resource, getrlimit, setrlimit};

use heap::{Counting, Heap};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many are made or ended at once.
const AT_ONCE: usize = 4;
/// How many there are before anything is measured: what the first ones make grow is there once.
const WARM: usize = 20;

/// Resident memory in KiB, by kind.
fn resident(process: &str, kind: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0)
}

fn entries(path: &str) -> usize {
    fs::read_dir(path).map_or(0, |entries| entries.count())
}

fn at(times: &[Duration], hundredth: usize) -> Duration {
    times[(times.len() * hundredth / 100).min(times.len() - 1)]
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    at(&times, 50)
}

fn main() {
    if let Err(why) = require_root() {
        println!("SKIPPED: {why}");
        return;
    }
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the hard limit");
    let words: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if let Some(place) = words.iter().position(|word| word == "found") {
        return runtime.block_on(found(Path::new(&words[place + 1])));
    }
    let many = words.iter().find_map(|word| word.parse().ok()).unwrap_or(1000);
    runtime.block_on(supervise(many));
    match crun::rate(many, AT_ONCE) {
        Some(rate) => println!("crun in a shell, as many at once   {rate:>7.0} a second"),
        None => println!("crun in a shell                    not here"),
    }
}

/// One container, started, and how long that took.
async fn start(engine: &Engine, image: &longshore::Image, number: usize) -> (Container, Duration) {
    let begun = Instant::now();
    let builder = engine
        .container(format!("c{number}"))
        .image(image)
        .args(["/bin/sleep", "100000"]);
    let builder = builder.spec(|spec| spec.memory(64 << 20).pids_limit(32));
    let builder = builder.restart_policy(RestartPolicy::Always);
    let created = builder.io(Io::null()).lifetime(Lifetime::Detached).create().await;
    let container = created.expect("created");
    container.start().await.expect("started");
    (container, begun.elapsed())
}

fn watch(containers: Vec<(Container, Duration)>) -> (Vec<Supervision>, Vec<Duration>) {
    let each = containers.into_iter();
    each.map(|(container, took)| (container.supervise(Io::null), took))
        .unzip()
}

async fn supervise(many: usize) {
    let folder = tempfile::Builder::new().prefix("longshore-supervised").tempdir();
    let folder = folder.expect("a folder");
    let registry = serve_host_image().await.expect("a registry");
    let engine = Engine::open(folder.path()).await.expect("an engine");
    let name = format!("{}/demo/host:latest", registry.host());
    let image = engine.pull(name).await.expect("pulled");
    drop(registry);

    let warm = stream::iter(0..WARM.min(many)).then(|number| start(&engine, &image, number));
    let (mut supervised, _) = watch(warm.collect().await);
    engine.metrics().await.expect("metrics");
    // Threads that nothing keeps busy end.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let before = (Heap::now(), resident("self", "RssAnon"), entries("/proc/self/fd"));

    let begun = Instant::now();
    let numbers = stream::iter(supervised.len()..many);
    let started = numbers.map(|number| start(&engine, &image, number));
    let (rest, mut times) = watch(started.buffer_unordered(AT_ONCE).collect().await);
    let took = begun.elapsed();
    supervised.extend(rest);
    times.sort_unstable();
    tokio::time::sleep(Duration::from_secs(11)).await;
    let more = times.len();
    println!(
        "{many} containers supervised        {:>7.0} a second, {AT_ONCE} at once; p50 {:.1?}, p99 {:.1?}",
        more as f64 / took.as_secs_f64(),
        at(&times, 50),
        at(&times, 99)
    );
    tell_cost("for each", more, &before);

    let mut scrapes = Vec::new();
    for _ in 0..7 {
        let begun = Instant::now();
        engine.metrics().await.expect("metrics");
        scrapes.push(begun.elapsed());
    }
    println!(
        "scrape of all                      {:>9.1?}   (wanted: under 150 ms for 1,000)",
        middle(scrapes)
    );
    tell_cost("for each, after scrapes", more, &before);
    tell_monitors();

    let containers: Vec<Container> = supervised.iter().map(|s| s.container().clone()).collect();
    drop(supervised);
    let state = folder.path().join("state");
    let this = std::env::current_exe().expect("this program");
    let again = Command::new(this).arg("found").arg(&state).status();
    assert!(again.expect("it starts again").success(), "found");

    let ends = stream::iter(&containers).map(async |container| {
        container.delete(DeleteMode::Force).await.expect("deleted");
    });
    ends.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

fn tell_cost(what: &str, many: usize, before: &(Heap, u64, usize)) {
    let (heap, anonymous, descriptors) = before;
    let now = Heap::now();
    println!(
        "{what:<24} resident {:>7.1} KiB   (wanted: under 16), heap {:.1} KiB, {:.1} descriptors",
        resident("self", "RssAnon").saturating_sub(*anonymous) as f64 / many as f64,
        now.each_since(heap, many) / 1024.0,
        (entries("/proc/self/fd") - descriptors) as f64 / many as f64
    );
    if std::env::var_os("SIZES").is_some() {
        for (size, count) in now.sizes_since(heap, many) {
            println!("  {count:>6.1} of {size} bytes");
        }
    }
}

/// The largest of the monitors, which are the only children of this program.
fn tell_monitors() {
    let mut largest = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_child = fs::read_to_string(entry.path().join("status"))
            .is_ok_and(|status| status.contains(&format!("PPid:\t{}\n", std::process::id())));
        if is_child {
            largest = largest.max(resident(&name, "VmRSS"));
        }
    }
    println!("a monitor's resident memory        {largest:>7} KiB   (wanted: under 1,024)");
}

/// What a program does first that was started anew.
async fn found(state: &Path) {
    let mut times = Vec::new();
    let mut many = 0;
    for _ in 0..5 {
        let begun = Instant::now();
        let executor = LinuxExecutor::open(state).expect("the state directory opens");
        let states = executor.list().await.expect("listed");
        times.push(begun.elapsed());
        many = states.len();
        assert!(states.iter().all(|state| state.status == Status::Running), "all run");
    }
    println!(
        "{many} found by another program, with their states   {:.1?}   (wanted: under 100 ms for 1,000)",
        middle(times)
    );
}
