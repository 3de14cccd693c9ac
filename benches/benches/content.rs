//! Ingest from memory against the floor, which is hashing the same bytes: the ratio is what the store costs. On tmpfs and on disk, in one run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use longshore::content::{ContentStoreExt, Expected, LocalStore, sha256};

const SIZE: usize = 64 << 20;

/// Pairs of runs that a ratio is the median of.
const PAIRS: usize = 15;

fn data() -> Bytes {
    (0..SIZE).map(|number| (number % 251) as u8).collect()
}

/// Where it is measured: in memory, and where temporary files go.
fn places() -> Vec<(&'static str, PathBuf)> {
    let places = [("tmpfs", PathBuf::from("/dev/shm")), ("disk", std::env::temp_dir())];
    places.into_iter().filter(|(_, path)| path.is_dir()).collect()
}

struct Site {
    _folder: tempfile::TempDir,
    store: LocalStore,
}

impl Site {
    fn new(runtime: &tokio::runtime::Runtime, place: &Path) -> Self {
        let folder = tempfile::tempdir_in(place).expect("a folder");
        let store = runtime.block_on(LocalStore::open(folder.path())).expect("a store");
        Self { _folder: folder, store }
    }

    fn ingest(&self, runtime: &tokio::runtime::Runtime, bytes: &Bytes) {
        let put = self.store.put("bench", bytes.clone(), Expected::default());
        runtime.block_on(put).expect("stored");
    }
}

fn ingest(criterion: &mut Criterion) {
    let bytes = data();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("64 MiB");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(10);
    group.bench_function("floor: sha256", |bencher| bencher.iter(|| sha256(&bytes)));
    for (name, place) in places() {
        group.bench_function(format!("ingest and commit, durable, {name}"), |bencher| {
            bencher.iter_batched(
                || Site::new(&runtime, &place),
                |site| {
                    site.ingest(&runtime, &bytes);
                    site
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// The target is 0.9: the speed of an ingest in units of the bare hash, each pair measured back to back.
fn ratio(_: &mut Criterion) {
    let bytes = data();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for (name, place) in places() {
        let mut ratios: Vec<f64> = (0..PAIRS).map(|_| pair(&runtime, &place, &bytes)).collect();
        ratios.sort_by(f64::total_cmp);
        let (least, median, most) = (ratios[0], ratios[PAIRS / 2], ratios[PAIRS - 1]);
        println!("ingest from memory, {name}: {median:.2} x the bare hash (from {least:.2} to {most:.2}; target 0.90)");
    }
}

fn pair(runtime: &tokio::runtime::Runtime, place: &Path, bytes: &Bytes) -> f64 {
    let site = Site::new(runtime, place);
    let hash = took(|| drop(sha256(bytes)));
    let ingest = took(|| site.ingest(runtime, bytes));
    hash.as_secs_f64() / ingest.as_secs_f64()
}

fn took(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

criterion_group!(benches, ingest, ratio);
criterion_main!(benches);
