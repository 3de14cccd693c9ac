//! Published escapes of other runtimes, each shown harmless here. `SECURITY.md` has a table of them: what each was, where the defence is, and
//! whether the test was seen to fail without it.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use longshore_runtime::{Executor, Io};
use serde_json::json;
use support::{chain, place, spec};

/// CVE-2019-19921, CVE-2023-27561 and CVE-2025-54867: an image whose `/proc` or `/sys` is a symbolic link decides what the runtime writes
/// labels and limits to, or gets at the host's root.
#[tokio::test]
async fn cve_2019_19921_2023_27561_2025_54867_a_link_in_place_of_proc_or_sys_is_refused() {
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

/// CVE-2023-28642: `/proc` of the image is a link to a volume, which decides which AppArmor profile is written where.
#[tokio::test]
async fn cve_2023_28642_proc_is_not_mounted_on_a_volume_that_a_link_leads_to() {
    let Some(place) = place() else { return };
    fs::create_dir_all(place.dir.path().join("volume/self/attr/apparmor")).expect("directories");
    let root = place.dir.path().join("rootfs");
    fs::remove_dir(root.join("proc")).expect("an empty mount point");
    symlink("/volume", root.join("proc")).expect("a link");
    let mut spec = spec(&["true"]);
    let volume = json!({ "source": "volume", "destination": "/volume", "options": ["bind"] });
    spec["mounts"].as_array_mut().expect("a list").insert(0, volume);
    let error = place.try_run(&spec).await.expect_err("it is refused");
    let text = chain(&error);
    assert!(
        text.starts_with("mounts[1]") && text.contains("ordinary directory"),
        "{text}"
    );
}

/// CVE-2023-25809: in a user namespace without a cgroup namespace of its own, `/sys/fs/cgroup` was writable whatever the spec said.
#[tokio::test]
async fn cve_2023_25809_cgroups_that_are_read_only_stay_so_in_a_user_namespace() {
    let Some(place) = place() else { return };
    for own in [false, true] {
        let line = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do test -d $d || continue; \
                    mkdir $d/x 2>&1 && echo made in $d && rmdir $d/x; echo 1 2>&1 > $d/cgroup.procs && echo written in $d; done";
        let mut spec = spec(&[
            "sh",
            "-c",
            &format!("{{ {line}; }} 2>&1 | grep -v 'Read-only file system'; true"),
        ]);
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 65_536 }]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.push(json!({ "type": "user" }));
        if own {
            namespaces.push(json!({ "type": "cgroup" }));
        }
        let options = json!(["nosuid", "noexec", "nodev", "relatime", "ro"]);
        let mount =
            json!({ "source": "cgroup", "type": "cgroup", "destination": "/sys/fs/cgroup", "options": options });
        spec["mounts"].as_array_mut().expect("a list").push(mount);
        let outcome = match place.try_run(&spec).await {
            Err(error) if error.to_string().contains("no cgroup hierarchy") => {
                return support::skipped(&error.to_string());
            }
            ran => ran.unwrap_or_else(|e| panic!("{}", chain(&e))),
        };
        assert_eq!(outcome.stdout, "", "own cgroup namespace {own}: {outcome:?}");
    }
}

