//! Containers that share their mount namespace: nothing that others see changes.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use longshore_runtime::{DeleteMode, ExecRequest, Executor, Io, KillScope, ProcessId};
use serde_json::{Value, json};
use support::{Place, chain, new_id, place, skipped, spec};

/// Set in a test that runs in a mount namespace of its own.
const OUTER: &str = "LONGSHORE_TEST_OUTER";

/// Runs a test in a mount namespace of its own, all of whose mounts are shared: what a container would attach to one of them would be attached
/// wherever that is mounted, and a mistake stays in there. `None` in the process that only runs the other.
fn place_in_outer(test: &str) -> Option<Place> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    let mut numbers = kernel
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (6, 15) {
        skipped("needs Linux 6.15: mounts in a tree that is attached to nothing");
        return None;
    }
    if std::env::var_os(OUTER).is_some() {
        return place();
    }
    drop(place()?);
    let tests = std::env::current_exe().expect("a test has a program");
    let ran = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount --make-rshared / && exec \"$0\" --exact \"$1\" --nocapture")
        .arg(tests)
        .arg(test)
        .env(OUTER, "1")
        .output()
        .expect("unshare runs (util-linux)");
    let text = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && text.contains("1 passed"), "{text}");
    None
}

/// The mount table of this process's namespace, without what comes and goes by itself.
fn table() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("readable")
}

/// A container without a mount namespace.
fn shell(line: &str) -> Value {
    let mut spec = spec(&["sh", "-c", line]);
    let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
    namespaces.retain(|namespace| namespace["type"] != "mount");
    spec
}

fn own_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/mnt").expect("a link");
    link.to_str().expect("text").to_owned()
}

async fn out(place: &Place, spec: &Value) -> String {
    let outcome = place.run(spec).await;
    assert_eq!(outcome.status.code, 0, "{outcome:?}");
    outcome.stdout
}

#[tokio::test]
async fn a_container_without_a_mount_namespace_has_its_mounts_and_leaves_the_host_none() {
    let Some(place) = place_in_outer("a_container_without_a_mount_namespace_has_its_mounts_and_leaves_the_host_none")
    else {
        return;
    };
    let before = table();
    fs::write(place.dir.path().join("file"), "bound").expect("a file");
    fs::write(place.dir.path().join("rootfs/masked"), "secret").expect("a file");
    let mut spec = shell(
        "readlink /proc/self/ns/mnt; cat /bound; echo; cat /masked; touch /dev/shm/x /tmp/y && echo written; \
         touch /bound 2>&1; touch /proc/sys/kernel/hostname 2>&1; touch /ro/x 2>&1; cat /again; touch /again 2>&1; \
         test -c /dev/null && test -c /dev/pts/ptmx && echo devices; ls / | grep -c host-only; pwd; true",
    );
    let mounts = spec["mounts"].as_array_mut().expect("a list");
    mounts.extend([
        json!({ "source": "file", "destination": "/bound", "options": ["bind", "ro"] }),
        json!({ "source": "tmpfs", "type": "tmpfs", "destination": "/tmp" }),
        // Made read-only when all is in it, and what is mounted already.
        json!({ "source": "tmpfs", "type": "tmpfs", "destination": "/ro", "options": ["ro"] }),
        json!({ "source": "file", "destination": "/again", "options": ["bind"] }),
        json!({ "source": "file", "destination": "/again", "options": ["bind", "remount", "ro"] }),
    ]);
    spec["linux"]["maskedPaths"] = json!(["/masked"]);
    spec["process"]["cwd"] = json!("/tmp");
    assert_eq!(
        out(&place, &spec).await,
        format!(
            "{}\nbound\nwritten\ntouch: /bound: Read-only file system\n\
             touch: /proc/sys/kernel/hostname: Read-only file system\ntouch: /ro/x: Read-only file system\n\
             boundtouch: /again: Read-only file system\ndevices\n0\n/tmp\n",
            own_namespace()
        )
    );
    assert_eq!(table(), before);
    assert!(!place.dir.path().join("rootfs/tmp/y").exists(), "it is in the tmpfs");

    spec["root"]["readonly"] = json!(true);
    spec["process"]["args"] = json!(["touch", "/new"]);
    let outcome = place.run(&spec).await;
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    assert_eq!(table(), before);
}

