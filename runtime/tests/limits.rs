//! What the executor does by cgroups: limits, figures, freezing, killing all.

mod support;

use std::io::Write;
use std::time::Duration;

use longshore_runtime::cgroup::OomNews;
use longshore_runtime::{
    ContainerId, DeleteMode, ErrorKind, ExecRequest, Executor, Io, KillScope, Lifetime, LinuxExecutor, ProcessId,
    Status,
};
use serde_json::{Value, json};
use support::{Place, chain, new_id, place, skipped, spec};

async fn running(place: &Place, spec: &Value) -> ContainerId {
    let id = new_id();
    let created = place.executor.create(place.request(&id, spec, Io::null())).await;
    created.unwrap_or_else(|e| panic!("{}", chain(&e)));
    place
        .executor
        .start(&id)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    id
}

/// Whether a limit can be set here; says why not.
async fn supported(place: &Place, resources: &Value) -> bool {
    let mut spec = spec(&["true"]);
    spec["linux"]["resources"] = resources.clone();
    match place.try_run(&spec).await {
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            skipped(&chain(&e));
            false
        }
        Err(e) => panic!("{}", chain(&e)),
        Ok(_) => true,
    }
}

#[tokio::test]
async fn a_limit_of_processes_binds() {
    let Some(place) = place() else { return };
    let resources = json!({ "pids": { "limit": 5 } });
    if !supported(&place, &resources).await {
        return;
    }
    let mut spec = spec(&["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait"]);
    spec["linux"]["resources"] = resources;
    let outcome = place.run(&spec).await;
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
}

#[tokio::test]
async fn a_limit_of_memory_kills() {
    let Some(place) = place() else { return };
    let resources = json!({ "memory": { "limit": 16 << 20 } });
    if !supported(&place, &resources).await {
        return;
    }
    let mut spec = spec(&["sh", "-c", "head -c 64m /dev/zero | tail -c 64m > /dev/null; echo $?"]);
    spec["linux"]["resources"] = resources;
    // A shell's variable is memory that can't be written back.
    spec["process"]["args"] = json!(["sh", "-c", "x=$(yes | head -c 67108864); echo survived"]);
    let outcome = place.run(&spec).await;
    assert!(!outcome.stdout.contains("survived"), "{outcome:?}");
}

