//! As many layers as an overlay may have.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;

use common::layer::Layer;
use common::skip_unless_root;
use longshore_linux::Mount;
use longshore_snapshot::conformance::Mounted;
use longshore_snapshot::{ApplyOptions, ErrorKind, Labels, OverlaySnapshotter, Snapshotter, apply_layer};

/// The kernel's limit.
const MANY: usize = 500;

#[tokio::test]
async fn five_hundred_layers() {
    if skip_unless_root() {
        return;
    }
    // In memory if possible: each commit syncs its filesystem.
    let temp = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let root = temp.path().join("a-root-of-some-length");
    let snapshotter = OverlaySnapshotter::open(&root).await.unwrap();
    // Numbers of five digits, as in a store that has seen some use.
    std::fs::create_dir(root.join("snapshots/99990")).unwrap();
    drop(snapshotter);
    let snapshotter = open_again(&root).await;
    let mut parent: Option<String> = None;
    for number in 0..MANY {
        let layer = Layer::new()
            .file(&format!("file{number}"), &number.to_string())
            .file("last", &number.to_string());
        // One hides what the one before has, and one looks through all below for the target of its link.
        let layer = match number {
            300 => layer.file(".wh.file299", ""),
            400 => layer.hard_link("linked", "file7"),
            _ => layer,
        };
        let mounts = snapshotter
            .prepare("unpacking", parent.as_deref(), Labels::new())
            .await
            .unwrap();
        apply_layer(&mounts, &layer.done()[..], &ApplyOptions::default()).unwrap();
        let name = format!("layer-{number}");
        snapshotter.commit("unpacking", &name, Labels::new()).await.unwrap();
        parent = Some(name);
    }

    for (key, mounts) in [
        (
            "active",
            snapshotter
                .prepare("active", parent.as_deref(), Labels::new())
                .await
                .unwrap(),
        ),
        (
            "view",
            snapshotter
                .view("view", parent.as_deref(), Labels::new())
                .await
                .unwrap(),
        ),
    ] {
        assert_eq!(snapshotter.mounts(key).await.unwrap(), mounts);
        assert_eq!(mounts[0].lower_dirs().len(), MANY);
        let mounted = Mounted::new(&mounts);
        for (file, content) in [
            ("file0", "0"),
            ("file250", "250"),
            ("file499", "499"),
            ("last", "499"),
            ("linked", "7"),
        ] {
            assert_eq!(mounted.read(file).as_deref(), Some(content), "{key}: {file}");
        }
        assert_eq!(mounted.read("file299"), None);
        drop(mounted);
        by_mount(&mounts[0], temp.path());
    }

    // What changed on top of them is found in the topmost alone.
    let mounts = snapshotter.mounts("active").await.unwrap();
    let upper = mounts[0].value_of("upperdir").unwrap();
    std::fs::write(Path::new(upper).join("file250"), "changed").unwrap();
    let changes = longshore_snapshot::snapshot_changes(&snapshotter, "active")
        .await
        .unwrap();
    let paths: Vec<_> = changes.iter().map(|change| change.path.display().to_string()).collect();
    assert_eq!(paths, ["/file250"], "{changes:?}");

    // One more is more than the kernel takes, and is told before anybody tries.
    snapshotter.commit("active", "one-more", Labels::new()).await.unwrap();
    let error = snapshotter
        .prepare("too-many", Some("one-more"), Labels::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("500 layers at most"), "{error}");

    // Short names go with what they are for.
    let names = || std::fs::read_dir(root.join("l")).unwrap().count();
    assert_eq!(names(), MANY);
    snapshotter.remove("view").await.unwrap();
    snapshotter.remove("one-more").await.unwrap();
    snapshotter.remove("layer-499").await.unwrap();
    assert_eq!(names(), MANY - 1);
    std::os::unix::fs::symlink("../snapshots/7/fs", root.join("l/7")).unwrap();
    snapshotter.cleanup().await.unwrap();
    assert_eq!(names(), MANY - 1);
}

/// As mount(8) and containerd's clients do it: the options in one page, from the directory that the layers have in common.
fn by_mount(mount: &Mount, scratch: &Path) {
    let absolute: usize = mount.options.iter().map(String::len).sum();
    assert!(absolute > 4096, "{absolute}");
    let (dir, short) = mount.in_common_dir().unwrap();
    let options = short.options.join(",");
    assert!(options.len() < 4096, "{}", options.len());
    let target = scratch.join("target");
    std::fs::create_dir_all(&target).unwrap();
    let script = "mount -i -n -t overlay -o \"$0\" overlay \"$1\" && cat \"$1/file0\" \"$1/file250\" \"$1/file499\"";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, &options])
        .arg(&target)
        .current_dir(dir)
        .output();
    match output {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), "0250499", "{output:?}"),
        Err(error) => longshore_testing::skip(&format!("unshare(1): {error}")),
    }
}

/// Background syncs hold the snapshotter for a moment after it is dropped.
async fn open_again(root: &Path) -> OverlaySnapshotter {
    loop {
        match OverlaySnapshotter::open(root).await {
            Err(error) if error.kind() == ErrorKind::InUse => tokio::task::yield_now().await,
            answer => return answer.unwrap(),
        }
    }
}
