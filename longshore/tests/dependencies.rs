//! Containers are started after what they need, and stopped before it.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longshore::events::Recorder;
use longshore::{
    Condition, ContainerBuilder, DeleteMode, Engine, ErrorKind, EventKind, HealthCheck, Image, Io, Lifetime,
    RestartPolicy, Status,
};
use support::Site;

const LONG: &str = "exec sleep 1000";

/// The first process of a PID namespace has no default for SIGTERM, so that each is killed after it.
const GRACE: Duration = Duration::from_millis(1);

fn script(engine: &Engine, image: &Image, id: &str, script: &str) -> ContainerBuilder {
    let builder = engine.container(id).image(image).args(["/bin/sh", "-c", script]);
    builder.lifetime(Lifetime::Detached)
}

/// Fast, and only well once the container says so.
fn check() -> HealthCheck {
    let mut check = HealthCheck::new(["/bin/sh", "-c", "[ -e /well ]"]);
    check.interval = Duration::from_millis(5);
    check.retries = 100_000;
    check
}

fn recorded(engine: Engine) -> (Engine, Recorder) {
    let recorder = Recorder::new();
    let sinks = vec![Arc::new(recorder.clone()) as _];
    (Engine { sinks, ..engine }, recorder)
}

/// The starts and ends of containers, in order: `start web`, `exit web`. Those of other processes in them are left out.
fn told(recorder: &Recorder) -> Vec<String> {
    let line = |kind: &EventKind| match kind {
        EventKind::TaskStart { container_id, .. } => Some(format!("start {container_id}")),
        EventKind::TaskExit { container_id, id, .. } if container_id == id => Some(format!("exit {container_id}")),
        _ => None,
    };
    recorder.events().iter().filter_map(|event| line(&event.kind)).collect()
}

fn place(told: &[String], what: &str) -> usize {
    let found = told.iter().position(|line| line == what);
    found.unwrap_or_else(|| panic!("no '{what}' in {told:?}"))
}

