//! What the tests of the public interface can't reach on a machine that has a v2 tree: v1 alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use super::super::{Mode, Place};
use super::*;

fn v1(test: &str) -> Option<(Manager, ContainerId)> {
    let manager = Manager::detect().expect("the machine is understood").without_v2();
    let freezer = manager.host.hierarchies.iter().any(|h| h.has("freezer"));
    if !rustix::process::geteuid().is_root() || manager.host.mode() != Mode::Legacy || !freezer {
        longshore_testing::skip("needs root and v1 with a freezer");
        return None;
    }
    Some((
        manager,
        ContainerId::new(format!("{test}-{}", std::process::id())).expect("an id"),
    ))
}

/// A shell and two sleepers in the groups, ready.
fn sleepers(cgroup: &Cgroup) -> Child {
    let script = "read line; sleep 100 & sleep 100 & echo ready; wait";
    let mut command = Command::new("sh");
    let mut child = command
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    for Place { mount, path, .. } in cgroup.location().places {
        let file = mount.join(path).join("cgroup.procs");
        std::fs::write(file, child.id().to_string()).expect("the shell enters");
    }
    child
        .stdin
        .as_mut()
        .expect("piped")
        .write_all(b"go\n")
        .expect("the shell reads");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped"))
        .read_line(&mut line)
        .expect("it is ready");
    child
}

#[test]
fn v1_alone_freezes_and_kills() {
    let Some((manager, id)) = v1("v1") else { return };
    let limits = Limits::compile(None, manager.host()).expect("compiles");
    let cgroup = manager.create(&id, None, &limits).expect("made");
    assert!(cgroup.entry().expect("can be entered").unified.is_none());
    let mut child = sleepers(&cgroup);
    assert_eq!(cgroup.pids().expect("read").len(), 3);
    cgroup.freeze().expect("frozen");
    assert!(cgroup.is_frozen().expect("read"));
    cgroup.signal_all(0).expect("every process is there");
    assert!(
        cgroup.is_frozen().expect("read"),
        "a signal does not thaw what was frozen"
    );
    cgroup.thaw().expect("thawed");
    assert!(!cgroup.is_frozen().expect("read"));
    // Frozen processes die as well.
    cgroup.freeze().expect("frozen");
    cgroup.kill().expect("killed");
    assert!(!child.wait().expect("reaped").success());
    cgroup.remove().expect("removed");
    assert!(manager.open(&cgroup.location()).expect("nothing there").is_none());
}

#[test]
fn what_a_killed_program_left_behind_is_used_again_without_its_limits() {
    let Some((manager, id)) = v1("left") else { return };
    let resources = serde_json::from_str(r#"{ "pids": { "limit": 7 } }"#).expect("resources");
    let limits = Limits::compile(Some(&resources), manager.host()).expect("compiles");
    let first = manager.create(&id, None, &limits).expect("made");
    let none = Limits::compile(None, manager.host()).expect("compiles");
    let second = manager.create(&id, None, &none).expect("made again");
    let limit = second.stats().expect("read").pids.expect("counted").limit;
    second.remove().expect("removed");
    first.remove().expect("gone is no error");
    assert_eq!(limit, None);
}

#[test]
fn a_cpuset_is_inherited_and_binds() {
    let Some((manager, id)) = v1("cpuset") else { return };
    if manager.host().home("cpuset") != Some(Home::V1) {
        return longshore_testing::skip("needs v1's cpuset");
    }
    let resources = serde_json::from_str(r#"{ "cpu": { "cpus": "0" } }"#).expect("resources");
    let limits = Limits::compile(Some(&resources), manager.host()).expect("compiles");
    let cgroup = manager.create(&id, None, &limits).expect("made");
    let mut child = sleepers(&cgroup);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    cgroup.kill().expect("killed");
    child.wait().expect("reaped");
    cgroup.remove().expect("removed");
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
}
