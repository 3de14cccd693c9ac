//! Mounts of every kind, as a program inside sees them.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::{Value, json};
use support::{Place, chain, place, spec};

fn shell(line: &str) -> Value {
    spec(&["sh", "-c", line])
}

fn add(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().expect("a list").push(mount);
}

fn bind(source: &str, destination: &str) -> Value {
    json!({ "source": source, "destination": destination, "options": ["bind"] })
}

fn in_user_namespace(spec: &mut Value) {
    let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
    namespaces.push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
}

/// The root of a test belongs to the root of its user namespace.
fn give_root_away(place: &Place) {
    let mut todo = vec![place.dir.path().join("rootfs")];
    while let Some(path) = todo.pop() {
        std::os::unix::fs::lchown(&path, Some(100_000), Some(100_000)).expect("chown");
        if path.is_dir() && !path.is_symlink() {
            todo.extend(
                fs::read_dir(&path)
                    .expect("a directory")
                    .map(|e| e.expect("an entry").path()),
            );
        }
    }
}

async fn out(place: &Place, spec: &Value) -> String {
    let outcome = place.run(spec).await;
    assert_eq!(outcome.status.code, 0, "{outcome:?}");
    outcome.stdout
}

#[tokio::test]
async fn mount_points_are_made_where_dangling_links_lead() {
    let Some(place) = place() else { return };
    let root = place.dir.path().join("rootfs");
    fs::write(place.dir.path().join("file"), "bound").expect("a file");
    symlink("/tmp/foo/bar", root.join("jump")).expect("a link");
    symlink("/jump/baz/hosts", root.join("etc/hosts")).expect("a link");
    symlink("/tmp/trailing", root.join("etc/trailing")).expect("a link");
    symlink("/real/conf", root.join("conf")).expect("a link");
    symlink("../../../../../../tmp/up", root.join("up")).expect("a link");
    let mut spec = shell(
        "cat /tmp/foo/bar/baz/hosts; cat /tmp/trailing/file; cat /tmp/up/file; \
         grep -c ' /real/conf/stack tmpfs ' /proc/self/mounts",
    );
    add(&mut spec, bind("file", "/etc/hosts"));
    add(&mut spec, bind(".", "/etc/trailing"));
    add(&mut spec, bind(".", "/up"));
    add(
        &mut spec,
        json!({ "type": "tmpfs", "source": "tmpfs", "destination": "/conf/stack", "options": ["ro"] }),
    );
    assert_eq!(out(&place, &spec).await, "boundboundbound1\n");
    assert!(!Path::new("/tmp/foo/bar/baz").exists(), "a link led out of the root");
}

#[tokio::test]
async fn a_link_to_the_root_is_no_mount_point() {
    let Some(place) = place() else { return };
    symlink("/", place.dir.path().join("rootfs/top")).expect("a link");
    let mut spec = shell("true");
    add(
        &mut spec,
        json!({ "type": "tmpfs", "source": "tmpfs", "destination": "/top" }),
    );
    let error = place.try_run(&spec).await.expect_err("it is refused");
    let text = chain(&error);
    assert!(
        text.starts_with("mounts[6]") && text.contains("the root itself"),
        "{text}"
    );
}

#[tokio::test]
async fn sources_are_files_sockets_links_and_directories() {
    let Some(place) = place() else { return };
    let at = |name: &str| place.dir.path().join(name);
    fs::write(at("file"), "f").expect("a file");
    fs::create_dir(at("dir")).expect("a directory");
    fs::write(at("dir/in"), "d").expect("a file");
    symlink("file", at("link")).expect("a link");
    symlink("dir", at("dirlink")).expect("a link");
    // It climbs to the root directory, which is the host's.
    let up = format!("{}{}", "../".repeat(20), at("file").display());
    symlink(up, at("climbs")).expect("a link");
    let _socket = UnixListener::bind(at("socket")).expect("a socket");
    for user_namespace in [false, true] {
        let mut spec = shell(
            "cat /m/file /m/link /m/climbs /m/dirlink/in; test -S /m/socket && echo s; test -p /m/fifo && echo p",
        );
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .or_else(|e| if e == rustix::io::Errno::EXIST { Ok(()) } else { Err(e) })
        .expect("a FIFO");
        for name in ["file", "link", "climbs", "socket", "dirlink", "fifo"] {
            add(&mut spec, bind(name, &format!("/m/{name}")));
        }
        if user_namespace {
            in_user_namespace(&mut spec);
            give_root_away(&place);
            // What the container can't reach, the host opens.
            fs::set_permissions(at("dir"), fs::Permissions::from_mode(0o755)).expect("permissions");
        }
        assert_eq!(out(&place, &spec).await, "fffds\np\n");
    }
}

#[tokio::test]
async fn a_file_is_not_bound_over_a_directory() {
    let Some(place) = place() else { return };
    fs::write(place.dir.path().join("file"), "f").expect("a file");
    let mut spec = shell("true");
    add(&mut spec, bind("file", "/etc"));
    let error = place.try_run(&spec).await.expect_err("it is refused");
    assert!(chain(&error).starts_with("mounts[6]"), "{}", chain(&error));
    add(&mut spec, bind("nowhere", "/etc"));
    spec["mounts"].as_array_mut().expect("a list").remove(6);
    let error = place.try_run(&spec).await.expect_err("there is no such source");
    assert!(chain(&error).contains("open the source"), "{}", chain(&error));
}