/// The ways out of a changed root: `..` of a directory above a second one, and a directory that is open.
#[tokio::test]
async fn no_way_leads_out_of_a_root_that_is_attached_to_nothing() {
    let Some(place) = place_in_outer("no_way_leads_out_of_a_root_that_is_attached_to_nothing") else {
        return;
    };
    fs::write(place.dir.path().join("rootfs/etc/mine"), "inside").expect("a file");
    fs::create_dir(place.dir.path().join("rootfs/bin/deep")).expect("a directory");
    let mut spec = shell(
        "cd / && chroot /bin/deep /nothing 2>/dev/null; ln /bin/busybox /bin/deep/busybox; \
         cd /; for i in 1 2 3 4 5 6 7 8 9 10; do cd ..; done; ls etc; \
         cd /proc/self/cwd/../../../..; ls etc; cat /proc/1/root/../../etc/mine",
    );
    spec["process"]["capabilities"] = json!({
        "bounding": ["CAP_SYS_CHROOT"], "effective": ["CAP_SYS_CHROOT"], "permitted": ["CAP_SYS_CHROOT"],
    });
    assert_eq!(out(&place, &spec).await, "mine\npasswd\nmine\npasswd\ninside");
}

#[tokio::test]
async fn an_exec_and_hooks_are_where_the_container_is() {
    let Some(place) = place_in_outer("an_exec_and_hooks_are_where_the_container_is") else {
        return;
    };
    for kinds in [&["pid", "uts"][..], &["uts"], &[]] {
        let before = table();
        let at = |name: &str| place.dir.path().join(name).to_str().expect("text").to_owned();
        let mut spec = shell("test -e /tmp/of-hook && sleep 1000");
        spec["mounts"].as_array_mut().expect("a list").push(json!({
            "source": "tmpfs", "type": "tmpfs", "destination": "/tmp",
        }));
        spec["linux"]["namespaces"] = kinds.iter().map(|kind| json!({ "type": kind })).collect();
        if kinds.is_empty() {
            spec.as_object_mut().expect("an object").remove("hostname");
        }
        let hook = |kind: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("echo {kind} >> {}", at("hooks"))] }]);
        spec["hooks"] = json!({
            "createRuntime": hook("createRuntime"), "createContainer": hook("createContainer"),
            "startContainer": [{ "path": "/bin/touch", "args": ["touch", "/tmp/of-hook"] }],
        });
        let id = new_id();
        let created = place.executor.create(place.request(&id, &spec, Io::null())).await;
        created.unwrap_or_else(|e| panic!("{}", chain(&e)));
        assert_eq!(
            fs::read_to_string(at("hooks")).expect("hooks have run"),
            "createRuntime\ncreateContainer\n"
        );
        let started = place.executor.start(&id).await;
        started.unwrap_or_else(|e| panic!("{}", chain(&e)));

        let (io, mut ends) = Io::pipe().expect("pipes");
        let mut process = spec["process"].clone();
        process["args"] = json!([
            "sh",
            "-c",
            "readlink /proc/self/ns/mnt; ls /tmp; ls /; echo here > /tmp/exec"
        ]);
        let process = serde_json::from_value(process).expect("a process");
        let exec = place.executor.exec(&id, ExecRequest::new("e", process, io)).await;
        exec.unwrap_or_else(|e| panic!("{}", chain(&e)));
        let exit = place
            .executor
            .wait(&id, &ProcessId::Exec("e".into()))
            .await
            .expect("it ends");
        assert_eq!(exit.code, 0);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut ends.stdout, &mut text).expect("text");
        let expected = format!("{}\nof-hook\nbin\ndev\netc\nproc\nroot\nsys\ntmp\n", own_namespace());
        assert_eq!(text, expected, "{kinds:?}");
        assert!(!place.dir.path().join("rootfs/tmp/exec").exists());
        assert_eq!(table(), before);
        place.executor.kill(&id, 9, KillScope::Init).await.expect("killed");
        place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
        place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
        fs::remove_file(at("hooks")).expect("removed");
    }
}