async fn remove_all(engine: &Engine) {
    for container in engine.containers().await.expect("a list") {
        container.delete(DeleteMode::Force).await.expect("deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_started_after_what_it_needs_and_stopped_before() {
    let Some((_folder, engine, image)) = Site::parts().await else {
        return;
    };
    let (engine, recorder) = recorded(engine);
    let web = script(&engine, &image, "web", LONG)
        .depends_on("migrate", Condition::Completed)
        .depends_on("db", Condition::Healthy);
    let web = web.create().await.expect("created");
    let needs = web.dependencies().await.expect("known");
    assert_eq!(
        needs,
        BTreeMap::from([
            ("db".into(), Condition::Healthy),
            ("migrate".into(), Condition::Completed)
        ])
    );
    let early = engine
        .start_in_order(&["web"], |_| Io::null())
        .await
        .expect_err("they are not there");
    assert_eq!(early.kind(), ErrorKind::FailedPrecondition, "{early}");
    assert!(
        early.to_string().contains("'web': it needs container '") && early.to_string().contains("create that first"),
        "{early}"
    );

    let db = script(&engine, &image, "db", &format!("sleep 0.2; : >/well; {LONG}")).health_check(&check());
    let db = db.create().await.expect("created");
    let migrate = script(&engine, &image, "migrate", "echo run >>/runs; sleep 0.1");
    let migrate = migrate
        .depends_on("db", Condition::Started)
        .create()
        .await
        .expect("created");
    let order = engine.start_order(&["web"]).await.expect("an order");
    assert_eq!(
        order.iter().map(|one| one.id()).collect::<Vec<_>>(),
        ["db", "migrate", "web"]
    );

    engine
        .start_in_order(&["web"], |_| Io::null())
        .await
        .expect("all are started");
    let so_far = told(&recorder);
    assert!(
        place(&so_far, "start db") < place(&so_far, "start migrate"),
        "{so_far:?}"
    );
    assert!(
        place(&so_far, "exit migrate") < place(&so_far, "start web"),
        "{so_far:?}"
    );
    assert!(db.is_well(&check()).await.expect("it runs"), "web was started before");

    let stopped = engine
        .stop_in_order(&["db", "none", "web"], GRACE)
        .await
        .expect("a list");
    assert_eq!(
        stopped.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(),
        ["db", "none", "web"]
    );
    let ended = |place: usize| stopped[place].1.as_ref().expect("stopped").at;
    assert!(ended(2) <= ended(0), "{stopped:?}");
    assert_eq!(
        stopped[1].1.as_ref().expect_err("there is none").kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        engine
            .stop_order(&["none", "db", "migrate", "web"])
            .await
            .expect("an order"),
        ["web", "migrate", "db", "none"]
    );

    let order = engine.start_order(&["web"]).await.expect("an order");
    assert_eq!(
        order.iter().map(|one| one.id()).collect::<Vec<_>>(),
        ["db", "web"],
        "the migration is done"
    );
    // What has completed is not run again, unless asked for itself; what has ended and is to run, is.
    engine
        .start_in_order(&["web"], |_| Io::null())
        .await
        .expect("all are started again");
    for container in [&db, &web] {
        assert_eq!(
            container.state().await.expect("known").status,
            Status::Running,
            "{}",
            container.id()
        );
    }
    let starts = |what: &str| told(&recorder).iter().filter(|line| *line == what).count();
    assert_eq!(
        (starts("start migrate"), starts("start db"), starts("start web")),
        (1, 2, 2)
    );
    engine
        .start_in_order(&["migrate", "web"], |_| Io::null())
        .await
        .expect("it is run again");
    assert_eq!(
        (starts("start migrate"), starts("start db"), starts("start web")),
        (2, 2, 2)
    );
    migrate.wait().await.expect("it ends");
    remove_all(&engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_met_is_told() {
    let Some((_folder, engine, image)) = Site::parts().await else {
        return;
    };
    let (engine, recorder) = recorded(engine);
    for (id, what, needs) in [
        ("a", LONG, &[("b", Condition::Started)][..]),
        ("b", LONG, &[("c", Condition::Started)]),
        ("c", LONG, &[("b", Condition::Completed)]),
        ("fails", "exit 3", &[]),
        ("after", LONG, &[("fails", Condition::Completed)]),
        ("afterwards", LONG, &[("after", Condition::Started)]),
        ("free", LONG, &[]),
        ("mute", LONG, &[("free", Condition::Healthy)]),
    ] {
        let builder = script(&engine, &image, id, what);
        let builder = needs
            .iter()
            .fold(builder, |builder, (id, condition)| builder.depends_on(*id, *condition));
        builder.create().await.expect("created");
    }
    let mut sick = check();
    sick.retries = 2;
    let sick = script(&engine, &image, "sick", LONG).health_check(&sick);
    sick.create().await.expect("created");
    let nurse = script(&engine, &image, "nurse", LONG).depends_on("sick", Condition::Healthy);
    nurse.create().await.expect("created");
    let short = script(&engine, &image, "short", "sleep 0.1").health_check(&check());
    short.create().await.expect("created");
    let late = script(&engine, &image, "late", LONG).depends_on("short", Condition::Healthy);
    late.create().await.expect("created");

    let circle = engine
        .start_in_order(&["a"], |_| Io::null())
        .await
        .expect_err("a circle");
    assert!(circle.to_string().contains("b needs c needs b"), "{circle}");
    assert!(told(&recorder).is_empty(), "nothing is started");

    for (id, expected) in [
        (
            "after",
            "'after': it needs container 'fails', which was to end with 0 and ended with 3",
        ),
        ("mute", "'mute': it needs container 'free', which has no health check"),
        (
            "nurse",
            "'nurse': it needs container 'sick', which is not well: 2 health checks",
        ),
        (
            "late",
            "'late': it needs container 'short', which ended with 0 before it was healthy",
        ),
    ] {
        let error = engine.start_in_order(&[id], |_| Io::null()).await.expect_err(id);
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        let state = engine
            .find_container(id)
            .await
            .expect("known")
            .state()
            .await
            .expect("known");
        assert_eq!(state.status, Status::Created, "{id} is not started");
    }
    // The first cause is told, and what does not need it goes on.
    let error = engine
        .start_in_order(&["afterwards", "free"], |_| Io::null())
        .await
        .expect_err("not all");
    assert!(
        error.to_string().contains("'fails', which was to end with 0"),
        "{error}"
    );
    // A circle of others keeps nobody from being stopped.
    let stopped = engine.stop_in_order(&["b", "c", "free"], GRACE).await.expect("a list");
    assert!(
        stopped[2].1.as_ref().is_ok_and(|status| status.code == 137),
        "{stopped:?}"
    );
    remove_all(&engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_host_keeps_the_order() {
    let Some((folder, engine, image)) = Site::parts().await else {
        return;
    };
    let first_ends =
        |more: &str| format!("echo run >>/runs; n=$(wc -l </runs); rm -f /well; [ $n = 1 ] || {{ {more}; {LONG}; }}");
    let db = script(&engine, &image, "db", &first_ends("sleep 0.2; : >/well")).health_check(&check());
    let db = db
        .restart_policy(RestartPolicy::Always)
        .create()
        .await
        .expect("created");
    // Nobody restarts it but those who need it.
    let cache = script(&engine, &image, "cache", &first_ends(":"))
        .create()
        .await
        .expect("created");
    let a_web = script(&engine, &image, "a-web", &first_ends(":"))
        .depends_on("db", Condition::Healthy)
        .depends_on("cache", Condition::Started);
    let a_web = a_web
        .restart_policy(RestartPolicy::Always)
        .create()
        .await
        .expect("created");
    let lost = script(&engine, &image, "lost", &first_ends(":")).depends_on("nobody", Condition::Started);
    let lost = lost
        .restart_policy(RestartPolicy::Always)
        .create()
        .await
        .expect("created");
    for container in [db, cache, a_web, lost] {
        container.start().await.expect("started");
        container.wait().await.expect("it ends");
    }
    drop(engine);

    let engine = support::reopen(folder.path()).await;
    let (engine, recorder) = recorded(engine);
    let all = engine.supervise_all(|_| Io::null()).await.expect("a list");
    let ids: Vec<&str> = all.iter().map(|one| one.container().id()).collect();
    assert_eq!(ids, ["a-web", "db"], "one that needs what is not there is left");
    let web = engine.find_container("a-web").await.expect("known");
    while !told(&recorder).iter().any(|line| line == "start a-web") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let db = engine.find_container("db").await.expect("known");
    assert!(
        db.is_well(&check()).await.expect("it runs"),
        "the web was started before"
    );
    let so_far = told(&recorder);
    assert!(place(&so_far, "start db") < place(&so_far, "start a-web"), "{so_far:?}");
    assert!(
        place(&so_far, "start cache") < place(&so_far, "start a-web"),
        "{so_far:?}"
    );
    assert_eq!(so_far.len(), 3, "{so_far:?}");

    // Taken up anew while all run, nothing is started.
    drop(all);
    let all = engine.supervise_all(|_| Io::null()).await.expect("a list");
    assert_eq!((all.len(), told(&recorder).len()), (2, 3));
    drop(all);

    // One whose need is not met is started when it is, and one that somebody stops while it waits is not.
    engine.stop_in_order(&["a-web", "db"], GRACE).await.expect("a list");
    let refusing = script(&engine, &image, "refusing", "[ -e /go ] && exec sleep 1000; exit 1");
    refusing.create().await.expect("created");
    web.set_dependencies(&BTreeMap::from([("refusing".to_owned(), Condition::Completed)]))
        .await
        .expect("set");
    let all = engine.supervise_all(|_| Io::null()).await.expect("a list");
    let waiting = all
        .into_iter()
        .find(|one| one.container().id() == "a-web")
        .expect("it is supervised");
    web.stop(9, Duration::ZERO).await.expect("stopped");
    let ended = waiting.ended().await;
    assert!(ended.is_err(), "it was never started: {ended:?}");
    assert_eq!(web.state().await.expect("known").status, Status::Stopped);
    remove_all(&engine).await;
}
