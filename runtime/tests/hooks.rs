//! Hooks of all kinds: when they run, where, as whom, with what on their stdin, and what their failure leads to.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use longshore_runtime::{DeleteMode, Error, ErrorKind, Executor, Io, ProcessId};
use serde_json::{Value, json};
use support::{Place, chain, new_id, place, spec};

/// A hook that runs a line of shell, with the programs of wherever it runs.
fn shell(line: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] })
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn log_of(place: &Place) -> PathBuf {
    place.dir.path().join("log")
}

const STATE: &str = "cat | tr ',{}' '\\n\\n\\n' | grep -E '\"(status|pid)\"' | sort | tr -d '\\n'";

#[tokio::test]
async fn each_kind_runs_in_its_turn_with_the_state_on_its_stdin() {
    let Some(place) = place() else { return };
    let log = log_of(&place);
    // The host's directory is seen by all but startContainer, which writes into the container's root.
    let one = |name: &str, log: &str| json!([shell(&format!("echo {name} $({STATE}) >> {log}"))]);
    let host = log.to_str().expect("text");
    let mut spec = spec(&["sh", "-c", "echo program >> /log"]);
    spec["annotations"] = json!({ "org.example.a": "b" });
    spec["hooks"] = json!({
        "prestart": one("prestart", host), "createRuntime": one("createRuntime", host),
        "createContainer": one("createContainer", host), "startContainer": one("startContainer", "/log"),
        "poststart": one("poststart", host), "poststop": one("poststop", host),
    });
    let id = new_id();
    let state = place.executor.create(place.request(&id, &spec, Io::null())).await;
    let pid = state.unwrap_or_else(|e| panic!("{}", chain(&e))).pid.expect("it lives");
    place
        .executor
        .start(&id)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
    let expected = format!(
        "prestart \"pid\":{pid}\"status\":\"created\"\n\
         createRuntime \"pid\":{pid}\"status\":\"creating\"\n\
         createContainer \"pid\":1\"status\":\"creating\"\n\
         poststart \"pid\":{pid}\"status\":\"running\"\n\
         poststop \"status\":\"stopped\"\n"
    );
    assert_eq!(read(&log), expected);
    let inside = read(place.dir.path().join("rootfs/log"));
    assert_eq!(inside, "startContainer \"pid\":1\"status\":\"created\"\nprogram\n");
}

#[tokio::test]
async fn the_state_has_the_id_the_bundle_and_the_annotations() {
    let Some(place) = place() else { return };
    let mut spec = spec(&["true"]);
    spec["annotations"] = json!({ "org.example.a": "b" });
    let log = log_of(&place);
    spec["hooks"] = json!({ "createContainer": [shell(&format!("cat > {}", log.display()))] });
    assert_eq!(place.run(&spec).await.status.code, 0);
    let state: Value = serde_json::from_str(&read(&log)).expect("JSON");
    assert_eq!(state["annotations"], json!({ "org.example.a": "b" }));
    assert_eq!(state["bundle"], json!(place.bundle()));
    assert_eq!(state["ociVersion"], "1.2.0");
    assert!(state["id"].as_str().is_some_and(|id| id.starts_with('t')));
}

#[tokio::test]
async fn a_hook_that_does_not_read_a_long_state_is_not_waited_for() {
    let Some(place) = place() else { return };
    let mut spec = spec(&["true"]);
    spec["annotations"] = json!({ "org.example.long": "x".repeat(200_000) });
    let hook = json!([{ "path": "/bin/true" }]);
    spec["hooks"] = json!({ "createRuntime": hook, "createContainer": hook, "startContainer": hook, "poststop": hook });
    assert_eq!(place.run(&spec).await.status.code, 0);
}

/// The mounts of the container are there before its root is the root, and what hooks mount below `root.path` is in the container.
#[tokio::test]
async fn hooks_of_the_create_phase_change_the_root_where_root_path_says() {
    let Some(place) = place() else { return };
    let root = place.dir.path().join("rootfs");
    let given = place.dir.path().join("given");
    fs::write(&given, "from the host\n").expect("a file");
    for name in ["one", "two"] {
        fs::write(root.join(name), "").expect("a file");
    }
    let (given, one) = (given.display(), root.join("one"));
    let enter = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); nsenter -m -t $pid mount --bind {given} {}",
        one.display()
    );
    let mut spec = spec(&["cat", "/one", "/two"]);
    spec["hooks"] = json!({
        "createRuntime": [shell(&enter)],
        // The working directory is the root; the path of the program is the host's.
        "createContainer": [shell(&format!("test -e ./proc/self/status && mount --bind {given} ./two"))],
    });
    let outcome = place.run(&spec).await;
    assert_eq!(outcome.stdout, "from the host\nfrom the host\n", "{outcome:?}");
    assert_eq!(read(&one), "", "the host's own file is as it was");
    support::not_mounted_here(&place);
}

#[tokio::test]
async fn a_create_container_hook_is_in_the_containers_namespaces_and_a_create_runtime_hook_is_not() {
    let Some(place) = place() else { return };
    for user in [false, true] {
        let log = log_of(&place);
        fs::write(&log, "").expect("a file");
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).expect("permissions");
        let mut spec = spec(&["sh", "-c", "for n in /proc/self/ns/*; do readlink $n; done; id -u"]);
        if user {
            let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
            spec["linux"]["uidMappings"] = map.clone();
            spec["linux"]["gidMappings"] = map;
        }
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.extend(user.then(|| json!({ "type": "user" })));
        // A procfs shows a process by its own numbers only to those of its namespace.
        let line = format!(
            "for n in /proc/self/ns/*; do readlink $n; done > {0}; id -u >> {0}; hostname >> {0}",
            log.display()
        );
        spec["hooks"] = json!({ "createContainer": [shell(&line)] });
        let outcome = place.run(&spec).await;
        assert_eq!(
            read(&log),
            format!("{}box\n", outcome.stdout),
            "user namespace: {user}, {outcome:?}"
        );
        spec["hooks"] = json!({ "createRuntime": [shell(&line)] });
        let outcome = place.run(&spec).await;
        assert_ne!(
            read(&log).lines().nth(1),
            outcome.stdout.lines().nth(1),
            "the second is ipc"
        );
    }
}