/// CVE-2025-31133 and CVE-2025-62161: the image puts something else in the place of the null device, which is then bound over what is to be hidden.
#[tokio::test]
async fn cve_2025_31133_and_cve_2025_62161_what_is_hidden_is_hidden_behind_the_null_device() {
    let Some(place) = place() else { return };
    let root = place.dir.path().join("rootfs");
    fs::write(root.join("secret"), "secret").expect("a file");
    let masked = |dev: Option<&str>| {
        let mut spec = spec(&["sh", "-c", "stat -c %t:%T /secret; cat /secret; ls -A /dev"]);
        spec["linux"]["maskedPaths"] = json!(["/secret"]);
        let mounts = spec["mounts"].as_array_mut().expect("a list");
        mounts.retain(|m| !m["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
        if let Some(source) = dev {
            mounts.push(json!({ "source": source, "destination": "/dev", "options": ["bind"] }));
        }
        spec
    };
    for dev in ["rootfs/dev", "dev"] {
        let dir = place.dir.path().join(dev);
        fs::create_dir_all(&dir).expect("a directory");
        symlink("/proc/sys/kernel/core_pattern", dir.join("null")).expect("a link");
    }
    // The image's own /dev, and one that is bound.
    let error = place.try_run(&masked(None)).await.expect_err("it is refused");
    assert!(chain(&error).starts_with("linux.devices"), "{}", chain(&error));
    let outcome = place.run(&masked(Some("dev"))).await;
    assert_eq!(outcome.stdout, "1:3\nnull\n", "{outcome:?}");
}

/// CVE-2025-52565 and CVE-2026-88264: the image has a link in the place of `/dev/console`, over whose target the
/// terminal is bound before anything is masked, or which is made where it leads.
#[tokio::test]
async fn cve_2025_52565_and_cve_2026_88264_the_console_is_not_bound_where_a_link_leads() {
    let Some(place) = place() else { return };
    let root = place.dir.path().join("rootfs");
    fs::create_dir_all(root.join("victim")).expect("a directory");
    fs::write(root.join("victim/file"), "as it was").expect("a file");
    for target in ["/victim/file", "/proc/sys/kernel/core_pattern", "/victim/missing"] {
        let console = root.join("dev/console");
        let _ = fs::remove_file(&console);
        symlink(target, &console).expect("a link");
        let mut spec = spec(&["true"]);
        spec["process"]["terminal"] = json!(true);
        // The image's own /dev.
        let mounts = spec["mounts"].as_array_mut().expect("a list");
        mounts.retain(|m| m["destination"] != "/dev");
        let (io, terminal) = Io::pty();
        let request = place.request(&support::new_id(), &spec, io);
        let error = place.executor.create(request).await.expect_err("it is refused");
        let text = chain(&error);
        assert!(
            text.starts_with("process.terminal") && text.contains("no symbolic link"),
            "{text}"
        );
        drop(terminal);
        assert!(!root.join("victim/missing").exists());
    }
    assert_eq!(
        fs::read_to_string(root.join("victim/file")).expect("a file"),
        "as it was"
    );
}

/// CVE-2025-52881: what the runtime writes below `/proc` is redirected by what the container has there.
#[tokio::test]
async fn cve_2025_52881_writes_to_proc_go_to_a_procfs_of_our_own() {
    let Some(place) = place() else { return };
    let root = place.dir.path().join("rootfs");
    let leak = place.dir.path().join("leak");
    fs::write(&leak, "as it was").expect("a file");
    // Without a procfs of its own, the image's files are where the sysctls would be.
    fs::create_dir_all(root.join("proc/sys/net/ipv4")).expect("directories");
    let file = root.join("proc/sys/net/ipv4/ip_forward");
    symlink(format!("{}{}", "../".repeat(20), leak.display()), &file).expect("a link");
    let mut spec = spec(&[
        "sh",
        "-c",
        "mount -t proc proc /tmp && cat /tmp/sys/net/ipv4/ip_forward",
    ]);
    spec["mounts"]
        .as_array_mut()
        .expect("a list")
        .retain(|m| m["destination"] != "/proc");
    spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    for path in ["maskedPaths", "readonlyPaths"] {
        spec["linux"][path] = json!([]);
    }
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
    }
    let outcome = place.run(&spec).await;
    assert_eq!(outcome.stdout, "1\n", "{outcome:?}");
    assert_eq!(fs::read_to_string(&leak).expect("a file"), "as it was");
    assert!(fs::symlink_metadata(&file).expect("the link").is_symlink());

    // And nothing is mounted over a file that it writes.
    for destination in [
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/self/attr/exec",
        "/proc/thread-self",
    ] {
        let mut spec = support::spec(&["true"]);
        let mount = json!({ "source": "leak", "destination": destination, "options": ["bind"] });
        spec["mounts"].as_array_mut().expect("a list").push(mount);
        let error = place.try_run(&spec).await.expect_err("it is refused");
        assert!(error.to_string().contains("inside /proc"), "{error}");
    }
}

/// What is in a directory, with the first bytes of its files.
fn listing(dir: &Path) -> Vec<(String, String)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let kind = fs::symlink_metadata(&path).expect("it is there").file_type();
            let content = if kind.is_file() {
                fs::read_to_string(&path).expect("text")
            } else {
                format!("{kind:?}")
            };
            (name, content)
        })
        .collect();
    found.sort();
    found
}

