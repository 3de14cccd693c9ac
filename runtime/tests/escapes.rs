//! Published escapes of other runtimes, each shown harmless here.

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use support::{chain, place, spec};

/// CVE-2019-19921 and CVE-2023-27561: an image whose `/proc` is a symbolic link decides what the runtime writes labels and limits to.
#[tokio::test]
async fn a_symbolic_link_in_place_of_proc_or_sys_is_refused() {
    for (name, field) in [("proc", "mounts[0]"), ("sys", "mounts[5]")] {
        for target in ["elsewhere", "/elsewhere", "nowhere", "../../elsewhere"] {
            let Some(place) = place() else { return };
            let root = place.dir.path().join("rootfs");
            fs::create_dir_all(root.join("elsewhere")).expect("a directory");
            let point = root.join(name);
            if point.exists() {
                fs::remove_dir(&point).expect("an empty mount point");
            }
            symlink(target, &point).expect("a link");
            let error = place.try_run(&spec(&["true"])).await.expect_err("it is refused");
            let text = chain(&error);
            assert!(
                text.starts_with(field) && text.contains("no symbolic link leads there"),
                "{text}"
            );
            assert!(
                !root.join("nowhere").exists(),
                "the link was followed to make its target"
            );
        }
    }
}

#[tokio::test]
async fn a_mount_point_for_proc_that_is_missing_is_made() {
    let Some(place) = place() else { return };
    let root = place.dir.path().join("rootfs");
    for name in ["proc", "sys"] {
        if root.join(name).exists() {
            fs::remove_dir(root.join(name)).expect("an empty mount point");
        }
    }
    let outcome = place
        .run(&spec(&[
            "sh",
            "-c",
            "test -e /proc/self/status && test -d /sys/kernel && echo there",
        ]))
        .await;
    assert_eq!(outcome.stdout, "there\n");
}