#[tokio::test]
async fn devices_that_are_not_allowed_do_not_open() {
    let Some(place) = place() else { return };
    let mut spec = spec(&[
        "sh",
        "-c",
        "head -c 1 /dev/zero | wc -c; head -c 1 /dev/kmsg2 > /dev/null || echo refused",
    ]);
    spec["linux"]["devices"] =
        json!([{ "path": "/dev/kmsg2", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 }]);
    spec["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    let outcome = place.run(&spec).await;
    assert_eq!(outcome.stdout, "1\nrefused\n", "{outcome:?}");
    assert!(outcome.stderr.contains("not permitted"), "{outcome:?}");
}

#[tokio::test]
async fn a_container_is_frozen_thawed_counted_and_updated() {
    let Some(place) = place() else { return };
    let id = running(&place, &spec(&["sh", "-c", "sleep 1000 & sleep 1000; true"])).await;
    place
        .executor
        .pause(&id)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(place.executor.state(&id).await.expect("known").status, Status::Paused);
    assert_eq!(
        place.executor.pause(&id).await.expect_err("it is paused").kind(),
        ErrorKind::FailedPrecondition
    );
    place.executor.resume(&id).await.expect("resumed");
    assert_eq!(place.executor.state(&id).await.expect("known").status, Status::Running);

    while place.executor.processes(&id).await.expect("a list").len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stats = place.executor.stats(&id).await.expect("figures");
    if let Some(pids) = stats.pids {
        assert_eq!(pids.current, 3);
        let limit = serde_json::from_value(json!({ "pids": { "limit": 77 } })).expect("resources");
        place.executor.update(&id, &limit).await.expect("updated");
        let stats = place.executor.stats(&id).await.expect("figures");
        assert_eq!(stats.pids.expect("as before").limit, Some(77));
    }
    place.executor.pause(&id).await.expect("paused");
    place
        .executor
        .delete(&id, DeleteMode::Force)
        .await
        .expect("a frozen container can be deleted");
}

#[tokio::test]
async fn a_signal_to_all_reaches_all() {
    let Some(place) = place() else { return };
    let mut script = spec(&["sh", "-c", "trap 'exit 5' TERM; sleep 1000 & sleep 1000 & wait"]);
    // Without a PID namespace, processes outlive their init.
    script["linux"]["namespaces"] = json!([{ "type": "mount" }]);
    script.as_object_mut().expect("a map").remove("hostname");
    let id = running(&place, &script).await;
    while place.executor.processes(&id).await.expect("a list").len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    place
        .executor
        .kill(&id, 15, KillScope::All)
        .await
        .expect("a signal is sent");
    assert_eq!(
        place.executor.wait(&id, &ProcessId::Init).await.expect("it ends").code,
        5
    );
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}

#[tokio::test]
async fn what_init_left_running_is_gone_after_the_delete() {
    let Some(place) = place() else { return };
    let mut script = spec(&["sh", "-c", "sleep 1000 & true"]);
    script["linux"]["namespaces"] = json!([{ "type": "mount" }]);
    script.as_object_mut().expect("a map").remove("hostname");
    let id = running(&place, &script).await;
    place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    let left = place.executor.processes(&id).await.expect("a list");
    assert_eq!(left.len(), 1, "{left:?}");
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
    let still = std::fs::read_to_string(format!("/proc/{}/cmdline", left[0])).unwrap_or_default();
    assert!(!still.contains("sleep"), "the process is still there");
}

#[tokio::test]
async fn an_exec_is_in_the_containers_cgroup() {
    let Some(place) = place() else { return };
    let id = running(&place, &spec(&["sleep", "1000"])).await;
    let process =
        json!({ "args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    let request = ExecRequest::new("x", serde_json::from_value(process).expect("a process"), Io::null());
    let pid = place.executor.exec(&id, request).await.expect("it runs");
    assert!(place.executor.processes(&id).await.expect("a list").contains(&pid));
    let init = place.executor.state(&id).await.expect("known").pid.expect("it lives");
    let groups = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("readable");
    assert_eq!(groups(pid), groups(init));
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

#[tokio::test]
async fn the_cgroup_mount_shows_the_containers_own_group() {
    let Some(place) = place() else { return };
    // Without a cgroup namespace v2 shows the whole tree, as with other runtimes: paths in /proc are from its root then.
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    for with_namespace in [true, false] {
        let mut spec = spec(&[
            "sh",
            "-c",
            "ls /sys/fs/cgroup; cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/pids/cgroup.procs | sort -u; touch /sys/fs/cgroup/x || echo refused",
        ]);
        spec["mounts"].as_array_mut().expect("a list").push(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        }));
        if with_namespace {
            spec["linux"]["namespaces"]
                .as_array_mut()
                .expect("a list")
                .push(json!({ "type": "cgroup" }));
        }
        let outcome = place.run(&spec).await;
        assert!(
            (v2 && !with_namespace) || outcome.stdout.lines().any(|l| l == "1"),
            "our own group is in sight (namespace: {with_namespace}): {outcome:?}"
        );
        assert!(outcome.stdout.ends_with("refused\n"), "{outcome:?}");
    }
}

#[tokio::test]
async fn sigkill_to_a_container_without_a_pid_namespace_reaches_all() {
    let Some(place) = place() else { return };
    let mut script = spec(&["sh", "-c", "sleep 1000 & sleep 1000 & wait"]);
    script["linux"]["namespaces"] = json!([{ "type": "mount" }]);
    script.as_object_mut().expect("a map").remove("hostname");
    let id = running(&place, &script).await;
    while place.executor.processes(&id).await.expect("a list").len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // First init alone ends, and leaves the others.
    let init = place.executor.state(&id).await.expect("known").pid.expect("it lives");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(init as i32).expect("a pid"),
        rustix::process::Signal::KILL,
    )
    .expect("killed");
    place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    assert_eq!(place.executor.processes(&id).await.expect("a list").len(), 2);
    place
        .executor
        .kill(&id, 9, KillScope::Init)
        .await
        .expect("the rest is killed");
    while !place.executor.processes(&id).await.expect("a list").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = place
        .executor
        .kill(&id, 9, KillScope::Init)
        .await
        .expect_err("nothing is left");
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}

#[tokio::test]
async fn the_want_of_memory_and_the_end_are_told() {
    let Some(place) = place() else { return };
    let resources = json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } });
    if !supported(&place, &resources).await {
        return;
    }
    let mut hungry = spec(&["sh", "-c", "read go; x=$(yes | head -c 67108864); echo survived"]);
    hungry["linux"]["resources"] = resources;
    let (io, ends) = Io::pipe().expect("pipes");
    let id = new_id();
    place
        .executor
        .create(place.request(&id, &hungry, io))
        .await
        .expect("created");
    place.executor.start(&id).await.expect("started");
    let mut watch = place.executor.watch_oom(&id).expect("watched");
    assert_eq!(watch.next(Duration::from_millis(20)).expect("quiet"), OomNews::Nothing);
    (&ends.stdin).write_all(b"go\n").expect("it reads");
    let mut news = Vec::new();
    while news.last() != Some(&OomNews::Ended) {
        news.push(watch.next(Duration::from_secs(60)).expect("news"));
    }
    assert!(
        news.len() > 1 && news[..news.len() - 1].iter().all(|n| *n == OomNews::OutOfMemory),
        "{news:?}"
    );
    let stats = place.executor.stats(&id).await.expect("figures");
    let memory = stats.memory.expect("it is limited");
    assert!(memory.oom_kills > 0, "{memory:?}");
    assert!(
        !memory.details.is_empty() && memory.limit == Some(16 << 20),
        "{memory:?}"
    );
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

