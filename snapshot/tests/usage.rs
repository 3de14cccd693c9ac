//! What a snapshot takes is counted while its layer is applied; nobody looks through it afterwards.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::layer::{Layer, record};
use common::skip_unless_root;
use longshore_linux::Mount;
use longshore_snapshot::{
    Applied, ApplyOptions, ErrorKind, Labels, NativeSnapshotter, OverlaySnapshotter, Snapshotter, Usage, apply_layer,
};
use tar::EntryType;

/// By looking at every file.
fn walked(root: &Path) -> Usage {
    fn add(path: &Path, seen: &mut HashSet<u64>, usage: &mut Usage) {
        let meta = std::fs::symlink_metadata(path).unwrap();
        if !seen.insert(meta.ino()) {
            return;
        }
        usage.inodes += 1;
        usage.bytes += meta.blocks() * 512;
        if meta.is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                add(&entry.unwrap().path(), seen, usage);
            }
        }
    }
    let mut usage = Usage::default();
    add(root, &mut HashSet::new(), &mut usage);
    usage
}

fn written(mount: &Mount) -> PathBuf {
    match mount.value_of("upperdir") {
        Some(upper) => PathBuf::from(upper),
        None => mount.source.clone(),
    }
}

fn apply(mounts: &[Mount], layer: Layer) -> Applied {
    apply_layer(mounts, &layer.done()[..], &ApplyOptions::default()).unwrap()
}

fn base() -> Layer {
    let mut layer = Layer::new().dir("etc").file("etc/one", "1").file("etc/two", "2");
    for number in 0..50 {
        layer = layer.file(&format!("lib/deep/{number}"), "x");
    }
    layer.symlink("way", "lib").dir("opaque").file("opaque/f", "")
}

/// Everything that makes or takes away files.
fn everything() -> Layer {
    let mut sparse = Vec::new();
    record(&mut sparse, "GNU.sparse.map", b"1000000,6");
    record(&mut sparse, "GNU.sparse.size", b"2000000");
    let mut layer = Layer::new()
        .dir(".")
        .file("big", &"content ".repeat(100_000))
        .pax(&sparse)
        .file("sparse", "middle")
        .symlink("short", "x")
        .symlink("long", &"a/".repeat(1000))
        .entry(EntryType::Fifo, b"fifo", b"", 0o644, b"")
        .entry(EntryType::Char, b"null", b"", 0o666, b"")
        .hard_link("big2", "big")
        .hard_link("from-below", "etc/one")
        .file("implied/by/a/name", "x")
        .file("way/through-a-link", "x")
        // Replaced: a file, a name of several, a whole directory.
        .file("replaced", &"x".repeat(50_000))
        .file("replaced", "x")
        .hard_link("big3", "big")
        .file("big3", "now another")
        .dir("tree")
        .file("tree/a/b/c", &"x".repeat(20_000))
        .hard_link("tree/again", "tree/a/b/c")
        .hard_link("stays", "tree/a/b/c")
        .file("tree", "now a file")
        .dir("tree2")
        .file("tree2/a", "x")
        .hard_link("tree2/b", "tree2/a")
        .symlink("tree2", "etc")
        .file("becomes", "x")
        .dir("becomes")
        // Hidden.
        .file("etc/.wh.two", "")
        .file("lib/deep/.wh.7", "")
        .file("lib/.wh.deep", "")
        .file("opaque/new", "x")
        .file("opaque/.wh..wh..opq", "");
    for number in 0..400 {
        layer = layer.file(&format!("many/{number:0>100}"), "");
    }
    layer
        .xattr("user.mark", &[b'x'; 3000])
        .file("marked", "x")
        .file("many/late", "")
}

#[tokio::test]
async fn as_a_walk_would_count() {
    if skip_unless_root() {
        return;
    }
    // On disk, and in memory: directories differ.
    for place in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        let Ok(temp) = tempfile::tempdir_in(&place) else {
            longshore_testing::skip(&format!("{} can't be written", place.display()));
            continue;
        };
        let overlay = OverlaySnapshotter::open(temp.path().join("o")).await.unwrap();
        let mounts = overlay.prepare("a", None, Labels::new()).await.unwrap();
        let applied = apply(&mounts, base());
        assert_eq!(applied.usage, Some(walked(&written(&mounts[0]))), "{place:?}");
        overlay
            .commit_counted("a", "base", Labels::new(), applied.usage)
            .await
            .unwrap();
        for layer in [
            everything(),
            Layer::new(),
            Layer::new().file(".wh..wh..opq", "").file("etc/x", ""),
        ] {
            let mounts = overlay.prepare("b", Some("base"), Labels::new()).await.unwrap();
            let applied = apply(&mounts, layer);
            assert_eq!(applied.usage, Some(walked(&written(&mounts[0]))), "{place:?}");
            assert_eq!(overlay.usage("b").await.unwrap(), applied.usage.unwrap());
            // A second layer into the same directory is nobody's to count.
            if applied.entries > 0 {
                assert_eq!(apply(&mounts, base()).usage, None);
            }
            overlay.remove("b").await.unwrap();
        }
    }
}

#[tokio::test]
async fn nobody_looks_through_the_files_again() {
    let temp = tempfile::tempdir().unwrap();
    let snapshotter = NativeSnapshotter::open(temp.path()).await.unwrap();
    let mounts = snapshotter.prepare("a", None, Labels::new()).await.unwrap();
    let options = ApplyOptions::default().ownership(longshore_snapshot::Ownership::Caller);
    let applied = apply_layer(&mounts, &base().done()[..], &options).unwrap();
    let counted = applied.usage.unwrap();
    assert_eq!(counted, walked(&mounts[0].source));
    snapshotter
        .commit_counted("a", "counted", Labels::new(), applied.usage)
        .await
        .unwrap();
    let mounts = snapshotter.prepare("b", None, Labels::new()).await.unwrap();
    let dir = mounts[0].source.clone();
    apply_layer(&mounts, &base().done()[..], &options).unwrap();
    snapshotter.commit("b", "not-counted", Labels::new()).await.unwrap();

    // Where there is nothing to look through any more, only what was kept can be told.
    for path in [temp.path().join("snapshots/1/fs"), dir] {
        std::fs::remove_dir_all(path).unwrap();
    }
    assert_eq!(snapshotter.usage("counted").await.unwrap(), counted);
    assert_eq!(snapshotter.usage("not-counted").await.unwrap(), Usage::default());
    drop(snapshotter);
    let again = loop {
        match NativeSnapshotter::open(temp.path()).await {
            Err(error) if error.kind() == ErrorKind::InUse => tokio::task::yield_now().await,
            answer => break answer.unwrap(),
        }
    };
    assert_eq!(again.usage("counted").await.unwrap(), counted, "it is kept");
}
