//! Containers are started again as their policies say, and asked how they are.

mod support;

use std::sync::Arc;
use std::time::Duration;

use longshore::events::Recorder;
use longshore::{
    Container, DeleteMode, Engine, ErrorKind, Health, HealthCheck, Image, Io, Lifetime, RestartPolicy, Status,
};
use support::Site;

/// Each run adds a line to a file of its own, and ends as the script says.
async fn counting(engine: &Engine, image: &Image, id: &str, policy: &str, script: &str) -> Container {
    let script = format!("echo run >>/runs; n=$(wc -l </runs); {script}");
    let builder = engine.container(id).image(image).args(["/bin/sh", "-c", &script]);
    let builder = builder
        .restart_policy(policy.parse().expect("a policy"))
        .lifetime(Lifetime::Detached);
    builder.create().await.expect("created")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_starts_again_until_it_is_content() {
    let Some((_folder, engine, image)) = Site::parts().await else {
        return;
    };
    let recorder = Recorder::new();
    let engine = Engine {
        sinks: vec![Arc::new(recorder.clone())],
        ..engine
    };
    let container = counting(&engine, &image, "c", "on-failure", "[ $n = 3 ] || exit $n").await;
    let supervision = container.supervise(Io::null);
    container.start().await.expect("started");
    let status = supervision.ended().await.expect("it ends");
    assert_eq!(status.code, 0, "the third run succeeded");
    let starts = recorder
        .topics()
        .iter()
        .filter(|topic| **topic == "/tasks/start")
        .count();
    let ends = recorder
        .topics()
        .iter()
        .filter(|topic| **topic == "/tasks/exit")
        .count();
    assert_eq!((starts, ends), (3, 3));
    assert!(
        engine
            .senses
            .text()
            .contains("container_restarts_total{outcome=\"success\"} 2"),
        "{}",
        engine.senses.text()
    );
    container.delete(DeleteMode::Stopped).await.expect("deleted");

    let container = counting(&engine, &image, "limited", "on-failure:1", "exit $n").await;
    container.start().await.expect("started");
    let supervision = container.supervise(Io::null);
    assert_eq!(supervision.ended().await.expect("it ends").code, 2);
    container.delete(DeleteMode::Stopped).await.expect("deleted");

    let container = counting(&engine, &image, "no", "no", "exit $n").await;
    container.start().await.expect("started");
    assert_eq!(container.supervise(Io::null).ended().await.expect("it ends").code, 1);
    container.restart(Io::null()).await.expect("restarted by hand");
    assert_eq!(
        container.wait().await.expect("it ends").code,
        2,
        "the files are those of the first run"
    );
    container.restart(Io::null()).await.expect("restarted by hand");
    let early = container.restart(Io::null()).await;
    if let Err(error) = early {
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    }
    container.delete(DeleteMode::Force).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stopped_stays_so() {
    let Some((_folder, engine, image)) = Site::parts().await else {
        return;
    };
    let container = counting(&engine, &image, "c", "always", "[ $n = 1 ] || exec sleep 1000").await;
    let mut supervision = container.supervise(Io::null);
    container.start().await.expect("started");
    assert_eq!(supervision.restarted(1).await, Some(1));
    // Another handle of the same container, as another part of a program has.
    let other = engine.find_container("c").await.expect("known");
    let status = other.stop(9, Duration::from_secs(60)).await.expect("stopped");
    assert_eq!(supervision.ended().await.expect("it ends"), status);
    assert_eq!(other.state().await.expect("known").status, Status::Stopped);

    // When supervision is taken up anew: always means always.
    other
        .set_restart_policy("unless-stopped".parse().expect("a policy"))
        .await
        .expect("set");
    assert!(engine.supervise_all(|_| Io::null()).await.expect("a list").is_empty());
    other.set_restart_policy(RestartPolicy::Always).await.expect("set");
    let all = engine.supervise_all(|_| Io::null()).await.expect("a list");
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].container().id(), "c");
    assert_eq!(other.state().await.expect("known").status, Status::Running);
    drop(all);
    other.delete(DeleteMode::Force).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_ends_the_supervision() {
    let Some((_folder, engine, image)) = Site::parts().await else {
        return;
    };
    let container = counting(&engine, &image, "c", "always", "exec sleep 1000").await;
    container.start().await.expect("started");
    let supervision = container.supervise(Io::null);
    container.delete(DeleteMode::Force).await.expect("deleted");
    // The wait may have begun before or after it was gone.
    let outcome = supervision.ended().await;
    assert!(
        matches!(&outcome, Ok(status) if status.code == 137)
            || matches!(&outcome, Err(error) if error.kind() == ErrorKind::NotFound),
        "{outcome:?}"
    );
    assert!(engine.containers().await.expect("a list").is_empty());
    assert_eq!(container.state().await.expect_err("gone").kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_host_takes_up_what_ran_and_what_ended_meanwhile() {
    let Some((folder, engine, image)) = Site::parts().await else {
        return;
    };
    let runs = counting(&engine, &image, "runs", "always", "exec sleep 1000").await;
    runs.start().await.expect("started");
    let pid = runs.state().await.expect("known").pid;
    let ends = counting(&engine, &image, "ends", "always", "[ $n = 1 ] || exec sleep 1000").await;
    ends.start().await.expect("started");
    ends.wait().await.expect("it ends");
    drop((runs, ends, engine));

    let engine = support::reopen(folder.path()).await;
    let all = engine.supervise_all(|_| Io::null()).await.expect("a list");
    assert_eq!(all.len(), 2);
    for supervision in &all {
        let state = supervision.container().state().await.expect("known");
        assert_eq!(state.status, Status::Running, "{}", supervision.container().id());
    }
    assert_eq!(
        all[1].container().state().await.expect("known").pid,
        pid,
        "it was left alone"
    );
    for supervision in all {
        let container = supervision.container().clone();
        drop(supervision);
        container.delete(DeleteMode::Force).await.expect("deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_asked_for() {
    let Some((_folder, engine, image)) = Site::parts().await else {
        return;
    };
    assert_eq!(engine.health_check(&image).await.expect("a config"), None);
    let container = support::sleeper(&engine, &image, "c").await;
    let mut check = HealthCheck::new(["/bin/sh", "-c", "[ -e /well ]"]);
    check.interval = Duration::from_millis(5);
    check.retries = 2;
    let mut watch = container.watch_health(check);
    assert!(matches!(watch.changed().await, Some(Health::Unhealthy { failures: 2 })));
    let touched = container
        .command(["/bin/sh", "-c", ": >/well"])
        .run()
        .await
        .expect("run");
    assert!(touched.success());
    while watch.now() != Health::Healthy {
        watch.changed().await.expect("it goes on");
    }

    // A check that hangs is killed, and has failed.
    let mut check = HealthCheck::new(["/bin/sleep", "1000"]);
    (check.interval, check.timeout) = (Duration::from_millis(5), Duration::from_millis(20));
    check.retries = 1;
    let mut hanging = container.watch_health(check);
    assert!(matches!(hanging.changed().await, Some(Health::Unhealthy { .. })));
    drop((hanging, watch));
    container.delete(DeleteMode::Force).await.expect("deleted");
}
