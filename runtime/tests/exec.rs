//! Other processes in a container, terminals, and streams.

mod support;

use std::fs;
use std::io::{Read, Write};

use longshore_runtime::cgroup::SubGroup;
use longshore_runtime::{ContainerId, DeleteMode, ErrorKind, ExecRequest, Executor, Io, ProcessId, Terminal};
use oci_spec::runtime::Process;
use serde_json::{Value, json};
use support::{Place, chain, new_id, parse, place, spec};

fn process(args: &[&str], changes: Value) -> Process {
    let mut value = json!({ "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    value
        .as_object_mut()
        .expect("a map")
        .extend(changes.as_object().expect("a map").clone());
    serde_json::from_value(value).expect("a process")
}

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

async fn exec(place: &Place, id: &ContainerId, name: &str, process: Process) -> (u32, String) {
    let (io, mut ends) = Io::pipe().expect("pipes");
    let pid = place.executor.exec(id, ExecRequest::new(name, process, io)).await;
    assert!(pid.unwrap_or_else(|e| panic!("{}", chain(&e))) > 0);
    let exit = place
        .executor
        .wait(id, &ProcessId::Exec(name.into()))
        .await
        .expect("it ends");
    let mut out = String::new();
    ends.stdout.read_to_string(&mut out).expect("text");
    ends.stderr.read_to_string(&mut out).expect("text");
    (exit.code, out)
}

#[tokio::test]
async fn an_exec_is_in_the_container_and_has_its_restrictions() {
    let Some(place) = place() else { return };
    let mut spec = spec(&["sleep", "1000"]);
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }],
    });
    let id = running(&place, &spec).await;
    let line = "hostname; readlink /proc/self/ns/pid; readlink /proc/1/ns/pid; grep -E 'CapBnd|Seccomp:|NoNewPrivs' /proc/self/status; ls /proc/self/fd; exit 3";
    let (code, out) = exec(&place, &id, "one", process(&["sh", "-c", line], json!({}))).await;
    assert_eq!(code, 3, "{out}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "box");
    assert_eq!(lines[1], lines[2], "the PID namespace is init's");
    assert_eq!(
        lines[3..6],
        ["CapBnd:\t0000000000000021", "NoNewPrivs:\t1", "Seccomp:\t2"]
    );
    assert_eq!(lines[6..], ["0", "1", "2", "3"]);

    let user = json!({ "user": { "uid": 7, "gid": 8 }, "cwd": "/tmp" });
    let (code, out) = exec(&place, &id, "two", process(&["sh", "-c", "id -u; id -g; pwd"], user)).await;
    assert_eq!((code, out.as_str()), (0, "7\n8\n/tmp\n"));

    let again = ExecRequest::new("one", process(&["true"], json!({})), Io::null());
    assert_eq!(
        place
            .executor
            .exec(&id, again)
            .await
            .expect_err("the name is taken")
            .kind(),
        ErrorKind::AlreadyExists
    );
    let missing = ExecRequest::new("three", process(&["no-such-thing"], json!({})), Io::null());
    let error = place
        .executor
        .exec(&id, missing)
        .await
        .expect_err("there is no such program");
    assert!(
        chain(&error).contains("executable file not found in $PATH"),
        "{}",
        chain(&error)
    );
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

#[tokio::test]
async fn an_exec_enters_a_user_namespace() {
    let Some(place) = place() else { return };
    let mut spec = spec(&["sleep", "1000"]);
    spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
    let id = running(&place, &spec).await;
    let (code, out) = exec(
        &place,
        &id,
        "one",
        process(&["sh", "-c", "id -u; cat /proc/self/uid_map"], json!({})),
    )
    .await;
    assert_eq!(code, 0, "{out}");
    assert_eq!(
        out.split_whitespace().collect::<Vec<_>>(),
        ["0", "0", "100000", "65536"]
    );
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

#[tokio::test]
async fn an_exec_needs_a_container_that_has_not_ended() {
    let Some(place) = place() else { return };
    let id = new_id();
    place
        .executor
        .create(place.request(&id, &spec(&["true"]), Io::null()))
        .await
        .expect("created");
    place.executor.start(&id).await.expect("started");
    place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    let request = ExecRequest::new("x", process(&["true"], json!({})), Io::null());
    let error = place.executor.exec(&id, request).await.expect_err("it has stopped");
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}

/// Reads a terminal to its end, which is an error.
async fn shown(mut master: fs::File) -> String {
    tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = master.read(&mut buffer) {
            text.extend_from_slice(&buffer[..length]);
        }
        String::from_utf8(text).expect("text")
    })
    .await
    .expect("it is read")
}

