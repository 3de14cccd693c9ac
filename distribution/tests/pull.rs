//! What a pull promises: the right platform, nothing fetched twice, layers to follow from the start, what was cut resumed.

#[path = "support/image.rs"]
mod image;
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use image::{DOCKER, OCI, put_image, put_index};
use longshore_content::{Blob, BlobExt, ContentStore, ContentStoreExt, MemoryStore};
use longshore_distribution::conformance::Sample;
use longshore_distribution::{
    Allow, Error, ErrorKind, Fetched, Fetcher, ImageVerifier, Keeper, ProgressEvent, Pull, PullOptions, PullProgress,
    PullSource, Reference, RegistryClient, ResolvedImage, VerifyRequest, parse_platform, parse_reference,
};
use longshore_registry::{Fault, FaultScript, Registry, RunningRegistry};
use longshore_testing::skip;
use oci_spec::image::Descriptor;
use support::{client, serve};

async fn start(store: &Arc<MemoryStore>, name: &Reference, options: PullOptions) -> Result<Pull, Error> {
    let content: Arc<dyn ContentStore> = store.clone();
    Pull::start(Arc::new(client()).into(), content, name, options).await
}

async fn pull(store: &Arc<MemoryStore>, name: &Reference, options: PullOptions) -> Result<ResolvedImage, Error> {
    start(store, name, options).await?.finish().await
}

fn for_platform(text: &str) -> PullOptions {
    PullOptions {
        platform: Some(parse_platform(text).expect("a platform")),
        ..PullOptions::default()
    }
}

fn name(registry: &RunningRegistry) -> Reference {
    format!("{}/app:1", registry.host()).parse().expect("a reference")
}

fn gets(registry: &RunningRegistry, part: &str) -> usize {
    let all = registry.requests();
    all.iter()
        .filter(|request| request.method == http::Method::GET && request.path.contains(part))
        .count()
}

fn large(sample: &Sample) -> (Descriptor, Bytes) {
    let largest = sample.blobs.iter().max_by_key(|(blob, _)| blob.size());
    largest.expect("it has blobs").clone()
}

async fn whole(blob: Arc<dyn Blob>) -> Bytes {
    let pieces: Vec<_> = blob.stream().collect().await;
    let pieces: Result<Vec<Bytes>, _> = pieces.into_iter().collect();
    pieces.expect("all of it").concat().into()
}

#[tokio::test]
async fn an_index_is_chosen_from_by_platform() {
    for dialect in [OCI, DOCKER] {
        let registry = Registry::builder().serve("127.0.0.1:0").await.expect("a registry");
        let mut entries = Vec::new();
        for arch in ["arm64", "amd64", "s390x"] {
            let layers = [Bytes::from(format!("a layer for {arch}"))];
            entries.push(put_image(&registry, dialect, ("linux", arch), &layers).await);
        }
        let statement = put_image(&registry, dialect, ("unknown", "unknown"), &[]).await;
        entries.insert(0, statement);
        let target = put_index(&registry, dialect, &entries).await;
        for (platform, entry) in [("linux/amd64", 2), ("linux/arm64", 1), ("linux/s390x", 3)] {
            let store = Arc::new(MemoryStore::new());
            let image = pull(&store, &name(&registry), for_platform(platform))
                .await
                .expect(platform);
            assert_eq!(image.target.digest(), target.digest());
            assert_eq!(image.manifest_descriptor.digest().as_ref(), entries[entry]["digest"]);
            assert_eq!(image.layers()[0].media_type().as_ref(), dialect.layer);
            for blob in image.blobs() {
                assert_eq!(store.info(blob.digest()).await.expect("it is here").size, blob.size());
            }
            assert_eq!(store.walk().count().await, 4, "nothing of other platforms came");
        }
        let store = Arc::new(MemoryStore::new());
        let outcome = pull(&store, &name(&registry), for_platform("linux/riscv64")).await;
        let error = outcome.expect_err("there is none").to_string();
        assert!(
            error.contains("linux/riscv64") && error.contains("linux/arm64, linux/amd64, linux/s390x"),
            "{error}"
        );
        assert!(!error.contains("unknown"), "a statement is no image: {error}");
    }
}

#[tokio::test]
async fn an_image_for_another_platform_is_refused() {
    let registry = Registry::builder().serve("127.0.0.1:0").await.expect("a registry");
    put_image(&registry, OCI, ("windows", "amd64"), &[Bytes::from_static(b"layer")]).await;
    let store = Arc::new(MemoryStore::new());
    let error = pull(&store, &name(&registry), for_platform("linux/amd64"))
        .await
        .expect_err("it is another one");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("windows/amd64"), "{error}");
    pull(&store, &name(&registry), for_platform("windows/amd64"))
        .await
        .expect("the very one");
}

