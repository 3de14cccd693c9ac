//! What nothing needs any more goes from the stores, and nothing else does.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use longshore::events::Recorder;
use longshore::metadata::{CollectOptions, Root};
use longshore::{Collection, DeleteMode, Engine, Io, Schedule};
use longshore_examples::quickstart::serve_host_image;
use longshore_metadata::{Key, MetadataStoreExt, Resource};
use longshore_testing::{require_root, skip};

async fn counts(engine: &Engine) -> (usize, usize) {
    let blobs = engine.content.walk().count().await;
    (blobs, engine.snapshotter.walk().await.expect("a list").len())
}

/// Everything of an image that a container still needs stays; then all of it goes.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_when_nothing_needs_it() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let registry = serve_host_image().await.expect("a registry");
    let name = format!("{}/demo/host:latest", registry.host());
    let recorder = Recorder::new();
    let engine = Engine {
        sinks: vec![Arc::new(recorder.clone())],
        ..Engine::open(folder.path()).await.expect("an engine")
    };
    let image = engine.pull(&name).await.expect("pulled");
    let all = counts(&engine).await;
    let report = engine.collect().await.expect("a collection");
    assert_eq!(
        (report.removed, counts(&engine).await),
        (vec![], all),
        "an image is held whole"
    );
    let usage = engine.disk_usage().await.expect("usage");
    assert_eq!((usage.images.len(), usage.collectible_bytes), (1, 0));
    assert!(
        usage.images[0].content > 0 && usage.images[0].unique == usage.image_bytes,
        "{usage:?}"
    );

    let layer = image.manifest().layers()[0].digest().to_string();
    let ways = engine.explain(&Resource::Content(layer.clone())).await.expect("a way");
    assert_eq!(
        ways[0].root,
        Root::Record(Key::image("default", image.name())),
        "{ways:?}"
    );
    assert!(ways[0].to_string().contains(&layer), "{}", ways[0]);

    let container = engine
        .container("c")
        .image(&image)
        .args(["/bin/sh", "-c", "exit 0"])
        .io(Io::null());
    let container = container.create().await.expect("created");
    engine.remove_image(&name).await.expect("removed");
    let report = engine.collect().await.expect("a collection");
    assert_eq!(report.removed, [], "the container holds it");
    container.start().await.expect("it still starts");
    container.wait().await.expect("it ends");
    container.delete(DeleteMode::Force).await.expect("deleted");

    let dry = engine.collect_with(CollectOptions::dry_run()).await.expect("a dry run");
    assert!(dry.freed_bytes() >= usage.image_bytes, "{dry:?}");
    recorder.take();
    let report = engine.collect().await.expect("a collection");
    assert_eq!(report.removed, dry.removed);
    assert_eq!(counts(&engine).await, (0, 0));
    assert_eq!(
        recorder
            .topics()
            .iter()
            .filter(|topic| **topic == "/content/delete")
            .count(),
        all.0
    );
    let metrics = engine.metrics().await.expect("metrics");
    let freed = format!("longshore_collection_freed_bytes_total {}\n", report.freed_bytes());
    assert!(
        metrics.contains(&freed) && metrics.contains("longshore_collection_pause_seconds_count"),
        "{metrics}"
    );
}

/// What a lease holds stays; a bundle without a container, a partial download and what was put by hand go.
#[tokio::test(flavor = "multi_thread")]
async fn leftovers_go_and_leases_hold() {
    use longshore::content::{ContentStoreExt, Expected, IngestRequest};
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine {
        collection: Collection::default().ingest_age(Duration::ZERO),
        ..Engine::open(folder.path()).await.expect("an engine")
    };
    let held = engine
        .content
        .put("a", "held".into(), Expected::default())
        .await
        .expect("stored");
    engine
        .content
        .put("b", "not held".into(), Expected::default())
        .await
        .expect("stored");
    engine
        .metadata
        .create_lease("default", "l", None)
        .await
        .expect("a lease");
    let resource = Resource::Content(held.digest.to_string());
    engine.metadata.hold("default", "l", &[resource]).await.expect("held");
    let request = IngestRequest {
        reference: "partial".to_owned(),
        expected: Expected::default(),
    };
    drop(engine.content.ingest(request).await.expect("begun"));
    let bundle = engine.root.join("bundles/default/nobody");
    std::fs::create_dir_all(&bundle).expect("a bundle");
    let report = engine.collect().await.expect("a collection");
    assert_eq!(report.removed.len(), 3, "{report:?}");
    assert!(engine.content.contains(&held.digest).await.expect("asked"));
    assert!(!bundle.exists() && engine.content.ingests().await.expect("a list").is_empty());
}

/// Pulls, removals and collections at once: whenever a pull has returned, the image is whole.
#[tokio::test(flavor = "multi_thread")]
async fn pulls_beside_collections_are_whole() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let registry = serve_host_image().await.expect("a registry");
    let name = format!("{}/demo/host:latest", registry.host());
    let engine = Engine::open(folder.path()).await.expect("an engine");
    let collecting = tokio::spawn({
        let engine = engine.clone();
        async move {
            loop {
                engine
                    .collect_with(CollectOptions::default().batch(1))
                    .await
                    .expect("a collection");
            }
        }
    });
    for round in 0..8 {
        let image = engine.pull(&name).await.expect("pulled");
        for layer in image.manifest().layers() {
            longshore::content::ContentStoreExt::verify(&*engine.content, layer.digest())
                .await
                .expect("a layer is there");
        }
        let container = engine
            .container(format!("c{round}"))
            .image(&image)
            .args(["/bin/sh", "-c", "exit 0"])
            .io(Io::null());
        let container = container.create().await.expect("created");
        engine.remove_image(&name).await.expect("removed");
        assert_eq!(container.run().await.expect("it runs").code, 0);
    }
    collecting.abort();
    let _ = collecting.await;
    engine.collect().await.expect("a collection");
    assert_eq!(counts(&engine).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_collected_in_the_background() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let registry = serve_host_image().await.expect("a registry");
    let name = format!("{}/demo/host:latest", registry.host());
    let engine = Engine::open(folder.path()).await.expect("an engine");
    let mut schedule = Schedule::default();
    (schedule.delay, schedule.share) = (Duration::ZERO, 100);
    let collecting = engine.collect_in_background(schedule);
    engine.pull(&name).await.expect("pulled");
    assert_ne!(counts(&engine).await, (0, 0));
    engine.remove_image(&name).await.expect("removed");
    while counts(&engine).await != (0, 0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(collecting);
}
