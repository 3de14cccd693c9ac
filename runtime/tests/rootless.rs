//! The executor for an ordinary user, in user namespaces.
//!
//! When root runs the tests, they run again as `nobody`: a copy of this program is started as that user.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use longshore_runtime::{DeleteMode, ErrorKind, ExecRequest, Executor, Io, ProcessId};
use serde_json::{Value, json};
use support::{Place, any_place, chain, new_id, skipped, spec};

const NOBODY: u32 = 65_534;
const MARK: &str = "LONGSHORE_TEST_AS_NOBODY";

/// A place for an ordinary user, or `None` when this is root: then the test has been run again as nobody.
fn ordinary(test: &str) -> Option<Place> {
    if !rustix::process::geteuid().is_root() {
        return any_place();
    }
    assert!(std::env::var_os(MARK).is_none(), "the copy runs as root");
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let copy = dir.path().join("tests");
    longshore_testing::copy_program(std::env::current_exe().expect("this program"), &copy).expect("a copy");
    let output = Command::new(&copy)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .env_remove("TMPDIR")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("the copy starts");
    let text = String::from_utf8_lossy(&output.stderr);
    eprintln!("{text}");
    assert!(
        output.status.success(),
        "as nobody: {} {text}",
        String::from_utf8_lossy(&output.stdout)
    );
    None
}

fn can_unshare() -> bool {
    let able = Command::new("unshare")
        .args(["--user", "true"])
        .status()
        .is_ok_and(|s| s.success());
    if !able {
        skipped("needs user namespaces for ordinary users");
    }
    able
}

fn in_user_namespace(args: &[&str]) -> Value {
    let mut spec = spec(args);
    let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
    namespaces.push(json!({ "type": "user" }));
    // A group that is not mapped can't own a terminal.
    spec["mounts"][2]["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    spec
}

#[tokio::test]
async fn an_ordinary_user_runs_a_container_as_its_root() {
    let Some(place) = ordinary("an_ordinary_user_runs_a_container_as_its_root") else {
        return;
    };
    if !can_unshare() {
        return;
    }
    let line = "id -u; cat /proc/self/uid_map; hostname; touch /made; echo x > /dev/null; ls /proc | grep -c '^1$'; \
                cat /proc/sys/net/ipv4/ip_forward; umask; test -d /sys/kernel && echo sys";
    let mut spec = in_user_namespace(&["sh", "-c", line]);
    spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    let outcome = place.run(&spec).await;
    assert_eq!(outcome.status.code, 0, "{outcome:?}");
    let words: Vec<_> = outcome.stdout.split_whitespace().collect();
    let uid = rustix::process::geteuid().as_raw().to_string();
    assert_eq!(
        words,
        ["0", "0", &uid, "1", "box", "1", "1", "0022", "sys"],
        "{outcome:?}"
    );
    assert!(place.dir.path().join("rootfs/made").exists());
}

#[tokio::test]
async fn an_ordinary_user_execs_and_has_a_terminal() {
    let Some(place) = ordinary("an_ordinary_user_execs_and_has_a_terminal") else {
        return;
    };
    if !can_unshare() {
        return;
    }
    let id = new_id();
    let mut spec = in_user_namespace(&["sh", "-c", "tty; read x"]);
    spec["process"]["terminal"] = json!(true);
    let (io, terminal) = Io::pty();
    place
        .executor
        .create(place.request(&id, &spec, io))
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    place
        .executor
        .start(&id)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    let process = json!({ "args": ["sh", "-c", "id -u; hostname"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    let (io, mut ends) = Io::pipe().expect("pipes");
    let process = serde_json::from_value(process).expect("a process");
    let made = place.executor.exec(&id, ExecRequest::new("x", process, io)).await;
    made.unwrap_or_else(|e| panic!("{}", chain(&e)));
    place
        .executor
        .wait(&id, &ProcessId::Exec("x".into()))
        .await
        .expect("it ends");
    let mut out = String::new();
    std::io::Read::read_to_string(&mut ends.stdout, &mut out).expect("text");
    assert_eq!(out, "0\nbox\n");
    drop(terminal.master().await.expect("a terminal"));
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

#[tokio::test]
async fn an_ordinary_users_hooks_run_in_his_namespaces() {
    let Some(place) = ordinary("an_ordinary_users_hooks_run_in_his_namespaces") else {
        return;
    };
    if !can_unshare() {
        return;
    }
    let log = place.dir.path().join("log");
    let line = |name: &str| format!("echo {name} $(id -u) $(hostname) >> {}", log.display());
    let hook =
        |name: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", line(name)], "env": ["PATH=/usr/bin:/bin"] }]);
    let mut spec = in_user_namespace(&["true"]);
    spec["hostname"] = json!("inside");
    spec["hooks"] =
        json!({ "createRuntime": hook("runtime"), "createContainer": hook("container"), "poststop": hook("stop") });
    assert_eq!(place.run(&spec).await.status.code, 0);
    let text = fs::read_to_string(&log).expect("a log");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let uid = rustix::process::geteuid().as_raw();
    let expected = format!("runtime {uid} {host}\ncontainer 0 inside\nstop {uid} {host}\n");
    assert_eq!(text, expected);
}

#[tokio::test]
async fn an_owner_that_is_not_mapped_is_named() {
    let Some(place) = ordinary("an_owner_that_is_not_mapped_is_named") else {
        return;
    };
    let mut spec = in_user_namespace(&["true"]);
    spec["mounts"][2]["options"] = json!(["gid=5"]);
    let error = place.try_run(&spec).await.expect_err("the group is not mapped");
    assert!(error.to_string().starts_with("mounts[2].options: gid=5"), "{error}");
}

#[tokio::test]
async fn without_a_user_namespace_the_error_says_what_to_do() {
    let Some(place) = ordinary("without_a_user_namespace_the_error_says_what_to_do") else {
        return;
    };
    let error = place.try_run(&spec(&["true"])).await.expect_err("it needs privileges");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("linux.namespaces"), "{error}");
}

#[tokio::test]
async fn an_ordinary_user_sees_the_cgroups_that_he_is_in() {
    let Some(place) = ordinary("an_ordinary_user_sees_the_cgroups_that_he_is_in") else {
        return;
    };
    if !can_unshare() {
        return;
    }
    let mine = fs::read_to_string("/proc/self/cgroup").expect("readable");
    if !mine.lines().any(|l| !l.starts_with("0::") && !l.contains(":name=")) {
        return skipped("needs cgroup v1");
    }
    // Without a cgroup namespace the groups are bound, and the host can't make mounts either.
    let line = "for g in /sys/fs/cgroup/*; do grep -qx 1 $g/tasks || echo not in $g; done; mkdir /sys/fs/cgroup/x 2>&1";
    let mut spec = in_user_namespace(&["sh", "-c", line]);
    let options = json!(["ro", "nosuid", "noexec", "nodev"]);
    let mount = json!({ "source": "cgroup", "type": "cgroup", "destination": "/sys/fs/cgroup", "options": options });
    spec["mounts"].as_array_mut().expect("a list").push(mount);
    let outcome = place.run(&spec).await;
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 1, "{outcome:?}");
    assert!(lines[0].contains("Read-only file system"), "{outcome:?}");
}
