//! Tenants do not meet: the same id in two namespaces is two containers.

mod support;

use std::sync::Arc;

use longshore::{DeleteMode, Engine, ErrorKind, Status};
use longshore_examples::quickstart::serve_host_image;
use longshore_testing::{require_root, skip};
use support::{Site, sleeper};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_in_two_namespaces_is_two_containers() {
    let Some((_folder, engine, image)) = Site::parts().await else {
        return;
    };
    let other = Engine {
        namespace: "other".to_owned(),
        ..engine.clone()
    };
    let (first, second) = (
        sleeper(&engine, &image, "same").await,
        sleeper(&other, &image, "same").await,
    );

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
    let container = sleeper(&one, &one.pull(&name).await.expect("pulled"), "same").await;
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