#[tokio::test]
async fn sources_inside_the_root_have_what_was_mounted_before() {
    let Some(place) = place() else { return };
    let at = |name: &str| place.dir.path().join(name);
    for (dir, link) in [("a/x", "sym-a"), ("b/y", "sym-b"), ("c/z", "sym-c")] {
        fs::create_dir_all(at("src").join(dir)).expect("directories");
        fs::write(at("src").join(dir).join("file"), dir).expect("a file");
        symlink(&dir[..1], at("src").join(link)).expect("a link");
    }
    fs::set_permissions(at("src"), fs::Permissions::from_mode(0o750)).expect("permissions");
    let root = at("rootfs");
    let root = root.to_str().expect("text");
    for user_namespace in [false, true] {
        let mut spec = spec(&["cat", "/final/x/y/z/z/x/y/z/x/file"]);
        let mut one = |source: String, destination: String, how: &str| {
            let options = json!([how, "rprivate"]);
            add(
                &mut spec,
                json!({ "source": source, "destination": destination, "options": options }),
            );
        };
        one("src/a".into(), "/mnt".into(), "bind");
        one("src/sym-b".into(), "/mnt/x".into(), "bind");
        one("src/c".into(), "/mnt/x/y".into(), "bind");
        one("src/sym-a".into(), "/mnt/x/y/z".into(), "bind");
        one(format!("{root}/mnt/x"), format!("{root}/mnt/x/y/z/x"), "rbind");
        one(format!("{root}/mnt/x/y"), format!("{root}/mnt/x/y/z"), "rbind");
        one(format!("{root}/mnt"), format!("{root}/final"), "rbind");
        if user_namespace {
            in_user_namespace(&mut spec);
            give_root_away(&place);
        }
        assert_eq!(out(&place, &spec).await, "a/x");
    }
}

#[tokio::test]
async fn a_tmpfs_has_the_mode_of_what_it_covers() {
    let Some(place) = place() else { return };
    let covered = place.dir.path().join("rootfs/covered");
    fs::create_dir(&covered).expect("a directory");
    fs::set_permissions(&covered, fs::Permissions::from_mode(0o2710)).expect("permissions");
    for (destination, options, expected, shown) in [
        ("/covered", json!(["rw"]), "2710\n", "mode=2710"),
        ("/covered", json!(["mode=1500"]), "1500\n", "mode=1500"),
        ("/not/there", json!([]), "1777\n", ""),
    ] {
        let mut spec = shell(&format!(
            "stat -c %a {destination}; grep ' {destination} ' /proc/self/mounts"
        ));
        add(
            &mut spec,
            json!({ "type": "tmpfs", "source": "tmpfs", "destination": destination, "options": options }),
        );
        let out = out(&place, &spec).await;
        assert!(out.starts_with(expected), "{out}");
        assert!(
            out.contains(shown) && out.contains("mode=") != shown.is_empty(),
            "{out}"
        );
    }
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!(mode(&covered), 0o2710);
    assert_eq!(mode(&place.dir.path().join("rootfs/not/there")), 0o755);
}

/// A mount namespace for this test's thread and those that it starts: nothing that it mounts is seen elsewhere.
fn own_mounts() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .expect("private");
}

/// Mounts a tmpfs whose mount, not the filesystem, has these options of mount(8).
fn tmpfs_with(at: &Path, options: &str) {
    let mount = |args: &[&str]| {
        let status = std::process::Command::new("mount")
            .args(args)
            .arg(at)
            .status()
            .expect("mount starts");
        assert!(status.success(), "mount {args:?}");
    };
    if !fs::read_to_string("/proc/thread-self/mounts")
        .expect("readable")
        .contains(at.to_str().expect("text"))
    {
        mount(&["-t", "tmpfs", "-o", "rw,suid,dev,exec,diratime,strictatime", "tmpfs"]);
    }
    mount(&[
        "--bind",
        "-o",
        "remount,rw,suid,dev,exec,symfollow,diratime,strictatime",
    ]);
    mount(&["--bind", "-o", &format!("remount,{options}")]);
}

