//! Each fault that a registry may have, tried at many places: success with the right bytes, or one clear error; never anything unverified, nothing left open.
//!
//! What is left to chance comes from a seed that is printed (`LONGSHORE_SEED` takes it again).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, StatusCode};
use longshore_content::{ContentStore, MemoryStore, sha256};
use longshore_distribution::conformance::Sample;
use longshore_distribution::{
    Credential, Error, ErrorKind, Fetcher, Parts, Pull, PullOptions, Reference, RegistryClient, Static,
};
use longshore_registry::{Auth, Bearer, Fault, FaultScript, Registry, RunningRegistry, Users};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::json;

use crate::script::Scripted;
use crate::support::{client, login, quick, serve};
use crate::{assert_whole, count, pull};

/// Numbers that a seed gives (xorshift).
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let given = std::env::var("LONGSHORE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| now.as_nanos() as u64) | 1
        });
        eprintln!("LONGSHORE_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn large(sample: &Sample) -> (Descriptor, Bytes) {
    let largest = sample.blobs.iter().max_by_key(|(blob, _)| blob.size());
    largest.expect("it has blobs").clone()
}

/// A client that fetches in parts even what is small.
fn in_parts() -> RegistryClient {
    let parts = Parts {
        at_once: 3,
        size: 40_000,
        from: 100_000,
    };
    let builder = RegistryClient::builder().retry(quick()).parts(parts);
    builder.build().expect("a client")
}

/// Only what was proved is visible, and no ingest has a writer any more.
async fn assert_nothing_wrong(store: &MemoryStore) {
    let blobs: Vec<_> = store.walk().collect().await;
    for blob in blobs {
        let digest = blob.expect("a blob").digest;
        let bytes = longshore_content::ContentStoreExt::read(store, &digest, 1 << 30).await;
        assert_eq!(sha256(&bytes.expect("it is there")), digest);
    }
    for left in store.ingests().await.expect("a list") {
        store.abort(&left.reference).await.expect("nobody writes to it");
    }
}

#[tokio::test]
async fn cut_at_two_hundred_places() {
    let (sample, faults) = (Sample::new(), FaultScript::new());
    let (layer, bytes) = large(&sample);
    let (registry, name) = serve(Registry::builder().faults(faults.clone()), &sample).await;
    let (whole, parts) = (client(), in_parts());
    let mut chance = Chance::new();
    let mut sent = 0;
    for round in 0..200 {
        let offset = chance.below(layer.size());
        let store = Arc::new(MemoryStore::new());
        faults.clear();
        registry.clear_requests();
        faults.add(layer.digest().to_string(), Fault::CutAfter(offset)).times(1);
        // Every fourth time in parts, where the cut may be in any of them.
        let client = if round % 4 == 3 { &parts } else { &whole };
        let pulled = pull(client.clone(), &store, &name).await;
        pulled.unwrap_or_else(|error| panic!("cut at {offset} in round {round}: {error:?}"));
        assert_whole(&store, &sample).await;
        assert_nothing_wrong(&store).await;
        let requests = registry.requests();
        let of_layer = requests
            .iter()
            .filter(|request| request.path.contains(layer.digest().as_ref()));
        if round % 4 != 3 {
            sent += of_layer.map(|request| request.sent()).sum::<u64>() - bytes.len() as u64;
            // What had come is not asked for again, but for what was in the pipes when it was cut.
            let range = requests.iter().find_map(|request| request.range.clone());
            assert_eq!(range.is_some(), offset > 0, "cut at {offset}: {requests:?}");
        }
    }
    eprintln!("fetched again after 150 cuts: {sent} bytes");
}

#[tokio::test]
async fn cut_again_and_again() {
    let (sample, faults) = (Sample::new(), FaultScript::new());
    faults.add("/blobs/", Fault::CutAfter(7000));
    let (_registry, name) = serve(Registry::builder().faults(faults), &sample).await;
    for client in [client(), in_parts()] {
        let store = Arc::new(MemoryStore::new());
        pull(client, &store, &name).await.expect("a bit each time");
        assert_whole(&store, &sample).await;
    }
}

#[tokio::test]
async fn one_that_falls_silent_is_asked_again() {
    let sample = Sample::new();
    let mut chance = Chance::new();
    for _ in 0..5 {
        let offset = chance.below(large(&sample).0.size());
        let (store, faults) = (Arc::new(MemoryStore::new()), FaultScript::new());
        faults.add("/blobs/", Fault::StallAfter(offset)).times(2);
        let (_registry, name) = serve(Registry::builder().faults(faults), &sample).await;
        let builder = RegistryClient::builder().retry(quick());
        let client = builder
            .idle_timeout(Duration::from_millis(300))
            .build()
            .expect("a client");
        pull(client, &store, &name)
            .await
            .unwrap_or_else(|error| panic!("silent after {offset}: {error:?}"));
        assert_whole(&store, &sample).await;
    }
}

