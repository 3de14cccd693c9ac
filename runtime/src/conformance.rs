//! The suite that every [`Executor`] runs against itself; a wrapper runs it too.
//!
//! Each function panics with what is wrong. [`all`] runs them one after the other.

use std::io::Read;

use oci_spec::runtime::{Process, ProcessBuilder};

use crate::{
    ContainerId, CreateRequest, DeleteMode, ErrorKind, ExecRequest, Executor, Io, KillScope, ProcessId, Stats, Status,
};

/// What the suite needs besides the executor.
pub trait Fixture: Sync {
    /// Asks for a container that runs this line with `/bin/sh -c`, on a root filesystem that has `echo`, `sleep` and `true` in `/bin`.
    fn request(&self, id: &ContainerId, line: &str, io: Io) -> CreateRequest;
}

/// All of it.
pub async fn all(executor: &dyn Executor, fixture: &dyn Fixture) {
    a_life(executor, fixture).await;
    calls_out_of_order(executor, fixture).await;
    waiting(executor, fixture).await;
    signals(executor, fixture).await;
    other_processes(executor, fixture).await;
    many_at_once(executor, fixture).await;
    samples(executor, fixture).await;
    a_create_that_is_given_up(executor, fixture).await;
}

fn id(name: &str) -> ContainerId {
    ContainerId::new(format!("conformance-{name}-{}", std::process::id())).expect("it is a valid id")
}

async fn create(executor: &dyn Executor, fixture: &dyn Fixture, id: &ContainerId, line: &str) {
    let state = executor
        .create(fixture.request(id, line, Io::null()))
        .await
        .expect("a container is created");
    assert_eq!(state.status, Status::Created, "create returns a created container");
    assert_eq!(&state.id, id);
}

async fn gone(executor: &dyn Executor, id: &ContainerId) {
    let error = executor
        .state(id)
        .await
        .expect_err("a container that is not there has no state");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        executor
            .list()
            .await
            .expect("there is a list")
            .iter()
            .all(|s| s.id != *id),
        "and is not listed"
    );
}

/// Create, start, wait, delete; the output has arrived when wait returns.
pub async fn a_life(executor: &dyn Executor, fixture: &dyn Fixture) {
    let id = id("life");
    gone(executor, &id).await;
    let (io, mut ends) = Io::pipe().expect("there are pipes");
    executor
        .create(fixture.request(&id, "echo out; echo err >&2; exit 3", io))
        .await
        .expect("it is created");
    let state = executor.state(&id).await.expect("it is known");
    assert!(state.pid.is_some(), "a created container has a process");
    executor.start(&id).await.expect("it starts");
    let exit = executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    assert_eq!(exit.code, 3);
    let (mut out, mut err) = (String::new(), String::new());
    ends.stdout.read_to_string(&mut out).expect("it is text");
    ends.stderr.read_to_string(&mut err).expect("it is text");
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    let state = executor.state(&id).await.expect("it is known until it is deleted");
    assert_eq!((state.status, state.pid), (Status::Stopped, None));
    assert_eq!(state.exit.map(|e| e.code), Some(3));
    executor.delete(&id, DeleteMode::Stopped).await.expect("it is deleted");
    gone(executor, &id).await;
}

/// Samples come in the order in which they are asked for, and tell what is told of each alone; one that is not there is missing alone.
pub async fn samples(executor: &dyn Executor, fixture: &dyn Fixture) {
    let ids: Vec<_> = (0..5).map(|number| id(&format!("sample-{number}"))).collect();
    let there = [&ids[3], &ids[0], &ids[4], &ids[1]];
    for id in there {
        create(executor, fixture, id, "sleep 1000").await;
        executor.start(id).await.expect("it starts");
    }
    for id in &ids[..2] {
        executor.pause(id).await.expect("it is paused");
    }
    let sampled = executor.sample(&ids).await;
    assert_eq!(sampled.len(), ids.len());
    for (id, sample) in ids.iter().zip(sampled) {
        let Ok(alone) = executor.stats(id).await else {
            let missing = sample.expect_err("nobody is there to be looked at");
            assert_eq!((id, missing.kind()), (&ids[2], ErrorKind::NotFound));
            continue;
        };
        let sample = sample.expect("figures");
        let limits = |stats: &Stats| stats.memory.as_ref().map(|memory| memory.limit);
        assert_eq!(sample.pids, alone.pids, "{id}");
        assert_eq!(limits(&sample), limits(&alone), "{id}");
        assert_eq!(sample.cpu.is_some(), alone.cpu.is_some(), "{id}");
        assert_eq!(sample.io.is_some(), alone.io.is_some(), "{id}");
        assert!(sample.at <= alone.at, "it was sampled before");
        if let (Some(sample), Some(alone)) = (&sample.cpu, &alone.cpu) {
            assert!(sample.total <= alone.total, "{id}");
        }
    }
    assert!(executor.sample(&[]).await.is_empty());
    for id in there {
        executor.delete(id, DeleteMode::Force).await.expect("it is deleted");
    }
}

