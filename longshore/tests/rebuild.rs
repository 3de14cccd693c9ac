//! After the metadata was lost, images and containers are found again; after blobs were damaged, they are fetched again.

mod support;

use longshore::content::{ContentStoreExt, Fault};
use longshore::{DeleteMode, Engine, ErrorKind, Io, Lifetime, Status};
use longshore_examples::quickstart::serve_host_image;
use longshore_testing::{require_root, skip};
use support::Site;

#[tokio::test(flavor = "multi_thread")]
async fn damaged_content_is_found_and_fetched_again() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let registry = serve_host_image().await.expect("a registry");
    let engine = Engine::open(folder.path()).await.expect("an engine");
    let name = format!("{}/demo/host:latest", registry.host());
    let image = engine.pull(&name).await.expect("pulled");
    let found = engine.verify_content(|verifier| verifier).await.expect("verified");
    assert!(found.blobs >= 3 && found.problems.is_empty(), "{found:?}");

    let path =
        |digest: &longshore::oci_spec::image::Digest| folder.path().join("content/blobs/sha256").join(digest.digest());
    let layer = image.manifest().layers()[0].digest();
    let config = image.manifest().config().digest();
    std::fs::write(path(layer), "damaged").expect("written");
    std::fs::remove_file(path(config)).expect("removed");
    let stray = engine
        .content
        .put("stray", "stray".into(), Default::default())
        .await
        .expect("stored");
    std::fs::write(path(&stray.digest), "strax").expect("written");

    let found = engine.verify_content(|verifier| verifier).await.expect("verified");
    assert_eq!(found.problems.len(), 3, "{found:?}");
    for problem in &found.problems {
        let digest = &problem.subject.digest;
        match &problem.fault {
            Fault::WrongLength { actual: 7 } => assert_eq!(digest, layer),
            Fault::Missing => assert_eq!(digest, config),
            Fault::Damaged { .. } => assert_eq!(digest, &stray.digest),
            other => panic!("{other:?}"),
        }
    }
    let repair = engine.repair_content(found.problems).await.expect("repaired");
    assert_eq!(repair.repaired.len(), 2, "{repair:?}");
    assert_eq!(repair.failed[0].0.subject.digest, stray.digest, "no image has it");
    engine.content.remove(&stray.digest).await.expect("removed");
    let found = engine.verify_content(|verifier| verifier).await.expect("verified");
    assert!(found.problems.is_empty(), "{found:?}");
    engine.image(&name).await.expect("it is whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_stores_hold_is_recorded_again() {
    let Some((folder, engine, image)) = Site::parts().await else {
        return;
    };
    let builder = engine
        .container("c")
        .image(&image)
        .args(["/bin/sleep", "60"])
        .io(Io::null());
    let container = builder.lifetime(Lifetime::Detached).create().await.expect("created");
    container.start().await.expect("started");
    let target = image.target().digest().to_string();
    drop((container, image, engine));

    let path = folder.path().join("metadata.redb");
    std::fs::write(&path, "damaged ".repeat(5_000)).expect("written");
    let error = Engine::open(folder.path()).await.expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");

    let (engine, rebuilt) = Engine::recover_root(folder.path()).await.expect("recovered");
    assert_eq!(rebuilt.images, [format!("recovered.localhost/image@{target}")]);
    assert_eq!(rebuilt.containers, ["c"]);
    assert_eq!(
        engine.rebuild().await.expect("again"),
        Default::default(),
        "there is nothing more"
    );
    assert_eq!(
        engine.collect().await.expect("a collection").removed,
        [],
        "all of it is held"
    );
    let container = engine.find_container("c").await.expect("found");
    assert_eq!(container.state().await.expect("a state").status, Status::Running);
    container.delete(DeleteMode::Force).await.expect("deleted");

    // The image is as good as before.
    let image = engine.image(&rebuilt.images[0]).await.expect("the image");
    let again = engine
        .container("d")
        .image(&image)
        .args(["/bin/sh", "-c", "exit 4"])
        .io(Io::null());
    assert_eq!(
        again
            .create()
            .await
            .expect("created")
            .run()
            .await
            .expect("it runs")
            .code,
        4
    );
    engine.remove_image(&rebuilt.images[0]).await.expect("removed");
    engine.collect().await.expect("a collection");
    assert!(engine.snapshotter.walk().await.expect("a list").is_empty());
}