/// `Ok` has what the mount must have and, with `!`, what not; `Err` is for what is refused.
type Flags = (&'static str, &'static str, Result<&'static str, ()>);

async fn check_flags(place: &Place, cases: &[Flags], user_namespace: bool) {
    let source = place.dir.path().join("src");
    for (have, asked, expected) in cases {
        tmpfs_with(&source, have);
        let mut spec = shell("grep ' /mnt ' /proc/self/mounts");
        let options: Vec<_> = asked.split(',').collect();
        add(
            &mut spec,
            json!({ "source": "src", "destination": "/mnt", "type": "bind", "options": options }),
        );
        if user_namespace {
            in_user_namespace(&mut spec);
        }
        let what = format!("{have} bound with {asked}, user namespace {user_namespace}");
        match (place.try_run(&spec).await, expected) {
            (Ok(outcome), Ok(expected)) => {
                let flags: Vec<_> = outcome.stdout.split(' ').nth(3).expect("options").split(',').collect();
                for word in expected.split(',').filter(|w| !w.is_empty()) {
                    let (name, there) = word.strip_prefix('!').map_or((word, true), |name| (name, false));
                    assert_eq!(flags.contains(&name), there, "{what}: {flags:?}");
                }
            }
            (Err(error), Err(())) => {
                let text = chain(&error);
                assert!(
                    text.starts_with("mounts[6]") && text.contains("Operation not permitted"),
                    "{what}: {text}"
                );
            }
            (got, expected) => panic!("{what}: {got:?}, not {expected:?}"),
        }
    }
}

#[tokio::test]
async fn attributes_of_a_bind_mount_are_those_that_are_named() {
    if !rustix::process::geteuid().is_root() {
        return support::skipped("needs root");
    }
    own_mounts();
    let Some(place) = place() else { return };
    fs::create_dir(place.dir.path().join("src")).expect("a directory");
    fs::set_permissions(place.dir.path().join("src"), fs::Permissions::from_mode(0o755)).expect("permissions");
    let strict = Ok("!noatime,!relatime,!nodiratime");
    // As runc's own tests have it.
    let cases: &[Flags] = &[
        (
            "ro,noexec,nosymfollow,nodiratime",
            "bind",
            Ok("ro,noexec,nosymfollow,nodiratime"),
        ),
        (
            "ro,noexec,nosymfollow,nodiratime",
            "bind,dev",
            Ok("rw,!noexec,!nosymfollow,nodiratime"),
        ),
        ("ro", "bind,nosuid,nodev,rprivate", Ok("rw,nosuid,nodev")),
        ("ro", "bind,rw,nosuid,nodev,rprivate", Ok("rw,nosuid,nodev")),
        (
            "nosuid,nodev,noexec,noatime",
            "bind,dev,suid,exec,atime",
            Ok("rw,!nosuid,!nodev,!noexec,noatime"),
        ),
        (
            "rw,nodev,nosuid,noexec,noatime",
            "bind,ro",
            Ok("ro,!nosuid,!nodev,!noexec,noatime"),
        ),
        (
            "rw,nodev,nosymfollow",
            "bind,ro,symfollow",
            Ok("ro,!nodev,!nosymfollow"),
        ),
        (
            "nodev,nosuid,noatime",
            "bind,ro,exec",
            Ok("ro,!noexec,!nosuid,!nodev,noatime"),
        ),
        ("noatime", "bind,norelatime", Ok("noatime,!relatime")),
        ("noatime", "bind,relatime", Ok("!noatime,relatime")),
        ("noatime", "bind,nodiratime", Ok("!noatime,nodiratime,relatime")),
        ("nodiratime", "bind,strictatime", strict),
        (
            "noatime",
            "bind,nodiratime,strictatime",
            Ok("!noatime,nodiratime,!relatime"),
        ),
        ("rw", "bind,sync,lazytime,silent", Ok("rw,!sync")),
    ];
    check_flags(&place, cases, false).await;
    let cases: &[Flags] = &[
        (
            "ro,noexec,nosymfollow,nodiratime",
            "bind",
            Ok("ro,noexec,nosymfollow,nodiratime"),
        ),
        (
            "ro,noexec,nosymfollow,nodiratime",
            "bind,dev",
            Ok("ro,noexec,!nosymfollow,nodiratime"),
        ),
        ("ro", "bind,nosuid,nodev,rprivate", Ok("ro,nosuid,nodev")),
        ("ro", "bind,rw,nosuid,nodev,rprivate", Err(())),
        ("nodev,nosuid,noatime", "bind,dev,suid,exec,atime", Err(())),
        (
            "rw,nodev,nosuid,noexec,noatime",
            "bind,ro",
            Ok("ro,nosuid,nodev,noexec,noatime"),
        ),
        ("rw,nodev,nosymfollow", "bind,ro,symfollow", Ok("ro,nodev,!nosymfollow")),
        ("rw,nodev,nosymfollow", "bind,rw", Ok("rw,nodev,!nosymfollow")),
        (
            "nodev,nosuid,noatime",
            "bind,ro,exec",
            Ok("ro,!noexec,nosuid,nodev,noatime"),
        ),
        ("noatime,nodiratime", "bind,norelatime", Ok("noatime,nodiratime")),
        ("strictatime", "bind,nostrictatime", strict),
        ("nodiratime", "bind,strictatime", Err(())),
        ("relatime", "bind,strictatime", Err(())),
        ("noatime", "bind,strictatime", Err(())),
        ("relatime", "bind,noatime", Err(())),
        ("relatime", "bind,nodiratime", Err(())),
        ("strictatime", "bind,relatime", Err(())),
        ("noatime", "bind,relatime", Err(())),
    ];
    check_flags(&place, cases, true).await;
}

#[tokio::test]
async fn recursive_attributes_reach_what_is_mounted_below() {
    if !rustix::process::geteuid().is_root() {
        return support::skipped("needs root");
    }
    own_mounts();
    let Some(place) = place() else { return };
    let at = |name: &str| place.dir.path().join(name);
    fs::create_dir(at("src")).expect("a directory");
    tmpfs_with(&at("src"), "rw,strictatime");
    fs::create_dir(at("src/sub")).expect("a directory");
    tmpfs_with(&at("src/sub"), "rw,strictatime");
    for (options, top, sub) in [
        (json!(["rbind", "ro"]), "ro", "rw"),
        (json!(["rbind", "rro"]), "ro", "ro"),
        (
            json!(["rbind", "rnosuid", "rnodev", "rnoexec", "rnosymfollow"]),
            "rw,nosuid,nodev,noexec,nosymfollow",
            "rw,nosuid,nodev,noexec,nosymfollow",
        ),
        (json!(["rbind", "rnoatime"]), "rw,noatime", "rw,noatime"),
        (json!(["rbind", "ratime"]), "rw,relatime", "rw,relatime"),
        (
            json!(["rbind", "rnostrictatime", "rnodiratime"]),
            "rw,nodiratime,relatime",
            "rw,nodiratime,relatime",
        ),
        (json!(["bind", "ro"]), "ro", ""),
    ] {
        let mut spec = shell("grep '^[^ ]* /mnt' /proc/self/mounts");
        add(
            &mut spec,
            json!({ "source": "src", "destination": "/mnt", "options": options }),
        );
        let out = out(&place, &spec).await;
        let flags = |at: &str| {
            let line = out.lines().find(|l| l.split(' ').nth(1) == Some(at));
            line.and_then(|l| l.split(' ').nth(3)).unwrap_or_default().to_owned()
        };
        // The size comes after the attributes.
        assert!(flags("/mnt").starts_with(top), "{options}: {out}");
        assert!(
            flags("/mnt/sub").starts_with(sub) && flags("/mnt/sub").is_empty() == sub.is_empty(),
            "{options}: {out}"
        );
    }
}

#[tokio::test]
async fn filesystems_have_their_flags_and_the_last_word_counts() {
    let Some(place) = place() else { return };
    for (options, expected) in [
        (json!(["sync", "dirsync", "nosuid"]), "rw,sync,dirsync,nosuid,relatime"),
        (
            json!(["sync", "async", "noexec", "exec", "noatime", "nodiratime"]),
            "rw,noatime,nodiratime",
        ),
        (json!(["strictatime,nodev", "silent", "loud", "defaults"]), "rw,nodev"),
        (json!(["ro", "rw", "lazytime"]), "rw,relatime,lazytime"),
        (
            json!(["iversion", "nosymfollow", "size=64k"]),
            "rw,relatime,nosymfollow,size=64k",
        ),
        (json!(["ro", "mode=750"]), "ro,relatime"),
    ] {
        let mut spec = shell("grep ' /mnt ' /proc/self/mounts");
        add(
            &mut spec,
            json!({ "source": "x", "type": "tmpfs", "destination": "/mnt", "options": options }),
        );
        let out = out(&place, &spec).await;
        let mut flags = out.split(' ').nth(3).expect("options").split(',').collect::<Vec<_>>();
        assert!(
            expected.split(',').all(|word| flags.contains(&word)),
            "{options}: {out}"
        );
        flags.retain(|f| matches!(*f, "sync" | "noexec" | "relatime"));
        let wanted: Vec<_> = expected
            .split(',')
            .filter(|f| matches!(*f, "sync" | "noexec" | "relatime"))
            .collect();
        assert_eq!(flags, wanted, "{options}: {out}");
    }
    let mut spec = shell("true");
    add(
        &mut spec,
        json!({ "source": "x", "type": "tmpfs", "destination": "/mnt", "options": ["nonsense=1"] }),
    );
    let error = place.try_run(&spec).await.expect_err("there is no such option");
    assert!(chain(&error).starts_with("mounts[6]"), "{}", chain(&error));
}

#[tokio::test]
async fn a_read_only_tmpfs_takes_mount_points_first() {
    let Some(place) = place() else { return };
    fs::write(place.dir.path().join("file"), "bound").expect("a file");
    for user_namespace in [false, true] {
        let line = "cat /run/secrets/file; touch /run/x || echo closed; touch /dev/x || echo closed; test -c /dev/null && echo null";
        let mut spec = shell(line);
        spec["mounts"][1]["options"] = json!(["ro", "mode=755"]);
        add(
            &mut spec,
            json!({ "source": "x", "type": "tmpfs", "destination": "/run", "options": ["ro"] }),
        );
        add(&mut spec, bind("file", "/run/secrets/file"));
        if user_namespace {
            in_user_namespace(&mut spec);
            give_root_away(&place);
        }
        assert_eq!(out(&place, &spec).await, "boundclosed\nclosed\nnull\n");
    }
}

#[tokio::test]
async fn a_mount_is_changed_again() {
    let Some(place) = place() else { return };
    let mut spec = shell("grep -e ' /a ' -e ' /b ' /proc/self/mounts");
    let tmpfs =
        |at: &str, options: Value| json!({ "source": "x", "type": "tmpfs", "destination": at, "options": options });
    add(&mut spec, tmpfs("/a", json!(["size=64k", "nosuid"])));
    add(&mut spec, tmpfs("/a", json!(["remount", "size=128k", "ro", "noexec"])));
    add(&mut spec, tmpfs("/b", json!(["size=64k"])));
    add(
        &mut spec,
        json!({ "source": "x", "destination": "/b", "options": ["bind", "remount", "ro", "nodev"] }),
    );
    let out = out(&place, &spec).await;
    let options: Vec<_> = out.lines().map(|l| l.split(' ').nth(3).expect("options")).collect();
    assert!(options[0].starts_with("ro,noexec,relatime,size=128k"), "{out}");
    assert!(options[1].starts_with("ro,nodev,relatime,size=64k"), "{out}");
    let last = spec["mounts"]
        .as_array_mut()
        .expect("a list")
        .last_mut()
        .expect("a mount");
    last["destination"] = json!("/etc");
    let error = place.try_run(&spec).await.expect_err("nothing is mounted there");
    assert!(chain(&error).starts_with("mounts[9]"), "{}", chain(&error));
}

#[tokio::test]
async fn a_tmpfs_starts_with_a_copy_of_what_it_covers() {
    let Some(place) = place() else { return };
    let at = |name: &str| place.dir.path().join("rootfs/dir").join(name);
    fs::create_dir_all(at("a/b")).expect("directories");
    fs::write(at("a/b/file"), "content").expect("a file");
    fs::write(at("big"), vec![b'x'; 3 << 20]).expect("a file");
    symlink("a/b/file", at("link")).expect("a link");
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o640.into(), 0).expect("a FIFO");
    fs::set_permissions(at("a"), fs::Permissions::from_mode(0o1777)).expect("permissions");
    fs::set_permissions(at("a/b/file"), fs::Permissions::from_mode(0o6755)).expect("permissions");
    for user_namespace in [false, true] {
        let line = "cat /dir/link; stat -c '%a %u %g %Y' /dir/a /dir/a/b/file; wc -c < /dir/big; test -p /dir/fifo && echo fifo; \
                    readlink /dir/link; touch /dir/new && echo new";
        let mut spec = shell(line);
        let options = json!(["tmpcopyup", "mode=755"]);
        add(
            &mut spec,
            json!({ "source": "x", "type": "tmpfs", "destination": "/dir", "options": options }),
        );
        if user_namespace {
            in_user_namespace(&mut spec);
            give_root_away(&place);
        } else {
            std::os::unix::fs::chown(at("a/b/file"), Some(7), Some(8)).expect("chown");
            fs::set_permissions(at("a/b/file"), fs::Permissions::from_mode(0o6755)).expect("permissions");
        }
        let modified =
            |name: &str| std::os::unix::fs::MetadataExt::mtime(&fs::metadata(at(name)).expect("it is there"));
        let (mode, owner) = if user_namespace {
            (0o755, "0 0")
        } else {
            (0o6755, "7 8")
        };
        let expected = format!(
            "content1777 0 0 {}\n{mode:o} {owner} {}\n3145728\nfifo\na/b/file\nnew\n",
            modified("a"),
            modified("a/b/file"),
        );
        assert_eq!(out(&place, &spec).await, expected);
        assert!(!at("new").exists());
    }
    let mut spec = shell("true");
    add(
        &mut spec,
        json!({ "source": "x", "type": "proc", "destination": "/x", "options": ["tmpcopyup"] }),
    );
    let error = place.try_run(&spec).await.expect_err("it is no tmpfs");
    assert!(error.to_string().starts_with("mounts[6].options"), "{error}");
}

