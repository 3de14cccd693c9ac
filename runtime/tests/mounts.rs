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
    let _socket = UnixListener::bind(at("socket")).expect("a socket");
    for user_namespace in [false, true] {
        let mut spec =
            shell("cat /m/file /m/link /m/dirlink/in; test -S /m/socket && echo s; test -p /m/fifo && echo p");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .or_else(|e| if e == rustix::io::Errno::EXIST { Ok(()) } else { Err(e) })
        .expect("a FIFO");
        for name in ["file", "link", "socket", "dirlink", "fifo"] {
            add(&mut spec, bind(name, &format!("/m/{name}")));
        }
        if user_namespace {
            in_user_namespace(&mut spec);
            give_root_away(&place);
            // What the container can't reach, the host opens.
            fs::set_permissions(at("dir"), fs::Permissions::from_mode(0o755)).expect("permissions");
        }
        assert_eq!(out(&place, &spec).await, "ffds\np\n");
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
