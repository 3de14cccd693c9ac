use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

/// What a run took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    /// Seconds on the clock.
    pub(crate) wall: f64,
    /// Seconds of the processors, user and system, of the processes that were started for it.
    pub(crate) cpu: f64,
    /// MiB of memory at most, where it was asked for.
    pub(crate) resident: f64,
}

impl Took {
    /// Of `work`, which starts processes, waits for them, and says how many seconds of it count, and the memory.
    pub(crate) fn by(work: impl FnOnce() -> (f64, f64)) -> Self {
        let before = children();
        let (wall, resident) = work();
        let cpu = children() - before;
        Self { wall, cpu, resident }
    }
}

/// Seconds of `work`.
pub(crate) fn clock(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

/// CPU seconds of the children that were waited for.
fn children() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("it can be asked always");
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
        .sum()
}

/// Where the stores of a run are.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    path: PathBuf,
}

/// Memory, and where temporary files go.
pub(crate) fn places() -> Vec<Place> {
    let places = [("tmpfs", PathBuf::from("/dev/shm")), ("disk", std::env::temp_dir())];
    places
        .into_iter()
        .filter(|(_, path)| path.is_dir())
        .map(|(name, path)| Place { name, path })
        .collect()
}

impl Place {
    /// Runs something in a new folder, which is removed then, with nothing of what went before still to be written.
    pub(crate) fn run<T>(&self, work: impl FnOnce(&Path) -> T) -> T {
        let folder = tempfile::tempdir_in(&self.path).expect("a folder");
        rustix::fs::sync();
        let outcome = work(folder.path());
        // `TempDir` goes on past what it can't remove, and so do we.
        drop(folder);
        outcome
    }
}

pub(crate) fn head() {
    println!(
        "{:<52} {:>17} {:>17} {:>7} {:>7}  wanted",
        "A / B", "A", "B", "A / B", "CPU"
    );
}

pub(crate) fn row(name: &str, pairs: &[(Took, Took)], wanted: &str) {
    let text = |of: fn(&(Took, Took)) -> Took| {
        let wall = median(pairs.iter().map(|pair| of(pair).wall));
        let cpu = median(pairs.iter().map(|pair| of(pair).cpu));
        format!("{wall:.2} s ({cpu:.2})")
    };
    let ratio = median(pairs.iter().map(|(a, b)| a.wall / b.wall));
    let cpu = median(pairs.iter().map(|(a, b)| a.cpu / b.cpu));
    println!(
        "{name:<52} {:>17} {:>17} {ratio:>7.2} {cpu:>7.2}  {wanted}",
        text(|pair| pair.0),
        text(|pair| pair.1)
    );
}

/// The middle, or the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}
