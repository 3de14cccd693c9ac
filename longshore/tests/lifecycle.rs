//! What is told of processes that end, and what is taken back of containers that were never whole.

#[path = "cases/commit.rs"]
mod commit;
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use longshore::{DeleteMode, Engine, EventKind, Filter, LogFile, LogFormat, LogOptions, OutputStream};
use longshore_metadata::MetadataStoreExt;
use longshore_snapshot::Labels;
use longshore_testing::{require_root, skip};
use support::{Site, sleeper};

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_process_is_told_though_nobody_waits() {
    let Some((folder, engine, image)) = Site::parts().await else {
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
    let Some((folder, engine, image)) = Site::parts().await else {
        return;
    };
    let create = engine.container("c").image(&image).args(["/bin/sh"]).create();
    // Its future can be sent to another thread.
    let container = tokio::spawn(create).await.expect("a task").expect("created");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_to_the_last_byte() {
    let Some((folder, engine, image)) = Site::parts().await else {
        return;
    };
    let log = LogFile::new(folder.path().join("log"))
        .format(LogFormat::Cri)
        .rotate(200, 90);
    let script = "for i in 1 2 3 4 5 6 7 8 9; do echo $i; echo x >&2; done; while [ ! -e /open ]; do sleep 0.05; done; printf end";
    let builder = engine.container("c").image(&image).log(log.clone());
    let builder = builder.args(["/bin/sh", "-c", script]);
    let container = builder.create().await.expect("created");
    assert_eq!(container.log_file().await.expect("known"), Some(log));
    let only = LogOptions::default().only(OutputStream::Stdout);
    let mut followed = container.logs(only.clone().follow()).await.expect("a stream");
    container.start().await.expect("started");
    let mut text = Vec::new();
    while !text.ends_with(b"9\n") {
        text.extend(followed.next().await.expect("more comes").expect("readable").text);
    }
    let open = container.command(["/bin/sh", "-c", ": >/open"]);
    open.run().await.expect("it runs");
    while let Some(record) = followed.next().await {
        text.extend(record.expect("readable").text);
    }
    assert_eq!(String::from_utf8_lossy(&text), "1\n2\n3\n4\n5\n6\n7\n8\n9\nend");
    let tail = container.logs(only.tail(2)).await.expect("a stream");
    let tail: Vec<_> = tail.map(|record| record.expect("readable").text).collect().await;
    assert_eq!(tail, [b"9\n".to_vec(), b"end".to_vec()]);
    container.delete(DeleteMode::Force).await.expect("deleted");

    let silent = sleeper(&engine, &image, "silent").await;
    let refused = silent.logs(LogOptions::default()).await.map(drop);
    assert!(refused.is_err_and(|error| error.to_string().contains("without one")));
    silent.delete(DeleteMode::Force).await.expect("deleted");
}