#[tokio::test]
async fn one_wrong_byte_anywhere() {
    let (sample, faults) = (Sample::new(), FaultScript::new());
    let (layer, _) = large(&sample);
    let (_registry, name) = serve(Registry::builder().faults(faults.clone()), &sample).await;
    let mut chance = Chance::new();
    for _ in 0..20 {
        let offset = chance.below(layer.size());
        let store = Arc::new(MemoryStore::new());
        faults.clear();
        faults.add(layer.digest().to_string(), Fault::CorruptAt(offset));
        let error = pull(client(), &store, &name).await.expect_err("one byte is another");
        assert_eq!(error.kind(), ErrorKind::Verification, "at {offset}: {error:?}");
        assert!(store.info(layer.digest()).await.is_err());
        assert_nothing_wrong(&store).await;
    }
}

#[tokio::test]
async fn lengths_that_lie() {
    let sample = Sample::new();
    let (layer, _) = large(&sample);
    for (fault, kinds) in [
        (Fault::ClaimMore(1), [ErrorKind::Unavailable, ErrorKind::Verification]),
        (
            Fault::ClaimMore(1 << 40),
            [ErrorKind::Unavailable, ErrorKind::Verification],
        ),
        (Fault::SendLess(1), [ErrorKind::Unavailable, ErrorKind::Verification]),
        (
            Fault::Body("x/y".into(), vec![1; 1 << 20].into()),
            [ErrorKind::Verification; 2],
        ),
        (Fault::Body("x/y".into(), Bytes::new()), [ErrorKind::Unavailable; 2]),
    ] {
        let (store, faults) = (Arc::new(MemoryStore::new()), FaultScript::new());
        faults.add(layer.digest().to_string(), fault.clone());
        let (_registry, name) = serve(Registry::builder().faults(faults), &sample).await;
        match pull(client(), &store, &name).await {
            // All bytes came, whatever was claimed.
            Ok(()) => assert_whole(&store, &sample).await,
            Err(error) => {
                assert!(kinds.contains(&error.kind()), "{fault:?}: {error:?}");
                assert!(store.info(layer.digest()).await.is_err(), "{fault:?}");
            }
        }
        assert_nothing_wrong(&store).await;
    }
}

#[tokio::test]
async fn tokens_that_are_worthless_in_the_middle_of_a_layer() {
    let (sample, faults) = (Sample::new(), FaultScript::new());
    faults.add("/blobs/", Fault::CutAfter(100_000)).times(1);
    let auth = Auth::from(Bearer::new(Users::default().with("user", "secret")));
    let (registry, name) = serve(Registry::builder().auth(auth).faults(faults.clone()), &sample).await;
    let registry = Arc::new(registry);
    let (revoking, stop) = (registry.clone(), Arc::new(tokio::sync::Notify::new()));
    let stopped = stop.clone();
    // Whenever it is looked at, every token that was given is worthless.
    let task = tokio::spawn(async move {
        loop {
            revoking.revoke_tokens();
            tokio::select! {
                () = stopped.notified() => return,
                () = tokio::time::sleep(Duration::from_millis(40)) => {}
            }
        }
    });
    let mut outcomes = Vec::new();
    for _ in 0..5 {
        let store = Arc::new(MemoryStore::new());
        let outcome = pull(login(&registry.host(), "user", "secret"), &store, &name).await;
        if outcome.is_ok() {
            assert_whole(&store, &sample).await;
        }
        assert_nothing_wrong(&store).await;
        outcomes.push(outcome);
    }
    stop.notify_one();
    task.await.expect("it ends");
    // A token may be revoked just before it is used, time and again; then that is what is told.
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    }
    let store = Arc::new(MemoryStore::new());
    let client = login(&registry.host(), "user", "secret");
    pull(client.clone(), &store, &name).await.expect("pulled");
    registry.revoke_tokens();
    faults.add("/blobs/", Fault::CutAfter(100_000)).times(1);
    let store = Arc::new(MemoryStore::new());
    pull(client, &store, &name).await.expect("with a new token");
    assert_whole(&store, &sample).await;
}

