//! What is told of processes that end, and what is taken back of containers that were never whole.

#[path = "cases/commit.rs"]
mod commit;
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use longshore::{DeleteMode, Engine, EventKind, Filter};
use longshore_metadata::MetadataStoreExt;
use longshore_snapshot::Labels;
use longshore_testing::{require_root, skip};
use support::{Site, sleeper};

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_process_is_told_though_nobody_waits() {
    let Some(Site { folder, engine, image }) = Site::open().await else {
        return;
    };
    let container = sleeper(&engine, &image, "c").await;
    assert_eq!(container.stop_signal().await.expect("a signal"), 15);
    let filter = Filter::all()
        .expression("topic==/tasks/exit,event.id==quick")
        .expect("a filter");
    let mut exits = engine.subscribe(filter);
    let pid = container
        .command(["/bin/sh", "-c", "exit 3"])
        .id("quick")
        .spawn()
        .await
        .expect("spawned");
    let event = tokio::time::timeout(Duration::from_secs(60), exits.next())
        .await
        .expect("it is told");
    let event = event.expect("an event").event().cloned().expect("an event");
    assert!(
        matches!(&event.kind, EventKind::TaskExit { id, pid: told, exit_status: 3, .. } if id == "quick" && *told == pid),
        "{event}"
    );
    assert_eq!(container.wait_exec("quick").await.expect("it ended").code, 3);
    assert_eq!(exits.try_recv(), None, "it is told once");

    // The future holds nothing of the engine: another may open the root while it waits.
    let (exit, executor) = (container.exit(), engine.executor.clone());
    let task = longshore::runtime::ContainerId::new("c").expect("an id");
    drop((container, engine, exits));
    let waiting = tokio::spawn(exit);
    executor
        .kill(&task, 9, longshore::runtime::KillScope::All)
        .await
        .expect("killed");
    assert_eq!(waiting.await.expect("a task").expect("it ended").code, 137);
    let engine = Engine::open(folder.path()).await.expect("free");
    assert!(
        engine.containers().await.expect("a list").is_empty(),
        "a tied container is taken back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_never_whole_is_taken_back() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::open(folder.path()).await.expect("an engine");
    let record = |id: &str| longshore_metadata::Container {
        snapshotter: engine.snapshotter.name().to_owned(),
        snapshot: format!("default/{id}"),
        extensions: BTreeMap::from([("longshore.tied".to_owned(), false.into())]),
        ..Default::default()
    };
    for id in ["half", "gone"] {
        engine
            .metadata
            .create_container("default", id, record(id), BTreeMap::new())
            .await
            .expect("recorded");
        engine
            .snapshotter
            .prepare(&format!("default/{id}"), None, Labels::new())
            .await
            .expect("prepared");
    }
    // As a program leaves it that is killed between its first and its last step.
    std::fs::create_dir_all(folder.path().join("making")).expect("a folder");
    std::fs::write(folder.path().join("making/default+half"), "").expect("written");
    std::fs::write(folder.path().join("making/default+nobody"), "").expect("written");
    drop(engine);

    let engine = Engine::open(folder.path()).await.expect("an engine");
    let left = engine.containers().await.expect("a list");
    assert_eq!(
        left.iter().map(|container| container.id()).collect::<Vec<_>>(),
        ["gone"],
        "whose state went is kept"
    );
    assert_eq!(engine.snapshotter.walk().await.expect("a list").len(), 1);
    assert_eq!(
        std::fs::read_dir(folder.path().join("making"))
            .expect("a folder")
            .count(),
        0
    );
    left[0].delete(DeleteMode::Force).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_leaves_no_mark() {
    let Some(Site { folder, engine, image }) = Site::open().await else {
        return;
    };
    let container = engine
        .container("c")
        .image(&image)
        .args(["/bin/sh"])
        .create()
        .await
        .expect("created");
    engine
        .container("c")
        .image(&image)
        .create()
        .await
        .expect_err("the id is taken");
    engine
        .container("d")
        .image(&image)
        .args(["/no/such"])
        .create()
        .await
        .expect_err("no program");
    assert_eq!(
        std::fs::read_dir(folder.path().join("making"))
            .expect("a folder")
            .count(),
        0
    );
    container.delete(DeleteMode::Force).await.expect("deleted");
}
