//! Real groups of this machine's hierarchies, whichever they are: v1 with v2 on the side here, v2 alone in user-mode Linux.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use longshore_runtime::cgroup::{Cgroup, Limits, Manager, Mode};
use longshore_runtime::{ContainerId, Error, ErrorKind};
use serde_json::{Value, json};

fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// A manager and an id of this test's own, or why there is none.
fn manager(test: &str) -> Option<(Manager, ContainerId)> {
    if !rustix::process::geteuid().is_root() {
        skip("needs root");
        return None;
    }
    let manager = Manager::detect().expect("the machine is understood");
    if manager.host().mode() == Mode::None {
        skip("no cgroup hierarchy is mounted");
        return None;
    }
    Some((
        manager,
        ContainerId::new(format!("{test}-{}", std::process::id())).expect("an id"),
    ))
}

fn limits(manager: &Manager, resources: Value) -> Limits {
    let resources = serde_json::from_value(resources).expect("resources");
    Limits::compile(Some(&resources), manager.host()).expect("compiles")
}

/// Groups that go even if the test fails.
#[derive(Debug)]
struct Made(Cgroup);

impl std::ops::Deref for Made {
    type Target = Cgroup;
    fn deref(&self) -> &Cgroup {
        &self.0
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.remove();
    }
}

fn create(manager: &Manager, id: &ContainerId, resources: Value) -> Result<Made, Error> {
    manager.create(id, None, &limits(manager, resources)).map(Made)
}

/// The groups' directories, by the place that a state file would have.
fn directories(cgroup: &Cgroup) -> Vec<PathBuf> {
    cgroup.location().places.iter().map(|p| p.mount.join(&p.path)).collect()
}

/// What one of the groups has in the first of the files that exists.
fn content(cgroup: &Cgroup, files: &[&str]) -> String {
    let paths = directories(cgroup)
        .into_iter()
        .flat_map(|dir| files.iter().map(move |f| dir.join(f)));
    paths
        .into_iter()
        .find_map(|p| fs::read_to_string(p).ok())
        .expect("one of the files exists")
        .trim()
        .to_owned()
}