#[tokio::test]
async fn mounts_travel_as_far_as_their_propagation_says() {
    if !rustix::process::geteuid().is_root() {
        return support::skipped("needs root");
    }
    own_mounts();
    use nix::mount::{MsFlags, mount};
    // The root lies on a mount of its own.
    let temporary = std::env::temp_dir();
    mount(Some("x"), &temporary, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a tmpfs");
    let Some(place) = place() else { return };
    let source = place.dir.path().join("src");
    fs::create_dir(&source).expect("a directory");
    tmpfs_with(&source, "rw");
    fs::create_dir(source.join("sub")).expect("a directory");
    // All is shared, as it is on a machine with systemd.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SHARED,
        None::<&str>,
    )
    .expect("shared");
    let table = || fs::read_to_string("/proc/thread-self/mountinfo").expect("readable");
    let before = table();
    for (root, options, arrives) in [
        (None, json!(["rbind"]), false),
        (None, json!(["rbind", "rshared"]), false),
        (Some("rslave"), json!(["rbind", "rshared"]), false),
        // Only the root's own mount is cut off then.
        (Some("slave"), json!(["rbind", "rshared"]), true),
        (Some("slave"), json!(["rbind"]), false),
        (Some("private"), json!(["rbind"]), false),
        (Some("rprivate"), json!(["rbind", "shared"]), false),
        (Some("unbindable"), json!(["rbind"]), false),
        (Some("runbindable"), json!(["rbind"]), false),
        (Some("shared"), json!(["rbind", "rprivate"]), false),
        (Some("shared"), json!(["rbind", "rslave"]), false),
        (Some("shared"), json!(["rbind", "rshared"]), true),
        (Some("rshared"), json!(["rbind", "rshared"]), true),
    ] {
        let mut spec = shell(
            "mount -t tmpfs inside /mnt/sub; grep ' / / ' /proc/self/mountinfo; grep ' /mnt ' /proc/self/mountinfo",
        );
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
        }
        // For hooks the root is moved to where they look for it.
        spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/true" }] });
        if let Some(root) = root {
            spec["linux"]["rootfsPropagation"] = json!(root);
        }
        add(
            &mut spec,
            json!({ "source": "src", "destination": "/mnt", "options": options }),
        );
        let what = format!("{root:?} {options}");
        let out = out(&place, &spec).await;
        let line = out
            .lines()
            .find(|l| l.split(' ').nth(4) == Some("/mnt"))
            .unwrap_or_else(|| panic!("{what}: {out}"));
        let seen = table();
        assert_eq!(seen.contains("tmpfs inside"), arrives, "{what}: {line}");
        if arrives {
            nix::mount::umount(&source.join("sub")).expect("it is mounted");
        }
        assert_eq!(table(), before, "{what}: the container has changed the host's mounts");
        if options.to_string().contains("shared") {
            assert!(line.contains("shared:"), "{what}: {line}");
        }
    }
}

