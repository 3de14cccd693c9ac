//! Checkpoints, with a CRIU of the test's own: what it is asked for, and what becomes of its answers. The real one has kernels that it
//! does not know; `longshore-runc`'s tests use it where it works.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use longshore_runtime::{
    CheckpointKind, CheckpointRequest, CriuOptions, DeleteMode, ErrorKind, Executor, Io, KillScope, ProcessId,
    RestoreRequest, Status,
};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use support::{Place, chain, new_id, parse, place, spec};

const ROLE: &str = "LONGSHORE_TEST_CRIU_DIR";

/// A field of a protobuf message.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2, u8::try_from(value.len()).expect("short")];
    bytes.extend_from_slice(value);
    bytes
}

fn number(field: u8, mut value: u32) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Not a test: the program that stands in for CRIU. It writes down what it is asked for.
#[test]
fn criu_program() {
    let Some(dir) = std::env::var_os(ROLE).map(PathBuf::from) else {
        return;
    };
    let own = pidfd_open(getpid(), PidfdFlags::empty()).expect("a pidfd");
    let socket = pidfd_getfd(own, 3, PidfdGetfdFlags::empty()).expect("the socket is the third descriptor");
    let mut bytes = vec![0; 64 * 1024];
    let (_, length) = recv(&socket, &mut bytes[..], RecvFlags::empty()).expect("a request");
    let kind = bytes[1];
    fs::write(dir.join(format!("request-{kind}")), &bytes[..length]).expect("a file");
    let answer = |kind: u8, more: &[u8]| {
        let message = [&number(1, kind.into())[..], &number(2, 1), more].concat();
        send(&socket, &message, SendFlags::empty()).expect("sent");
    };
    let told = |script: &str, pid: u32| {
        answer(6, &field(5, &[field(1, script.as_bytes()), number(2, pid)].concat()));
        let mut reply = [0; 64];
        let (_, length) = recv(&socket, &mut reply[..], RecvFlags::empty()).expect("a reply");
        assert_eq!(reply[..length], [0x08, 6, 0x18, 1], "it may go on");
    };
    match kind {
        10 => answer(10, &field(10, &[number(1, 3), number(2, 19)].concat())),
        1 if dir.join("fail").exists() => {
            fs::write(dir.join("images/dump.log"), "(0.1) Error (x.c): it can't\n").expect("a log");
            let message = [number(1, 1), number(2, 0), number(7, 16)].concat();
            send(&socket, &message, SendFlags::empty()).expect("sent");
        }
        1 => {
            let pid = fs::read_to_string(dir.join("pid")).expect("the container's process");
            let kill = Command::new("kill").arg("-9").arg(pid).status().expect("kill");
            assert!(kill.success());
            told("post-dump", 0);
            answer(1, &[]);
        }
        2 => {
            // It outlives this program, as what CRIU restores does.
            #[allow(clippy::zombie_processes)]
            let child = Command::new("sleep")
                .arg("1000")
                .stdout(Stdio::null())
                .spawn()
                .expect("sleep");
            told("post-restore", child.id());
            answer(2, &field(4, &number(1, child.id())));
        }
        other => panic!("a request of kind {other}"),
    }
}

/// The program, as a file that can be executed.
fn criu(place: &Place) -> CriuOptions {
    let dir = place.dir.path();
    let program = dir.join("criu");
    let exe = std::env::current_exe().expect("this program");
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = 'swrk 3' ] || exit 2\n{ROLE}='{}' exec '{}' --exact criu_program --nocapture >/dev/null 2>'{}/complaints'\n",
        dir.display(),
        exe.display(),
        dir.display()
    );
    longshore_testing::write_program(&program, &script).expect("a script");
    let mut options = CriuOptions::new(dir.join("images"));
    options.program = program;
    options
}