/// A shell that waits for a line, enters the groups by pid and runs a script in them.
fn enter(cgroup: &Cgroup, script: &str) -> Child {
    let mut child = Command::new("sh")
        .args(["-c", &format!("read line; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    for dir in directories(cgroup) {
        fs::write(dir.join("cgroup.procs"), child.id().to_string()).expect("the shell enters");
    }
    child
        .stdin
        .as_mut()
        .expect("piped")
        .write_all(b"go\n")
        .expect("the shell reads");
    child
}

fn finish(child: Child) -> (bool, String) {
    let out = child.wait_with_output().expect("the shell ends");
    (
        out.status.success(),
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr),
    )
}

fn gone(directories: &[PathBuf]) {
    for dir in directories {
        assert!(!dir.exists(), "{} is left", dir.display());
    }
}

#[test]
fn groups_are_made_found_again_and_removed() {
    let Some((manager, id)) = manager("life") else { return };
    let cgroup = create(&manager, &id, json!({})).expect("made");
    let dirs = directories(&cgroup);
    assert!(!cgroup.is_none());
    assert!(dirs.iter().all(|d| d.is_dir()), "{dirs:?}");
    let entry = cgroup.entry().expect("can be entered");
    assert_eq!(entry.tasks.len() + usize::from(entry.unified.is_some()), dirs.len());

    let found = manager.find(&id, None).expect("found by the id alone");
    assert_eq!(found.location(), cgroup.location());
    let text = serde_json::to_string(&cgroup.location()).expect("a state file");
    let again = manager
        .open(&serde_json::from_str(&text).expect("the same"))
        .expect("found");
    assert!(again.pids().expect("read").is_empty());
    // What the container made inside goes as well.
    for dir in &dirs {
        fs::create_dir_all(dir.join("a/b")).expect("a group inside");
    }
    again.remove().expect("removed");
    gone(&dirs);
    cgroup.remove().expect("gone is no error");
    assert!(manager.open(&cgroup.location()).expect("nothing there").is_none());
    assert!(manager.find(&id, None).expect("nothing there").is_none());
}

#[test]
fn limits_reach_the_kernel() {
    let Some((manager, id)) = manager("limits") else { return };
    let asked = limits(
        &manager,
        json!({ "pids": { "limit": 77 }, "memory": { "limit": 67108864 },
        "cpu": { "shares": 512, "quota": 20000, "period": 50000 } }),
    );
    let cgroup = manager.create(&id, None, &asked).map(Made).expect("made");
    let pids = content(&cgroup, &["pids.max"]);
    let memory = content(&cgroup, &["memory.limit_in_bytes", "memory.max"]);
    let quota = content(&cgroup, &["cpu.cfs_quota_us", "cpu.max"]);
    let (stats, brief) = (cgroup.stats().expect("read"), cgroup.brief_stats().expect("read"));
    // A smaller limit, and a larger one of memory and swap together: the order of the writes must not matter.
    let update = |limit: i64| {
        cgroup.update(&limits(
            &manager,
            json!({ "memory": { "limit": limit, "swap": limit } }),
        ))
    };
    let updated = [32 << 20, 128 << 20, 16 << 20].map(|limit| {
        let done = update(limit).map_err(|e| e.kind());
        (limit, done, content(&cgroup, &["memory.limit_in_bytes", "memory.max"]))
    });
    cgroup.remove().expect("removed");

    assert_eq!(pids, "77");
    assert_eq!(memory, "67108864");
    assert!(quota == "20000" || quota == "20000 50000", "{quota}");
    assert_eq!(stats.pids.as_ref().expect("counted").limit, Some(77));
    assert_eq!(stats.memory.as_ref().expect("counted").limit, Some(67_108_864));
    assert!(stats.cpu.is_some());
    let (all, few) = (stats.memory.expect("counted"), brief.memory.expect("counted"));
    assert_eq!((few.limit, few.peak, few.swap), (all.limit, all.peak, all.swap));
    assert!(few.details.is_empty() && !all.details.is_empty());
    assert_eq!(brief.pids, stats.pids);
    for (limit, done, content) in updated {
        if done == Err(ErrorKind::Unsupported) {
            return skip("the kernel counts no swap");
        }
        assert_eq!((done, content), (Ok(()), limit.to_string()));
    }
}

#[test]
fn a_process_limit_binds() {
    let Some((manager, id)) = manager("pids") else { return };
    let cgroup = manager
        .create(&id, None, &limits(&manager, json!({ "pids": { "limit": 3 } })))
        .expect("made");
    let child = enter(
        &cgroup,
        "for i in 1 2 3 4 5 6; do sleep 5 > /dev/null 2>&1 & done; wait",
    );
    let (fine, text) = finish(child);
    cgroup.kill().expect("killed");
    cgroup.remove().expect("removed");
    assert!(!fine, "six more processes started");
    assert!(text.to_lowercase().contains("fork"), "{text}");
}

#[test]
fn a_processor_quota_binds() {
    let Some((manager, id)) = manager("quota") else { return };
    let quota = json!({ "cpu": { "quota": 2000, "period": 20000 } });
    let resources = serde_json::from_value(quota).expect("resources");
    let cgroup = match Limits::compile(Some(&resources), manager.host()) {
        Ok(limits) => Made(manager.create(&id, None, &limits).expect("made")),
        Err(error) => return skip(&error.to_string()),
    };
    let mut child = enter(&cgroup, "while :; do :; done");
    loop {
        let cpu = cgroup.stats().expect("read").cpu.expect("it is limited");
        if cpu.throttled_periods > 2 {
            assert!(cpu.periods >= cpu.throttled_periods, "{cpu:?}");
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    cgroup.kill().expect("killed");
    let _ = child.wait();
}

#[test]
fn a_memory_limit_binds_and_is_counted() {
    let Some((manager, id)) = manager("memory") else { return };
    let asked = json!({ "memory": { "limit": 33554432, "swap": 33554432 } });
    let cgroup = match create(&manager, &id, asked) {
        Err(e) if e.kind() == ErrorKind::Unsupported => return skip(&e.to_string()),
        cgroup => cgroup.expect("made"),
    };
    let child = enter(&cgroup, "head -c 200m /dev/zero | tail -c 200m > /dev/null");
    let (fine, _) = finish(child);
    let kills = cgroup.oom_kills().expect("read");
    let counted = cgroup.stats().expect("read").memory.expect("counted").oom_kills;
    cgroup.kill().expect("killed");
    cgroup.remove().expect("removed");
    assert!(!fine, "200 MB fitted into 32 MB");
    assert_eq!(kills, counted);
    assert!(kills >= 1, "nothing was killed");
}

#[test]
fn devices_are_confined() {
    let Some((manager, id)) = manager("devices") else {
        return;
    };
    let rules = json!({ "devices": [
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 200, "access": "r" },
    ] });
    let limits = limits(&manager, rules);
    let cgroup = manager.create(&id, None, &limits).map(Made).expect("made");
    if let Err(error) = cgroup.confine_devices(&limits) {
        cgroup.remove().expect("removed");
        return skip(&format!("{error}: {:?}", std::error::Error::source(&error)));
    }
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a directory");
    let probe = format!(
        "cd {}; mknod kmsg c 1 11 && mknod tun c 10 200 && echo nodes; \
         (: < /dev/null) && (: > /dev/zero) && echo usual; \
         (: < kmsg) 2>/dev/null || echo no-kmsg; \
         (: < tun) 2>&1 | grep -q 'not permitted' || echo tun-readable; \
         (: > tun) 2>&1 | grep -q 'not permitted' && echo tun-not-writable",
        dir.path().display()
    );
    let (_, text) = finish(enter(&cgroup, &probe));
    // Everything, for the second program in the first one's place.
    let all = self::limits(&manager, json!({ "devices": [{ "allow": true }] }));
    cgroup.update(&all).expect("updated");
    let (_, after) = finish(enter(
        &cgroup,
        &format!("cd {}; (: < kmsg) && echo kmsg", dir.path().display()),
    ));
    cgroup.remove().expect("removed");
    if text.contains("nodev") || text.contains("Permission denied") {
        return skip(&format!(
            "device nodes can't be used in {}: {text}",
            dir.path().display()
        ));
    }
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        ["nodes", "usual", "no-kmsg", "tun-readable", "tun-not-writable"]
    );
    assert_eq!(after.trim(), "kmsg");
}

#[test]
fn processes_freeze_thaw_and_die() {
    let Some((manager, id)) = manager("freeze") else { return };
    let cgroup = create(&manager, &id, json!({})).expect("made");
    let mut child = enter(&cgroup, "sleep 100 & sleep 100 & echo ready; wait");
    let mut line = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut line).expect("it is ready");
    assert_eq!(cgroup.pids().expect("read").len(), 3);
    cgroup.freeze().expect("frozen");
    assert!(cgroup.is_frozen().expect("read"));
    cgroup.thaw().expect("thawed");
    assert!(!cgroup.is_frozen().expect("read"));
    cgroup.signal_all(0).expect("signal 0 tests");
    // Frozen processes die as well.
    cgroup.freeze().expect("frozen");
    cgroup.kill().expect("killed");
    assert!(!child.wait().expect("reaped").success());
    cgroup.remove().expect("removed");
    gone(&directories(&cgroup));
}