/// CVE-2019-18837: the last name of a mount point is a link of the image to what is not there yet, and the runtime makes it, on the host.
#[tokio::test]
async fn cve_2019_18837_nothing_is_made_where_a_link_of_the_image_leads_out() {
    let Some(place) = place() else { return };
    let at = |name: &str| place.dir.path().join(name);
    fs::create_dir(at("outside")).expect("a directory");
    fs::write(at("outside/file"), "as it was").expect("a file");
    fs::write(at("bound"), "bound").expect("a file");
    let before = listing(&at("outside"));
    let absolute = at("outside").display().to_string();
    for out in [
        absolute.clone(),
        format!("{}{absolute}", "../".repeat(20)),
        "../outside".to_owned(),
    ] {
        for (link, target) in [("d", "/directory"), ("f", "/new"), ("over", "/file"), ("all", "")] {
            let link = at("rootfs").join(link);
            let _ = fs::remove_file(&link);
            symlink(format!("{out}{target}"), &link).expect("a link");
        }
        let mut spec = spec(&[
            "sh",
            "-c",
            "cat /f /over; grep -c racer /proc/self/mountinfo; stat -c %t:%T /all/null; pwd",
        ]);
        spec["mounts"].as_array_mut().expect("a list").extend([
            json!({ "source": "racer", "type": "tmpfs", "destination": "/d" }),
            json!({ "source": "racer", "type": "tmpfs", "destination": "/all/sub/sub" }),
            json!({ "source": "bound", "destination": "/f", "options": ["bind"] }),
            json!({ "source": "bound", "destination": "/over", "options": ["bind"] }),
        ]);
        spec["linux"]["devices"] = json!([{ "path": "/all/null", "type": "c", "major": 1, "minor": 3 }]);
        spec["process"]["cwd"] = json!("/all/cwd");
        let outcome = place.run(&spec).await;
        let inside = match out.as_str() {
            "../outside" => "/outside/cwd".to_owned(),
            _ => format!("{absolute}/cwd"),
        };
        assert_eq!(
            outcome.stdout,
            format!("boundbound2\n1:3\n{inside}\n"),
            "{out}: {outcome:?}"
        );
        assert_eq!(
            listing(&at("outside")),
            before,
            "{out}: something was made outside of the root"
        );
    }
}