#[tokio::test]
async fn a_hundred_megabytes_of_manifest_are_not_read() {
    let (store, faults) = (Arc::new(MemoryStore::new()), FaultScript::new());
    let huge = Bytes::from(vec![b' '; 100 << 20]);
    faults.add(
        "/manifests/",
        Fault::Body("application/vnd.oci.image.manifest.v1+json".into(), huge),
    );
    let (registry, name) = serve(Registry::builder().faults(faults), &Sample::new()).await;
    let error = pull(client(), &store, &name).await.expect_err("it is too large");
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    assert_eq!(registry.requests().len(), 1, "nor asked for again");
    assert_eq!(count(&store).await, 0);
}

#[tokio::test]
async fn an_index_of_a_million_is_refused() {
    let entry = r#"{"mediaType":"a","digest":"sha256:ab","size":1}"#;
    let index = |count: usize| {
        format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            vec![entry; count].join(",")
        )
    };
    let digest = format!("sha256:{}", "ab".repeat(32));
    let small = index(30_000).replace("sha256:ab", &digest);
    for body in [index(1_000_000), small, index(80_000)] {
        let (store, faults) = (Arc::new(MemoryStore::new()), FaultScript::new());
        faults.add(
            "/manifests/",
            Fault::Body("application/vnd.oci.image.index.v1+json".into(), body.into()),
        );
        let (_registry, name) = serve(Registry::builder().faults(faults), &Sample::new()).await;
        let error = pull(client(), &store, &name).await.expect_err("too many");
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error:?}");
    }
}

#[tokio::test]
async fn later_means_later() {
    let sample = Sample::new();
    for path in ["/manifests/", "/blobs/"] {
        let (store, faults) = (Arc::new(MemoryStore::new()), FaultScript::new());
        faults.add(path, Fault::TooManyRequests(1)).times(1);
        let (registry, name) = serve(Registry::builder().faults(faults.clone()), &sample).await;
        pull(client(), &store, &name).await.expect("after a second");
        assert_whole(&store, &sample).await;
        // For ever, it is an error that names the status.
        faults.clear();
        faults.add("/manifests/", Fault::TooManyRequests(0));
        let error = pull(client(), &store, &name).await.expect_err("never");
        assert!(matches!(error, Error::Status { status: 429, .. }), "{error:?}");
        assert!(registry.requests().len() > 5);
    }
}

#[tokio::test]
async fn parts_come_at_once_and_in_order() {
    let (sample, store) = (Sample::new(), Arc::new(MemoryStore::new()));
    let (registry, name) = serve(Registry::builder(), &sample).await;
    pull(in_parts(), &store, &name).await.expect("pulled");
    assert_whole(&store, &sample).await;
    let (layer, _) = large(&sample);
    let requests = registry.requests();
    let mut ranges: Vec<_> = requests
        .iter()
        .filter(|request| request.path.contains(layer.digest().as_ref()))
        .map(|request| (request.range.clone().unwrap_or_default(), request.sent()))
        .collect();
    ranges.sort();
    assert_eq!(ranges.len(), 8, "{ranges:?}");
    assert_eq!(ranges[0], ("bytes=0-39999".to_owned(), 40_000));
    assert_eq!(ranges.iter().map(|(_, sent)| sent).sum::<u64>(), 300_000);
}

#[tokio::test]
async fn a_part_that_fails_is_resumed_where_it_was() {
    let sample = Sample::new();
    let (layer, _) = large(&sample);
    for fault in [
        Fault::CutAfter(10_000),
        Fault::Status(StatusCode::BAD_GATEWAY),
        Fault::SendLess(1),
        Fault::Hangup,
        Fault::Body("x/y".into(), vec![0; 1 << 20].into()),
    ] {
        let (store, faults) = (Arc::new(MemoryStore::new()), FaultScript::new());
        // The third part, or whichever is asked for third.
        faults.add(layer.digest().to_string(), fault.clone()).skip(2).times(1);
        let (_registry, name) = serve(Registry::builder().faults(faults), &sample).await;
        match pull(in_parts(), &store, &name).await {
            Ok(()) => assert_whole(&store, &sample).await,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault:?}: {error:?}"),
        }
        assert_nothing_wrong(&store).await;
    }
}

#[tokio::test]
async fn who_serves_no_parts_is_asked_for_the_whole() {
    let bytes = "0123456789".repeat(20_000);
    let layer = Descriptor::new(MediaType::ImageLayer, bytes.len() as u64, sha256(bytes.as_bytes()));
    for range_status in [200, 416, 400] {
        let body = bytes.clone();
        let server = Scripted::serve(move |asked, _| {
            let is_part = asked.headers.iter().any(|(name, _)| name == "range");
            match is_part && range_status != 200 {
                true => (range_status, Vec::new(), String::new()),
                false => (200, Vec::new(), body.clone()),
            }
        });
        let name: Reference = format!("{}/app:1", server.host).parse().expect("a reference");
        let fetched = in_parts().fetch(&name, &layer, 0).await.expect("fetched");
        let pieces: Vec<_> = fetched.stream.collect().await;
        let pieces: Result<Vec<Bytes>, _> = pieces.into_iter().collect();
        assert_eq!(pieces.expect("all of it").concat(), bytes.as_bytes());
        assert_eq!(server.asked().len(), if range_status == 200 { 1 } else { 2 });
    }
}

