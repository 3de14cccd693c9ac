//! Ingest from memory against the floor, which is hashing the same bytes: the ratio is what the store costs.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use longshore::content::{ContentStoreExt, Expected, LocalStore, sha256};

const SIZE: usize = 64 << 20;

fn ingest(criterion: &mut Criterion) {
    let bytes: Bytes = (0..SIZE).map(|number| (number % 251) as u8).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("64 MiB");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(10);
    group.bench_function("floor: sha256", |bencher| bencher.iter(|| sha256(&bytes)));
    group.bench_function("ingest and commit, durable", |bencher| {
        bencher.iter_batched(
            || {
                let folder = tempfile::tempdir().expect("a folder");
                let store = runtime.block_on(LocalStore::open(folder.path())).expect("a store");
                (folder, store)
            },
            |(folder, store)| {
                let put = store.put("bench", bytes.clone(), Expected::default());
                runtime.block_on(put).expect("stored");
                (folder, store)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, ingest);
criterion_main!(benches);