#[test]
fn a_fork_bomb_is_killed_whole() {
    let Some((manager, id)) = manager("bomb") else { return };
    let cgroup = manager
        .create(&id, None, &limits(&manager, json!({ "pids": { "limit": 60 } })))
        .expect("made");
    let mut child = enter(
        &cgroup,
        "while :; do while :; do sh -c 'sleep 0.01' & done & done 2>/dev/null",
    );
    std::thread::sleep(Duration::from_millis(300));
    cgroup.kill().expect("killed");
    child.wait().expect("reaped");
    cgroup.remove().expect("every process is gone");
    gone(&directories(&cgroup));
}

#[test]
fn a_group_that_was_made_later_at_the_same_place_is_another() {
    let Some((manager, id)) = manager("later") else { return };
    let first = create(&manager, &id, json!({})).expect("made");
    let location = first.location();
    first.remove().expect("removed");
    let second = create(&manager, &id, json!({})).expect("made again");
    assert_eq!(directories(&second), directories(&first));
    let child = enter(&second, "exec sleep 100");

    let known = manager.open(&location).expect("looked for");
    assert!(known.is_none(), "{known:?}");
    first.kill().expect("nobody is there to be killed");
    first.remove().expect("gone is no error");
    assert_eq!(second.pids().expect("read").len(), 1, "the other's process lives");

    second.kill().expect("killed");
    finish(child);
    first.remove().expect("gone is no error");
    assert!(
        directories(&second).iter().all(|dir| dir.is_dir()),
        "the other's groups stay"
    );
    second.remove().expect("removed");
}

