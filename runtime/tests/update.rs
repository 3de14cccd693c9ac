//! Limits that change while a container lives.

mod support;

use std::path::PathBuf;

use longshore_runtime::{ContainerId, DeleteMode, ErrorKind, Executor, Io, LinuxExecutor};
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};
use support::{Place, chain, new_id, place, skipped, spec};

fn resources(json: Value) -> LinuxResources {
    serde_json::from_value(json).expect("resources")
}

/// A container that sleeps, or the reason why there is none.
async fn sleeper(place: &Place, limits: Value) -> Option<ContainerId> {
    let id = new_id();
    let mut spec = spec(&["sh", "-c", "sleep 1000 & sleep 1000 & wait"]);
    spec["linux"]["resources"] = limits;
    match place.executor.create(place.request(&id, &spec, Io::null())).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            skipped(&chain(&error));
            return None;
        }
        created => created.unwrap_or_else(|e| panic!("{}", chain(&e))),
    };
    place.executor.start(&id).await.expect("started");
    while place.executor.processes(&id).await.expect("a list").len() < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Some(id)
}

fn again(place: &Place) -> LinuxExecutor {
    LinuxExecutor::open(place.dir.path().join("state")).expect("the state directory opens")
}

fn limits(executor: &LinuxExecutor, id: &ContainerId) -> Value {
    let spec = executor.spec(id).expect("known");
    let linux = spec.linux().as_ref().expect("it is for Linux");
    serde_json::to_value(linux.resources().as_ref().expect("it has limits")).expect("JSON")
}

#[tokio::test]
async fn a_change_is_kept_with_what_it_leaves_out() {
    let Some(place) = place() else { return };
    let before = json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 50 } });
    let Some(id) = sleeper(&place, before).await else {
        return;
    };
    let change = resources(json!({ "pids": { "limit": 60 }, "cpu": { "shares": 512 } }));
    place
        .executor
        .update(&id, &change)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    let expected = json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 60 }, "cpu": { "shares": 512 } });
    for executor in [&place.executor, &again(&place)] {
        assert_eq!(limits(executor, &id), expected);
        let stats = executor.stats(&id).await.expect("figures");
        assert_eq!(stats.pids.expect("limited").limit, Some(60));
        assert_eq!(stats.memory.expect("limited").limit, Some(64 << 20));
    }
    // What is refused changes nothing.
    let used = resources(json!({ "memory": { "limit": 4096, "checkBeforeUpdate": true } }));
    let error = place.executor.update(&id, &used).await.expect_err("more is used");
    assert!(error.to_string().contains("rejecting memory limit 4096"), "{error}");
    assert_eq!(limits(&place.executor, &id), expected);
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

/// Groups of a controller that have processes of the container.
async fn groups(executor: &LinuxExecutor, id: &ContainerId, controller: &str) -> Vec<PathBuf> {
    let mut groups = Vec::new();
    for pid in executor.processes(id).await.expect("a list") {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
        let line = text.lines().find(|l| l.split(':').nth(1) == Some(controller));
        groups.push(PathBuf::from(
            line.expect("v1").splitn(3, ':').nth(2).expect("three fields"),
        ));
    }
    groups
}

#[tokio::test]
async fn a_limit_of_a_controller_that_the_container_is_not_in_takes_it_in() {
    let Some(place) = place() else { return };
    let own = std::fs::read_to_string("/proc/self/cgroup").expect("readable");
    if !own.lines().any(|line| line.split(':').nth(1) == Some("cpuset")) {
        skipped("needs v1's cpuset in a hierarchy of its own");
        return;
    }
    let Some(id) = sleeper(&place, json!({})).await else {
        return;
    };
    // Another program knows the container from before.
    let other = again(&place);
    other.state(&id).await.expect("known");
    let change = resources(json!({ "cpu": { "cpus": "0" } }));
    place
        .executor
        .update(&id, &change)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    let inside = groups(&place.executor, &id, "cpuset").await;
    assert!(
        inside.len() == 3 && inside.iter().all(|g| g.ends_with(format!("longshore-{id}.scope"))),
        "{inside:?}"
    );
    let pid = place.executor.state(&id).await.expect("known").pid.expect("it lives");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    let stats = other.stats(&id).await.expect("figures");
    drop(stats);

    other.delete(&id, DeleteMode::Force).await.expect("deleted");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let at = mounts
        .lines()
        .find(|l| l.contains(" - cgroup ") && l.ends_with("cpuset"));
    let at = at.and_then(|l| l.split(' ').nth(4)).expect("it is mounted");
    let left = PathBuf::from(at).join(inside[0].strip_prefix("/").expect("absolute"));
    assert!(!left.exists(), "{} is left", left.display());
}