#[tokio::test]
async fn the_root_has_its_propagation() {
    if !rustix::process::geteuid().is_root() {
        return support::skipped("needs root");
    }
    own_mounts();
    use nix::mount::{MsFlags, mount};
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SHARED,
        None::<&str>,
    )
    .expect("shared");
    let Some(place) = place() else { return };
    for (word, expected) in [
        ("", ""),
        ("private", ""),
        ("rprivate", ""),
        ("slave", "master:"),
        ("rslave", "master:"),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
    ] {
        for user_namespace in [false, true] {
            let mut spec = shell("cat /proc/self/mountinfo");
            spec["linux"]["rootfsPropagation"] = json!(word);
            if user_namespace {
                in_user_namespace(&mut spec);
                give_root_away(&place);
            }
            let out = out(&place, &spec).await;
            let find = |at: &str| {
                out.lines()
                    .find(|l| l.split(' ').nth(4) == Some(at))
                    .expect("a mount")
                    .to_owned()
            };
            let tags = |line: &str| {
                line.split(' ')
                    .skip(6)
                    .take_while(|w| *w != "-")
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            let root = tags(&find("/"));
            assert!(
                root.starts_with(expected) && root.is_empty() == expected.is_empty(),
                "{word}: {root}"
            );
            let deep = word.starts_with("rs") && word != "rslave" || word == "runbindable";
            assert_eq!(
                tags(&find("/dev/shm")).starts_with(expected) && !expected.is_empty(),
                deep,
                "{word}: {out}"
            );
        }
    }
}