#[test]
fn a_group_in_use_is_refused_and_left_alone() {
    let Some((manager, id)) = manager("used") else { return };
    let none = limits(&manager, json!({}));
    let path = PathBuf::from(format!("/{id}/inner"));
    let first = manager.create(&id, Some(&path), &none).map(Made).expect("made");
    let child = enter(&first, "exec sleep 100");
    let second = manager.create(&id, Some(&path), &none);
    let still = first.pids().expect("read");
    first.kill().expect("killed");
    finish(child);
    first.remove().expect("removed");
    for place in &first.location().places {
        fs::remove_dir(place.mount.join(id.as_str())).expect("the group that we asked for");
    }
    let error = second.expect_err("refused");
    assert!(error.to_string().contains("container's cgroup is not empty"), "{error}");
    assert_eq!(still.len(), 1);
}

#[test]
fn a_failing_limit_leaves_no_group_and_says_what_was_written() {
    let Some((manager, id)) = manager("fails") else { return };
    let before = create(&manager, &id, json!({})).expect("made");
    let dirs = directories(&before);
    before.remove().expect("removed");
    let error = manager.create(
        &id,
        None,
        &limits(&manager, json!({ "cpu": { "quota": 1, "period": 100000 } })),
    );
    let error = error.expect_err("the kernel's least is 1000");
    assert!(error.to_string().contains("linux.resources.cpu.quota"), "{error}");
    assert!(error.to_string().contains("write '1"), "{error}");
    gone(&dirs);
}

