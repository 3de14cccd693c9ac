//! Published escapes of other runtimes, each shown harmless here.

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
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
                text.starts_with(field) && text.contains("must be mounted on ordinary directory"),
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

/// CVE-2019-16884: a volume over `/proc`, which lies about what the runtime writes there.
#[tokio::test]
async fn cve_2019_16884_nothing_but_a_procfs_lies_over_proc() {
    let Some(place) = place() else { return };
    fs::create_dir_all(place.dir.path().join("fake/self/attr")).expect("directories");
    for (mount, expected) in [
        (
            json!({ "source": "fake", "destination": "/proc", "options": ["bind"] }),
            "no procfs",
        ),
        (
            json!({ "source": "fake", "destination": "/x/../proc/", "options": ["bind"] }),
            "no procfs",
        ),
        (
            json!({ "source": "tmpfs", "type": "tmpfs", "destination": "/proc" }),
            "may only be a procfs",
        ),
        (
            json!({ "source": "fake", "destination": "/proc/self/attr", "options": ["bind"] }),
            "inside /proc",
        ),
        (
            json!({ "source": "fake", "destination": "/there/attr", "options": ["bind"] }),
            "leads into /proc",
        ),
    ] {
        let _ = fs::remove_file(place.dir.path().join("rootfs/there"));
        symlink("/proc/1", place.dir.path().join("rootfs/there")).expect("a link");
        let mut spec = spec(&["true"]);
        spec["mounts"].as_array_mut().expect("a list").push(mount.clone());
        let error = place.try_run(&spec).await.expect_err("it is refused");
        assert!(chain(&error).contains(expected), "{mount}: {}", chain(&error));
    }
    // A procfs itself may be bound there, and over single files.
    fs::write(place.dir.path().join("uptime"), "long").expect("a file");
    let mut spec = spec(&["sh", "-c", "cat /proc/uptime; test -d /proc/1"]);
    spec["mounts"][0] = json!({ "source": "/proc", "destination": "/proc", "options": ["rbind", "ro"] });
    let over = json!({ "source": "uptime", "destination": "/proc/uptime", "options": ["bind"] });
    spec["mounts"].as_array_mut().expect("a list").push(over);
    spec["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "uts" }, { "type": "network" }]);
    let outcome = place.run(&spec).await;
    assert_eq!(
        (outcome.status.code, outcome.stdout.as_str()),
        (0, "long"),
        "{outcome:?}"
    );
}