#[tokio::test]
async fn cgroups_are_those_of_the_container() {
    let Some(place) = place() else { return };
    let Ok(mine) = fs::read_to_string("/proc/self/cgroup") else {
        return;
    };
    let v1 = mine.lines().any(|l| !l.starts_with("0::") && !l.contains(":name="));
    for own_namespace in [false, true] {
        for user_namespace in [false, true] {
            let what = format!("cgroup namespace {own_namespace}, user namespace {user_namespace}");
            let line = if v1 {
                "for g in /sys/fs/cgroup/*; do grep -qx 1 $g/tasks || echo not in $g; done; ls /sys/fs/cgroup | wc -l; \
                 touch /sys/fs/cgroup/x 2>/dev/null || echo closed; mkdir /sys/fs/cgroup/pids/x 2>/dev/null || echo closed"
            } else {
                "grep -c cgroup2 /proc/self/mounts; test -e /sys/fs/cgroup/cgroup.procs && echo tree; \
                 mkdir /sys/fs/cgroup/x 2>/dev/null || echo closed"
            };
            let mut spec = shell(line);
            let options = json!(["ro", "nosuid", "noexec", "nodev", "relatime"]);
            add(
                &mut spec,
                json!({ "source": "cgroup", "type": "cgroup", "destination": "/sys/fs/cgroup", "options": options }),
            );
            if own_namespace {
                let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
                namespaces.push(json!({ "type": "cgroup" }));
            }
            if user_namespace {
                in_user_namespace(&mut spec);
                give_root_away(&place);
            }
            let out = out(&place, &spec).await;
            if v1 {
                let hierarchies = mine.lines().filter(|l| !l.starts_with("0::")).count();
                // Hierarchies in which a container has no group show the one that it inherits, where it is too.
                assert_eq!(out, format!("{hierarchies}\nclosed\nclosed\n"), "{what}");
            } else {
                assert_eq!(out, "1\ntree\nclosed\n", "{what}");
            }
        }
    }
    support::not_mounted_here(&place);
}

#[tokio::test]
async fn where_sysfs_may_not_be_mounted_the_hosts_is_there_to_be_read() {
    let Some(place) = place() else { return };
    let mut spec =
        shell("test -d /sys/kernel && touch /sys/x 2>/dev/null || echo closed; grep ' /sys ' /proc/self/mounts");
    in_user_namespace(&mut spec);
    give_root_away(&place);
    spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .retain(|n| n["type"] != "network");
    // Nobody said that it is to be read-only.
    spec["mounts"][5]["options"] = json!(["nosuid", "noexec", "nodev", "noatime"]);
    let out = out(&place, &spec).await;
    assert!(
        out.starts_with("closed\n") && out.contains("/sys sysfs ro,nosuid,nodev,noexec"),
        "{out}"
    );
}

#[tokio::test]
async fn directories_are_hidden_behind_one_and_once() {
    let Some(place) = place() else { return };
    let root = place.dir.path().join("rootfs");
    for name in ["a", "b", "c"] {
        fs::create_dir(root.join(name)).expect("a directory");
        fs::write(root.join(name).join("secret"), "x").expect("a file");
    }
    fs::write(root.join("file"), "secret").expect("a file");
    for read_only in [false, true] {
        let mut spec = shell(
            "stat -c %d /a /b /c | sort -u | wc -l; ls -A /a /b /c; touch /b/x 2>&1; cat /file; \
             grep -c ' /a ' /proc/self/mounts; grep -c ' /file ' /proc/self/mounts",
        );
        spec["linux"]["maskedPaths"] = json!(["/a", "/b", "/a/", "/c/.", "/file", "//file", "/nowhere"]);
        spec["root"]["readonly"] = json!(read_only);
        let out = out(&place, &spec).await;
        assert!(
            out.starts_with("1\n/a:\n\n/b:\n\n/c:\n") && out.contains("Read-only file system"),
            "{out}"
        );
        assert!(out.ends_with("1\n1\n") && !out.contains("secret"), "{out}");
    }
}

#[tokio::test]
async fn devices_are_made_or_bound_and_are_the_ones_that_are_asked_for() {
    let Some(place) = place() else { return };
    let device = |path: &str, kind: &str, major: i64, minor: i64| json!({ "path": path, "type": kind, "major": major, "minor": minor, "fileMode": 0o640, "uid": 0, "gid": 0 });
    for user_namespace in [false, true] {
        let mut spec = shell(
            "readlink /dev/ptmx; readlink /dev/core; stat -c '%t:%T' -L /dev/ptmx /dev/tty; test -p /run/fifo && echo fifo; \
             echo x > /dev/null; grep -c ' /dev/null ' /proc/self/mounts",
        );
        spec["linux"]["devices"] = json!([
            device("/dev/ptmx", "c", 5, 2),
            device("/dev/../dev/tty", "c", 5, 0),
            device("/run/fifo", "p", 0, 0)
        ]);
        if user_namespace {
            in_user_namespace(&mut spec);
            give_root_away(&place);
        }
        let outcome = place.run(&spec).await;
        let bound = u8::from(user_namespace);
        assert_eq!(
            outcome.stdout,
            format!("pts/ptmx\n/proc/kcore\n5:2\n5:0\nfifo\n{bound}\n"),
            "{outcome:?}"
        );
    }
    // The host's node is another device.
    let mut spec = shell("true");
    spec["linux"]["devices"] = json!([device("/dev/zero", "c", 1, 11)]);
    in_user_namespace(&mut spec);
    let error = place.try_run(&spec).await.expect_err("it is refused");
    let text = chain(&error);
    assert!(
        text.starts_with("linux.devices[0]") && text.contains("device that is asked for"),
        "{text}"
    );
}