#[tokio::test]
async fn a_start_container_hook_has_the_rights_and_the_environment_of_the_program() {
    let Some(place) = place() else { return };
    let see = "id -u; id -g; pwd; echo $A; grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; readlink /proc/self/ns/mnt";
    let mut spec = spec(&[
        "sh",
        "-c",
        &format!("cat /tmp/log; ({see}) > /tmp/own; cmp /tmp/log /tmp/own && echo same"),
    ]);
    fs::set_permissions(place.dir.path().join("rootfs/tmp"), fs::Permissions::from_mode(0o777)).expect("permissions");
    fs::write(place.dir.path().join("rootfs/tmp/log"), "").expect("a file");
    fs::set_permissions(
        place.dir.path().join("rootfs/tmp/log"),
        fs::Permissions::from_mode(0o666),
    )
    .expect("permissions");
    spec["process"]["args"] = json!([
        "sh",
        "-c",
        format!("({see}) > /tmp/own; cat /tmp/log; echo; cat /tmp/own")
    ]);
    spec["process"]["env"] = json!(["PATH=/bin", "A=b c"]);
    spec["process"]["cwd"] = json!("/tmp");
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001 });
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }],
    });
    spec["hooks"] =
        json!({ "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", format!("({see}) > /tmp/log")] }] });
    let outcome = place.run(&spec).await;
    let (hook, program) = outcome
        .stdout
        .split_once("\n\n")
        .unwrap_or_else(|| panic!("{outcome:?}"));
    assert_eq!(hook, program.trim_end(), "{outcome:?}");
    assert!(
        hook.starts_with("1000\n1001\n/tmp\nb c\n") && hook.contains("Seccomp:\t2"),
        "{hook}"
    );
}

#[tokio::test]
async fn the_first_argument_is_not_the_program_that_runs() {
    let Some(place) = place() else { return };
    let mut spec = spec(&["true"]);
    spec["hooks"] = json!({ "startContainer": [{ "path": "/bin/busybox", "args": ["cat", "/nowhere"] }] });
    let error = place.try_run(&spec).await.expect_err("the hook fails");
    assert!(error.to_string().contains("cat: can't open '/nowhere'"), "{error}");
}

/// Runtime spec, "Lifecycle": whatever fails before and right after the start ends the life, and `poststop` is part of it.
#[tokio::test]
async fn a_hook_that_fails_ends_the_life_and_poststop_is_run() {
    let Some(place) = place() else { return };
    let log = log_of(&place);
    for kind in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
    ] {
        for (line, timeout, expected) in [
            ("echo no good >&2; exit 3", 10, "exit status 3: no good"),
            ("echo said before; exec sleep 1000", 1, "past specified timeout of 1s"),
            ("kill -TERM $$", 10, "signal 15"),
        ] {
            // One of each way to be waited for is enough of the slow ones.
            if timeout == 1 && !["createRuntime", "startContainer"].contains(&kind) {
                continue;
            }
            let mut hook = shell(line);
            hook["timeout"] = json!(timeout);
            let mut spec = spec(&["sleep", "1000"]);
            spec["hooks"] = json!({
                kind: [{ "path": "/bin/true" }, hook],
                "poststop": [{ "path": "/bin/false" }, shell(&format!("cat >> {}", log.display()))],
            });
            let id = new_id();
            let created = place.executor.create(place.request(&id, &spec, Io::null())).await;
            let error = match created {
                Err(error) => error,
                Ok(_) => place.executor.start(&id).await.expect_err("the hook fails"),
            };
            let field = format!("hooks.{kind}[1]");
            assert!(
                matches!(&error, Error::Hook { field: f, .. } if *f == field),
                "{error:?}"
            );
            assert!(error.to_string().contains(expected), "{error}");
            let gone = place.executor.state(&id).await.expect_err("it is destroyed");
            assert_eq!(gone.kind(), ErrorKind::NotFound);
            assert!(place.executor.list().await.expect("a list").is_empty());
            let state: Value = serde_json::from_str(&read(&log)).expect("poststop ran once");
            assert_eq!(
                (&state["status"], &state["id"]),
                (&json!("stopped"), &json!(id.to_string()))
            );
            fs::remove_file(&log).expect("removed");
        }
    }
}

#[tokio::test]
async fn a_hook_that_is_not_there_is_named() {
    let Some(place) = place() else { return };
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let mut spec = spec(&["true"]);
        spec["hooks"] = json!({ kind: [{ "path": "/no/such/hook" }] });
        let error = place.try_run(&spec).await.expect_err("there is no such hook");
        let text = error.to_string();
        assert!(text.starts_with(&format!("hooks.{kind}[0]: /no/such/hook")), "{text}");
        assert!(text.contains("No such file"), "{text}");
    }
}

#[tokio::test]
async fn a_created_container_that_is_deleted_runs_poststop() {
    let Some(place) = place() else { return };
    let log = log_of(&place);
    let mut spec = spec(&["true"]);
    spec["hooks"] = json!({ "poststop": [shell(&format!("echo over >> {}", log.display()))] });
    let id = new_id();
    place
        .executor
        .create(place.request(&id, &spec, Io::null()))
        .await
        .expect("created");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    assert_eq!(read(&log), "over\n");
}