#[tokio::test]
async fn an_index_in_an_index_is_followed_but_not_for_ever() {
    let registry = Registry::builder().serve("127.0.0.1:0").await.expect("a registry");
    let image = put_image(&registry, OCI, ("linux", "amd64"), &[Bytes::from_static(b"layer")]).await;
    let store = Arc::new(MemoryStore::new());
    let mut entry = image;
    for depth in 1..=5 {
        let index = put_index(&registry, OCI, &[entry]).await;
        entry = serde_json::to_value(&index).expect("JSON");
        entry["platform"] = serde_json::json!({ "os": "linux", "architecture": "amd64" });
        let outcome = pull(&store, &name(&registry), for_platform("linux/amd64")).await;
        match depth {
            1..=3 => assert_eq!(outcome.expect("not too deep").blobs().len(), 3 + depth),
            _ => assert_eq!(outcome.expect_err("too deep").kind(), ErrorKind::Protocol),
        }
    }
}

#[tokio::test]
async fn a_layer_that_comes_twice_is_fetched_once() {
    let registry = Registry::builder().serve("127.0.0.1:0").await.expect("a registry");
    let layer = Bytes::from(vec![7; 100_000]);
    put_image(
        &registry,
        OCI,
        ("linux", "amd64"),
        &[layer.clone(), Bytes::from_static(b"x"), layer.clone()],
    )
    .await;
    let store = Arc::new(MemoryStore::new());
    let image = pull(&store, &name(&registry), for_platform("linux/amd64"))
        .await
        .expect("pulled");
    assert_eq!(image.layers().len(), 3);
    assert_eq!(image.blobs().len(), 4);
    assert_eq!(gets(&registry, image.layers()[0].digest().as_ref()), 1);
}

#[tokio::test]
async fn every_layer_can_be_followed_from_the_start() {
    let (sample, faults) = (Sample::new(), FaultScript::new());
    let (layer, bytes) = large(&sample);
    faults
        .add(format!("/blobs/{}", layer.digest()), Fault::CutAfter(100_000))
        .times(2);
    let (_registry, name) = serve(Registry::builder().faults(faults), &sample).await;
    let store = Arc::new(MemoryStore::new());
    let one_at_a_time = PullOptions {
        concurrency: 0,
        ..PullOptions::default()
    };
    let pull = start(&store, &name, one_at_a_time).await.expect("started");
    let mut followed = Vec::new();
    for layer in pull.image().layers() {
        followed.push(store.follow(layer.digest()).await.expect("it is on its way"));
    }
    // Nobody polls `finish`, and the bytes come all the same, through two cuts.
    assert_eq!(whole(followed.remove(0)).await, bytes);
    assert_eq!(whole(followed.remove(0)).await, Bytes::new());
    pull.finish().await.expect("finished");
}

#[tokio::test]
async fn a_pull_that_was_dropped_is_resumed_by_the_next() {
    let (sample, faults) = (Sample::new(), FaultScript::new());
    let (layer, bytes) = large(&sample);
    faults.add(format!("/blobs/{}", layer.digest()), Fault::StallAfter(150_000));
    let (registry, name) = serve(Registry::builder().faults(faults.clone()), &sample).await;
    let store = Arc::new(MemoryStore::new());
    let pull_one = start(&store, &name, PullOptions::default()).await.expect("started");
    let follower = store.follow(layer.digest()).await.expect("it is on its way");
    let mut buffer = [0];
    assert_eq!(follower.read_at(149_999, &mut buffer).await.expect("a byte"), 1);
    drop(pull_one);
    let error = follower
        .read_at(150_000, &mut buffer)
        .await
        .expect_err("it was given up");
    assert_eq!(error.kind(), longshore_content::ErrorKind::Abandoned);
    faults.clear();
    registry.clear_requests();
    pull(&store, &name, PullOptions::default()).await.expect("pulled");
    let ranges: Vec<_> = registry
        .requests()
        .into_iter()
        .filter_map(|request| request.range)
        .collect();
    assert_eq!(ranges, ["bytes=150000-"]);
    assert_eq!(store.read(layer.digest(), 1 << 20).await.expect("a blob"), bytes);
}

#[tokio::test]
async fn two_pulls_of_one_image_fetch_each_layer_once() {
    let sample = Sample::new();
    let faults = FaultScript::new();
    faults.add("/blobs/", Fault::Delay(Duration::from_millis(50)));
    let (registry, name) = serve(Registry::builder().faults(faults), &sample).await;
    let store = Arc::new(MemoryStore::new());
    let pulls = (0..8).map(|_| pull(&store, &name, PullOptions::default()));
    for outcome in futures::future::join_all(pulls).await {
        outcome.expect("pulled");
    }
    for (blob, _) in &sample.blobs {
        let expected = usize::from(blob.size() > 0);
        assert_eq!(gets(&registry, blob.digest().as_ref()), expected, "{}", blob.digest());
    }
}