fn contains(file: &Path, text: &str) -> bool {
    let bytes = fs::read(file).unwrap_or_default();
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_container_is_saved_ended_and_made_again() {
    let Some(place) = place() else { return };
    let (id, mut spec) = (new_id(), spec(&["sleep", "1000"]));
    spec["annotations"] = serde_json::json!({ "org.criu.config": "/the/config" });
    fs::create_dir(place.dir.path().join("data")).expect("a directory");
    let bind = serde_json::json!({ "destination": "/data", "source": "data", "options": ["bind"] });
    spec["mounts"].as_array_mut().expect("a list").push(bind);
    place
        .executor
        .create(place.request(&id, &spec, Io::null()))
        .await
        .expect("created");
    let early = place
        .executor
        .checkpoint(&id, CheckpointRequest::new(criu(&place)))
        .await;
    assert_eq!(
        early.expect_err("it is only created").kind(),
        ErrorKind::FailedPrecondition
    );
    place.executor.start(&id).await.expect("started");
    let pid = place.executor.state(&id).await.expect("known").pid.expect("a pid");
    fs::write(place.dir.path().join("pid"), pid.to_string()).expect("a file");
    let saved = place
        .executor
        .checkpoint(&id, CheckpointRequest::new(criu(&place)))
        .await;
    saved.unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(place.executor.state(&id).await.expect("known").status, Status::Stopped);
    let asked = place.dir.path().join("request-1");
    for text in ["/data", "dump.log", "/the/config", "/dev/null"] {
        assert!(contains(&asked, text), "{text}");
    }
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");

    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    fs::remove_dir(place.dir.path().join("rootfs/data")).expect("the mount point is made again");
    let request = RestoreRequest::new(id.clone(), place.bundle(), parse(&spec), Io::null(), criu(&place));
    let restored = place.executor.restore(request).await;
    let restored = restored.unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(restored.status, Status::Running);
    assert!(place.dir.path().join("rootfs/data").is_dir());
    let asked = place.dir.path().join("request-2");
    for text in [
        "restore.log",
        "criu-root",
        place.dir.path().join("data").to_str().expect("text"),
    ] {
        assert!(contains(&asked, text), "{text}");
    }
    let now = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    assert_eq!(now, mounts, "nothing is mounted here");
    place
        .executor
        .kill(&id, 9, KillScope::Init)
        .await
        .expect("a signal is sent");
    place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}

#[tokio::test]
async fn what_criu_cannot_do_is_told_in_its_words() {
    let Some(place) = place() else { return };
    fs::write(place.dir.path().join("fail"), "").expect("a file");
    let id = new_id();
    let request = place.request(&id, &spec(&["sleep", "1000"]), Io::null());
    place.executor.create(request).await.expect("created");
    place.executor.start(&id).await.expect("started");
    let mut request = CheckpointRequest::new(criu(&place));
    request.kind = CheckpointKind::LeaveRunning;
    let error = place.executor.checkpoint(&id, request).await.expect_err("it fails");
    let told = chain(&error);
    assert!(
        told.contains("type DUMP errno 16") && told.contains("it can't"),
        "{told}"
    );
    let mut nowhere = criu(&place);
    nowhere.program = "/no/criu".into();
    let error = place.executor.checkpoint(&id, CheckpointRequest::new(nowhere)).await;
    let told = chain(&error.expect_err("it is not there"));
    assert!(told.contains("start /no/criu"), "{told}");
    assert_eq!(place.executor.state(&id).await.expect("known").status, Status::Running);
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");

    fs::remove_file(place.dir.path().join("fail")).expect("a file");
    let request = RestoreRequest::new(
        id.clone(),
        place.bundle(),
        parse(&spec(&["true"])),
        Io::null(),
        criu(&place),
    );
    place
        .executor
        .restore(request)
        .await
        .expect("there are descriptors of the other attempt");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    fs::remove_dir_all(place.dir.path().join("images")).expect("removed");
    let request = RestoreRequest::new(
        id.clone(),
        place.bundle(),
        parse(&spec(&["true"])),
        Io::null(),
        criu(&place),
    );
    place.executor.restore(request).await.expect_err("there are no images");
    assert!(
        place.executor.list().await.expect("a list").is_empty(),
        "nothing is left of it"
    );
}