#[tokio::test]
async fn a_bound_dev_is_left_alone() {
    let Some(place) = place() else { return };
    fs::create_dir(place.dir.path().join("dev")).expect("a directory");
    let mut spec = shell("ls -A /dev | wc -l");
    spec["mounts"] = json!([{ "destination": "/dev/", "source": "dev", "type": "bind" },
        { "destination": "/proc", "source": "proc", "type": "proc" }]);
    assert_eq!(out(&place, &spec).await, "0\n");
}

#[tokio::test]
async fn streams_of_the_hosts_null_device_become_the_containers() {
    let Some(place) = place() else { return };
    let id = support::new_id();
    let line = "for n in 0 1 2; do \
                test $(stat -L -c %d:%t /proc/$$/fd/$n) = $(stat -c %d:%t /dev/null) || exit 2; done";
    let spec = shell(line);
    let request = place.request(&id, &spec, longshore_runtime::Io::null());
    use longshore_runtime::{DeleteMode, Executor, ProcessId};
    place
        .executor
        .create(request)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    place
        .executor
        .start(&id)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    let exit = place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    assert_eq!(exit.code, 0);
}

#[tokio::test]
async fn owners_are_mapped_as_the_mount_says() {
    if !rustix::process::geteuid().is_root() {
        return support::skipped("needs root");
    }
    own_mounts();
    let Some(place) = place() else { return };
    let at = |name: &str| place.dir.path().join(name);
    fs::create_dir_all(at("tree/sub")).expect("directories");
    fs::create_dir(at("other")).expect("a directory");
    for (file, uid, gid) in [("tree/a", 100, 211), ("tree/b", 200, 222), ("other/c", 101, 233)] {
        fs::write(at(file), "").expect("a file");
        std::os::unix::fs::chown(at(file), Some(uid), Some(gid)).expect("chown");
    }
    use nix::mount::{MsFlags, mount};
    mount(
        Some(&at("other")),
        &at("tree/sub"),
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .expect("a bind mount");
    let users = json!([{ "containerID": 100, "hostID": 101_000, "size": 3 }, { "containerID": 200, "hostID": 102_000, "size": 3 }]);
    let groups = json!([{ "containerID": 210, "hostID": 101_100, "size": 10 }, { "containerID": 220, "hostID": 102_200, "size": 20 }]);
    let maps = |mut mount: Value, users: &Value, groups: &Value| {
        mount["uidMappings"] = users.clone();
        mount["gidMappings"] = groups.clone();
        mount
    };
    let tree = |options: Value| json!({ "source": "tree", "destination": "/m", "options": options });
    let nobody = "65534:65534";
    let cases = [
        // options, own maps, user namespace, /m/a, /m/b, /m/sub/c
        (
            json!(["rbind"]),
            true,
            false,
            "101000:101101",
            "102000:102202",
            "101:233",
        ),
        (
            json!(["rbind", "idmap"]),
            true,
            false,
            "101000:101101",
            "102000:102202",
            "101:233",
        ),
        (
            json!(["rbind", "ridmap"]),
            true,
            false,
            "101000:101101",
            "102000:102202",
            "101001:102213",
        ),
        (json!(["rbind"]), true, true, "1000:1101", "2000:2202", nobody),
        (
            json!(["rbind", "ridmap"]),
            true,
            true,
            "1000:1101",
            "2000:2202",
            "1001:2213",
        ),
        (json!(["rbind", "idmap"]), false, true, "100:211", "200:222", nobody),
        (
            json!(["rbind", "ridmap", "ro", "rslave"]),
            false,
            true,
            "100:211",
            "200:222",
            "101:233",
        ),
    ];
    for (options, own, user_namespace, a, b, c) in cases {
        let mut spec = shell("stat -c %u:%g /m/a /m/b /m/sub/c");
        let mount = tree(options.clone());
        add(&mut spec, if own { maps(mount, &users, &groups) } else { mount });
        if user_namespace {
            in_user_namespace(&mut spec);
            give_root_away(&place);
        }
        let got = match place.try_run(&spec).await {
            Ok(outcome) => outcome.stdout,
            Err(error) if chain(&error).contains("may not be able to") => return support::skipped(&chain(&error)),
            Err(error) => panic!("{}", chain(&error)),
        };
        assert_eq!(
            got,
            format!("{a}\n{b}\n{c}\n"),
            "{options} own {own} user namespace {user_namespace}"
        );
    }

    // The same source with several mappings, a source inside the root, and a file made through the mount.
    let mut spec = shell("stat -c %u:%g /m/a /n/a /in/a; touch /in/new; stat -c %u:%g /in/new");
    let user = |start: u32| json!([{ "containerID": 0, "hostID": start, "size": 65_536 }]);
    add(&mut spec, maps(tree(json!(["bind"])), &user(100_000), &user(100_000)));
    let mut second = tree(json!(["bind"]));
    second["destination"] = json!("/n");
    add(&mut spec, maps(second, &user(100_100), &user(100_200)));
    let mut inside = tree(json!(["bind"]));
    inside["source"] = json!(at("rootfs/own").to_str().expect("text"));
    inside["destination"] = json!("/in");
    add(&mut spec, maps(inside, &user(100_000), &user(100_000)));
    fs::create_dir(at("rootfs/own")).expect("a directory");
    fs::write(at("rootfs/own/a"), "").expect("a file");
    in_user_namespace(&mut spec);
    assert_eq!(out(&place, &spec).await, "100:211\n200:411\n0:0\n0:0\n");
    let new = fs::metadata(at("rootfs/own/new")).expect("it was made");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&new), 0);
}

