//! A removed snapshot is out of the way at once; its files go in the background, or when the store is opened next.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;

use longshore_snapshot::{ErrorKind, Labels, NativeSnapshotter, Snapshotter};

/// Tells the process that is started to be killed where to work.
const WORK: &str = "LONGSHORE_TEST_WORK";

fn fill(dir: &Path, files: usize) {
    for number in 0..files {
        let dir = dir.join((number % 50).to_string());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(number.to_string()), "").unwrap();
    }
}

fn left(root: &Path) -> Vec<String> {
    let names = std::fs::read_dir(root.join("snapshots")).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn cleanup_waits_and_so_does_closing() {
    let temp = tempfile::tempdir().unwrap();
    let snapshotter = NativeSnapshotter::open(temp.path()).await.unwrap();
    for round in 0..3 {
        for key in ["a", "b"] {
            let mounts = snapshotter.prepare(key, None, Labels::new()).await.unwrap();
            fill(&mounts[0].source, 500);
        }
        snapshotter.remove("a").await.unwrap();
        snapshotter.remove("b").await.unwrap();
        assert_eq!(snapshotter.stat("a").await.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(
            left(temp.path()).iter().all(|name| name.ends_with(".gone")),
            "round {round}"
        );
        // The key is free whatever is left.
        snapshotter.prepare("a", None, Labels::new()).await.unwrap();
        snapshotter.remove("a").await.unwrap();
        snapshotter.cleanup().await.unwrap();
        assert_eq!(left(temp.path()), [""; 0]);
    }
    let mounts = snapshotter.prepare("last", None, Labels::new()).await.unwrap();
    fill(&mounts[0].source, 500);
    snapshotter.remove("last").await.unwrap();
    drop(snapshotter);
    // A sync in the background may hold it for a moment more.
    while let Err(error) = NativeSnapshotter::open(temp.path()).await {
        assert_eq!(error.kind(), ErrorKind::InUse);
        tokio::task::yield_now().await;
    }
    assert_eq!(left(temp.path()), [""; 0]);
}

/// What can't be removed does not make `remove` fail, which does not wait for it, but `cleanup`; and that goes on when it can.
#[tokio::test]
async fn removing_does_not_wait_for_the_files() {
    if common::skip_unless_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let snapshotter = NativeSnapshotter::open(temp.path()).await.unwrap();
    let mounts = snapshotter.prepare("a", None, Labels::new()).await.unwrap();
    let held = mounts[0].source.join("held");
    std::fs::write(&held, "").unwrap();
    let attribute = |what: &str, path: &Path| Command::new("chattr").arg(what).arg(path).output();
    match attribute("+i", &held) {
        Ok(output) if output.status.success() => {}
        answer => {
            longshore_testing::skip(&format!("chattr(1): {answer:?}"));
            return;
        }
    }
    let removed = snapshotter.remove("a").await;
    let cleaned = snapshotter.cleanup().await;
    let gone = temp.path().join("snapshots/1.gone/fs/held");
    let found = gone.exists();
    attribute("-i", &gone).unwrap();
    removed.unwrap();
    assert!(found, "{:?}", left(temp.path()));
    assert_eq!(cleaned.unwrap_err().kind(), ErrorKind::PermissionDenied);
    snapshotter.cleanup().await.unwrap();
    assert_eq!(left(temp.path()), [""; 0]);
}

#[tokio::test]
async fn what_a_killed_process_left_is_finished() {
    if let Some(work) = std::env::var_os(WORK) {
        let snapshotter = NativeSnapshotter::open(Path::new(&work)).await.unwrap();
        let mounts = snapshotter.prepare("a", None, Labels::new()).await.unwrap();
        fill(&mounts[0].source, 2000);
        snapshotter.prepare("kept", None, Labels::new()).await.unwrap();
        snapshotter.remove("a").await.unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        unreachable!("it was killed");
    }
    let temp = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_a_killed_process_left_is_finished"])
        .env(WORK, temp.path())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
    // All that there may be is the one that is kept, and the one that was on its way out.
    assert!(
        left(temp.path()).iter().all(|name| name == "2" || name == "1.gone"),
        "{:?}",
        left(temp.path())
    );
    let snapshotter = NativeSnapshotter::open(temp.path()).await.unwrap();
    assert_eq!(snapshotter.walk().await.unwrap().len(), 1);
    snapshotter.cleanup().await.unwrap();
    assert_eq!(left(temp.path()), ["2"]);
}
