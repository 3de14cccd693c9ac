//! A container's life on this machine, by the port alone.

mod support;

use longshore_runtime::{DeleteMode, Error, ErrorKind, Executor, Io, KillScope, ProcessId, Status};
use support::{chain, new_id, place, spec};

#[tokio::test]
async fn a_container_is_created_started_waited_for_and_deleted() {
    let Some(place) = place() else { return };
    let id = new_id();
    let state = place
        .executor
        .create(place.request(&id, &spec(&["sh", "-c", "exit 7"]), Io::null()))
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(state.status, Status::Created);
    assert!(state.pid.is_some());
    place
        .executor
        .start(&id)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    let exit = place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    assert_eq!(exit.code, 7);
    let state = place.executor.state(&id).await.expect("it is known");
    assert_eq!((state.status, state.pid), (Status::Stopped, None));
    place
        .executor
        .delete(&id, DeleteMode::Stopped)
        .await
        .expect("it can be deleted");
    assert!(matches!(place.executor.state(&id).await, Err(Error::NotFound(_))));
    assert!(place.executor.list().await.expect("a list").is_empty());
}

#[tokio::test]
async fn output_comes_out_and_the_program_is_alone() {
    let Some(place) = place() else { return };
    assert_eq!(place.sh("echo hello; echo $$").await, "hello\n1\n");
    assert_eq!(place.sh("hostname").await, "box\n");
}

#[tokio::test]
async fn a_signal_ends_it_with_128_and_the_signal() {
    let Some(place) = place() else { return };
    let id = new_id();
    place
        .executor
        .create(place.request(&id, &spec(&["sleep", "1000"]), Io::null()))
        .await
        .expect("created");
    place.executor.start(&id).await.expect("started");
    assert_eq!(place.executor.state(&id).await.expect("known").status, Status::Running);
    let early = place
        .executor
        .delete(&id, DeleteMode::Stopped)
        .await
        .expect_err("it runs");
    assert_eq!(early.kind(), ErrorKind::FailedPrecondition);
    place
        .executor
        .kill(&id, 9, KillScope::Init)
        .await
        .expect("a signal is sent");
    assert_eq!(
        place.executor.wait(&id, &ProcessId::Init).await.expect("it ends").code,
        137
    );
    let late = place
        .executor
        .kill(&id, 9, KillScope::Init)
        .await
        .expect_err("it has stopped");
    assert_eq!(late.kind(), ErrorKind::FailedPrecondition);
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}

/// It is the first process of its PID namespace, or of the host's.
#[tokio::test]
async fn a_signal_ends_a_container_that_is_created_and_not_started() {
    let Some(place) = place() else { return };
    let spec = spec(&["sleep", "1000"]);
    let mut of_the_host = spec.clone();
    let namespaces = of_the_host["linux"]["namespaces"].as_array_mut().expect("a list");
    namespaces.retain(|namespace| namespace["type"] != "pid");
    for (spec, whose) in [(&spec, "its own"), (&of_the_host, "the host's")] {
        // To hang up, to interrupt, to quit, to abort, a fault, to terminate.
        for signal in [1, 2, 3, 6, 11, 15] {
            let id = new_id();
            let request = place.request(&id, spec, Io::null());
            let created = place.executor.create(request).await;
            created.unwrap_or_else(|e| panic!("{}", chain(&e)));
            let killed = place.executor.kill(&id, signal, KillScope::Init).await;
            killed.expect("a signal is sent");
            let exit = place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
            assert_eq!(exit.code, 128 + signal as u32, "PID namespace: {whose}");
            place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
        }
    }
}

/// What the wait for the start does to signals ends with it.
#[tokio::test]
async fn a_program_finds_no_signal_blocked() {
    let Some(place) = place() else { return };
    let outcome = place
        .run(&spec(&["grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"]))
        .await;
    assert_eq!(outcome.stdout, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[tokio::test]
async fn a_program_that_is_not_there_fails_the_create_and_leaves_nothing() {
    let Some(place) = place() else { return };
    let error = place
        .try_run(&spec(&["nothing-like-this"]))
        .await
        .expect_err("there is no such program");
    assert_eq!(error.kind(), ErrorKind::Start);
    assert!(
        chain(&error).contains("executable file not found in $PATH"),
        "{}",
        chain(&error)
    );
    assert!(place.executor.list().await.expect("a list").is_empty());
}

/// What is left if the program that starts a container is killed right after the container runs: the socket that nobody listens on.
#[tokio::test]
async fn a_start_whose_last_step_is_missing_is_a_start() {
    let Some(place) = place() else { return };
    let id = new_id();
    let request = place.request(&id, &spec(&["sleep", "1000"]), Io::null());
    place.executor.create(request).await.expect("created");
    let socket = place.dir.path().join("state").join(id.as_str()).join("start.sock");
    let kept = socket.with_extension("kept");
    std::fs::hard_link(&socket, &kept).expect("a second name");
    assert_eq!(place.executor.state(&id).await.expect("known").status, Status::Created);
    place.executor.start(&id).await.expect("started");
    std::fs::rename(&kept, &socket).expect("put back");
    assert_eq!(place.executor.state(&id).await.expect("known").status, Status::Running);
    let again = place.executor.start(&id).await.expect_err("it runs");
    assert_eq!(again.kind(), ErrorKind::FailedPrecondition);
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

#[tokio::test]
async fn a_damaged_container_does_not_hide_the_others() {
    let Some(place) = place() else { return };
    let (id, damaged) = (new_id(), new_id());
    for id in [&id, &damaged] {
        let request = place.request(id, &spec(&["sleep", "1000"]), Io::null());
        place.executor.create(request).await.expect("created");
    }
    let record = place.dir.path().join("state").join(damaged.as_str()).join("state.json");
    let whole = std::fs::read(&record).expect("a record");
    std::fs::write(&record, &whole[..whole.len() / 2]).expect("cut off");
    let other = longshore_runtime::LinuxExecutor::open(place.dir.path().join("state")).expect("it opens");
    let listed = other.list().await.expect("a list");
    assert_eq!(listed.iter().map(|state| &state.id).collect::<Vec<_>>(), [&id]);
    let error = other.state(&damaged).await.expect_err("it is damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    std::fs::write(&record, &whole).expect("mended");
    for id in [&id, &damaged] {
        other.delete(id, DeleteMode::Force).await.expect("deleted");
    }
}

#[tokio::test]
async fn a_stream_that_is_null_is_the_containers_own_null() {
    let Some(place) = place() else { return };
    let id = new_id();
    let script = "stat -L -c '%d %t:%T' /proc/self/fd/0 /proc/self/fd/1 /dev/null /dev/zero >/out";
    let request = place.request(
        &id,
        &spec(&["sh", "-c", &format!("sh -c \"{script}\" >/dev/null")]),
        Io::null(),
    );
    place.executor.create(request).await.expect("created");
    place.executor.start(&id).await.expect("started");
    assert_eq!(
        place.executor.wait(&id, &ProcessId::Init).await.expect("it ends").code,
        0
    );
    let out = std::fs::read_to_string(place.dir.path().join("rootfs/out")).expect("it was written");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], lines[2], "stdin is on the container's own filesystem");
    assert_ne!(lines[2], lines[3]);
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}
