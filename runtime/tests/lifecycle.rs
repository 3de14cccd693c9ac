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
