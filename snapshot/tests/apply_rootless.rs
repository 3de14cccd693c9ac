//! An ordinary user unpacks: all files are the user's, and modes that bar the owner are no obstacle.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use common::layer::Layer;
use longshore_snapshot::{
    ApplyOptions, Labels, NativeSnapshotter, OverlaySnapshotter, Ownership, Snapshotter, apply_layer,
};
use tar::EntryType;

/// Tells the process that is started as another user where to work.
const WORK: &str = "LONGSHORE_TEST_WORK";

#[test]
fn as_an_ordinary_user() {
    if let Some(work) = std::env::var_os(WORK) {
        return unpack(Path::new(&work));
    }
    if common::skip_unless_root() {
        return;
    }
    // Somewhere that the other user can reach, with a copy of this program.
    let temp = tempfile::tempdir().unwrap();
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = temp.path().join("program");
    longshore_testing::copy_program(std::env::current_exe().unwrap(), &program).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["--exact", "as_an_ordinary_user", "--nocapture"])
        .env(WORK, temp.path().join("work"))
        .current_dir(temp.path())
        .output();
    match output {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => longshore_testing::skip(&format!("setpriv(1): {error}")),
    }
}

fn unpack(work: &Path) {
    assert!(!rustix::process::geteuid().is_root());
    let layer = Layer::new()
        .entry(EntryType::Directory, b"locked", b"", 0o000, b"")
        .file("locked/file", "content")
        .entry(EntryType::Directory, b"read-only", b"", 0o555, b"")
        .entry(EntryType::Regular, b"read-only/secret", b"", 0o000, b"x")
        .entry(EntryType::Char, b"null", b"", 0o666, b"")
        .xattr("security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .file("capable", "")
        .hard_link("link", "locked/file")
        .symlink("link-to", "/etc")
        // Entered again after it was left.
        .file("locked/second", "")
        .done();
    let options = ApplyOptions::default().ownership(Ownership::Caller);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let native = NativeSnapshotter::open(work.join("native")).await.unwrap();
        exercise(&native, &layer, &options).await;
        match OverlaySnapshotter::open(work.join("overlay")).await {
            Ok(overlay) => exercise(&overlay, &layer, &options).await,
            Err(error) => longshore_testing::skip(&format!("rootless overlay: {error}")),
        }
    });
}

async fn exercise(snapshotter: &dyn Snapshotter, layer: &[u8], options: &ApplyOptions) {
    let mounts = snapshotter.prepare("one", None, Labels::new()).await.unwrap();
    let applied = apply_layer(&mounts, layer, options).unwrap();
    assert_eq!((applied.skipped.devices, applied.skipped.xattrs), (1, 1));
    let root = mounts[0].source.clone();
    let mode = |path: &str| std::fs::symlink_metadata(root.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("locked"), mode("read-only")), (0o000, 0o555));
    assert!(!root.join("null").exists());
    assert_eq!(std::fs::symlink_metadata(root.join("link")).unwrap().nlink(), 2);
    assert_eq!(std::fs::symlink_metadata(root.join("capable")).unwrap().uid(), 65534);
    snapshotter.commit("one", "base", Labels::new()).await.unwrap();
    if snapshotter.name() == "overlay" {
        let mounts = snapshotter.prepare("two", Some("base"), Labels::new()).await.unwrap();
        assert!(
            mounts[0].options.iter().any(|option| option == "userxattr"),
            "{mounts:?}"
        );
        let second = Layer::new()
            .file(".wh.capable", "")
            .file("read-only/.wh..wh..opq", "")
            .done();
        apply_layer(&mounts, &second[..], options).unwrap();
        let upper = Path::new(mounts[0].value_of("upperdir").unwrap()).to_owned();
        assert_eq!(std::fs::symlink_metadata(upper.join("capable")).unwrap().rdev(), 0);
        assert_eq!(
            common::xattrs(&upper.join("read-only")).get(&b"user.overlay.opaque"[..]),
            Some(&b"y".to_vec())
        );
        snapshotter.remove("two").await.unwrap();
    }
    snapshotter.usage("base").await.unwrap();
    snapshotter.remove("base").await.unwrap();
    assert!(snapshotter.walk().await.unwrap().is_empty());
    assert!(!root.exists(), "files that bar their owner are removed too");
}