/// CVE-2026-41579 and CVE-2026-47766: `/dev` of the image is a link, nothing is mounted there, and the runtime makes its devices and links,
/// and takes `ptmx` away, in a directory of the host.
#[tokio::test]
async fn cve_2026_41579_and_cve_2026_47766_a_link_in_place_of_dev_leads_nowhere_outside() {
    let Some(place) = place() else { return };
    let at = |name: &str| place.dir.path().join(name);
    fs::create_dir(at("outside")).expect("a directory");
    fs::write(at("outside/ptmx"), "as it was").expect("a file");
    let before = listing(&at("outside"));
    let absolute = at("outside").display().to_string();
    for target in [
        absolute.clone(),
        format!("{}{absolute}", "../".repeat(20)),
        "../outside".to_owned(),
    ] {
        let dev = at("rootfs/dev");
        let _ = fs::remove_dir(&dev).or_else(|_| fs::remove_file(&dev));
        symlink(&target, &dev).expect("a link");
        for terminal in [false, true] {
            let mut spec = spec(&["sh", "-c", "stat -c %t:%T /dev/null; readlink /dev/ptmx"]);
            let mounts = spec["mounts"].as_array_mut().expect("a list");
            mounts.retain(|m| !m["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
            if terminal {
                spec["process"]["terminal"] = json!(true);
                let (io, _terminal) = Io::pty();
                let created = place
                    .executor
                    .create(place.request(&support::new_id(), &spec, io))
                    .await;
                // There is no devpts that a terminal could be of.
                assert!(chain(&created.expect_err("refused")).starts_with("process.terminal"));
            } else {
                let outcome = place.run(&spec).await;
                assert_eq!(outcome.stdout, "1:3\npts/ptmx\n", "{target}: {outcome:?}");
            }
            assert_eq!(
                listing(&at("outside")),
                before,
                "{target}: /dev was made outside of the root"
            );
        }
    }
}

/// CVE-2025-24965: the runtime writes a file of its own into the root before that is the root, and the image has a link of that name.
#[tokio::test]
async fn cve_2025_24965_no_file_of_the_image_is_written() {
    let Some(place) = place() else { return };
    let at = |name: &str| place.dir.path().join(name);
    fs::create_dir(at("outside")).expect("a directory");
    let names = [
        ".krun_config.json",
        "etc/hosts",
        "etc/hostname",
        "etc/resolv.conf",
        "etc/mtab",
    ];
    for name in names {
        let victim = at("outside").join(Path::new(name).file_name().expect("a name"));
        fs::write(&victim, "as it was").expect("a file");
        symlink(&victim, at("rootfs").join(name)).expect("a link");
    }
    symlink(at("outside/new"), at("rootfs/.dockerenv")).expect("a link");
    let before = (listing(&at("outside")), listing(&at("rootfs/etc")));
    let mut spec = spec(&["true"]);
    spec["annotations"] = json!({ "run.oci.handler": "krun", "run.oci.krun.config": "{}" });
    place.run(&spec).await;
    assert_eq!((listing(&at("outside")), listing(&at("rootfs/etc"))), before);
}

/// CVE-2026-88265: the image's `/dev/null` is a link to a file that is bound into the container, which takes the place of a stream and is
/// given away.
#[tokio::test]
async fn cve_2026_88265_a_link_in_place_of_the_null_device_becomes_no_stream() {
    let Some(place) = place() else { return };
    let at = |name: &str| place.dir.path().join(name);
    fs::create_dir(at("dev")).expect("a directory");
    fs::write(at("victim"), "as it was").expect("a file");
    symlink("/victim", at("dev/null")).expect("a link");
    let mut spec = spec(&[
        "sh",
        "-c",
        "x=$(for n in 0 1 2; do stat -L -c %t:%T /proc/$$/fd/$n; done); echo \"$x\" > /streams; sleep 1000",
    ]);
    spec["process"]["user"] = json!({ "uid": 1, "gid": 1 });
    fs::write(at("rootfs/streams"), "").expect("a file");
    std::os::unix::fs::chown(at("rootfs/streams"), Some(1), Some(1)).expect("given away");
    let mounts = spec["mounts"].as_array_mut().expect("a list");
    mounts.retain(|m| !m["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
    mounts.push(json!({ "source": "dev", "destination": "/dev", "options": ["bind"] }));
    mounts.push(json!({ "source": "victim", "destination": "/victim", "options": ["bind"] }));
    let id = support::new_id();
    let created = place.executor.create(place.request(&id, &spec, Io::null())).await;
    created.unwrap_or_else(|e| panic!("{}", chain(&e)));
    place
        .executor
        .start(&id)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    let streams = || fs::read_to_string(at("rootfs/streams")).expect("a file");
    support::wait_while_it_lives(&place, &id, || streams().lines().count() == 3).await;
    assert_eq!(streams(), "1:3\n".repeat(3));
    fs::write(at("rootfs/streams"), "").expect("a file");
    let line = "x=$(for n in 0 1 2; do stat -L -c %t:%T /proc/$$/fd/$n; done); echo \"$x\" > /streams";
    let process =
        json!({ "args": ["/bin/sh", "-c", line], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 1, "gid": 1 } });
    let process = serde_json::from_value(process).expect("a process");
    let request = longshore_runtime::ExecRequest::new("x", process, Io::null());
    place
        .executor
        .exec(&id, request)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    let name = longshore_runtime::ProcessId::Exec("x".into());
    place.executor.wait(&id, &name).await.expect("it ends");
    assert_eq!(streams(), "1:3\n".repeat(3));
    place
        .executor
        .delete(&id, longshore_runtime::DeleteMode::Force)
        .await
        .expect("deleted");
    let victim = fs::metadata(at("victim")).expect("it is there");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&victim), 0, "it was given away");
    assert_eq!(fs::read_to_string(at("victim")).expect("a file"), "as it was");
}

/// Somebody who swaps a directory of a shared volume for a symbolic link and back, as fast as he can.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Swapper {
    fn start(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut swaps = 0;
            while !seen.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &one, rustix::fs::CWD, &other, flags).expect("a swap");
                swaps += 1;
            }
            swaps
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn end(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .map_or(0, |thread| thread.join().expect("it swaps to its end"))
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.end();
    }
}