/// Calls in a state that does not allow them say so and change nothing.
pub async fn calls_out_of_order(executor: &dyn Executor, fixture: &dyn Fixture) {
    let id = id("order");
    let missing = executor.start(&id).await.expect_err("it is not there");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    create(executor, fixture, &id, "sleep 1000").await;
    let again = executor
        .create(fixture.request(&id, "true", Io::null()))
        .await
        .expect_err("the id is taken");
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    // Another process may come before the container's own.
    let early = executor.exec(&id, ExecRequest::new("x", shell("exit 6"), Io::null()));
    early.await.expect("it is created");
    let exit = executor.wait(&id, &ProcessId::Exec("x".into())).await.expect("it ends");
    assert_eq!(exit.code, 6);
    executor.start(&id).await.expect("the calls left it as it was");
    let twice = executor.start(&id).await.expect_err("it runs");
    assert_eq!(twice.kind(), ErrorKind::FailedPrecondition);
    let running = executor.delete(&id, DeleteMode::Stopped).await.expect_err("it runs");
    assert_eq!(running.kind(), ErrorKind::FailedPrecondition);
    executor
        .delete(&id, DeleteMode::Force)
        .await
        .expect("it is killed and deleted");
    gone(executor, &id).await;
}

/// Any number may wait, before and after the end.
pub async fn waiting(executor: &dyn Executor, fixture: &dyn Fixture) {
    let id = id("wait");
    create(executor, fixture, &id, "exit 9").await;
    let init = ProcessId::Init;
    let waits = futures::future::join_all((0..5).map(|_| executor.wait(&id, &init)));
    let (exits, started) = futures::future::join(waits, executor.start(&id)).await;
    started.expect("it starts");
    assert!(exits.into_iter().all(|e| e.expect("it ends").code == 9));
    let late = executor
        .wait(&id, &init)
        .await
        .expect("one that comes late is told at once");
    assert_eq!(late.code, 9);
    executor.delete(&id, DeleteMode::Stopped).await.expect("it is deleted");
}

/// A signal ends it with 128 and its number; afterwards there is nobody to signal.
pub async fn signals(executor: &dyn Executor, fixture: &dyn Fixture) {
    let id = id("signal");
    create(executor, fixture, &id, "sleep 1000").await;
    executor.start(&id).await.expect("it starts");
    executor.kill(&id, 9, KillScope::Init).await.expect("a signal is sent");
    assert_eq!(executor.wait(&id, &ProcessId::Init).await.expect("it ends").code, 137);
    let late = executor
        .kill(&id, 9, KillScope::Init)
        .await
        .expect_err("it has stopped");
    assert_eq!(late.kind(), ErrorKind::FailedPrecondition);
    executor.delete(&id, DeleteMode::Stopped).await.expect("it is deleted");
}

fn shell(line: &str) -> Process {
    ProcessBuilder::default()
        .args(["/bin/sh", "-c", line].map(str::to_owned))
        .cwd("/")
        .env(["PATH=/bin".to_owned()])
        .build()
        .expect("it is a process")
}

/// Other processes in a container have their own ends.
pub async fn other_processes(executor: &dyn Executor, fixture: &dyn Fixture) {
    let id = id("exec");
    create(executor, fixture, &id, "sleep 1000").await;
    executor.start(&id).await.expect("it starts");
    let pid = executor
        .exec(&id, ExecRequest::new("x", shell("exit 4"), Io::null()))
        .await
        .expect("it runs");
    assert!(pid > 0);
    let taken = executor
        .exec(&id, ExecRequest::new("x", shell("true"), Io::null()))
        .await;
    assert_eq!(taken.expect_err("the name is taken").kind(), ErrorKind::AlreadyExists);
    let exit = executor.wait(&id, &ProcessId::Exec("x".into())).await.expect("it ends");
    assert_eq!(exit.code, 4);
    let missing = executor
        .wait(&id, &ProcessId::Exec("y".into()))
        .await
        .expect_err("there is none");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(executor.state(&id).await.expect("it is known").status, Status::Running);
    executor.delete(&id, DeleteMode::Force).await.expect("it is deleted");
}

/// Containers at once do not get into each other's way, and are listed in order.
pub async fn many_at_once(executor: &dyn Executor, fixture: &dyn Fixture) {
    let ids: Vec<_> = (0..16).map(|i| id(&format!("many{i:02}"))).collect();
    let creates = ids
        .iter()
        .map(|id| executor.create(fixture.request(id, "exit 0", Io::null())));
    for created in futures::future::join_all(creates).await {
        created.expect("each is created");
    }
    let listed: Vec<_> = executor
        .list()
        .await
        .expect("there is a list")
        .into_iter()
        .map(|s| s.id)
        .collect();
    let ours: Vec<_> = listed.iter().filter(|id| ids.contains(id)).cloned().collect();
    assert_eq!(ours, ids, "all are listed, ordered by id");
    let lives = ids.iter().map(|id| async move {
        executor.start(id).await.expect("it starts");
        let exit = executor.wait(id, &ProcessId::Init).await.expect("it ends");
        executor.delete(id, DeleteMode::Stopped).await.expect("it is deleted");
        exit.code
    });
    assert!(futures::future::join_all(lives).await.into_iter().all(|code| code == 0));
}

/// A create whose future is dropped leaves nothing: the id is free again.
pub async fn a_create_that_is_given_up(executor: &dyn Executor, fixture: &dyn Fixture) {
    let id = id("dropped");
    {
        let mut create = executor.create(fixture.request(&id, "sleep 1000", Io::null()));
        // Once is enough to set it going.
        let _ = futures::poll!(&mut create);
    }
    // What had begun is taken back by and by.
    for _ in 0..2000 {
        match executor.create(fixture.request(&id, "true", Io::null())).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            created => {
                created.expect("the id is free");
                executor.delete(&id, DeleteMode::Force).await.expect("it is deleted");
                return;
            }
        }
    }
    panic!("the id is still taken");
}