/// A container of the whole host, as the host is.
#[tokio::test]
async fn the_root_of_the_host_is_used_as_it_is() {
    let Some(place) = place_in_outer("the_root_of_the_host_is_used_as_it_is") else {
        return;
    };
    let before = table();
    let file = place.dir.path().join("rootfs/etc/passwd");
    let mut spec = shell(&format!("test -f {} && grep -c . /proc/self/mountinfo", file.display()));
    spec["root"]["path"] = json!("/");
    spec["process"]["env"] = json!(["PATH=/usr/bin:/bin"]);
    spec["mounts"] = json!([]);
    spec["linux"]["maskedPaths"] = json!([]);
    spec["linux"]["readonlyPaths"] = json!([]);
    assert_eq!(out(&place, &spec).await, format!("{}\n", before.lines().count()));
    // With something to mount, it is a tree of its own. The host's terminals are not replaced.
    let ptmx = fs::symlink_metadata("/dev/ptmx").map(|m| m.file_type());
    spec["mounts"] = json!([{ "source": "tmpfs", "type": "tmpfs", "destination": "/mnt" }]);
    spec["process"]["args"] = json!(["sh", "-c", "touch /mnt/inside; ls /mnt"]);
    assert_eq!(out(&place, &spec).await, "inside\n");
    assert!(!Path::new("/mnt/inside").exists());
    assert_eq!(fs::symlink_metadata("/dev/ptmx").map(|m| m.file_type()).ok(), ptmx.ok());
    assert_eq!(table(), before);
}

#[tokio::test]
async fn mounts_in_a_mount_namespace_that_is_joined_are_the_containers_only() {
    let Some(place) = place_in_outer("mounts_in_a_mount_namespace_that_is_joined_are_the_containers_only") else {
        return;
    };
    let mut holder = Command::new("unshare")
        .args(["--mount", "--propagation", "unchanged", "sh", "-c"])
        .arg("mount -t tmpfs joined /mnt && echo ready && exec sleep 1000")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("unshare runs (util-linux)");
    let mut ready = [0; 6];
    let told = holder
        .stdout
        .as_mut()
        .map(|out| std::io::Read::read_exact(out, &mut ready));
    told.expect("a pipe").expect("it is ready");
    let theirs = || fs::read_to_string(format!("/proc/{}/mountinfo", holder.id())).expect("readable");
    let (before, ours) = (theirs(), table());
    let namespace = fs::read_link(format!("/proc/{}/ns/mnt", holder.id())).expect("a link");

    let mut spec = shell("readlink /proc/self/ns/mnt; cat /mark; touch /tmp/x && echo written");
    let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
    namespaces.push(json!({ "type": "mount", "path": format!("/proc/{}/ns/mnt", holder.id()) }));
    spec["mounts"].as_array_mut().expect("a list").extend([
        json!({ "source": "tmpfs", "type": "tmpfs", "destination": "/tmp" }),
        json!({ "source": "/mnt", "destination": "/of-theirs", "options": ["rbind"] }),
    ]);
    fs::write(place.dir.path().join("rootfs/mark"), "root\n").expect("a file");
    let text = out(&place, &spec).await;
    let (after, ours_after) = (theirs(), table());
    holder.kill().expect("killed");
    holder.wait().expect("it ends");
    assert_eq!(text, format!("{}\nroot\nwritten\n", namespace.display()));
    assert_eq!(after, before);
    assert_eq!(ours_after, ours);
}

#[tokio::test]
async fn what_a_shared_mount_namespace_can_not_have_is_refused_and_leaves_nothing() {
    let Some(place) = place_in_outer("what_a_shared_mount_namespace_can_not_have_is_refused_and_leaves_nothing") else {
        return;
    };
    let before = table();
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 4] = [
        (
            |s| s["linux"]["rootfsPropagation"] = json!("shared"),
            "linux.rootfsPropagation",
        ),
        (
            |s| {
                s["linux"]["namespaces"]
                    .as_array_mut()
                    .expect("a list")
                    .push(json!({ "type": "user" }));
                let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
                s["linux"]["uidMappings"] = map.clone();
                s["linux"]["gidMappings"] = map;
            },
            "mounts",
        ),
        (
            // Only mount(2) takes it.
            |s| {
                s["mounts"].as_array_mut().expect("a list").push(
                    json!({ "source": "/dev/nothing", "type": "ext4", "destination": "/x", "options": ["iversion"] }),
                );
            },
            "mounts[6]",
        ),
        (
            |s| {
                s["mounts"]
                    .as_array_mut()
                    .expect("a list")
                    .push(json!({ "source": "x", "destination": "/tmp", "options": ["bind", "remount", "ro"] }));
            },
            "mounts[6]",
        ),
    ];
    for (change, field) in cases {
        let mut spec = shell("true");
        change(&mut spec);
        let error = place.try_run(&spec).await.expect_err("it is refused");
        assert!(error.to_string().starts_with(field), "{}", chain(&error));
    }
    assert_eq!(table(), before);
    let id = new_id();
    let created = place
        .executor
        .create(place.request(&id, &shell("sleep 1000"), Io::null()))
        .await;
    created.unwrap_or_else(|e| panic!("{}", chain(&e)));
    place.executor.start(&id).await.expect("it starts");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}
