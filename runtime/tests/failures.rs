//! Starts that fail. Alone in its program: what is left behind is told by this process' children, and another test's would be among them.

mod support;

use std::fs;

use longshore_runtime::Executor;
use serde_json::{Value, json};
use support::{chain, not_mounted_here, place, spec};

#[tokio::test]
async fn a_step_that_fails_names_its_field_and_leaves_nothing() {
    let Some(place) = place() else { return };
    type Change = fn(&mut Value);
    let changes: [(&str, Change, &str); 6] = [
        ("root", |s| s["root"]["path"] = json!("/nowhere/at/all"), "root.path"),
        (
            "mount",
            |s| s["mounts"][5]["type"] = json!("no-such-filesystem"),
            "mounts[5]",
        ),
        (
            "source",
            |s| s["mounts"][5] = json!({ "destination": "/x", "source": "/nowhere", "options": ["bind"] }),
            "mounts[5]",
        ),
        ("cwd", |s| s["process"]["cwd"] = json!("/bin/sh"), "process.cwd"),
        (
            "rlimit",
            |s| s["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 1u64 << 40, "hard": 1u64 << 40 }]),
            "process.rlimits[0]",
        ),
        (
            "sysctl",
            |s| s["linux"]["sysctl"] = json!({ "net.no.such": "1" }),
            "linux.sysctl.net.no.such",
        ),
    ];
    for (name, change, field) in changes {
        let mut spec = spec(&["true"]);
        change(&mut spec);
        let error = place.try_run(&spec).await.expect_err(name);
        assert!(chain(&error).starts_with(field), "{name}: {}", chain(&error));
        assert!(
            place.executor.list().await.expect("a list").is_empty(),
            "{name} left state behind"
        );
        let children = fs::read_dir("/proc/self/task").expect("readable").filter_map(|t| {
            fs::read_to_string(t.ok()?.path().join("children"))
                .ok()
                .filter(|c| !c.is_empty())
        });
        assert_eq!(
            children.collect::<Vec<_>>(),
            Vec::<String>::new(),
            "{name} left a process behind"
        );
    }
    not_mounted_here(&place);
}
