//! Pulls beside each other and beside other work.

mod support;

use longshore::{DeleteMode, Engine};
use longshore_examples::host_image;
use longshore_metadata::MetadataStoreExt;
use longshore_registry::{Fault, FaultScript, Registry, RunningRegistry};
use longshore_testing::{require_root, skip};
use support::{Site, sleeper};

/// A registry with this machine's programs as `app:1`.
async fn serve(faults: FaultScript) -> RunningRegistry {
    let registry = Registry::builder().faults(faults).serve("127.0.0.1:0").await;
    let registry = registry.expect("a registry");
    let image = host_image::build().expect("an image");
    for (_, bytes) in &image.blobs {
        registry.put_blob(bytes.clone()).await.expect("a blob");
    }
    let (manifest, bytes) = image.manifest;
    let put = registry.put_manifest("app", Some("1"), manifest.media_type().as_ref(), bytes);
    put.await.expect("a manifest");
    registry
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_twice_at_once_is_fetched_once() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::open(folder.path()).await.expect("an engine");
    let registry = serve(FaultScript::new()).await;
    let name = format!("{}/app:1", registry.host());
    let tenant = Engine {
        namespace: "tenant".to_owned(),
        ..engine.clone()
    };
    let pulls = [&engine, &engine, &tenant, &tenant].map(|engine| {
        let (engine, name) = (engine.clone(), name.clone());
        tokio::spawn(async move { engine.pull(name).await })
    });
    let mut images = Vec::new();
    for pull in pulls {
        images.push(pull.await.expect("no panic").expect("pulled"));
    }
    let image = &images[0];
    for other in &images {
        assert_eq!((other.target(), other.chain_id()), (image.target(), image.chain_id()));
    }
    for blob in image.manifest().layers().iter().chain([image.manifest().config()]) {
        let requests = registry.requests();
        let gets = requests
            .iter()
            .filter(|request| request.path.ends_with(blob.digest().as_ref()));
        assert_eq!(gets.count(), 1, "{}: {requests:?}", blob.digest());
    }

    // What is there costs one request, which asks what the tag stands for.
    for engine in [&engine, &tenant] {
        registry.clear_requests();
        engine.pull(&name).await.expect("pulled again");
        assert_eq!(registry.requests().len(), 1, "{:?}", registry.requests());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_takes_long_holds_nobody_up() {
    let Some((_folder, engine, image)) = Site::parts().await else {
        return;
    };
    let quick = serve(FaultScript::new()).await;

    // The other one begins to answer, and then says nothing more.
    let faults = FaultScript::new();
    faults.add("/manifests/", Fault::StallAfter(10));
    let slow = serve(faults).await;
    let name = format!("{}/app:1", slow.host());
    let pulling = tokio::spawn({
        let (engine, name) = (engine.clone(), name.clone());
        async move { engine.pull(name).await }
    });
    while slow.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    engine.tag(image.name(), "other.example/a:1").await.expect("named");
    let container = sleeper(&engine, &image, "c").await;
    container.delete(DeleteMode::Force).await.expect("deleted");
    engine
        .push("other.example/a:1", format!("{}/pushed:1", quick.host()))
        .await
        .expect("pushed");
    engine.remove_image("other.example/a:1").await.expect("removed");
    engine.collect().await.expect("collected");
    assert_eq!(engine.images().await.expect("a list").len(), 1);
    assert!(!pulling.is_finished());
    pulling.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_a_killed_program_with_the_same_number_are_in_nobodys_way() {
    let Some((_folder, engine, image)) = Site::parts().await else {
        return;
    };
    let process = std::process::id();
    for number in 0..64 {
        let lease = format!("tag-{process}-{number}");
        // It may be our own.
        let _ = engine.metadata.create_lease(&engine.namespace, &lease, None).await;
    }
    engine.tag(image.name(), "other.example/a:1").await.expect("named");
}
