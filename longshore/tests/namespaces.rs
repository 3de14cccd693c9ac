//! Tenants do not meet: the same id in two namespaces is two containers.

use std::sync::Arc;

use longshore::{DeleteMode, Engine, ErrorKind, Image, Io, Status};
use longshore_examples::quickstart::serve_host_image;
use longshore_testing::{require_root, skip};

async fn sleeper(engine: &Engine, image: &Image) -> longshore::Container {
    let builder = engine
        .container("same")
        .image(image)
        .args(["/bin/sleep", "60"])
        .io(Io::null());
    let container = builder.create().await.expect("created");
    container.start().await.expect("started");
    container
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_in_two_namespaces_is_two_containers() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let registry = serve_host_image().await.expect("a registry");
    let engine = Engine::open(folder.path()).await.expect("an engine");
    let image = engine
        .pull(format!("{}/demo/host:latest", registry.host()))
        .await
        .expect("pulled");
    let other = Engine {
        namespace: "other".to_owned(),
        ..engine.clone()
    };
    let (first, second) = (sleeper(&engine, &image).await, sleeper(&other, &image).await);

    // A third one by that name fails, and takes nothing of the others away.
    let again = other
        .container("same")
        .image(&image)
        .create()
        .await
        .expect_err("the id is taken");
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    for (engine, namespace) in [(&engine, "default"), (&other, "other")] {
        let text = engine.metrics().await.expect("metrics");
        assert!(
            text.contains(&format!(r#"namespace="{namespace}""#)),
            "{namespace} is missing from {text}"
        );
    }
    second.delete(DeleteMode::Force).await.expect("deleted");
    assert_eq!(first.state().await.expect("known").status, Status::Running);
    first.delete(DeleteMode::Force).await.expect("deleted");
}

/// What a create that fails takes back is its own: not what another engine has under that id at the same executor.
#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_fails_leaves_others_alone() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let folders = [
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    ];
    let registry = serve_host_image().await.expect("a registry");
    let name = format!("{}/demo/host:latest", registry.host());
    let one = Engine::open(folders[0].path()).await.expect("an engine");
    let two = Engine {
        executor: Arc::clone(&one.executor),
        ..Engine::open(folders[1].path()).await.expect("another")
    };
    let container = sleeper(&one, &one.pull(&name).await.expect("pulled")).await;
    let image = two.pull(&name).await.expect("pulled");
    let error = two
        .container("same")
        .image(&image)
        .create()
        .await
        .expect_err("the executor has that id");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
    assert!(
        two.containers().await.expect("a list").is_empty(),
        "nothing half-made is recorded"
    );
    assert_eq!(container.state().await.expect("known").status, Status::Running);
    container.delete(DeleteMode::Force).await.expect("deleted");
}
