//! What this program takes of the machine.

use std::fmt;
use std::fs;

/// The first of the looks are of a program that warms up.
const WARM: usize = 3;
/// How much more memory there may be in the last third than in the first: arenas of the allocator, caches that fill.
const MEMORY_PERCENT: u64 = 10;
/// Connections to the registry that stay open for the next pull, each with both of its ends in this program.
const DESCRIPTORS: u64 = 16;
/// Threads that block stay for some seconds; how many there are is a matter of chance.
const THREADS: u64 = 8;

/// At a moment at which no container runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    kib: u64,
    descriptors: u64,
    threads: u64,
}

impl Figures {
    pub(crate) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let entries = |path| fs::read_dir(path).map_or(0, |entries| entries.count() as u64);
        Self {
            kib: resident
                .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
                .unwrap_or(0),
            // One is that of the directory that is read.
            descriptors: entries("/proc/self/fd") - 1,
            threads: entries("/proc/self/task"),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kib,
            descriptors,
            threads,
        } = self;
        write!(f, "{kib:>7} KiB  {descriptors:>4} descriptors  {threads:>3} threads")
    }
}

/// Whether the last third is as the first was.
pub(crate) fn judge(looks: &[Figures]) -> bool {
    let warm = looks.get(WARM.min(looks.len() / 3)..).unwrap_or_default();
    let third = warm.len().div_ceil(3);
    let (first, last) = (&warm[..third], &warm[warm.len() - third..]);
    let middle = |looks: &[Figures], read: fn(&Figures) -> u64| {
        let mut values: Vec<u64> = looks.iter().map(read).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let mut flat = true;
    let mut judged = |what: &str, read: fn(&Figures) -> u64, allowed: fn(u64) -> u64| {
        let (then, now) = (middle(first, read), middle(last, read));
        let verdict = if now <= allowed(then) { "flat" } else { "GROWN" };
        flat &= now <= allowed(then);
        println!("{what:<12} {then:>8} in the first third, {now:>8} in the last: {verdict}");
    };
    judged("KiB", |f| f.kib, |then| then + then * MEMORY_PERCENT / 100);
    judged("descriptors", |f| f.descriptors, |then| then + DESCRIPTORS);
    judged("threads", |f| f.threads, |then| then + THREADS);
    flat
}