#[test]
fn a_path_out_of_the_hierarchy_is_refused() {
    let Some((manager, id)) = manager("path") else { return };
    for path in ["/../x", "../x", "/a/../../x"] {
        let error = manager
            .create(&id, Some(Path::new(path)), &limits(&manager, json!({})))
            .expect_err(path);
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn many_at_once_share_their_parent() {
    let Some((manager, id)) = manager("many") else { return };
    let manager = &manager;
    std::thread::scope(|scope| {
        for n in 0..8 {
            let id = ContainerId::new(format!("{id}-{n}")).expect("an id");
            scope.spawn(move || {
                for _ in 0..10 {
                    let cgroup = create(manager, &id, json!({})).expect("made");
                    cgroup.remove().expect("removed");
                    gone(&directories(&cgroup));
                }
            });
        }
    });
}

/// The second half of the next test, run by an ordinary user in this program's place.
#[test]
#[ignore = "run by the next test"]
fn as_an_ordinary_user() {
    let manager = Manager::detect().expect("the machine is understood");
    let id = ContainerId::new(format!("user-{}", std::process::id())).expect("an id");
    let none = manager
        .create(&id, None, &limits(&manager, json!({})))
        .expect("no group is no error");
    if !none.is_none() {
        none.remove().expect("removed");
        return skip("an ordinary user may make groups here");
    }
    assert!(none.pids().expect("none").is_empty());
    none.kill().expect("nothing to kill");
    none.confine_devices(&limits(&manager, json!({ "devices": [{ "allow": false }] })))
        .expect("nothing to confine");
    none.remove().expect("nothing to remove");
    let error = create(&manager, &id, json!({ "pids": { "limit": 5 } })).expect_err("a limit needs a group");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("linux.resources.pids.limit"), "{error}");
    let path = Path::new("/longshore-user/x");
    let error = manager
        .create(&id, Some(path), &limits(&manager, json!({})))
        .expect_err("a path is asked for");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(
        error.to_string().contains("unable to apply cgroup configuration"),
        "{error}"
    );
}

/// The second half of `a_part_of_the_tree_can_be_given_to_a_user`.
#[test]
#[ignore = "run by another test"]
fn as_a_delegate() {
    let manager = Manager::detect().expect("the machine is understood");
    let id = ContainerId::new(format!("delegate-{}", std::process::id())).expect("an id");
    let cgroup = create(&manager, &id, json!({ "pids": { "limit": 3 } })).unwrap_or_else(|e| panic!("{e}"));
    let dirs = directories(&cgroup);
    assert!(
        dirs.len() == 1 && dirs[0].to_string_lossy().contains("/longshore-delegated-"),
        "{dirs:?}"
    );
    assert_eq!(content(&cgroup, &["pids.max"]), "3");
    let (_, output) = finish(enter(&cgroup, "sleep 0 & sleep 0 & sleep 0 & sleep 0 & wait"));
    assert!(output.to_lowercase().contains("fork"), "{output}");
    cgroup.remove().expect("removed");
    gone(&dirs);
}

#[test]
fn a_part_of_the_tree_can_be_given_to_a_user() {
    use std::os::unix::fs::chown;
    let Some((manager, _)) = manager("delegated") else {
        return;
    };
    let root = Path::new("/sys/fs/cgroup");
    let handed = fs::write(root.join("cgroup.subtree_control"), "+pids");
    if manager.host().mode() != Mode::Unified || handed.is_err() {
        return skip("needs v2 alone, with pids");
    }
    if Command::new("setpriv").arg("--version").output().is_err() {
        return skip("needs setpriv (Debian's package util-linux)");
    }
    let top = root.join(format!("longshore-delegated-{}", std::process::id()));
    let own = top.join("own");
    fs::create_dir_all(&own).expect("groups");
    fs::write(top.join("cgroup.subtree_control"), "+pids").expect("handed on");
    for (dir, file) in [
        (&top, ""),
        (&top, "cgroup.procs"),
        (&top, "cgroup.subtree_control"),
        (&own, "cgroup.procs"),
    ] {
        chown(dir.join(file), Some(65534), Some(65534)).expect("given away");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let copy = dir.path().join("test");
    longshore_testing::copy_program(std::env::current_exe().expect("known"), &copy).expect("copied");
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("opened");
    let line = format!(
        "echo $$ > {}/cgroup.procs; exec setpriv --reuid=65534 --regid=65534 --clear-groups {} --ignored --exact as_a_delegate --nocapture",
        own.display(),
        copy.display()
    );
    let out = Command::new("sh").args(["-c", &line]).current_dir("/").output();
    let removed = fs::remove_dir(&own).and_then(|()| fs::remove_dir(&top));
    let out = out.expect("it runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
    removed.expect("nothing is left in it");
}

#[test]
fn without_root_there_is_no_group_unless_a_limit_needs_one() {
    use std::os::unix::process::CommandExt as _;
    if manager("user").is_none() {
        return;
    }
    // This program may be where others can't read.
    let dir = tempfile::tempdir().expect("a directory");
    let copy = dir.path().join("test");
    longshore_testing::copy_program(std::env::current_exe().expect("known"), &copy).expect("copied");
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("opened");
    let mut command = Command::new(&copy);
    command
        .args(["--ignored", "--exact", "as_an_ordinary_user", "--nocapture"])
        .current_dir("/")
        .uid(65534)
        .gid(65534);
    let out = command.output().expect("it runs");
    assert!(
        out.status.success(),
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(String::from_utf8_lossy(&out.stdout).contains("1 passed"));
}

#[test]
fn a_frozen_group_is_refused_and_left_alone() {
    let Some((manager, id)) = manager("frozen") else { return };
    let path = PathBuf::from(format!("/longshore-frozen-{}", std::process::id()));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let freezers = mounts.lines().map(words).filter_map(|words| {
        let options = words.last()?.split(',').collect::<Vec<_>>();
        let (file, value) = match words[words.iter().position(|w| w == "-")? + 1].as_str() {
            "cgroup2" => ("cgroup.freeze", "1"),
            "cgroup" if options.contains(&"freezer") => ("freezer.state", "FROZEN"),
            _ => return None,
        };
        Some((Path::new(&words[4]).join(path.strip_prefix("/").ok()?), file, value))
    });
    for (dir, file, value) in freezers.collect::<Vec<_>>() {
        fs::create_dir(&dir).expect("a group");
        let frozen = fs::write(dir.join(file), value);
        let made = manager.create(&id, Some(&path), &limits(&manager, json!({})));
        if made.is_ok() {
            let _ = made.as_ref().map(Cgroup::remove);
        }
        let left = dir.exists();
        let _ = fs::remove_dir(&dir);
        if frozen.is_err() {
            skip("this kernel has no cgroup.freeze");
            continue;
        }
        let error = made.expect_err("it is frozen");
        assert!(
            error.to_string().contains("container's cgroup unexpectedly frozen"),
            "{error}"
        );
        assert!(left, "it is somebody else's");
    }
}

#[test]
fn a_group_is_handed_to_a_user_without_its_limits() {
    use std::os::unix::fs::MetadataExt as _;
    let Some((manager, id)) = manager("handed") else { return };
    let cgroup = create(&manager, &id, json!({})).expect("made");
    let v2 = directories(&cgroup)
        .into_iter()
        .find(|dir| dir.join("cgroup.type").exists());
    let Some(v2) = v2 else { return skip("needs v2") };
    cgroup.delegate(65534).expect("handed on");
    let owner = |file: &str| fs::metadata(v2.join(file)).expect("it is there").uid();
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        assert_eq!(owner(file), 65534, "{file}");
    }
    for entry in fs::read_dir(&v2).expect("readable").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".max") || name == "cgroup.freeze" {
            assert_eq!(owner(&name), 0, "{name}");
        }
    }
}
