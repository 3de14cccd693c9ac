//! The memory of an engine at a large size: 1,000,000 blobs and 100,000 snapshots behind 50,000 images. Prints a table; each figure is of one run.
//!
//! `cargo bench -p longshore-benches --bench metadata`; with `-- --small` a hundredth of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use longshore::content::sha256;
use longshore::metadata::{
    Batch, CollectOptions, Collectible, Collector, Edge, Found, Image, Key, Labels, MetadataStore, MetadataStoreExt,
    RedbStore, Removed, Resource, StoreError, Value,
};
use longshore::oci_spec::image::{Descriptor, MediaType};

/// Layers of each image; with manifest and config twenty blobs.
const LAYERS: usize = 18;

fn blob(number: usize) -> Resource {
    Resource::Content(sha256(&number.to_le_bytes()).to_string())
}

fn snapshot(number: usize) -> Resource {
    Resource::snapshot("overlay", sha256(format!("s{number}").as_bytes()).to_string())
}

/// Resources in memory, so that what is measured is the mark and not a disk.
#[derive(Debug)]
struct Shelf(HashMap<Resource, Vec<Edge>>);

impl Shelf {
    fn new(images: usize) -> Self {
        let mut things = HashMap::with_capacity(images * (LAYERS + 4));
        for image in 0..images {
            let first = image * (LAYERS + 2);
            let mut edges = vec![Edge::whole(blob(first + 1))];
            for layer in 0..LAYERS {
                edges.push(Edge::leaf(blob(first + 2 + layer)));
                things.insert(blob(first + 2 + layer), Vec::new());
            }
            things.insert(blob(first), edges);
            things.insert(blob(first + 1), vec![Edge::whole(snapshot(image * 2 + 1))]);
            things.insert(snapshot(image * 2 + 1), vec![Edge::whole(snapshot(image * 2))]);
            things.insert(snapshot(image * 2), Vec::new());
        }
        Self(things)
    }
}

#[async_trait]
impl Collectible for Shelf {
    fn name(&self) -> &str {
        "things in memory"
    }

    fn owns(&self, _: &Resource) -> bool {
        true
    }

    fn list(&self) -> BoxStream<'_, Result<Found, StoreError>> {
        let changed = SystemTime::UNIX_EPOCH;
        let found = move |resource: &Resource| {
            Ok(Found {
                resource: resource.clone(),
                changed,
            })
        };
        stream::iter(self.0.keys().map(found)).boxed()
    }

    async fn edges(&self, resources: &[Resource]) -> Result<Vec<Vec<Edge>>, StoreError> {
        Ok(resources
            .iter()
            .map(|resource| self.0.get(resource).cloned().unwrap_or_default())
            .collect())
    }

    async fn size(&self, _: &Resource) -> Result<u64, StoreError> {
        Ok(1)
    }

    async fn remove(&self, _: &Resource) -> Result<Removed, StoreError> {
        Ok(Removed::InUse)
    }
}

fn name(image: usize) -> String {
    format!("registry.example/team/image-{image:06}:latest")
}

async fn fill(store: &RedbStore, images: usize) {
    for first in (0..images).step_by(1_000) {
        let mut batch = Batch::new();
        for image in first..images.min(first + 1_000) {
            let digest = sha256(&(image * (LAYERS + 2)).to_le_bytes());
            let target = Descriptor::new(MediaType::ImageManifest, 1_000, digest);
            batch = batch.put(
                Key::image("default", name(image)),
                Labels::new(),
                Value::Image(Box::new(Image { target })),
            );
        }
        store.apply(batch).await.expect("filled");
    }
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times
        .get((times.len() * percent / 100).min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Writes until told to stop, or so many times; the time of each.
async fn write(store: &RedbStore, stop: &AtomicBool, most: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) && times.len() < most {
        let begun = Instant::now();
        let id = format!("lease-{}", times.len());
        let lease = Batch::new().put(
            Key::lease("default", id),
            Labels::new(),
            Value::Lease(Default::default()),
        );
        store.apply(lease).await.expect("written");
        times.push(begun.elapsed());
    }
    times
}

#[tokio::main]
async fn main() {
    let small = std::env::args().any(|argument| argument == "--small");
    let images = if small { 500 } else { 50_000 };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("metadata.redb");
    let store = RedbStore::open(&path).await.expect("a store");
    fill(&store, images).await;
    let shelf = Arc::new(Shelf::new(images));
    let snapshots = images * 2;
    println!(
        "{images} images, {} blobs, {snapshots} snapshots",
        images * (LAYERS + 2)
    );
    drop(store);

    let begun = Instant::now();
    let store = Arc::new(RedbStore::open(&path).await.expect("a store"));
    println!("open                              {:>12?}", begun.elapsed());

    let mut times: Vec<_> = Vec::new();
    for step in 0..10_000 {
        let name = name(step * 7_919 % images);
        let begun = Instant::now();
        assert!(store.image("default", &name).await.expect("looked up").is_some());
        times.push(begun.elapsed());
    }
    println!("look up an image, median          {:>12?}", percentile(&mut times, 50));
    println!("look up an image, p99             {:>12?}", percentile(&mut times, 99));

    let collector = Collector::new(store.clone()).with(shelf);
    let nothing = Resource::Content("sha256:none".to_owned());
    for _ in 0..3 {
        let begun = Instant::now();
        assert!(collector.explain(&nothing).await.expect("marked").is_empty());
        println!("mark                              {:>12?}", begun.elapsed());
    }

    let never = AtomicBool::new(false);
    let mut idle = write(&store, &never, 200).await;
    println!("write, idle, p99                  {:>12?}", percentile(&mut idle, 99));
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move { write(&store, &stop, usize::MAX).await }
    });
    let report = collector.collect(&CollectOptions::default()).await.expect("collected");
    stop.store(true, Ordering::Relaxed);
    let mut beside = writing.await.expect("a task");
    println!(
        "write beside a collection, p99    {:>12?}  ({} writes)",
        percentile(&mut beside, 99),
        beside.len()
    );
    println!(
        "collection with nothing to remove {:>12?}  (mark {:?}, {} nodes)",
        report.took, report.marking, report.reached
    );
    assert!(
        report.removed.is_empty() && report.in_use.is_empty(),
        "all of it is held"
    );
}