#[tokio::test]
async fn a_pull_takes_over_from_one_that_is_given_up() {
    let (sample, faults) = (Sample::new(), FaultScript::new());
    let (layer, bytes) = large(&sample);
    let stalls = faults.add(format!("/blobs/{}", layer.digest()), Fault::StallAfter(1000));
    let _stalls = stalls.times(1);
    let (_registry, name) = serve(Registry::builder().faults(faults), &sample).await;
    let store = Arc::new(MemoryStore::new());
    let first = start(&store, &name, PullOptions::default()).await.expect("started");
    let follower = store.follow(layer.digest()).await.expect("it is on its way");
    assert_eq!(follower.read_at(999, &mut [0]).await.expect("a byte"), 1);
    let waiting = Arc::new(Seen::default());
    let options = PullOptions {
        progress: Some(waiting.clone()),
        ..PullOptions::default()
    };
    let second = start(&store, &name, options).await.expect("started");
    assert!(waiting.text().contains("waiting"), "{}", waiting.text());
    drop(first);
    second.finish().await.expect("it fetches for itself");
    assert_eq!(store.read(layer.digest(), 1 << 20).await.expect("a blob"), bytes);
}

#[tokio::test]
async fn a_silent_server_is_an_error_and_a_hiccup_is_not() {
    let sample = Sample::new();
    for (times, succeeds) in [(2, true), (u32::MAX, false)] {
        let faults = FaultScript::new();
        faults
            .add(format!("/blobs/{}", large(&sample).0.digest()), Fault::StallAfter(0))
            .times(times);
        let (_registry, name) = serve(Registry::builder().faults(faults), &sample).await;
        let client = RegistryClient::builder()
            .idle_timeout(Duration::from_millis(100))
            .build()
            .expect("a client");
        let content: Arc<dyn ContentStore> = Arc::new(MemoryStore::new());
        let pull = Pull::start(Arc::new(client).into(), content, &name, PullOptions::default());
        let outcome = pull.await.expect("started").finish().await;
        match outcome {
            Ok(_) => assert!(succeeds),
            Err(error) => assert!(!succeeds && error.kind() == ErrorKind::Unavailable, "{error:?}"),
        }
    }
}

/// A source that begins at the first byte whatever it is asked for, and breaks off a little later each time.
#[derive(Debug)]
struct WithoutRanges {
    sample: Sample,
    asked: Mutex<usize>,
}

#[async_trait]
impl Fetcher for WithoutRanges {
    async fn fetch(&self, _: &Reference, descriptor: &Descriptor, _: u64) -> Result<Fetched, Error> {
        let found = self
            .sample
            .blobs
            .iter()
            .find(|(blob, _)| blob.digest() == descriptor.digest());
        let bytes = found.expect("it is of the sample").1.clone();
        let mut asked = self.asked.lock().expect("not poisoned");
        *asked += 1;
        let end = bytes.len().min(*asked * 120_000);
        let pieces: Vec<_> = bytes[..end]
            .chunks(7000)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        Ok(Fetched {
            offset: 0,
            stream: futures::stream::iter(pieces).boxed(),
        })
    }
}

#[tokio::test]
async fn a_source_without_ranges_is_read_over() {
    let sample = Sample::new();
    let (_registry, name) = serve(Registry::builder(), &sample).await;
    let source = PullSource {
        resolver: Arc::new(client()),
        fetcher: Arc::new(WithoutRanges {
            sample: sample.clone(),
            asked: Mutex::default(),
        }),
    };
    let store = Arc::new(MemoryStore::new());
    let pull = Pull::start(source, store.clone(), &name, PullOptions::default())
        .await
        .expect("started");
    pull.finish().await.expect("pulled");
    let (layer, bytes) = large(&sample);
    assert_eq!(store.read(layer.digest(), 1 << 20).await.expect("a blob"), bytes);
}

#[derive(Debug)]
struct Never;

#[async_trait]
impl ImageVerifier for Never {
    async fn verify(&self, request: VerifyRequest<'_>) -> Result<Allow, Error> {
        Err(Error::Refused {
            reference: request.reference.to_string(),
            reason: "no image may come in".into(),
        })
    }
}

