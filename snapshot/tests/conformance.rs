//! The port's suite on our implementations.

#![allow(clippy::unwrap_used)]

use longshore_snapshot::{
    ErrorKind, Kind, Labels, NativeSnapshotter, OverlaySnapshotter, Snapshotter, conformance, detect,
};

#[tokio::test(flavor = "multi_thread")]
async fn overlay() {
    if !rustix::process::geteuid().is_root() {
        longshore_testing::skip("mounting overlay needs root");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    conformance::run(&OverlaySnapshotter::open(root.path()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native() {
    let root = tempfile::tempdir().unwrap();
    conformance::run(&NativeSnapshotter::open(root.path()).await.unwrap()).await;
}

#[tokio::test]
async fn what_was_made_is_there_after_opening_again_and_what_was_not_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let first = NativeSnapshotter::open(root.path()).await.unwrap();
    let busy = NativeSnapshotter::open(root.path()).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::InUse);
    assert!(busy.to_string().contains(&std::process::id().to_string()), "{busy}");
    first.prepare("a", None, Labels::new()).await.unwrap();
    first.commit("a", "base", Labels::new()).await.unwrap();
    first.prepare("b", Some("base"), Labels::new()).await.unwrap();
    first.prepare("c", Some("base"), Labels::new()).await.unwrap();
    let before = first.walk().await.unwrap();
    let left = root.path().join("snapshots/77/fs");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("file"), "interrupted").unwrap();
    drop_whole(first).await;

    let again = open_again(root.path()).await;
    assert_eq!(again.walk().await.unwrap(), before);
    assert!(!root.path().join("snapshots/77").exists());
    let mounts = again.prepare("d", None, Labels::new()).await.unwrap();
    assert!(
        mounts[0].source.ends_with("snapshots/78/fs"),
        "numbers are not used twice: {mounts:?}"
    );
    // As after a loss of power: the record is there, the directory is not.
    let c = again.mounts("c").await.unwrap().remove(0).source;
    drop_whole(again).await;
    std::fs::remove_dir_all(c).unwrap();
    let last = open_again(root.path()).await;
    assert_eq!(last.stat("c").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(last.stat("b").await.unwrap().kind, Kind::Active);
}

/// Background syncs hold the snapshotter for a moment after it is dropped.
async fn open_again(root: &std::path::Path) -> NativeSnapshotter {
    loop {
        match NativeSnapshotter::open(root).await {
            Err(error) if error.kind() == ErrorKind::InUse => tokio::task::yield_now().await,
            answer => return answer.unwrap(),
        }
    }
}

async fn drop_whole(snapshotter: NativeSnapshotter) {
    drop(snapshotter);
    tokio::task::yield_now().await;
}

#[tokio::test]
async fn a_path_that_mount_options_can_not_hold_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let error = OverlaySnapshotter::open(temp.path().join("a,b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("mount options"), "{error}");
    let fallback = detect(temp.path().join("a:b")).await.unwrap();
    assert_eq!(fallback.name(), "native");
}