/// An image whose only layer has this descriptor.
async fn image_with(registry: &RunningRegistry, layer: serde_json::Value) -> Reference {
    let config = json!({
        "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    })
    .to_string();
    registry.put_blob(config.clone()).await.expect("a blob");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [layer],
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(config.as_bytes()), "size": config.len(),
        },
    });
    let put = registry.put_manifest(
        "app",
        Some("1"),
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string(),
    );
    put.await.expect("a manifest");
    format!("{}/app:1", registry.host()).parse().expect("a reference")
}

async fn pull_amd64(client: RegistryClient, store: &Arc<MemoryStore>, name: &Reference) -> Result<(), Error> {
    let options = PullOptions {
        platform: longshore_distribution::parse_platform("linux/amd64").ok(),
        ..PullOptions::default()
    };
    let content: Arc<dyn ContentStore> = store.clone();
    Pull::start(Arc::new(client).into(), content, name, options)
        .await?
        .finish()
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_blob_in_its_descriptor_is_not_fetched() {
    let registry = Registry::builder().serve("127.0.0.1:0").await.expect("a registry");
    for (data, requests) in [("aGVsbG8=", 0), ("aGVsbE8=", 1), ("!", 1)] {
        registry.put_blob("hello").await.expect("a blob");
        let layer = json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha256(b"hello"), "size": 5, "data": data,
        });
        let (name, store) = (image_with(&registry, layer).await, Arc::new(MemoryStore::new()));
        registry.clear_requests();
        pull_amd64(client(), &store, &name).await.expect("pulled");
        assert_eq!(store.info(&sha256(b"hello")).await.expect("it is there").size, 5);
        let asked = registry.requests();
        let asked = asked
            .iter()
            .filter(|request| request.path.ends_with(sha256(b"hello").as_ref()));
        assert_eq!(asked.count(), requests, "{data}");
    }
}

#[tokio::test]
async fn a_layer_that_lives_elsewhere_comes_from_there() {
    let registry = Registry::builder()
        .auth(Auth::basic("user", "secret"))
        .serve("127.0.0.1:0")
        .await;
    let registry = registry.expect("a registry");
    let elsewhere = Scripted::serve(|_, _| (200, Vec::new(), "hello".into()));
    let layer = |media_type: &str| {
        let urls = [
            "ftp://127.0.0.1/x".to_owned(),
            format!("http://{}/layer", elsewhere.host),
        ];
        json!({ "mediaType": media_type, "digest": sha256(b"hello"), "size": 5, "urls": urls })
    };
    let credentials = Static::new().with(registry.host(), Credential::basic("user", "secret"));
    let builder = RegistryClient::builder()
        .retry(quick())
        .credentials(Arc::new(credentials));
    let client = builder.build().expect("a client");
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let (name, store) = (
        image_with(&registry, layer(foreign)).await,
        Arc::new(MemoryStore::new()),
    );
    pull_amd64(client.clone(), &store, &name).await.expect("pulled");
    assert_eq!(elsewhere.asked().len(), 1);
    assert_eq!(elsewhere.asked()[0].authorization, None);
    // An ordinary layer sends us nowhere.
    let ordinary = "application/vnd.oci.image.layer.v1.tar";
    let (name, store) = (
        image_with(&registry, layer(ordinary)).await,
        Arc::new(MemoryStore::new()),
    );
    let error = pull_amd64(client, &store, &name).await.expect_err("it is not there");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert_eq!(elsewhere.asked().len(), 1);
}

#[tokio::test]
async fn ten_pulls_at_once_fetch_once() {
    let (sample, store) = (Sample::new(), Arc::new(MemoryStore::new()));
    let (registry, name) = serve(Registry::builder(), &sample).await;
    let client = client();
    let pulls = (0..10).map(|_| pull(client.clone(), &store, &name));
    for outcome in futures::future::join_all(pulls).await {
        outcome.expect("pulled");
    }
    assert_whole(&store, &sample).await;
    for (blob, _) in &sample.blobs {
        let requests = registry.requests();
        let gets = requests
            .iter()
            .filter(|request| request.method == Method::GET && request.path.ends_with(blob.digest().as_ref()));
        assert!(gets.count() <= 1, "{}: {requests:?}", blob.digest());
    }
}