#[tokio::test]
async fn what_the_verifier_refuses_leaves_nothing() {
    let sample = Sample::new();
    let (registry, name) = serve(Registry::builder(), &sample).await;
    let store = Arc::new(MemoryStore::new());
    let options = PullOptions {
        verifier: Some(Arc::new(Never)),
        ..PullOptions::default()
    };
    let error = pull(&store, &name, options).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(registry.requests().len(), 1, "it was resolved, no more");
    assert_eq!(store.walk().count().await, 0);
    assert!(store.ingests().await.expect("a list").is_empty());
}

/// Sees to it that a blob is named before it is there.
#[derive(Debug)]
struct Watchful {
    store: Arc<MemoryStore>,
    named: Mutex<Vec<String>>,
}

#[async_trait]
impl Keeper for Watchful {
    async fn keep(&self, blobs: &[Descriptor]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        for blob in blobs {
            if self.store.info(blob.digest()).await.is_ok() {
                return Err(format!("{} is there already", blob.digest()).into());
            }
            self.named.lock().expect("not poisoned").push(blob.digest().to_string());
        }
        Ok(())
    }
}

#[tokio::test]
async fn the_keeper_hears_of_each_blob_before_it_is_there() {
    let sample = Sample::new();
    let (_registry, name) = serve(Registry::builder(), &sample).await;
    let store = Arc::new(MemoryStore::new());
    let keeper = Arc::new(Watchful {
        store: store.clone(),
        named: Mutex::default(),
    });
    let options = PullOptions {
        keeper: Some(keeper.clone()),
        ..PullOptions::default()
    };
    let image = pull(&store, &name, options.clone()).await.expect("pulled");
    let named = keeper.named.lock().expect("not poisoned").clone();
    let blobs: Vec<_> = image.blobs().iter().map(|blob| blob.digest().to_string()).collect();
    assert_eq!(named, blobs);
    let error = pull(&store, &name, options).await.expect_err("the keeper refuses");
    assert_eq!(error.kind(), ErrorKind::Content, "{error:?}");
}

/// Writes down what happens.
#[derive(Debug, Default)]
struct Seen(Mutex<Vec<String>>);

impl Seen {
    fn text(&self) -> String {
        self.0.lock().expect("not poisoned").join(" ")
    }
}

impl PullProgress for Seen {
    fn event(&self, event: ProgressEvent<'_>) {
        let word = match event {
            ProgressEvent::Resolved { .. } => "resolved".to_owned(),
            ProgressEvent::Cached { blob } => format!("cached:{}", blob.size()),
            ProgressEvent::Waiting { blob } => format!("waiting:{}", blob.size()),
            ProgressEvent::Started { blob, offset } => format!("started:{}@{offset}", blob.size()),
            ProgressEvent::Resumed { blob, offset, .. } => format!("resumed:{}@{offset}", blob.size()),
            ProgressEvent::Committed { blob } => format!("committed:{}", blob.size()),
            _ => return,
        };
        self.0.lock().expect("not poisoned").push(word);
    }
}

#[tokio::test]
async fn progress_is_told_in_order() {
    let (sample, faults) = (Sample::new(), FaultScript::new());
    faults
        .add(format!("/blobs/{}", large(&sample).0.digest()), Fault::CutAfter(4096))
        .times(1);
    let (_registry, name) = serve(Registry::builder().faults(faults), &sample).await;
    let store = Arc::new(MemoryStore::new());
    for first in [true, false] {
        let seen = Arc::new(Seen::default());
        let options = PullOptions {
            progress: Some(seen.clone()),
            ..PullOptions::default()
        };
        pull(&store, &name, options).await.expect("pulled");
        let text = seen.text();
        assert!(text.starts_with("resolved "), "{text}");
        if first {
            for word in [
                "started:300000@0",
                "resumed:300000@4096",
                "committed:300000",
                "started:0@0",
                "committed:0",
            ] {
                assert!(text.contains(word), "no {word} in {text}");
            }
        } else {
            assert_eq!(text.matches("cached").count(), 4, "{text}");
            assert!(!text.contains("started"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_host_may_be_an_address_of_ipv6() {
    let Ok(registry) = Registry::builder().serve("[::1]:0").await else {
        return skip("this machine has no ::1");
    };
    put_image(&registry, OCI, ("linux", "amd64"), &[Bytes::from_static(b"layer")]).await;
    let tagged = format!("{}/app:1", registry.host());
    let store = Arc::new(MemoryStore::new());
    let name = parse_reference(&tagged).expect("a reference");
    let image = pull(&store, &name, for_platform("linux/amd64")).await.expect(&tagged);
    // With a digest, the tag says nothing more.
    let pinned = format!("{tagged}@{}", image.target.digest()).replace(":1@", ":moved@");
    let name = parse_reference(&pinned).expect("a reference");
    let again = pull(&store, &name, for_platform("linux/amd64")).await.expect(&pinned);
    assert_eq!(again.target, image.target);
}