/// How many containers are started while somebody swaps; `LONGSHORE_RACES` says otherwise.
fn races() -> u32 {
    std::env::var("LONGSHORE_RACES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(24)
}

/// CVE-2021-30465 and CVE-2024-45310: while a container starts, another process swaps directories of a volume that both have for links to
/// the host. Neither is anything mounted or made there, nor comes anything of there into the container.
#[tokio::test]
async fn cve_2021_30465_and_cve_2024_45310_a_volume_that_changes_while_a_container_starts() {
    let Some(place) = place() else { return };
    let at = |name: &str| place.dir.path().join(name);
    fs::create_dir_all(at("volume/dir")).expect("directories");
    fs::create_dir_all(at("outside/inner")).expect("directories");
    fs::write(at("outside/secret"), "secret").expect("a file");
    fs::write(at("file"), "bound").expect("a file");
    let up = "../".repeat(20);
    let links = [
        at("outside").display().to_string(),
        format!("{up}{}", at("outside").display()),
    ];
    let (mut started, mut swaps) = (0, 0);
    for (i, target) in links.iter().enumerate() {
        let link = at("volume").join(format!("link{i}"));
        symlink(target, &link).expect("a link");
        let mut swapper = Swapper::start(at("volume/dir"), link);
        for n in 0..races() / 2 {
            // What a start before has made is in the way of none.
            let new = format!("new{i}-{n}");
            let inside = at("rootfs/volume/dir").display().to_string();
            let line = "grep -c racer /proc/self/mountinfo; ls /copy; cat /copy/secret /volume/dir/secret; true";
            let mut spec = spec(&["sh", "-c", line]);
            let mounts = spec["mounts"].as_array_mut().expect("a list");
            mounts.extend([
                json!({ "source": "volume", "destination": "/volume", "options": ["rbind"] }),
                json!({ "source": "racer", "type": "tmpfs", "destination": format!("/volume/dir/{new}/a/b") }),
                json!({ "source": "racer", "type": "tmpfs", "destination": "/volume/dir/inner", "options": ["tmpcopyup"] }),
                json!({ "source": "file", "destination": format!("/volume/dir/{new}/f"), "options": ["bind"] }),
                json!({ "source": inside, "destination": "/copy", "options": ["rbind"] }),
            ]);
            spec["linux"]["devices"] =
                json!([{ "path": format!("/volume/dir/{new}/null"), "type": "c", "major": 1, "minor": 3 }]);
            spec["linux"]["maskedPaths"] = json!(["/volume/dir/inner"]);
            spec["linux"]["readonlyPaths"] = json!(["/volume/dir"]);
            spec["process"]["cwd"] = json!(format!("/volume/dir/{new}/cwd"));
            match place.try_run(&spec).await {
                Ok(outcome) => {
                    started += 1;
                    assert!(!outcome.stdout.contains("secret"), "{outcome:?}");
                }
                // It may fail, as it finds now this and now that.
                Err(error) => assert_eq!(error.kind(), longshore_runtime::ErrorKind::Start, "{}", chain(&error)),
            }
            let mut there: Vec<_> = fs::read_dir(at("outside"))
                .expect("a directory")
                .map(|e| e.expect("an entry").file_name())
                .collect();
            there.sort();
            assert_eq!(there, ["inner", "secret"], "something was made outside of the root");
            assert_eq!(fs::read_dir(at("outside/inner")).expect("a directory").count(), 0);
        }
        swaps += swapper.end();
    }
    eprintln!("{started} containers started during {swaps} swaps");
    assert!(started > 0 && swaps > 0, "{started} {swaps}");
    support::not_mounted_here(&place);
}
