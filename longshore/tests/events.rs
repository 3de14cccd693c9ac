//! What is told besides the common life: want of memory, changed records, namespaces, and who asked for what.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use longshore::events::{Bus, Filter, Received, Recorder};
use longshore::{DeleteMode, Engine, ErrorKind, Event, EventKind, Io};
use longshore_testing::{require_root, skip};
use support::{Site, sleeper};

/// The engine, and what it tells.
fn recorded(engine: &Engine) -> (Engine, Recorder) {
    let recorder = Recorder::new();
    let sinks = vec![Arc::new(recorder.clone()) as Arc<dyn longshore::EventSink>];
    let engine = Engine {
        sinks,
        asker: "alice".to_owned(),
        ..engine.clone()
    };
    (engine, recorder)
}

/// Those that are of one kind, told by a name.
fn kinds(recorder: &Recorder, topic: &str) -> Vec<EventKind> {
    let events = recorder.events().into_iter();
    events
        .filter(|event| event.topic() == topic)
        .map(|event| event.kind)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn want_of_memory_is_told_once_a_kill_though_the_container_lives_on() {
    let Some((_folder, engine, image)) = Site::parts().await else {
        return;
    };
    let (engine, recorder) = recorded(&engine);
    let hungry =
        "(x=$(while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done)); echo survived; exit 5";
    let builder = engine.container("hungry").image(&image).args(["/bin/sh", "-c", hungry]);
    let builder = builder.spec(|spec| spec.memory(16 << 20)).io(Io::null());
    let container = match builder.create().await {
        Ok(container) => container,
        Err(error) if error.kind() == ErrorKind::Unsupported => return skip("memory can't be limited here"),
        Err(error) => panic!("{error:?}"),
    };
    container.start().await.expect("started");
    assert_eq!(
        container.wait().await.expect("it ends").code,
        5,
        "the shell itself was not killed"
    );
    let told = recorder.topics();
    let oom = told
        .iter()
        .position(|topic| *topic == "/tasks/oom")
        .expect("it is told");
    let exit = told
        .iter()
        .position(|topic| *topic == "/tasks/exit")
        .expect("it is told");
    assert!(oom < exit, "in this order: {told:?}");
    let scraped = engine.clone();
    let text = tokio::spawn(async move { scraped.metrics().await });
    let text = text.await.expect("a task of another thread").expect("metrics");
    assert!(!text.contains("longshore_container_oom_kills_total 0\n"), "{text}");
    container.delete(DeleteMode::Stopped).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_execs_and_changed_records_are_told() {
    let Some((_folder, engine, image)) = Site::parts().await else {
        return;
    };
    let (engine, recorder) = recorded(&engine);
    let container = sleeper(&engine, &image, "c").await;
    recorder.take();
    container.pause().await.expect("paused");
    container.resume().await.expect("resumed");
    container
        .command(["/bin/sh", "-c", "exit 0"])
        .id("e")
        .run()
        .await
        .expect("run");
    assert_eq!(
        recorder.topics(),
        [
            "/tasks/paused",
            "/tasks/resumed",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit"
        ]
    );
    container.set_label("team", Some("a")).await.expect("labelled");
    container.set_label("team", None).await.expect("labelled");
    let error = container
        .set_label("containerd.io/gc.root", Some("x"))
        .await
        .expect_err("it is the engine's");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let updates = kinds(&recorder, "/containers/update");
    let teams: Vec<Option<&str>> = updates
        .iter()
        .map(|kind| match kind {
            EventKind::ContainerUpdate {
                id,
                image: of,
                labels,
                snapshot_key,
            } => {
                assert_eq!(
                    (id.as_str(), of.as_str(), snapshot_key.as_str()),
                    ("c", image.name(), "default/c")
                );
                labels.get("team").map(String::as_str)
            }
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(teams, [Some("a"), None]);
    assert!(!container.labels().await.expect("labels").contains_key("team"));
    container.delete(DeleteMode::Force).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_told_in_themselves() {
    let folder = tempfile::tempdir().expect("a folder");
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let (engine, recorder) = recorded(&Engine::open(folder.path()).await.expect("an engine"));
    let labels = |value: &str| BTreeMap::from([("a".to_owned(), value.to_owned())]);
    engine.create_namespace("ci", labels("1")).await.expect("created");
    let twice = engine
        .create_namespace("ci", labels("1"))
        .await
        .expect_err("it is there");
    assert_eq!(twice.kind(), ErrorKind::AlreadyExists);
    engine.label_namespace("ci", labels("1")).await.expect("as it was");
    engine.label_namespace("ci", labels("2")).await.expect("labelled");
    engine.label_namespace("new", labels("3")).await.expect("recorded");
    assert_eq!(engine.namespace_labels("ci").await.expect("read"), Some(labels("2")));
    engine.delete_namespace("ci").await.expect("deleted");
    let missing = engine.delete_namespace("ci").await.expect_err("it is gone");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let told: Vec<String> = recorder
        .events()
        .iter()
        .map(|event| format!("{} {}", event.namespace, event.kind))
        .collect();
    assert_eq!(
        told,
        [
            "ci /namespaces/create name=ci labels=a=1",
            "ci /namespaces/update name=ci labels=a=2",
            "new /namespaces/create name=new labels=a=3",
            "ci /namespaces/delete name=ci"
        ]
    );
    assert_eq!(engine.namespaces().await.expect("a list"), ["new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_and_what_came_of_it_is_told() {
    let Some((_folder, engine, image)) = Site::parts().await else {
        return;
    };
    let program = engine.asker.clone();
    assert!(program.contains(&format!("[{}]", std::process::id())), "{program}");
    let (engine, recorder) = recorded(&engine);
    let container = sleeper(&engine, &image, "c").await;
    container.start().await.expect_err("it runs");
    container.resume().await.expect_err("it is not paused");
    engine.remove_image("nobody").await.expect_err("it is not here");
    container.kill(9).await.expect("killed");
    container.wait().await.expect("it ends");
    container.delete(DeleteMode::Stopped).await.expect("deleted");

    let events = recorder.events();
    assert!(
        events.iter().all(|event| event.by.as_deref() == Some("alice")),
        "{events:?}"
    );
    let requests: Vec<(String, String, String)> = events.into_iter().filter_map(request).collect();
    let asked: Vec<(&str, &str)> = requests
        .iter()
        .map(|(what, on, _)| (what.as_str(), on.as_str()))
        .collect();
    assert_eq!(
        asked,
        [
            ("start", "c"),
            ("resume", "c"),
            ("remove image", "nobody"),
            ("signal 9", "c")
        ]
    );
    assert!(requests[0].2.contains("starting container 'c': "), "{requests:?}");
    assert_eq!(requests[3].2, "done");
}

fn request(event: Event) -> Option<(String, String, String)> {
    match event.kind {
        EventKind::Request {
            request,
            target,
            outcome,
        } => Some((request, target, outcome)),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_does_not_read_holds_up_no_container() {
    let Some((_folder, engine, image)) = Site::parts().await else {
        return;
    };
    let (mut engine, recorder) = recorded(&engine);
    let bus = Bus::new(2);
    let mut stalled = bus.subscribe(Filter::all());
    engine.sinks.push(Arc::new(bus));
    for round in 0..3 {
        let builder = engine.container(format!("c{round}")).image(&image);
        let container = builder
            .args(["/bin/sh", "-c", ":"])
            .io(Io::null())
            .create()
            .await
            .expect("created");
        assert_eq!(container.run().await.expect("it runs").code, 0);
    }
    let told = recorder.events();
    assert!(told.len() > 9, "each is created, started and ended: {told:?}");
    let read: Vec<Received> = std::iter::from_fn(|| stalled.try_recv()).collect();
    let [Received::Missed(missed), Received::Event(_), Received::Event(last)] = read.as_slice() else {
        panic!("two fit into its queue: {read:?}");
    };
    assert_eq!(*missed as usize, told.len() - 2, "it is told of all the others");
    assert_eq!(Some(last.topic()), told.last().map(Event::topic), "and has the newest");
}
