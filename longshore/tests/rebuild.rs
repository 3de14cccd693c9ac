//! After the metadata was lost, images and containers are found again.

mod support;

use longshore::{DeleteMode, Engine, ErrorKind, Io, Lifetime, Status};
use support::Site;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_stores_hold_is_recorded_again() {
    let Some(Site { folder, engine, image }) = Site::open().await else {
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