#[tokio::test]
async fn mappings_that_can_not_be_are_refused() {
    let Some(place) = place() else { return };
    fs::create_dir(place.dir.path().join("dir")).expect("a directory");
    let one = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
    let none = json!([]);
    let twice = json!([{ "containerID": 0, "hostID": 1, "size": 2 }, { "containerID": 1, "hostID": 5, "size": 2 }]);
    let empty = json!([{ "containerID": 0, "hostID": 1, "size": 0 }]);
    for (kind, options, users, groups, expected) in [
        ("bind", json!(["bind", "idmap"]), &none, &none, "mounts[6].options"),
        ("tmpfs", json!(["idmap"]), &one, &one, "mounts[6].options"),
        ("tmpfs", json!([]), &one, &one, "mounts[6].uidMappings"),
        ("bind", json!(["bind"]), &one, &none, "mounts[6].gidMappings"),
        ("bind", json!(["bind"]), &none, &one, "mounts[6].uidMappings"),
        ("bind", json!(["bind"]), &empty, &one, "mounts[6].uidMappings[0].size"),
        ("bind", json!(["bind"]), &twice, &one, "mounts[6].uidMappings"),
    ] {
        let mut spec = shell("true");
        let mount = json!({ "source": "dir", "type": kind, "destination": "/m", "options": options, "uidMappings": users, "gidMappings": groups });
        add(&mut spec, mount);
        let error = place.try_run(&spec).await.expect_err("it is refused");
        assert!(
            error.to_string().starts_with(&format!("{expected}:")),
            "{expected}: {}",
            chain(&error)
        );
    }
}

#[tokio::test]
async fn a_root_that_is_moved_shows_nothing_of_the_old_one() {
    use longshore_runtime::{DeleteMode, Executor, Io, ProcessId, RootEntry};
    let Some(place) = place() else { return };
    for (user_namespace, hooks) in [(false, false), (false, true), (true, false)] {
        let line = "pwd; test -e /proc/self/status && test -d /bin && ls -A / | grep -c '^bin$'; grep -c ' / / ' /proc/self/mountinfo; \
                    busybox unshare -mrpf busybox mount -t proc none /tmp 2>&1 || echo refused; \
                    busybox unshare -mrn busybox mount -t sysfs none /tmp 2>&1 || echo refused";
        let mut spec = shell(line);
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = json!(["CAP_SETFCAP"]);
        }
        if user_namespace {
            in_user_namespace(&mut spec);
            give_root_away(&place);
        }
        if hooks {
            spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/true" }] });
        }
        // What is not masked may be mounted anew.
        spec["linux"]["maskedPaths"] = json!(["/proc/kcore", "/sys/firmware", "/sys/kernel"]);
        for entry in [RootEntry::Pivot, RootEntry::Move] {
            let id = support::new_id();
            let (io, mut ends) = Io::pipe().expect("pipes");
            let request = place.request(&id, &spec, io).root_entry(entry);
            place
                .executor
                .create(request)
                .await
                .unwrap_or_else(|e| panic!("{}", chain(&e)));
            place
                .executor
                .start(&id)
                .await
                .unwrap_or_else(|e| panic!("{}", chain(&e)));
            place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
            place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
            let mut out = String::new();
            std::io::Read::read_to_string(&mut ends.stdout, &mut out).expect("text");
            assert!(out.starts_with("/\n1\n"), "{entry:?}: {out}");
            if out.contains("unshare") {
                return support::skipped("needs user namespaces inside containers");
            }
            assert_eq!(
                out.matches("refused").count(),
                2,
                "{entry:?}, user namespace {user_namespace}: {out}"
            );
        }
    }
    support::not_mounted_here(&place);
}

#[tokio::test]
async fn a_mount_namespace_is_joined_as_it_is() {
    use longshore_runtime::{DeleteMode, Executor, Io};
    let Some(place) = place() else { return };
    let id = support::new_id();
    let mut first = spec(&["sleep", "1000"]);
    add(
        &mut first,
        json!({ "source": "x", "type": "tmpfs", "destination": "/mark" }),
    );
    let state = place.executor.create(place.request(&id, &first, Io::null())).await;
    let pid = state.unwrap_or_else(|e| panic!("{}", chain(&e))).pid.expect("it lives");
    place.executor.start(&id).await.expect("it starts");
    let table = || fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("readable");
    let before = table();

    let mut second =
        shell("grep -c ' /mark ' /proc/self/mounts; touch /mark/x && echo made; readlink /proc/self/ns/mnt");
    second["linux"]["namespaces"] = json!([{ "type": "mount", "path": format!("/proc/{pid}/ns/mnt") },
        { "type": "pid", "path": format!("/proc/{pid}/ns/pid") }, { "type": "uts" }]);
    second["mounts"] = json!([]);
    second["linux"]["maskedPaths"] = json!([]);
    second["linux"]["readonlyPaths"] = json!([]);
    let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt")).expect("a link");
    assert_eq!(
        out(&place, &second).await,
        format!("1\nmade\n{}\n", namespace.display())
    );
    assert_eq!(table(), before);
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}