#[tokio::test]
async fn a_later_host_knows_who_wanted_memory() {
    let Some(place) = place() else { return };
    let resources = json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } });
    if !supported(&place, &resources).await {
        return;
    }
    let state = tempfile::tempdir().expect("a folder");
    for (script, expected) in [
        ("exec sh -c 'x=$(yes | head -c 67108864); exit 7'", true),
        ("kill -9 $$; exit 7", false),
    ] {
        let executor = LinuxExecutor::open(state.path()).expect("an executor");
        let mut one = spec(&["sh", "-c", script]);
        one["linux"]["resources"] = resources.clone();
        let id = new_id();
        let request = place.request(&id, &one, Io::null()).lifetime(Lifetime::Detached);
        executor.create(request).await.expect("created");
        executor.start(&id).await.expect("started");
        let told = executor.wait(&id, &ProcessId::Init).await.expect("it ends");
        assert_eq!(told.out_of_memory, expected, "{script}: {told:?}");
        drop(executor);

        let later = LinuxExecutor::open(state.path()).expect("an executor");
        let found = later.state(&id).await.expect("known").exit;
        assert_eq!(found, Some(told), "{script}");
        assert_eq!(
            later.wait(&id, &ProcessId::Init).await.expect("known"),
            told,
            "{script}"
        );
        later.delete(&id, DeleteMode::Stopped).await.expect("deleted");
    }
}

/// The number of a disk that may be written to.
fn disk() -> Option<(u32, u32)> {
    let Some(disk) = std::env::var_os("LONGSHORE_DISK") else {
        skipped("needs a disk to write to, whose name is in LONGSHORE_DISK");
        return None;
    };
    let number = rustix::fs::stat(&disk).expect("a disk").st_rdev;
    Some((rustix::fs::major(number), rustix::fs::minor(number)))
}

/// Waits until a process of the container has waited for the disk, not for a processor, for a while; it must not have got what it waits for.
async fn waits_for_the_disk(place: &Place, id: &ContainerId, got: &std::path::Path) {
    let waits = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D'))
    };
    let mut seen = 0;
    while seen < 20 {
        assert!(!got.exists(), "the limit does not bind");
        assert_eq!(place.executor.state(id).await.expect("known").status, Status::Running);
        let processes = place.executor.processes(id).await.expect("a list");
        seen = if processes.into_iter().any(waits) { seen + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_limit_of_bytes_written_to_a_disk_binds_until_it_is_lifted() {
    let Some(place) = place() else { return };
    let Some((major, minor)) = disk() else { return };
    let limit = |rate: u64| {
        json!({
            "blockIO": { "throttleWriteBpsDevice": [{ "major": major, "minor": minor, "rate": rate }] },
            "devices": [{ "allow": true, "type": "b", "major": major, "minor": minor, "access": "rwm" }],
        })
    };
    const PLENTY: u64 = 1 << 30;
    if !supported(&place, &limit(PLENTY)).await {
        return;
    }
    let writer = |block: u32, rate: u64, after: &str| {
        let dd = format!("dd if=/dev/zero of=/dev/disk bs=4096 count=1 seek={block} oflag=direct");
        let mut spec = spec(&["sh", "-c", &format!("{dd} 2>/told || exit 1; {after}")]);
        spec["linux"]["devices"] = json!([{ "path": "/dev/disk", "type": "b", "major": major, "minor": minor }]);
        spec["linux"]["resources"] = limit(rate);
        spec
    };
    // The least that the kernel takes, two bytes a second: a block needs half an hour.
    let id = running(&place, &writer(0, 2, "touch /written; sleep 1000")).await;
    let written = place.dir.path().join("rootfs/written");
    waits_for_the_disk(&place, &id, &written).await;
    // Another's write goes through meanwhile, and this one's does not.
    let free = place.run(&writer(1, PLENTY, "echo written")).await;
    assert_eq!(free.stdout, "written\n", "{free:?}");
    waits_for_the_disk(&place, &id, &written).await;
    let lifted = serde_json::from_value(limit(PLENTY)).expect("resources");
    place
        .executor
        .update(&id, &lifted)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    support::wait_while_it_lives(&place, &id, || written.exists()).await;
    let stats = place.executor.stats(&id).await.expect("figures");
    assert!(format!("{stats:?}").contains("4096"), "{stats:?}");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}