#[tokio::test]
async fn a_terminal_is_a_terminal_of_the_size_that_was_asked_for() {
    let Some(place) = place() else { return };
    let id = new_id();
    let mut spec = spec(&[
        "sh",
        "-c",
        "tty; stty size; stat -c %F /dev/console; read x; echo got $x",
    ]);
    spec["process"]["terminal"] = json!(true);
    spec["process"]["consoleSize"] = json!({ "height": 33, "width": 77 });
    let (io, terminal) = Io::pty();
    place
        .executor
        .create(place.request(&id, &spec, io))
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    let mut master = terminal.master().await.expect("a terminal");
    place.executor.start(&id).await.expect("started");
    master.write_all(b"hey\n").expect("typed");
    // What is typed is echoed at once, wherever the program is by then.
    let text = shown(master).await.replacen("hey\r\n", "", 1);
    assert!(text.starts_with("/dev/pts/0\r\n33 77\r\n"), "{text:?}");
    assert!(
        text.contains("character special file") && text.ends_with("got hey\r\n"),
        "{text:?}"
    );
    place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}

#[tokio::test]
async fn an_exec_has_a_terminal_too() {
    let Some(place) = place() else { return };
    let id = running(&place, &spec(&["sleep", "1000"])).await;
    let (io, terminal) = Io::pty();
    let process = process(
        &["sh", "-c", "tty; stty size"],
        json!({ "terminal": true, "user": { "uid": 5, "gid": 5 } }),
    );
    place
        .executor
        .exec(&id, ExecRequest::new("t", process, io))
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    let master = terminal.master().await.expect("a terminal");
    Terminal::resize(&master, 10, 20).expect("resized");
    let text = shown(master).await;
    assert!(text.starts_with("/dev/pts/0\r\n"), "{text:?}");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

#[tokio::test]
async fn output_is_in_the_log_when_wait_returns() {
    let Some(place) = place() else { return };
    let mut spec = spec(&["sh", "-c", "seq 1 2000; echo oops >&2"]);
    for terminal in [false, true] {
        spec["process"]["terminal"] = json!(terminal);
        let (id, log) = (new_id(), place.dir.path().join(format!("log-{terminal}.json")));
        place
            .executor
            .create(place.request(&id, &spec, Io::json_lines(&log)))
            .await
            .expect("created");
        place.executor.start(&id).await.expect("started");
        place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
        let text = fs::read_to_string(&log).expect("a log");
        let records: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        assert_eq!(records.len(), 2001, "terminal: {terminal}");
        let errors: Vec<_> = records
            .iter()
            .filter(|r| r["stream"] == "stderr")
            .map(|r| r["log"].clone())
            .collect();
        assert_eq!(errors, if terminal { vec![] } else { vec![json!("oops\n")] });
        place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
    }
}

#[tokio::test]
async fn a_plain_file_takes_both_streams() {
    let Some(place) = place() else { return };
    let (id, log) = (new_id(), place.dir.path().join("log"));
    let request = place.request(&id, &spec(&["sh", "-c", "echo out; echo err >&2"]), Io::file(&log));
    place.executor.create(request).await.expect("created");
    place.executor.start(&id).await.expect("started");
    place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    assert_eq!(fs::read_to_string(&log).expect("a log"), "out\nerr\n");
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}

#[tokio::test]
async fn another_executor_on_the_same_directory_starts_and_sees_it() {
    let Some(place) = place() else { return };
    let id = new_id();
    let request = place.request(&id, &spec(&["sh", "-c", "sleep 0.2; exit 4"]), Io::null());
    place.executor.create(request).await.expect("created");
    let other = longshore_runtime::LinuxExecutor::open(place.dir.path().join("state")).expect("it opens");
    other.start(&id).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(
        place.executor.wait(&id, &ProcessId::Init).await.expect("it ends").code,
        4
    );
    assert_eq!(other.state(&id).await.expect("known").pid, None);
    other.delete(&id, DeleteMode::Stopped).await.expect("deleted");
    assert_eq!(
        place.executor.state(&id).await.expect_err("it is gone").kind(),
        ErrorKind::NotFound
    );
    let _ = parse(&spec(&["true"]));
}

/// An unlinked file with a text, to read from its beginning.
fn file_with(text: &str) -> std::os::fd::OwnedFd {
    use std::io::Seek;
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file.rewind().expect("rewound");
    file.into()
}

#[tokio::test]
async fn a_program_has_the_further_descriptors_of_its_request_and_no_other() {
    let Some(place) = place() else { return };
    // The host has something of its own where the child puts them.
    let _own: Vec<_> = (0..8).map(|_| file_with("the host's own")).collect();
    let id = new_id();
    let script = "cat <&3; cat <&4; ls /proc/self/fd; read x";
    let (io, mut ends) = Io::pipe().expect("pipes");
    let request = place
        .request(&id, &spec(&["sh", "-c", script]), io)
        .descriptors(vec![file_with("one\n"), file_with("two\n")]);
    place.executor.create(request).await.expect("created");
    place.executor.start(&id).await.expect("started");

    // `ls` itself has the directory open.
    let expected = "one\ntwo\n0\n1\n2\n3\n4\n5\n";
    let mut out = vec![0; expected.len()];
    ends.stdout.read_exact(&mut out).expect("output");
    assert_eq!(String::from_utf8_lossy(&out), expected);

    let (io, mut other) = Io::pipe().expect("pipes");
    let request = ExecRequest::new("x", process(&["sh", "-c", "cat <&3; ls /proc/self/fd"], json!({})), io)
        .descriptors(vec![file_with("three\n")]);
    place.executor.exec(&id, request).await.expect("it runs");
    let mut out = String::new();
    other.stdout.read_to_string(&mut out).expect("output");
    assert_eq!(out, "three\n0\n1\n2\n3\n4\n");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

#[tokio::test]
async fn a_created_container_can_be_entered_before_its_start() {
    let Some(place) = place() else { return };
    let id = new_id();
    let request = place.request(&id, &spec(&["sh", "-c", "exit 3"]), Io::null());
    place.executor.create(request).await.expect("created");
    let (code, out) = exec(&place, &id, "x", process(&["hostname"], json!({}))).await;
    assert_eq!((code, out.as_str()), (0, "box\n"));
    place.executor.start(&id).await.expect("it still waits for its start");
    let exit = place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    assert_eq!(exit.code, 3);
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}

#[tokio::test]
async fn a_process_enters_a_group_inside_the_containers_and_no_other() {
    let Some(place) = place() else { return };
    let id = new_id();
    let mut sleeper = spec(&["sleep", "1000"]);
    let cgroup =
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "rw"] });
    sleeper["mounts"].as_array_mut().expect("a list").push(cgroup);
    let created = place.executor.create(place.request(&id, &sleeper, Io::null())).await;
    created.unwrap_or_else(|e| panic!("{}", chain(&e)));
    place.executor.start(&id).await.expect("started");
    let process =
        json!({ "args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    let request = |name: &str, controllers: &[&str], path: &str| {
        let process = serde_json::from_value(process.clone()).expect("a process");
        let controllers = controllers.iter().map(|c| (*c).to_owned()).collect();
        let path = path.into();
        ExecRequest::new(name, process, Io::null()).groups(vec![SubGroup { controllers, path }])
    };
    for (controllers, path, words) in [
        (&[][..], "..", "bad sub cgroup path"),
        (&[], "a/../..", "bad sub cgroup path"),
        (&[], "nowhere", "adding pid"),
        (&["whaaat"], "/", "unknown controller whaaat"),
    ] {
        let error = place
            .executor
            .exec(&id, request("x", controllers, path))
            .await
            .expect_err(path);
        assert!(chain(&error).contains(words), "{path}: {}", chain(&error));
    }
    let groups = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let own = groups(place.executor.state(&id).await.expect("known").pid.expect("it lives"));
    let pid = place.executor.exec(&id, request("x", &[], "/")).await.expect("it runs");
    assert_eq!(groups(pid), own);

    // A group inside, made from outside in every hierarchy that the container has a group in.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let points = mounts
        .lines()
        .filter(|l| l.contains(" - cgroup"))
        .filter_map(|l| l.split(' ').nth(4));
    let inside = own
        .lines()
        .find_map(|l| l.split(':').nth(2).filter(|p| p.contains(id.as_str())));
    let inside = inside.expect("it has groups").trim_start_matches('/').to_owned();
    for point in points {
        let group = std::path::Path::new(point).join(&inside);
        if group.is_dir() {
            std::fs::create_dir(group.join("sub")).expect("a group");
            // Nothing can be in an empty cpuset of v1.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(set) = std::fs::read(group.join(file)) {
                    std::fs::write(group.join("sub").join(file), set).expect("a set");
                }
            }
        }
    }
    let pid = place
        .executor
        .exec(&id, request("y", &[], "sub"))
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    let there = groups(pid);
    assert!(there.lines().any(|l| l.ends_with(&format!("{inside}/sub"))), "{there}");
    assert!(!there.lines().any(|l| l.ends_with(&inside)), "{there}");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}
